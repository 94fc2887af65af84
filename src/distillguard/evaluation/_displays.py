"""Drawings in scikit-learn's manner: compute, then ``plot``; axes and artists stay accessible."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._plot import pyplot
from .._typing import Distance
from ._curves import RobustnessCurve, robustness_curve
from ._histograms import Histogram

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
    ax_ : matplotlib.axes.Axes
        Where it was drawn, after :meth:`plot`.
    line_ : matplotlib.lines.Line2D
        The curve, after :meth:`plot`.
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
        norm : {"linf", "l2", "l1", "l0"}
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
        values = np.asarray(radii, dtype=np.float64)
        places = np.unique(np.concatenate([[0.0], values[np.isfinite(values)]]))
        accuracy = np.array([(values > place).mean() for place in places])
        curve = RobustnessCurve(places, accuracy, norm, len(values))
        return cls(curve, name=name).plot(ax)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any,
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
        X : Tensor of shape (n, ...), floating
            Clean examples.
        y : Tensor of shape (n,), int64
            True classes.
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
        """Draw the curve.

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
        self.ax_ = ax if ax is not None else pyplot().subplots()[1]
        self.line_ = self.ax_.step(
            self.curve.epsilons,
            100 * self.curve.robust_accuracy,
            where="post",
            label=self.name,
            **line,
        )[0]
        self.ax_.set(
            xlabel=f"epsilon ({self.curve.norm}, input units)",
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
    ax_ : matplotlib.axes.Axes
        Where it was drawn, after :meth:`plot`.
    """

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram

    def plot(self, ax: "Axes | None" = None) -> "HistogramDisplay":
        """Draw the bars.

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
        self.ax_ = ax if ax is not None else pyplot().subplots(layout="constrained")[1]
        counts, edges, quantity = self.histogram
        places = np.arange(len(counts))
        self.ax_.bar(places + 0.5, counts, width=0.9)
        self.ax_.set_xticks([*places, len(counts)], [f"{edge:g}" for edge in edges], rotation=60)
        self.ax_.set(xlabel=quantity, ylabel="examples")
        return self


class TransferMatrixDisplay:
    """Which model's adversarial examples fool which.

    Parameters
    ----------
    matrix : array of shape (m, m)
        What :func:`transfer_matrix` returned.
    names : sequence of str
        Names of the models, in its order.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where it was drawn, after :meth:`plot`.
    """

    def __init__(self, matrix: Any, names: Sequence[str]) -> None:
        self.matrix = np.asarray(matrix)
        self.names = list(names)

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
        self.ax_ = ax if ax is not None else pyplot().subplots(layout="constrained")[1]
        self.ax_.imshow(self.matrix, vmin=0, vmax=1, cmap="viridis")
        for (row, column), value in np.ndenumerate(self.matrix):
            shade = "white" if value < 0.6 else "black"
            self.ax_.text(
                column, row, f"{100 * value:.0f} %", ha="center", va="center", color=shade
            )
        places = range(len(self.names))
        self.ax_.set_xticks(places, self.names, rotation=45, ha="right")
        self.ax_.set_yticks(places, self.names)
        self.ax_.set(xlabel="tried on", ylabel="made on")
        return self
