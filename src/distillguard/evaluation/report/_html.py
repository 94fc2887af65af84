"""The report as a page of its own: one file, no scripts, nothing loaded from elsewhere."""

from typing import TYPE_CHECKING, Any

from .._records import SHOWN
from ._notes import aspects, notes
from ._numbers import interval, percent
from ._pictures import data_url
from ._sentences import heading, no_findings, result, subject, summary
from ._table import HEADERS, REJECTION_HEADERS, bars, legend, rejection_rows, sections

if TYPE_CHECKING:
    from ._report import Example, RobustnessReport
    from ._rows import ClassRow

DOCUMENTATION: str | None = None
"""Address of the documentation, which has a page for each finding; None while it has none."""

MOST_CLASSES = 100
"""Rows of the table of classes; of more, the weakest are shown."""


def to_html(report: "RobustnessReport") -> str:
    """The whole page."""
    return _rendered("report.html.j2", report)


def to_fragment(report: "RobustnessReport") -> str:
    """The part of the page that notebooks show."""
    return _rendered("fragment.html.j2", report)


def _rendered(template: str, report: "RobustnessReport") -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("distillguard.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, interval=interval)
    return environment.get_template(template).render(**_context(report))


def _context(report: "RobustnessReport") -> dict[str, Any]:
    return {
        "report": report,
        "title": heading(report),
        "subject": subject(report),
        "result": result(report),
        "headers": HEADERS,
        "summary": summary(report),
        "sections": sections(report),
        "no_findings": no_findings(report),
        "notes": notes(report),
        "legend": legend(report),
        "bars": bars(report),
        "rejection_headers": REJECTION_HEADERS,
        "rejection": rejection_rows(report),
        "class_headers": CLASS_HEADERS,
        "classes": [class_cells(row) for row in weakest(report.classes)],
        "findings": [
            (finding, aspects(finding), page_of(finding.code)) for finding in report.findings
        ],
        "examples": [
            (example, data_url(example.original, report.bounds), altered)
            for example in _fooled(report)
            if (altered := data_url(example.adversarial, report.bounds))
        ],
    }


def _fooled(report: "RobustnessReport") -> list["Example"]:
    """As many fooled examples as a page shows."""
    who = report.per_example.fooled_by
    return [each for each in report.examples if who[each.index] is not None][:SHOWN]


def page_of(code: str) -> str | None:
    """Address of a finding's page, if the documentation has one."""
    return DOCUMENTATION and f"{DOCUMENTATION.rstrip('/')}/findings/{code}.html"


CLASS_HEADERS = ("class", "examples", "clean accuracy", "robust accuracy")


def class_cells(row: "ClassRow") -> tuple[str, ...]:
    """The counts of a class, with the intervals of their shares."""
    return (
        row.name,
        str(row.n_examples),
        f"{percent(row.clean_accuracy)} {interval(row.clean_interval)}",
        f"{percent(row.robust_accuracy)} {interval(row.robust_interval)}",
    )


def weakest(classes: tuple["ClassRow", ...]) -> list["ClassRow"]:
    """All classes, or of many the least robust ones, in their order."""
    places = sorted(range(len(classes)), key=lambda place: classes[place].robust_accuracy)
    return [classes[place] for place in sorted(places[:MOST_CLASSES])]
