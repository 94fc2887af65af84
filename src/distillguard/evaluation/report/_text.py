"""The report for terminals and as Markdown: one table, written twice."""

import re
from textwrap import wrap
from typing import TYPE_CHECKING

from ..._typing import Distance
from .._statistics import wilson
from ._rejection import rejected_counts

if TYPE_CHECKING:
    from ..diagnosis._findings import Finding
    from ._adaptation import Adaptation
    from ._report import RobustnessReport
    from ._rows import AttackRow

Interval = tuple[float, float]

WIDTH = 100
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


def units(norm: Distance) -> str:
    """What a radius or a distance in this norm counts."""
    return {"l0": "values", "l0_pixels": "pixels"}.get(norm, "input units")


def headline(report: "RobustnessReport") -> str:
    """The result in one line: the figure to quote, with a warning where another is at hand."""
    codes = ", ".join(f.code for f in report.findings if f.severity == "severe")
    codes, seen = f" ({codes})" if codes else "", report.observations
    if report.n_fooled_besides:
        loud = in_doubt(report) or report.quoted_accuracy < report.robust_interval[0]
        again = report.adaptation
        partly = again is None or again.attacked < again.standing
        at_most = "at most " if partly and seen.sampled < seen.correct else ""
        not_that = "" if same_as_quoted(report) else f", not {percent(report.robust_accuracy)}"
        outcomes = [diagnosis_outcome(report)] if seen.n_fooled_by_diagnosis else []
        outcomes += [adaptation_outcome(again)] if again and again.attacked else []
        return (
            f"{'WARNING: quote' if loud else 'Quote'} {at_most}{quoted(report)}{not_that}: "
            f"{', and '.join(outcomes)}{codes}"
        )
    if in_doubt(report):
        return f"WARNING: quote {quoted(report)} as an upper bound only{codes}"
    if codes:
        return f"{result(report)}; attacks on the cross-entropy alone are blind here{codes}"
    return result(report)


def quoted(report: "RobustnessReport") -> str:
    """``"4.5 % [2.4, 8.3] robust accuracy"``, the diagnosis counted."""
    return f"{percent(report.quoted_accuracy)} {interval(report.quoted_interval)} robust accuracy"


def same_as_quoted(report: "RobustnessReport") -> bool:
    """Whether the attacks' own figure is printed as the one to quote is."""
    return percent(report.robust_accuracy) == percent(report.quoted_accuracy)


def in_doubt(report: "RobustnessReport") -> bool:
    """Whether a severe finding casts doubt on the figure itself.

    Not where it says that the cross-entropy alone is blind, and the attacks passed are not: the
    diagnosis looked at what they left and fooled none of it.
    """
    return any(
        finding.severity == "severe" and not blind_cross_entropy(finding)
        for finding in report.findings
    )


def blind_cross_entropy(finding: "Finding") -> bool:
    """Whether a finding is about attacks on the cross-entropy and no others."""
    if finding.code == "zero-gradients":  # The logits' own gradient is there.
        return finding.figures["share_scaled"] < finding.figures["share"] / 2
    return finding.code == "margin-beats-cross-entropy"


def diagnosis_outcome(report: "RobustnessReport") -> str:
    """What the diagnosis fooled of the examples that withstand the attacks passed."""
    seen = report.observations
    sampled = "" if seen.sampled == seen.correct else "sampled "
    return (
        f"the diagnosis fooled {seen.n_fooled_by_diagnosis} of the {seen.attack_survivors} "
        f"{sampled}examples that withstand the attacks passed"
    )


def adaptation_outcome(adaptation: "Adaptation") -> str:
    """What adapted attacks fooled of what they were run on."""
    count = adaptation.attacked
    sampled = "" if count == adaptation.standing else "sampled "
    return f"attacks adapted to the findings fooled {adaptation.fooled} of {count} {sampled}left"


def result(report: "RobustnessReport") -> str:
    """Accuracies, threat model and number of examples, in one line."""
    alone = "Robust"
    if report.n_fooled_besides:
        alone = "Against the attacks passed alone, robust"
    undiagnosed = "" if report.observations.diagnosis else ", without a diagnosis"
    return (
        f"{alone} accuracy {percent(report.robust_accuracy)} {interval(report.robust_interval)} "
        f"within {report.norm} {report.epsilon:.6g}, clean accuracy "
        f"{percent(report.clean_accuracy)} {interval(report.clean_interval)}, "
        f"{report.n_examples} examples{undiagnosed}"
    )


