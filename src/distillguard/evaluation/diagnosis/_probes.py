"""Probing with attacks of our own: each shows what another one missed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ... import attacks
from ..._geometry import ball, lp_norm, per_example
from ..._modes import dtype_of
from ..._random import example_keys
from ..._typing import Attack, Model
from .._judge import ThreatModel, judge
from .._ours import masked
from .._query import logits_of
from .._run import Run

STEPS = 20
"""Steps of the probing attacks: enough to converge on an undefended network."""

LONGER_STEPS = 100
"""Steps of the attack that must not find what the caller's attacks left."""

DRAWS = 50
"""Random points of the ball for each example."""

QUERIES = 200
"""Steps of the random search that needs no gradients."""


@dataclass
class Probe:
    """The sampled examples, and how to ask whether they withstand an attack."""

    run: Run
    inputs: Tensor
    labels: Tensor
    threat: ThreatModel
    """Theirs."""
    survivors: Tensor
    """Which examples have withstood everything so far, the caller's attacks included."""

    failed: dict[str, str] = field(default_factory=dict)
    """What could not be measured, and why."""

    def measured(self, name: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure something; an error costs this measurement, not those before and after it."""
        try:
            return ask()
        # The model and the surrogate are foreign code, which may raise anything.
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {error}"
            return {}

    def survivors_of(
        self, attack: Attack, chosen: Tensor | None = None, threat: ThreatModel | None = None
    ) -> Tensor:
        """Which examples withstand an attack; only the ``chosen`` ones are attacked."""
        if chosen is None:
            chosen = torch.ones_like(self.labels, dtype=torch.bool)
        survives = torch.ones_like(chosen)
        inputs, labels = self.inputs[chosen], self.labels[chosen]
        few = (threat or self.threat).of(chosen)
        if len(inputs):
            verdict = judge(
                self.run.model,
                "probe",
                masked(attack, few.mask)(self.run.model, inputs, labels),
                inputs,
                labels,
                threat=few,
                own_norm=self.run.threat.norm,
                dtype=dtype_of(self.run.model, inputs.dtype),
                batch_size=self.run.batch_size,
            )
            survives[chosen] = ~verdict.fooled
        if threat is None:
            self.survivors = self.survivors & survives
        return survives

    def budget(self, threat: ThreatModel | None = None) -> dict[str, Any]:
        """Arguments that all budget attacks take."""
        threat = threat or self.threat
        return {
            "epsilon": threat.epsilon,
            "norm": threat.norm,
            "bounds": threat.bounds,
            "batch_size": self.run.batch_size,
            "random_state": self.run.seed,
        }

    def pgd(self, loss: str, steps: int = STEPS, threat: ThreatModel | None = None) -> Attack:
        """PGD that follows gradients alone: what random points find is another question."""
        budget = self.budget(threat)
        return partial(attacks.pgd, loss=loss, steps=steps, redraw=False, **budget)


def losses(probe: Probe) -> tuple[Tensor, dict[str, Any]]:
    """Send one step and many up the cross-entropy and up the margin."""
    names = ("cross_entropy", "margin")
    cross, margin = (probe.survivors_of(probe.pgd(loss)) for loss in names)
    one_step = torch.ones_like(cross)
    for loss in names:
        one_step &= probe.survivors_of(partial(attacks.fgsm, loss=loss, **probe.budget()))
    iterative = cross & margin
    return iterative, {
        "cross_entropy_survivors": count(cross),
        "margin_survivors": count(margin),
        "only_margin": count(cross & ~margin),
        "only_cross_entropy": count(margin & ~cross),
        "only_one_step": count(iterative & ~one_step),
        "only_iterative": count(one_step & ~iterative),
    }


def budgets(probe: Probe, flat: Tensor) -> dict[str, Any]:
    """Give PGD on the margin the threat model's radius, twice that, and the whole range.

    The cross-entropy may try the wider radius too, where it is ``flat``.
    """
    threat = probe.threat
    low, high = threat.box(probe.inputs)
    whole = lp_norm((high - low).expand_as(probe.inputs), threat.norm).max().item()
    radii = [radius for radius in (threat.epsilon, 2 * threat.epsilon) if radius < whole]
    radii.append(whole)

    def stand(loss: str, radius: float, chosen: Tensor | None = None) -> Tensor:
        wider = threat._replace(epsilon=radius)
        return probe.survivors_of(probe.pgd(loss, threat=wider), chosen, wider)

    survives = [stand("margin", radius) for radius in radii]
    pairs = list(pairwise(survives))
    widest = max(len(radii) - 2, 0)
    only_margin = flat & ~survives[widest]
    return {
        "blind": count(only_margin & stand("cross_entropy", radii[widest], only_margin)),
        "blind_within": radii[widest],
        "budgets": tuple(radii),
        "budget_survivors": tuple(count(part) for part in survives),
        "budget_lost": tuple(count(wide & ~narrow) for narrow, wide in pairs),
        "budget_won": tuple(count(narrow & ~wide) for narrow, wide in pairs),
    }


def longer(probe: Probe, survivors: Tensor) -> dict[str, Any]:
    """Attack what the caller's attacks left, for longer than they usually run."""
    attack = probe.pgd("margin", LONGER_STEPS)
    return {"longer_fools": count(survivors & ~probe.survivors_of(attack, survivors))}


def random_points(probe: Probe, white_box: Tensor) -> dict[str, Any]:
    """What random points find among the examples that PGD left."""
    draw = partial(noise, probe.run, probe.threat.of(white_box))
    return {"only_noise": count(white_box & ~probe.survivors_of(draw, white_box))}


def random_search(probe: Probe, white_box: Tensor) -> dict[str, Any]:
    """What a random search finds among them."""
    search = partial(attacks.square, queries=QUERIES, **probe.budget())
    return {"only_black_box": count(white_box & ~probe.survivors_of(search, white_box))}


def noise(run: Run, threat: ThreatModel, model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return a random point of the ball that fools the model, of several drawn, or the input."""
    keys, (low, high) = example_keys(inputs, run.seed), threat.box(inputs)
    dtype = dtype_of(model, inputs.dtype)
    best = inputs
    for draw in range(DRAWS):
        delta = threat.epsilon * ball(threat.norm).sample(inputs, keys, draw, low < high)
        points = (inputs + delta).clamp(low, high)
        fooled = logits_of(model, points, dtype, run.batch_size).argmax(dim=1) != labels
        best = torch.where(per_example(fooled, inputs), points, best)
    return best


def transfer(probe: Probe, surrogate: Model, white_box: Tensor) -> dict[str, Any]:
    """What adversarial examples of another model find among the examples that PGD left."""

    def attack(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
        found = partial(attacks.pgd, loss="margin", steps=STEPS, early_stop=False, **probe.budget())
        return masked(found, probe.threat.of(white_box).mask)(surrogate, inputs, labels)

    return {"only_transfer": count(white_box & ~probe.survivors_of(attack, white_box))}


def count(chosen: Tensor) -> int:
    """How many examples are chosen."""
    return int(chosen.sum())
