"""Parts of adapted attacks on tiny models, against what is known of them by hand."""

from functools import partial
from math import sqrt
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillguard import attacks
from distillguard._data import Spec, examples
from distillguard._processes import ALONE
from distillguard.evaluation import _adapted_forms
from distillguard.evaluation._adaptations import adaptations, draws
from distillguard.evaluation._adapted_forms import (
    BOUNDARY,
    FORMS,
    LABELS,
    LOGARITHM,
    PLAIN,
    SEARCH,
    TOWARDS,
    Jitter,
    Subject,
    all_at_hand,
    answered_at_hand,
    answers_around,
    by_labels,
    climbed,
    climbs,
    from_the_boundary,
    logarithmic,
    points_around,
    searches,
    smoothed,
    spread,
    to_neighbours,
)
from distillguard.evaluation._adapted_remedies import (
    HIDDEN,
    MISLEADING,
    REMEDIES,
    cannot_help,
    draws_numbers,
    forms_for,
    remembers,
)
from distillguard.evaluation._captions import Captions
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation._query import QueryCounter
from distillguard.evaluation._records import Records
from distillguard.evaluation._run import Run
from distillguard.evaluation._stand_ins import (
    BeforeHead,
    Call,
    before_head,
    goes_back,
    has_no_gradient,
    held_by,
    innermost,
    is_changed,
    is_live,
    live_features,
    modules_of,
    over_front,
    traced,
    widened,
)
from distillguard.evaluation.diagnosis._findings import Finding


def subject_of(model, inputs, threat=None, data=None, **settings):
    """A model to be adapted, of which these examples are known."""
    threat = threat or ThreatModel("linf", 0.25, (0.0, 1.0))
    labels, records = torch.zeros(len(inputs), dtype=torch.int64), Records()
    predicted = torch.arange(len(inputs)) % 3
    records.add({"label": labels, "predicted": predicted})
    order = torch.arange(len(inputs))
    records.sample.add(order, inputs=inputs, labels=labels, index=order)
    captions = Captions.of(None, None, None, None, False)
    run = Run(QueryCounter(model), {}, threat, True, 5, 9, records, Spec(), captions)
    whole = {"random": False, **settings}
    return Subject(run, data or examples(inputs, labels), 3, None, ALONE, **whole)


def linear(x):
    """Two classes, told by the first value."""
    return torch.stack([x.flatten(1)[:, 0], 0.5 - x.flatten(1)[:, 0]], dim=1)


THREE = torch.tensor([[0.25, 0.5], [0.5, 1.0], [1.0, 0.0]])
BUDGET = {"epsilon": 0.25, "bounds": (0.0, 1.0), "batch_size": 5, "random_state": 9}
LINF = {"norm": "linf", **BUDGET}
PGD = {
    "loss": "margin", "step_size": 0.5, "step_decay": True, "random_start": "blocks", **BUDGET,
}  # fmt: skip
RESCALED = {"loss": "rescaled_cross_entropy", "steps": 50, **BUDGET}
HUNDRED = {"loss": "margin", "steps": 100, **BUDGET}


def told(attack_by_name):
    return {name: (each.func, each.keywords) for name, each in attack_by_name.items()}


@pytest.mark.parametrize(
    ("norm", "random", "expected"),
    [
        *(
            (
                norm,
                False,
                {
                    "PGD margin": (attacks.pgd, {"restarts": 3, "steps": 40, **PGD}),
                    "APGD rescaled cross-entropy": (attacks.apgd, RESCALED),
                },
            )
            for norm in ("linf", "l2")
        ),
        (
            "linf",
            True,
            {
                "PGD margin": (attacks.pgd, {"early_stop": False, "steps": 20, **PGD}),
                "APGD rescaled cross-entropy": (
                    attacks.apgd,
                    {**RESCALED, "early_stop": False, "steps": 20},
                ),
            },
        ),
        (
            "l1",
            False,
            {
                "APGD margin": (attacks.apgd, HUNDRED),
                "APGD rescaled cross-entropy": (attacks.apgd, RESCALED),
            },
        ),
        *(
            (
                norm,
                False,
                {
                    "PGD margin": (attacks.pgd, HUNDRED),
                    "PGD rescaled cross-entropy": (attacks.pgd, RESCALED),
                },
            )
            for norm in ("l0", "l0_pixels")
        ),
    ],
)
def test_attacks_that_follow_a_gradient_have_the_budget_of_the_evaluation(norm, random, expected):
    threat = ThreatModel(norm, 0.25, (0.0, 1.0))
    subject = subject_of(linear, THREE, threat, random=random)
    expected = {name: (how, {**keys, "norm": norm}) for name, (how, keys) in expected.items()}
    assert told(climbs(subject)) == expected


