"""Whether an adversarial example is one: decided from the returned points, never from a claim."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._geometry import size
from .._typing import Bounds, Distance, Model, Norm
from ._subject import logits_of

_EXPONENTS = {"linf": 0.0, "l2": 0.5, "l1": 1.0}


class ThreatModel(NamedTuple):
    """What an adversary may do: move each input by at most ``epsilon`` inside ``bounds``."""

    norm: Norm
    epsilon: float
    bounds: Bounds


class Verdict(NamedTuple):
    """What an attack's points are worth, one entry per example."""

    predicted: Tensor
    """The model's class at the returned point."""

    legal: Tensor
    """Finite and within bounds."""

    success: Tensor
    """Legal and misclassified, at whatever distance."""

    fooled: Tensor
    """Misclassified within the threat model."""

    distance: Tensor
    """Distance in the threat model's norm, float64."""

    own_distance: Tensor
    """Distance in the attack's own norm, float64."""


def judge(
    model: Model,
    name: str,
    adversarial: Any,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    own_norm: Distance,
    dtype: torch.dtype,
    batch_size: int,
) -> Verdict:
    """Ask the model about the points that the attack ``name`` returned."""
    if not isinstance(adversarial, Tensor):
        raise TypeError(
            f"attack {name!r} must return a torch.Tensor, got {type(adversarial).__name__}"
        )
    if adversarial.shape != inputs.shape:
        raise ValueError(
            f"attack {name!r} must return one point per input, shape {tuple(inputs.shape)}, "
            f"got {tuple(adversarial.shape)}"
        )
    points = adversarial.detach().to(inputs)
    flat = points.flatten(1)
    low, high = torch.tensor(threat.bounds, dtype=inputs.dtype, device=inputs.device)
    legal = ((flat >= low) & (flat <= high)).all(dim=1)

    # An illegal point may hold NaN; the model is asked about the clean input in its place.
    asked = torch.where(legal.reshape(-1, *(1,) * (inputs.ndim - 1)), points, inputs)
    predicted = logits_of(model, asked, dtype, batch_size).argmax(dim=1)
    delta = points.double() - inputs.double()
    distance = size(delta, threat.norm)
    success = legal & (predicted != labels)
    return Verdict(
        predicted=predicted,
        legal=legal,
        success=success,
        fooled=success & (distance <= threat.epsilon + _rounding(threat, inputs)),
        distance=distance,
        own_distance=size(delta, own_norm),
    )


def _rounding(threat: ThreatModel, inputs: Tensor) -> float:
    """One rounding of every coordinate, measured in the norm."""
    largest = max(abs(threat.bounds[0]), abs(threat.bounds[1]), threat.epsilon)
    coordinates = inputs[0].numel() if len(inputs) else 1
    return torch.finfo(inputs.dtype).eps * largest * coordinates ** _EXPONENTS[threat.norm]
