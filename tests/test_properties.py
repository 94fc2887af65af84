"""What holds for any tensor: the softmax's promises, norm balls, margins and random keys."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from distillguard._geometry import ball, lp_norm
from distillguard._random import example_keys
from distillguard.functional import (
    cross_entropy,
    dlr_loss,
    log_softmax,
    margin_loss,
    soft_cross_entropy,
    softmax,
)

NORMS = ("linf", "l2", "l1")
SEEDS = st.integers(0, 2**32 - 1)
RADII = st.floats(1e-3, 1e3)
TEMPERATURES = st.floats(0.05, 1e3)
POWERS_OF_TWO = st.integers(-4, 10).map(lambda exponent: 2.0**exponent)
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)
"""Of one example."""


@st.composite
def float32_logits(draw: st.DrawFn) -> Tensor:
    """Any float32 logits up to 1e4 in size, of 1 to 4 examples and 2 to 9 classes."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 9)))
    elements = st.floats(-1e4, 1e4, width=32)
    return torch.from_numpy(draw(arrays.arrays("float32", shape, elements=elements)))


@st.composite
def whole_logits(draw: st.DrawFn) -> Tensor:
    """Whole numbers in float32, whose sums and halves are exact: no rounding to allow for."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 9)))
    elements = st.integers(-10_000, 10_000)
    return torch.from_numpy(draw(arrays.arrays("int64", shape, elements=elements))).float()


def normal(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


# The softmax.


@given(float32_logits(), TEMPERATURES)
def test_the_softmax_is_finite_and_sums_to_one(logits, temperature):
    probabilities = softmax(logits, temperature)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    torch.testing.assert_close(
        probabilities.double().sum(dim=1), torch.ones(len(logits)).double(), rtol=0, atol=1e-6
    )


@given(float32_logits(), TEMPERATURES)
def test_the_log_softmax_is_finite_and_its_exponential_is_the_softmax(logits, temperature):
    logarithms = log_softmax(logits, temperature)
    assert (logarithms.isfinite() & (logarithms <= 0)).all()
    torch.testing.assert_close(
        logarithms.exp(), softmax(logits, temperature), rtol=1e-4, atol=1e-30
    )


@given(whole_logits(), st.integers(-10_000, 10_000), TEMPERATURES)
def test_the_softmax_does_not_see_a_shift(logits, shift, temperature):
    assert torch.equal(softmax(logits + shift, temperature), softmax(logits, temperature))


@given(float32_logits(), POWERS_OF_TWO)
def test_a_temperature_is_a_division_of_the_logits(logits, temperature):
    torch.testing.assert_close(
        softmax(logits, temperature), torch.softmax(logits / temperature, dim=1), rtol=1e-5, atol=0
    )


@given(float32_logits(), TEMPERATURES)
def test_the_softmax_keeps_the_order_of_the_logits(logits, temperature):
    ordered = softmax(logits.sort(dim=1).values, temperature)
    assert (ordered.diff(dim=1) >= 0).all()


@given(float32_logits(), TEMPERATURES)
def test_the_softmax_is_as_near_to_uniform_as_the_range_over_the_temperature(logits, temperature):
    # Every log probability is within (largest - smallest logit) / T of that of the uniform.
    spread = (logits.amax(dim=1) - logits.amin(dim=1)).double() / temperature
    away = (log_softmax(logits, temperature).double() + math.log(logits.shape[1])).abs()
    assert (away.amax(dim=1) <= spread * (1 + 1e-5) + 1e-5).all()


@given(float32_logits(), TEMPERATURES)
def test_the_softmax_is_as_near_to_one_hot_as_the_gap_over_the_temperature(logits, temperature):
    first, second = logits.double().topk(2, dim=1).values.unbind(dim=1)
    rest = (logits.shape[1] - 1) * (-(first - second) / temperature).exp()
    assert (1 - softmax(logits, temperature).amax(dim=1) <= rest + 1e-6).all()


@given(float32_logits(), SEEDS)
def test_the_margin_is_positive_exactly_when_misclassified(logits, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(logits.shape[1], (len(logits),), generator=generator)
    others = logits.clone()
    others[torch.arange(len(logits)), labels] = -torch.inf
    misclassified = others.amax(dim=1) > logits[torch.arange(len(logits)), labels]
    assert torch.equal(margin_loss(logits, labels) > 0, misclassified)
    assert torch.equal(dlr_loss(logits, labels) > 0, misclassified)


@given(float32_logits(), SEEDS, TEMPERATURES)
def test_losses_are_finite_and_cross_entropies_not_negative(logits, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(logits.shape[1], (len(logits),), generator=generator)
    targets = softmax(logits[:, torch.randperm(logits.shape[1], generator=generator)], temperature)
    for loss in (cross_entropy(logits, labels), soft_cross_entropy(logits, targets, temperature)):
        assert (loss.isfinite() & (loss >= 0)).all()
    assert dlr_loss(logits, labels).isfinite().all()


# Norm balls.


@pytest.mark.parametrize("norm", NORMS)
@given(SHAPES, SEEDS, RADII)
def test_projection_lands_in_the_ball_and_stays_there(norm, shape, seed, radius):
    delta = normal((4, *shape), seed, scale=10 * radius)
    once = ball(norm).project(delta, radius)
    assert (lp_norm(once, norm) <= radius * (1 + 1e-12)).all()
    torch.testing.assert_close(ball(norm).project(once, radius), once, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@given(SHAPES, SEEDS, RADII)
def test_projection_leaves_what_is_inside(norm, shape, seed, radius):
    delta = normal((4, *shape), seed)
    inside = delta * (0.999 * radius / lp_norm(delta, norm).amax())
    assert torch.equal(ball(norm).project(inside, radius), inside)


@pytest.mark.parametrize("norm", NORMS)
@given(SHAPES, SEEDS, RADII)
def test_the_nearest_point_makes_an_obtuse_angle_with_every_other(norm, shape, seed, radius):
    # The variational inequality that characterises the projection onto a convex set.
    outside, others = normal((4, *shape), seed, 3 * radius), normal((4, *shape), seed + 1)
    inside = others * (radius / lp_norm(others, norm)).reshape(-1, *(1,) * len(shape))
    nearest = ball(norm).project(outside, radius)
    angle = ((outside - nearest) * (inside - nearest)).flatten(1).sum(dim=1)
    assert (angle <= 1e-9 * radius**2).all()


@pytest.mark.parametrize("norm", NORMS)
@given(SHAPES, SEEDS, st.lists(RADII, min_size=4, max_size=4))
def test_a_radius_per_example_projects_each_as_if_alone(norm, shape, seed, radii):
    delta = normal((4, *shape), seed, scale=10)
    together = ball(norm).project(delta, torch.tensor(radii, dtype=torch.float64))
    for i, radius in enumerate(radii):
        torch.testing.assert_close(
            together[i : i + 1], ball(norm).project(delta[i : i + 1], radius)
        )


@pytest.mark.parametrize("norm", NORMS)
@given(SHAPES, SEEDS, st.integers(0, 3))
def test_the_clamp_after_the_projection_never_leaves_the_ball(norm, shape, seed, bits):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand((4, *shape), generator=generator, dtype=torch.float64)
    radius = 10.0**-bits
    delta = ball(norm).project(normal((4, *shape), seed), radius)
    assert (lp_norm((inputs + delta).clamp(0, 1) - inputs, norm) <= radius * (1 + 1e-9)).all()


@pytest.mark.parametrize("norm", NORMS)
@given(SHAPES, SEEDS, st.integers(-30, 30))
def test_the_steepest_direction_has_size_one_at_every_scale(norm, shape, seed, exponent):
    gradient = normal((4, *shape), seed, scale=10.0**exponent)
    gradient = torch.where(gradient == 0, 10.0**exponent, gradient)
    direction = ball(norm).steepest(gradient)
    torch.testing.assert_close(lp_norm(direction, norm), torch.ones(4).double())


# Random keys.


@given(SHAPES, SEEDS)
def test_an_example_keeps_its_key_in_any_company(shape, seed):
    inputs = normal((5, *shape), seed)
    keys = example_keys(inputs, seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(example_keys(inputs[order], seed), keys[order])
    assert torch.equal(example_keys(inputs[2:3], seed), keys[2:3])


@given(st.integers(2, 40), SEEDS, SEEDS)
def test_keys_differ_when_one_pixel_or_the_seed_differs(n_pixels, seed, other):
    inputs = normal((1, n_pixels), seed)
    changed = inputs.clone()
    changed[0, other % n_pixels] += 1e-9
    assert example_keys(changed, seed) != example_keys(inputs, seed)
    assert example_keys(inputs.flip(1), seed) != example_keys(inputs, seed)
    assert example_keys(inputs, seed + 1) != example_keys(inputs, seed)
