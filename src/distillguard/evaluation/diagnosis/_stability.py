"""Whether the model says the same of the same input, again and in another batch."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..._geometry import random_point
from ..._modes import borrowed, dtype_of
from ..._random import example_keys, uniform
from ..._ruled_out import ruled_out
from .._judge import ThreatModel
from .._query import QueryCounter, logits_of
from .._unasked import has_changed, twin
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
    """Compare the answers of a model that was asked something with those of one that was not.

    First the model itself, near the inputs, with a copy that was asked nothing since the beginning.
    It may have been asked about the inputs before that: so then two copies, near points of the box
    that only one of them has just been asked about. A model that no question changes cannot
    remember anything.
    """
    nothing, run, asked = Observations(recalled=0, remembered=0), probe.run, probe.inputs[chosen]
    if run.unasked is None or not len(asked):
        return nothing
    first = run.model.around(run.unasked)
    anywhere = random_values(asked, probe.threat.of(chosen), run.seed)
    try:
        found = torch.zeros_like(probe.labels[chosen], dtype=torch.bool)
        changed = has_changed(run.unasked, run.model.model)
        if changed:
            found = differing(probe, chosen, asked, run.model, first)
        if not bool(found.any()):
            again = twin(run.unasked.model)
            later = run.model.around(again)
            _answers(later, anywhere if changed else anywhere[:1], probe)
            if not has_changed(run.unasked, again):
                return nothing
            _answers(later, anywhere, probe)
            found = differing(probe, chosen, anywhere, later, first)
    except Exception:  # a copy that does not work, as of what is registered somewhere
        return nothing
    return Observations(recalled=len(asked), remembered=count(found))


def differing(
    probe: Probe, chosen: Tensor, asked: Tensor, later: QueryCounter, first: QueryCounter
) -> Tensor:
    """Near which of the points asked about two models answer otherwise: (n,) bool."""
    threat, keys = probe.threat.of(chosen), example_keys(asked, probe.run.seed)
    draw = random_point(asked, keys, 0, threat.norm, threat.epsilon, *threat.box(asked))
    found = torch.zeros(len(asked), dtype=torch.bool, device="cpu")
    for share in SHARES:
        points = asked + share * (draw - asked)
        now, before = (unit(_answers(model, points, probe)) for model in (later, first))
        found |= ((now - before).norm(dim=1) > REPEAT_GAP).cpu()
    return found


def random_values(inputs: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Points of the whole box, one for each input."""
    low, high = threat.box(inputs)
    drawn = uniform(example_keys(inputs, seed), 1, inputs[0].numel(), torch.float64)
    return (low + (high - low) * drawn.view_as(inputs).to(inputs)).expand_as(inputs)


def _answers(model: QueryCounter, points: Tensor, probe: Probe) -> Tensor:
    """Logits, with the same random numbers for both models."""
    with borrowed(model, probe.run.seed):
        dtype = dtype_of(model, points.dtype)
        return logits_of(model, points, dtype, probe.run.batch_size).double()


def _logits(probe: Probe, inputs: Tensor) -> Tensor:
    model, at_once = probe.run.model, max(2, probe.run.batch_size)
    return logits_of(model, inputs, dtype_of(model, inputs.dtype), at_once).double()


def unit(logits: Tensor) -> Tensor:
    """Computed logits over their length."""
    return normalize(logits.masked_fill(ruled_out(logits), 0), dim=1)


def _apart(answers: list[Tensor]) -> tuple[float, int]:
    """The largest distance of a normalised answer from the first, and the classes that changed."""
    units = torch.stack([unit(logits) for logits in answers])
    classes = torch.stack([logits.argmax(dim=1) for logits in answers])
    changed = (classes != classes[0]).any(dim=0)
    return (units - units[0]).norm(dim=2).max().item(), count(changed)
