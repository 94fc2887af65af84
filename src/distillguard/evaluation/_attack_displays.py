"""Drawings of attacks at work: what they did step by step, and what they made."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._plot import canvas, drawn
from .._typing import Distance
from .._validation import check_at_least, check_choice
from ._traces import AttackTrace
from .report._numbers import units
from .report._pictures import scaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .report._report import Example, RobustnessReport


class AttackTraceDisplay:
    """What a pass buys: how attacks got on, question by question.

    Parameters
    ----------
    traces : mapping from str to AttackTrace
        By the name that each attack goes by.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    lines_ : list of matplotlib.lines.Line2D
        One curve for each attack, after :meth:`plot`.
    """

    def __init__(self, traces: Mapping[str, AttackTrace]) -> None:
        if not isinstance(traces, Mapping):
            raise TypeError(
                f"traces must be a mapping from names to AttackTrace objects, got {traces!r}"
            )
        if not traces:
            raise ValueError("traces must hold at least one AttackTrace, got none")
        for name, trace in traces.items():
            if not isinstance(trace, AttackTrace):
                raise TypeError(f"traces[{name!r}] must be an AttackTrace, got {trace!r}")
        self.traces = dict(traces)

    @classmethod
    def from_traces(
        cls,
        traces: Mapping[str, AttackTrace],
        *,
        quantity: str = "standing",
        ax: "Axes | None" = None,
    ) -> "AttackTraceDisplay":
        """Draw what attacks recorded.

        Parameters
        ----------
        traces : mapping from str to AttackTrace
            By the name that each attack goes by.
        quantity : {"standing", "cross_entropy", "margin", "distance"}, default="standing"
            What to draw; see :meth:`plot`.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        AttackTraceDisplay
            Drawn.

        Raises
        ------
        TypeError
            If ``traces`` is not a mapping to traces.
        ValueError
            If there is none, or ``quantity`` is unknown.
        MissingPackageError
            If matplotlib is not installed.
        """
        return cls(traces).plot(ax, quantity=quantity)

    def plot(self, ax: "Axes | None" = None, *, quantity: str = "standing") -> "AttackTraceDisplay":
        """Draw one curve for each attack.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.
        quantity : {"standing", "cross_entropy", "margin", "distance"}, default="standing"
            ``"standing"`` is the share of examples not fooled after each number of queries,
            with its 95 % interval. The others are medians over the examples, with the range
            of the middle half; an example that is asked about no more keeps its last value.

        Returns
        -------
        AttackTraceDisplay
            Itself.

        Raises
        ------
        ValueError
            If ``quantity`` is unknown.
        MissingPackageError
            If matplotlib is not installed.
        """
        first = next(iter(self.traces.values()))
        labels = {
            "standing": "examples that stand (%)",
            "cross_entropy": "cross-entropy (nats)",
            "margin": "margin of the best other class (logits)",
            "distance": f"distance from the input ({first.norm}, {units(first.norm)})",
        }
        check_choice("quantity", quantity, labels)
        self.figure_, self.ax_ = canvas(ax)
        self.lines_ = []
        for name, trace in self.traces.items():
            places, middle, low, high = curve(trace, quantity)
            stepped: dict[str, Any] = {"step": "post"} if quantity == "standing" else {}
            style = "steps-post" if stepped else "default"
            line = self.ax_.plot(places, middle, drawstyle=style, label=drawn(name))[0]
            self.ax_.fill_between(
                places, low, high, color=line.get_color(), alpha=0.2, linewidth=0, **stepped
            )
            self.lines_.append(line)
        self.ax_.set(xlabel="forward passes about each example", ylabel=labels[quantity])
        if quantity == "standing":
            self.ax_.set(xlim=(0, None), ylim=(0, 100))
        elif quantity == "margin":
            self.ax_.axhline(0, color="0.5", linewidth=1)
        self.ax_.legend()
        return self


def curve(trace: AttackTrace, quantity: str) -> tuple[np.ndarray, ...]:
    """Places, values and the ends of a band of what a trace recorded."""
    if quantity == "standing":
        low, high = 100 * trace.standing_interval.T
        return np.arange(len(low)), 100 * trace.standing, low, high
    values = held_on(getattr(trace, quantity))
    low, middle, high = (
        np.quantile(values, (0.25, 0.5, 0.75), axis=0)
        if len(values)
        else np.empty((3, values.shape[1]))
    )
    return np.arange(1, values.shape[1] + 1), middle, low, high


def held_on(values: np.ndarray) -> np.ndarray:
    """Rows (n, m) whose NaN at the end became the last number; rows of NaN alone are left out."""
    rows = values[~np.isnan(values).all(axis=1)]
    last = np.maximum.accumulate(np.where(np.isnan(rows), 0, np.arange(rows.shape[1])), axis=1)
    return np.take_along_axis(rows, last, axis=1)


class AdversarialExamplesDisplay:
    """Fooled images: the original, the adversarial example, and the difference, amplified.

    Parameters
    ----------
    examples : sequence of Example
        What to draw: images of shape (h, w), (1, h, w) or (3, h, w).
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}
        Norm of their distances.
    bounds : tuple, default=(0.0, 1.0)
        Lowest and highest value of a pixel: two numbers, or nested tuples of them.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`: one row for each example.
    factor_ : float
        By what the difference is multiplied, after :meth:`plot`, the same for all examples.
    """

    def __init__(
        self, examples: Any, *, norm: Distance, bounds: tuple[Any, Any] = (0.0, 1.0)
    ) -> None:
        self.examples: list[Example] = [
            example for example in examples if scaled(example.original, bounds) is not None
        ]
        if not self.examples:
            raise ValueError(
                "examples must hold images of shape (h, w), (1, h, w) or (3, h, w), got "
                f"{len(list(examples))} fooled examples and no image among them"
            )
        self.norm = norm
        self.bounds = bounds

    @classmethod
    def from_report(
        cls, report: "RobustnessReport", *, n_examples: int = 5, ax: "Axes | None" = None
    ) -> "AdversarialExamplesDisplay":
        """Draw fooled examples that a report kept.

        Parameters
        ----------
        report : RobustnessReport
            What :func:`~distillguard.evaluate` returned; JSON keeps no examples.
        n_examples : int, default=5
            How many at most.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        AdversarialExamplesDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the report keeps no fooled images, or ``n_examples`` is below 1.
        MissingPackageError
            If matplotlib is not installed.
        """
        check_at_least("n_examples", n_examples, 1)
        fooled = [each for each in report.examples if each.predicted != each.label]
        display = cls(fooled, norm=report.norm, bounds=report.bounds)
        display.examples = display.examples[:n_examples]
        return display.plot(ax)

    def plot(self, ax: "Axes | None" = None) -> "AdversarialExamplesDisplay":
        """Draw one row for each example.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        AdversarialExamplesDisplay
            Itself.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        rows = [self._pictures(example) for example in self.examples]
        self.factor_ = _one_digit(max(float(abs(after - before).max()) for before, after in rows))
        self.figure_, self.ax_ = canvas(ax, figsize=(7, 0.6 + 1.6 * len(rows)))
        for place, (before, after) in enumerate(rows):
            difference = (0.5 + self.factor_ * (after - before)).clip(0, 1)
            for column, picture in enumerate((before, after, difference)):
                self.ax_.imshow(
                    np.broadcast_to(picture, (*picture.shape[:2], 3)),
                    extent=(column + 0.03, column + 0.97, place + 0.97, place + 0.03),
                    interpolation="nearest",
                )
        names = ["original", "adversarial", f"difference × {self.factor_:g}\n(grey: none)"]
        self.ax_.set_xticks([0.5, 1.5, 2.5], names)
        self.ax_.set_yticks([place + 0.5 for place in range(len(rows))], self._captions())
        self.ax_.tick_params(length=0)
        self.ax_.spines[:].set_visible(False)
        self.ax_.set(
            xlim=(0, 3),
            ylim=(len(rows), 0),
            aspect="equal",
            xlabel="pixel values, from the lowest to the highest allowed",
            ylabel=f"fooled examples ({self.norm} distance, {units(self.norm)})",
        )
        return self

    def _captions(self) -> list[str]:
        return [
            f"“{drawn(example.label, 24)}” taken for\n“{drawn(example.predicted, 24)}”\n"
            f"{drawn(example.attack, 24)}, {example.distance:.3g}"
            for example in self.examples
        ]

    def _pictures(self, example: "Example") -> tuple[np.ndarray, np.ndarray]:
        before, after = (
            scaled(values, self.bounds) for values in (example.original, example.adversarial)
        )
        assert before is not None
        assert after is not None
        return before.permute(1, 2, 0).numpy(), after.permute(1, 2, 0).numpy()


def _one_digit(largest: float) -> float:
    """The largest factor of one digit that keeps a difference within half of the range."""
    if not largest:
        return 1.0
    exact = 0.5 / largest
    power = 10.0 ** np.floor(np.log10(exact))
    return float(f"{max(1, np.floor(exact / power + 1e-4)) * power:.0e}")
