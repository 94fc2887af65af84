"""Adaptive attacks: BPDA, EOT, and the gradient of a distilled student."""

import pickle
import threading
from functools import partial

import pytest
import torch
from torch import nn

from distillguard import UndefendedClassifier, attacks, datasets, networks
from distillguard.adaptive import (
    averaged,
    distil_surrogate,
    gradient_from,
    straight_through,
)
from distillguard.adaptive._surrogate import _Lesson


class Quantise(nn.Module):
    """Four levels, computed where autograd cannot follow."""

    def forward(self, x):
        return torch.from_numpy((x.cpu() * 4).numpy().round() / 4)


class Halves(nn.Module):
    """Keeps every second feature, and cuts the graph."""

    def forward(self, x):
        return x.detach()[:, ::2]


class TwoValued(nn.Module):
    """Multiplies by 1 or by 3, by the toss of a coin."""

    def __init__(self):
        super().__init__()
        self.tosses = []

    def forward(self, x):
        self.tosses.append(1.0 if torch.rand(()) < 0.5 else 3.0)
        return x * self.tosses[-1]


def gradient_of(function, inputs):
    inputs = inputs.clone().requires_grad_()
    outputs = function(inputs)
    weights = torch.arange(outputs.numel(), dtype=outputs.dtype).view_as(outputs).cos()
    return torch.autograd.grad((outputs * weights).sum(), inputs)[0]


def network(n_features=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, 3))


# straight_through


def test_rounding_has_the_gradient_of_the_identity_and_values_of_its_own():
    inputs = torch.linspace(-2, 2, 30).view(10, 3)
    through = straight_through(torch.round)
    assert torch.equal(through(inputs.clone().requires_grad_()), inputs.round())
    assert torch.equal(gradient_of(through, inputs), torch.arange(30.0).view(10, 3).cos())
    assert not gradient_of(torch.round, inputs).any()


@pytest.mark.parametrize("backward", [torch.sin, nn.Linear(3, 3)], ids=["function", "module"])
def test_gradients_go_back_through_what_backward_names(backward):
    inputs = torch.rand(10, 3)
    through = straight_through(torch.round, backward)
    assert torch.equal(through(inputs.clone().requires_grad_()), inputs.round())
    assert torch.equal(gradient_of(through, inputs), gradient_of(backward, inputs))


def test_reports_call_a_function_by_its_name_and_a_module_by_its_class():
    def quantised(x):
        return (4 * x).round() / 4

    told = "{} with the gradient of {} (BPDA)"
    assert straight_through(quantised).adaptation == told.format("quantised", "the identity")
    both = straight_through(Quantise(), backward=quantised)
    assert both.adaptation == told.format("Quantise", "quantised")


@pytest.mark.parametrize("by_name", [True, False])
def test_a_part_of_a_model_is_stepped_over(by_name):
    net, inputs = network(), torch.rand(5, 4)
    model = nn.Sequential(Quantise(), net)
    through = straight_through(model, part="0" if by_name else model[0])

    rounded = (inputs * 4).round() / 4
    assert torch.equal(through(inputs), model(inputs))
    assert torch.equal(through(inputs.clone().requires_grad_()), model(inputs))
    # By the chain rule: the gradient of the rest, at the values that went into it.
    assert torch.equal(gradient_of(through, inputs), gradient_of(net, rounded))


def test_the_gradient_of_a_part_that_halves_an_image_is_spread_over_the_pixels_of_each_block():
    class Shrunk(nn.Module):
        """The largest of each block of 2 x 2 pixels, by NumPy."""

        def forward(self, images):
            blocks = images.detach().numpy().reshape(len(images), 1, 14, 2, 14, 2)
            return torch.from_numpy(blocks.max(axis=(3, 5)))

    class Squares(nn.Module):
        def forward(self, images):
            return images.square()

    torch.manual_seed(0)
    inputs = torch.rand(2, 1, 28, 28)
    through = straight_through(
        nn.Sequential(Shrunk(), Squares()),
        partial(nn.functional.avg_pool2d, kernel_size=2),
        part="0",
    )
    largest = nn.functional.max_pool2d(inputs, 2)
    assert torch.equal(through(inputs.clone().requires_grad_()), largest.square())
    # Of squares: twice the value, at the values that went forwards; of a mean of four: a quarter.
    attacked = inputs.clone().requires_grad_()
    through(attacked).sum().backward()
    by_hand = (2 * largest / 4).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(attacked.grad, by_hand)


