"""What only the Carlini-Wagner attacks as published promise."""

import importlib
import inspect
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from conftest import Halfspace, examples_of, query
from distillguard import attacks
from distillguard._geometry import lp_norm
from distillguard.attacks._checks import ModelFacts
from distillguard.attacks.carlini_wagner._l0_published import EXTRA_MARGIN, AllowedSet
from distillguard.attacks.carlini_wagner._l2_published import BinarySearch
from distillguard.attacks.carlini_wagner._linf_published import LargestChange
from distillguard.attacks.carlini_wagner._published import (
    Judged,
    ShrinkingConstraint,
    TanhObjective,
    in_tanh_space,
)
from distillguard.functional import margin_loss

l2 = partial(attacks.carlini_wagner_l2, algorithm="paper")
linf = partial(attacks.carlini_wagner_linf, algorithm="paper")
l0 = partial(attacks.carlini_wagner_l0, algorithm="paper")

each_attack = pytest.mark.parametrize(
    "attack", [pytest.param(l2, id="l2"), pytest.param(linf, id="linf"), pytest.param(l0, id="l0")]
)
OBJECTIVE = TanhObjective(confidence=0.0, targeted=False)


class Counting:
    """A model that counts its evaluations."""

    facts = ModelFacts()

    def __init__(self, model: nn.Module):
        self.model = model
        self.evaluations = 0

    def __call__(self, points: Tensor) -> Tensor:
        self.evaluations += len(points)
        return self.model(points)


