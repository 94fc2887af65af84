"""The l1-ball cut by a box: its projection and its steepest steps (Croce and Hein 2021).

Functions of points of shape (n, ...), example by example. The box is given by its lowest and
highest values, tensors that broadcast against the points; the centre of the ball lies inside.
Sums over thousands of coordinates are taken in double precision.
"""

import torch
from torch import Tensor

SHRINKAGE = 3.0
"""By which the number of coordinates that have moved is divided for the next step."""

WIDEST = 0.05
"""Share of the coordinates that one step moves at most."""

ROUNDING = 1e-12
"""Relative error of a sum of sizes in double precision."""


def project(
    points: Tensor, centre: Tensor, radius: Tensor | float, low: Tensor, high: Tensor
) -> Tensor:
    r"""Nearest point that lies in both the ball around ``centre`` and the box.

    With :math:`s` the size of a coordinate's displacement and :math:`r` the room that it has
    before it meets its bound, the nearest point moves it by

    .. math:: \min\bigl(\max(s - \lambda, 0), r\bigr)

    in the same direction, with the smallest :math:`\lambda \ge 0` for which these add up to at
    most ``radius`` (proposition 2.1), which is one number or one for each example (n,). To clamp
    the projection onto the ball alone would leave a part of the radius unused.
    """
    if not points.numel():
        return points
    delta = (points.double() - centre.double()).flatten(1)
    size, room = delta.abs(), _room(delta, centre, low, high)
    level = _level(size, torch.minimum(size, room), _column(radius, delta))
    moved = torch.minimum((size - level).clamp(min=0), room)
    return _placed(centre, moved * delta.sign(), low, high)


def steepest_step(
    points: Tensor,
    gradient: Tensor,
    length: Tensor | float,
    low: Tensor,
    high: Tensor,
    spread: Tensor | float = 1.0,
) -> Tensor:
    r"""Step along which the gradient gains most, among those that stay in the box.

    Its l1 norm is at most ``length`` and no coordinate takes more than ``length / spread``;
    both are one number or one for each example (n,). The steepest coordinates take all they
    may, one after another, until the length is used up: a ``spread`` of 1 gives the steepest
    step of the ball within the box, one of k the step over the k steepest coordinates that can
    still move (section 3.1).
    """
    slope = gradient.flatten(1)
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    length = _column(length, slope)
    most = torch.minimum(_room(slope, points, low, high), length / _column(spread, slope))
    most = most.gather(1, order)
    left = length - (most.cumsum(dim=1) - most)
    taken = torch.minimum(most, left.clamp(min=0))
    step = torch.zeros_like(taken).scatter(1, order, taken) * slope.sign()
    return step.to(points.dtype).view_as(points)


def adapted_spread(delta: Tensor) -> Tensor:
    """How many coordinates the next step is spread over, from how many have moved: (n,).

    Over a third of them, so that from a point of many coordinates the steps come down to few
    (section 3.2, which divides by 1.5 in fewer places); over a twentieth of all at most, and
    from an input itself over one.
    """
    spread = (delta.flatten(1) != 0).sum(dim=1).double() / SHRINKAGE
    return spread.clamp(min=1, max=max(1, WIDEST * delta[0].numel()))


def _column(values: Tensor | float, like: Tensor) -> Tensor:
    """One number, or one for each example, as (1, 1) or (n, 1) in double precision."""
    column = torch.as_tensor(values, dtype=torch.float64, device=like.device)
    return column.reshape(-1, 1)


def _room(direction: Tensor, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far each coordinate can go before it meets its bound; nowhere without a direction."""
    up, down = high.double() - points.double(), points.double() - low.double()
    room = torch.where(direction > 0, up.flatten(1), down.flatten(1)).clamp(min=0)
    return room.masked_fill(direction == 0, 0)


def _level(size: Tensor, kept: Tensor, radius: Tensor) -> Tensor:
    r"""Smallest :math:`\lambda \ge 0` at which at most ``radius`` is left: (n, 1).

    Each coordinate keeps ``kept`` until :math:`\lambda` eats into it at ``size - kept``, and
    nothing from ``size`` on: a sum of straight pieces that end there.
    """
    # Coordinates that have not moved end no piece.
    moved = max(1, int((size > 0).sum(dim=1).max()))
    size, chosen = size.topk(moved, dim=1)
    kept = kept.gather(1, chosen)
    ends, order = torch.cat([size, size - kept], dim=1).sort(dim=1, descending=True, stable=True)
    sign = torch.where(order < moved, 1.0, -1.0).to(ends)
    total, count = (sign * ends).cumsum(dim=1), sign.cumsum(dim=1)

    left = (total - ends * count).cummax(dim=1).values
    piece = torch.searchsorted(left, radius.expand(len(size), 1).contiguous())
    before = (piece - 1).clamp(min=0, max=2 * moved - 1)
    level = (total.gather(1, before) - radius) / count.gather(1, before).clamp(min=1)
    # A projection must not move its own result, whose sum is the radius up to rounding.
    beyond = kept.sum(dim=1, keepdim=True) > radius * (1 + ROUNDING)
    return torch.where(beyond, level, 0)


def _placed(centre: Tensor, delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Add a displacement, rounded towards the centre, so that rounding leaves no ball."""
    delta = delta.view_as(centre)
    points = (centre.double() + delta).to(centre.dtype)
    beyond = (points.double() - centre.double()).abs() > delta.abs()
    points = torch.where(beyond, points.nextafter(centre), points)
    return torch.minimum(torch.maximum(points, low), high)
