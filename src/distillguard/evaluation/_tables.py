"""Small tables, for terminals and notebooks."""

from html import escape

from .report._html import table
from .report._text import aligned

Rows = list[tuple[str, ...]]

LONGEST = 12
"""Rows of a printed table; of more, so many evenly spaced ones are shown."""


def text_table(title: str, headers: tuple[str, ...], rows: Rows) -> str:
    """The title, then aligned columns."""
    return "\n".join([title, "", *aligned(headers, rows)])


def html_table(title: str, headers: tuple[str, ...], rows: Rows) -> str:
    """The same for notebooks."""
    return f"<p>{escape(title)}</p>{table(headers, rows)}"


def few(n: int) -> list[int]:
    """Places of the rows to show of ``n``, the first and the last among them."""
    if n <= LONGEST:
        return list(range(n))
    return [round(place * (n - 1) / (LONGEST - 1)) for place in range(LONGEST)]
