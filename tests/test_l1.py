"""The l1-ball cut by a box: projection and steepest step against SciPy and a second route."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from distillguard import _l1

problems = st.tuples(st.integers(0, 2**40), st.integers(1, 40), st.floats(0.01, 5.0))


def drawn(seed: int, d: int, n: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres with some coordinates at their bounds, points far around, and a box for each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    low, width = -draw(n, d), draw(n, d) * (draw(n, d) > 0.2)
    centre = low + width * (2 * draw(n, d) - 0.5).clamp(0, 1)
    return centre, centre + 3 * draw(n, d) - 1.5, low, low + width


def by_bisection(point: np.ndarray, centre, radius, low, high) -> np.ndarray:
    """The projection by its optimality conditions, in loops of NumPy."""
    delta = point - centre
    room = np.where(delta > 0, high - centre, centre - low)

    def moved(level):
        return np.sign(delta) * np.minimum(np.maximum(np.abs(delta) - level, 0), room)

    if np.abs(moved(0)).sum() <= radius:
        return centre + moved(0)
    below, above = 0.0, np.abs(delta).max()
    for _ in range(200):
        middle = (below + above) / 2
        if np.abs(moved(middle)).sum() > radius:
            below = middle
        else:
            above = middle
    return centre + moved(above)


# The projection.


def test_a_projection_by_hand():
    # At a level of 0.05 they move by 0.1 (all there is), 0.45 and 0.05, together the radius.
    point = _l1.project(
        torch.tensor([[1.0, 1.0, 0.6]]),
        torch.full((1, 3), 0.5),
        0.6,
        torch.zeros(3),
        torch.tensor([0.6, 2.0, 2.0]),
    )
    torch.testing.assert_close(point, torch.tensor([[0.6, 0.95, 0.55]]))


@given(problems)
def test_the_projection_is_the_one_that_bisection_finds(problem):
    seed, d, radius = problem
    centre, points, low, high = drawn(seed, d)
    projected = _l1.project(points, centre, radius, low, high)
    for mine, *given_, bottom, top in zip(projected, points, centre, low, high, strict=True):
        x, c = (each.numpy() for each in given_)
        theirs = by_bisection(x, c, radius, bottom.numpy(), top.numpy())
        np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-9)


def test_no_constrained_optimiser_finds_a_nearer_point():
    centre, points, low, high = drawn(3, 5, n=8)
    projected = _l1.project(points, centre, 0.8, low, high)
    for mine, x, c, bottom, top in zip(projected, points, centre, low, high, strict=True):
        # Positive and negative parts make the ball's constraint smooth.
        found = minimize(
            lambda parts, x=x, c=c: np.sum((c.numpy() + parts[:5] - parts[5:] - x.numpy()) ** 2),
            np.zeros(10),
            bounds=[(0, value) for value in torch.cat([top - c, c - bottom]).tolist()],
            constraints={"type": "ineq", "fun": lambda parts: 0.8 - np.sum(parts)},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert ((mine - x) ** 2).sum().item() <= found.fun + 1e-9


@given(problems)
def test_the_projection_is_in_the_ball_and_the_box_and_stays_where_it_is(problem):
    seed, d, radius = problem
    centre, points, low, high = (each.float() for each in drawn(seed, d))
    low, high = torch.minimum(low, centre), torch.maximum(high, centre)
    projected = _l1.project(points, centre, radius, low, high)
    size = (projected.double() - centre.double()).abs().sum(dim=1)
    assert (size <= radius * (1 + 1e-12)).all()
    assert ((projected >= low) & (projected <= high)).all()
    assert torch.equal(_l1.project(projected, centre, radius, low, high), projected)


@pytest.mark.parametrize("spread", [0.001, 1.0, 100.0])
def test_the_projection_of_many_coordinates_in_single_precision_uses_its_radius(spread):
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(3, 16_000, generator=generator)
    points = centre + spread * torch.randn(3, 16_000, generator=generator)
    radius = torch.tensor([0.1, 4.0, 300.0])
    box = torch.zeros(1), torch.ones(1)
    projected = _l1.project(points, centre, radius, *box)
    size = (projected.double() - centre.double()).abs().sum(dim=1)
    available = (points.clamp(0, 1).double() - centre.double()).abs().sum(dim=1)
    wanted = torch.minimum(radius.double(), available)
    assert (size <= wanted * (1 + 1e-9)).all()
    # Rounding towards the centre costs each coordinate one unit in the last place at most.
    assert (size >= wanted - 16_000 * 1.2e-7).all()


def test_each_example_has_its_own_radius_and_is_looked_at_by_itself():
    centre, points, low, high = drawn(5, 30)
    radius = torch.tensor([0.0, 0.1, 1.0, 100.0])
    together = _l1.project(points, centre, radius, low, high)
    for k in range(4):
        one = slice(k, k + 1)
        alone = _l1.project(points[one], centre[one], radius[k].item(), low[one], high[one])
        assert torch.allclose(alone, together[one], rtol=0, atol=1e-15)
    assert torch.equal(together[0], centre[0])
    assert torch.equal(together[3], torch.minimum(torch.maximum(points[3], low[3]), high[3]))


# The steepest step.


@given(problems)
def test_the_steepest_step_gains_what_linear_programming_finds(problem):
    seed, d, length = problem
    points, gradient, low, high = drawn(seed, d)
    gradient = gradient - points
    steps = _l1.steepest_step(points, gradient, length, low, high)
    assert (points + steps >= low - 1e-12).all()
    assert (points + steps <= high + 1e-12).all()
    for x, g, step, bottom, top in zip(points, gradient, steps, low, high, strict=True):
        assert step.abs().sum() <= length * (1 + 1e-12)
        found = linprog(
            -torch.cat([g, -g]).numpy(),
            A_ub=np.ones((1, 2 * d)),
            b_ub=[length],
            bounds=[(0, value) for value in torch.cat([top - x, x - bottom]).tolist()],
        )
        assert (g * step).sum().item() == pytest.approx(-found.fun, abs=1e-7)


def test_a_spread_step_moves_the_steepest_coordinates_that_can_move_alike():
    points = torch.tensor([[0.5, 0.5, 1.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.9, 0.5]])
    gradient = torch.tensor([[1.0, -2.0, 9.0, 3.0, 0.0], [1.0, -2.0, 0.0, 3.0, 1.5]])
    step = _l1.steepest_step(
        points, gradient, 0.6, torch.zeros(1), torch.ones(1), torch.tensor([2.0, 2.0])
    )
    # By hand: the third is held; the fourth has room for 0.1, and the fifth takes the rest.
    expected = [[0.0, -0.3, 0.0, 0.3, 0.0], [0.0, -0.3, 0.0, 0.1, 0.2]]
    torch.testing.assert_close(step, torch.tensor(expected))


def test_no_step_is_taken_without_a_slope_or_room():
    points = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    gradient = torch.tensor([[-1.0, 1.0], [0.0, 0.0]])
    step = _l1.steepest_step(points, gradient, 1.0, torch.zeros(1), torch.ones(1))
    assert step.count_nonzero() == 0


def test_the_next_step_is_spread_over_a_third_of_what_has_moved():
    delta = torch.zeros(4, 1, 20, 20)
    for example, moved in enumerate((0, 6, 30, 400)):
        delta[example].view(-1)[:moved] = 0.1
    # One at least, and a twentieth of all 400 at most.
    assert _l1.adapted_spread(delta).tolist() == [1.0, 2.0, 10.0, 20.0]


def test_a_projection_leaves_its_own_result_alone_to_the_last_bit():
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(100, 784, generator=generator, dtype=torch.float64)
    points = centre + torch.randn(100, 784, generator=generator, dtype=torch.float64)
    low, high = torch.tensor([0.0, 1.0], dtype=torch.float64)
    once = _l1.project(points, centre, 8.0, low, high)
    assert torch.equal(_l1.project(once, centre, 8.0, low, high), once)
