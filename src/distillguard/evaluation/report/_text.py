"""The report for terminals and as Markdown: one table, written twice."""

from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..diagnosis._findings import Finding
    from ._report import RobustnessReport
    from ._rows import AttackRow

Interval = tuple[float, float]

WIDTH = 100
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


def headline(report: "RobustnessReport") -> str:
    """The result in one line; a severe finding turns it into a warning."""
    severe = [finding for finding in report.findings if finding.severity == "severe"]
    quoted, refuted = report.quoted_accuracy, refuted_accuracy(report)
    if not severe and refuted is None:
        return result(report)
    against = " as an upper bound only" if refuted is None else f", not {percent(refuted)}"
    line = f"{'WARNING: quote' if severe else 'Quote'} {percent(quoted)} robust accuracy{against}"
    if report.observations.n_fooled_by_diagnosis:
        line += f": {diagnosis_outcome(report)}"
    codes = ", ".join(finding.code for finding in severe)
    return f"{line} ({codes})" if severe else line


def refuted_accuracy(report: "RobustnessReport") -> float | None:
    """The figure that must not be quoted: the report's own, or what the cross-entropy would say.

    None where neither exceeds the figure to quote as printed.
    """
    candidates = [report.robust_accuracy]
    candidates += [
        report.clean_accuracy * finding.figures["withstand_cross_entropy"]
        for finding in report.findings
        if finding.code == "margin-beats-cross-entropy"
    ]
    quoted = report.quoted_accuracy
    return next((c for c in candidates if c > quoted and percent(c) != percent(quoted)), None)


def diagnosis_outcome(report: "RobustnessReport") -> str:
    """What the diagnosis fooled of the examples that withstand the attacks passed."""
    seen = report.observations
    sampled = "" if seen.sampled == seen.correct else "sampled "
    return (
        f"the diagnosis fooled {seen.n_fooled_by_diagnosis} of the {seen.attack_survivors} "
        f"{sampled}examples that withstand the attacks passed"
    )


def result(report: "RobustnessReport") -> str:
    """Accuracies, threat model and number of examples, in one line."""
    alone = (
        "Against the attacks passed alone, robust"
        if report.observations.n_fooled_by_diagnosis
        else "Robust"
    )
    return (
        f"{alone} accuracy {percent(report.robust_accuracy)} {interval(report.robust_interval)} "
        f"within {report.norm} {report.epsilon:.6g}, clean accuracy "
        f"{percent(report.clean_accuracy)} {interval(report.clean_interval)}, "
        f"{report.n_examples} examples"
    )


def bars(report: "RobustnessReport") -> list[tuple[str, float, Interval]]:
    """What a drawing of the report shows: names, accuracies and their 95 % intervals."""
    rows = [("clean", report.clean_accuracy, report.clean_interval)]
    rows += [
        (row.name, row.robust_accuracy, row.robust_interval)
        for row in report.attacks
        if row.error is None
    ]
    rows.append(("worst case of these", report.robust_accuracy, report.robust_interval))
    if report.observations.n_fooled_by_diagnosis:
        quoted = report.quoted_accuracy
        rows.append(("to quote", quoted, (quoted, quoted)))
    return rows


def to_text(report: "RobustnessReport") -> str:
    """Headline, table, findings, small print; prose wrapped at 100 columns."""
    lines = [report.headline]
    if lines[0] != result(report):
        lines.append(result(report))
    table = [HEADERS, *(cells(row) for row in report.attacks)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = ["  ".join(pad(row, widths)).rstrip() for row in table]
    lines += ["", rows[0], "-" * len(rows[0]), *rows[1:], ""]
    for note in notes(report):
        lines += wrap(note, WIDTH)
    for finding in report.findings:
        lines += [
            "",
            f"[{finding.severity}] {finding.code}",
        ]
        for name, text in aspects(finding):
            lines += wrap(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    if not report.findings:
        lines += ["", "No findings."]
    return "\n".join(lines)


def to_markdown(report: "RobustnessReport") -> str:
    """The same as Markdown."""
    lines = [f"**{report.headline}**", ""]
    if report.headline != result(report):
        lines += [result(report), ""]
    lines += ["| " + " | ".join(HEADERS) + " |", "| --- |" + " ---: |" * (len(HEADERS) - 1)]
    lines += ["| " + " | ".join(cells(row)).replace("\n", " ") + " |" for row in report.attacks]
    lines += ["", *notes(report)]
    for finding in report.findings:
        lines += ["", f"### {finding.code} ({finding.severity})", ""]
        lines += [f"- {name}: {text}" for name, text in aspects(finding)]
    if not report.findings:
        lines += ["", "No findings."]
    return "\n".join(lines) + "\n"


def cells(row: "AttackRow") -> tuple[str, ...]:
    """An attack's row as strings."""
    return (
        row.name,
        outcome(row).partition(" after ")[0],
        "" if row.error else interval(row.robust_interval),
        str(row.attacked),
        "" if row.success_rate is None else percent(row.success_rate),
        "" if row.median_distance is None else f"{row.median_distance:.4g} {row.distance_norm}",
        f"{row.forwards:.1f}",
        f"{row.backwards:.1f}",
        f"{row.seconds:.1f}",
    )


def outcome(row: "AttackRow") -> str:
    """What an attack left standing, or how far it came."""
    if row.error is None:
        return percent(row.robust_accuracy)
    return f"stopped after {row.attacked} examples" if row.attacked else "did not run"


def notes(report: "RobustnessReport") -> list[str]:
    """What the columns mean, and what was spent besides."""
    on = (
        "Each attack ran on the examples that the earlier ones had not fooled."
        if report.survivors_only
        else "Each attack ran on all examples that the model classifies correctly."
    )
    others = ", ".join(
        f"{part} {cost.forwards} forwards {cost.backwards} backwards {cost.seconds:.1f} s"
        for part, cost in report.costs.items()
    )
    lines = [
        f"{on} Success is misclassification at any distance; forwards and backwards are per "
        "attacked example, seconds for all of them.",
        f"Besides: {others}.",
        f"Seed {report.random_state}; "
        + ", ".join(f"{name} {version}" for name, version in report.versions.items())
        + ".",
    ]
    if report.observations.failed:
        lines.append(
            "The diagnosis is incomplete, and findings may be missing. It could not measure "
            + "; ".join(f"{name} ({why})" for name, why in report.observations.failed.items())
            + "."
        )
    for row in report.attacks:
        if row.error:
            lines.append(f"{row.name} {outcome(row)}: {row.error}")
        if row.illegal:
            lines.append(
                f"{row.name} returned {row.illegal} points outside the bounds, which do not count."
            )
    return lines


def aspects(finding: "Finding") -> tuple[tuple[str, str], ...]:
    """The three texts of a finding, with their names."""
    return (
        ("evidence", finding.evidence),
        ("meaning", finding.meaning),
        ("remedy", finding.remedy),
    )


def percent(share: float) -> str:
    """``0.034`` as ``"3.4 %"``."""
    return f"{100 * share:.1f} %"


def interval(ends: Interval) -> str:
    """``(0.02, 0.05)`` as ``"[2.0, 5.0]"``, in per cent."""
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def pad(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Names to the left, figures to the right."""
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
