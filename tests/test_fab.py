"""What targeted FAB promises beyond the contract of every attack, and its exact projection."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor, nn

from distillguard._geometry import lp_norm
from distillguard.attacks import fab_targeted
from distillguard.attacks._box_projection import step_to_hyperplane
from distillguard.attacks._checks import ModelFacts

NORMS = ["linf", "l2", "l1"]
each_norm = pytest.mark.parametrize("norm", NORMS)


class Recording(nn.Module):
    """A model that keeps every point it was asked about, and counts the gradients drawn."""

    facts = ModelFacts()

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.points: list[Tensor] = []
        self.gradients = 0

    def forward(self, points: Tensor) -> Tensor:
        self.points.append(points.detach().clone())
        logits = self.model(points)
        if logits.requires_grad:
            logits.register_hook(self.drawn)
        return logits

    def drawn(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)

    @property
    def asked(self) -> int:
        return sum(len(points) for points in self.points)


class Bowl(nn.Module):
    """Class 1 outside a sphere: curved, and the distance to the boundary is still known."""

    def __init__(self, radius: float = 0.3):
        super().__init__()
        self.radius = radius

    def forward(self, inputs: Tensor) -> Tensor:
        outside = ((inputs - 0.5) ** 2).flatten(1).sum(dim=1) - self.radius**2
        return torch.stack([-outside, 3 * outside, -2 - outside], dim=1)


def greys(n: int, d: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, generator=generator, dtype=torch.float64)


# The projection onto a hyperplane within the box.


def reach(points: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
    """How far along the normal the box lets a point go, in the direction of the gap."""
    up = normal * gap.sign()[:, None] > 0
    return (torch.where(up, 1 - points, points) * normal.abs()).sum(dim=1)


problems = st.tuples(st.integers(0, 2**40), st.integers(1, 40), st.floats(0.0, 0.9))


def problem(seed: int, d: int, zeros: float) -> tuple[Tensor, Tensor, Tensor]:
    """Five hyperplanes within reach, some coordinates at their bounds, some with no slope."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    points = (2 * draw(5, d) - 0.5).clamp(0, 1)
    normal = (2 * draw(5, d) - 1) * (draw(5, d) >= zeros)
    gap = 2 * draw(5) - 1
    return points, normal, gap * reach(points, normal, gap)


@given(problems)
@settings(deadline=None, max_examples=15)
def test_the_linf_step_is_the_one_that_linear_programming_finds(drawn):
    points, normal, gap = problem(*drawn)
    steps = step_to_hyperplane(points, normal, gap, "linf", 0, 1)
    torch.testing.assert_close((normal * steps).sum(dim=1), gap)
    d = points.shape[1]
    bound = np.hstack([np.vstack([np.eye(d), -np.eye(d)]), -np.ones((2 * d, 1))])
    for x, w, g, step in zip(points, normal, gap, steps, strict=True):
        found = linprog(
            np.r_[np.zeros(d), 1],
            A_ub=bound,
            b_ub=np.zeros(2 * d),
            A_eq=np.r_[w.numpy(), 0][None],
            b_eq=[g.item()],
            bounds=[*((-value, 1 - value) for value in x.tolist()), (0, None)],
        )
        assert found.success
        assert step.abs().max().item() == pytest.approx(found.fun, abs=1e-9)


@given(problems)
@settings(deadline=None, max_examples=15)
def test_the_l1_step_is_the_one_that_linear_programming_finds(drawn):
    points, normal, gap = problem(*drawn)
    steps = step_to_hyperplane(points, normal, gap, "l1", 0, 1)
    torch.testing.assert_close((normal * steps).sum(dim=1), gap)
    for x, w, g, step in zip(points, normal, gap, steps, strict=True):
        up, down = ([(0, value) for value in room.tolist()] for room in (1 - x, x))
        found = linprog(
            np.ones(2 * len(x)),
            A_eq=torch.cat([w, -w])[None].numpy(),
            b_eq=[g.item()],
            bounds=[*up, *down],
        )
        assert found.success
        assert step.abs().sum().item() == pytest.approx(found.fun, abs=1e-9)


