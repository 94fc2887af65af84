"""Accuracy against the radius."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._boxes import check_bounds, hold_within
from .._modes import borrowed, device_of, dtype_of
from .._typing import Attack, Bounds, Distance, Model, Norm
from .._validation import (
    check_inputs,
    check_label_range,
    check_labels,
    check_norm,
    check_positive,
)
from ._judge import ThreatModel, judge
from ._model import resolve_model
from ._query import logits_of


class RobustnessCurve(NamedTuple):
    """Accuracy against the radius.

    Attributes
    ----------
    epsilons : ndarray of shape (m,)
        Radii, ascending from 0.
    robust_accuracy : ndarray of shape (m,)
        Share of the examples that withstand everything within each radius.
    norm : {"linf", "l2", "l1", "l0"}
        Norm of the radii.
    n_examples : int
        Examples behind every point.
    """

    epsilons: np.ndarray
    robust_accuracy: np.ndarray
    norm: Distance
    n_examples: int


def robustness_curve(
    model: Any,
    inputs: Tensor,
    labels: Tensor,
    *,
    minimum_distance: Mapping[str, Attack] | None = None,
    budget: Callable[..., Tensor] | None = None,
    epsilons: Sequence[float] = (),
    norm: Norm = "linf",
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
) -> RobustnessCurve:
    r"""Measure accuracy against the radius, by both kinds of attack at once.

    A minimum-distance attack gives each example the radius at which it falls; a budget attack
    tells for each radius of a list who falls within it. An example's radius is the smallest
    that any of them found, so the curve never rises.

    Parameters
    ----------
    model : nn.Module, callable or fitted estimator
        What is attacked.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``.
    labels : Tensor of shape (n,), int64
        True classes.
    minimum_distance : mapping, optional
        Names with callables ``(model, inputs, labels) -> Tensor`` that look for the nearest
        adversarial example.
    budget : callable, optional
        ``(model, inputs, labels, *, epsilon, norm) -> Tensor``, such as
        :func:`~distillguard.attacks.pgd`; run at each of ``epsilons`` on the examples that
        stand there.
    epsilons : sequence of float, optional
        Radii for ``budget``, in the units of ``inputs``.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the radii.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once.

    Returns
    -------
    RobustnessCurve
        One point per radius at which an example falls, and one per element of ``epsilons``.

    Raises
    ------
    TypeError
        If ``inputs`` or ``labels`` has the wrong dtype.
    ValueError
        If no attack is given, or an argument is out of its range.

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import fgsm
    >>> from distillguard.evaluation import robustness_curve
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> inputs, labels = torch.tensor([[0.9, 0.2], [0.6, 0.5]]), torch.tensor([0, 0])
    >>> curve = robustness_curve(model, inputs, labels, budget=fgsm, epsilons=[0.1, 0.4])
    >>> curve.robust_accuracy.tolist()
    [1.0, 0.5, 0.0]
    """
    check_norm(norm)
    check_bounds(bounds)
    check_inputs(inputs)
    inputs = hold_within("inputs", inputs, bounds)
    check_labels(labels, inputs)
    for epsilon in epsilons:
        check_positive("epsilons", epsilon)
    if not minimum_distance and not (budget and len(epsilons)):
        raise ValueError(
            "robustness_curve must get minimum_distance attacks or a budget attack with epsilons, "
            f"got minimum_distance={minimum_distance!r} and epsilons={epsilons!r}"
        )
    radii = _radii(
        resolve_model(model).model,
        inputs,
        labels,
        [*(minimum_distance or {}).items()],
        [(float(e), budget) for e in sorted(epsilons) if budget],
        ThreatModel(norm, math.inf, bounds),
        batch_size,
    )
    places = np.unique(np.concatenate([[0.0], np.asarray(epsilons), radii[np.isfinite(radii)]]))
    accuracy = np.array([(radii > place).mean() for place in places])
    return RobustnessCurve(places, accuracy, norm, len(inputs))


def _radii(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    nearest: list[tuple[str, Attack]],
    budgets: list[tuple[float, Any]],
    threat: ThreatModel,
    batch_size: int,
) -> np.ndarray:
    """The smallest radius at which each example is known to fall: 0 if misclassified."""
    device = device_of(model, inputs.device)
    inputs, labels = inputs.to(device), labels.to(device)
    dtype = dtype_of(model, inputs.dtype)

    def distances(name: str, attack: Attack, chosen: Tensor, reach: float) -> Tensor:
        with borrowed(model, 0):
            verdict = judge(
                model,
                name,
                attack(model, inputs[chosen].clone(), labels[chosen].clone()),
                inputs[chosen],
                labels[chosen],
                threat=threat._replace(epsilon=reach),
                own_norm=threat.norm,
                dtype=dtype,
                batch_size=batch_size,
            )
        return torch.where(verdict.fooled, verdict.distance.clamp(max=reach), torch.inf)

    with borrowed(model, 0, gradients=False):
        logits = logits_of(model, inputs, dtype, batch_size)
    check_label_range(labels, logits.shape[1])
    radii = torch.where(logits.argmax(dim=1) == labels, torch.inf, 0.0).double()
    for name, attack in nearest:
        chosen = (radii > 0).nonzero().squeeze(1)
        if len(chosen):
            found = distances(name, attack, chosen, math.inf)
            radii[chosen] = torch.minimum(radii[chosen], found)
    for epsilon, attack in budgets:
        chosen = (radii > epsilon).nonzero().squeeze(1)
        if len(chosen):

            def within(
                model: Model, x: Tensor, y: Tensor, e: float = epsilon, a: Any = attack
            ) -> Any:
                return a(model, x, y, epsilon=e, norm=threat.norm)

            found = distances("budget", within, chosen, epsilon)
            radii[chosen] = torch.minimum(radii[chosen], found)
    return radii.cpu().numpy()
