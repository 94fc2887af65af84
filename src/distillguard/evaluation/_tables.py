"""Small tables, for terminals and notebooks."""

from collections.abc import Sequence
from html import escape

from .report._table import aligned

Row = tuple[str, ...]
Rows = list[Row]

LONGEST = 12
"""Most rows of a printed table; of a longer one, this many evenly spaced ones are shown."""

# The colours are the notebook's own, light or dark as that is.
STYLE = """<style>
.dg-shown { overflow-x: auto; }
.dg-shown table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
.dg-shown th, .dg-shown td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
  color: inherit; background: none;
  border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
.dg-shown th, .dg-shown td:first-child { white-space: normal; max-width: 12rem;
  overflow-wrap: break-word; }
.dg-shown th:first-child, .dg-shown td:first-child { text-align: left; }
.dg-shown p { overflow-wrap: anywhere; }
</style>
"""


class Table:
    """What prints as a table, and is shown as one in notebooks; heirs say what stands in it."""

    @property
    def _title(self) -> str:
        raise NotImplementedError

    @property
    def _headers(self) -> Row:
        raise NotImplementedError

    @property
    def _rows(self) -> Rows:
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join([self._title, "", *aligned(self._headers, self._rows)])

    def _repr_html_(self) -> str:
        return shown(paragraph(self._title), html_table(self._headers, self._rows))


def shown(*parts: str) -> str:
    """Paragraphs and tables as a notebook shows them."""
    return f'{STYLE}<div class="dg-shown" tabindex="0">{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """Text that shows as it is."""
    return f"<p>{escape(text)}</p>"


def html_table(headers: Row, rows: Sequence[Row]) -> str:
    """A table whose cells show as they are."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def few(n: int) -> Sequence[int]:
    """Places of the rows to show of ``n``, the first and the last among them."""
    if n <= LONGEST:
        return range(n)
    return [round(place * (n - 1) / (LONGEST - 1)) for place in range(LONGEST)]
