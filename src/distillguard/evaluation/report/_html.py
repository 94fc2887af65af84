"""The report as a page of its own: one file, no scripts, nothing loaded from elsewhere."""

import base64
import struct
import zlib
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._records import SHOWN
from ._text import (
    HEADERS,
    aspects,
    bars,
    interval,
    no_findings,
    notes,
    percent,
    result,
    sections,
    summary,
)

if TYPE_CHECKING:
    from ._report import Example, RobustnessReport


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
        "result": result(report),
        "headers": HEADERS,
        "summary": summary(report),
        "sections": sections(report),
        "no_findings": no_findings(report),
        "notes": notes(report),
        "bars": bars(report),
        "findings": [(finding, aspects(finding)) for finding in report.findings],
        "examples": [
            (example, image(example.original, report.bounds), altered)
            for example in _fooled(report)
            if (altered := image(example.adversarial, report.bounds))
        ],
    }


def _fooled(report: "RobustnessReport") -> list["Example"]:
    """As many fooled examples as a page shows."""
    who = report.per_example.fooled_by
    return [each for each in report.examples if who[each.index] is not None][:SHOWN]


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
