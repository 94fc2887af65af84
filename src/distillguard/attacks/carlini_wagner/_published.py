"""What the attacks of Carlini and Wagner (2017) share as published: f6, tanh space and Adam.

Distances are measured in widths of the bounds, for which the published constants are made.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..._geometry import lp_norm, per_example
from ..._typing import Distance
from ...functional import margin_loss
from .._engine import Query, logits_and_gradient, select
from .._examples import Examples
from .._losses import success_margin

SHRINKAGE = 0.999999
"""Bounds lie at infinity in tanh space; points are drawn this much towards the middle."""
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Adam's, as its paper recommends."""
SUCCESS = 1e-4
"""Of the attacks that stop at the first success: what f may fall short by."""
FACTOR = 2.0
"""And what c is multiplied by after a failure."""


class Judged(NamedTuple):
    """The model's answer at an iterate; every tensor's first axis is the example."""

    point: Tensor
    delta: Tensor
    """In widths of the bounds."""
    f: Tensor
    """How much of the wanted margin is missing: f6 with confidence (section V-A)."""
    slope: Tensor
    """Of f along ``delta``."""
    reached: Tensor


@dataclass(frozen=True)
class TanhObjective:
    """What all iterates of an attack are judged by."""

    confidence: float
    targeted: bool
    extra_margin: float = 0.0
    """Margin that f asks for beyond the confidence."""

    def to_tanh(self, examples: Examples, points: Tensor) -> Tensor:
        """Return w at points within bounds (section V-B)."""
        share = (points - examples.low) / examples.width
        return torch.atanh((2 * share - 1).clamp(-1, 1) * SHRINKAGE)

    def from_tanh(self, examples: Examples, w: Tensor) -> Tensor:
        """Return the points at w: the change that w makes, added to the exact input."""
        origin = self.to_tanh(examples, examples.inputs)
        change = (w.tanh() - origin.tanh()) * examples.width / 2
        return examples.clamp(examples.inputs + change)

    def judge(self, model: Query, examples: Examples, w: Tensor) -> Judged:
        """Ask the model about the iterates."""
        point = self.from_tanh(examples, w)
        logits, gradient = logits_and_gradient(model, examples, point, self.margin)
        margin = success_margin(logits, examples, self.targeted)

        scale = per_example(examples.scale, point)
        delta = (point - examples.inputs) / scale
        f = (self.confidence + self.extra_margin - margin).clamp(min=0)
        active = per_example(f > 0, gradient)
        return Judged(
            point=point,
            delta=delta,
            f=f.to(delta),
            slope=torch.where(active, -gradient * scale, 0).to(delta),
            reached=(margin >= self.confidence) & (margin > 0),
        )

    def margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How far the objective is reached: ascended. (n,)."""
        margin = margin_loss(logits, labels)
        return -margin if self.targeted else margin


def in_tanh_space(gradient: Tensor, w: Tensor, examples: Examples) -> Tensor:
    """Turn a gradient by delta into one by w."""
    return gradient * (1 - w.tanh() ** 2) / 2 * examples.relative_width


def adam(
    gradient: Tensor, w: Tensor, mean: Tensor, square: Tensor, age: Tensor, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one step; ``age`` (n,) counts the steps of each example, this one included."""
    mean = BETA1 * mean + (1 - BETA1) * gradient
    square = BETA2 * square + (1 - BETA2) * gradient**2
    age = age.to(w)
    rates = rate * (1 - BETA2**age).sqrt() / (1 - BETA1**age)
    return w - per_example(rates, w) * mean / (square.sqrt() + EPS), mean, square


class ConstrainedState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    limit: Tensor
    """What the perturbation is allowed."""
    exhausted: Tensor
    """Whether no tighter limit is left to try."""
    c: Tensor
    step: Tensor
    """Iterates judged with this c."""
    w: Tensor
    mean: Tensor
    square: Tensor
    age: Tensor
    """Adam's: its steps since the limit was tightened."""
    best: Tensor
    best_distance: Tensor


