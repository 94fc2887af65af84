"""Descents and ascents a second time in plain loops, and their tables worked out by hand."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from conftest import Recording, Tangled, examples_of, query
from distillguard import _l1
from distillguard._random import example_keys, key_of_copy, normal
from distillguard.attacks import apgd, carlini_wagner_linf, pgd
from distillguard.attacks.carlini_wagner import _multi_target as race
from distillguard.attacks.carlini_wagner._l0_published import AllowedSet
from distillguard.attacks.carlini_wagner._linf_published import LargestChange
from distillguard.attacks.carlini_wagner._prune import TRIALS, TRIES, Pruning, Trial
from distillguard.attacks.carlini_wagner._published import Judged
from distillguard.functional import margin_loss


def inputs_of(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, generator=generator, dtype=torch.float64)


def slope_at(model, point: Tensor, label: int) -> tuple[float, Tensor]:
    """The margin, and its gradient."""
    point = point.clone().requires_grad_()
    margin = margin_loss(model(point[None]), torch.tensor([label]))[0]
    (gradient,) = torch.autograd.grad(margin, point)
    return margin.item(), gradient


def into_l1_ball(point: Tensor, x: Tensor, radius: float) -> Tensor:
    """The nearest point of the ball within [0, 1]; test_l1.py compares it with SciPy's."""
    return _l1.project(point[None], x[None], radius, torch.zeros_like(x), torch.ones_like(x))[0]


def l1_step(point: Tensor, gradient: Tensor, length: float, spread: float) -> Tensor:
    """The steepest coordinates as far as each may go, until the length is used up."""
    step, left = torch.zeros_like(point), length
    for place in gradient.abs().argsort(descending=True).tolist():
        value, slope = point[place].item(), gradient[place].item()
        room = 0.0 if slope == 0 else 1 - value if slope > 0 else value
        taken = min(room, length / spread, left)
        step[place] = math.copysign(taken, slope)
        left -= taken
    return step


# Auto-PGD in l1.


def sparse_apgd(model, x: Tensor, label: int, key: Tensor, epsilon: float, steps: int, runs: int):
    """All points asked about, up to where a stage comes to rest, which rounding decides."""
    ends = [math.floor(0.3 * steps), math.floor(0.6 * steps), steps + 1]
    stages = list(zip([0, *ends], ends, (3, 2, 1), strict=False))
    asked = []
    for run in range(runs):
        noise = normal(key, torch.tensor([run]), len(x), torch.float64)[0]
        start = x + min(1, 3 * epsilon) * noise
        support, number, step = None, 0, 0
        while step <= steps:
            begun, ended, multiple = stages[number]
            if step == begun or start is not None:
                radius = multiple * epsilon
                current = into_l1_ball(start, x, radius)
                start, peak, highest, length = None, current, -math.inf, radius
                support = 0.15 * len(x) if begun == 0 else int((current != x).sum())
            asked.append(current)
            margin, gradient = slope_at(model, current, label)
            if margin > highest:
                peak, highest, steepest = current, margin, gradient
            period = max(int(0.04 * (ended - begun)), 1)
            if step > begun and (step - begun) % period == 0:
                now = int((peak != x).sum())
                if now < 0.95 * support:
                    length, current, gradient = radius, peak, steepest
                else:
                    shorter = max(1.5, 100 ** (period / (ended - begun)))
                    length = max(length / shorter, radius / 100)
                support = now
            ahead = current + l1_step(current, gradient, length, max(support / 3, 1))
            following = into_l1_ball(ahead, x, radius)
            rests = all(torch.equal(following, each) for each in (current, peak))
            if rests and step < steps:
                return torch.stack(asked), False
            step, current = step + 1, following
            if step == ended and step <= steps:
                start, number = peak, number + 1
    return torch.stack(asked), True


