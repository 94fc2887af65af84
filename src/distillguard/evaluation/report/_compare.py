"""Several reports side by side."""

from typing import Any

from ._report import RobustnessReport
from ._text import escaped, interval, pad, percent

HEADERS = ("model", "threat model", "clean accuracy", "robust accuracy", "to quote", "findings")


class Comparison:
    """Reports side by side; printed as a table, with Markdown and HTML forms.

    Attributes
    ----------
    reports : mapping from str to RobustnessReport
        By the name that each goes by.
    """

    def __init__(self, reports: dict[str, RobustnessReport]) -> None:
        self.reports = reports

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's cells.

        Returns
        -------
        list of tuple of str
            One row per report, in the order given.
        """
        return [
            (
                name,
                f"{report.norm} {report.epsilon:.6g}, {report.n_examples} examples",
                f"{percent(report.clean_accuracy)} {interval(report.clean_interval)}",
                f"{percent(report.robust_accuracy)} {interval(report.robust_interval)}",
                f"{percent(report.quoted_accuracy)} {interval(report.quoted_interval)}",
                ", ".join(finding.code for finding in report.findings) or "none",
            )
            for name, report in self.reports.items()
        ]

    def __str__(self) -> str:
        table = [HEADERS, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(pad(row, widths)).rstrip() for row in table]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def to_markdown(self) -> str:
        """Return the table as Markdown.

        Returns
        -------
        str
            A table with one row per report.
        """
        rows = [HEADERS, *self.rows()]
        lines = ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]
        lines.insert(1, "| --- |" + " ---: |" * (len(HEADERS) - 1))
        return "\n".join(lines) + "\n"

    def _repr_html_(self) -> str:
        from ._html import table

        return table(HEADERS, self.rows())


def compare(*reports: RobustnessReport, **named: RobustnessReport) -> Comparison:
    """Put reports side by side, with their intervals.

    Parameters
    ----------
    *reports : RobustnessReport
        Called by their models' names, with a number where two would share one.
    **named : RobustnessReport
        Called by the keyword.

    Returns
    -------
    Comparison
        Print it, or ask for :meth:`Comparison.to_markdown`.

    Raises
    ------
    TypeError
        If something else than a report is given.
    ValueError
        If there is none.

    Examples
    --------
    >>> import torch
    >>> from distillguard import evaluate
    >>> from distillguard.evaluation import compare
    >>> model, inputs = torch.nn.Linear(2, 2), torch.rand(8, 2)
    >>> labels = model(inputs).argmax(dim=1)
    >>> report = evaluate(model, inputs, labels, epsilon=0.1, attacks="quick")
    >>> [name for name, *_ in compare(report, report, third=report).rows()]
    ['Linear', 'Linear 2', 'third']
    """
    chosen: dict[str, Any] = {}
    for report in reports:
        name = getattr(report, "model", "")
        number = sum(known.rpartition(" ")[0] == name or known == name for known in chosen)
        chosen[f"{name} {number + 1}" if number else name] = report
    chosen.update(named)
    if not chosen:
        raise ValueError("compare must get at least one report, got none")
    for report in chosen.values():
        if not isinstance(report, RobustnessReport):
            raise TypeError(
                f"compare must get RobustnessReport objects, got {type(report).__name__}"
            )
    return Comparison(chosen)
