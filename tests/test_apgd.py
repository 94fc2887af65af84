"""What Auto-PGD and its targeted form promise beyond the contract of every attack."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from conftest import examples_of, query
from distillguard.attacks import apgd, apgd_targeted, fab_targeted
from distillguard.attacks._checks import ModelFacts
from distillguard.attacks._targets import TargetChoice, likeliest_targets, target_of_run
from distillguard.attacks.auto_pgd._checkpoints import checkpoint_periods, stages
from distillguard.attacks.auto_pgd._machine import AutoPGD
from distillguard.attacks.auto_pgd._targeted import targeted_dlr
from distillguard.functional import cross_entropy, dlr_loss, margin_loss


class Recording:
    """A model that keeps every point it was asked about."""

    facts = ModelFacts()

    def __init__(self, model):
        self.model = model
        self.points: list[Tensor] = []

    def __call__(self, points: Tensor) -> Tensor:
        self.points.append(points.detach().clone())
        return self.model(points)

    @property
    def asked(self) -> int:
        return sum(len(points) for points in self.points)


def greys(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 12, generator=generator, dtype=torch.float64)


class Flat(nn.Module):
    """Class 1 everywhere, without a slope."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)[:, :1] * 0 + inputs.new_tensor([0.0, 3.0, 1.0, 0.5])


# Algorithm 1, written a second time: one example, plain loops and lists, as in the paper.


def project(x: Tensor, centre: Tensor, norm: str, epsilon: float) -> Tensor:
    delta = x - centre
    if norm == "linf":
        delta = delta.clamp(-epsilon, epsilon)
    elif delta.norm() > epsilon:
        delta = delta * epsilon / delta.norm()
    return (centre + delta).clamp(0, 1)


def slope(f, x: Tensor, norm: str) -> tuple[float, Tensor]:
    x = x.clone().requires_grad_()
    height = f(x)
    (gradient,) = torch.autograd.grad(height, x)
    return height.item(), gradient.sign() if norm == "linf" else gradient / gradient.norm()


