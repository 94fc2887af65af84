"""How an adversarial example of few changes loses more of them: one at a time, or two for one.

The L0 attack of Carlini and Wagner (2017, section VI-B) forbids the change that matters least and
attacks again with the others. So does this: a change is taken back, and if the margin is lost
with it, the others go as far as the bounds allow. Where no single change can go, two make room
for one elsewhere.
"""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._engine import select
from .._examples import Examples

SINGLE, PAIRED = 32, 12
"""Of how many changes, those that matter least, each is taken back, and each pair."""
TRIES = 2, 3
"""Points that a trial may judge: of one change taken back, of two."""


def _trials() -> Tensor:
    """Ranks to take back, (n_trials, 2), the least important first; a single is there twice."""
    pairs = sorted(itertools.combinations(range(PAIRED), 2), key=lambda pair: (sum(pair), pair[1]))
    return torch.tensor([*((rank, rank) for rank in range(SINGLE)), *pairs], device="cpu")


TRIALS = _trials()


class Trial(NamedTuple):
    """What each example tries; every tensor's first axis is the example."""

    number: Tensor
    """A row of TRIALS; before the first -1, after the last their number."""
    judged: Tensor
    """Points of this trial that were judged, and failed."""
    importance: Tensor
    """Of the best example's changes, (n, ...): slope times change; infinite where none is."""
    allowed: Tensor
    """Coordinates that the trial may change, (n, ...) bool."""

    @classmethod
    def none(cls, inputs: Tensor, labels: Tensor) -> "Trial":
        """No example tries anything yet."""
        return cls(
            number=torch.full_like(labels, -1),
            judged=torch.zeros_like(labels),
            importance=torch.full_like(inputs, math.inf),
            allowed=torch.zeros_like(inputs, dtype=torch.bool),
        )

    @property
    def over(self) -> Tensor:
        """Which have tried everything. (n,)."""
        return self.number >= len(TRIALS)

    def rank_changes(self, fewer: Tensor, slope: Tensor, delta: Tensor) -> "Trial":
        """Start anew from each example that has ``fewer`` changes than the best so far."""
        importance = torch.where(delta != 0, (slope * delta).abs(), math.inf)
        importance = select(fewer, importance, self.importance)
        number = torch.where(fewer, -1, self.number)
        return self._replace(importance=importance, number=number)


@dataclass(frozen=True)
class Pruning:
    """The moves."""

    examples: Examples

    def moved(
        self, trial: Trial, best: Tensor, current: Tensor, slope: Tensor
    ) -> tuple[Trial, Tensor]:
        """Return the next points to judge, after ``current`` and the margin's ``slope`` there."""
        inputs, low, high = self.examples.inputs, self.examples.low, self.examples.high
        ranks = TRIALS.to(inputs.device)[trial.number.clamp(0, len(TRIALS) - 1)]
        pair = ranks[:, 0] != ranks[:, 1]
        judged = trial.judged + 1
        again = (trial.number >= 0) & (judged < torch.where(pair, TRIES[1], TRIES[0]))

        allowed = trial.allowed
        added = again & pair & (judged == 1)
        if bool(added.any()):
            grown = allowed | self.promising(trial, slope)
            allowed = select(added, grown, allowed)
        farthest = torch.where(slope > 0, high, torch.where(slope < 0, low, current))
        pushed = torch.where(allowed, farthest, inputs)

        following, without = self.plan_next_run(trial)
        allowed = select(again, allowed, without)
        fresh = torch.where(without, best, inputs)
        trial = trial._replace(
            number=torch.where(again, trial.number, following),
            judged=torch.where(again, judged, 0),
            allowed=allowed,
        )
        return trial, select(again, pushed, fresh)

    def promising(self, trial: Trial, slope: Tensor) -> Tensor:
        """Mark the unchanged coordinate that could raise the margin most. (n, ...) bool."""
        inputs, low, high = self.examples.inputs, self.examples.low, self.examples.high
        room = torch.where(slope > 0, high - inputs, inputs - low).to(slope)
        gain = (room * slope.abs()).masked_fill(trial.importance.isfinite(), -1).flatten(1)
        chosen = torch.zeros_like(gain, dtype=torch.bool)
        return chosen.scatter(1, gain.argmax(dim=1, keepdim=True), True).view_as(inputs)

    def plan_next_run(self, trial: Trial) -> tuple[Tensor, Tensor]:
        """Return the next trial, (n,), and which coordinates it may change."""
        trials = TRIALS.to(trial.number.device)
        weights = trial.importance.flatten(1)
        changes = weights.isfinite().sum(dim=1, keepdim=True)
        numbers = torch.arange(len(trials), device=trials.device)
        # The last change of all cannot be taken back: the input itself is no success.
        possible = (
            (trials.amax(dim=1) < changes) & (changes > 1) & (numbers > trial.number[:, None])
        )
        number = torch.where(possible, numbers, len(trials)).amin(dim=1)

        count = min(SINGLE, weights.shape[1])
        order = weights.topk(count, dim=1, largest=False).indices
        ranks = trials[number.clamp(max=len(trials) - 1)].clamp(max=count - 1)
        without = weights.isfinite().scatter(1, order.gather(1, ranks), False)
        return number, without.view_as(trial.allowed)