def test_the_callers_model_has_no_hooks_and_no_graph_once_it_was_asked():
    model = nn.Sequential(Quantise(), nn.Linear(4, 2))
    through = straight_through(model, part="0")
    through(torch.rand(3, 4).requires_grad_())
    with pytest.raises(RuntimeError, match="shapes"):
        through(torch.rand(3, 5).requires_grad_())
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks
    with pytest.raises(RuntimeError, match="numpy"):
        model(torch.rand(3, 4).requires_grad_())


def test_a_thread_that_asks_the_model_itself_does_not_see_the_hook():
    inside, asked, seen = threading.Event(), threading.Event(), []

    class Slow(nn.Module):
        def forward(self, x):
            if threading.current_thread() is threading.main_thread():
                inside.set()
                asked.wait(10)
            return x.detach()

    model = nn.Sequential(Slow(), nn.Identity())

    def other():
        inside.wait(10)
        seen.append(model(torch.rand(2, 2).requires_grad_()).requires_grad)
        asked.set()

    thread = threading.Thread(target=other)
    thread.start()
    gradient = gradient_of(straight_through(model, part="0"), torch.rand(2, 2))
    thread.join()
    assert torch.equal(gradient, torch.arange(4.0).view(2, 2).cos())
    assert seen == [False]


def test_a_part_that_is_used_twice_is_stepped_over_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Threshold(0.5, 0.0)

        def forward(self, x):
            return self.part(3 * self.part(x))

    inputs = torch.rand(4, 2)
    through = straight_through(Twice(), part="part")
    assert torch.equal(gradient_of(through, inputs), gradient_of(lambda x: 3 * x, inputs))


def test_several_parts_are_wrapped_one_after_the_other():
    net, inputs = network(), torch.rand(5, 4)
    model = nn.Sequential(Quantise(), nn.Hardtanh(-0.1, 0.1), net)
    both = straight_through(straight_through(model, part="0"), part="model.1")
    values = model[1](model[0](inputs))
    assert torch.equal(gradient_of(both, inputs), gradient_of(net, values))


def test_a_part_that_changes_shapes_wants_a_way_back():
    model, inputs = nn.Sequential(Halves(), network(2)), torch.rand(5, 4)
    with pytest.raises(ValueError, match=r"backward must be .* got 'identity' and \(5, 4\)"):
        straight_through(model, part="0")(inputs.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"backward must return .* \(5, 2\), got Tensor of shape"):
        straight_through(model, torch.sin, part="0")(inputs.clone().requires_grad_())
    through = straight_through(model, lambda x: x[:, ::2], part="0")
    expected = gradient_of(model[1], inputs[:, ::2])
    assert torch.equal(gradient_of(through, inputs)[:, ::2], expected)
    assert not gradient_of(through, inputs)[:, 1::2].any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, "identity"), TypeError, "target must be a function or a module, got 3"),
        ((nn.Linear, "identity"), TypeError, "target must be .* got the class Linear"),
        ((torch.round, "half"), TypeError, "backward must be 'identity', .* string 'half'"),
        ((torch.round, nn.Tanh), TypeError, "backward must be .* the class Tanh"),
        ((torch.round, "identity", "0"), TypeError, "target must be a module with a part"),
        ((nn.Sequential(nn.Tanh()), "identity", "1"), ValueError, "got '1'; there are '0'"),
        ((nn.Tanh(), "identity", "x"), ValueError, "got 'x'; there is none"),
        ((nn.Sequential(nn.Tanh()), "identity", nn.Tanh()), ValueError, "got Tanh; there are"),
        ((nn.Sequential(nn.Tanh()), "identity", 0), TypeError, "part must be a name or a module"),
    ],
)
def test_straight_through_says_what_it_wants(arguments, error, message):
    target, backward, part = (*arguments, None)[:3]
    with pytest.raises(error, match=message):
        straight_through(target, backward, part=part)


