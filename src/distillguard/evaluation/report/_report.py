"""The report: plain data, and ways to read it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..._json import json_from
from ..._typing import Norm
from .._records import Cost
from .._statistics import wilson
from ..diagnosis._findings import Finding
from ..diagnosis._observations import Observations
from ._rows import AttackRow, ClassRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Example:
    """A fooled example, kept to be looked at.

    Attributes
    ----------
    original : Tensor of shape (...)
        The clean input.
    adversarial : Tensor of shape (...)
        What the attack made of it.
    label : str
        The true class.
    predicted : str
        The class that the model sees in ``adversarial``.
    attack : str
        Name of the attack.
    distance : float
        Distance between the two, in the threat model's norm.
    """

    original: Tensor
    adversarial: Tensor
    label: str
    predicted: str
    attack: str
    distance: float


@dataclass(frozen=True)
class RobustnessReport:
    """What :func:`evaluate` found out about a model.

    ``print(report)`` gives a table with its findings; notebooks show it as HTML.

    Attributes
    ----------
    model : str
        What was evaluated.
    norm, epsilon, bounds, mask
        The threat model. Bounds are two numbers or two nested tuples of them, the mask None or
        nested tuples of bool, with a first axis of 1 or n.
    n_examples : int
        Examples evaluated.
    clean_accuracy : float
        Share classified correctly, in [0, 1].
    clean_interval : (float, float)
        Its 95 % Wilson interval.
    robust_accuracy : float
        Share classified correctly that no attack fools within the threat model: the worst case
        over the attacks passed, example by example. Clean errors count as errors.
    robust_interval : (float, float)
        Its 95 % Wilson interval.
    attacks : tuple of AttackRow
        One row per attack, in the order in which they ran.
    survivors_only : bool
        Whether each attack ran only on examples that the earlier ones had not fooled.
    findings : tuple of Finding
        What a reader of the figures must know, severe ones first.
    observations : Observations
        The measurements behind the findings.
    costs : mapping from str to Cost
        What the clean pass, the judging of returned points and the diagnosis spent in all, as
        :class:`~distillguard.evaluation.Cost`.
    random_state : int
        The seed; with it, the same data, versions and ``chunk_size`` the evaluation can be
        repeated, as long as attacks that are not of this package draw from PyTorch's global
        generators.
    versions : mapping from str to str
        Of distillguard, Python and PyTorch.
    date : str
        When the evaluation ended: ISO 8601, in UTC, to the second. Reports are compared
        without it.
    classes : tuple of ClassRow
        Examples, correct ones and robust ones of each class that has examples.
    title, dataset : str or None
        What people call the report and the examples.
    class_names : tuple of str or None
        What people call the classes, in the order of the logits.
    examples : tuple of Example
        A few fooled examples to look at; not part of the JSON.
    """

    model: str
    norm: Norm
    epsilon: float
    bounds: tuple[Any, Any]
    mask: tuple[Any, ...] | None
    n_examples: int
    clean_accuracy: float
    clean_interval: tuple[float, float]
    robust_accuracy: float
    robust_interval: tuple[float, float]
    attacks: tuple[AttackRow, ...]
    survivors_only: bool
    findings: tuple[Finding, ...]
    observations: Observations
    costs: Mapping[str, Cost]
    random_state: int
    versions: Mapping[str, str]
    date: str = field(compare=False)
    classes: tuple[ClassRow, ...]
    title: str | None = None
    dataset: str | None = None
    class_names: tuple[str, ...] | None = None
    examples: tuple[Example, ...] = field(default=(), repr=False, compare=False)

    @property
    def n_robust(self) -> int:
        """How many examples are classified correctly and withstand every attack passed."""
        return round(self.robust_accuracy * self.n_examples)

    @property
    def quoted_accuracy(self) -> float:
        """The robust accuracy to quote: a count that takes what the diagnosis fooled besides.

        Whatever anything fooled within the threat model is fooled: the attacks passed, or an
        attack of the diagnosis, which holds a point for each. The diagnosis looks at a sample;
        what it would have fooled of the others is not guessed, so that this stays an upper bound.
        Without a diagnosis it is ``robust_accuracy``.
        """
        return self._n_quoted / self.n_examples

    @property
    def quoted_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of ``quoted_accuracy``."""
        return wilson(self._n_quoted, self.n_examples)

    @property
    def _n_quoted(self) -> int:
        return self.n_robust - self.observations.n_fooled_by_diagnosis

    @property
    def headline(self) -> str:
        """The result in one line.

        It names the figure to quote, and starts with a warning where another one is at hand: the
        attacks passed left more examples than the diagnosis did, or failed for a reason other
        than robustness. Every figure in it stands in the table.
        """
        from ._text import headline

        return headline(self)

    def __str__(self) -> str:
        from ._text import to_text

        return to_text(self)

    def to_markdown(self) -> str:
        """Return the report as Markdown.

        Returns
        -------
        str
            Headline, table of attacks, findings.
        """
        from ._text import to_markdown

        return to_markdown(self)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return the report as JSON, and write it to a file if asked to.

        Parameters
        ----------
        path : path-like, optional
            Where to write it.

        Returns
        -------
        str
            An object with one entry per attribute, without the examples.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | PathLike[str]) -> "RobustnessReport":
        """Read a report back.

        Parameters
        ----------
        source : str or path-like
            What :meth:`to_json` returned, or the path of a file that it wrote.

        Returns
        -------
        RobustnessReport
            Equal to the one that was written; without the examples.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not a report, or one whose figures contradict each other.
        """
        from ._consistency import check_consistent
        from ._schema import parts_from

        inline = isinstance(source, str) and ("{" in source or "\n" in source)
        content = str(source) if inline else Path(source).read_bytes()
        try:
            read = json_from(content if isinstance(content, str) else content.decode())
            report = cls(**parts_from(read))
            check_consistent(report, read)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"source must be a report written by to_json, got {error}") from error
        return report

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as plain Python objects.

        Returns
        -------
        dict
            Numbers, strings, lists and dicts only.
        """
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del parts["examples"]
        parts["schema_version"] = 1
        parts["headline"] = self.headline
        parts["quoted_accuracy"] = self.quoted_accuracy
        parts["quoted_interval"] = self.quoted_interval
        return {name: _plain(part) for name, part in parts.items()}

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """Return the report as one HTML page, and write it to a file if asked to.

        Parameters
        ----------
        path : path-like, optional
            Where to write it.

        Returns
        -------
        str
            A page that needs nothing else: styles and images are inside.
        """
        from ._html import to_html

        text = to_html(self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _repr_html_(self) -> str:
        from ._html import to_fragment

        return to_fragment(self)

    def plot(self) -> "Figure":
        """Draw the accuracy left by each attack.

        Returns
        -------
        matplotlib.figure.Figure
            Bars with 95 % intervals, clean accuracy first.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        from ._plot import accuracy_bars

        return accuracy_bars(self)


def _plain(part: Any) -> Any:
    if hasattr(part, "__dataclass_fields__"):
        return _plain(asdict(part))
    if isinstance(part, Mapping):
        return {key: _plain(entry) for key, entry in part.items()}
    if isinstance(part, tuple | list):
        return [_plain(entry) for entry in part]
    return part
