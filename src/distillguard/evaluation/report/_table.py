"""The table of attacks: its rows, sections and columns, as strings."""

from typing import TYPE_CHECKING

from .._statistics import wilson
from ._numbers import Interval, interval, percent
from ._rejection import rejected_counts

if TYPE_CHECKING:
    from ._report import RobustnessReport
    from ._rows import AttackRow

WORST_CASE = "worst case of these"
TO_QUOTE = "to quote"
REJECTION_HEADERS = ("rejected", "examples", "of", "share", "95 % interval")
HEADERS = (
    "attack",
    "robust accuracy",
    "95 % interval",
    "attacked",
    "success",
    "median distance",
    "forwards",
    "backwards",
    "seconds",
)


def bars(report: "RobustnessReport") -> list[tuple[str, float, Interval]]:
    """What a drawing of the report shows: names, accuracies and their 95 % intervals."""
    rows = [("clean", report.clean_accuracy, report.clean_interval)]
    rows += [
        (row.name, row.robust_accuracy, row.robust_interval)
        for row in report.attacks
        if row.error is None
    ]
    rows.append((WORST_CASE, report.robust_accuracy, report.robust_interval))
    if report.n_fooled_besides:
        rows.append((TO_QUOTE, report.quoted_accuracy, report.quoted_interval))
    return rows


def sections(report: "RobustnessReport") -> list[tuple[str, list[tuple[str, ...]]]]:
    """The table's rows under their headings, the attacks' own under none."""
    rest = ("",) * (len(HEADERS) - 3)

    def line(name: str, accuracy: float, ends: Interval) -> tuple[str, ...]:
        return (name, percent(accuracy), interval(ends), *rest)

    worst = line(WORST_CASE, report.robust_accuracy, report.robust_interval)
    parts = [("", [*(cells(row) for row in report.attacks), worst])]
    seen = report.observations
    probes = {
        f"PGD on the cross-entropy, {seen.compared_steps} steps": seen.cross_entropy_survivors,
        f"PGD on the margin, {seen.compared_steps} steps": seen.margin_survivors,
    }
    rows = [
        line(name, count / seen.compared, wilson(count, seen.compared))
        for name, count in probes.items()
        if count is not None and seen.compared
    ]
    if rows:
        some = "" if seen.compared == seen.correct else f"{seen.compared} of "
        title = f"Diagnosis, share of {some}the {seen.correct} correct examples"
        parts.append((title, rows))
    adapted = adapted_rows(report)
    if adapted:
        title = "Adapted attacks on what attacks and diagnosis left, share of all examples"
        parts.append((title, adapted))
    if seen.diagnosis:
        quoted = line(TO_QUOTE, report.quoted_accuracy, report.quoted_interval)
        parts.append(("All of these, share of all examples", [quoted]))
    return parts


def adapted_rows(report: "RobustnessReport") -> list[tuple[str, ...]]:
    """The rows of adapted attacks, where there are any."""
    return [cells(row) for row in report.adaptation.attacks] if report.adaptation else []


def rejection_rows(report: "RobustnessReport") -> list[tuple[str, ...]]:
    """The table of rejected examples; no rows for a model that always answers."""
    return [
        (name, str(count), str(n), percent(count / n), interval(wilson(count, n)))
        for name, count, n in rejected_counts(report)
    ]


def cells(row: "AttackRow") -> tuple[str, ...]:
    """An attack's row as strings."""
    return (
        " ".join(row.name.split()),
        outcome(row).partition(" after ")[0],
        "" if row.error else interval(row.robust_interval),
        str(row.attacked),
        "" if row.success_rate is None else percent(row.success_rate),
        "" if row.median_distance is None else f"{row.median_distance:.4g} {row.distance_norm}",
        "unknown" if row.forwards is None else f"{row.forwards:.1f}",
        "unknown" if row.backwards is None else f"{row.backwards:.1f}",
        f"{row.seconds:.1f}",
    )


def outcome(row: "AttackRow") -> str:
    """What an attack left standing, or how far it came."""
    if row.error is None:
        return percent(row.robust_accuracy)
    return f"stopped after {row.attacked} examples" if row.attacked else "did not run"


def legend(report: "RobustnessReport") -> list[tuple[str, str]]:
    """What each column of the table of attacks holds."""
    ran_on = (
        "correct ones that no earlier attack had fooled"
        if report.survivors_only
        else "all that the model classifies correctly"
    )
    before = " and those before it" if report.survivors_only else ""
    meanings = (
        f"each row is one attack; “{WORST_CASE}”: an example that any attack fooled is fooled",
        f"share of all examples that are still classified correctly after this attack{before}",
        "where the robust accuracy of all such examples lies, with 95 % confidence (Wilson)",
        f"how many examples it was run on: {ran_on}",
        "share of those that it got misclassified, at any distance",
        "median size of the change over those, in the norm shown next to it",
        "forward passes through the model, per attacked example",
        "backward passes (gradients), per attacked example",
        "wall-clock time for all of them",
    )
    return list(zip(HEADERS, meanings, strict=True))


def aligned(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A table in lines, a rule below its head: names to the left, figures to the right."""
    table = [tuple(" ".join(cell.split()) for cell in row) for row in (headers, *rows)]
    first, *others = [max(map(len, column)) for column in zip(*table, strict=True)]

    def line(name: str, *figures: str) -> str:
        pairs = zip(figures, others, strict=True)
        return "  ".join(
            [name.ljust(first), *(cell.rjust(width) for cell, width in pairs)]
        ).rstrip()

    head, *body = [line(*row) for row in table]
    return [head, "-" * len(head), *body]
