"""Two reports on the same examples, compared example by example."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..._validation import check_choice
from .._statistics import paired_interval, paired_p_value
from .._tables import html_table, paragraph, shown
from ._report import RobustnessReport


@dataclass(frozen=True)
class PairedDifference:
    """Two accuracies on the same examples; printed as a sentence.

    Attributes
    ----------
    both : int
        Examples that both networks classify correctly, under attack if ``accuracy`` is robust.
    only_first, only_second : int
        Examples that only one of them does.
    neither : int
        The others.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n_examples(self) -> int:
        """Examples compared."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second, in [-1, 1]."""
        return (self.only_first - self.only_second) / self.n_examples

    @property
    def interval(self) -> tuple[float, float]:
        """The difference's 95 % interval for paired shares (Newcombe 1998, method 10)."""
        return paired_interval(self.both, self.only_first, self.only_second, self.neither)

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely chance alone makes so uneven a split."""
        return paired_p_value(self.only_first, self.only_second)

    def __str__(self) -> str:
        middle, low, high = (100 * part for part in (self.difference, *self.interval))
        return (
            f"difference {middle:z.1f} points [{low:z.1f}, {high:z.1f}], "
            f"p = {self.p_value:.2g} (McNemar's exact test); of {self.n_examples} examples "
            f"{self.only_first} are right only with the first and {self.only_second} only with the "
            "second"
        )

    def _repr_html_(self) -> str:
        headers = ("examples", "second right", "second wrong")
        rows = [
            ("first right", str(self.both), str(self.only_first)),
            ("first wrong", str(self.only_second), str(self.neither)),
        ]
        return shown(paragraph(str(self)), html_table(headers, rows))


def paired_difference(
    first: RobustnessReport,
    second: RobustnessReport,
    *,
    accuracy: Literal["robust", "clean"] = "robust",
) -> PairedDifference:
    """Compare two reports on the same examples, with a test and an interval of the difference.

    Examples that are hard or easy for both networks cancel out, so this detects smaller differences
    than two separate intervals do.

    Parameters
    ----------
    first : RobustnessReport
        One report.
    second : RobustnessReport
        The other, on the same examples in the same order, within the same threat model.
    accuracy : {"robust", "clean"}, default="robust"
        Which accuracy: after every attack passed, or without an attack, for which threat models
        may differ.

    Returns
    -------
    PairedDifference
        Counts, with the difference, its 95 % interval [1]_ and the p-value of McNemar's exact
        test.

    Raises
    ------
    TypeError
        If an argument is not a report.
    ValueError
        If examples or threat models differ, or ``accuracy`` is neither.

    References
    ----------
    .. [1] R. G. Newcombe, "Improved Confidence Intervals for the Difference Between Binomial
       Proportions Based on Paired Data", Statistics in Medicine 17, 1998, 2635-2650, method 10.

    Examples
    --------
    >>> import torch
    >>> from distillguard import evaluate
    >>> from distillguard.evaluation import paired_difference
    >>> X, y = torch.rand(40, 2), torch.arange(40) % 2
    >>> models = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> first, second = (evaluate(m, X, y, epsilon=0.1, attacks="quick") for m in models)
    >>> found = paired_difference(first, second)
    >>> apart = first.robust_accuracy - second.robust_accuracy
    >>> found.n_examples, abs(found.difference - apart) < 1e-9
    (40, True)
    """
    check_choice("accuracy", accuracy, ("robust", "clean"))
    for name, report in (("first", first), ("second", second)):
        if not isinstance(report, RobustnessReport):
            raise TypeError(f"{name} must be a RobustnessReport, got {type(report).__name__}")
    check_same_examples("second must be of the examples of first", first, second)
    if accuracy == "robust":
        check_same_threat_model("second must have the threat model of first", first, second)
    column = {"robust": "robust", "clean": "correct"}[accuracy]
    one, other = (getattr(report.per_example, column) for report in (first, second))
    return PairedDifference(
        *(int(held.sum()) for held in (one & other, one & ~other, ~one & other, ~one & ~other))
    )


def check_same_examples(rule: str, first: RobustnessReport, second: RobustnessReport) -> None:
    """Whether two reports are of the same examples, as far as places and labels tell."""
    one, other = first.per_example, second.per_example
    if len(one) != len(other):
        raise ValueError(f"{rule}, got {len(other)} rather than {len(one)}")
    same = (one.index == other.index) & (one.label.astype(str) == other.label.astype(str))
    if not same.all():
        place = int(np.flatnonzero(~same)[0])
        raise ValueError(
            f"{rule}, got label {str(other.label[place])!r} of example {other.index[place]} "
            f"rather than {str(one.label[place])!r} of example {one.index[place]}"
        )


def check_same_threat_model(rule: str, first: RobustnessReport, second: RobustnessReport) -> None:
    """Whether two reports are about the same threat model."""
    for name in ("norm", "epsilon", "bounds", "mask"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise ValueError(f"{rule}, got {name} {_brief(other)} rather than {_brief(one)}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
