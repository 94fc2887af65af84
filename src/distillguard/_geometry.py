"""Norm balls as data: an attack asks for a sample, a direction or a projection by norm.

All functions act on perturbations of shape (n, ...) example by example.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from . import _l0, _l1
from ._random import normal, uniform
from ._typing import Distance, Norm

COUNTS: tuple[Distance, ...] = ("l0", "l0_pixels")
"""Distances that are whole numbers whatever the units of the inputs."""

DUAL: dict[Norm, Norm] = {"l2": "l2", "linf": "l1", "l1": "linf"}
"""The norm of a gradient that tells how fast a step of length 1 climbs."""

HAIR = 1e-6
"""How far inside the bounds gradients are asked for, as a share of the width."""

BLOCKS_PER_SIDE = 4
"""Blocks along each side of an image, for starts that are constant on each."""


class Sample(Protocol):
    """How points of a ball are drawn."""

    def __call__(
        self, like: Tensor, keys: Tensor, counter: Tensor | int, free: Tensor | None = None
    ) -> Tensor:
        """Draw from the ball of the ``free`` coordinates, bool and broadcastable to ``like``."""


class Ball(NamedTuple):
    """Pure functions describing the ball of one norm."""

    sample: "Sample"
    """A uniform point of the unit ball for each example."""

    steepest: Callable[[Tensor], Tensor]
    """Gradient to the direction of size 1 that ascends fastest; a zero gradient gives zero."""

    project: Callable[[Tensor, Tensor | float], Tensor]
    """(delta, radius): the nearest point of the ball; the radius may differ per example."""


def lp_norm(delta: Tensor, norm: Distance) -> Tensor:
    """Return each example's norm: (n, ...) to (n,).

    ``"l0"`` counts the coordinates moved, ``"l0_pixels"`` the pixels, with all their channels.
    """
    flat = delta.flatten(1)
    if flat.shape[1] == 0:
        return flat.new_zeros(len(flat))
    if norm in COUNTS:
        return _l0.count(delta, norm).to(flat.dtype)
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


def lp(norm: Distance) -> Norm:
    """A distance that is a norm."""
    if norm == "l0" or norm == "l0_pixels":
        raise ValueError(f"norm must be one of {', '.join(map(repr, _BALLS))}, got {norm!r}")
    return norm


def project_to_budget(
    candidate: Tensor,
    inputs: Tensor,
    norm: Distance,
    epsilon: float,
    low: Tensor | float,
    high: Tensor | float,
) -> Tensor:
    """Come back into the ball and the bounds.

    In linf and l2 into the ball first; the bounds then move no coordinate away from its input. In
    l1 and l0 that would leave a part of the budget unused: there it is the nearest point of both.
    """
    if norm in ("l1", *COUNTS):
        low, high = as_like(low, inputs), as_like(high, inputs)
        if norm == "l1":
            return _l1.project(candidate, inputs, epsilon, low, high)
        return _l0.project(candidate, inputs, epsilon, low, high, norm)
    return clamped(inputs + ball(lp(norm)).project(candidate - inputs, epsilon), low, high)


def random_point(
    inputs: Tensor,
    keys: Tensor,
    counter: Tensor | int,
    norm: Distance,
    epsilon: float,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Draw a point of the ball, put within the bounds: another for each ``counter``."""
    if norm in COUNTS:
        return _l0.draw(inputs, keys, counter, epsilon, low, high, norm)
    return clamped(
        inputs + epsilon * ball(lp(norm)).sample(inputs, keys, counter, low < high), low, high
    )


def check_reach(epsilon: float, norm: Distance, low: Tensor, high: Tensor, like: Tensor) -> None:
    """Refuse a radius beyond the distance of opposite corners: 8 where 8/255 was meant.

    ``low`` and ``high`` are broadcastable to ``like`` (n, ...).
    """
    if not like.numel():
        return
    reach = lp_norm((high - low).double().expand_as(like), norm).max().item()
    if 0 < reach * (1 + 1e-6) < epsilon:
        units = "is in the units of the inputs, 8 / 255 for 8 grey levels of images in [0, 1]"
        if norm in COUNTS:
            units = f"counts the {'pixels' if norm == 'l0_pixels' else 'values'} that change"
        raise ValueError(
            f"epsilon must be at most {reach:.6g}, how far apart inputs within bounds can be in "
            f"{norm}, got {epsilon!r}; it {units}"
        )


def ascent_step(
    points: Tensor,
    gradient: Tensor,
    inputs: Tensor,
    norm: Norm,
    length: Tensor,
    low: Tensor | float,
    high: Tensor | float,
) -> Tensor:
    """Step of a length (n,) along which the gradient gains most.

    In l1 it goes as far as the bounds allow and no further, and over a number of coordinates that
    follows from how many have left ``inputs``.
    """
    if norm == "l1":
        spread = _l1.adapted_spread(points - inputs)
        low, high = as_like(low, points), as_like(high, points)
        return _l1.steepest_step(points, gradient, length, low, high, spread)
    return per_example(length.to(points), points) * ball(norm).steepest(gradient)


