"""Drawings in scikit-learn's manner: compute, then ``plot``; axes and artists stay accessible."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._plot import canvas, drawn
from .._typing import Distance
from ._curves import RobustnessCurve, robustness_curve
from ._histograms import Histogram
from .report._compare import Comparison
from .report._numbers import interval, percent, units

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class RobustnessCurveDisplay:
    """Accuracy against the radius, as a step curve.

    Parameters
    ----------
    curve : RobustnessCurve
        What to draw.
    name : str, optional
        Label of the curve.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    line_ : matplotlib.lines.Line2D
        The curve, after :meth:`plot`.
    band_ : matplotlib.collections.PolyCollection
        Its 95 % intervals, after :meth:`plot`.
    """

    def __init__(self, curve: RobustnessCurve, *, name: str | None = None) -> None:
        self.curve = curve
        self.name = name

    @classmethod
    def from_predictions(
        cls,
        radii: Any,
        *,
        norm: Distance,
        name: str | None = None,
        ax: "Axes | None" = None,
    ) -> "RobustnessCurveDisplay":
        """Draw from the radius at which each example falls.

        Parameters
        ----------
        radii : array of shape (n,)
            0 for an example that is misclassified anyway, infinity for one that never fell.
        norm : {"linf", "l2", "l1", "l0", "l0_pixels"}
            Norm of the radii.
        name : str, optional
            Label of the curve.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        RobustnessCurveDisplay
            Drawn.
        """
        curve = RobustnessCurve.from_radii(np.asarray(radii, dtype=np.float64), norm)
        return cls(curve, name=name).plot(ax)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        *,
        name: str | None = None,
        ax: "Axes | None" = None,
        **settings: Any,
    ) -> "RobustnessCurveDisplay":
        """Attack a model and draw what is left.

        Parameters
        ----------
        model : nn.Module, callable or fitted estimator
            What is attacked.
        X : Tensor or array of shape (n, ...), Dataset or DataLoader
            Clean examples.
        y : Tensor or array of shape (n,), optional
            True classes. Not with a Dataset or DataLoader.
        name : str, optional
            Label of the curve; the model's class if not given.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.
        **settings : dict
            Further arguments of :func:`robustness_curve`.

        Returns
        -------
        RobustnessCurveDisplay
            Drawn.
        """
        curve = robustness_curve(model, X, y, **settings)
        return cls(curve, name=name or type(model).__name__).plot(ax)

    def plot(self, ax: "Axes | None" = None, **line: Any) -> "RobustnessCurveDisplay":
        """Draw the curve with its 95 % intervals.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.
        **line : dict
            Passed on to :meth:`matplotlib.axes.Axes.step`.

        Returns
        -------
        RobustnessCurveDisplay
            Itself.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        self.figure_, self.ax_ = canvas(ax)
        self.line_ = self.ax_.step(
            self.curve.epsilons,
            100 * self.curve.robust_accuracy,
            where="post",
            label=None if self.name is None else drawn(self.name),
            **line,
        )[0]
        low, high = 100 * self.curve.robust_interval.T
        self.band_ = self.ax_.fill_between(
            self.curve.epsilons,
            low,
            high,
            step="post",
            color=self.line_.get_color(),
            alpha=0.2,
            linewidth=0,
        )
        self.ax_.set(
            xlabel=f"epsilon ({self.curve.norm}, {units(self.curve.norm)})",
            ylabel="robust accuracy (%)",
            ylim=(0, 100),
            xlim=(0, None),
        )
        if self.name is not None:
            self.ax_.legend()
        return self


