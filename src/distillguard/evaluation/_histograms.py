"""Examples sorted by gradient magnitude or by confidence."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._modes import borrowed, device_of, dtype_of
from .._validation import check_differentiable, check_gradient, check_positive
from ..functional import softmax
from ._model import resolve_model
from ._query import logits_of, with_gradients

GRADIENT_EDGES = (0.0, 1e-40, 1e-35, 1e-30, 1e-25, 1e-20, 1e-15, 1e-10, 1e-5, 1e-3, 1.0)
"""Edges of the bins of Papernot et al. 2016, figure 9."""


class Histogram(NamedTuple):
    """Counts of examples by bins.

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


@with_gradients
def gradient_histogram(
    model: Any,
    inputs: Tensor,
    *,
    temperature: float = 1.0,
    edges: Sequence[float] = GRADIENT_EDGES,
    batch_size: int = 256,
) -> Histogram:
    r"""Sort the examples by the magnitude of their adversarial gradient [1]_.

    For each example the mean of :math:`|\partial p_i / \partial x_j|` over all classes and
    all inputs, where :math:`p` is the softmax at a temperature. In float32 most of what a
    distilled network shows in the lowest bin is underflow.

    Parameters
    ----------
    model : nn.Module, callable or fitted estimator
        Whose gradients are measured.
    inputs : Tensor of shape (n, ...), floating
        Examples.
    temperature : float, default=1.0
        Of the softmax; networks are used at 1.
    edges : sequence of float, optional
        Edges of the bins; those of the paper's figure 9 if not given. Larger magnitudes are
        counted in the last bin.
    batch_size : int, default=256
        Examples on the device at once.

    Returns
    -------
    Histogram
        Number of examples in each bin.

    Raises
    ------
    ValueError
        If ``temperature`` is not a finite number above 0.
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
    network = resolve_model(model).model
    dtype, parts = dtype_of(network, inputs.dtype), []
    with borrowed(network, 0):
        for batch in inputs.to(device_of(network, inputs.device)).split(batch_size):
            points = batch.detach().to(dtype, copy=True).requires_grad_()
            outputs = softmax(network(points), temperature)
            check_differentiable(outputs)
            total = torch.zeros(len(batch), device=batch.device, dtype=torch.float64)
            for output in outputs.unbind(dim=1):
                (slope,) = torch.autograd.grad(
                    output.sum(), points, retain_graph=True, allow_unused=True
                )
                total += check_gradient(slope).double().abs().flatten(1).mean(dim=1)
            parts.append(total / outputs.shape[1])
    magnitudes = torch.cat(parts).cpu().numpy()
    bins = np.asarray(edges, dtype=np.float64)
    counts, _ = np.histogram(magnitudes.clip(bins[0], bins[-1]), bins)
    return Histogram(counts, bins, "mean absolute gradient of the softmax (1 / input unit)")


def confidence_histogram(
    model: Any, inputs: Tensor, *, temperature: float = 1.0, bins: int = 20, batch_size: int = 256
) -> Histogram:
    """Sort the examples by the probability of their predicted class, at a temperature.

    Parameters
    ----------
    model : nn.Module, callable or fitted estimator
        Whose confidence is measured.
    inputs : Tensor of shape (n, ...), floating
        Examples.
    temperature : float, default=1.0
        Of the softmax: 1 for what the network reports, the training temperature for what it
        was trained to report.
    bins : int, default=20
        Bins of equal width between 0 and 1.
    batch_size : int, default=256
        Examples on the device at once.

    Returns
    -------
    Histogram
        Number of examples in each bin.

    Raises
    ------
    ValueError
        If ``temperature`` is not a finite number above 0.

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
    network = resolve_model(model).model
    points = inputs.to(device_of(network, inputs.device))
    with borrowed(network, 0, gradients=False):
        logits = logits_of(network, points, dtype_of(network, inputs.dtype), batch_size)
    confidence = softmax(logits, temperature).amax(dim=1).cpu().numpy()
    counts, edges = np.histogram(confidence.clip(0, 1), bins, (0.0, 1.0))
    return Histogram(counts, edges, "probability of the predicted class")
