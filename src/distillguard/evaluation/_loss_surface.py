"""The loss around one example: what an attack that follows gradients can see."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._boxes import boxes, check_bounds
from .._modes import borrowed, device_of, dtype_of
from .._plot import canvas
from .._random import draw_seed
from .._rejection import n_classes_of, opposed
from .._typing import Bounds, Model
from .._validation import (
    check_at_least,
    check_choice,
    check_differentiable,
    check_gradient,
    check_label_range,
    check_logits,
    check_positive,
    check_random_state,
)
from ..functional import cross_entropy, margin_loss
from ._model import resolve_model
from ._query import logits_of, with_gradients
from ._reading import opened, read
from ._tables import Rows, Table
from .report._numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {
    "cross_entropy": "cross-entropy (nats)",
    "margin": "margin of the best other class (logits)",
}


@dataclass(frozen=True, eq=False)
class LossSurface(Table):
    """Losses at a grid of points around one example; printed as a table of their ranges.

    Attributes
    ----------
    steps : ndarray of shape (m,)
        How far each coordinate moves, in input units, along either axis of the grid.
    cross_entropy : ndarray of shape (m, m)
        Cross-entropy with the label, in nats; the first axis is the random direction.
    margin : ndarray of shape (m, m)
        Best other logit less the labelled one: above 0 where the model answers otherwise.
    """

    steps: np.ndarray
    cross_entropy: np.ndarray
    margin: np.ndarray

    _headers = ("loss", "lowest", "median", "highest")

    @property
    def _title(self) -> str:
        return (
            f"Around one example: {len(self.steps)} by {len(self.steps)} points, steps of up to "
            f"{self.steps[-1]:.4g} in input units, {percent((self.margin > 0).mean())} answered "
            "otherwise"
        )

    @property
    def _rows(self) -> Rows:
        return [
            (unit, *(f"{value:.4g}" for value in np.quantile(getattr(self, name), (0, 0.5, 1))))
            for name, unit in UNITS.items()
        ]


class LossSurfaceDisplay:
    """The loss around one example, along the gradient and a random direction.

    A network distilled at a high temperature has a flat cross-entropy around nearly every
    example, and a margin that rises all the same: an attack on the first stands still where one
    on the second walks out.

    Parameters
    ----------
    surface : LossSurface
        What to draw.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the axes, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        Axes of the drawing, after :meth:`plot`.
    mesh_ : matplotlib.collections.QuadMesh
        The surface, after :meth:`plot`.
    """

    def __init__(self, surface: LossSurface) -> None:
        self.surface = surface

    @classmethod
    def from_model(
        cls,
        model: Any,
        X: Any,
        y: Any,
        *,
        radius: float,
        n_steps: int = 41,
        loss: str = "cross_entropy",
        bounds: Bounds = (0.0, 1.0),
        random_state: int | None = None,
        ax: "Axes | None" = None,
    ) -> "LossSurfaceDisplay":
        r"""Ask a model about a grid of points and draw its loss there.

        The points are :math:`x + a\,\mathrm{sign}\,\nabla m(x) + b\,r`, put on the bounds where
        they leave them, with the margin :math:`m` and random signs :math:`r`. The direction is
        that of the margin for both losses: a saturated cross-entropy has none. Where the margin
        has no slope either, both directions are random.

        Parameters
        ----------
        model : nn.Module, callable or fitted estimator
            Whose loss is measured.
        X : Tensor or array of shape (1, ...)
            One example, within ``bounds``.
        y : Tensor or array of shape (1,)
            Its class.
        radius : float
            Largest :math:`a` and :math:`b`, in input units.
        n_steps : int, default=41
            Points of the grid along either axis; an odd number has the example among them.
        loss : {"cross_entropy", "margin"}, default="cross_entropy"
            What to draw; both are measured.
        bounds : tuple of float or Tensor, default=(0.0, 1.0)
            Lowest and highest value an input may take.
        random_state : int, optional
            Seed of the random direction; a fresh one if not given.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        LossSurfaceDisplay
            Drawn.

        Raises
        ------
        TypeError
            If ``model``, ``X`` or ``y`` is of the wrong kind.
        ValueError
            If ``X`` holds more than one example or leaves ``bounds``, the label does not fit, or a
            parameter is out of its range.
        NoGradientError
            If the model has no gradients with respect to its inputs.
        MissingPackageError
            If matplotlib is not installed.
        """
        check_choice("loss", loss, UNITS)
        surface = measured(model, X, y, radius, n_steps, bounds, random_state)
        return cls(surface).plot(ax, loss=loss)

    def plot(
        self, ax: "Axes | None" = None, *, loss: str = "cross_entropy"
    ) -> "LossSurfaceDisplay":
        """Draw the surface from above, with the example and the decision boundary.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.
        loss : {"cross_entropy", "margin"}, default="cross_entropy"
            What to draw.

        Returns
        -------
        LossSurfaceDisplay
            Itself.

        Raises
        ------
        ValueError
            If ``loss`` is unknown.
        MissingPackageError
            If matplotlib is not installed.
        """
        check_choice("loss", loss, UNITS)
        self.figure_, self.ax_ = canvas(ax)
        steps, margin = self.surface.steps, self.surface.margin
        self.mesh_ = self.ax_.pcolormesh(
            steps,
            steps,
            getattr(self.surface, loss),
            shading="nearest",
            cmap="viridis",
            rasterized=True,
        )
        self.figure_.colorbar(self.mesh_, ax=self.ax_, label=UNITS[loss])
        if margin.min() < 0 < margin.max():
            self.ax_.contour(steps, steps, margin, [0], colors="white", linestyles="dashed")
            self.ax_.plot([], [], "--", color="white", label="decision boundary")
        self.ax_.plot(0, 0, "x", color="white", label="the example")
        self.ax_.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            ncols=2,
            facecolor="0.3",
            labelcolor="white",
        )
        self.ax_.set(
            xlabel="step along the signs of the margin's gradient (input units)",
            ylabel="step along random signs (input units)",
            aspect="equal",
        )
        return self


@with_gradients
def measured(
    model: Any,
    X: Any,
    y: Any,
    radius: float,
    n_steps: int,
    bounds: Bounds,
    random_state: int | None,
) -> LossSurface:
    """Measure both losses on the grid."""
    check_positive("radius", radius)
    check_at_least("n_steps", n_steps, 2)
    check_bounds(bounds)
    check_random_state(random_state)
    subject = resolve_model(model)
    inputs, labels = _one_example(subject, X, y, bounds)
    network, seed = subject.model, draw_seed(random_state)
    inputs = inputs.to(device_of(network, inputs.device))
    labels, dtype = labels.to(inputs.device), dtype_of(network, inputs.dtype)
    steps = torch.linspace(-radius, radius, n_steps, dtype=torch.float64, device="cpu")
    low, high = boxes(inputs, bounds, None)
    rows, expected = [], labels.expand(n_steps)
    with borrowed(network, seed):
        along, across = _directions(network, inputs, labels, dtype, seed)
        for b in steps.tolist():
            offsets = steps.to(inputs).reshape(-1, *(1,) * (inputs.ndim - 1)) * along + b * across
            points = (inputs + offsets).clamp(low, high)
            answers = logits_of(network, points, dtype, n_steps)
            rows.append(opposed(network, answers, expected))
    return LossSurface(
        steps.numpy(),
        torch.stack([cross_entropy(row, expected) for row in rows]).double().cpu().numpy(),
        torch.stack([margin_loss(row, expected) for row in rows]).double().cpu().numpy(),
    )


def _one_example(subject: Any, X: Any, y: Any, bounds: Bounds) -> tuple[Tensor, Tensor]:
    chunk = next(iter(read(subject, opened(subject, X, y, bounds=bounds))))
    if len(chunk.inputs) != 1:
        raise ValueError(f"X must hold one example, got {len(chunk.inputs)}; pass X[:1] and y[:1]")
    return chunk.inputs, chunk.labels


def _directions(
    network: Model, inputs: Tensor, labels: Tensor, dtype: torch.dtype, seed: int
) -> tuple[Tensor, Tensor]:
    """Signs of the margin's gradient and random ones, each like the input."""
    asked = inputs.to(dtype, copy=True).requires_grad_()
    logits = network(asked)
    check_logits(logits, 1)
    check_label_range(labels, n_classes_of(network, logits), "y")
    check_differentiable(logits)
    margin = margin_loss(opposed(network, logits, labels), labels).sum()
    gradient = check_gradient(torch.autograd.grad(margin, asked, allow_unused=True)[0])
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(0, 2, (2, *inputs.shape), generator=generator, device="cpu")
    along, across = (2 * draws - 1).to(inputs)
    return (gradient.sign().to(inputs) if gradient.any() else along), across
