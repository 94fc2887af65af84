"""The report: plain data, and ways to read it."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..._files import write_atomically
from ..._frames import data_frame
from ..._json import json_from
from ..._typing import Distance
from .._records import Cost
from .._statistics import wilson
from ..diagnosis._findings import Finding
from ..diagnosis._observations import Observations
from ..diagnosis._rules import findings
from ._adaptation import Adaptation
from ._per_example import PerExample
from ._rejection import Rejection
from ._rows import AttackRow, ClassRow, attack_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Example:
    """An example, kept with what an attack made of it.

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
        Name of the attack; empty where none came to this example.
    distance : float
        Distance between the two, in the threat model's norm.
    index : int
        The example's place in the data.
    """

    original: Tensor
    adversarial: Tensor
    label: str
    predicted: str
    attack: str
    distance: float
    index: int


@dataclass(frozen=True)
class RobustnessReport:
    """The result of :func:`evaluate`.

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
    per_example : PerExample
        What became of each example: label, prediction, margin, the attack that fooled it.
    costs : mapping from str to Cost
        Passes and seconds of the clean pass, the judging of returned points, the diagnosis and
        other parts, each a :class:`~distillguard.evaluation.Cost`.
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
        Title of the report and name of the data set.
    class_names : tuple of str or None
        Names of the classes, in the order of the logits.
    examples : tuple of Example
        The examples selected by ``keep_examples``: by default a few fooled ones in random order,
        otherwise in the order of the data. Not part of the JSON.
    adaptation : Adaptation or None
        Results of the attacks adapted to the findings; None if there were none.
    rejection : Rejection or None
        How many clean and how many attacked examples the model refused to classify; None for a
        model that never refuses.
    """

    model: str
    norm: Distance
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
    per_example: PerExample = field(repr=False)
    costs: Mapping[str, Cost]
    random_state: int
    versions: Mapping[str, str]
    date: str = field(compare=False)
    classes: tuple[ClassRow, ...]
    title: str | None = None
    dataset: str | None = None
    class_names: tuple[str, ...] | None = None
    examples: tuple[Example, ...] = field(default=(), repr=False, compare=False)
    adaptation: Adaptation | None = None
    rejection: Rejection | None = None

    @property
    def adversarial(self) -> Tensor:
        """The points of ``examples``, shape (m, ...), copied into one tensor."""
        points = [example.adversarial for example in self.examples]
        return torch.stack(points) if points else torch.empty(0, device="cpu")

    @property
    def n_robust(self) -> int:
        """How many examples are classified correctly and withstand every attack passed."""
        return round(self.robust_accuracy * self.n_examples)

    @property
    def quoted_accuracy(self) -> float:
        """The robust accuracy to quote, after everything that was tried.

        An example counts as fooled if anything fooled it within the threat model: an attack
        passed, an attack of the diagnosis, or one adapted to what it found. The diagnosis uses a
        sample; its successes are not extrapolated to the others, so this stays an upper bound.
        Without a diagnosis it is ``robust_accuracy``.
        """
        return self._n_quoted / self.n_examples

    @property
    def quoted_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of ``quoted_accuracy``."""
        return wilson(self._n_quoted, self.n_examples)

    @property
    def _n_quoted(self) -> int:
        return self.n_robust - self.n_fooled_besides

    @property
    def n_fooled_besides(self) -> int:
        """How many examples only the diagnosis or adapted attacks fooled."""
        adapted = self.adaptation.fooled if self.adaptation else 0
        return self.observations.n_fooled_by_diagnosis + adapted

    @property
    def headline(self) -> str:
        """The result in one line.

        It names the figure to quote, and starts with a warning if a wrong one might be quoted
        instead: the diagnosis fooled examples that the attacks passed had left, or those failed
        for a reason other than robustness. Every figure in it also appears in the table.
        """
        from ._sentences import headline

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
            Where to write it; an existing file is replaced atomically.

        Returns
        -------
        str
            An object with one entry per attribute, without the examples.
        """
        text = _laid_out(json.dumps(self.to_dict(), indent=2, allow_nan=False))
        if path is not None:
            write_atomically(path, f"{text}\n".encode())
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
        from ._consistency import as_counted, check_consistent
        from ._schema import parts_from

        inline = isinstance(source, str) and ("{" in source or "\n" in source)
        content = str(source) if inline else Path(source).read_bytes()
        try:
            read = json_from(content if isinstance(content, str) else content.decode())
            report = cls(**parts_from(read))
            check_consistent(report, read)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"source must be a report written by to_json, got {error}") from error
        return as_counted(report)

    def rejudged(self) -> "RobustnessReport":
        """Return the report with the findings that the current rules draw from its observations.

        A saved report holds the findings of the version that wrote it. Nothing is attacked or
        measured again, so a rule about something that version did not measure finds nothing.

        Returns
        -------
        RobustnessReport
            The same figures, possibly with other findings.
        """
        return replace(self, findings=findings(self.observations))

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as plain Python objects.

        Returns
        -------
        dict
            Numbers, strings, lists and dicts only.
        """
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del parts["examples"]
        parts["per_example"] = self.per_example.to_dict()
        parts["schema_version"] = 1
        parts["headline"] = self.headline
        parts["quoted_accuracy"] = self.quoted_accuracy
        parts["quoted_interval"] = self.quoted_interval
        return {name: _plain(part) for name, part in parts.items()}

    def to_frame(self) -> "DataFrame":
        """Return the table of attacks as a DataFrame.

        Returns
        -------
        pandas.DataFrame
            One row per attack, one column per attribute of
            :class:`~distillguard.evaluation.AttackRow`; the interval becomes two columns.

        Raises
        ------
        MissingPackageError
            If pandas is not installed.
        """
        numbers = ("success_rate", "median_distance", "forwards", "backwards")
        return data_frame(attack_records(self.attacks), numbers)

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Return the table of attacks as comma-separated values, and write it if asked to.

        Parameters
        ----------
        path : path-like, optional
            Where to write it; an existing file is replaced atomically.

        Returns
        -------
        str
            The columns of :meth:`to_frame`; None becomes an empty cell.
        """
        from ._export import to_csv, written

        return written(to_csv(attack_records(self.attacks)), path)

    def to_latex(self, path: str | PathLike[str] | None = None) -> str:
        r"""Return the table of attacks for LaTeX, and write it to a file if asked to.

        Parameters
        ----------
        path : path-like, optional
            Where to write it; an existing file is replaced atomically.

        Returns
        -------
        str
            A ``tabular`` that needs ``\usepackage{booktabs}``, with the worst case, adapted attacks
            and the figure to quote below the attacks.
        """
        from ._export import to_latex, written
        from ._table import HEADERS, adapted_rows, sections

        parts = sections(self)
        quoted = parts[-1][1] if self.observations.diagnosed else []
        adapted = adapted_rows(self)
        return written(to_latex(HEADERS, [*parts[0][1], *adapted, *quoted]), path)

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """Return the report as one HTML page, and write it to a file if asked to.

        Parameters
        ----------
        path : path-like, optional
            Where to write it; an existing file is replaced atomically.

        Returns
        -------
        str
            A self-contained page, styles and images included.
        """
        from ._html import to_html

        text = to_html(self)
        if path is not None:
            write_atomically(path, text.encode())
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


_INNERMOST = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")


def _laid_out(text: str) -> str:
    """Indented JSON with each innermost list on one line: the columns of many examples.

    No line ends within a string of JSON, so that what stands before one is structure.
    """
    return _INNERMOST.sub(lambda found: "[" + re.sub(r"\n\s+", " ", found[1]) + "]", text)


def _plain(part: Any) -> Any:
    if hasattr(part, "__dataclass_fields__"):
        return _plain(asdict(part))
    if isinstance(part, Mapping):
        return {key: _plain(entry) for key, entry in part.items()}
    if isinstance(part, tuple | list):
        return [_plain(entry) for entry in part]
    return part