def test_searches_have_a_thousand_queries_and_the_budget_of_the_evaluation():
    subject = subject_of(linear, THREE)
    assert told(searches(subject)) == {"Square": (attacks.square, {"queries": 1000, **LINF})}
    assert told(by_labels(subject)) == {"RayS": (attacks.rays, {"queries": 1000, **BUDGET})}
    ((name, (_, keywords)),) = told(to_neighbours(subject)).items()
    assert name == "Other examples"
    assert keywords.pop("goals").equal(THREE)
    assert keywords.pop("classes").tolist() == [0, 1, 2]
    assert keywords == {key: value for key, value in LINF.items() if key != "random_state"}
    assert from_the_boundary(subject) == {}
    around = subject_of(linear, THREE, ThreatModel("l2", 0.25, (0.0, 1.0)))
    ((name, (_, keywords)),) = told(from_the_boundary(around)).items()
    assert name == "Carlini-Wagner L2"
    assert keywords.pop("stop_within") == 0.25
    assert keywords == {key: BUDGET[key] for key in ("bounds", "batch_size", "random_state")}


@pytest.mark.parametrize(
    ("norm", "width"),
    [
        ("linf", 0.25),
        # Uniform noise of width w is about w sqrt(d / 3) long in l2, and w d / 2 in l1.
        ("l2", 0.25 * sqrt(3 / 2)),
        ("l1", 0.25),
        ("l0", 0.125),
    ],
)
def test_noise_in_two_dimensions_is_as_wide_as_the_radius_has_it(norm, width):
    subject = subject_of(linear, THREE, ThreatModel(norm, 0.25, (0.0, 1.0)))
    assert spread(subject) == pytest.approx(width)


def test_points_around_are_repeated_examples_within_the_width_to_both_sides(monkeypatch):
    monkeypatch.setattr(_adapted_forms, "QUESTIONS", 3000)
    inputs = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.125, 0.5]])
    found = points_around(subject_of(linear, inputs))
    assert found[:3].equal(inputs)
    noise = (found - inputs.repeat(1000, 1))[3:]
    assert 0.24 < noise[:, 1].max() <= 0.25
    assert -0.25 <= noise[:, 1].min() < -0.24
    assert abs(noise[:, 1].mean()) < 4 * 0.25 / 3**0.5 / 3000**0.5
    assert found.min() == 0  # the bound stops the third
    assert found.shape == (3000, 2)
    assert points_around(subject_of(linear, inputs)).equal(found)
    # More examples than questions stay as they are.
    monkeypatch.setattr(_adapted_forms, "QUESTIONS", 2)
    assert points_around(subject_of(linear, inputs)).equal(inputs[:2])


@pytest.mark.parametrize(("most", "kept"), [(7, 7), (3, 3), (4, 4), (100, 10)])
def test_examples_at_hand_are_as_many_as_questions_are_asked_about(monkeypatch, most, kept):
    read = []
    inputs = torch.arange(20.0).view(10, 2) / 20
    data = examples(inputs, torch.zeros(10, dtype=torch.int64))
    chunks = type(data).chunks

    def watched(self, *told):
        for chunk in chunks(self, *told):
            read.append(len(chunk.inputs))
            yield chunk

    monkeypatch.setattr(type(data), "chunks", watched)
    monkeypatch.setattr(_adapted_forms, "QUESTIONS", most)
    found, classes = answered_at_hand(subject_of(linear, inputs, data=data))
    assert found.equal(inputs[:kept])
    assert classes.tolist() == [place % 3 for place in range(kept)]
    # Chunks of three are read until there are enough.
    assert read == [3, 3, 3, 1][: -(-min(most, 10) // 3)]


def test_of_data_that_are_read_once_the_sample_is_at_hand():
    data = SimpleNamespace(memory=None)
    (chunk,) = all_at_hand(subject_of(linear, THREE, data=data))
    assert (chunk.places.tolist(), chunk.labels.tolist()) == ([0, 1, 2], [0, 0, 0])
    assert chunk.inputs.equal(THREE)


def test_a_few_examples_are_tried_and_what_lies_between_them_and_towards_the_bounds():
    inputs = torch.linspace(0, 1, 10)[:, None].repeat(1, 2)
    subject = subject_of(linear, inputs, ThreatModel("linf", 0.25, (0.0, 2.0)))
    assert subject.few.equal(inputs[:8])
    few = inputs[:8, 0]
    between = (few + few.flip(0)) / 2
    asked = torch.cat([few, between, few / 2, (few + 2) / 2])
    torch.testing.assert_close(answers_around(subject), linear(asked[:, None]))
    assert subject.run.records.costs["adaptation"].forwards == 32


def positive(x):
    return linear(x).exp()


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (positive, True),
        (linear, False),  # negative at 1
        (lambda x: positive(x).detach(), False),  # no gradient
        (lambda x: positive(x) - positive(x).min(), True),  # 0 is not negative
    ],
)
def test_logarithms_are_followed_of_answers_that_are_never_negative(model, form):
    found = logarithmic(subject_of(model, THREE))
    assert (found is not None) is form
    if form:
        assert "logarithms" in LOGARITHM.own
        torch.testing.assert_close(
            found(THREE).softmax(1), model(THREE) / model(THREE).sum(1)[:, None]
        )


