"""The small print below the table, and the texts of a finding."""

from typing import TYPE_CHECKING

from ._numbers import percent
from ._sentences import subject
from ._table import outcome

if TYPE_CHECKING:
    from ..diagnosis._findings import Finding
    from ._adaptation import Adaptation
    from ._report import RobustnessReport


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
        f"Evaluated: {', '.join(subject(report))}.",
        f"Seed {report.random_state}; "
        + ", ".join(f"{name} {version}" for name, version in report.versions.items())
        + ".",
    ]
    lines[1:1] = nearer(report)
    lines += adapted(report)
    if report.adaptation is not None:
        lines += adaptation_notes(report, report.adaptation)
    if report.observations.failed:
        lines.append(
            "The diagnosis is incomplete, and findings may be missing. It could not measure "
            + "; ".join(f"{name} ({why})" for name, why in report.observations.failed.items())
            + "."
        )
    for row in (*report.attacks, *(report.adaptation.attacks if report.adaptation else ())):
        if row.error:
            lines.append(f"{row.name} {outcome(row)}: {row.error}")
        if row.illegal:
            points, do = ("point", "does") if row.illegal == 1 else ("points", "do")
            lines.append(
                f"{row.name} returned {row.illegal} {points} outside the bounds or the mask, or "
                f"not finite, which {do} not count."
            )
    return lines


def nearer(report: "RobustnessReport") -> list[str]:
    """Which attacks left out what was far from the boundary."""
    names: dict[float, list[str]] = {}
    for row in report.attacks:
        if row.near is not None:
            names.setdefault(row.near, []).append(row.name)
    told = [
        (f"{100 * near:g} %", " and ".join(names[near])) for near in sorted(names, reverse=True)
    ]
    if not told:
        return []
    who, share, each = "Some attacks", "a share", "; ".join(map(" for ".join, told))
    if len(told) == 1:
        ((share, who),) = told
    return [
        f"{who} left out the examples on which the earlier attacks had lowered the lead of the "
        f"true class, but not below {share} of the clean lead{f': {each}' if told[1:] else ''}."
    ]


def adaptation_notes(report: "RobustnessReport", adaptation: "Adaptation") -> list[str]:
    """What was done about the findings, what it found, and what could not be done."""
    lines = []
    if adaptation.remedies:
        lines.append(
            f"Attacked again because of {', '.join(adaptation.findings)}. Attacks followed "
            f"{'; then '.join(adaptation.remedies)}. Verdicts are the model's "
            f"own. The attacks passed left {percent(report.robust_accuracy)}; after all that was "
            f"tried {percent(report.quoted_accuracy)} are left."
        )
    if adaptation.attacked < adaptation.standing and adaptation.attacks:
        lines.append(
            f"Of {adaptation.standing} examples left, {adaptation.attacked} were attacked again: "
            "the examples of the diagnosis's sample, as the data are read once."
        )
    if adaptation.failed:
        lines.append(f"Could not be adapted to: {'; '.join(adaptation.failed)}.")
    return lines


def adapted(report: "RobustnessReport") -> list[str]:
    """How the model was adapted for attacks, or what attacks asked in its place."""
    seen, lines = report.observations, []
    if seen.adaptations:
        lines.append(
            f"Adapted: the model was evaluated with {'; '.join(seen.adaptations)}. All passes "
            "inside it are counted."
        )
    if seen.stand_ins:
        lines.append(
            f"Queried in place of the model: {'; '.join(seen.stand_ins)}. These passes count as "
            "the attack's; every verdict is the model's own."
        )
    if seen.unseen:
        lines.append(
            f"{', '.join(seen.unseen)} never queried the model: passes through anything else are "
            "unknown."
        )
    return lines


def aspects(finding: "Finding") -> tuple[tuple[str, str], ...]:
    """The three texts of a finding, with their names."""
    return (
        ("evidence", finding.evidence),
        ("meaning", finding.meaning),
        ("remedy", finding.remedy),
    )