def test_other_threads_may_ask_the_module_inside_meanwhile():
    linear, other, told = nn.Linear(4, 3), torch.ones(2, 4), []

    def model(x):
        asking = threading.Thread(target=lambda: told.append(linear(other)))
        asking.start()
        asking.join()
        return linear((4 * x).round() / 4)

    x = torch.rand(8, 4)
    assert torch.equal(straight_through(model, before=linear)(x), linear((4 * x).round() / 4))
    assert torch.equal(told[0], linear(other))


# averaged


def test_the_mean_of_a_two_valued_model_is_that_of_its_two_softmaxes():
    torch.manual_seed(0)
    coin, inputs = TwoValued(), torch.rand(6, 3, dtype=torch.float64)

    def mean(x):
        share = coin.tosses.count(1.0) / len(coin.tosses)
        return (share * x.softmax(1) + (1 - share) * (3 * x).softmax(1)).log()

    model = averaged(coin, 40)
    asked = inputs.clone().requires_grad_()
    logits = model(asked)
    assert len(coin.tosses) == 40
    assert 0 < coin.tosses.count(1.0) < 40
    torch.testing.assert_close(logits, mean(inputs))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), asked)
    expected = torch.autograd.grad(mean(asked)[:, 0].sum(), asked)[0]
    torch.testing.assert_close(gradient, expected)


def test_every_answer_has_draws_of_its_own():
    model = averaged(lambda x: x + torch.randn_like(x), 3)
    inputs = torch.rand(4, 5)
    assert not torch.equal(model(inputs), model(inputs))