def test_a_model_of_which_logarithms_are_taken_anyway_has_none_besides():
    subject = subject_of(positive, THREE)
    subject.run.model.takes_logarithm = True
    assert logarithmic(subject) is None


def test_a_model_is_climbed_and_smoothed_where_it_has_a_gradient():
    assert climbed(subject_of(linear, THREE)) is linear
    blind = subject_of(lambda x: linear(x).detach(), THREE)
    assert climbed(blind) is None
    assert smoothed(blind) is None
    stairs = lambda x: linear(x) + ((x.detach() * 8).round() - x.detach() * 8).flatten(1)  # noqa: E731
    found = smoothed(subject_of(stairs, THREE))
    assert found(THREE).equal(stairs(THREE))


def test_jitter_is_uniform_to_both_sides():
    noise = Jitter(0.5)(torch.ones(4000)) - 1
    assert -0.5 <= noise.min() < -0.49
    assert 0.49 < noise.max() <= 0.5
    assert abs(noise.mean()) < 4 * 0.5 / 3**0.5 / 4000**0.5


def test_the_budget_and_the_account_of_a_subject_are_those_of_its_run():
    subject = subject_of(linear, THREE)
    assert subject.budget() == LINF
    subject.run.model.takes_logarithm = True
    other = subject.counted(positive)
    other(THREE)
    assert subject.run.model.account.forwards == 3
    assert other.takes_logarithm is False
    assert subject.steady(linear) is linear
    subject.random = True
    assert subject.steady(linear) is not linear


def test_forms_are_tried_in_their_order_and_the_dearer_ones_for_five_examples():
    assert [(form.label, form.least) for form in FORMS] == [
        ("again", 1), ("again", 1), ("on logarithms", 1), ("within its head", 1),
        ("past its parts", 1), ("past its front", 1), ("smoothed", 1), ("along a readout", 5),
        ("by labels", 1), ("along the surrogate", 1), ("along a student", 5),
        ("cut to the ball", 1), ("again", 1),
    ]  # fmt: skip
    assert "1000 queries" in SEARCH.own
    assert "50 nearest" in TOWARDS.own
    assert "1000 queries" in LABELS.own


# Which forms a finding asks for.


def finding(code, severity="severe", **figures):
    return Finding(code, severity, "", "", "", figures)


MARGIN = partial(attacks.pgd, loss="margin", epsilon=0.25)
CROSS = partial(attacks.pgd, loss="cross_entropy", epsilon=0.25)
GAP = {"logit_gap": 0.5, "changed": 0.5}


def foreign(model, inputs, labels):
    return inputs


