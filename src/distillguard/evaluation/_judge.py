"""Whether an adversarial example is one: decided from the returned points, never from a claim."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._boxes import boxes, tensor_of
from .._geometry import lp_norm, per_example
from .._rejection import opposed, refused
from .._typing import Bounds, Distance, Mask, Model
from ..functional import margin_loss
from ._query import logits_of

_EXPONENTS: dict[Distance, float] = {"linf": 0.0, "l2": 0.5, "l1": 1.0}


class ThreatModel(NamedTuple):
    """What an adversary may do: move each input by at most ``epsilon`` inside ``bounds``."""

    norm: Distance
    epsilon: float
    bounds: Bounds
    mask: Mask | None = None
    """Coordinates that may change: all axes of the inputs, the first one 1 or n; None for all."""

    def of(self, rows: Any) -> "ThreatModel":
        """The threat model of some examples."""
        if self.mask is None or len(self.mask) == 1:
            return self
        chosen = rows.to(self.mask.device) if isinstance(rows, Tensor) else rows
        return self._replace(mask=self.mask[chosen])

    def box(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest values for ``inputs``, broadcastable to them."""
        return boxes(inputs, self.bounds, self.mask)

    def described(self) -> dict[str, Any]:
        """Everything as numbers, strings and nested tuples of them."""
        return {name: nested(value) for name, value in self._asdict().items()}


def nested(value: Any) -> Any:
    """Turn tensors and lists into nested tuples."""
    if isinstance(value, Tensor):
        value = value.tolist()
    return tuple(nested(part) for part in value) if isinstance(value, tuple | list) else value


class Verdict(NamedTuple):
    """What an attack's points are worth, one entry per example."""

    predicted: Tensor
    """The model's answer at the returned point: a class, or the one after them for rejection."""

    legal: Tensor
    """Finite and within bounds."""

    success: Tensor
    """Legal and answered with a wrong class, at whatever distance."""

    fooled: Tensor
    """Answered with a wrong class within the threat model; a rejected point is not."""

    rejected: Tensor
    """Answered with rejection within the threat model."""

    distance: Tensor
    """Distance in the threat model's norm, float64."""

    own_distance: Tensor
    """Distance in the attack's own norm, float64."""

    lead: Tensor
    """Lead of the true class at a point within the threat model, float64.

    Infinite at other points, and where the logits have no difference (NaN, infinite).
    """

    @classmethod
    def of_nothing(cls, labels: Tensor) -> "Verdict":
        """The verdict on no examples, on the device of the labels."""
        no = torch.empty(0, dtype=torch.bool, device=labels.device)
        return cls(labels[:0], no, no, no, no, no.double(), no.double(), no.double())


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
    check_points(name, adversarial, inputs)
    points = adversarial.detach().to(inputs)
    rows = torch.arange(len(points), device=points.device)
    split = (each.split(batch_size) for each in (rows, points, inputs, labels))
    parts = [
        _verdict(model, p, x, y, threat.of(row), own_norm, dtype)
        for row, p, x, y in zip(*split, strict=True)
    ]
    return Verdict(*map(torch.cat, zip(*parts, strict=True)))


def _verdict(
    model: Model,
    points: Tensor,
    inputs: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    own_norm: Distance,
    dtype: torch.dtype,
) -> Verdict:
    """Judge a batch, which keeps the differences in double precision small."""
    legal = is_within_bounds(points, inputs, threat)
    # An illegal point may hold NaN; the model is asked about the clean input in its place.
    asked = torch.where(per_example(legal, inputs), points, inputs)
    logits = logits_of(model, asked, dtype, len(asked))
    success = legal & (opposed(model, logits, labels).argmax(dim=1) != labels)
    within = legal & is_within_epsilon(points, inputs, threat)
    delta = points.double() - inputs.double()
    lead = -margin_loss(logits, labels).double()
    return Verdict(
        predicted=logits.argmax(dim=1),
        legal=legal,
        success=success,
        fooled=success & within,
        rejected=refused(model, logits) & within,
        distance=lp_norm(delta, threat.norm),
        own_distance=lp_norm(delta, own_norm),
        lead=torch.where(within & ~lead.isnan(), lead, torch.inf),
    )


def check_points(name: str, adversarial: Any, inputs: Tensor) -> None:
    """Refuse what an attack returned if it is not one point per input."""
    if not isinstance(adversarial, Tensor):
        raise TypeError(
            f"attack {name!r} must return a torch.Tensor, got {type(adversarial).__name__}"
        )
    if adversarial.shape != inputs.shape:
        raise ValueError(
            f"attack {name!r} must return one point per input, shape {tuple(inputs.shape)}, "
            f"got {tuple(adversarial.shape)}"
        )


class Witness:
    """Remembers which examples were fooled by any point that an attack showed to ``model``.

    Rows are matched by their place; a row of another example is farther away than epsilon.
    """

    def __init__(self, model: Model, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> None:
        self.model = model
        self.inputs = inputs
        self.labels = labels
        self.threat = threat
        self.fooled = torch.zeros_like(labels, dtype=torch.bool)

    def __call__(self, points: Tensor, logits: Tensor) -> None:
        """Look at one question and its answer."""
        if points.shape != self.inputs.shape or len(logits) != len(points):
            return
        points = points.to(self.inputs)
        wrong = opposed(self.model, logits, self.labels).argmax(dim=1) != self.labels
        self.fooled |= (
            wrong
            & is_within_bounds(points, self.inputs, self.threat)
            & is_within_epsilon(points, self.inputs, self.threat)
        )


def is_within_bounds(points: Tensor, inputs: Tensor, threat: ThreatModel) -> Tensor:
    """Which points are finite, inside the bounds and changed by the mask alone, exactly: (n,)."""
    low, high = threat.box(inputs)
    return ((points >= low) & (points <= high)).flatten(1).all(dim=1)


def is_within_epsilon(points: Tensor, inputs: Tensor, threat: ThreatModel) -> Tensor:
    """Which points are inside the ball, up to one rounding of the inputs' dtype: (n,)."""
    distance = lp_norm(points.double() - inputs.double(), threat.norm)
    return distance <= threat.epsilon + _rounding(threat, inputs)


def _rounding(threat: ThreatModel, inputs: Tensor) -> float:
    """One rounding of every coordinate, measured in the norm; a count has none."""
    if threat.norm not in _EXPONENTS:
        return 0.0
    ends = [tensor_of(bound).abs().max().item() for bound in threat.bounds]
    largest = max(*ends, threat.epsilon)
    coordinates = inputs[0].numel() if len(inputs) else 1
    return torch.finfo(inputs.dtype).eps * largest * coordinates ** _EXPONENTS[threat.norm]