@pytest.mark.parametrize(("steps", "d", "least"), [(9, 12, 2), (30, 60, 1), (170, 12, 0)])
def test_apgd_in_l1_agrees_with_the_algorithm_in_plain_loops(steps, d, least):
    tangled = Tangled(d)
    inputs, told, whole = inputs_of(4, d), {"epsilon": 0.7, "steps": steps}, 0
    labels = tangled.decided(inputs)
    keys = key_of_copy(example_keys(inputs, 5), labels)
    tangled.eval()
    for x, label, key in zip(inputs, labels.tolist(), keys.split(1), strict=True):
        model = Recording(tangled)
        settings = {"norm": "l1", "loss": "margin", "early_stop": False, "random_state": 5} | told
        apgd(model, x[None], torch.tensor([label]), restarts=2, **settings)
        expected, to_the_end = sparse_apgd(tangled, x, label, key, runs=2, **told)
        asked = torch.cat(model.points)
        assert len(expected) > 0.2 * steps
        # Near a peak roundings decide which point is the highest.
        first = min(len(expected), 75)
        torch.testing.assert_close(asked[:first], expected[:first], rtol=0, atol=1e-6)
        whole += to_the_end and len(asked) == len(expected)
    assert whole >= least


# PGD.


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_pgd_agrees_with_the_algorithm_in_plain_loops(norm, decay, momentum):
    tangled = Tangled(60)
    inputs, epsilon, steps = inputs_of(4, 60), {"linf": 0.1, "l2": 0.4, "l1": 3.0}[norm], 9
    labels = tangled.decided(inputs)
    asking = Recording(tangled.eval())
    told = {"norm": norm, "loss": "margin", "random_start": False, "early_stop": False}
    told |= {"momentum": momentum, "step_decay": decay, "steps": steps, "epsilon": epsilon}
    found = pgd(asking, inputs, labels, **told)
    asked = torch.stack(asking.points)
    for i, (x, label) in enumerate(zip(inputs, labels.tolist(), strict=True)):
        point, velocity, points, margins = x, torch.zeros_like(x), [], []
        for k in range(steps + 1):
            margin, gradient = slope_at(tangled, point, label)
            points.append(point)
            margins.append(margin)
            if momentum:
                velocity = momentum * velocity + gradient / gradient.abs().sum()
                gradient = velocity
            length = epsilon * (1 - k / steps) if decay else 2.5 * epsilon / steps
            if norm == "l1":
                share = min(int((point != x).sum()) / 3, max(1, 0.05 * len(x)))
                ahead = point + l1_step(point, gradient, length, max(share, 1))
                point = into_l1_ball(ahead, x, epsilon)
                continue
            unit = gradient.sign() if norm == "linf" else gradient / gradient.norm()
            delta = point + length * unit - x
            if norm == "linf":
                delta = delta.clamp(-epsilon, epsilon)
            else:
                delta = delta * min(1.0, epsilon / delta.norm().item())
            point = (x + delta).clamp(0, 1)
        torch.testing.assert_close(asked[:, i], torch.stack(points), rtol=0, atol=1e-6)
        best = points[margins.index(max(margins))]
        torch.testing.assert_close(found[i], best, rtol=0, atol=1e-6)


# What is tried to take changes back.


def test_a_change_of_each_of_the_32_least_is_tried_then_pairs_of_the_twelve_least_first():
    rows = [tuple(row) for row in TRIALS.tolist()]
    assert rows[:32] == [(rank, rank) for rank in range(32)]
    pairs = rows[32:]
    assert sorted(pairs) == list(itertools.combinations(range(12), 2))
    # The sum of the ranks never falls; of equal sums the pair with the nearer ranks comes first.
    assert [sum(pair) for pair in pairs] == sorted(sum(pair) for pair in pairs)
    assert pairs[:6] == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (0, 4)]
    assert TRIES == (2, 3)


