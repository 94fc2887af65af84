"""Norm balls as data: an attack asks for a sample, a direction or a projection by norm.

All functions act on perturbations of shape (n, ...) example by example.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import _l1
from ._random import normal, uniform
from ._typing import Bounds, Distance, Norm

BLOCKS = 4
"""Blocks along each side of an image, for starts that are constant on each."""


class Ball(NamedTuple):
    """Pure functions describing the ball of one norm."""

    sample: Callable[[Tensor, Tensor, Tensor | int], Tensor]
    """(like, keys, counter): a uniform point of the unit ball for each example."""

    steepest: Callable[[Tensor], Tensor]
    """Gradient to the direction of size 1 that ascends fastest; a zero gradient gives zero."""

    project: Callable[[Tensor, Tensor | float], Tensor]
    """(delta, radius): the nearest point of the ball; the radius may differ per example."""


def size(delta: Tensor, norm: Distance) -> Tensor:
    """Return each example's norm: (n, ...) to (n,). ``"l0"`` counts the coordinates moved."""
    flat = delta.flatten(1)
    if flat.shape[1] == 0:
        return flat.new_zeros(len(flat))
    if norm == "l0":
        return (flat != 0).sum(dim=1).to(flat.dtype)
    length = torch.linalg.vector_norm(flat, ord=_ORDERS[norm], dim=1)
    return length if norm != "l2" or _squares_fit(length) else _scaled_length(flat)


def _squares_fit(length: Tensor) -> bool:
    """Whether no square of what was summed left the range of the dtype, or most of its digits."""
    tiny = torch.finfo(length.dtype).tiny ** 0.5 * 1e4
    return bool(((length > tiny) & (length < math.inf)).all())


def _scaled_length(flat: Tensor) -> Tensor:
    """Divide by the largest entry before squaring."""
    largest = torch.linalg.vector_norm(flat, ord=math.inf, dim=1)
    divisor = torch.where((largest > 0) & (largest < math.inf), largest, 1)
    return torch.linalg.vector_norm(flat / divisor[:, None], dim=1) * divisor


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """View (n,) as (n, 1, ...), ready to be broadcast against ``like``."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def ball(norm: Norm) -> Ball:
    """Return the functions of a norm."""
    return _BALLS[norm]


def within_budget(
    candidate: Tensor, inputs: Tensor, norm: Norm, epsilon: float, bounds: Bounds
) -> Tensor:
    """Come back into the ball and the bounds.

    In linf and l2 into the ball first; the bounds then move no coordinate away from its input. In
    l1 that would leave a part of the budget unused: there it is the nearest point of both.
    """
    if norm == "l1":
        return _l1.project(candidate, inputs, epsilon, *inputs.new_tensor(bounds))
    return (inputs + ball(norm).project(candidate - inputs, epsilon)).clamp(*bounds)


def ascent_step(
    points: Tensor,
    gradient: Tensor,
    inputs: Tensor,
    norm: Norm,
    length: Tensor,
    bounds: Bounds,
) -> Tensor:
    """Step of a length (n,) along which the gradient gains most.

    In l1 it goes as far as the bounds allow and no further, and over a number of coordinates that
    follows from how many have left ``inputs``.
    """
    if norm == "l1":
        low, high = inputs.new_tensor(bounds)
        spread = _l1.adapted_spread(points - inputs)
        return _l1.steepest_step(points, gradient, length, low, high, spread)
    return per_example(length.to(points), points) * ball(norm).steepest(gradient)


def _column(radius: Tensor | float, like: Tensor) -> Tensor | float:
    return per_example(radius, like) if isinstance(radius, Tensor) else radius


def unblocked(gradient: Tensor, points: Tensor, bounds: Bounds) -> Tensor:
    """Zero the slope of coordinates that would leave the bounds."""
    low, high = bounds
    blocked = ((points <= low) & (gradient < 0)) | ((points >= high) & (gradient > 0))
    return gradient.masked_fill(blocked, 0)


def coarse_signs(like: Tensor, keys: Tensor, counter: Tensor | int) -> Tensor:
    """One random sign for each sixteenth of an image's channel, each coordinate of other inputs."""
    shape = list(like.shape[1:])
    coarse = [min(side, BLOCKS) for side in shape[-2:]] if len(shape) > 2 else shape[-2:]
    coarse = shape[:-2] + coarse
    signs = torch.where(uniform(keys, counter, math.prod(coarse), like.dtype) < 0.5, -1.0, 1.0)
    signs = signs.to(like).view(len(like), *coarse)
    for axis, (few, side) in enumerate(zip(coarse, shape, strict=True), start=1):
        if few < side:
            places = torch.arange(side, device=like.device) * few // side
            signs = signs.index_select(axis, places)
    return signs


def _linf_sample(like: Tensor, keys: Tensor, counter: Tensor | int) -> Tensor:
    flat = uniform(keys, counter, like[0].numel(), like.dtype)
    return (2 * flat - 1).view_as(like)


def _linf_project(delta: Tensor, radius: Tensor | float) -> Tensor:
    reach = _column(radius, delta)
    if isinstance(reach, Tensor):
        return torch.minimum(torch.maximum(delta, -reach), reach)
    return delta.clamp(-reach, reach)


def _l2_sample(like: Tensor, keys: Tensor, counter: Tensor | int) -> Tensor:
    dimension = like[0].numel()
    drawn = normal(keys, counter, dimension + 1, torch.float64)
    direction = drawn[:, :dimension] / drawn[:, :dimension].norm(dim=1, keepdim=True)
    # The last normal number, through its distribution function, is the uniform that r^d needs.
    share = torch.special.ndtr(drawn[:, dimension:])
    return (direction * share ** (1 / dimension)).to(like.dtype).view_as(like)


def _l2_steepest(gradient: Tensor) -> Tensor:
    # Dividing by the largest entry first keeps the squares of tiny gradients from underflowing.
    largest = per_example(size(gradient, "linf"), gradient)
    scaled = torch.where(largest > 0, gradient / largest, 0)
    length = per_example(size(scaled, "l2"), gradient)
    return torch.where(largest > 0, scaled / length, 0)


def _l2_project(delta: Tensor, radius: Tensor | float) -> Tensor:
    length = per_example(size(delta, "l2"), delta)
    reach = _column(radius, delta)
    return torch.where(length > reach, delta * (reach / length), delta)


def _l1_sample(like: Tensor, keys: Tensor, counter: Tensor | int) -> Tensor:
    dimension = like[0].numel()
    drawn = uniform(keys, counter, 2 * dimension + 1, torch.float64)
    spacings = -torch.log1p(-drawn[:, : dimension + 1])
    magnitude = spacings[:, :dimension] / spacings.sum(dim=1, keepdim=True)
    sign = torch.where(drawn[:, dimension + 1 :] < 0.5, -1.0, 1.0)
    return (magnitude * sign).to(like.dtype).view_as(like)


def _l1_steepest(gradient: Tensor) -> Tensor:
    return _l1.steepest_step(torch.zeros_like(gradient), gradient, 1.0, *_everywhere(gradient))


def _l1_project(delta: Tensor, radius: Tensor | float) -> Tensor:
    return _l1.project(delta, torch.zeros_like(delta), radius, *_everywhere(delta))


def _everywhere(like: Tensor) -> Tensor:
    return like.new_tensor([-math.inf, math.inf])


_ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}

_BALLS: dict[Norm, Ball] = {
    "linf": Ball(_linf_sample, torch.sign, _linf_project),
    "l2": Ball(_l2_sample, _l2_steepest, _l2_project),
    "l1": Ball(_l1_sample, _l1_steepest, _l1_project),
}