@pytest.mark.parametrize(
    ("code", "figures", "attack", "forms"),
    [
        ("saturated-softmax", {}, CROSS, "plain and head"),
        ("saturated-softmax", {}, MARGIN, "head"),
        ("margin-beats-cross-entropy", {}, CROSS, (PLAIN,)),
        ("margin-beats-cross-entropy", {}, MARGIN, ()),
        ("more-steps-help", {}, MARGIN, (PLAIN,)),
        ("gradient-vanishes-at-bounds", {}, foreign, (PLAIN,)),
        ("gradient-vanishes-at-bounds", {}, CROSS, ()),
        ("unstable-predictions", GAP, CROSS, (PLAIN,)),
        ("unstable-predictions", GAP | {"draws": 2.0}, CROSS, ()),
        ("unstable-predictions", {"remembered": 0.5}, CROSS, (PLAIN,)),
        ("unstable-predictions", {"batch_gap": 1, "batch_changed": 0}, CROSS, ()),
        ("zero-gradients", {"share": 0.5, "share_scaled": 0.24}, CROSS, (PLAIN,)),
        ("zero-gradients", {"share": 0.5, "share_scaled": 0.24}, MARGIN, ()),
        ("zero-gradients", {"share": 0.5, "share_scaled": 0.25}, CROSS, (PLAIN, *HIDDEN)),
        ("zero-gradients", {"share": 0.5, "share_scaled": 0.25}, MARGIN, HIDDEN),
        ("interrupted-graph", {}, MARGIN, HIDDEN),
        ("noise-beats-gradient", {}, MARGIN, MISLEADING),
        ("minimum-distance-beats-pgd", {}, MARGIN, (BOUNDARY,)),
        ("silent-success", {}, MARGIN, ()),
    ],
)
def test_a_finding_asks_for_what_the_attacks_passed_have_not_done(code, figures, attack, forms):
    run = subject_of(linear, THREE).run
    run.attacks = {"a": AttackSpec(attack, "linf")}
    if isinstance(forms, str):
        forms = REMEDIES["saturated-softmax"][0 if "plain" in forms else 1 :]
        assert forms
    assert forms_for(finding(code, **figures), run) == forms


def test_one_attack_of_others_needs_gradients_at_the_bounds_back():
    run = subject_of(linear, THREE).run
    run.attacks = {"a": AttackSpec(MARGIN, "linf"), "b": AttackSpec(foreign, "linf")}
    assert forms_for(finding("gradient-vanishes-at-bounds"), run) == (PLAIN,)
    # The margin is climbed if one of them climbs it.
    run.attacks["b"] = AttackSpec(CROSS, "linf")
    assert forms_for(finding("margin-beats-cross-entropy"), run) == ()


def test_what_a_finding_says_of_the_model_is_read_from_its_figures():
    random, mean = finding("unstable-predictions", **GAP), {**GAP, "draws": 2.0}
    assert draws_numbers(random)
    assert not draws_numbers(finding("unstable-predictions", **mean))
    assert not draws_numbers(finding("other", **GAP))
    assert remembers(finding("unstable-predictions", remembered=0.5))
    assert not remembers(random)
    assert cannot_help(finding("unstable-predictions", batch_gap=0.5))
    assert cannot_help(finding("silent-success"))
    assert not cannot_help(random)
    assert not cannot_help(finding("zero-gradients", batch_gap=1))


class Adapted(nn.Module):
    """Says how it was adapted."""

    def __init__(self, text, draws=None, inside=None):
        super().__init__()
        self.adaptation, self.inside = text, inside
        if draws is not None:
            self.draws = draws


def test_draws_of_modules_inside_one_another_multiply():
    inner = Adapted("a", 3, Adapted("b", 4, Adapted("a")))
    assert adaptations(inner) == ("a", "b")
    assert draws(inner) == 12
    assert draws(Adapted("a")) is None
    assert draws(Adapted(None, 2)) == 2
    plain = nn.Linear(2, 2)
    plain.draws = 5  # something of its own
    assert draws(nn.Sequential(plain, Adapted("a", 3))) == 3
    assert adaptations(linear) == ()
    assert draws(linear) is None


# What hides a gradient inside a model.


class Cut(nn.Module):
    """The identity, without a gradient."""

    def forward(self, x):
        return x.detach()


class Raises(nn.Module):
    """Takes no tensor that wants a gradient."""

    def forward(self, x):
        if x.requires_grad:
            raise RuntimeError("no gradient here")
        return x + 0


def test_a_gradient_is_there_where_half_of_the_examples_have_one():
    inputs = torch.rand(4, 3).requires_grad_()

    def alive(factors):
        factors = torch.tensor(factors)[:, None]
        return goes_back(inputs * factors, inputs)

    assert [alive([1.0] * n + [0.0] * (4 - n)) for n in (0, 1, 2, 4)] == [False, False, True, True]
    assert not alive([torch.inf, torch.nan, 1.0, 0.0])
    # One coordinate of an example suffices.
    assert goes_back(inputs[:, :1] * torch.ones(4, 2), inputs)
    assert not goes_back(inputs.detach(), inputs)
    assert not goes_back(torch.ones(4, 2).requires_grad_(), inputs)
    # A sum of all outputs would be constant.
    assert goes_back(inputs.softmax(dim=1), inputs)


