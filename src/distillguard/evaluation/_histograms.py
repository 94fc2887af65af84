"""Examples sorted by gradient magnitude or by confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._modes import borrowed, device_of, dtype_of
from .._random import draw_seed
from .._slopes import slopes
from .._typing import Model
from .._validation import (
    check_at_least,
    check_differentiable,
    check_finite,
    check_gradient,
    check_logits,
    check_positive,
    check_random_state,
)
from ..functional import softmax
from ._model import resolve_model
from ._query import logits_of, with_gradients
from ._reading import read_inputs
from ._statistics import intervals
from ._tables import Rows, Table
from .report._numbers import interval, percent

HEADERS = ("from, to", "examples", "share", "95 % interval")

GRADIENT_EDGES = (0.0, 1e-40, 1e-35, 1e-30, 1e-25, 1e-20, 1e-15, 1e-10, 1e-5, 1e-3, 1.0)
"""Edges of the bins of Papernot et al. 2016, figure 9."""


@dataclass(frozen=True, eq=False, repr=False)
class Histogram(Table):
    """Counts of examples by bins; printed as a table.

    Attributes
    ----------
    counts : ndarray of shape (m,), int
        Examples in each bin.
    edges : ndarray of shape (m + 1,)
        Edges of the bins, in the units of ``quantity``. A bin holds its lower edge; the last
        one holds both.
    quantity : str
        What was measured, with its unit.
    """

    counts: np.ndarray
    edges: np.ndarray
    quantity: str

    @property
    def n_examples(self) -> int:
        """Examples in all bins."""
        return int(self.counts.sum())

    @property
    def shares(self) -> np.ndarray:
        """Share of the examples in each bin, shape (m,)."""
        return self.counts / max(self.n_examples, 1)

    @property
    def intervals(self) -> np.ndarray:
        """95 % Wilson interval of each share, shape (m, 2)."""
        return intervals(self.shares, self.n_examples)

    def __repr__(self) -> str:
        low, high = self.edges[[0, -1]]
        return (
            f"Histogram({self.quantity}, {len(self.counts)} bins from {low:g} to {high:g}, "
            f"{self.n_examples} examples)"
        )

    _headers = HEADERS

    @property
    def _title(self) -> str:
        return f"{self.quantity}, {self.n_examples} examples"

    @property
    def _rows(self) -> Rows:
        bins = zip(self.edges[:-1], self.edges[1:], self.counts, strict=True)
        return [
            (f"{low:g} to {high:g}", str(count), percent(share), interval(tuple(ends)))
            for (low, high, count), share, ends in zip(
                bins, self.shares, self.intervals, strict=True
            )
        ]


@with_gradients
def gradient_histogram(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    temperature: float = 1.0,
    edges: Sequence[float] = GRADIENT_EDGES,
    batch_size: int = 256,
    random_state: int | None = None,
) -> Histogram:
    r"""Sort the examples by the magnitude of their adversarial gradient [1]_.

    For each example the mean of :math:`|\partial p_i / \partial x_j|` over all classes and
    all inputs, where :math:`p` is the softmax at a temperature. In float32 most of what a
    distilled network shows in the lowest bin is underflow.

    Parameters
    ----------
    model : nn.Module, callable or fitted estimator
        Whose gradients are measured.
    X : Tensor or array of shape (n, ...), Dataset or DataLoader
        Examples, floating point; a Dataset or DataLoader may yield inputs or pairs (inputs,
        labels), and is read once.
    y : Tensor or array of shape (n,), optional
        Not looked at; it is here so that the arguments of :func:`~distillguard.evaluate` fit.
    temperature : float, default=1.0
        Of the softmax; networks are used at 1.
    edges : sequence of float, optional
        Edges of the bins; those of the paper's figure 9 if not given. Larger magnitudes are
        counted in the last bin.
    batch_size : int, default=256
        Examples on the device at once.
    random_state : int, optional
        Seed of a model that draws random numbers; a fresh one if not given.

    Returns
    -------
    Histogram
        Number of examples in each bin.

    Raises
    ------
    TypeError
        If ``X`` is not floating point.
    ValueError
        If ``temperature`` is not a finite number above 0, ``edges`` do not ascend, or ``X`` is
        empty or not finite.
    NoGradientError
        If the model has no gradients with respect to its inputs.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, X. Wu, S. Jha and A. Swami, "Distillation as a Defense to
       Adversarial Perturbations against Deep Neural Networks", IEEE S&P 2016, section V-C.
       https://arxiv.org/abs/1511.04508

    Examples
    --------
    >>> import torch
    >>> from distillguard.evaluation import gradient_histogram
    >>> model = torch.nn.Linear(3, 2)
    >>> int(gradient_histogram(model, torch.rand(5, 3)).counts.sum())
    5
    """
    check_positive("temperature", temperature)
    check_at_least("batch_size", batch_size, 1)
    check_random_state(random_state)
    bins = _ascending(edges)
    network = resolve_model(model).model
    device, parts = device_of(network, torch.device("cpu")), []
    with borrowed(network, draw_seed(random_state)):
        for batch in read_inputs(X, size=batch_size):
            points = batch.to(device, dtype_of(network, batch.dtype), copy=True).requires_grad_()
            found = slopes(partial(_class_totals, network, points, temperature), points)
            total = torch.zeros(len(batch), device=device, dtype=torch.float64)
            for slope in found:
                total += check_gradient(slope).double().abs().flatten(1).mean(dim=1)
            parts.append(total / len(found))
    magnitudes = torch.cat(parts).cpu().numpy()
    counts, _ = np.histogram(magnitudes.clip(bins[0], bins[-1]), bins)
    return Histogram(counts, bins, "mean absolute gradient of the softmax (1 / input unit)")


def _class_totals(network: Model, points: Tensor, temperature: float) -> Sequence[Tensor]:
    """The probability of each class, summed over the batch."""
    logits = network(points)
    check_logits(logits, len(points))
    outputs = softmax(logits, temperature)
    check_differentiable(outputs)
    return outputs.sum(dim=0).unbind()


def _ascending(edges: Any) -> np.ndarray:
    values = list(edges)
    for value in values:
        check_finite("edges", value)
    if len(values) < 2 or any(low >= high for low, high in pairwise(values)):
        raise ValueError(f"edges must be at least two ascending numbers, got {values}")
    return np.asarray(values, dtype=np.float64)


def confidence_histogram(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    temperature: float = 1.0,
    bins: int = 20,
    batch_size: int = 256,
    random_state: int | None = None,
) -> Histogram:
    """Sort the examples by the probability of their predicted class, at a temperature.

    Parameters
    ----------
    model : nn.Module, callable or fitted estimator
        Whose confidence is measured.
    X : Tensor or array of shape (n, ...), Dataset or DataLoader
        Examples, floating point; a Dataset or DataLoader may yield inputs or pairs (inputs,
        labels), and is read once.
    y : Tensor or array of shape (n,), optional
        Not looked at; it is here so that the arguments of :func:`~distillguard.evaluate` fit.
    temperature : float, default=1.0
        Of the softmax: 1 for what the network reports, the training temperature for what it
        was trained to report.
    bins : int, default=20
        Bins of equal width between 0 and 1.
    batch_size : int, default=256
        Examples on the device at once.
    random_state : int, optional
        Seed of a model that draws random numbers; a fresh one if not given.

    Returns
    -------
    Histogram
        Number of examples in each bin.

    Raises
    ------
    TypeError
        If ``X`` is not floating point.
    ValueError
        If ``temperature`` is not a finite number above 0, ``bins`` is below 1, or ``X`` is
        empty or not finite.

    Examples
    --------
    >>> import torch
    >>> from distillguard.evaluation import confidence_histogram
    >>> loud = lambda inputs: 1000 * inputs
    >>> confidence_histogram(loud, torch.eye(3), bins=2).counts.tolist()
    [0, 3]
    >>> confidence_histogram(loud, torch.eye(3), bins=2, temperature=1e6).counts.tolist()
    [3, 0]
    """
    check_positive("temperature", temperature)
    check_at_least("bins", bins, 1)
    check_at_least("batch_size", batch_size, 1)
    check_random_state(random_state)
    network = resolve_model(model).model
    device, parts = device_of(network, torch.device("cpu")), []
    with borrowed(network, draw_seed(random_state), gradients=False):
        for batch in read_inputs(X, size=batch_size):
            dtype = dtype_of(network, batch.dtype)
            logits = logits_of(network, batch.to(device), dtype, batch_size)
            check_logits(logits, len(batch))
            parts.append(softmax(logits, temperature).amax(dim=1))
    confidence = torch.cat(parts).cpu().numpy()
    counts, edges = np.histogram(confidence.clip(0, 1), bins, (0.0, 1.0))
    return Histogram(counts, edges, "probability of the predicted class")