@given(problems)
@settings(deadline=None, max_examples=100)
def test_the_l2_step_meets_the_conditions_of_a_minimum(drawn):
    points, normal, gap = problem(*drawn)
    steps = step_to_hyperplane(points, normal, gap, "l2", 0, 1)
    torch.testing.assert_close((normal * steps).sum(dim=1), gap)
    after = points + steps
    assert (after >= -1e-12).all()
    assert (after <= 1 + 1e-12).all()
    # Free coordinates are one multiple of the normal, blocked ones would go further along it.
    free = (after > 1e-9) & (after < 1 - 1e-9) & (normal.abs() > 1e-3)
    for w, step, loose in zip(normal, steps, free, strict=True):
        multiples = step / torch.where(w == 0, 1, w)
        if not loose.any():
            continue
        multiple = multiples[loose].mean()
        torch.testing.assert_close(multiples[loose], multiple.expand(int(loose.sum())))
        held = ~loose & (w.abs() > 1e-3)
        assert (multiples[held].abs() <= multiple.abs() + 1e-9).all()
        assert (step[w == 0] == 0).all()


@each_norm
@given(problems, st.floats(1.0, 1e6))
@settings(deadline=None, max_examples=40)
def test_a_hyperplane_out_of_reach_leads_to_the_nearest_corner(norm, drawn, times):
    points, normal, gap = problem(*drawn)
    gap = (gap.sign() * reach(points, normal, gap)) * times * (1 + 1e-9)
    steps = step_to_hyperplane(points, normal, gap, norm, 0, 1)
    towards = normal * gap.sign()[:, None]
    corner = torch.where(towards > 0, 1.0, torch.where(towards < 0, 0.0, points))
    torch.testing.assert_close(points + steps, corner, atol=1e-6, rtol=0)


@each_norm
def test_no_slope_no_step(norm):
    points = greys(3)
    steps = step_to_hyperplane(points, 0 * points, torch.tensor([1.0, -1.0, 0.0]), norm, 0, 1)
    assert torch.equal(steps, 0 * points)


@each_norm
def test_a_long_single_precision_problem_is_solved_to_rounding(norm):
    points = greys(4, 50_000).float()
    normal = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(1))
    gap = torch.tensor([1e-3, -3.0, 500.0, -8000.0])
    exact = step_to_hyperplane(points.double(), normal.double(), gap.double(), norm, 0, 1)
    steps = step_to_hyperplane(points, normal, gap, norm, 0, 1)
    torch.testing.assert_close(
        lp_norm(steps, norm).double(), lp_norm(exact, norm), rtol=1e-5, atol=0
    )


@each_norm
@pytest.mark.parametrize("factor", [2.0**-120, 2.0**-100, 2.0**100])
def test_a_step_does_not_mind_the_scale(norm, factor):
    points = greys(4, 50).float()
    normal = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    gap = torch.tensor([1e-3, -3.0, 5.0, -8000.0])
    expected = step_to_hyperplane(points, normal, gap, norm, 0, 1)
    steps = step_to_hyperplane(points, factor * normal, factor * gap, norm, 0, 1)
    torch.testing.assert_close(steps, expected)


def test_half_precision_is_solved_in_single():
    points = torch.full((1, 2000), 0.5, dtype=torch.bfloat16)
    normal = torch.ones(1, 2000, dtype=torch.bfloat16)
    step = step_to_hyperplane(points, normal, torch.tensor([200.0]), "linf", 0, 1)
    assert step.dtype == torch.bfloat16
    torch.testing.assert_close(step.float(), torch.full((1, 2000), 0.1), rtol=0.01, atol=0)


# The attack.


@each_norm
@pytest.mark.parametrize("seed", [0, 1])
def test_comes_within_a_hundredth_of_the_boundary_inside_the_box(halfspace, norm, seed):
    # Many pixels at their bounds: the closed form without bounds would be too small.
    inputs = (3 * greys(12, seed=seed) - 1).clamp(0, 1)
    labels = halfspace(inputs).argmax(dim=1)
    gap = -halfspace.signed_distance(inputs).detach()
    normal = halfspace.w.detach().expand(12, -1)
    least = lp_norm(step_to_hyperplane(inputs, normal, gap, norm, 0, 1), norm)

    adversarial = fab_targeted(halfspace, inputs, labels, norm=norm, steps=20)

    distance = lp_norm(adversarial - inputs, norm)
    assert (halfspace(adversarial).argmax(dim=1) != labels).all()
    assert (distance >= least * (1 - 1e-9)).all()
    assert (distance <= least * 1.01).all()