def test_the_mean_of_a_model_without_randomness_is_its_log_softmax():
    net, inputs = network(), torch.rand(5, 4)
    torch.testing.assert_close(averaged(net, 7)(inputs), net(inputs).log_softmax(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_of_half_precision_is_taken_in_single(dtype):
    drawn = (8 * torch.randn(5, 6, 4)).to(dtype)
    answers = iter(drawn)
    found = averaged(lambda x: next(answers), 5)(torch.rand(6, 4))
    expected = drawn.double().softmax(dim=2).mean(dim=0).log()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_averaged_refuses_probabilities_and_no_draws():
    with pytest.raises(ValueError, match="model must return logits, got probabilities"):
        averaged(lambda x: x.softmax(1), 2)(torch.rand(4, 3))
    with pytest.raises(ValueError, match="draws must be at least 1"):
        averaged(nn.Tanh(), 0)
    with pytest.raises(TypeError, match="model must be a module or a callable"):
        averaged(3, 2)


# gradient_from


def test_answers_are_the_models_bit_for_bit_and_the_gradient_is_the_students():
    student, inputs = network(), torch.rand(5, 4)
    model = nn.Sequential(Quantise(), nn.Linear(4, 3))
    attacked = gradient_from(model, student)
    assert torch.equal(attacked(inputs), model(inputs))
    assert torch.equal(attacked(inputs.clone().requires_grad_()), model(inputs))
    assert torch.equal(gradient_of(attacked, inputs), gradient_of(student, inputs))


def test_a_student_of_another_dtype_lends_its_gradient():
    student, inputs = network(), torch.rand(5, 4)
    model = nn.Linear(4, 3).double()
    attacked = gradient_from(model, student)
    gradient = gradient_of(attacked, inputs.double())
    torch.testing.assert_close(gradient, gradient_of(student, inputs).double(), atol=1e-6, rtol=0)


def test_a_model_that_writes_into_its_input_leaves_it_to_the_student_as_it_was():
    model, student, inputs = (
        nn.Sequential(nn.ReLU(inplace=True), network()),
        network(),
        -torch.rand(5, 4),
    )
    attacked = gradient_from(model, student)
    before = inputs.clone()
    assert torch.equal(gradient_of(attacked, inputs), gradient_of(student, before))


def test_a_student_with_other_logits_is_refused():
    attacked = gradient_from(nn.Linear(4, 2), network())
    with pytest.raises(ValueError, match=r"student must return as many logits as model, 2, got"):
        attacked(torch.rand(5, 4).requires_grad_())


# all of them


def wrapped():
    net = network()
    model = nn.Sequential(nn.Threshold(0.1, 0.0), net)
    return {
        "straight_through": nn.Sequential(straight_through(nn.Threshold(0.1, 0.0)), net),
        "part": straight_through(model, part="0"),
        "averaged": averaged(model, 3),
        "gradient_from": gradient_from(model, net),
        "nested": averaged(
            gradient_from(straight_through(model, part="0"), networks.Normalized(net, 0.1, 2.0)), 2
        ),
        "inside": networks.Logits(
            networks.Normalized(averaged(straight_through(model, part="0"), 2), 0.0, 1.0)
        ),
    }


@pytest.mark.parametrize("name", wrapped())
def test_wrappers_are_plain_modules(name):
    model, inputs = wrapped()[name], torch.rand(5, 4)
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(copy(inputs), model(inputs))
    assert torch.equal(gradient_of(copy, inputs), gradient_of(model, inputs))
    assert model.double()(inputs.double()).dtype == torch.float64
    assert not any(part.training for part in model.eval().modules())


@pytest.mark.parametrize("name", wrapped())
def test_attacks_take_wrappers_and_leave_them_as_they_were(name):
    model = wrapped()[name].train()
    inputs = torch.rand(8, 4)
    labels = model(inputs).argmax(1)
    points = attacks.pgd(model, inputs, labels, epsilon=1.0, steps=10, random_state=0)
    assert (model(points).argmax(1) != labels).any()
    assert all(part.training for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


# distil_surrogate


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    net = UndefendedClassifier(max_epochs=10, random_state=0).fit(X, y).model_
    return net, X, *datasets.load_digits("test")


def robust_accuracy(model, judge, X, y):
    points = attacks.pgd(model, X, y, epsilon=0.2, loss="margin", steps=20, random_state=0)
    return (judge(points).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize(("augmentation", "rounds"), [("noise", 4), ("jacobian", 2)])
def test_a_students_gradient_is_worth_the_networks_own(digits, augmentation, rounds):
    net, X, X_test, y_test = digits
    model = nn.Sequential(Quantise(), net)
    student = distil_surrogate(
        model, X, augmentation=augmentation, rounds=rounds, max_epochs=6, random_state=0
    )
    assert student.forwards == (1 + rounds) * len(X)
    assert student.seconds > 0
    assert student.agreement > 0.95
    few = X_test[:200], y_test[:200]
    plain = robust_accuracy(net, net, *few)
    lent = robust_accuracy(gradient_from(model, student), model, *few)
    assert lent < plain + 0.05


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-4.0, 6.0)])
@pytest.mark.parametrize("augmentation", ["noise", "jacobian"])
def test_the_model_is_asked_about_points_around_the_examples(augmentation, bounds):
    width = bounds[1] - bounds[0]
    asked, X = [], bounds[0] + width * (0.3 + 0.4 * torch.rand(500, 4))

    def model(inputs):
        asked.append(inputs)
        return 10 * inputs[:, :2]

    distil_surrogate(
        model,
        X,
        augmentation=augmentation,
        rounds=1,
        reach=0.1,
        max_epochs=1,
        bounds=bounds,
        random_state=0,
    )
    first, second = torch.cat(asked).split(500)
    assert torch.equal(first, X)
    away = (second - X).abs() / width
    assert away.max() <= 0.1 + 1e-6
    if augmentation == "noise":
        assert away.mean().item() == pytest.approx(0.05, abs=0.005)  # uniform
    else:
        torch.testing.assert_close(away, torch.full_like(away, 0.1))  # signs


@pytest.mark.parametrize("verbose", [False, True])
def test_a_bar_shows_the_epochs_of_a_student_if_it_is_asked_for(capsys, verbose):
    distil_surrogate(
        network(), torch.rand(500, 4), rounds=1, max_epochs=1, verbose=verbose, random_state=0
    )
    assert ("surrogate 1/1" in capsys.readouterr().err) == verbose


def test_a_student_learns_from_no_inputs_outside_the_bounds():
    for name, given in (("X", {}), ("adapt_data", {"adapt_data": 1 + torch.rand(500, 4)})):
        X = torch.rand(500, 4) + (name == "X")
        with pytest.raises(ValueError, match=f"{name} must be within bounds"):
            distil_surrogate(network(), X, max_epochs=1, **given)


def test_a_saturated_softmax_is_taught_with_a_range_of_ten_logits():
    inputs = torch.rand(3, 4)
    for spread, unit in ((3.0, 1.0), (40.0, 4.0)):
        lesson = _Lesson(lambda inputs, c=spread: c * torch.eye(2)[:1].repeat(len(inputs), 1), 0)
        lesson.ask(inputs)
        assert lesson.unit == unit


def test_a_class_that_is_ruled_out_has_no_part_in_the_range_of_a_lesson():
    lesson = _Lesson(lambda inputs: torch.tensor([[0.0, 40.0, -1e9]]).repeat(len(inputs), 1), 0)
    lesson.ask(torch.rand(3, 4))
    assert lesson.unit == 4.0


def test_logits_that_hardly_differ_teach_each_in_a_unit_of_its_own():
    def model(inputs):  # from 1e-19 to 1e-7, as where exponentials vanish
        return (inputs[:, :2] - inputs[:, 2:]) * 10 ** (-7 - 12 * inputs[:, :1])

    settings = {"max_epochs": 10, "rounds": 1, "learning_rate": 1e-2, "random_state": 0}
    student = distil_surrogate(model, torch.rand(600, 4), **settings)
    assert student.agreement > 0.9
    lesson = _Lesson(model, 0)
    lesson.ask(torch.rand(100, 4))
    told = lesson.in_units(lesson.logits)
    torch.testing.assert_close(told.amax(dim=1) - told.amin(dim=1), torch.full((100,), 10.0))
    assert torch.equal(lesson.in_units(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_few_examples_are_warned_of_and_more_are_taken():
    def hard(inputs):
        return 300 * (inputs[:, :2] > inputs[:, 2:]).float()

    settings = {"max_epochs": 1, "random_state": 0}
    with pytest.warns(UserWarning, match="X holds 30 examples"):
        student = distil_surrogate(hard, torch.rand(30, 4), augmentation=None, **settings)
    assert student.forwards == 30
    more = torch.rand(500, 4)
    student = distil_surrogate(
        averaged(hard, 2), torch.rand(30, 4), adapt_data=more, rounds=1, **settings
    )
    assert student.forwards == 2 * 2 * 530


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, partial(torch.autocast, "cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_a_student_learns_the_same_in_whatever_context_the_caller_is(context):
    inputs = torch.rand(600, 4, generator=torch.Generator().manual_seed(0))
    learn = partial(distil_surrogate, Halves(), inputs, max_epochs=3, random_state=0)
    outside = learn()
    with context():
        inside = learn()
    assert inside.agreement == outside.agreement
    for one, other in zip(inside.parameters(), outside.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_seed_repeats_a_student_and_leaves_the_generators_alone():
    X, inputs = torch.rand(500, 4), torch.rand(5, 4)
    net = network().train()
    state = torch.get_rng_state()
    first, again, other = (
        distil_surrogate(net, X, max_epochs=1, rounds=1, random_state=seed)(inputs)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
