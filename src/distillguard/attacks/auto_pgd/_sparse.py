"""Auto-PGD in l1, where steps move few coordinates (Croce and Hein 2021, algorithm 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._geometry import lp_norm, per_example
from ..._l1 import project, steepest_step
from .._engine import put, select, take
from ._checkpoints import stages
from ._machine import APGDState, AutoPGD, unchanged

CHECKED_EVERY = 0.04
"""Share of a stage between two checkpoints."""

FIRST_SUPPORT = 0.15
"""Share of the coordinates free to move that count as moved in the beginning."""

SPARSER = 3.0
"""By which the number of moved coordinates is divided for the next steps."""

SETTLED = 0.95
"""Share of the moved coordinates below which a peak has lost some."""

SHORTER, SHORTEST = 1.5, 100.0
"""What a step size is divided by at a checkpoint at least, and the radius at most."""


@dataclass(frozen=True)
class SparseAutoPGD(AutoPGD):
    """Auto-PGD in l1 (Croce and Hein 2021, algorithm 1), where steps move few coordinates.

    A run begins in a ball three times as large, goes on in one twice as large from the projection
    of what it found there, and ends in that of the budget.
    """

    def keep_widest(self, state: APGDState, logits: Tensor) -> APGDState:
        """Keep the iterate of widest margin; those of the larger balls do not count."""
        kept = super().keep_widest(state, logits)
        counts = self.radius(state.step) == self.epsilon
        return kept._replace(
            best=select(counts, kept.best, state.best),
            best_margin=torch.where(counts, kept.best_margin, state.best_margin),
        )

    def halve_at_checkpoint(self, state: APGDState, gradient: Tensor) -> tuple[APGDState, Tensor]:
        """At a checkpoint set the step size by whether the best point has lost coordinates.

        If it has, steps are long again, from the best point; if not, shorter.
        """
        begun, ended = stages(self.steps, state.step.device)[:2, state.step].long()
        period = (CHECKED_EVERY * (ended - begun)).long().clamp(min=1)
        here = (state.step > begun) & ((state.step - begun) % period == 0)
        support = lp_norm(state.best_point - state.examples.inputs, "l0").to(state.support)
        fewer = here & (support < SETTLED * state.support)
        radius = self.radius(state.step).to(state.step_size)
        # A short stage has to come down to the shortest step too.
        divisor = (SHORTEST ** (period / (ended - begun))).clamp(min=SHORTER)
        shorter = torch.maximum(state.step_size / divisor, radius / SHORTEST).to(radius)
        state = state._replace(
            step_size=torch.where(here, torch.where(fewer, radius, shorter), state.step_size),
            support=torch.where(here, support, state.support),
        )
        current = select(fewer, state.best_point, state.current)
        return state._replace(current=current), select(fewer, state.best_gradient, gradient)

    def ascend(self, state: APGDState, gradient: Tensor) -> APGDState:
        """Take a step, or enter the next ball; where nothing moves any more, the stage is over."""
        x, (inputs, low, high) = state.current, box(state)
        spread = (state.support / SPARSER).clamp(min=1)
        step = steepest_step(x, gradient, state.step_size, low, high, spread)
        radius = self.radius(state.step)
        following = project(x + step, inputs, radius, low, high)

        idle = unchanged(following, x) & unchanged(state.best_point, x)
        ended = stages(self.steps, state.step.device)[1, state.step].long()
        number = torch.where(idle, ended, state.step + 1)
        state = state._replace(current=following, previous=x, step=number)
        rows = ((number == ended) & (number <= self.steps)).nonzero().squeeze(1)
        return put(state, rows, self.enter_stage(take(state, rows))) if len(rows) else state

    def enter_stage(self, state: APGDState) -> APGDState:
        """Continue in the next ball from the projection of the best point."""
        inputs, low, high = box(state)
        first = project(state.best_point, inputs, self.radius(state.step), low, high)
        support = lp_norm(first - inputs, "l0").to(state.support)
        return self.placed(state, first)._replace(support=support)

    def start_run(self, state: APGDState) -> APGDState:
        """Start from normal noise, projected, as the authors' code does.

        Noise as wide as the box comes down to few coordinates, to others in every run; a point
        drawn evenly from the ball moves all of them by next to nothing.
        """
        inputs, low, high = box(state)
        state = state._replace(step=torch.zeros_like(state.step))
        radius = self.radius(state.step)
        width = torch.minimum(high - low, per_example(radius, inputs)).to(inputs)
        noise = width * state.examples.sample_normal(state.run)
        first = project(inputs + noise, inputs, radius, low, high)

        free = state.examples.free.expand_as(inputs).flatten(1).sum(dim=1)
        return self.placed(state, first)._replace(support=(FIRST_SUPPORT * free).to(state.support))

    def placed(self, state: APGDState, first: Tensor) -> APGDState:
        """Climb from a first point on, with steps as long as the ball's radius."""
        return state._replace(
            current=first,
            previous=first,
            loss=torch.full_like(state.loss, torch.inf),
            best_point=first,
            best_loss=torch.full_like(state.loss, -torch.inf),
            step_size=self.radius(state.step).to(state.step_size),
        )

    def radius(self, step: Tensor) -> Tensor:
        """Radius of the ball that an iterate belongs to: (n,)."""
        return self.epsilon * stages(self.steps, step.device)[2, step.clamp(max=self.steps)]


def box(state: APGDState) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs and their lowest and highest values."""
    return state.examples.inputs, state.examples.low, state.examples.high
