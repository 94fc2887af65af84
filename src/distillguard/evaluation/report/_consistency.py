"""Whether the figures of a report that somebody hands in can all be true at once."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._version import __version__
from .._entries import RESERVED
from .._statistics import wilson

if TYPE_CHECKING:
    from ._adaptation import Adaptation
    from ._rejection import Rejection
    from ._report import RobustnessReport
    from ._rows import AttackRow


def check_consistent(report: "RobustnessReport", read: dict[str, Any]) -> None:
    """Raise ValueError with the first figure that the others rule out.

    ``read`` holds what the report derives from its parts, which must be what it derives.
    """
    for what, holds in _all_facts(report, read):
        if not holds:
            raise ValueError(f"figures that contradict each other: {what}")


def as_counted(report: "RobustnessReport") -> "RobustnessReport":
    """Return a consistent report with every share and interval as its counts give it.

    Nothing of a digit that was damaged, too small a change to contradict the others, stays.
    """
    n, correct, rejected = report.n_examples, report.observations.correct, report.rejection
    adapted = report.adaptation
    if adapted is not None:
        rows = tuple(_row_as_counted(row, n) for row in adapted.attacks)
        adapted = replace(adapted, attacks=rows)
    if rejected is not None:
        rejected = replace(
            rejected,
            clean_interval=wilson(rejected.clean, n),
            adversarial_interval=wilson(rejected.adversarial, correct),
        )
    return replace(
        report,
        clean_accuracy=correct / n,
        clean_interval=wilson(correct, n),
        robust_accuracy=report.n_robust / n,
        robust_interval=wilson(report.n_robust, n),
        attacks=tuple(_row_as_counted(row, n) for row in report.attacks),
        adaptation=adapted,
        rejection=rejected,
    )


def _row_as_counted(row: "AttackRow", n: int) -> "AttackRow":
    stands = round(row.robust_accuracy * n)
    rate = row.success_rate
    if rate is not None:
        rate = round(rate * row.attacked) / row.attacked
    return replace(
        row,
        robust_accuracy=stands / n,
        robust_interval=wilson(stands, n),
        success_rate=rate,
    )


def _all_facts(report: "RobustnessReport", read: dict[str, Any]) -> "Facts":
    yield from _threat_model(report)
    yield from _counts(report)
    yield from _examples(report)
    if report.adaptation is not None:
        yield from _adaptation(report, report.adaptation)
    if report.rejection is not None:
        yield from _rejection(report, report.rejection)
    else:
        rejected = sum(row.rejected for row in _rows(report))
        yield "attacks.rejected of a model that does not reject", not rejected
    yield from _derived(report, read)


Facts = Iterator[tuple[str, Any]]


def _threat_model(report: "RobustnessReport") -> Facts:
    low, high = (np.array(bound) for bound in report.bounds)
    yield "bounds that are no numbers", low.dtype.kind in "if" and high.dtype.kind in "if"
    yield "bounds that hold nothing", _holds_something(low, high)
    if report.mask is not None:
        yield "a mask that is not of true and false", np.array(report.mask).dtype.kind == "b"


def _holds_something(low: np.ndarray, high: np.ndarray) -> bool:
    """Bounds broadcast, and those of a coordinate that may not change are equal."""
    try:
        low, high = np.broadcast_arrays(low, high)
    except ValueError:
        return False
    return bool((low <= high).all() and (low < high).any())


def _counts(report: "RobustnessReport") -> Facts:
    n, seen = report.n_examples, report.observations
    correct = round(report.clean_accuracy * n)
    yield "clean_accuracy and observations.correct", seen.correct == correct
    yield from _share("clean", n, report.clean_accuracy, report.clean_interval)
    yield from _share("robust", n, report.robust_accuracy, report.robust_interval)
    standing = correct
    for row in report.attacks:
        yield from _row(row, n, standing)
        standing -= row.fooled if report.survivors_only else 0
    yield from _classes(report)
    yield "attacks of one name", len({row.name for row in report.attacks}) == len(report.attacks)
    yield "an unknown part in costs", set(report.costs) <= set(RESERVED)

    robust = round(report.robust_accuracy * n)
    fooled = sum(row.fooled for row in report.attacks)
    if report.survivors_only:
        yield "robust_accuracy and what the attacks fooled", robust == correct - fooled
    else:
        most = correct - max(row.fooled for row in report.attacks)
        yield "robust_accuracy and what the attacks fooled", correct - fooled <= robust <= most

    errors = {row.name: row.error for row in report.attacks if row.error is not None}
    # Earlier versions did not observe it.
    yield "observations.raised and the errors of the attacks", dict(seen.raised) in ({}, errors)

    others = {
        "at_bounds",
        "lost_at_bounds",
        "compared_steps",
        "longer_steps",
        "draws",
    }  # no examples
    for name, value in vars(seen).items():
        if name in others:
            continue
        whole = name in ("correct", "saturated", "silent", "sampled")
        whole = whole or name.startswith(("stray", "rescal"))  # of all, not of the sample
        most = n if whole else seen.sampled
        for count in value if isinstance(value, tuple) else (value,):
            if type(count) is int:
                yield f"observations.{name} and the examples that it counts", count <= most
    for name in ("saturated", "silent", "sampled"):
        yield f"observations.{name} and correct", getattr(seen, name) <= correct
    yield "observations.all_survivors and attack_survivors", seen.n_fooled_by_diagnosis >= 0


def _adaptation(report: "RobustnessReport", adapted: "Adaptation") -> Facts:
    n = report.n_examples
    standing = report.n_robust - report.observations.n_fooled_by_diagnosis
    names = [row.name for row in _rows(report)]
    yield "adaptation.attacks of names of their own", len(set(names)) == len(names)
    yield "adaptation.standing and what was left", adapted.standing == standing
    yield "adaptation.attacked and standing", adapted.attacked <= standing
    yield "adaptation.fooled and attacked", adapted.fooled <= adapted.attacked
    fooled = sum(row.fooled for row in adapted.attacks)
    yield "adaptation.fooled and its attacks", adapted.fooled == fooled
    for row in adapted.attacks:
        # Of data that are read once, a part of the examples left is at hand.
        yield from _row(row, n, standing, partly=True)
        standing -= row.fooled


def _rejection(report: "RobustnessReport", rejected: "Rejection") -> Facts:
    n, correct = report.n_examples, report.observations.correct
    yield "rejection.clean and clean_accuracy", rejected.clean <= n - correct
    yield from _interval("rejection.clean", rejected.clean, n, rejected.clean_interval)
    stopped, ends = rejected.adversarial, rejected.adversarial_interval
    yield "rejection.adversarial and robust_accuracy", stopped <= report.n_robust
    most = sum(row.rejected for row in report.attacks)
    yield "rejection.adversarial and attacks.rejected", stopped <= most
    yield from _interval("rejection.adversarial", stopped, correct, ends)
    for row in _rows(report):
        holds = row.rejected <= row.attacked - row.fooled
        yield f"attacks[{row.name!r}].rejected and fooled", holds


def _rows(report: "RobustnessReport") -> list["AttackRow"]:
    adapted = report.adaptation.attacks if report.adaptation else ()
    return [*report.attacks, *adapted]


def _classes(report: "RobustnessReport") -> Facts:
    n, rows = report.n_examples, report.classes
    counts = [(row.n_examples, row.n_correct, row.n_robust) for row in rows]
    expected = (n, report.observations.correct, report.n_robust)
    yield "classes and the counts of all", tuple(map(sum, zip(*counts, strict=True))) == expected
    for row, (examples, correct, robust) in zip(rows, counts, strict=True):
        yield f"classes, {row.name!r}, that grow", examples >= max(correct, 1) and correct >= robust
    if report.class_names is not None:
        yield "classes and class_names", {row.name for row in rows} <= set(report.class_names)


def _share(name: str, n: int, value: float, interval: tuple[float, float]) -> Facts:
    count = round(value * n)
    yield f"{name}_accuracy and n_examples", math.isclose(value, count / n, abs_tol=1e-12)
    yield from _interval(f"{name}_accuracy", count, n, interval)


def _interval(name: str, count: int, n: int, interval: tuple[float, float]) -> Facts:
    yield f"{name} and its interval", np.allclose(interval, wilson(count, n), rtol=0, atol=1e-12)


def _row(row: "AttackRow", n: int, standing: int, *, partly: bool = False) -> Facts:
    """An attack that was meant for ``standing`` examples; one that raised saw fewer of them."""
    name = f"attacks[{row.name!r}]."
    whole = row.error is None and row.near is None and not partly
    saw = row.attacked == standing if whole else row.attacked <= standing
    yield f"{name}attacked and the examples left to it", saw
    yield f"{name}fooled and attacked", row.fooled <= row.attacked
    yield f"{name}illegal and attacked", row.illegal <= row.attacked
    stands = standing - row.fooled
    yield f"{name}robust_accuracy and fooled", round(row.robust_accuracy * n) == stands
    yield from _share(f"{name}robust", n, row.robust_accuracy, row.robust_interval)
    if row.success_rate is None:
        yield f"{name}success_rate and attacked", row.attacked == 0
        yield f"{name}median_distance and success_rate", row.median_distance is None
    else:
        success = round(row.success_rate * row.attacked)
        exact = row.attacked and math.isclose(
            row.success_rate, success / row.attacked, abs_tol=1e-12
        )
        yield f"{name}success_rate and attacked", exact
        yield f"{name}success_rate and fooled", row.fooled <= success
        yield (
            f"{name}median_distance and success_rate",
            (row.median_distance is None) == (not success),
        )


def _examples(report: "RobustnessReport") -> Facts:
    table, n = report.per_example, report.n_examples
    for name, column in vars(table).items():
        yield f"per_example.{name} and n_examples", len(column) == n
    yield "per_example.index that does not count up", bool((np.diff(table.index) > 0).all())
    fooled = np.array([name is not None for name in table.fooled_by])
    yield (
        "per_example.predicted and correct",
        int(table.correct.sum()) == report.observations.correct,
    )
    yield "per_example.predicted and margin", bool((table.margin[table.correct] >= 0).all())
    yield "per_example.margin and predicted", bool((table.margin[~table.correct] <= 0).all())
    yield "per_example.fooled_by and predicted", not (fooled & ~table.correct).any()
    yield "per_example.fooled_by and robust_accuracy", int(table.robust.sum()) == report.n_robust
    yield "per_example.distance and fooled_by", bool((np.isnan(table.distance) != fooled).all())
    firsts, before = Counter(table.fooled_by), 0
    yield (
        "per_example.fooled_by and attacks",
        set(firsts) - {None} <= {row.name for row in report.attacks},
    )
    for row in report.attacks:
        known = 0 if report.survivors_only else before
        holds = row.fooled - known <= firsts[row.name] <= row.fooled
        yield f"per_example.fooled_by and attacks[{row.name!r}].fooled", holds
        before += firsts[row.name]


def _derived(report: "RobustnessReport", read: dict[str, Any]) -> Facts:
    quoted = math.isclose(report.quoted_accuracy, read["quoted_accuracy"], abs_tol=1e-12)
    yield "quoted_accuracy and its parts", quoted
    yield (
        "quoted_interval and its parts",
        all(map(math.isclose, report.quoted_interval, read["quoted_interval"])),
    )
    try:
        headline = report.headline
    except KeyError as error:
        raise ValueError(f"a finding without the figure {error}") from error
    if report.versions.get("distillguard") == __version__:  # other versions word it otherwise
        yield "headline and its parts", headline == read["headline"]