def test_a_module_has_no_gradient_where_something_could_go_back_and_does_not():
    x = torch.rand(4, 3)
    cases = {
        "cut": (Call(Cut(), (x,), {}, x), True),
        "alive": (Call(nn.Tanh(), (x,), {}, x), False),
        "raises": (Call(Raises(), (x,), {}, x), True),
        "raises and gives no tensor": (Call(Raises(), (x,), {}, None), False),
        "nothing given": (Call(Cut(), (), {}, x), False),
        "integers": (Call(Cut(), (torch.arange(3),), {}, x), False),
        "no tensor": (Call(Cut(), ("text",), {}, x), False),
    }
    assert {name: has_no_gradient(call) for name, (call, _) in cases.items()} == {
        name: blind for name, (_, blind) in cases.items()
    }


def test_a_model_is_live_that_answers_with_a_gradient():
    x = torch.rand(4, 3)
    assert is_live(nn.Linear(3, 2), x)
    assert not is_live(Cut(), x)
    assert not is_live(Raises(), x)
    assert not x.requires_grad


def test_of_nested_names_the_innermost_count_and_are_widened_to_what_keeps_the_shape():
    assert innermost({"a", "a.b", "ab", "c.d"}) == [
        name for name in {"a", "a.b", "ab", "c.d"} if name != "a"
    ]
    x, y = torch.rand(4, 3), torch.rand(4, 2)
    same, other = Call(None, (x,), {}, x), Call(None, (x,), {}, y)
    calls = {"a": same, "a.b": other, "a.b.c": other, "d": other}
    assert widened("a.b.c", {"a", "a.b", "a.b.c"}, calls) == "a"
    assert widened("a", {"a"}, calls) == "a"
    assert widened("a.b.c", {"a.b", "a.b.c"}, calls) is None  # the one around it has a gradient
    assert widened("d", {"d"}, calls) is None
    assert widened("e.f", {"e.f"}, calls) is None


def test_a_module_is_given_something_else_where_values_or_types_differ():
    x = torch.rand(4, 6)
    assert not is_changed(Call(None, (x,), {}, x), x)
    assert not is_changed(Call(None, (x.view(4, 2, 3),), {}, x), x)
    assert not is_changed(Call(None, (x.double(),), {}, x), x)
    assert is_changed(Call(None, (x + 1,), {}, x), x)
    assert not is_changed(Call(None, (x[:, :5] + 1,), {}, x), x)
    assert not is_changed(Call(None, (), {}, x), x)
    assert not is_changed(Call(None, ("text",), {}, x), x)


def test_what_modules_were_given_first_is_traced_in_the_order_in_which_they_were_asked():
    first, second, unused = nn.Linear(2, 2), nn.Tanh(), nn.ReLU()

    def model(x):
        return first(second(first(x)))

    inputs = torch.rand(3, 2)
    calls = traced({"u": unused, "s": second, "f": first}, model, inputs)
    assert list(calls) == ["f", "s"]
    assert calls["f"].given[0].equal(inputs)
    assert calls["s"].returned.equal(second(first(inputs)).detach())
    assert not calls["f"].returned.requires_grad
    for module in (first, second, unused):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


class Holder:
    """Holds a module, and has a method that is a model."""

    def __init__(self, module):
        self.module = module

    def answer(self, x):
        return self.module(x)

    def __call__(self, x):
        return GLOBAL(x)


class Estimator:
    """Has a network in ``model_``."""

    def __init__(self, network):
        self.model_ = network


GLOBAL = nn.Tanh()


def test_modules_are_found_in_whatever_holds_them():
    one, two = nn.Linear(2, 2), nn.ReLU()
    nested = nn.Sequential(one)
    told = lambda x: one(x)  # noqa: E731
    told.extra = two
    assert list(held_by(told)) == [two, one]
    assert list(held_by(partial(torch.add, two, alpha=nested))) == [two, nested]
    assert list(held_by(partial(partial(lambda a, x: GLOBAL(x), two), one))) == [two, one, GLOBAL]
    holder = Holder(one)
    assert list(held_by(holder.answer)) == [one]
    assert list(held_by(holder)) == [one, GLOBAL]
    estimator = Estimator(one)
    assert list(held_by(lambda x: estimator)) == [one]
    assert list(held_by(3)) == []
    assert set(modules_of(nested)) == {"", "0"}
    assert list(modules_of(lambda x: nested(two(x))).values()) == [nested, one, two]


