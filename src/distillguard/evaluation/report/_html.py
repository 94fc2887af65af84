"""The report as a page of its own: one file, no scripts, nothing loaded from elsewhere."""

import base64
import struct
import zlib
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._text import (
    HEADERS,
    aspects,
    bars,
    heading,
    interval,
    legend,
    no_findings,
    notes,
    percent,
    result,
    sections,
    subject,
    summary,
)

if TYPE_CHECKING:
    from ._report import RobustnessReport
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
        "class_headers": CLASS_HEADERS,
        "classes": [class_cells(row) for row in weakest(report.classes)],
        "findings": [
            (finding, aspects(finding), page_of(finding.code)) for finding in report.findings
        ],
        "examples": [
            (example, image(example.original, report.bounds), altered)
            for example in report.examples
            if (altered := image(example.adversarial, report.bounds))
        ],
    }


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


def table(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A bare table for notebooks."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def image(values: Tensor, bounds: tuple[Any, Any]) -> str:
    """A data URL of a picture of shape (h, w), (1, h, w) or (3, h, w); "" of anything else."""
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        return ""
    low, high = (torch.tensor(bound) for bound in bounds)
    pixels = ((values.float() - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def png(pixels: Tensor) -> bytes:
    """Portable Network Graphics (ISO/IEC 15948) of grey or RGB bytes of shape (1 or 3, h, w)."""
    channels, height, width = pixels.shape
    rows = pixels.permute(1, 2, 0).reshape(height, -1).numpy()
    colour = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
