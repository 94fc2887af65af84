"""Norm balls against a second route: SciPy's optimisers, brute force, known distributions."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch import Tensor

from distillguard._geometry import ball, lp, lp_norm, per_example
from distillguard._random import example_keys

NORMS = ("linf", "l2", "l1")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def samples(norm: str, n: int, dimension: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform points of the unit ball, one for each of ``n`` different examples."""
    inputs = torch.rand(n, dimension, generator=torch.Generator().manual_seed(0)).to(dtype)
    return ball(norm).sample(inputs, example_keys(inputs, 0), 0)


# Sizes.


def test_sizes_by_hand():
    delta = torch.tensor([[[3.0, -4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert lp_norm(delta, "linf").tolist() == [4, 0]
    assert lp_norm(delta, "l2").tolist() == [5, 0]
    assert lp_norm(delta, "l1").tolist() == [7, 0]
    assert lp_norm(delta, "l0").tolist() == [2, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_lengths_near_the_ends_of_the_dtype_are_those_of_wider_numbers(dtype):
    kind = torch.finfo(dtype)
    delta = torch.tensor([[1.25, 0.75], [0.75, 2.0]], dtype=dtype)
    for scale in (kind.tiny / 4, kind.tiny, (kind.eps * kind.tiny) ** 0.5, kind.max / 8):
        sizes = (delta * scale).tolist()
        expected = [math.hypot(*row) for row in sizes]
        for one, length in zip(delta * scale, expected, strict=True):
            found = lp_norm(one[None], "l2").item()
            assert found == pytest.approx(length, rel=4 * kind.eps, abs=0)
        # Beside an example of ordinary size, too.
        both = lp_norm(torch.stack([delta[0] * scale, delta[0]]), "l2").tolist()
        ordinary = math.hypot(1.25, 0.75)
        assert both == pytest.approx([expected[0], ordinary], rel=4 * kind.eps, abs=0)


def test_per_example_values_meet_the_first_axis():
    assert per_example(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4)).shape == (2, 1, 1)


# Projections.


def test_l1_projection_by_hand():
    delta = torch.tensor([[3.0, -1.0, 0.5]])
    # Threshold 1.5 leaves (1.5, 0, 0); threshold 1 leaves (2, 0, 0); 0.5 leaves (2.5, -0.5, 0).
    assert ball("l1").project(delta, 1.5).tolist() == [[1.5, 0.0, 0.0]]
    assert ball("l1").project(delta, 3.0).tolist() == [[2.5, -0.5, 0.0]]
    assert ball("l1").project(delta, 4.5).tolist() == delta.tolist()


def test_l1_projection_agrees_with_a_root_finder():
    # Duchi et al. 2008, lemma 1: soft thresholding at the root of an equation in one unknown.
    for delta in normal(20, 30, seed=1):
        projected = ball("l1").project(delta[None], 2.0)[0]

        def excess(level: float, delta: Tensor = delta) -> float:
            return float((delta.abs() - level).clamp(min=0).sum()) - 2.0

        level = scipy.optimize.brentq(excess, 0, float(delta.abs().max()), xtol=1e-14)
        torch.testing.assert_close(projected, delta.sign() * (delta.abs() - level).clamp(min=0))


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_point_that_a_constrained_optimiser_finds(norm):
    for delta in normal(5, 4, seed=2) * 2:
        mine, target = ball(norm).project(delta[None], 1.0)[0].numpy(), delta.numpy()
        # Positive and negative parts make every ball's constraint smooth.
        found = scipy.optimize.minimize(
            lambda parts, target=target: np.sum((parts[:4] - parts[4:] - target) ** 2),
            np.full(8, 0.05),
            jac=lambda parts, target=target: np.concatenate(
                [2 * (parts[:4] - parts[4:] - target), -2 * (parts[:4] - parts[4:] - target)]
            ),
            bounds=[(0, 1 if norm == "linf" else None)] * 8,
            constraints={
                "linf": [],
                "l2": [
                    {"type": "ineq", "fun": lambda parts: 1 - np.sum((parts[:4] - parts[4:]) ** 2)}
                ],
                "l1": [{"type": "ineq", "fun": lambda parts: 1 - np.sum(parts)}],
            }[norm],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(mine, found.x[:4] - found.x[4:], atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_onto_radius_zero_is_zero(norm):
    assert ball(norm).project(normal(3, 2, 2), 0.0).count_nonzero() == 0
    assert ball(norm).project(normal(3, 2, 2), torch.zeros(3).double()).count_nonzero() == 0


@pytest.mark.parametrize("norm", NORMS)
def test_projection_of_zero_is_zero(norm):
    assert ball(norm).project(torch.zeros(2, 5), 0.1).tolist() == torch.zeros(2, 5).tolist()


@pytest.mark.parametrize("norm", NORMS)
def test_projection_looks_at_each_example_by_itself(norm):
    small, large = 0.01 * normal(1, 6, seed=3), 100 * normal(1, 6, seed=4)
    both = ball(norm).project(torch.cat([small, large]), 1.0)
    assert torch.equal(both[:1], small)
    torch.testing.assert_close(both[1:], ball(norm).project(large, 1.0))


# Directions.


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_direction_reaches_the_dual_norm_of_the_gradient(norm):
    # Hoelder: the largest g.d over the unit ball is the dual norm of g.
    gradient = normal(8, 3, 20, seed=5)
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    direction = ball(norm).steepest(gradient)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), lp_norm(gradient, dual))
    torch.testing.assert_close(lp_norm(direction, norm), torch.ones(8).double())


@pytest.mark.parametrize("norm", NORMS)
def test_no_sampled_direction_ascends_faster_than_the_steepest(norm):
    gradient = normal(1, 20, seed=6)
    others = normal(2000, 20, seed=7)
    others /= lp_norm(others, norm)[:, None]
    assert (others @ gradient[0]).max() <= (gradient * ball(norm).steepest(gradient)).sum()


def test_an_l1_direction_is_one_of_the_steepest_coordinates():
    gradient = torch.tensor([[2.0, -2.0, 1.0], [0.0, 0.0, -3.0]])
    assert ball("l1").steepest(gradient).tolist() in (
        [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]],
        [[0.0, -1.0, 0.0], [0.0, 0.0, -1.0]],
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_zero_gradient_gives_a_zero_step_beside_one_that_is_not(norm, dtype):
    gradient = torch.stack([torch.zeros(2, 3), torch.ones(2, 3)]).to(dtype)
    direction = ball(norm).steepest(gradient)
    assert direction[0].count_nonzero() == 0
    assert direction[1].count_nonzero() > 0
    assert not direction.isnan().any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30])
def test_a_gradient_near_the_ends_of_float32_keeps_its_direction(norm, scale):
    gradient = torch.tensor([[1.0, -2.0, 3.0]]) * scale
    direction = ball(norm).steepest(gradient)
    expected = ball(norm).steepest(gradient.double())
    torch.testing.assert_close(direction.double(), expected)
    torch.testing.assert_close(lp_norm(direction, norm), torch.ones(1))


# Samples.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dimension", [1, 2, 7])
def test_the_radius_of_a_sample_is_distributed_as_in_a_uniform_ball(norm, dimension):
    # In a ball of dimension d the share of volume within radius r is r to the power d.
    radius = lp_norm(samples(norm, 4000, dimension), norm)
    assert radius.max() <= 1 + 1e-12
    assert scipy.stats.kstest(radius.numpy(), lambda r: r**dimension).pvalue > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_samples_favour_no_direction(norm):
    points = samples(norm, 6000, 3)
    signs = (points > 0).long() @ torch.tensor([1, 2, 4])
    assert scipy.stats.chisquare(signs.bincount(minlength=8).numpy()).pvalue > 1e-3
    largest = points.abs().argmax(dim=1).bincount(minlength=3)
    assert scipy.stats.chisquare(largest.numpy()).pvalue > 1e-3


def test_a_coordinate_of_an_l2_sample_has_the_marginal_of_the_uniform_ball():
    # One coordinate of a uniform point in d dimensions, squashed to [0, 1], is beta distributed.
    dimension = 5
    coordinate = samples("l2", 4000, dimension)[:, 0].numpy()
    beta = scipy.stats.beta((dimension + 1) / 2, (dimension + 1) / 2)
    assert scipy.stats.kstest((coordinate + 1) / 2, beta.cdf).pvalue > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_each_counter_draws_afresh_and_the_same_counter_the_same(norm):
    inputs = normal(3, 2, 4)
    keys = example_keys(inputs, 0)
    first, second = (ball(norm).sample(inputs, keys, counter) for counter in (0, 1))
    assert torch.equal(first, ball(norm).sample(inputs, keys, torch.zeros(3).long()))
    assert (first != second).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_samples_keep_the_dtype_and_stay_in_the_ball_up_to_its_rounding(norm, dtype):
    points = samples(norm, 200, 30, dtype)
    assert points.dtype == dtype
    rounding = math.sqrt(30) * torch.finfo(dtype).eps
    assert lp_norm(points.double(), norm).max() <= 1 + rounding


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
def test_a_count_is_no_norm(norm):
    with pytest.raises(ValueError, match="norm must be one of 'linf', 'l2', 'l1', got 'l0"):
        lp(norm)
