"""Whether the model says the same of the same input, again and in another batch."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..._modes import dtype_of
from .._query import logits_of
from ._probes import Probe

PASSES = 5
"""How often a model is asked the same question (AutoAttack's flag for randomised models)."""


def randomness(probe: Probe) -> dict[str, Any]:
    """Ask the same question several times."""
    gap, changed = _apart([_logits(probe, probe.inputs) for _ in range(PASSES)])
    return {"logit_gap": gap, "changed": changed}


def batch_dependence(probe: Probe) -> dict[str, Any]:
    """Ask about each input in another batch: in reverse order, mirror images in between.

    Where every value is reflected in the middle of the bounds, whatever a batch is normalised by
    is another.
    """
    low, high = probe.threat.box(probe.inputs)
    mirrored = torch.where(low < high, low + high - probe.inputs, probe.inputs)
    mixed = torch.stack([probe.inputs.flip(0), mirrored.flip(0)], dim=1).flatten(0, 1)
    gap, changed = _apart([_logits(probe, probe.inputs), _logits(probe, mixed)[::2].flip(0)])
    return {"batch_gap": gap, "batch_changed": changed}


def _logits(probe: Probe, inputs: Tensor) -> Tensor:
    model, at_once = probe.run.model, max(2, probe.run.batch_size)
    return logits_of(model, inputs, dtype_of(model, inputs.dtype), at_once).double()


def _apart(answers: list[Tensor]) -> tuple[float, int]:
    """The largest distance of a normalised answer from the first, and the classes that changed."""
    units = torch.stack([normalize(logits, dim=1) for logits in answers])
    classes = torch.stack([logits.argmax(dim=1) for logits in answers])
    changed = (classes != classes[0]).any(dim=0)
    return (units - units[0]).norm(dim=2).max().item(), int(changed.sum())
