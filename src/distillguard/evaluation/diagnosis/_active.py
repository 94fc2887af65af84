"""The active test: whether attacks find an adversarial example that is there by construction.

Zimmermann, Brendel, Tramer and Carlini, "Increasing Confidence in Adversarial Robustness
Evaluations", NeurIPS 2022. The network is kept up to its last layer; for each image a new last
layer tells points near the image from one point on the edge of the ball.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..._geometry import ball, lp, lp_norm, project_to_budget
from ..._modes import dtype_of
from ..._random import example_keys, normal
from ..._typing import Distance, Model
from ...exceptions import NoGradientError
from .._judge import ThreatModel, judge
from .._ours import masked
from .._presets import AttackSpec
from .._query import QueryCounter, logits_of
from ._observations import Observations
from ._probe import Probe
from ._thresholds import falls_short

IMAGES = 32
"""Images that the attacks are tested on."""

INNER, OUTER = 15, 8
"""Points near the image and random ones of the whole ball, which keep its class. Without the second
a readout of few points errs on others of the ball, and most images are left out in l2."""

NEAR = 0.5
"""Radius within which the first lie, as a share of epsilon."""

BORDER = 0.8
"""Where the boundary lies between them and a point on the edge of the ball: nearer to the point,
or random ones cross it too."""

RANDOM = 24
"""Further random points of the ball, none of which may be an adversarial example."""

GROUP = 16
"""Images that are tested at once."""

EXPECTED = 0.95
"""Share of the images whose adversarial example an attack that works finds."""

DECIDED = 8
"""Images after which a test may end early."""

RIDGE = 1e-3
"""Weight of the readout's size, as a share of the features' own."""


def active_test(probe: Probe, specs: Mapping[str, AttackSpec]) -> Observations:
    """Give some images an adversarial example each, and let the attacks look for it."""
    waiting = apart(probe)
    left_out = len(probe.inputs) - len(waiting)
    tested = found = 0
    while len(waiting) and tested < IMAGES:
        rows, waiting = waiting.tensor_split([min(GROUP, IMAGES - tested)])
        group = prepared(probe, rows)
        found += hits(probe, group.model, rows[group.kept], specs)
        tested += len(group.kept)
        left_out += len(rows) - len(group.kept)
        if tested >= DECIDED and falls_short(found, tested, EXPECTED):
            break
    return Observations(active_tested=tested, active_left_out=left_out, active_found=found)


def apart(probe: Probe) -> Tensor:
    """Places of images whose balls do not meet: a point then tells whose it is."""
    kept: list[int] = []
    for row in range(len(probe.inputs)):
        gaps = probe.inputs[kept] - probe.inputs[row]
        if not kept or bool((lp_norm(gaps, probe.threat.norm) > 2 * probe.threat.epsilon).all()):
            kept.append(row)
    return torch.tensor(kept, dtype=torch.long, device=probe.inputs.device)


class Group(NamedTuple):
    """Images with a new last layer each."""

    model: Model
    kept: Tensor
    """Places in the group of the images that have an adversarial example which is hard to find."""


def prepared(probe: Probe, rows: Tensor) -> Group:
    """Fit a last layer for each image, and see that random points do not solve it."""
    x, labels, threat = probe.inputs[rows], probe.labels[rows], probe.threat.of(rows)
    model, size = probe.run.model, probe.run.batch_size
    dtype = dtype_of(model, x.dtype)
    keys = example_keys(x, probe.run.seed + 1)  # none of the attacks' own points
    edge, near, around = points(x, keys, threat)
    near, around = torch.cat([near, around[:, :OUTER]], dim=1), around[:, OUTER:]
    shown = torch.cat([x[:, None], near, edge[:, None], around], dim=1)
    known = 1 + near.shape[1]  # then comes the point on the edge
    logits, features, layer = seen_by_last_layer(model, shown.flatten(0, 1), dtype, size)
    features, logits = (part.view(len(x), -1, part.shape[1]) for part in (features, logits))
    readouts = [
        fitted(seen[: known + 1], own[0], int(label))
        for seen, own, label in zip(features, logits, labels, strict=True)
    ]
    readout = stacked(readouts, features, logits.shape[2])
    subject = Rewired(model, layer, readout, x, threat.norm)
    lead = (features * readout.weight[:, None]).sum(dim=2) + readout.offset[:, None]
    right = lead > 0  # what the last layer makes of features that are known
    hard = right[:, 0] & ~right[:, known] & right[:, known + 1 :].all(dim=1)
    fits = torch.tensor([each is not None for each in readouts], device=hard.device)
    return Group(subject, (hard & fits).nonzero().squeeze(1))


def hits(probe: Probe, subject: Model, rows: Tensor, specs: Mapping[str, AttackSpec]) -> int:
    """On how many images one of the attacks, run in turn, finds an adversarial example."""
    left = rows
    for name, spec in specs.items():
        if not len(left):
            break
        x, labels, threat = probe.inputs[left], probe.labels[left], probe.threat.of(left)
        try:
            returned = masked(spec.attack, threat.mask)(subject, x.clone(), labels.clone())
        except NoGradientError:
            continue
        verdict = judge(
            subject,
            name,
            returned,
            x,
            labels,
            threat=threat,
            own_norm=spec.norm,
            dtype=dtype_of(probe.run.model, x.dtype),
            batch_size=probe.run.batch_size,
        )
        left = left[~verdict.fooled]
    return len(rows) - len(left)


def points(x: Tensor, keys: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor, Tensor]:
    """For each image (n, ...): a point on the edge of the ball, points near it, and all over it.

    The first is (n, ...), the others (n, k, ...).
    """
    low, high = (bound.expand_as(x) for bound in threat.box(x))
    free = low < high

    def drawn(number: int, radius: float, start: int) -> Tensor:
        rows = torch.arange(len(x), device=x.device).repeat_interleave(number)
        counters = start + torch.arange(number, device=x.device).repeat(len(x))
        delta = radius * ball(lp(threat.norm)).sample(x[rows], keys[rows], counters, free[rows])
        return (x[rows] + delta).clamp(low[rows], high[rows]).view(len(x), number, *x.shape[1:])

    away = normal(keys, INNER + OUTER + RANDOM, x[0].numel(), torch.float64).view_as(x).to(x)
    far = x + 1e3 * threat.epsilon * torch.where(free, away, 0)
    edge = project_to_budget(far, x, threat.norm, threat.epsilon, low, high)
    return (
        edge,
        drawn(INNER, NEAR * threat.epsilon, 0),
        drawn(OUTER + RANDOM, threat.epsilon, INNER),
    )


def seen_by_last_layer(
    model: QueryCounter, asked: Tensor, dtype: torch.dtype, batch_size: int
) -> tuple[Tensor, Tensor, nn.Linear | None]:
    """Output and input of the last linear layer, and the layer; or the logits twice, and None."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def called(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        calls.append((layer, given[0], output))  # type: ignore[arg-type]

    handles = []
    if isinstance(model.model, nn.Module):
        for module in model.model.modules():
            if isinstance(module, nn.Linear):
                with suppress(Exception):  # a frozen program takes no hooks
                    handles.append(module.register_forward_hook(called))
    try:
        answers = [logits_of(model, part, dtype, len(part)) for part in asked.split(batch_size)]
    finally:
        for handle in handles:
            handle.remove()
    logits = torch.cat(answers)
    last = calls[-1][0] if calls else None
    given = [part for layer, part, _ in calls if layer is last]
    output = [part for layer, _, part in calls if layer is last]
    fits = all(part.ndim == 2 for part in given) and sum(map(len, given)) == len(logits)
    if last is not None and fits and output[0].shape[1:] == logits.shape[1:]:
        return torch.cat(output), torch.cat(given), last
    return logits, logits, None


