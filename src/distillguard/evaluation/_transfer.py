"""Adversarial examples of one model tried on another."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .._modes import borrowed, device_of, dtype_of
from .._typing import Attack, Model
from ._model import resolve_model
from ._query import logits_of


def transfer_matrix(
    models: Mapping[str, Any], attack: Attack, inputs: Tensor, labels: Tensor
) -> np.ndarray:
    """Try each model's adversarial examples on every model.

    Sweep an attack's confidence by calling this with one attack per confidence: distilled
    networks, which look robust under attack, fall to examples made with confidence elsewhere
    [1]_.

    Parameters
    ----------
    models : mapping from str to nn.Module, callable or fitted estimator
        Sources and targets.
    attack : callable
        ``(model, inputs, labels) -> Tensor``.
    inputs : Tensor of shape (n, ...), floating
        Clean examples.
    labels : Tensor of shape (n,), int64
        True classes.

    Returns
    -------
    ndarray of shape (m, m)
        Entry (i, j): share of the examples that both models classify correctly and whose
        adversarial examples made on model i model j misclassifies; NaN where there are none.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, section VIII-D. https://arxiv.org/abs/1608.04644

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import fgsm
    >>> from distillguard.evaluation import transfer_matrix
    >>> model, inputs = torch.nn.Linear(2, 2), torch.rand(8, 2)
    >>> labels = model(inputs).argmax(dim=1)
    >>> far = lambda *asked: fgsm(*asked, epsilon=1.0)
    >>> transfer_matrix({"a": model, "b": model}, far, inputs, labels).shape
    (2, 2)
    """
    networks = [resolve_model(model).model for model in models.values()]

    def right(network: Model, points: Tensor) -> Tensor:
        place = device_of(network, points.device)
        with borrowed(network, 0, gradients=False):
            logits = logits_of(network, points.to(place), dtype_of(network, points.dtype), 256)
        return logits.argmax(dim=1).to(labels.device) == labels

    clean = [right(network, inputs) for network in networks]
    matrix = np.full((len(networks), len(networks)), np.nan)
    for i, source in enumerate(networks):
        with borrowed(source, 0):
            adversarial = attack(source, inputs.clone(), labels.clone()).detach()
        for j, target in enumerate(networks):
            both = clean[i] & clean[j]
            if both.any():
                matrix[i, j] = (~right(target, adversarial))[both].double().mean().item()
    return matrix
