"""Several reports side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._frames import data_frame
from .._tables import html_table, paragraph, shown
from ._export import to_csv, to_latex, to_markdown, written
from ._numbers import Interval, interval, percent
from ._paired import PairedDifference, check_same_threat_model, paired_difference
from ._report import RobustnessReport
from ._table import TO_QUOTE, WORST_CASE, aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from .._displays import ComparisonDisplay

HEADERS = ("model", "threat model", "clean accuracy", "robust accuracy", "to quote", "findings")


class Shares(NamedTuple):
    """One accuracy of one network, in each of its reports that has it."""

    values: tuple[float, ...]
    interval: Interval | None
    """95 % Wilson interval, of one report alone."""

    @property
    def std(self) -> float | None:
        """Standard deviation over several reports, with n - 1 in the denominator."""
        return stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if not self.values:
            return ""
        mean = percent(fmean(self.values))
        if self.std is None:
            return f"{mean} {interval(self.interval)}" if self.interval else mean
        low, high = (100 * end for end in (min(self.values), max(self.values)))
        return f"{mean} ± {100 * self.std:.1f} ({low:.1f} to {high:.1f})"


Key = tuple[str, str]
"""Kind and name of a figure."""

CLEAN, WORST, QUOTED = ("clean", "clean"), ("worst case", WORST_CASE), ("to quote", TO_QUOTE)


class Comparison:
    """Reports side by side: the networks, and the attacks by networks.

    Printed as two tables; :meth:`to_markdown`, :meth:`to_latex`, :meth:`to_csv` and
    :meth:`to_frame` give other forms. If a network has several reports, one for each seed for
    example, tables show their mean, standard deviation, lowest and highest value.

    Attributes
    ----------
    reports : mapping from str to tuple of RobustnessReport
        By the name that each network goes by.
    """

    def __init__(self, reports: Mapping[str, tuple[RobustnessReport, ...]]) -> None:
        self.reports = reports

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the table of networks.

        Returns
        -------
        list of tuple of str
            One row per network, in the order given.
        """
        return [
            (
                _flat(name),
                _conditions(reports),
                *(str(_shares(reports, key)) for key in (CLEAN, WORST, QUOTED)),
                _codes(reports),
            )
            for name, reports in self.reports.items()
        ]

    def attack_rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the table of attacks by networks.

        Returns
        -------
        list of tuple of str
            Clean accuracy, the accuracy left by each attack, the worst case and the figure to
            quote; the name first, then one cell per network, empty where an attack did not run
            to its end.
        """
        return [
            (_flat(key[1]), *(str(_shares(reports, key)) for reports in self.reports.values()))
            for key in self._keys()
        ]

    def conditions(self) -> dict[str, str]:
        """Return the threat model and the number of examples and reports of each network.

        Returns
        -------
        dict from str to str
            By the network's name, such as ``"linf 0.1, 1000 examples, 3 reports"``.
        """
        return {name: _conditions(reports) for name, reports in self.reports.items()}

    def plot(self, ax: "Axes | None" = None) -> "ComparisonDisplay":
        """Draw the table of attacks by networks as a heat map.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        ComparisonDisplay
            Drawn.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        from .._displays import ComparisonDisplay

        return ComparisonDisplay(self).plot(ax)

    def paired(self, first: str, second: str) -> tuple[PairedDifference, ...]:
        """Compare two of the networks example by example.

        Parameters
        ----------
        first : str
            Name of a network.
        second : str
            Name of another with as many reports.

        Returns
        -------
        tuple of PairedDifference
            Of the first reports of both, of the second ones, and so on; robust accuracies.

        Raises
        ------
        ValueError
            If there is no network of a name, or the reports cannot be paired.
        """
        for argument, name in (("first", first), ("second", second)):
            if name not in self.reports:
                known = ", ".join(map(repr, self.reports))
                raise ValueError(f"{argument} must be one of {known}, got {name!r}")
        one, other = self.reports[first], self.reports[second]
        if len(one) != len(other):
            raise ValueError(
                f"second must have as many reports as first, {len(one)}, got {len(other)}"
            )
        return tuple(map(paired_difference, one, other))

    def records(self) -> list[dict[str, Any]]:
        """Return every figure of the table of attacks by networks as numbers.

        Returns
        -------
        list of dict
            One per network and accuracy: ``model``; ``kind`` ("clean", "attack", "worst case"
            or "to quote"); ``name`` of the attack; ``n_reports`` behind it; ``accuracy``, their
            mean; ``std``, ``min`` and ``max``; ``low`` and ``high``, the 95 % interval of one
            report alone. None where there is none.
        """
        return [
            {"model": name, "kind": key[0], "name": key[1], **_figures(_shares(reports, key))}
            for name, reports in self.reports.items()
            for key in self._keys()
        ]

    def to_frame(self) -> "DataFrame":
        """Return :meth:`records` as a table of pandas.

        Returns
        -------
        pandas.DataFrame
            ``frame.pivot(index="name", columns="model", values="accuracy")`` is the table of
            attacks by networks.

        Raises
        ------
        MissingPackageError
            If pandas is not installed.
        """
        return data_frame(self.records(), ("accuracy", "std", "min", "max", "low", "high"))

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Return :meth:`records` as comma-separated values, and write them to a file if asked to.

        Parameters
        ----------
        path : path-like, optional
            Where to write them.

        Returns
        -------
        str
            A line of names, then one per record; None becomes an empty cell.
        """
        return written(to_csv(self.records()), path)

    def to_latex(self, path: str | PathLike[str] | None = None) -> str:
        r"""Return the table of attacks by networks for LaTeX, and write it to a file if asked to.

        Parameters
        ----------
        path : path-like, optional
            Where to write it.

        Returns
        -------
        str
            A ``tabular`` that needs ``\usepackage{booktabs}``.
        """
        return written(to_latex(("attack", *self.reports), self.attack_rows()), path)

    def to_markdown(self) -> str:
        """Return the tables as Markdown.

        Returns
        -------
        str
            One row per network; then one row per attack and a line on how the attacks ran.
        """
        from ._text import escaped

        networks = to_markdown(HEADERS, self.rows())
        attacks = to_markdown(("attack", *self.reports), self.attack_rows())
        return f"{networks}\n{attacks}\n{escaped(self._note())}\n"

    def __str__(self) -> str:
        attacks = aligned(("attack", *self.reports), self.attack_rows())
        return "\n".join([*aligned(HEADERS, self.rows()), "", *attacks, "", self._note()])

    def _repr_html_(self) -> str:
        attacks = html_table(("attack", *self.reports), self.attack_rows())
        return shown(html_table(HEADERS, self.rows()), attacks, paragraph(self._note()))

    def _keys(self) -> list[Key]:
        names = {
            ("attack", row.name): None
            for reports in self.reports.values()
            for report in reports
            for row in report.attacks
        }
        return [CLEAN, *names, WORST, QUOTED]

    def _note(self) -> str:
        every = [report for reports in self.reports.values() for report in reports]
        several = any(len(reports) > 1 for reports in self.reports.values())
        spread = (
            "Of several reports: mean ± standard deviation (lowest to highest)." if several else ""
        )
        alone = {report.survivors_only for report in every}
        if alone == {True}:
            ran = (
                "Each attack ran on the examples that the earlier ones had left; its row shows "
                "what is left after all of these."
            )
        elif alone == {False}:
            ran = "Each attack ran on all examples classified correctly."
        else:
            ran = (
                "In some reports each attack ran on all examples, in others on those that the "
                "earlier ones had left: compare their worst cases, not their rows."
            )
        return f"{ran} {spread}".strip()


def _flat(name: str) -> str:
    return " ".join(name.split())


def _conditions(reports: tuple[RobustnessReport, ...]) -> str:
    first = reports[0]
    several = f", {len(reports)} reports" if len(reports) > 1 else ""
    sizes = " to ".join(map(str, sorted({f(r.n_examples for r in reports) for f in (min, max)})))
    return f"{first.norm} {first.epsilon:.6g}, {sizes} examples{several}"


def _codes(reports: tuple[RobustnessReport, ...]) -> str:
    """Findings, with the number of reports that have each where not all do."""
    codes = Counter(code for report in reports for code in {f.code: 0 for f in report.findings})
    return (
        ", ".join(
            code if count == len(reports) else f"{code} ({count} of {len(reports)})"
            for code, count in codes.items()
        )
        or "none"
    )


def _accuracies(report: RobustnessReport) -> dict[Key, tuple[float, Interval]]:
    found: dict[Key, tuple[float, Interval]] = {
        ("attack", row.name): (row.robust_accuracy, row.robust_interval)
        for row in report.attacks
        if row.error is None
    }
    found[CLEAN] = report.clean_accuracy, report.clean_interval
    found[WORST] = report.robust_accuracy, report.robust_interval
    found[QUOTED] = report.quoted_accuracy, report.quoted_interval
    return found


def _shares(reports: tuple[RobustnessReport, ...], key: Key) -> Shares:
    found = [accuracies[key] for r in reports if key in (accuracies := _accuracies(r))]
    ends = found[0][1] if len(found) == len(reports) == 1 else None
    return Shares(tuple(value for value, _ in found), ends)


def _figures(shares: Shares) -> dict[str, Any]:
    values, (low, high) = shares.values, shares.interval or (None, None)
    return {
        "n_reports": len(values),
        "accuracy": fmean(values) if values else None,
        "std": shares.std,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "low": low,
        "high": high,
    }


def compare(*reports: Any, **named: Any) -> Comparison:
    """Put reports side by side: networks, attacks by networks, seeds of one network together.

    Parameters
    ----------
    *reports : RobustnessReport or mapping
        Reports, named after their models, with a number if two share a name; or a mapping from
        names to what ``named`` takes.
    **named : RobustnessReport or sequence of RobustnessReport
        Named by the keyword; several reports of one network, one for each seed for example, share
        a column.

    Returns
    -------
    Comparison
        Print it, or ask for :meth:`Comparison.to_latex` or :meth:`Comparison.to_frame`.

    Raises
    ------
    TypeError
        If an argument is not a report.
    ValueError
        If there is none, a name is given twice, or the reports of one network are of different
        threat models.

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
    >>> together = compare({"plain": [report, report, report]})
    >>> together.records()[0]["n_reports"], together.records()[0]["std"]
    (3, 0.0)
    """
    chosen: dict[str, Any] = {}
    for given in (*reports, named):
        if not isinstance(given, Mapping):
            given = {_numbered(getattr(given, "model", ""), chosen): given}
        for name, held in given.items():
            if str(name) in chosen:
                raise ValueError(f"compare must get each name once, got {str(name)!r} twice")
            chosen[str(name)] = _several(str(name), held)
    if not chosen:
        raise ValueError("compare must get at least one report, got none")
    return Comparison(chosen)


def _numbered(name: str, known: Mapping[str, Any]) -> str:
    number = sum(each.rpartition(" ")[0] == name or each == name for each in known)
    return f"{name} {number + 1}" if number else name


def _several(name: str, given: Any) -> tuple[RobustnessReport, ...]:
    """The reports of one network, one or more, all of one threat model."""
    several = isinstance(given, Sequence) and not isinstance(given, str)
    reports = tuple(given) if several else (given,)
    if not reports:
        raise ValueError(f"compare must get at least one report of {name!r}, got none")
    for report in reports:
        if not isinstance(report, RobustnessReport):
            raise TypeError(
                f"compare must get RobustnessReport objects, got {type(report).__name__}"
            )
        rule = f"reports of {name!r} must have one threat model"
        check_same_threat_model(rule, reports[0], report)
    return reports