def test_of_forty_changes_those_that_matter_least_are_tried_in_their_order():
    inputs = torch.zeros(1, 45)
    best = torch.cat([torch.linspace(1.0, 0.1, 40), torch.zeros(5)])[None]
    slope = torch.ones(1, 45)
    trial = Trial.none(inputs, torch.tensor([0])).rank_changes(torch.tensor([True]), slope, best)
    pruning, current, taken = Pruning(examples_of(inputs)), best, []
    while not bool(trial.over.all()):
        before = trial.number.item()
        trial, current = pruning.moved(trial, best, current, slope)
        if trial.number.item() != before and not bool(trial.over.all()):
            left = (current == 0) & (best != 0)
            taken.append(sorted(39 - place for place in left[0].nonzero().flatten().tolist()))
    assert taken == [sorted(set(row)) for row in TRIALS.tolist()]


# The race of classes.


class Along:
    """The first coordinate moved by ``relative`` times the distance that is known."""

    norm, dual = "l2", "l2"

    def enter(self, examples, points: Tensor) -> Tensor:
        return points

    def leave(self, examples, current: Tensor) -> Tensor:
        return current

    def moved(self, state, delta: Tensor, gradient: Tensor, relative: Tensor):
        step = torch.zeros_like(delta)
        step[:, 0] = relative * state.boundary_distance
        return state._replace(current=state.current + step)


def test_a_run_believes_the_first_slope_until_it_reaches_something_and_then_its_distance():
    # The lead is 4 x - 1 at first, and steeper later; class 1 beyond x = 0.25 + a little.
    def model(points: Tensor) -> Tensor:
        x = points[:, 0]
        lead = torch.where(x < 0.1, 4 * x - 1, 8 * x - 3.2)
        return torch.stack([-lead, lead], dim=1) / 2

    inputs, labels = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    runs = (race.Run(0, 9, 0.25, True),)
    machine = race.MultiTargetDescent(Along(), runs, confidence=0.0, targeted=False)
    state, known, places = machine.start(examples_of(inputs, labels)), [], []
    asking = query(model, inputs, labels)
    for _ in range(4):
        places.append(state.current[0, 0].item())
        state = machine.step(asking, state)
        known.append(state.boundary_distance.item())
    # Steps fall from 1 to a quarter of the distance within seven.
    first = 0.25
    second = first + 0.25 ** (1 / 7) * 0.25
    assert places[:3] == pytest.approx([0.0, first, second])
    assert second > 0.4
    # 8 * 0.25 - 3.2 is missed by 1.2 at a slope of 8: still the first estimate counts.
    third = second + 0.25 ** (2 / 7) * second
    assert known == pytest.approx([0.25, 0.25, second, second])
    assert places[3] == pytest.approx(third)
    assert state.best_distance.item() == pytest.approx(second)
    assert state.best[0, 0].item() == pytest.approx(second)


def test_a_slope_that_foretells_next_to_nothing_is_believed_to_a_thousandth_of_the_farthest():
    def model(points: Tensor) -> Tensor:
        lead = 1e6 * points[:, 0] - 1.0
        return torch.stack([-lead, lead], dim=1) / 2

    inputs, labels = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0])
    machine = race.MultiTargetDescent(
        Along(), (race.Run(0, 9, 0.25, True),), confidence=0.0, targeted=False
    )
    state = machine.step(query(model, inputs, labels), machine.start(examples_of(inputs, labels)))
    assert state.boundary_distance.item() == pytest.approx(2e-3)


def test_the_ninth_miss_and_each_later_one_lengthen_the_reach_to_the_farthest_point_at_most():
    def model(points: Tensor) -> Tensor:
        lead = 4 * points[:, 0] - 1
        return torch.stack([torch.zeros_like(lead), lead.clamp(max=-0.5)], dim=1)

    inputs, labels = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0])
    machine = race.MultiTargetDescent(
        Along(), (race.Run(0, 99, 0.25, True),), confidence=0.0, targeted=False
    )
    state, known = machine.start(examples_of(inputs, labels)), []
    asking = query(model, inputs, labels)
    for _ in range(20):
        state = machine.step(asking, state)
        known.append(state.boundary_distance.item())
    expected = [0.25] * 8 + [min(0.25 * 1.3**k, 2.0) for k in range(1, 13)]
    assert known == pytest.approx(expected)


