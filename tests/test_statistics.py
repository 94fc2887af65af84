"""Intervals and tests of shares, against SciPy's own."""

import subprocess
import sys

import pytest
from scipy.stats import binomtest

from distillguard._clopper_pearson import clopper_pearson, lower_bound
from distillguard.evaluation._statistics import (
    paired_p_value,
    significant_difference,
    wilson,
)

COUNTS = [
    (count, n)
    for n in (1, 2, 3, 10, 57, 256, 10_000, 60_000)
    for count in sorted({0, 1, n // 3, n // 2, n - 1, n})
]


@pytest.mark.parametrize(("count", "n"), COUNTS)
def test_intervals_and_tests_are_those_of_scipy(count, n):
    exact = binomtest(count, n)
    assert wilson(count, n) == pytest.approx(tuple(exact.proportion_ci(0.95, "wilson")), abs=1e-12)
    assert clopper_pearson(count, n) == pytest.approx(tuple(exact.proportion_ci()), abs=1e-12)
    for level in (0.01, 0.05):
        greater = binomtest(count, n, alternative="greater").proportion_ci(1 - level, "exact")
        assert lower_bound(count, n, level) == pytest.approx(greater.low, abs=1e-12)
    assert paired_p_value(count, n - count) == pytest.approx(exact.pvalue, abs=1e-12)


def test_of_nothing_everything_is_possible():
    assert wilson(0, 0) == (0.0, 1.0)
    assert lower_bound(0, 0, 0.01) == 0
    assert not significant_difference(0, 0, 0.05)


def test_an_interval_ends_where_a_share_does():
    assert wilson(0, 5)[0] == 0
    assert wilson(5, 5)[1] == 1


def test_an_evaluation_does_without_the_import_of_scipy_stats():
    script = (
        "import sys, torch; from distillguard import evaluate; "
        "evaluate(torch.nn.Linear(2, 2), torch.rand(4, 2), torch.zeros(4).long(), epsilon=0.1, "
        "attacks='quick', random_state=0); print('scipy.stats' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.split() == ["False"], found.stderr
