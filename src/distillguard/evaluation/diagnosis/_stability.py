"""Whether the model says the same of the same input, again and in another batch."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..._modes import dtype_of
from .._query import logits_of
from ._observations import Observations
from ._probe import Probe, count


def randomness(probe: Probe, chosen: Tensor, passes: int) -> Observations:
    """Ask the same question several times."""
    asked = probe.inputs[chosen]
    gap, changed = _apart([_logits(probe, asked) for _ in range(passes)])
    return Observations(asked=len(asked), logit_gap=gap, changed=changed)


def batch_dependence(probe: Probe, chosen: Tensor) -> Observations:
    """Ask about each input in another batch: in reverse order, mirror images in between.

    Where every value is reflected in the middle of the bounds, whatever a batch is normalised by
    is another.
    """
    asked = probe.inputs[chosen]
    low, high = (bound[chosen] for bound in probe.threat.box(probe.inputs))
    mirrored = torch.where(low < high, low + high - asked, asked)
    mixed = torch.stack([asked.flip(0), mirrored.flip(0)], dim=1).flatten(0, 1)
    gap, changed = _apart([_logits(probe, asked), _logits(probe, mixed)[::2].flip(0)])
    return Observations(batch_gap=gap, batch_changed=changed)


def _logits(probe: Probe, inputs: Tensor) -> Tensor:
    model, at_once = probe.run.model, max(2, probe.run.batch_size)
    return logits_of(model, inputs, dtype_of(model, inputs.dtype), at_once).double()


def _apart(answers: list[Tensor]) -> tuple[float, int]:
    """The largest distance of a normalised answer from the first, and the classes that changed."""
    units = torch.stack([normalize(logits, dim=1) for logits in answers])
    classes = torch.stack([logits.argmax(dim=1) for logits in answers])
    changed = (classes != classes[0]).any(dim=0)
    return (units - units[0]).norm(dim=2).max().item(), count(changed)