def test_comes_within_a_tenth_of_a_curved_boundary_in_l1():
    centre = greys(8) * 0.04 + 0.48
    labels = torch.zeros(8, dtype=torch.long)
    adversarial = fab_targeted(Bowl(), centre, labels, norm="l1", steps=30)
    distance = lp_norm(adversarial - centre, "l1")
    # One pixel alone is nearest, that which is furthest from the middle.
    offset = (centre - 0.5).abs()
    furthest = offset.amax(dim=1)
    least = (0.09 - (offset**2).sum(dim=1) + furthest**2).sqrt() - furthest
    assert (Bowl()(adversarial).argmax(dim=1) == 1).all()
    assert (distance >= least * (1 - 1e-9)).all()
    assert (distance <= least * 1.1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_comes_within_a_hundredth_of_a_curved_boundary(norm):
    centre = greys(8) * 0.04 + 0.48
    labels = torch.zeros(8, dtype=torch.long)
    adversarial = fab_targeted(Bowl(), centre, labels, norm=norm, steps=30)
    distance = lp_norm(adversarial - centre, norm)
    offset = centre - 0.5
    if norm == "l2":
        least = 0.3 - offset.norm(dim=1)
    else:
        # Every pixel away from the middle by as much: 12 t^2 + 2 t |offset| + offset^2 = 0.09.
        half, rest = offset.abs().sum(dim=1), (offset**2).sum(dim=1) - 0.09
        least = (-half + (half**2 - 12 * rest).sqrt()) / 12
    assert (Bowl()(adversarial).argmax(dim=1) == 1).all()
    assert (distance >= least * (1 - 1e-9)).all()
    assert (distance <= least * 1.01).all()


@each_norm
def test_stops_at_the_first_success_that_is_near_enough(norm, tangled):
    inputs = greys(10)
    labels = tangled.decided(inputs)
    how = {"norm": norm, "steps": 12, "random_state": 0}
    nearest = lp_norm(fab_targeted(tangled, inputs, labels, **how) - inputs, norm)
    radius = 1.2 * nearest.median().item()

    every, few = Recording(tangled), Recording(tangled)
    fab_targeted(every, inputs, labels, **how)
    adversarial = fab_targeted(few, inputs, labels, **how, stop_within=radius)

    distance = lp_norm(adversarial - inputs, norm)
    fooled = tangled.decided(adversarial) != labels
    assert (fooled & (distance <= radius))[nearest <= radius].all()
    assert few.asked < 0.8 * every.asked


@each_norm
def test_a_point_on_the_boundary_is_taken_across_it(halfspace, norm):
    inputs = torch.full((2, 12), 0.5, dtype=torch.float64)
    labels = torch.tensor([0, 1])
    assert halfspace(inputs).abs().max() < 1e-12
    adversarial = fab_targeted(halfspace, inputs, labels, norm=norm)
    assert (halfspace(adversarial).argmax(dim=1) != labels).all()
    assert (adversarial - inputs).abs().max() < 1e-9


def test_a_run_without_slope_asks_once():
    class Flat(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return 0 * inputs[:, :1] + inputs.new_tensor([0.0, 5.0, 1.0])

    model, inputs = Recording(Flat()), greys(3)
    adversarial = fab_targeted(model, inputs, torch.ones(3, dtype=torch.long))
    assert torch.equal(adversarial, inputs)
    # Once to choose the classes, once towards each of the two.
    assert model.asked == 3 * (1 + 2)


@pytest.mark.parametrize(("n_targets", "restarts"), [(1, 1), (9, 1), (2, 3)])
def test_spends_at_most_two_evaluations_a_step(tangled, n_targets, restarts):
    model, inputs = Recording(tangled), greys(5)
    how = {"n_targets": n_targets, "restarts": restarts, "steps": 7, "random_state": 0}
    fab_targeted(model, inputs, tangled.decided(inputs), **how)
    runs = min(n_targets, 3) * restarts
    # The first look, the runs with their last point, the final search.
    assert model.asked <= 5 * (1 + runs * (2 * 7 + 1) + 3)
    assert model.asked > 5 * runs * 7


@each_norm
def test_draws_one_gradient_a_step_once_it_is_across_the_boundary(norm):
    # Each step from inside the bowl leads out of it: a success to retreat from without a slope.
    model, inputs, labels = Recording(Bowl()), greys(6) * 0.1 + 0.45, torch.zeros(6, dtype=int)
    fab_targeted(model, inputs, labels, norm=norm, n_targets=1, steps=20)
    # One gradient more at the first success, which surprises.
    assert model.gradients == 6 * (20 + 1)
    # The input, two points a step, and the final search.
    assert model.asked == 6 * (1 + 2 * 20 + 3)


class Receding(nn.Module):
    """Class 0 everywhere, by a lead that falls and never ends: each step leads further up."""

    def forward(self, inputs: Tensor) -> Tensor:
        lead = torch.exp(-100 * inputs.flatten(1).mean(dim=1))
        return torch.stack([lead, 0 * lead, -1 - lead], dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_last_point_of_a_run_that_found_nothing_is_judged_without_a_gradient(norm):
    model, inputs, labels = Recording(Receding()), greys(6) * 0.1, torch.zeros(6, dtype=int)
    fab_targeted(model, inputs, labels, norm=norm, n_targets=1, steps=8)
    assert model.gradients == 6 * 8
    # The input by itself, where each step begins, and where the last one ends.
    assert model.asked == 6 * (1 + 8 + 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_beta_of_one_goes_on_from_a_success_itself(norm):
    inputs = greys(8) * 0.04 + 0.48
    labels = torch.zeros(8, dtype=torch.long)
    how = {"norm": norm, "n_targets": 1, "steps": 30}
    usual, near = (
        lp_norm(fab_targeted(Bowl(), inputs, labels, beta=beta, **how) - inputs, norm)
        for beta in (0.9, 1.0)
    )
    model = Recording(Bowl())
    fab_targeted(model, inputs, labels, beta=1.0, **how)
    # No run ends at its first success: it would have asked for seven points or less.
    assert model.asked > 8 * 10
    assert (near <= usual * 1.1).all()


def test_more_classes_and_more_rounds_never_take_a_success_further(tangled):
    inputs = greys(8, seed=4)
    labels = tangled.decided(inputs)
    distances = [
        lp_norm(
            fab_targeted(tangled, inputs, labels, random_state=0, steps=10, **how) - inputs, "linf"
        )
        for how in ({"n_targets": 1}, {"n_targets": 3}, {"n_targets": 3, "restarts": 3})
    ]
    # The final search starts from a nearer point, so it may end a rounding error further.
    assert (distances[1] <= distances[0] * 1.01).all()
    assert (distances[2] <= distances[1] * 1.01).all()
    assert (distances[1] < distances[0] * 0.99).any()


def test_later_rounds_start_half_as_far_as_the_nearest_success(halfspace, examples):
    inputs, labels = examples(1)
    model = Recording(halfspace)
    first = fab_targeted(halfspace, inputs, labels, steps=4)
    fab_targeted(model, inputs, labels, steps=4, restarts=2, random_state=0)
    near = [lp_norm(points - inputs, "linf").item() for points in model.points]
    best = lp_norm(first - inputs, "linf").item()
    # Nothing but the second start is off the segment that a linear model leads along.
    along = (first - inputs).flatten(1)
    off = [
        torch.linalg.matrix_rank(torch.cat([(points - inputs).flatten(1), along]), rtol=1e-6) == 2
        for points in model.points
    ]
    start = off.index(True)
    assert 0 < near[start] <= 0.51 * best


def test_a_start_of_a_later_round_is_within_half_of_what_is_near_enough(halfspace, examples):
    inputs, labels = examples(1)
    first = fab_targeted(halfspace, inputs, labels, steps=4)
    enough = 0.3 * lp_norm(first - inputs, "linf").item()
    model, how = Recording(halfspace), {"steps": 4, "restarts": 2, "random_state": 0}
    fab_targeted(model, inputs, labels, stop_within=enough, **how)
    along = (first - inputs).flatten(1)
    off = [
        (points - inputs).flatten(1)
        for points in model.points
        if torch.linalg.matrix_rank(torch.cat([(points - inputs).flatten(1), along]), rtol=1e-6) > 1
    ]
    assert 0.3 * enough < off[0].abs().max() <= 0.5 * enough


def along_a_line(**settings):
    """Where the model is asked, of which the boundary is at 1 on the way to the second class."""

    def model(points: Tensor) -> Tensor:
        lead = points.flatten(1)[:, 0] - 1.0
        return torch.stack([-lead, lead], dim=1)

    recording = Recording(model)
    inputs = torch.zeros(1, 1, dtype=torch.float64)
    bounds = (-9.0, 9.0)
    fab_targeted(recording, inputs, torch.tensor([0]), norm="l2", bounds=bounds, **settings)
    return [points.item() for points in recording.points]


@pytest.mark.parametrize("alpha_max", [0.0, 0.02, 0.1])
def test_a_step_is_pulled_to_the_input_by_alpha_as_far_as_its_maximum(alpha_max):
    # Looked at, stepped from, across by 5 %, a tenth back: 0.945, and 0.055 are left.
    asked = along_a_line(alpha_max=alpha_max, steps=5)
    assert asked[:4] == pytest.approx([0, 0, 1.05, 0.945])
    alpha = min(0.055 / 1.055, alpha_max)
    assert asked[4] == pytest.approx((1 - alpha) * (0.945 + 1.05 * 0.055) + alpha * 1.05)


def test_the_final_search_looks_a_twentieth_beyond_the_boundary_that_it_estimates():
    # The boundary is estimated exactly, from the input, which fails, and from the best success.
    *steps, first, second, third = along_a_line(steps=3)
    best = min(point for point in steps if point > 1)
    expected = [1 + 0.05**k * (best - 1) for k in (1, 2, 3)]
    assert [first, second, third] == pytest.approx(expected, abs=1e-9)
    assert first - 1 == pytest.approx(0.05 * (best - 1), rel=1e-3)


def test_a_success_exactly_as_far_as_is_near_enough_ends_the_attack():
    distance = along_a_line()[2]
    assert len(along_a_line(stop_within=distance)) == 3
    assert len(along_a_line(stop_within=distance * (1 - 1e-9))) > 3


@each_norm
def test_targeted_finds_the_nearest_point_of_the_class(tangled, norm):
    inputs = greys(8) * 0.6 + 0.2
    labels = tangled.decided(inputs)
    targets = (labels + 1) % 4
    how = {"norm": norm, "steps": 15}
    adversarial = fab_targeted(tangled, inputs, targets, **how, targeted=True)
    reached = tangled.decided(adversarial) == targets
    moved = (adversarial != inputs).any(dim=1)
    assert reached.double().mean() > 0.5
    assert torch.equal(reached, moved)
    untargeted = fab_targeted(tangled, inputs, labels, **how)
    distance = lp_norm(adversarial - inputs, norm)
    assert (lp_norm(untargeted - inputs, norm) <= distance * 1.02)[reached].all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l0"}, r"norm must be one of 'linf', 'l2', 'l1', got 'l0'"),
        ({"n_targets": 0}, r"n_targets must be at least 1, got 0"),
        ({"steps": 0}, r"steps must be at least 1, got 0"),
        ({"restarts": 0}, r"restarts must be at least 1, got 0"),
        ({"alpha_max": -0.1}, r"alpha_max must be in \[0, 1\], got -0.1"),
        ({"beta": 2}, r"beta must be in \[0, 1\], got 2"),
        ({"eta": 0.9}, r"eta must be at least 1, got 0.9"),
        ({"stop_within": 0}, r"stop_within must be a finite number above 0, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(halfspace, examples, wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        fab_targeted(halfspace, *examples(2), **wrong)
