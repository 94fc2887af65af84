"""What the fast minimum norm attack promises beyond the contract of every attack."""

import math

import pytest
import torch
from torch import Tensor

from conftest import Recording
from distillguard._geometry import lp_norm
from distillguard.attacks import fmn
from distillguard.attacks._checks import ModelFacts
from distillguard.functional import margin_loss

ORDER = {"linf": math.inf, "l2": 2.0, "l1": 1.0}
DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
WIDE = (-10.0, 11.0)


def inputs_of(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 12, generator=generator, dtype=torch.float64)


# The algorithm as the docstring has it, written a second time: one example, plain loops.


def put_into_ball(delta: Tensor, radius: float, norm: str) -> Tensor:
    """The nearest perturbation that is no longer than the radius."""
    if norm == "linf":
        return delta.clamp(-radius, radius)
    if delta.norm(ORDER[norm]) <= radius:
        return delta
    if norm == "l2":
        return delta * radius / delta.norm()
    # What is taken off every size, found by halving an interval.
    low, high = 0.0, delta.abs().max().item()
    for _ in range(100):
        middle = (low + high) / 2
        left = (delta.abs() - middle).clamp(min=0).sum()
        low, high = (middle, high) if left > radius else (low, middle)
    return delta.sign() * (delta.abs() - high).clamp(min=0)


def in_plain_loops(model, x: Tensor, label: int, norm: str, steps: int, gamma: float, sign: int):
    """All iterates, far from any bound: ``sign`` is -1 where the label is to be reached."""
    iterates, radius, best = [x], math.inf, math.inf
    for k in range(steps):
        point = iterates[-1].clone().requires_grad_()
        margin = sign * margin_loss(model(point[None]), torch.tensor([label]))[0]
        (gradient,) = torch.autograd.grad(margin, point)
        delta, slope = point.detach() - x, gradient.norm(DUAL[norm]).item()
        margin, length = margin.item(), delta.norm(ORDER[norm]).item()
        cosine = (1 + math.cos(math.pi * k / steps)) / 2
        change = 0.001 + (gamma - 0.001) * cosine
        if margin > 0:
            best = min(best, length)
            linear = abs((gradient @ delta).item() - margin) / slope
            floor = max(0.0, 1 - 5 * change) * radius
            radius = min(max(linear, floor), (1 - change) * radius, best)
        elif best < math.inf:
            radius *= 1 + change
        else:
            radius = 1.02 * (length - margin / slope)
        direction = gradient.sign() if norm == "linf" else gradient / gradient.norm()
        share = (2 if norm == "linf" else 1) * (0.01 + 0.99 * cosine)
        iterates.append(x + put_into_ball(delta + share * radius * direction, radius, norm))
    return torch.stack(iterates)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("gamma", [0.05, 0.4])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_agrees_with_the_algorithm_in_plain_loops(tangled, norm, gamma, targeted):
    inputs = inputs_of(5)
    labels = tangled.eval()(inputs).argsort(dim=1, descending=True)[:, int(targeted)]
    model = Recording(tangled)

    settings = {"norm": norm, "steps": 40, "gamma": gamma, "targeted": targeted, "bounds": WIDE}
    adversarial = fmn(model, inputs, labels, **settings)

    asked = torch.stack(model.points)
    for i, (x, label) in enumerate(zip(inputs, labels.tolist(), strict=True)):
        expected = in_plain_loops(tangled, x, label, norm, 40, gamma, -1 if targeted else 1)
        assert WIDE[0] < expected.min()
        assert expected.max() < WIDE[1]
        torch.testing.assert_close(asked[:, i], expected, rtol=0, atol=1e-7)
        margins = margin_loss(tangled(expected), torch.full((41,), label))
        fooling = expected[(margins < 0) if targeted else (margins > 0)]
        assert len(fooling)
        nearest = (fooling - x).norm(ORDER[norm], dim=1).argmin()
        torch.testing.assert_close(adversarial[i], fooling[nearest], rtol=0, atol=1e-7)


def test_asks_once_more_than_it_takes_steps_and_the_last_time_without_a_gradient(tangled):
    model, inputs = Recording(tangled.eval()), inputs_of(4)
    fmn(model, inputs, tangled.decided(inputs), steps=7)
    assert sum(map(len, model.points)) == 4 * 8
    assert model.backwards == 4 * 7


