"""The report for terminals and as Markdown: one table, written twice."""

import re
from textwrap import wrap
from typing import TYPE_CHECKING

from ._notes import aspects, notes
from ._sentences import heading, no_findings, result, summary
from ._table import HEADERS, REJECTION_HEADERS, aligned, rejection_rows, sections

if TYPE_CHECKING:
    from ._report import RobustnessReport

WIDTH = 100


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