def test_the_output_of_the_last_call_stands_for_the_answer():
    inside = nn.Linear(2, 2)
    x = torch.rand(3, 2)
    twice = BeforeHead(lambda x: inside(inside(x)).detach(), inside)
    assert twice(x).equal(inside(inside(x)))
    assert twice.adaptation == "the output of its Linear in place of its own"

    def torn(x):
        inside(x)
        raise ValueError("later")

    assert BeforeHead(torn, inside)(x).equal(inside(x))
    with pytest.raises(ValueError, match="before"):
        BeforeHead(lambda x: (_ for _ in ()).throw(ValueError("before")), inside)(x)
    assert not inside._forward_hooks


def test_a_head_has_other_numbers_of_the_same_classes_before_it():
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    x = torch.rand(6, 4)
    assert before_head(network, network, x) is None
    # The same numbers are no head, and other classes are not before one.
    same = nn.Sequential(network, nn.Identity())
    assert before_head(same, same, x) is None
    turned = nn.Sequential(network, nn.Flatten())
    assert before_head(turned, lambda x: -turned(x), x) is None
    tempered = nn.Sequential(network, nn.Softmax(dim=1))
    assert before_head(tempered, tempered, x).inside is network


def test_live_features_are_no_wider_than_four_thousand_numbers(monkeypatch):
    wide, narrow = nn.Linear(2, 4097), nn.Linear(2, 4096)
    x = torch.rand(3, 2)
    for first, found in ((wide, False), (narrow, True)):
        model = nn.Sequential(first, Cut())
        assert (live_features(model, model, x) is not None) is found


def test_only_the_first_thirty_two_fronts_are_tried():
    x = torch.rand(2, 3)
    for n, found in ((31, True), (32, False)):
        parts = nn.ModuleList([*(Cut() for _ in range(n)), nn.Tanh()])

        def model(x, parts=parts):
            y = x.detach() + 1
            for module in parts:
                y = module(y)
            return y

        model.parts = parts
        assert (over_front(model, model, x) is not None) is found


class Doubling(nn.Module):
    """Writes into what it is given."""

    def forward(self, x):
        return x.mul_(2)


def test_what_writes_into_its_inputs_is_traced_and_tried_on_copies():
    x = torch.rand(3, 2)
    before, inside = x.clone(), Doubling()
    calls = traced({"d": inside}, lambda x: inside(x.mul_(3)), x)
    torch.testing.assert_close(calls["d"].returned, 6 * before)
    assert x.equal(before)
    assert not has_no_gradient(Call(inside, (x,), {}, x))
    assert x.equal(before)
    before_head(inside, inside, x)
    assert x.equal(before)


class Pair(nn.Module):
    """Returns two tensors."""

    def forward(self, x):
        return x, x


class Halved(nn.Module):
    """Returns an answer for every other example."""

    def forward(self, x):
        return x[::2]


def test_outputs_that_are_no_answers_of_each_example_are_passed_over():
    torch.manual_seed(0)
    network, pair, halved, head = nn.Linear(2, 3), Pair(), Halved(), nn.Softmax(dim=1)
    narrow = nn.Linear(3, 1)

    def model(x, cut=False):
        logits = network(x)
        narrow(logits)
        answers, _ = pair(logits)
        halved(answers)
        told = head(answers)
        pair(told), halved(told)
        return told.detach() if cut else told

    blind = partial(model, cut=True)

    x = torch.rand(4, 2)
    assert before_head(model, model, x).inside is network
    # The softmax is the last of them with a gradient.
    assert live_features(blind, blind, x).inside is head


@pytest.mark.parametrize(("after", "found"), [(31, True), (32, False)])
def test_features_are_looked_for_among_the_last_thirty_two_modules(after, found):
    live = nn.Linear(2, 3)
    dead = nn.ModuleList(Cut() for _ in range(after))

    def model(x):
        y = live(x)
        for module in dead:
            y = module(y)
        return y

    model.live = live
    assert (live_features(model, model, torch.rand(3, 2)) is not None) is found


def test_a_pass_of_what_is_inside_is_one_pass_of_the_model():
    inside = nn.Linear(2, 3)
    counter = QueryCounter(BeforeHead(lambda x: inside(x).softmax(dim=1), inside))
    counter(torch.rand(4, 2).requires_grad_()).sum().backward()
    assert (counter.account.forwards, counter.account.backwards) == (4, 4)