class HistogramDisplay:
    """Examples by bins, as bars of equal width.

    Parameters
    ----------
    histogram : Histogram
        What to draw.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    """

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram

    def plot(self, ax: "Axes | None" = None) -> "HistogramDisplay":
        """Draw the bars with the 95 % intervals of their shares.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        HistogramDisplay
            Itself.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        self.figure_, self.ax_ = canvas(ax)
        shown = self.histogram
        places = np.arange(len(shown.counts))
        ends = shown.intervals * shown.n_examples
        error = np.stack([shown.counts - ends[:, 0], ends[:, 1] - shown.counts])
        self.ax_.bar(places + 0.5, shown.counts, width=0.9, yerr=error, capsize=2)
        labels = [f"{edge:g}" for edge in shown.edges]
        self.ax_.set_xticks([*places, len(places)], labels, rotation=60)
        self.ax_.set(xlabel=shown.quantity, ylabel=f"examples (of {shown.n_examples})")
        return self


class TransferMatrixDisplay:
    """Which model's adversarial examples fool which.

    Parameters
    ----------
    matrix : TransferMatrix or array of shape (m, m)
        What :func:`transfer_matrix` returned, or shares in [0, 1].
    names : sequence of str, optional
        Names of the models, in its order; those of a ``TransferMatrix`` if not given.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    """

    def __init__(self, matrix: Any, names: Sequence[str] | None = None) -> None:
        self.matrix = np.asarray(matrix)
        known = names if names is not None else getattr(matrix, "names", None)
        self.names = [str(name) for name in known or range(len(self.matrix))]

    def plot(self, ax: "Axes | None" = None) -> "TransferMatrixDisplay":
        """Draw the matrix with its percentages.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        TransferMatrixDisplay
            Itself.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        self.figure_, self.ax_ = canvas(ax)
        texts = [
            ["none" if np.isnan(value) else f"{100 * value:.0f} %" for value in row]
            for row in self.matrix
        ]
        names = [drawn(name) for name in self.names]
        heat_map(self.figure_, self.ax_, self.matrix, texts, names, names, "misclassified (%)")
        self.ax_.set(xlabel="tried on (model)", ylabel="made on (model)")
        return self


class ComparisonDisplay:
    """Attacks by networks: what each attack leaves of each, as a heat map.

    Parameters
    ----------
    comparison : Comparison
        What :func:`compare` returned.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    """

    def __init__(self, comparison: Comparison) -> None:
        if not isinstance(comparison, Comparison):
            raise TypeError(f"comparison must be a Comparison, got {type(comparison).__name__}")
        self.comparison = comparison

    @classmethod
    def from_comparison(
        cls, comparison: Comparison, *, ax: "Axes | None" = None
    ) -> "ComparisonDisplay":
        """Draw a comparison.

        Parameters
        ----------
        comparison : Comparison
            What :func:`compare` returned.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        ComparisonDisplay
            Drawn.

        Raises
        ------
        TypeError
            If ``comparison`` is something else.
        MissingPackageError
            If matplotlib is not installed.
        """
        return cls(comparison).plot(ax)

    def plot(self, ax: "Axes | None" = None) -> "ComparisonDisplay":
        """Draw one row for each attack and one column for each network.

        A cell has the accuracy with its 95 % interval or, of several reports, their mean with
        the standard deviation; none where the attack did not run to its end.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        ComparisonDisplay
            Itself.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        records = self.comparison.records()
        networks, attacks = self.comparison.conditions(), self.comparison.attack_rows()
        size = len(networks), len(attacks)
        self.figure_, self.ax_ = canvas(ax, figsize=(3.5 + 1.4 * size[0], 1.8 + 0.5 * size[1]))
        known = [record["accuracy"] for record in records]
        shares = np.array(known, dtype=np.float64).reshape(size).T
        texts = np.array([_cell(record) for record in records], dtype=object).reshape(size).T
        several = len(set(networks.values())) > 1
        columns = [
            f"{drawn(name, 30)}\n{told}" if several else drawn(name, 30)
            for name, told in networks.items()
        ]
        rows = [drawn(name, 40) for name, *_ in attacks]
        heat_map(self.figure_, self.ax_, shares, texts, columns, rows, "accuracy left (%)")
        told = "" if several else f" ({next(iter(networks.values()))})"
        reports = [report for each in self.comparison.reports.values() for report in each]
        after = ", after those above it" if any(r.survivors_only for r in reports) else ""
        self.ax_.set(xlabel=f"network{told}", ylabel=f"attack{after}")
        return self


def _cell(record: dict[str, Any]) -> str:
    if record["accuracy"] is None:
        return "none"
    told = percent(record["accuracy"])
    if record["std"] is not None:
        return f"{told}\n± {100 * record['std']:.1f}"
    return told if record["low"] is None else f"{told}\n{interval((record['low'], record['high']))}"


def heat_map(
    figure: Any,
    ax: "Axes",
    shares: np.ndarray,
    texts: Any,
    columns: list[str],
    rows: list[str],
    unit: str,
) -> None:
    """Shares in [0, 1] as colours, with a text in each cell and names along the sides."""
    image = ax.imshow(100 * shares, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    for place, share in np.ndenumerate(shares):
        shade = "black" if share >= 0.6 or np.isnan(share) else "white"
        text = texts[place[0]][place[1]]
        ax.text(place[1], place[0], text, ha="center", va="center", color=shade, fontsize="small")
    figure.colorbar(image, ax=ax, label=unit)
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
