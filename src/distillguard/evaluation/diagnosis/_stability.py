"""Whether the model says the same of the same input, again and in another batch."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..._geometry import random_point
from ..._modes import borrowed, dtype_of
from ..._random import example_keys
from .._query import QueryCounter, logits_of
from .._unasked import has_changed
from ._observations import Observations
from ._probe import Probe, count
from ._thresholds import REPEAT_GAP

SHARES = (1.0, 0.25, 0.0625)
"""How far from an input a model is asked what it remembers, as shares of the radius."""


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


def memory(probe: Probe, chosen: Tensor) -> Observations:
    """Ask about points near the inputs, beside a copy that was asked nothing before.

    A model that has not changed since cannot remember anything.
    """
    run, asked = probe.run, probe.inputs[chosen]
    if run.unasked is None or not has_changed(run.unasked, run.model.model):
        return Observations(recalled=0, remembered=0)
    other, threat = run.model.around(run.unasked), probe.threat.of(chosen)
    keys = example_keys(asked, run.seed)
    draw = random_point(asked, keys, 0, threat.norm, threat.epsilon, *threat.box(asked))
    found = torch.zeros_like(probe.labels[chosen], dtype=torch.bool)
    for share in SHARES:
        points = asked + share * (draw - asked)
        now = _answers(run.model, points, probe)
        try:
            first = _answers(other, points, probe)
        except Exception:  # a copy that does not work, as of what is registered somewhere
            return Observations(recalled=0, remembered=0)
        found |= (normalize(now, dim=1) - normalize(first, dim=1)).norm(dim=1) > REPEAT_GAP
    return Observations(recalled=len(asked), remembered=count(found))


def _answers(model: QueryCounter, points: Tensor, probe: Probe) -> Tensor:
    """Logits, with the same random numbers for both models."""
    with borrowed(model, probe.run.seed):
        dtype = dtype_of(model, points.dtype)
        return logits_of(model, points, dtype, probe.run.batch_size).double()


def _logits(probe: Probe, inputs: Tensor) -> Tensor:
    model, at_once = probe.run.model, max(2, probe.run.batch_size)
    return logits_of(model, inputs, dtype_of(model, inputs.dtype), at_once).double()


def _apart(answers: list[Tensor]) -> tuple[float, int]:
    """The largest distance of a normalised answer from the first, and the classes that changed."""
    units = torch.stack([normalize(logits, dim=1) for logits in answers])
    classes = torch.stack([logits.argmax(dim=1) for logits in answers])
    changed = (classes != classes[0]).any(dim=0)
    return (units - units[0]).norm(dim=2).max().item(), count(changed)
