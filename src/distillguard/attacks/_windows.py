"""Random windows of an image and the bumps that fill them, one of each for every example."""

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """A rectangle of pixels in each image; every tensor has shape (n,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_window(height: Tensor, width: Tensor, drawn: Tensor, rows: int, columns: int) -> Window:
    """Place windows uniformly; ``drawn`` (n, 2) holds uniform numbers in [0, 1)."""
    top = (drawn[:, 0] * (rows - height + 1)).floor().long()
    left = (drawn[:, 1] * (columns - width + 1)).floor().long()
    return Window(top, left, height, width)


def sides(share: Tensor, rows: int, columns: int, least: int, odd: bool) -> tuple[Tensor, Tensor]:
    """Height and width of windows, square where they fit, over a share of the pixels."""
    area = share.double() * rows * columns
    side = area.sqrt().round().clamp(min=least)
    if odd:
        side = side + 1 - side % 2
    # A side that does not fit leaves its area to the other: a row of features has flat windows.
    height = torch.where(side > columns, area / columns, side).round().clamp(min=1, max=rows)
    width = torch.where(side > rows, area / rows, side).round().clamp(min=1, max=columns)
    return height.long(), width.long()


def mask(window: Window, rows: int, columns: int) -> Tensor:
    """Pixels within the windows: (n, rows, columns), bool."""
    i, j = _offsets(window, rows, columns)
    height, width = window.height[:, None, None], window.width[:, None, None]
    return (i >= 0) & (i < height) & (j >= 0) & (j < width)


def bumps(window: Window, sideways: Tensor, rows: int, columns: int) -> Tensor:
    """Two halves of opposite sign, each highest in its middle (equation 2): (n, rows, columns).

    Of Euclidean norm 1 and 0 outside the window. The halves lie above each other, or beside
    each other where ``sideways`` (n,).
    """
    i, j = _offsets(window, rows, columns)
    height, width = window.height[:, None, None], window.width[:, None, None]
    across = (sideways[:, None, None] & (width > 1)) | (height == 1)
    along, other = torch.where(across, j, i), torch.where(across, i, j)
    length, breadth = torch.where(across, width, height), torch.where(across, height, width)

    half = length // 2
    second = along >= half
    extent = torch.where(second, length - half, half)
    middle = torch.where(second, half + (length - half) // 2, half // 2)
    ring = torch.maximum((along - middle).abs(), (other - breadth // 2).abs())
    rings = torch.maximum(extent, breadth) // 2 + 1

    # From ring to ring inwards 1 / k^2 is added, k counted from the middle.
    table = torch.arange(max(rows, columns) + 2, device=i.device, dtype=torch.float64)
    table = torch.where(table > 0, table**-2, 0).cumsum(dim=0)
    inside = mask(window, rows, columns)
    heights = table[rings] - table[torch.where(inside, ring, 0)]
    upper = unit(heights * (inside & ~second))
    lower = unit(heights * (inside & second))
    return unit(upper - lower)


def unit(images: Tensor, order: float = 2.0) -> Tensor:
    """Each image over its norm, of rows and columns the last two axes; zeros stay as they are."""
    norm = torch.linalg.vector_norm(images, ord=order, dim=(-2, -1), keepdim=True)
    return torch.where(norm > 0, images / norm, 0)


def _offsets(window: Window, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    device = window.top.device
    i = torch.arange(rows, device=device)[:, None] - window.top[:, None, None]
    j = torch.arange(columns, device=device) - window.left[:, None, None]
    return i.expand(-1, -1, columns), j.expand(-1, rows, -1)