def as_like(value: Tensor | float, like: Tensor) -> Tensor:
    """Return a number or tensor as a tensor of the dtype and device of ``like``."""
    return value.to(like) if isinstance(value, Tensor) else like.new_tensor(value)


def clamped(points: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Clamp to bounds that are two numbers or two tensors."""
    return points.clamp(low, high)  # type: ignore[arg-type]


def _column(radius: Tensor | float, like: Tensor) -> Tensor | float:
    return per_example(radius, like) if isinstance(radius, Tensor) else radius


def feasible_gradient(gradient: Tensor, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Zero the slope of coordinates that would leave the bounds."""
    blocked = ((points <= low) & (gradient < 0)) | ((points >= high) & (gradient > 0))
    return gradient.masked_fill(blocked, 0)


def inside(points: Tensor, low: Tensor | float, high: Tensor | float, dtype: torch.dtype) -> Tensor:
    """Move the coordinates that lie on a bound a hair inwards, where gradients are defined.

    A clamp, a ReLU or a square root on the input has no slope at the bound, or an infinite one.
    The hair is a millionth of the width of the bounds, or the least step that ``dtype`` can
    represent there. Coordinates of no width stay.
    """
    low, high = as_like(low, points), as_like(high, points)
    lowest, highest = low + _hair(low, high, dtype), high - _hair(high, low, dtype)
    wide = lowest < highest
    moved = torch.where(wide & (points <= low), lowest, points)
    return torch.where(wide & (points >= high), highest, moved)


def _hair(bound: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    kind = torch.finfo(dtype)
    least = (kind.eps * bound.abs()).clamp(min=kind.smallest_normal)
    return torch.maximum(HAIR * (other - bound).abs(), least)


def block_signs(like: Tensor, keys: Tensor, counter: Tensor | int) -> Tensor:
    """One random sign for each sixteenth of an image's channel, each coordinate of other inputs."""
    shape = list(like.shape[1:])
    coarse = [min(side, BLOCKS_PER_SIDE) for side in shape[-2:]] if len(shape) > 2 else shape[-2:]
    coarse = shape[:-2] + coarse
    signs = torch.where(uniform(keys, counter, math.prod(coarse), like.dtype) < 0.5, -1.0, 1.0)
    signs = signs.to(like).view(len(like), *coarse)
    for axis, (few, side) in enumerate(zip(coarse, shape, strict=True), start=1):
        if few < side:
            places = torch.arange(side, device=like.device) * few // side
            signs = signs.index_select(axis, places)
    return signs


def _only(free: Tensor | None, values: Tensor) -> Tensor:
    return values if free is None else torch.where(free, values, 0)


def _linf_sample(
    like: Tensor, keys: Tensor, counter: Tensor | int, free: Tensor | None = None
) -> Tensor:
    flat = uniform(keys, counter, like[0].numel(), like.dtype)
    return _only(free, (2 * flat - 1).view_as(like))


def _linf_project(delta: Tensor, radius: Tensor | float) -> Tensor:
    reach = _column(radius, delta)
    if isinstance(reach, Tensor):
        return torch.minimum(torch.maximum(delta, -reach), reach)
    return delta.clamp(-reach, reach)


def _l2_sample(
    like: Tensor, keys: Tensor, counter: Tensor | int, free: Tensor | None = None
) -> Tensor:
    dimension = like[0].numel()
    drawn = normal(keys, counter, dimension + 1, torch.float64)
    free = _only(free, torch.ones_like(like)).flatten(1).bool()
    direction = torch.where(free, drawn[:, :dimension], 0)
    direction = direction / direction.norm(dim=1, keepdim=True)
    # The last normal number, through its distribution function, is the uniform that r^d needs.
    share = torch.special.ndtr(drawn[:, dimension:])
    point = direction * share ** (1 / free.sum(dim=1, keepdim=True).double())
    return torch.where(free, point, 0).to(like.dtype).view_as(like)


def _l2_steepest(gradient: Tensor) -> Tensor:
    # Dividing by the largest entry first keeps the squares of tiny gradients from underflowing.
    largest = per_example(lp_norm(gradient, "linf"), gradient)
    scaled = torch.where(largest > 0, gradient / largest, 0)
    length = per_example(lp_norm(scaled, "l2"), gradient)
    return torch.where(largest > 0, scaled / length, 0)


def _l2_project(delta: Tensor, radius: Tensor | float) -> Tensor:
    length = per_example(lp_norm(delta, "l2"), delta)
    reach = _column(radius, delta)
    return torch.where(length > reach, delta * (reach / length), delta)


def _l1_sample(
    like: Tensor, keys: Tensor, counter: Tensor | int, free: Tensor | None = None
) -> Tensor:
    dimension = like[0].numel()
    drawn = uniform(keys, counter, 2 * dimension + 1, torch.float64)
    free = _only(free, torch.ones_like(like)).flatten(1)
    spacings = -torch.log1p(-drawn[:, : dimension + 1])
    spacings[:, :dimension] *= free
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