class Readout(NamedTuple):
    """A last layer with two classes of the network's, all others out of reach."""

    weight: Tensor
    """(d,), or (n, d) of several images."""
    offset: Tensor
    rest: Tensor
    """Logit of all other classes."""
    signs: Tensor
    """By class: 1/2 for the label, -1/2 for the other class, 0 for the rest."""


def stacked(readouts: Sequence[Readout | None], features: Tensor, n_classes: int) -> Readout:
    """Put readouts together, in the dtype of ``features`` (n, k, d); None says nothing."""
    nothing = features.new_zeros((), dtype=torch.float64)
    classes = nothing.expand(n_classes)
    blank = Readout(nothing.expand(features.shape[2]), nothing, nothing, classes)
    columns = zip(*[each or blank for each in readouts], strict=True)
    return Readout(*(torch.stack(column).to(features) for column in columns))


def fitted(features: Tensor, own: Tensor, label: int) -> Readout | None:
    """Separate the last row of ``features`` (k, d) from the others, in the range of the logits.

    The first row is the image, whose label keeps the lead that it has in its ``own`` logits.
    Otherwise the softmax, and what it does to gradients, would be another than the network's.
    """
    features, own = features.double(), own.double()
    relative = features - features[0]
    target = torch.zeros_like(relative[:, 0])
    target[-1] = -1
    gram = relative @ relative.T
    ridge = RIDGE * gram.diagonal().mean()
    if not bool(gram.isfinite().all()) or ridge <= 0:
        return None
    weight = relative.T @ torch.linalg.solve(
        gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), target
    )
    lead = relative @ weight
    inner, edge = lead[:-1].min(), lead[-1]
    others = own.clone()
    others[label] = -torch.inf
    margin, reach = own[label] - others.max(), own.max() - own.min()
    if edge >= inner or margin <= 0:
        return None
    offset = -(inner + BORDER * (edge - inner))
    scale = margin / offset
    signs = torch.zeros_like(own)
    signs[label], signs[others.argmax()] = 0.5, -0.5
    return Readout(
        scale * weight, scale * (offset - features[0] @ weight), margin / 2 - reach, signs
    )


class Rewired(nn.Module):
    """A model with another last layer for each image, which a point has of the image it is near."""

    answers_logits = True
    """As those of the model."""

    def __init__(
        self,
        model: QueryCounter,
        layer: nn.Linear | None,
        readout: Readout,
        images: Tensor,
        norm: Distance,
    ) -> None:
        super().__init__()
        self.model, self.layer, self.facts = model, layer, model.facts
        self.readout, self.images, self.norm = readout, images, norm

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits in the place of the last layer's, or of the model's own."""
        points = inputs.detach().to(self.images)
        distances = [lp_norm(points - image, self.norm) for image in self.images]
        nearest = torch.stack(distances).argmin(dim=0)
        weight, offset, rest, signs = (part[nearest] for part in self.readout)

        def read(features: Tensor) -> Tensor:
            lead = (features * weight.to(features)).sum(dim=1) + offset.to(features)
            return torch.where(signs == 0, rest[:, None].to(lead), signs.to(lead) * lead[:, None])

        if self.layer is None:
            return read(self.model(inputs))
        handle = self.layer.register_forward_hook(lambda _, given, output: read(given[0]))
        try:
            logits: Tensor = self.model(inputs)
        finally:
            handle.remove()
        return logits