class Limit(Protocol):
    """What an attack tightens after each success, and what it minimises meanwhile."""

    @property
    def norm(self) -> Distance:
        """The distance."""

    @property
    def rate(self) -> float:
        """Adam's learning rate."""

    @property
    def first_c(self) -> float:
        """Where c begins."""

    @property
    def largest_c(self) -> float:
        """From where on an example is given up."""

    def loosest(self, examples: Examples) -> Tensor:
        """Allow everything."""

    def gradient(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Gradient of the objective by delta."""

    def is_satisfied(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Which iterates keep to the limit: (n,)."""

    def tightened(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Return a tighter limit than the one that the iterates keep to."""

    def exhausted(self, limit: Tensor) -> Tensor:
        """Which limits are not worth another run: (n,)."""

    def restart_point(self, point: Tensor, inputs: Tensor, limit: Tensor) -> Tensor:
        """Where a run starts that follows the success at ``point``."""


@dataclass(frozen=True)
class ShrinkingConstraint:
    """The state machine: solve under a limit, tighten it, start again from the solution.

    While there is no solution, c doubles and Adam keeps its state. c never goes down again, so
    that an attack costs at most ``steps`` iterates for each value of c and for each limit.
    """

    limit: Limit
    steps: int
    objective: TanhObjective

    def start(self, examples: Examples) -> ConstrainedState:
        """Begin at the input, with everything allowed."""
        inputs, labels = examples.inputs, examples.labels
        limit = self.limit.loosest(examples)
        each = inputs.new_zeros(len(inputs))
        return ConstrainedState(
            examples=examples,
            limit=limit,
            exhausted=self.limit.exhausted(limit),
            c=torch.full_like(each, self.limit.first_c),
            step=torch.zeros_like(labels),
            w=self.objective.to_tanh(examples, inputs),
            mean=torch.zeros_like(inputs),
            square=torch.zeros_like(inputs),
            age=torch.zeros_like(labels),
            best=inputs,
            best_distance=torch.full_like(each, torch.inf),
        )

    def step(self, model: Query, state: ConstrainedState) -> ConstrainedState:
        """Judge the current iterate; tighten the limit if it solves, otherwise take a step."""
        judged = self.objective.judge(model, state.examples, state.w)
        distance = lp_norm(judged.delta, self.limit.norm)
        closer = judged.reached & (distance < state.best_distance)
        state = state._replace(
            best=select(closer, judged.point, state.best),
            best_distance=torch.where(closer, distance, state.best_distance),
            step=state.step + 1,
            age=state.age + 1,
        )
        solved = judged.reached & self.limit.is_satisfied(judged, state)

        gradient = in_tanh_space(self.limit.gradient(judged, state), state.w, state.examples)
        w, mean, square = adam(
            gradient, state.w, state.mean, state.square, state.age, self.limit.rate
        )
        failed = state.step >= self.steps
        moved = state._replace(
            w=w,
            mean=mean,
            square=square,
            c=torch.where(failed, FACTOR * state.c, state.c),
            step=torch.where(failed, 0, state.step),
        )
        return self.tightened(judged, state, moved, solved) if bool(solved.any()) else moved

    def done(self, state: ConstrainedState) -> Tensor:
        """Out of limits or of values of c, or there before the first step."""
        given_up = state.c >= self.limit.largest_c
        return state.exhausted | given_up | (state.best_distance == 0)

    def result(self, state: ConstrainedState) -> Tensor:
        """Return the closest iterate with the wanted margin; the input where there is none."""
        return state.best

    def tightened(
        self, judged: Judged, state: ConstrainedState, moved: ConstrainedState, solved: Tensor
    ) -> ConstrainedState:
        """Start the examples that are solved again, under a tighter limit."""
        limit, examples = self.limit.tightened(judged, state), state.examples
        fresh = state._replace(
            limit=limit,
            exhausted=self.limit.exhausted(limit),
            step=torch.zeros_like(state.step),
            w=self.objective.to_tanh(
                examples, self.limit.restart_point(judged.point, examples.inputs, limit)
            ),
            mean=torch.zeros_like(state.mean),
            square=torch.zeros_like(state.square),
            age=torch.zeros_like(state.age),
        )
        return select(solved, fresh, moved)
