"""Exact bounds of a share (Clopper and Pearson 1934), without scipy.stats."""


def lower_bound(count: int, n: int, level: float) -> float:
    """One-sided lower bound of a share, exact however small n is."""
    from scipy.special import betaincinv

    return float(betaincinv(count, n - count + 1, level)) if count else 0.0


def upper_bound(count: int, n: int, level: float) -> float:
    """The same from above."""
    return 1 - lower_bound(n - count, n, level)


def clopper_pearson(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share; of nothing, everything is possible."""
    return lower_bound(count, n, 0.025), upper_bound(count, n, 0.025)