# The published attacks of Carlini and Wagner.


@pytest.mark.parametrize("needed", [6.0, 4.35])
def test_each_tighter_limit_starts_without_adams_memory_and_keeps_c(needed):
    """The L-infinity attack in [0, 1] a second time: one example, tanh space and Adam in loops."""
    x, steps = torch.tensor([0.3, 0.6], dtype=torch.float64), 25

    def model(points: Tensor) -> Tensor:
        lead = 9 * (points[:, 0] + 0.5 * points[:, 1] ** 2) - needed
        return torch.stack([-lead, lead], dim=1) / 2

    def to_w(point: Tensor) -> Tensor:
        return torch.atanh((2 * point - 1) * 0.999999)

    asked, tau, c, step, origin = [], 1.0, 1e-5, 0, to_w(x).tanh()
    w, mean, square = to_w(x), torch.zeros(2).double(), torch.zeros(2).double()
    age, best = 0, (1.0, x)
    while tau > 1 / 256 and c < 20:
        moving = w.clone().requires_grad_()
        point = x + (moving.tanh() - origin) / 2
        margin = margin_loss(model(point[None]), torch.tensor([0]))[0]
        excess = ((point - x).abs() - tau).clamp(min=0).sum()
        f = (-margin).clamp(min=0)
        (gradient,) = torch.autograd.grad(c * f + excess, moving)
        point = point.detach()
        asked.append(point)
        step, age, largest = step + 1, age + 1, (point - x).abs().max().item()
        if margin > 0 and largest < best[0]:
            best = largest, point
        if margin > 0 and (c * f + excess).item() < 1e-4 * c:
            tau = 0.9 * min(tau, largest)
            w, step, age = to_w(point), 0, 0
            mean, square = torch.zeros(2).double(), torch.zeros(2).double()
            continue
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = 5e-3 * math.sqrt(1 - 0.999**age) / (1 - 0.9**age)
        w = w - rate * mean / (square.sqrt() + 1e-8)
        if step >= steps:
            step, c = 0, 2 * c
    model_ = Recording(model)
    told = {"algorithm": "paper", "steps": steps}
    found = carlini_wagner_linf(model_, x[None], torch.tensor([0]), **told)
    assert len(model_.points) == len(asked)
    torch.testing.assert_close(torch.cat(model_.points), torch.stack(asked), rtol=0, atol=1e-8)
    torch.testing.assert_close(found[0], best[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("c", [1e-3, 2.0])
@pytest.mark.parametrize(
    ("missing", "excess", "solved"),
    [
        (0.0, 0.0, True),
        (0.9e-4, 0.0, True),
        (1e-4, 0.0, False),  # less than a ten-thousandth may be missing
        (1.1e-4, 0.0, False),
        (0.0, 0.9e-4, True),
        (0.6e-4, 0.6e-4, False),  # of both together
    ],
)
def test_a_limit_is_kept_where_less_than_a_ten_thousandth_is_missing(missing, excess, solved, c):
    delta = torch.tensor([[0.5 + excess * c, -0.2]], dtype=torch.float64)
    f = torch.tensor([missing], dtype=torch.float64)
    judged = Judged(delta, delta, f, delta, torch.tensor([True]))
    state = SimpleNamespace(c=torch.tensor([c]).double(), limit=torch.tensor([0.5]).double())
    assert LargestChange().is_satisfied(judged, state).item() is solved
    if excess == 0:
        assert AllowedSet().is_satisfied(judged, state).item() is solved
