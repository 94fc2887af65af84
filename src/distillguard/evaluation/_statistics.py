"""Intervals and tests, all of them SciPy's."""


def wilson(count: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a share; of nothing, everything is possible."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def lower_bound(count: int, n: int, level: float) -> float:
    """One-sided lower bound of a share (Clopper and Pearson 1934), exact however small n is."""
    from scipy.stats import binomtest

    tested = binomtest(count, n, alternative="greater")
    return float(tested.proportion_ci(confidence_level=1 - level, method="exact").low)


def upper_bound(count: int, n: int, level: float) -> float:
    """The same from above."""
    return 1 - lower_bound(n - count, n, level)


def significant_difference(only_first: int, only_second: int, level: float) -> bool:
    """McNemar's exact test on paired outcomes, by those in which the two differ."""
    discordant = only_first + only_second
    if discordant == 0:
        return False
    from scipy.stats import binomtest

    return bool(binomtest(only_first, discordant).pvalue < level)