class Slope(nn.Module):
    """Two classes of which the second can never win; the first one's lead falls or stays."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = slope

    def forward(self, inputs: Tensor) -> Tensor:
        lead = 1e4 - self.slope * (inputs.flatten(1)[:, 0] - 0.5)
        return torch.stack([lead, torch.zeros_like(lead)], dim=1)


class Linear(nn.Module):
    """Two classes, the second of which leads by ``weights x - offset``."""

    def __init__(self, weights: list[float], offset: float):
        super().__init__()
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.offset = offset

    def forward(self, inputs: Tensor) -> Tensor:
        lead = inputs.flatten(1) @ self.weights - self.offset
        return torch.stack([torch.zeros_like(lead), lead], dim=1)


def middle(n: int, pixels: int = 4) -> tuple[Tensor, Tensor]:
    return torch.full((n, pixels), 0.5, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)


def apart(norm: str) -> tuple[Halfspace, Tensor, Tensor, Tensor]:
    """Points at known distances from a half-space, far from the bounds."""
    model, least = Halfspace((6,), scale=10), torch.tensor([0.08, 0.15, 0.3], dtype=torch.float64)
    w = model.w.detach()
    towards = w / w.norm() if norm == "l2" else w.sign()
    inputs = 0.5 + least[:, None] * towards
    return model, inputs, torch.ones(3, dtype=torch.int64), least


# The closest points, by closed forms.


@pytest.mark.parametrize(("norm", "attack", "steps"), [("l2", l2, 60), ("linf", linf, 30)])
def test_the_closest_point_of_a_half_space_is_found(norm, attack, steps):
    model, inputs, labels, least = apart(norm)
    adversarial = attack(model, inputs, labels, steps=steps)
    assert (model(adversarial).argmax(dim=1) == 0).all()
    ratio = lp_norm(adversarial - inputs, norm) / least
    assert (ratio >= 1).all()
    assert ratio.max() < 1.03


@pytest.mark.parametrize(("missing", "count"), [(0.4, 1), (0.9, 2), (1.35, 3), (2.0, 4)])
def test_exactly_as_few_coordinates_change_as_must(missing, count):
    # From the middle the weights gain at most 0.65, 0.6, 0.55 and 0.5, in this order:
    order = [2, 0, 3, 1]
    inputs, labels = middle(1)
    model = Linear([1.2, 1.0, 1.3, 1.1], 2.3 + missing)
    adversarial = l0(model, inputs, labels, steps=20)
    assert model(adversarial).argmax(dim=1) == 1
    assert (adversarial != inputs)[0].nonzero().flatten().tolist() == sorted(order[:count])


@each_attack
def test_black_and_white_pixels_can_move(attack):
    inputs, labels = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).double(), torch.tensor([0])
    model = Linear([1e4, -1e4, 1e4, -1e4], -2e4 + 5.0)
    adversarial = attack(model, inputs, labels, steps=200)
    assert model(adversarial).argmax(dim=1) == 1
    assert ((adversarial >= 0) & (adversarial <= 1)).all()


@each_attack
@pytest.mark.parametrize("targeted", [False, True])
def test_the_margin_reaches_the_confidence(attack, targeted):
    inputs, labels = middle(1)
    model = Linear([1.0, -2.0, 3.0, 2.0], 2.2)
    adversarial = attack(
        model, inputs, labels + targeted, steps=20, confidence=0.5, targeted=targeted
    )
    margin = margin_loss(model(adversarial), labels).item()
    assert margin >= 0.5


# The search over c, worked out by hand.


class Scripted:
    """Misclassifies everything but the inputs, exactly where told to."""

    def __init__(self, inputs: Tensor):
        self.inputs = inputs
        self.gives_in = torch.zeros(len(inputs), dtype=torch.bool)

    def __call__(self, points: Tensor) -> Tensor:
        moved = (points.detach() != self.inputs).flatten(1).any(dim=1)
        lead = torch.where(moved & self.gives_in, 1.0, -1.0) + 1e-3 * points.flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(lead), lead], dim=1)


def test_l2_grows_c_tenfold_until_a_success_and_then_halves_the_interval():
    inputs, labels = middle(3, pixels=1)
    needed = torch.tensor([0.03, 0.0, 1e9], dtype=torch.float64)
    machine, model = BinarySearch(steps=3, objective=OBJECTIVE), Scripted(inputs)
    state = machine.start(examples_of(inputs, labels))

    visited: list[list[float]] = [[], [], []]
    while not machine.done(state).all():
        for mine, c, taken, done in zip(
            visited, state.c, state.step, machine.done(state), strict=True
        ):
            if taken == 0 and not done:
                mine.append(c.item())
        model.gives_in = state.c >= needed
        state = machine.step(query(model, inputs), state)

    assert visited == [
        pytest.approx(each, rel=1e-12)
        for each in (
            [1e-3, 1e-2, 0.1, 0.055, 0.0325, 0.02125, 0.026875, 0.0296875, 0.03109375],
            [1e-3 / 2**halvings for halvings in range(9)],
            [1e-3, 1e-2, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5],
        )
    ]


@pytest.mark.parametrize(("limit", "runs"), [(LargestChange(), 21), (AllowedSet(), 31)])
def test_the_others_double_c_and_keep_it_when_they_tighten(limit, runs):
    inputs, labels = middle(2, pixels=3)
    needed = torch.tensor([4 * limit.first_c, 1e9], dtype=torch.float64)
    machine, model = ShrinkingConstraint(limit, steps=2, objective=OBJECTIVE), Scripted(inputs)
    state = machine.start(examples_of(inputs, labels))

    first, second = [], []
    while not machine.done(state)[1]:
        if state.step[1] == 0:
            second.append(state.c[1].item())
        if not machine.done(state)[0]:
            first.append(state.c[0].item())
        model.gives_in = state.c >= needed
        state = machine.step(query(model, inputs), state)

    assert second == pytest.approx([limit.first_c * 2**k for k in range(runs)], rel=1e-12)
    # Two steps for each c that fails. The third solves: once for tau, for each pixel in L0.
    expected = [1, 1, 2, 2, 4] if limit.norm == "linf" else [1, 1, 2, 2, 4, 4, 4]
    assert first == pytest.approx([limit.first_c * factor for factor in expected], rel=1e-12)
    assert machine.limit.exhausted(state.limit).tolist() == [True, False]


# What it costs.


@pytest.mark.parametrize(
    ("attack", "slope", "evaluations"),
    [
        # Checks at 0 and 2 find that a loss without a slope has not fallen.
        pytest.param(l2, 0.0, 9 * 3, id="l2-stalled"),
        pytest.param(l2, 5e3, 9 * 21, id="l2-falling"),
        pytest.param(linf, 0.0, 21 * 20, id="linf"),
        pytest.param(l0, 0.0, 31 * 20, id="l0"),
    ],
)
def test_a_failure_costs_every_c_and_comes_back_unchanged(attack, slope, evaluations):
    inputs, labels = middle(1, pixels=1)
    model = Counting(Slope(slope))
    adversarial = attack(model, inputs, labels, steps=20)
    assert model.evaluations == evaluations
    assert torch.equal(adversarial, inputs)


@each_attack
def test_an_input_misclassified_already_costs_one_evaluation(attack):
    inputs, labels = middle(1)
    model = Counting(Linear([1.0] * 4, 0.5))
    assert torch.equal(attack(model, inputs, labels), inputs)
    assert model.evaluations == 1


@pytest.mark.parametrize(("norm", "steps"), [("l2", 10_000), ("linf", 1_000), ("l0", 1_000)])
def test_the_published_number_of_steps_is_the_default(monkeypatch, norm, steps):
    module = importlib.import_module(f"distillguard.attacks.carlini_wagner._{norm}")
    monkeypatch.setattr(module, "run", lambda machine, *args, **more: machine)
    attack = getattr(attacks, f"carlini_wagner_{norm}")
    assert attack(None, None, None, algorithm="paper").steps == steps
    assert attack(None, None, None, algorithm="paper", steps=7).steps == 7
    assert inspect.signature(attack).parameters["algorithm"].default == "fast"


@each_attack
def test_an_unknown_algorithm_is_refused(attack):
    message = r"^algorithm must be one of 'fast', 'paper', got 'slow'$"
    with pytest.raises(ValueError, match=message):
        attack(nn.Identity(), *middle(1), algorithm="slow")


# The objectives and the steps, by autograd and torch's own Adam.


def in_image_space(w: Tensor) -> Tensor:
    return (w.tanh() + 1) / 2


def published_loss(norm: str, w: Tensor, state, model, labels: Tensor, spare: float) -> Tensor:
    delta = in_image_space(w) - state.examples.inputs
    f = (spare - margin_loss(model(in_image_space(w)), labels)).clamp(min=0)
    if norm == "linf":
        distance = (delta.abs() - state.limit[:, None]).clamp(min=0).sum(dim=1)
    else:
        distance = (delta**2).sum(dim=1)
    return (distance + state.c * f).sum()


@pytest.mark.parametrize(("limit", "spare"), [(LargestChange(), 0.0), (AllowedSet(), EXTRA_MARGIN)])
def test_the_objectives_are_the_published_ones(tangled, limit, spare):
    generator = torch.Generator().manual_seed(0)
    inputs = 0.2 + 0.6 * torch.rand(8, 12, generator=generator, dtype=torch.float64)
    labels = tangled.decided(inputs)
    model, aim = tangled.eval(), TanhObjective(0.0, False, spare)
    state = ShrinkingConstraint(limit, 10, aim).start(examples_of(inputs, labels))
    state = state._replace(
        limit=torch.full_like(state.c, 0.05) if limit.norm == "linf" else inputs > 0.4,
        w=state.w + 0.2 * torch.randn(8, 12, generator=generator, dtype=torch.float64),
        c=torch.linspace(0.1, 2, 8, dtype=torch.float64),
    )

    judged = aim.judge(query(model, inputs, labels), state.examples, state.w)
    w = state.w.clone().requires_grad_()
    published_loss(limit.norm, w, state, model, labels, spare).backward()

    missing = spare - margin_loss(model(in_image_space(state.w)), labels)
    torch.testing.assert_close(judged.f, missing.clamp(min=0), rtol=0, atol=1e-5)
    expected = w.grad if limit.norm == "linf" else w.grad * state.limit
    actual = in_tanh_space(limit.gradient(judged, state), state.w, state.examples)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    assert (actual != 0).any()


def test_l2_takes_the_steps_of_torchs_adam(tangled):
    generator = torch.Generator().manual_seed(0)
    inputs = 0.2 + 0.6 * torch.rand(3, 12, generator=generator, dtype=torch.float64)
    labels = tangled.decided(inputs)
    model, machine = tangled.eval(), BinarySearch(steps=100, objective=OBJECTIVE)
    state = machine.start(examples_of(inputs, labels))._replace(c=inputs.new_full((3,), 0.5))

    w = torch.atanh((2 * inputs - 1) * 0.999999).requires_grad_()
    adam = torch.optim.Adam([w], lr=0.01)
    for _ in range(9):
        adam.zero_grad()
        published_loss("l2", w, state, model, labels, 0.0).backward()
        adam.step()
        state = machine.step(query(model, inputs), state)
        torch.testing.assert_close(state.w, w.detach(), rtol=0, atol=1e-5)
    assert (state.w - machine.objective.to_tanh(state.examples, inputs)).abs().min() > 0.01


# What is tightened, worked out by hand.


def judged_at(delta: list[float]) -> Judged:
    row = torch.tensor([delta], dtype=torch.float64)
    nothing = torch.zeros(1, dtype=torch.float64)
    return Judged(row, row, f=nothing, slope=torch.zeros_like(row), reached=nothing == 0)


def tightening(limit, inputs: Tensor) -> ShrinkingConstraint:
    machine = ShrinkingConstraint(limit, 10, OBJECTIVE)
    return machine.start(examples_of(inputs))


@pytest.mark.parametrize(("largest", "following"), [(0.7, 0.45), (0.4, 0.36)])
def test_tau_becomes_nine_tenths_of_itself_or_of_the_largest_change(largest, following):
    state = tightening(LargestChange(), torch.full((1, 2), 0.5, dtype=torch.float64))
    state = state._replace(limit=torch.full_like(state.limit, 0.5))
    tau = LargestChange().tightened(judged_at([0.1, -largest]), state)
    assert tau.item() == pytest.approx(following)
    assert LargestChange().exhausted(torch.tensor([1 / 256, 0.004])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("smallest", "count"),
    [
        # In the middle of the bounds a score is the square of the change; 0.3 sqrt(100) is 3.
        pytest.param([0.05, 0.06, 0.07, 0.08], 3, id="three-of-a-hundred"),
        pytest.param([0.05, 0.11, 0.12, 0.13], 2, id="none-after-one-above-a-hundredth"),
        pytest.param([0.21, 0.22, 0.23, 0.24], 1, id="at-least-one"),
        pytest.param([0.0, 0.0, 0.0, 0.0], 3, id="those-that-did-not-change"),
    ],
)
def test_the_coordinates_that_matter_least_are_frozen(smallest, count):
    rest = [0.25] * (100 - sum(value > 0 for value in smallest))
    delta = rest[:50] + smallest + rest[50:] + [0.0]
    state = tightening(AllowedSet(), torch.full((1, len(delta)), 0.5, dtype=torch.float64))
    already = state.limit.clone()
    already[:, -1] = False

    allowed = AllowedSet().tightened(judged_at(delta), state._replace(limit=already))

    frozen = (~allowed[0]).nonzero().flatten().tolist()
    assert frozen == [*range(50, 50 + count), len(delta) - 1]


# Examples do not see one another, though each has its own c and its own end.


@each_attack
def test_an_example_fares_the_same_in_any_batch(tangled, attack):
    generator = torch.Generator().manual_seed(0)
    inputs = 0.3 + 0.4 * torch.rand(4, 12, generator=generator, dtype=torch.float64)
    labels = tangled.decided(inputs)
    together = attack(tangled, inputs, labels, steps=15)
    apart = attack(tangled, inputs.flip(0), labels.flip(0), steps=15, batch_size=3).flip(0)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-9)
    assert lp_norm(together - inputs, "l2").unique().numel() == 4


@pytest.mark.parametrize("attack", [l2, l0])
def test_the_units_of_the_input_do_not_matter(halfspace, examples, attack):
    inputs, labels = examples(2)
    expected = attack(halfspace, inputs, labels, steps=10)
    actual = attack(
        lambda points: halfspace(points / 255),
        255 * inputs,
        labels,
        steps=10,
        bounds=(0.0, 255.0),
    )
    torch.testing.assert_close(actual / 255, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_an_aim_is_reached_above_a_tie_and_from_the_confidence_on(confidence):
    inputs = torch.tensor([[0.25], [0.5], [0.75], [1.0]])

    def model(points):
        return torch.cat([-points, points - 1], dim=1)  # the other class leads by 2 x - 1

    objective = TanhObjective(confidence=confidence, targeted=False)
    examples = examples_of(inputs)
    judged = objective.judge(query(model, inputs), examples, objective.to_tanh(examples, inputs))
    assert judged.reached.tolist() == [False, False, True, True]
    assert judged.f.tolist() == pytest.approx(
        [confidence + 0.5, confidence, max(0, confidence - 0.5), 0]
    )