def summary(report: "RobustnessReport") -> str:
    """What was done to how many examples, what that says and how sure it is, in plain words."""
    seen, n = report.observations, report.n_examples
    ran = [row for row in report.attacks if row.error is None]
    attacks = "1 attack" if len(ran) == 1 else f"{len(ran)} attacks"
    few = f"{n} examples" if seen.correct == n else f"{seen.correct} of {n} examples"
    done = (
        f"{attacks} tried to change the {few} that the model classifies correctly, each by at most "
        f"{report.epsilon:.6g} in {report.norm}: {report.n_robust} withstood all."
    )
    if report.rejection is not None:
        done += (
            f" It refused {report.rejection.clean} of all examples when clean, which count as "
            f"errors, and at a point of an attack {report.rejection.adversarial} of those that "
            "withstood."
        )
    if not seen.diagnosis:
        done += " Whether the attacks failed for the right reason was not looked at."
    elif seen.sampled:
        more = seen.n_fooled_by_diagnosis or "none"
        done += (
            f" The diagnosis looked at {seen.sampled} of them, to see whether the attacks failed "
            f"for the right reason, and fooled {more} of those that the attacks had left."
        )
    if report.adaptation is not None and report.adaptation.attacked:
        more = report.adaptation.fooled or "none"
        done += (
            f" {report.adaptation.attacked} were attacked again, with attacks adapted to what it "
            f"found: {more} fell."
        )
    low, high = report.quoted_interval
    return (
        f"{done} Of all examples of this kind {100 * low:.1f} to {100 * high:.1f} % withstand what "
        "was tried (95 % confidence). A better attack can lower the figure; nothing here can show "
        "that there is none."
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


def heading(report: "RobustnessReport") -> str:
    """What stands over the report."""
    return " ".join((report.title or f"Robustness of {report.model}").split())


def subject(report: "RobustnessReport") -> list[str]:
    """The model, the examples, and when it was."""
    known = (report.model, report.dataset, f"{report.date[:10]} {report.date[11:16]} UTC")
    return [" ".join(part.split()) for part in known if part]


def to_text(report: "RobustnessReport") -> str:
    """Headline, table, findings, small print; prose wrapped at 100 columns."""
    lines = [report.headline]
    if report.title is not None:
        lines = [heading(report), "", report.headline]
    if not report.headline.startswith(result(report)):
        lines.append(result(report))
    lines += ["", *wrap(summary(report), WIDTH)]
    parts = sections(report)
    head, rule, *body = aligned(HEADERS, [row for _, rows in parts for row in rows])
    lines += ["", head, rule]
    for title, rows in parts:
        lines += ["", title] if title else []
        lines += body[: len(rows)]
        del body[: len(rows)]
    lines.append("")
    if rejected := rejection_rows(report):
        lines += [*aligned(REJECTION_HEADERS, rejected), ""]
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
        lines += ["", no_findings(report)]
    return "\n".join(lines)


def no_findings(report: "RobustnessReport") -> str:
    """What stands where findings would."""
    return "No findings." if report.observations.diagnosis else "No findings: no diagnosis was run."


def to_markdown(report: "RobustnessReport") -> str:
    """The same as Markdown."""
    lines = [] if report.title is None else [f"## {escaped(heading(report))}", ""]
    lines += [f"**{escaped(report.headline)}**", ""]
    if not report.headline.startswith(result(report)):
        lines += [escaped(result(report)), ""]
    lines += [escaped(summary(report)), ""]
    lines += marked_head(HEADERS)
    for title, rows in sections(report):
        if title:
            lines.append("| " + " | ".join([f"*{title}*", *("" for _ in HEADERS[1:])]) + " |")
        lines += map(marked_row, rows)
    lines += [""]
    if rejected := rejection_rows(report):
        lines += [*marked_head(REJECTION_HEADERS), *map(marked_row, rejected), ""]
    for note in notes(report):
        lines += [escaped(note), ""]
    for finding in report.findings:
        lines += [f"### {finding.code} ({finding.severity})", ""]
        lines += [f"- {name}: {escaped(text)}" for name, text in aspects(finding)]
        lines += [""]
    if not report.findings:
        lines += [no_findings(report), ""]
    return "\n".join(lines)


def marked_head(headers: tuple[str, ...]) -> list[str]:
    """The head of a Markdown table: the first column to the left, figures to the right."""
    return ["| " + " | ".join(headers) + " |", "| --- |" + " ---: |" * (len(headers) - 1)]


def marked_row(row: tuple[str, ...]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(escaped, row)) + " |"


_MARKUP = re.compile(r"[\\`*|]|(?<!\w)_|_(?!\w)|~(?=~)")
_LINK = re.compile(r"\](?=[(\[:])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", "://": "&#58;//"}


def escaped(text: str) -> str:
    """Text on one line that Markdown shows as it is: no markup, no links, no further cells."""
    text = _MARKUP.sub(lambda found: "\\" + found[0], " ".join(text.split()))
    for part, entity in _ENTITIES.items():
        text = text.replace(part, entity)
    return _LINK.sub("&#93;", text)


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
            lines.append(
                f"{row.name} returned {row.illegal} points outside the bounds, which do not count."
            )
    return lines


def adaptation_notes(report: "RobustnessReport", adaptation: "Adaptation") -> list[str]:
    """What was done about the findings, what it found, and what could not be done."""
    lines = []
    if adaptation.findings:
        lines.append(
            f"Attacked again because of {', '.join(adaptation.findings)}. The model was followed "
            f"by {'; then by '.join(adaptation.remedies) or 'nothing'}. Verdicts are the model's "
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
            f"Adapted: the model answers with {'; '.join(seen.adaptations)}. What it asks inside "
            "is counted."
        )
    if seen.stand_ins:
        lines.append(
            f"Asked in place of the model: {'; '.join(seen.stand_ins)}. These passes are counted "
            "as the attack's; every verdict is the model's own."
        )
    if seen.unseen:
        lines.append(
            f"{', '.join(seen.unseen)} asked the model nothing: passes through anything else are "
            "not seen, and not known."
        )
    return lines


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
