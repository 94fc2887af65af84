"""The lower envelope of training curves, and lines through its logarithms."""

import math
from typing import NamedTuple

import numpy as np

from ._runs import Runs

GRID = 1000
"""FLOPs at which the best run is sought, as in the paper."""


class Envelope(NamedTuple):
    """Points of an envelope, in logarithms, and the lines through them."""

    log_flops: np.ndarray
    values: np.ndarray
    """Loss, size and data, of shape (3, m)."""
    lines: np.ndarray
    """Slope and intercept of each, of shape (3, 2)."""
    n_sizes: int


def lower_envelope(
    runs: Runs, group: np.ndarray, flops_factor: float, weights: np.ndarray | None = None
) -> Envelope | None:
    """The envelope of the curves of weight above 0; None without two points of it."""
    flops = flops_factor * runs.parameters * runs.data
    grid = np.geomspace(flops.min(), flops.max(), GRID)
    best, holder = np.full(GRID, np.inf), np.full(GRID, math.nan)
    for each in np.unique(group if weights is None else group[weights > 0]):
        rows = np.flatnonzero(group == each)
        rows = rows[np.argsort(flops[rows])]
        curve = np.interp(grid, flops[rows], runs.loss[rows], left=np.inf, right=np.inf)
        size = np.interp(grid, flops[rows], runs.parameters[rows])
        holder = np.where(curve < best, size, holder)
        best = np.minimum(best, curve)
    before = np.minimum.accumulate(np.append(np.inf, best[:-1]))
    chosen = best < before
    if chosen.sum() < 2:
        return None
    x = np.log(grid[chosen])
    size = holder[chosen]
    values = np.log([best[chosen], size, grid[chosen] / (flops_factor * size)])
    lines = np.polyfit(x, values.T, 1).T
    return Envelope(x, values, lines, len(np.unique(size)))
