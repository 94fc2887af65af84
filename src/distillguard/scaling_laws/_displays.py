"""Displays of laws and fits against compute, in scikit-learn's style."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._plot import canvas, drawn
from ._fit import Fit
from ._law import ScalingLaw
from ._numbers import positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Display:
    """Base of the displays: law, range of compute, data quality. Subclasses implement `plot`."""

    def __init__(
        self,
        law: ScalingLaw,
        flops: Any,
        *,
        fid: float | None = None,
        fit: Fit | None = None,
        name: str | None = None,
    ) -> None:
        self.law = law
        self.flops = flops
        self.fid = fid
        self.fit = fit
        self.name = name

    @classmethod
    def from_law(
        cls,
        law: ScalingLaw,
        flops: Any,
        *,
        fid: float | None = None,
        name: str | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw a law.

        Parameters
        ----------
        law : ScalingLaw
            Law to draw.
        flops : array of shape (m,)
            Training FLOPs at which to draw it.
        fid : float, optional
            Data quality; the law's ``reference_fid`` if not given.
        name : str, optional
            Label of the line.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones if not given.

        Returns
        -------
        display
            The display, already drawn.
        """
        return cls(law, flops, fid=fid, name=name).plot(ax)

    @classmethod
    def from_fit(
        cls,
        fit: Fit,
        flops: Any = None,
        *,
        fid: float | None = None,
        name: str | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw a fitted law with its interval and the runs.

        Parameters
        ----------
        fit : Fit
            Fitted law to draw.
        flops : array of shape (m,), optional
            Training FLOPs at which to draw it. By default, from the smallest run's to ten times
            the largest run's.
        fid : float, optional
            Data quality, also of the runs shown; the law's ``reference_fid`` if not given.
        name : str, optional
            Label of the line.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones if not given.

        Returns
        -------
        display
            The display, already drawn.
        """
        return cls(fit.law, _reach(fit, flops), fid=fid, fit=fit, name=name).plot(ax)

    def plot(self, ax: "Axes | None" = None, **line: Any) -> Self:
        """Draw on the given axes, or on new ones."""
        raise NotImplementedError


class LossDisplay(_Display):
    """Loss of compute-optimal networks against training FLOPs.

    Parameters
    ----------
    law : ScalingLaw
        Law to draw.
    flops : array of shape (m,)
        Training FLOPs at which to draw it.
    fid : float, optional
        Data quality; the law's ``reference_fid`` if not given.
    fit : Fit, optional
        The fit that gave the law; adds its interval as a band and its runs as points.
    name : str, optional
        Label of the line.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    line_ : matplotlib.lines.Line2D
        The law, after :meth:`plot`.
    """

    def plot(self, ax: "Axes | None" = None, **line: Any) -> Self:
        """Draw the law.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones if not given.
        **line : dict
            Passed on to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        LossDisplay
            The display itself.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        flops = positive("flops", self.flops)
        self.figure_, self.ax_ = canvas(ax)
        best = self.law.compute_optimal(flops, self.fid).loss
        self.line_ = self.ax_.plot(
            flops, best, label=None if self.name is None else drawn(self.name), **line
        )[0]
        if self.fit is not None:
            _band(self.ax_, self.fit, "loss", flops, self.fid, self.line_)
            runs = self.fit.runs
            wanted = self.law.reference_fid if self.fid is None else self.fid
            shown = slice(None) if runs.fid is None else runs.fid == wanted
            spent = self.law.flops(runs.parameters, runs.data)[shown]
            self.ax_.scatter(spent, runs.loss[shown], s=9, color=self.line_.get_color(), alpha=0.5)
        _finish(self.ax_, "loss", legend=self.name is not None)
        return self


class SizeDisplay(_Display):
    """Optimal parameters and training examples against training FLOPs.

    Parameters
    ----------
    law : ScalingLaw
        Law to draw.
    flops : array of shape (m,)
        Training FLOPs at which to draw it.
    fid : float, optional
        Data quality; the law's ``reference_fid`` if not given.
    fit : Fit, optional
        The fit that gave the law; adds its intervals as bands.
    name : str, optional
        Prefix of the labels of the lines.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    parameters_line_, data_line_ : matplotlib.lines.Line2D
        The two lines, after :meth:`plot`.
    """

    def plot(self, ax: "Axes | None" = None, **line: Any) -> Self:
        """Draw both sizes.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones if not given.
        **line : dict
            Passed on to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        SizeDisplay
            The display itself.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        flops = positive("flops", self.flops)
        self.figure_, self.ax_ = canvas(ax)
        best = self.law.compute_optimal(flops, self.fid)
        before = "" if self.name is None else f"{drawn(self.name)}: "
        settings = {"label": f"{before}parameters", **line}
        self.parameters_line_ = self.ax_.plot(flops, best.parameters, **settings)[0]
        settings = {"linestyle": "--", "label": f"{before}training examples", **line}
        self.data_line_ = self.ax_.plot(flops, best.data, **settings)[0]
        if self.fit is not None:
            _band(self.ax_, self.fit, "parameters", flops, self.fid, self.parameters_line_)
            _band(self.ax_, self.fit, "data", flops, self.fid, self.data_line_)
        self.ax_.set_yscale("log")
        _finish(self.ax_, "compute-optimal number", legend=True)
        return self


def _reach(fit: Fit, flops: Any) -> Any:
    if flops is not None:
        return flops
    spent = fit.law.flops(fit.runs.parameters, fit.runs.data)
    return np.geomspace(spent.min(), 10 * spent.max(), 60)


def _band(
    ax: "Axes", fit: Fit, quantity: str, flops: np.ndarray, fid: float | None, line: Any
) -> None:
    low, high = fit.interval(lambda law: getattr(law.compute_optimal(flops, fid), quantity))
    ax.fill_between(flops, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def _finish(ax: "Axes", ylabel: str, *, legend: bool) -> None:
    ax.set_xscale("log")
    ax.set(xlabel="training FLOPs", ylabel=ylabel)
    if legend:
        ax.legend()
