"""The nearest point of a hyperplane within a box, exactly, for every example at once."""

import torch
from torch import Tensor

from .._geometry import as_like
from .._typing import Norm


def step_to_hyperplane(
    points: Tensor,
    normal: Tensor,
    gap: Tensor,
    norm: Norm,
    low: Tensor | float,
    high: Tensor | float,
) -> Tensor:
    r"""Smallest step that adds ``gap`` (n,) to the product with ``normal``.

    With :math:`w` the normal, :math:`g` the gap and :math:`r_i` the room that coordinate
    :math:`i` has before it meets its bound, the optimality conditions of

    .. math:: \min \lVert\delta\rVert \quad\text{subject to}\quad
        \langle w, \delta\rangle = g, \quad l \le x + \delta \le u

    in linf and l2 say :math:`|\delta_i| = \min(\lambda v_i, r_i)`, every coordinate towards the
    hyperplane, with :math:`v_i = 1` in linf, :math:`v_i = |w_i|` in l2, and 0 where :math:`w_i` is.
    What such a step adds grows with :math:`\lambda` in straight pieces that end at the sorted
    :math:`r_i / v_i`. In l1 the coordinates of largest :math:`|w_i|` go to their bounds one after
    another, the last as far as is needed. Where the box does not reach the hyperplane the step
    ends in the corner nearest to it. A normal of zeros gives a step of zeros.
    """
    dtype = torch.promote_types(points.dtype, torch.float32)
    x, w, gap = points.flatten(1).to(dtype), normal.flatten(1).to(dtype), gap.to(dtype)
    direction = w.sign() * gap.sign()[:, None]
    w, gap = within_range(w, gap)
    slope = w.abs()
    lowest, highest = (as_like(bound, points).expand_as(points) for bound in (low, high))
    up, down = highest.flatten(1).to(dtype) - x, x - lowest.flatten(1).to(dtype)
    room = torch.where(direction > 0, up, down).clamp(min=0)
    if norm == "l1":
        step = greedy_step(slope, room.masked_fill(direction == 0, 0), gap.abs())
        return (direction * step).to(points.dtype).view_as(points)
    speed = (torch.ones_like(slope) if norm == "linf" else slope).masked_fill(direction == 0, 0)
    end = torch.where(speed > 0, room / speed, 0)

    pace = smallest_pace(slope * speed, end, gap.abs())
    step = torch.minimum(pace[:, None] * speed, room)
    return (direction * step).to(points.dtype).view_as(points)


def within_range(normal: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each row by a power of two, which is exact: squares would leave the range."""
    largest = normal.abs().sum(dim=1)
    exponent = torch.frexp(largest.nan_to_num(0, 0, 0)).exponent.clamp(-126, 126)
    return torch.ldexp(normal, -exponent[:, None]), torch.ldexp(gap, -exponent)


def greedy_step(slope: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """Least sum of steps, each within its room, for which ``sum(slope * step) = wanted``.

    Where that is out of reach every step goes as far as it can. ``slope`` and ``room`` are
    (n, d) and not negative, ``wanted`` (n,) too.
    """
    slope, order = slope.sort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    gain = slope.double() * room.double()
    left = (wanted[:, None].double() - (gain.cumsum(dim=1) - gain)).clamp(min=0)
    step = torch.where(slope > 0, left / slope, 0).to(room).minimum(room)
    return torch.zeros_like(room).scatter(1, order, step)


def smallest_pace(gain: Tensor, end: Tensor, wanted: Tensor) -> Tensor:
    """Solve ``sum(gain * min(pace, end)) = wanted`` for the pace of each row; the last end at most.

    ``gain`` and ``end`` are (n, d) and not negative, ``wanted`` (n,) too.
    """
    end, order = end.sort(dim=1)
    gain = gain.gather(1, order)
    ended = (gain * end).cumsum(dim=1)
    # Summed from the far side: a difference of long sums would lose the last few coordinates.
    running = gain.flip(1).cumsum(dim=1).flip(1)
    running = torch.nn.functional.pad(running[:, 1:], (0, 1))
    reached = ended + end * running

    # Rounding can make the sums fall by an ulp, and the search needs them sorted.
    piece = torch.searchsorted(reached.cummax(dim=1).values, wanted[:, None])
    before = (piece - 1).clamp(min=0)
    fixed = torch.where(piece > 0, ended.gather(1, before), 0)
    rate = torch.where(piece > 0, running.gather(1, before), gain.sum(dim=1, keepdim=True))
    pace = torch.where(rate > 0, (wanted[:, None] - fixed) / rate, end[:, -1:])
    return torch.minimum(pace.clamp(min=0), end[:, -1:]).squeeze(1)