def algorithm_1(f, first: Tensor, centre: Tensor, norm: str, epsilon: float, steps: int):
    """All points at which ``f`` is evaluated, and how often the step size was halved."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    checkpoints = sorted({math.ceil(round(p * steps, 6)) for p in shares if p <= 1})

    eta, etas, highest_at = 2 * epsilon, [], []
    x, evaluated = [first], []
    heights, direction = [], None
    highest, top = -math.inf, None
    halvings = 0
    for k in range(steps + 1):
        evaluated.append(x[k])
        height, direction = slope(f, x[k], norm)
        heights.append(height)
        if height > highest:
            highest, top, top_direction = height, x[k], direction
        current = x[k]
        if k in checkpoints:
            etas.append(eta)
            highest_at.append(highest)
            if k > 0:
                before = checkpoints[checkpoints.index(k) - 1]
                rises = sum(heights[i + 1] > heights[i] for i in range(before, k))
                first_condition = rises < 0.75 * (k - before)
                second = etas[-2] == etas[-1] and highest_at[-2] == highest_at[-1]
                if first_condition or second:
                    eta, halvings = eta / 2, halvings + 1
                    current, direction = top, top_direction
        if k < steps:
            z = project(current + eta * direction, centre, norm, epsilon)
            if k == 0:
                following = z
            else:
                following = current + 0.75 * (z - current) + 0.25 * (current - x[k - 1])
                following = project(following, centre, norm, epsilon)
            x[k] = current
            x.append(following)
    return evaluated, halvings


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("name", "loss"), [("cross_entropy", cross_entropy), ("margin", margin_loss), ("dlr", dlr_loss)]
)
def test_walks_the_way_of_the_papers_algorithm(tangled, norm, name, loss):
    model = Recording(tangled.eval())
    epsilon = {"linf": 0.2, "l2": 0.5}[norm]
    halved = 0
    for example in greys(3):
        inputs = example[None]
        label = tangled.decided(inputs)
        model.points.clear()
        settings = {"epsilon": epsilon, "norm": norm, "loss": name, "steps": 37}
        apgd(model, inputs, label, **settings, early_stop=False, random_state=0)

        walked, halvings = algorithm_1(
            lambda x, label=label: loss(tangled(x[None]), label).sum(),
            *(model.points[0][0], example, norm, epsilon, 37),
        )
        halved += halvings
        asked, walked = torch.cat(model.points), torch.stack(walked)
        torch.testing.assert_close(asked, walked[: len(asked)], atol=1e-6, rtol=0)
        # A run that stops early has come to rest.
        torch.testing.assert_close(asked[-1], walked[-1], atol=1e-6, rtol=0)
    assert halved > 0


@pytest.mark.parametrize(
    ("steps", "checkpoints"),
    [
        (100, [0, 22, 41, 57, 70, 80, 87, 93, 99]),
        (10, [0, 3, 5, 6, 7, 8, 9, 10]),
        (1, [0, 1]),
    ],
)
def test_checkpoints_are_the_papers(steps, checkpoints):
    periods = checkpoint_periods(steps, torch.device("cpu"))
    assert (periods >= 0).nonzero().flatten().tolist() == checkpoints
    assert periods[checkpoints].cumsum(dim=0).tolist() == checkpoints


@pytest.mark.parametrize(
    ("loss", "rises", "best"), [(1.0, 0, 2.0), (1.5, 1, 2.0), (2.0, 1, 2.0), (2.5, 1, 2.5)]
)
def test_a_loss_as_high_as_before_is_no_rise_and_no_peak(loss, rises, best):
    machine = AutoPGD(
        epsilon=0.1,
        norm="linf",
        objective=lambda logits, state: logits,
        steps=10,
        restarts=1,
        rho=0.75,
        early_stop=True,
        targeted=False,
    )
    inputs, whole = greys(1), torch.zeros(1, dtype=torch.long)
    before = machine.start(examples_of(inputs, whole, whole))
    double = {"dtype": torch.float64}
    before = before._replace(
        loss=torch.tensor([1.0], **double),
        best_loss=torch.tensor([2.0], **double),
        best_point=inputs - 1,
    )
    after = machine.record_loss(before, torch.tensor([loss], **double), torch.ones_like(inputs))
    assert (after.n_improved - before.n_improved).item() == rises
    assert after.best_loss.item() == best
    assert after.best_point.equal(after.current if best > 2 else inputs - 1)


@pytest.mark.parametrize(
    ("rises", "higher", "halved_before", "halves"),
    [
        (19, True, False, False),
        (14, True, False, True),  # condition 1: fewer than 0.75 * 19 = 14.25 steps went up
        (15, True, False, False),
        (19, False, False, True),  # condition 2: neither step size nor peak has changed
        (19, False, True, False),
        (14, False, True, True),
    ],
)
def test_halves_the_step_size_on_the_papers_two_conditions(rises, higher, halved_before, halves):
    machine = AutoPGD(
        epsilon=0.1,
        norm="linf",
        objective=lambda logits, state: margin_loss(logits, state.examples.labels),
        steps=100,
        restarts=1,
        rho=0.75,
        early_stop=True,
        targeted=False,
    )
    inputs, whole = greys(1), torch.zeros(1, dtype=torch.long)
    state = machine.start(examples_of(inputs, whole, whole))
    at_checkpoint = state._replace(
        step=whole + 41,
        n_improved=whole + rises,
        best_point=inputs + 0.01,
        best_loss=torch.full((1,), -1.0, dtype=torch.float64),
        loss_at_checkpoint=torch.full((1,), -2.0 if higher else -1.0, dtype=torch.float64),
        was_halved=torch.tensor([halved_before]),
    )
    after, gradient = machine.halve_at_checkpoint(at_checkpoint, torch.ones_like(inputs))
    assert after.step_size.item() == pytest.approx(0.1 if halves else 0.2)
    assert torch.equal(after.current, inputs + 0.01 if halves else state.current)
    assert torch.equal(gradient, torch.full_like(inputs, 0.0 if halves else 1.0))
    assert after.was_halved.item() == halves
    assert after.n_improved.item() == 0

    between = machine.halve_at_checkpoint(at_checkpoint._replace(step=whole + 40), inputs)[0]
    assert between.step_size.item() == pytest.approx(0.2)
    assert between.n_improved.item() == rises


@pytest.mark.parametrize("restarts", [1, 4])
def test_a_run_that_cannot_move_asks_once(restarts):
    model, inputs = Recording(Flat()), greys(2)
    labels = torch.ones(2, dtype=torch.int64)
    apgd(model, inputs, labels, epsilon=0.1, steps=50, restarts=restarts)
    assert model.asked == 2 * restarts
    points = torch.cat(model.points)
    assert len(points.unique(dim=0)) == len(points)


def test_an_example_that_is_fooled_costs_nothing_more(halfspace, examples):
    inputs, labels = examples(8)
    model = Recording(halfspace)
    epsilon = 3 * halfspace.least_epsilon(inputs, "linf").max().item()
    adversarial = apgd(model, inputs, labels, epsilon=epsilon, bounds=(-9.0, 9.0))
    assert (halfspace(adversarial).argmax(dim=1) != labels).all()
    assert model.asked <= 2 * 8


def test_without_early_stop_the_margin_only_widens(tangled):
    inputs = greys(6)
    labels = tangled.decided(inputs)
    tangled.eval()
    margins = [
        margin_loss(tangled(apgd(tangled, inputs, labels, **how)), labels)
        for how in (
            {"epsilon": 0.3, "random_state": 0},
            {"epsilon": 0.3, "random_state": 0, "early_stop": False},
            {"epsilon": 0.3, "random_state": 0, "early_stop": False, "restarts": 3},
        )
    ]
    assert (margins[1] >= margins[0]).all()
    assert (margins[2] >= margins[1]).all()


# Targets.


class Decoy(nn.Module):
    """The likeliest wrong class leads nowhere, the second likeliest over the boundary."""

    def forward(self, inputs: Tensor) -> Tensor:
        first, second = inputs[:, 0], inputs[:, 1]
        decoy = (first - 0.5).clamp(max=0.04) - 0.05
        way_out = 10 * (second - 0.5) - 0.6
        rest = torch.full_like(first, -5.0)
        return torch.stack([0 * first, decoy, way_out, rest, rest - 1], dim=1)


def test_a_class_that_the_untargeted_attack_never_looks_at_is_tried():
    inputs, labels = torch.full((1, 2), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    settings = {"epsilon": 0.07, "random_state": 0, "steps": 20}
    alone = apgd(Decoy(), inputs, labels, loss="margin", **settings)
    one = apgd_targeted(Decoy(), inputs, labels, n_targets=1, **settings)
    two = apgd_targeted(Decoy(), inputs, labels, n_targets=2, **settings)
    predicted = [Decoy()(adversarial).argmax(dim=1) for adversarial in (alone, one, two)]
    assert (predicted[0] == 0).any()
    assert (predicted[1] == 0).all()
    assert (predicted[2] == 2).all()


class Preferring(nn.Module):
    """Never misclassifies; each logit but the first rises with a pixel of its own."""

    def __init__(self, n_classes: int):
        super().__init__()
        self.offset = torch.tensor([50.0, *(-float(i) for i in range(1, n_classes))])

    def forward(self, inputs: Tensor) -> Tensor:
        pixels = inputs[:, : len(self.offset)]
        return pixels * torch.tensor([0.0] + [1.0] * (len(self.offset) - 1)) + self.offset


def test_classes_are_tried_from_the_likeliest_down():
    model, inputs = Recording(Preferring(6)), torch.full((1, 6), 0.5)
    apgd_targeted(model, inputs, torch.tensor([0]), epsilon=0.1, n_targets=3, random_state=0)
    points = torch.cat(model.points)
    at_edge = (points - 0.6).abs() < 1e-6
    first_reached = [at_edge[:, pixel].nonzero().flatten()[:1].tolist() for pixel in range(6)]
    assert torch.equal(points[0], inputs[0])
    assert first_reached[0] == first_reached[4] == first_reached[5] == []
    assert first_reached[1] < first_reached[2] < first_reached[3]


@pytest.mark.parametrize("n_classes", [2, 3, 4, 7])
@pytest.mark.parametrize("restarts", [1, 2])
def test_no_more_classes_are_tried_than_there_are(n_classes, restarts):
    class Restless(Preferring):
        """No iterate stays where it is, so that every run takes all its steps."""

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) + torch.sin(40 * inputs[:, :1])

    model = Recording(Restless(n_classes))
    inputs = torch.full((3, 7), 0.5)
    settings = {"epsilon": 0.2, "steps": 5, "n_targets": 4, "restarts": restarts}
    apgd_targeted(model, inputs, torch.zeros(3, dtype=torch.long), **settings, random_state=0)
    runs = min(4, n_classes - 1) * restarts
    assert 3 * (1 + runs) <= model.asked <= 3 * (1 + runs * 6)
    starts = {tuple(point.tolist()) for point in torch.cat(model.points)}
    assert len(starts) > runs


@pytest.mark.parametrize(
    ("n_targets", "expected"), [(1, [[2], [2]]), (2, [[2, 3], [2, 0]]), (9, [[2, 3, 1], [2, 0, 1]])]
)
def test_aims_are_the_likeliest_wrong_classes_by_hand(n_targets, expected):
    logits = torch.tensor([[5.0, -3.0, 2.0, 1.0], [1.0, -1.0, 4.0, 0.5 + 8.0]])
    aims, count = likeliest_targets(logits, torch.tensor([0, 3]), n_targets, targeted=False)
    assert aims.shape == (2, n_targets)
    assert aims[:, :count].tolist() == expected
    turns = [target_of_run(aims, torch.full((2,), run), torch.tensor(count)) for run in range(4)]
    assert [aim[0].item() for aim in turns] == [expected[0][run % count] for run in range(4)]


@pytest.mark.parametrize("attack", [partial(apgd_targeted, epsilon=0.3), fab_targeted])
def test_the_nearest_class_is_found_where_the_likeliest_is_far(attack):
    # Leads 1, 2 and 8 over slopes 1, 10 and 5: distances 1, 0.2 and 1.6.
    model = nn.Linear(50, 4)
    model.bias.data = torch.tensor([0.0, -1.0, -2.0, -8.0])
    model.weight.data = torch.zeros(4, 50)
    model.weight.data[1, 0], model.weight.data[2, 1] = 1.0, 10.0
    model.weight.data[3, 2:4] = torch.tensor([3.0, 4.0])
    told = {"n_targets": 1, "steps": 20, "norm": "l2", "bounds": (-9.0, 9.0), "random_state": 0}
    inputs, labels = torch.zeros(1, 50), torch.tensor([0])
    near = attack(model, inputs, labels, target_order="nearest", **told)
    far = attack(model, inputs, labels, target_order="likeliest", **told)
    assert model(near).argmax() == 2
    assert model(far).argmax() == (1 if attack is fab_targeted else 0)


@pytest.mark.parametrize("n_targets", [1, 3, 20])
def test_nearest_first_is_the_order_of_an_exact_gradient_in_the_dual_norm(n_targets):
    torch.manual_seed(0)
    weight = torch.randn(16, 6, dtype=torch.float64) * torch.rand(16, 1).double()
    model = lambda inputs: inputs @ weight.T  # noqa: E731
    inputs = torch.rand(7, 6, dtype=torch.float64)
    labels = model(inputs).argmax(dim=1)
    examples = examples_of(inputs, labels)
    for norm, dual in (("linf", 1), ("l2", 2), ("l1", torch.inf)):
        choose = TargetChoice(n_targets, "nearest", norm, targeted=False)
        logits, targets, count = choose(query(model, inputs, labels), examples)
        assert torch.equal(logits, model(inputs))
        assert count == min(n_targets, 15)
        assert targets.shape == (7, n_targets)
        for row, label in enumerate(labels.tolist()):
            lead = logits[row, label] - logits[row]
            likeliest = lead.argsort()[1 : 1 + max(12, n_targets)]
            slope = (weight - weight[label]).norm(p=dual, dim=1)
            distance = (lead / slope)[likeliest]
            expected = likeliest[distance.argsort()][:count]
            assert targets[row, :count].tolist() == expected.tolist()


def test_an_unknown_order_of_targets_is_refused(tangled):
    for attack in (partial(apgd_targeted, epsilon=0.1), fab_targeted):
        with pytest.raises(ValueError, match="target_order must be one of 'likeliest', 'nearest'"):
            attack(tangled, greys(1), torch.tensor([0]), target_order="closest")


def test_the_targeted_loss_by_hand():
    logits = torch.tensor([[9.0, 5.0, 3.0, 1.0, -7.0]])
    lead = logits[:, 2] - logits[:, 0]
    torch.testing.assert_close(targeted_dlr(logits, lead), torch.tensor([-6.0 / 7.0]))
    scaled = targeted_dlr(100 * logits - 40, 100 * lead)
    torch.testing.assert_close(scaled, torch.tensor([-6.0 / 7.0]))


def test_with_three_classes_the_lead_itself_is_ascended():
    logits = torch.tensor([[9.0, 5.0, 3.0]])
    assert targeted_dlr(logits, torch.tensor([-4.0])) == -4.0


def test_a_misclassified_example_is_asked_about_once(tangled):
    model, inputs = Recording(tangled.eval()), greys(5)
    wrong = (tangled.decided(inputs) + 1) % 4
    assert torch.equal(apgd_targeted(model, inputs, wrong, epsilon=0.1), inputs)
    assert model.asked == 5


@pytest.mark.parametrize("attack", [apgd, apgd_targeted])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l0"}, "norm must be one of 'linf', 'l2', 'l1', got 'l0'"),
        ({"rho": 1.5}, r"rho must be in \[0, 1\], got 1.5"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(halfspace, examples, attack, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        attack(halfspace, *examples(2), **{"epsilon": 0.1, **settings})


def test_no_targets_are_refused(halfspace, examples):
    with pytest.raises(ValueError, match=r"^n_targets must be at least 1, got 0$"):
        apgd_targeted(halfspace, *examples(2), epsilon=0.1, n_targets=0)


# l1.


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 100])
def test_an_l1_run_ends_within_the_budget_and_shrinks_to_it_from_three_times_as_much(steps):
    begun, ended, multiple = stages(steps, torch.device("cpu")).tolist()
    assert multiple == sorted(multiple, reverse=True)
    assert multiple[-1] == 1
    # The last iterate is judged, and at least four tenths of the steps are the budget's.
    assert multiple.count(1) >= 0.4 * steps + 1
    if steps >= 7:
        assert set(multiple) == {3, 2, 1}
    assert all(b <= step < e for step, (b, e) in enumerate(zip(begun, ended, strict=True)))


def test_l1_iterates_lie_in_their_stages_balls_and_bounds(tangled):
    inputs, whole = greys(6), 0
    labels = tangled.decided(inputs)
    limits = 0.3 * stages(20, torch.device("cpu"))[2]
    settings = {"norm": "l1", "epsilon": 0.3, "steps": 20, "random_state": 0}
    for x, label in zip(inputs.split(1), labels.split(1), strict=True):
        model = Recording(tangled.eval())
        apgd(model, x, label, early_stop=False, **settings)
        points = torch.cat(model.points)
        size = (points - x).abs().sum(dim=1)
        assert ((points >= 0) & (points <= 1)).all()
        # A stage that comes to rest is cut short.
        assert (size <= limits[: len(size)] * (1 + 1e-9)).all()
        if len(size) == len(limits):
            whole += 1
            for limit in limits.unique():
                assert size[limits == limit].max() > 0.99 * limit
    assert whole >= 2


def test_an_l1_run_starts_from_few_coordinates_and_each_run_from_others():
    inputs, labels = torch.full((1, 400), 0.5), torch.tensor([0])
    moved = []
    for seed in range(4):
        model = Recording(nn.Linear(400, 2))
        settings = {"norm": "l1", "epsilon": 2.0, "steps": 1, "random_state": seed}
        apgd(model, inputs, labels, early_stop=False, **settings)
        moved.append((model.points[0] != inputs).flatten())
    # Of 400 coordinates as good as all move where the start is drawn evenly from the ball.
    assert all(0 < int(each.sum()) < 100 for each in moved)
    assert len({tuple(each.tolist()) for each in moved}) == 4


def test_each_l1_run_starts_anew_in_the_largest_ball_whatever_the_others_found():
    inputs, labels = torch.full((1, 400), 0.5), torch.tensor([0])
    settings = {"norm": "l1", "epsilon": 2.0, "steps": 10, "restarts": 3, "random_state": 0}
    starts = []
    for _ in range(2):
        model = Recording(nn.Linear(400, 2))
        apgd(model, inputs, labels, early_stop=False, **settings)
        points = torch.cat(model.points)
        assert len(points) == 3 * 11
        starts.append(points[::11])
    assert starts[0].equal(starts[1])
    sizes = (starts[0] - inputs).abs().sum(dim=1)
    assert (sizes <= 6 * (1 + 1e-6)).all()
    assert (sizes > 5.9).all()
    assert len({tuple(start.tolist()) for start in starts[0]}) == 3


def test_a_point_of_a_larger_ball_is_no_success_in_l1(halfspace, examples):
    inputs, labels = examples(12)
    least = halfspace.least_epsilon(inputs, "l1")
    epsilon = least.min().item() * 0.9
    adversarial = apgd(halfspace, inputs, labels, norm="l1", epsilon=epsilon, steps=20)
    assert (halfspace(adversarial).argmax(dim=1) == labels).all()
    assert ((adversarial - inputs).abs().flatten(1).sum(dim=1) <= epsilon * (1 + 1e-9)).all()


@pytest.mark.parametrize("d", [20, 784, 16_000])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_auto_pgd_in_l1_fools_a_linear_model_from_a_little_above_the_least_radius_on(d, share):
    generator = torch.Generator().manual_seed(d)
    w, x = torch.randn(d, generator=generator), torch.rand(1, d, generator=generator)
    room = torch.where(w > 0, x[0], 1 - x[0]).double()
    # The steepest coordinates go to their bounds until a share of the whole way is gone.
    order = w.abs().argsort(descending=True)
    gains = (w.abs().double() * room)[order].cumsum(dim=0)
    whole = int((gains < share * gains[-1]).sum()) + 1
    needed, slack = room[order][:whole].sum().item(), gains[whole - 1].item()

    model = nn.Linear(d, 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([w, -w]) * 1.5 / slack)
        offset = 1.5 - (w.double() @ x[0].double()) * 1.5 / slack
        model.bias.copy_(torch.stack([offset, -offset]))
    for factor, expected in ((0.98, 0), (1.05, 1)):
        settings = {"norm": "l1", "epsilon": factor * needed, "random_state": 0}
        adversarial = apgd(model, x, torch.tensor([0]), **settings)
        assert model(adversarial).argmax(dim=1).item() == expected


def test_an_l1_run_without_slope_asks_about_each_ball_once(halfspace):
    model = Recording(Flat())
    settings = {"norm": "l1", "epsilon": 0.3, "steps": 50, "early_stop": False}
    apgd(model, greys(1), torch.tensor([1]), **settings)
    assert model.asked == 3
