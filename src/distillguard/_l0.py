"""The l0-ball cut by a box: how many coordinates, or pixels, differ from the centre.

Functions of points of shape (n, ...), example by example. What is counted once is a *place*: in
``"l0"`` each coordinate, in ``"l0_pixels"`` each pixel with all its channels.
"""

import math

import torch
from torch import Tensor

from ._random import uniform
from ._typing import Distance


def by_place(values: Tensor, norm: Distance) -> Tensor:
    """View (n, ...) as (n, channels, places).

    The last two axes of an image are its rows and columns, those before its channels. Inputs of
    one axis have a single channel.
    """
    channels = 1 if norm == "l0" or values.ndim < 3 else math.prod(values.shape[1:-2])
    return values.reshape(len(values), channels, math.prod(values.shape[1:]) // channels)


def count(delta: Tensor, norm: Distance) -> Tensor:
    """How many places have moved: (n, ...) to (n,) int64."""
    return (by_place(delta, norm) != 0).any(dim=1).sum(dim=1)


def highest(scores: Tensor, number: Tensor | float) -> Tensor:
    """Which places (n, places) have the highest scores: ``number`` of them, or one for each (n,).

    Of equal scores the first.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(scores.shape[1], device=order.device).expand_as(order))
    limit = number.reshape(-1, 1) if isinstance(number, Tensor) else number
    return rank < limit


def over_channels(chosen: Tensor, like: Tensor, norm: Distance) -> Tensor:
    """Spread what holds for places, (n, places), over the coordinates of ``like`` (n, ...)."""
    return chosen[:, None].expand(by_place(like, norm).shape).reshape(like.shape)


def project(
    points: Tensor, centre: Tensor, radius: float, low: Tensor, high: Tensor, norm: Distance
) -> Tensor:
    """Nearest point, in l2, that lies in both the ball around ``centre`` and the box.

    The places that keep their change, put within the box, are those by which the point comes
    nearest (PGD0 of Croce and Hein 2019, section 4.1).
    """
    within = torch.minimum(torch.maximum(points, low), high)
    square = (points.double() - centre.double()) ** 2 - (points.double() - within.double()) ** 2
    gain = by_place(square, norm).sum(dim=1)
    kept = highest(gain, radius) & (gain > 0)
    return torch.where(over_channels(kept, points, norm), within, centre)


def draw(
    centre: Tensor,
    keys: Tensor,
    counter: Tensor | int,
    radius: float,
    low: Tensor,
    high: Tensor,
    norm: Distance,
) -> Tensor:
    """Draw uniform values of the box for as many random places as the ball allows."""
    free = by_place((low < high).expand_as(centre), norm).any(dim=1)
    size, n_places = centre[0].numel(), free.shape[1]
    drawn = uniform(keys, counter, size + n_places, torch.float64)
    chosen = highest(drawn[:, size:].masked_fill(~free, -1), radius) & free
    values = low + (high - low) * drawn[:, :size].view_as(centre).to(centre)
    values = torch.minimum(torch.maximum(values, low), high)
    return torch.where(over_channels(chosen, centre, norm), values, centre)


def direction(gradient: Tensor, width: Tensor) -> Tensor:
    """Gradient to a step whose largest part crosses the box; a zero gradient gives zero."""
    slope = gradient * width
    largest = slope.flatten(1).abs().amax(dim=1).reshape(-1, *(1,) * (slope.ndim - 1))
    return torch.where(largest > 0, slope / largest, 0) * width
