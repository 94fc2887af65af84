"""The L2 attack of Carlini and Wagner (2017) as published: a binary search over c."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..._geometry import lp_norm, per_example
from .._engine import Query, select
from .._examples import Examples
from ._published import TanhObjective, adam, in_tanh_space

SEARCH_STEPS = 9
FIRST_C = 1e-3
GROWTH = 10.0
"""Of c, until a first success."""
RATE = 1e-2
CHECKS = 10
"""How often a run looks whether its loss still falls."""
STALLED = 0.9999
"""A run ends whose loss is above this share of that at the check before."""


class SearchState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    search_step: Tensor
    c: Tensor
    lower: Tensor
    """The largest c that failed."""
    upper: Tensor
    """The smallest that succeeded."""
    found: Tensor
    """Whether this c has succeeded."""
    step: Tensor
    """Iterates judged with this c."""
    checked_loss: Tensor
    w: Tensor
    mean: Tensor
    square: Tensor
    best: Tensor
    best_distance: Tensor


@dataclass(frozen=True)
class BinarySearch:
    """The state machine behind ``carlini_wagner_l2(algorithm="paper")``."""

    steps: int
    objective: TanhObjective
    stop_within: float = 0.0
    """Done with an example as soon as it is fooled at no more than this distance."""

    def start(self, examples: Examples) -> SearchState:
        """Begin at the input with a small c."""
        inputs, labels = examples.inputs, examples.labels
        each = inputs.new_zeros(len(inputs))
        return SearchState(
            examples=examples,
            search_step=torch.zeros_like(labels),
            c=torch.full_like(each, FIRST_C),
            lower=each,
            upper=torch.full_like(each, torch.inf),
            found=torch.zeros_like(labels, dtype=torch.bool),
            step=torch.zeros_like(labels),
            checked_loss=torch.full_like(each, torch.inf),
            w=self.objective.to_tanh(examples, inputs),
            mean=torch.zeros_like(inputs),
            square=torch.zeros_like(inputs),
            best=inputs,
            best_distance=torch.full_like(each, torch.inf),
        )

    def step(self, model: Query, state: SearchState) -> SearchState:
        """Judge the current iterate and take a step; the last iterate of a c is only judged."""
        judged = self.objective.judge(model, state.examples, state.w)
        distance = lp_norm(judged.delta, "l2")
        closer = judged.reached & (distance < state.best_distance)
        loss = distance**2 + state.c * judged.f
        check = state.step % max(self.steps // CHECKS, 1) == 0
        stalled = check & (loss > STALLED * state.checked_loss)
        state = state._replace(
            found=state.found | judged.reached,
            step=state.step + 1,
            checked_loss=torch.where(check, loss, state.checked_loss),
            best=select(closer, judged.point, state.best),
            best_distance=torch.where(closer, distance, state.best_distance),
        )

        by_delta = 2 * judged.delta + per_example(state.c, judged.delta) * judged.slope
        gradient = in_tanh_space(by_delta, state.w, state.examples)
        w, mean, square = adam(gradient, state.w, state.mean, state.square, state.step, RATE)
        moved = state._replace(w=w, mean=mean, square=square)
        over = stalled | (state.step > self.steps)
        return self.searched(moved, over) if bool(over.any()) else moved

    def done(self, state: SearchState) -> Tensor:
        """Out of values of c, or near enough: where nothing is to stop, there at the beginning."""
        there = state.best_distance * state.examples.scale <= self.stop_within
        return (state.search_step >= SEARCH_STEPS) | there

    def result(self, state: SearchState) -> Tensor:
        """Return the closest iterate with the wanted margin; the input where there is none."""
        return state.best

    def searched(self, state: SearchState, over: Tensor) -> SearchState:
        """Start the examples whose run is over again, with the next c."""
        lower = torch.where(state.found, state.lower, torch.maximum(state.lower, state.c))
        upper = torch.where(state.found, torch.minimum(state.upper, state.c), state.upper)
        fresh = state._replace(
            search_step=state.search_step + 1,
            c=torch.where(upper.isinf(), GROWTH * state.c, (lower + upper) / 2),
            lower=lower,
            upper=upper,
            found=torch.zeros_like(state.found),
            step=torch.zeros_like(state.step),
            checked_loss=torch.full_like(state.checked_loss, torch.inf),
            w=self.objective.to_tanh(state.examples, state.examples.inputs),
            mean=torch.zeros_like(state.mean),
            square=torch.zeros_like(state.square),
        )
        return select(over, fresh, state)
