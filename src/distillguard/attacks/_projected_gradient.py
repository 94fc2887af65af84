"""The state machine behind PGD and FGSM: one step at a time, every iterate judged."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._geometry import ball, coarse_signs, per_example, size, unblocked, within_budget
from .._typing import Bounds, Loss, Model, Norm
from ._engine import value, value_and_gradient
from ._losses import success_margin


class PGDState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    inputs: Tensor
    labels: Tensor
    keys: Tensor
    current: Tensor
    velocity: Tensor
    best: Tensor
    best_margin: Tensor
    taken: Tensor
    """Gradient steps taken in this run; ``steps + 1`` once the last iterate is judged."""
    run: Tensor


@dataclass(frozen=True)
class ProjectedGradientDescent:
    """The state machine behind :func:`pgd` and :func:`fgsm`."""

    epsilon: float
    norm: Norm
    loss: Loss
    steps: int
    step_size: float
    step_decay: bool
    restarts: int
    random_start: bool | Literal["blocks"]
    redraw: bool
    momentum: float
    early_stop: bool
    judge_last: bool
    targeted: bool
    bounds: Bounds

    def start(self, inputs: Tensor, labels: Tensor, keys: Tensor) -> PGDState:
        """Place every example at its first iterate."""
        zeros = torch.zeros_like(labels)
        return PGDState(
            inputs=inputs,
            labels=labels,
            keys=keys,
            current=self.first_iterate(inputs, keys, zeros),
            velocity=torch.zeros_like(inputs)
            if self.momentum
            else inputs.new_empty(len(inputs), 0),
            best=inputs,
            best_margin=inputs.new_full((len(inputs),), -torch.inf),
            taken=zeros,
            run=zeros,
        )

    def step(self, model: Model, state: PGDState) -> PGDState:
        """Judge the current iterate and move to the next; the last one is only judged."""
        if bool((state.taken < self.steps).any()):
            logits, gradient = value_and_gradient(model, state.current, self.loss, state.labels)
        else:
            logits, gradient = value(model, state.current), torch.zeros_like(state.current)

        margin = success_margin(logits, state.labels, self.targeted).to(state.best_margin)
        better = margin > state.best_margin
        state = state._replace(
            best=torch.where(per_example(better, state.best), state.current, state.best),
            best_margin=torch.where(better, margin, state.best_margin),
            taken=state.taken + 1,
        )
        return self.restarted(self.moved(state, gradient))

    def done(self, state: PGDState) -> Tensor:
        """Fooled, or out of runs."""
        last = self.steps if self.judge_last else self.steps - 1
        over = (state.run == self.restarts - 1) & (state.taken > last)
        return over | (state.best_margin > 0) if self.early_stop else over

    def result(self, state: PGDState) -> Tensor:
        """Return the iterate of widest margin, or the one that nobody has judged."""
        if self.judge_last:
            return state.best
        fooled = per_example(state.best_margin > 0, state.best)
        return torch.where(fooled, state.best, state.current)

    def moved(self, state: PGDState, gradient: Tensor) -> PGDState:
        """Take one step of steepest ascent and come back into the ball and the bounds."""
        if self.momentum:
            scale = per_example(size(gradient, "l1"), gradient)
            unit = torch.where(scale > 0, gradient / scale, 0)
            gradient = self.momentum * state.velocity + unit
            state = state._replace(velocity=gradient)
        if self.norm == "l1":
            gradient = unblocked(gradient, state.current, self.bounds)
        direction = ball(self.norm).steepest(gradient)
        if self.step_decay:
            left = 1 - (state.taken - 1).clamp(max=self.steps) / self.steps
            direction = per_example(left.to(direction), direction) * direction
        ahead = state.current + self.step_size * direction
        ahead = within_budget(ahead, state.inputs, self.norm, self.epsilon, self.bounds)

        return self.redrawn(state._replace(current=ahead), size(direction, "linf") == 0)

    def redrawn(self, state: PGDState, stuck: Tensor) -> PGDState:
        """Where nothing moves, spend the steps that are left elsewhere; without a draw, end."""
        stuck = stuck & (state.taken <= self.steps)
        if not bool(stuck.any()):
            return state
        if not self.redraw:
            return state._replace(taken=torch.where(stuck, self.steps + 1, state.taken))
        draw = state.run + self.restarts * state.taken
        fresh = self.first_iterate(state.inputs, state.keys, draw)
        fresh = torch.where(per_example(stuck, fresh), fresh, state.current)
        return state._replace(current=fresh)

    def restarted(self, state: PGDState) -> PGDState:
        """Send the examples that finished a run without success to another start."""
        again = (state.taken > self.steps) & (state.run < self.restarts - 1)
        if self.restarts == 1 or not bool(again.any()):
            return state
        run = state.run + again.long()
        fresh = self.first_iterate(state.inputs, state.keys, run)
        velocity = state.velocity.masked_fill(per_example(again, state.velocity), 0)
        return state._replace(
            current=torch.where(per_example(again, fresh), fresh, state.current),
            velocity=velocity,
            taken=torch.where(again, 0, state.taken),
            run=run,
        )

    def first_iterate(self, inputs: Tensor, keys: Tensor, run: Tensor) -> Tensor:
        """Draw a point of the ball, another one for each run; or stay at the input."""
        if not self.random_start:
            return inputs
        blocks = self.random_start == "blocks"
        sample = coarse_signs if blocks else ball(self.norm).sample
        delta = self.epsilon * sample(inputs, keys, run)
        return within_budget(inputs + delta, inputs, self.norm, self.epsilon, self.bounds)
