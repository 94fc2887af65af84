"""Medians, intervals and tests of shares, without scipy.stats, whose import costs a second."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from torch import Tensor

Z = NormalDist().inv_cdf(0.975)


def wilson(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); of nothing, everything is possible."""
    if n == 0:
        return 0.0, 1.0
    share, weight = count / n, Z * Z / n
    centre = share + weight / 2
    half = Z * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    low = 0.0 if count == 0 else (centre - half) / (1 + weight)
    high = 1.0 if count == n else (centre + half) / (1 + weight)
    return low, high


def median(values: Tensor) -> float:
    """The middle value, or the mean of the middle two, where torch takes the lower of them."""
    return float(np.median(values.numpy()))


def significant_difference(only_first: int, only_second: int, level: float) -> bool:
    """McNemar's exact test on paired outcomes, by those in which the two differ."""
    return paired_p_value(only_first, only_second) < level


def paired_p_value(only_first: int, only_second: int) -> float:
    """Probability that a fair coin falls at least so unevenly, to either side."""
    from scipy.special import bdtr

    tail = bdtr(min(only_first, only_second), only_first + only_second, 0.5)
    return min(1.0, 2 * float(tail))


def paired_interval(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares (Newcombe 1998, method 10).

    The distances of the shares to the ends of their Wilson intervals are added as the sides of a
    triangle, by the correlation of the outcomes, which is corrected towards 0.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    share1, share2 = first / n, second / n
    correlation = both * neither - only_first * only_second
    corrected = max(correlation - n / 2, 0) if correlation > 0 else correlation
    scale = math.sqrt(first * (n - first)) * math.sqrt(second * (n - second))
    phi = corrected / scale if scale else 0.0

    def combined(one: float, other: float) -> float:
        return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))

    difference = share1 - share2
    return (
        difference - combined(share1 - low1, high2 - share2),
        difference + combined(high1 - share1, share2 - low2),
    )


def intervals(shares: Any, n: Any) -> np.ndarray:
    """95 % Wilson intervals of shares of ``n`` each, shape (..., 2); NaN where n is 0."""
    shares, ns = np.broadcast_arrays(np.asarray(shares, dtype=np.float64), n)
    ends = [
        wilson(round(share * total), int(total)) if total else (math.nan, math.nan)
        for share, total in zip(shares.ravel().tolist(), ns.ravel().tolist(), strict=True)
    ]
    return np.array(ends).reshape(*shares.shape, 2)
