"""Tables for papers and spreadsheets: CSV, LaTeX, Markdown."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

from ..._files import write_atomically
from ._text import escaped

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    # After a line's end a bracket is an argument and a star a variant.
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    **{sign: f"\\{sign}" for sign in "{}$&#%_"},
}
_TO_ESCAPE = re.compile("|".join(map(re.escape, _SPECIAL)))


def to_csv(records: Sequence[dict[str, Any]]) -> str:
    """Comma-separated values (RFC 4180), None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def to_latex(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A ``tabular`` with the rules of booktabs: names to the left, figures to the right."""
    head, *body = [" & ".join(map(latex, row)) + r" \\" for row in (headers, *rows)]
    columns = "l" + "r" * (len(headers) - 1)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    lines = [begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end]
    return "\n".join(lines) + "\n"


def to_markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, names to the left, figures to the right."""
    head, *body = ["| " + " | ".join(map(escaped, row)) + " |" for row in (headers, *rows)]
    return "\n".join([head, "| --- |" + " ---: |" * (len(headers) - 1), *body]) + "\n"


def latex(text: str) -> str:
    """Text on one line that LaTeX shows as it is."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return _TO_ESCAPE.sub(lambda found: _SPECIAL[found[0]], " ".join(printable.split()))


def written(text: str, path: str | PathLike[str] | None) -> str:
    """The text, also written to a file, atomically, if there is a path."""
    if path is not None:
        write_atomically(path, text.encode())
    return text