def test_what_is_misclassified_already_costs_one_evaluation(tangled):
    model, inputs = Recording(tangled.eval()), inputs_of(4)
    fmn(model, inputs, (tangled.decided(inputs) + 1) % 4, steps=7)
    assert len(model.points) == 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_comes_within_a_hundredth_of_the_boundary_in_thirty_steps(halfspace, examples, norm):
    inputs, labels = examples(16)
    least = halfspace.least_epsilon(inputs, norm)
    adversarial = fmn(halfspace, inputs, labels, norm=norm, steps=30)
    distance = lp_norm(adversarial - inputs, norm)
    assert (distance >= least * (1 - 1e-9)).all()
    assert (distance <= least * 1.01).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_only_what_the_bounds_leave_counts(norm):
    # Class 1 wins where 80 x1 + x2 + x3 > 81.2. The steep coordinate is at its bound; the other two
    # share the 1.2 that are wanted.
    def model(points: Tensor) -> Tensor:
        gap = points.flatten(1) @ points.new_tensor([80.0, 1.0, 1.0]) - 81.2
        return torch.stack([-gap, gap], dim=1)

    inputs = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    adversarial = fmn(model, inputs, torch.tensor([0]), norm=norm, steps=20)
    least = {"linf": 0.6, "l2": 0.6 * 2**0.5, "l1": 1.2}[norm]
    assert lp_norm(adversarial - inputs, norm).item() == pytest.approx(least, rel=0.01)
    assert model(adversarial).argmax() == 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stops_once_it_is_near_enough(halfspace, examples, norm):
    inputs, labels = examples(16)
    near = 1.5 * halfspace.least_epsilon(inputs, norm).max().item()
    model = Recording(halfspace)
    adversarial = fmn(model, inputs, labels, norm=norm, steps=30, stop_within=near)
    assert (lp_norm(adversarial - inputs, norm) <= near).all()
    assert (halfspace(adversarial).argmax(dim=1) != labels).all()
    # The boundary is straight, and the first radius that of its distance.
    assert sum(map(len, model.points)) <= 3 * 16


class Scripted:
    """A model of two classes that is fooled at the questions given, counted from 0."""

    facts = ModelFacts()

    def __init__(self, fooled: set[int]) -> None:
        self.fooled = fooled
        self.asked: list[Tensor] = []

    def __call__(self, points: Tensor) -> Tensor:
        # A boundary near at first, so that the first radius is small, and then out of reach.
        question = len(self.asked)
        margin = 100.0 if question in self.fooled else -1e6 if question else -100.0
        self.asked.append(points.detach().clone())
        lead = points.flatten(1).sum(dim=1) + margin
        return torch.stack([torch.zeros_like(lead), lead], dim=1)

    def distances(self, norm: str) -> Tensor:
        return torch.stack([lp_norm(each - self.asked[0], norm)[0] for each in self.asked])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_success_farther_away_than_the_best_leads_back_to_the_best(norm):
    model = Scripted({1, 16})
    settings = {"norm": norm, "steps": 400, "gamma": 0.05, "bounds": (-1e4, 1e4)}
    fmn(model, inputs_of(1), torch.tensor([0]), **settings)
    distance = model.distances(norm)
    assert distance[16] > 1.3 * distance[1]
    assert distance[17] <= distance[1] * (1 + 1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_after_the_first_success_no_point_lies_farther_away_than_it(norm):
    model = Scripted({1, 2})
    # Short steps: the first success lies far inside the first radius.
    settings = {"norm": norm, "steps": 400, "step_size": 0.01, "gamma": 0.05}
    fmn(model, inputs_of(1), torch.tensor([0]), bounds=(-1e4, 1e4), **settings)
    distance = model.distances(norm)
    assert distance[1] < 0.1 * 100 / torch.ones(12).norm(DUAL[norm])
    assert distance[2] <= distance[1] * (1 + 1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_radius_does_not_grow_for_ever(norm):
    model = Scripted({1})
    fmn(model, inputs_of(1).float(), torch.tensor([0]), norm=norm, steps=300, gamma=0.99)
    assert torch.cat(model.asked).isfinite().all()


@pytest.mark.parametrize("factor", [1e-4, 1e5])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_scale_of_the_logits_makes_no_difference(tangled, norm, factor):
    inputs = inputs_of(6, seed=1)
    labels = tangled.eval().decided(inputs)
    expected = fmn(tangled, inputs, labels, norm=norm, steps=20)
    adversarial = fmn(lambda points: factor * tangled(points), inputs, labels, norm=norm, steps=20)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**100])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nor_does_a_scale_whose_squares_leave_single_precision(tangled, norm, factor):
    model = tangled.eval().float()
    inputs = inputs_of(6, seed=1).float()
    labels = model(inputs).argmax(dim=1)
    expected = fmn(model, inputs, labels, norm=norm, steps=20)
    assert (expected != inputs).any()
    adversarial = fmn(lambda points: factor * model(points), inputs, labels, norm=norm, steps=20)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)


def test_without_a_slope_nothing_moves_and_nothing_breaks():
    inputs = inputs_of(3)
    flat = Recording(lambda points: points[:, :2] * 0 + torch.tensor([2.0, 0.0]))
    adversarial = fmn(flat, inputs, torch.zeros(3, dtype=torch.int64), steps=5)
    assert torch.equal(adversarial, inputs)
    assert torch.cat(flat.points).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l0"}, "norm must be one of 'linf', 'l2', 'l1', got 'l0'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"step_size": 0.0}, "step_size must be a finite number above 0, got 0.0"),
        ({"stop_within": 0}, "stop_within must be a finite number above 0, got 0"),
        ({"gamma": 0}, "gamma must be a finite number above 0, got 0"),
        ({"gamma": 1.0}, "gamma must be below 1, got 1.0"),
    ],
    ids=str,
)
def test_settings_are_checked(tangled, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        fmn(tangled, torch.zeros(1, 12), torch.tensor([0]), **settings)
