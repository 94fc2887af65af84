"""The machine behind targeted FAB, in the order of algorithm 1 of Croce and Hein 2020."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import ball, per_example, size
from .._typing import Bounds, Model, Norm
from ._aims import aim_of_run, choose_aims, lead
from ._box_projection import step_to_hyperplane
from ._engine import replaced, rows, value, value_and_gradient
from ._losses import success_margin

SEARCH_STEPS = 3
"""Evaluations of the final search on the segment between the input and the result."""

BEYOND = 0.05
"""How far beyond the estimated boundary the final search looks, as a share of what is left."""


class FABState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    inputs: Tensor
    labels: Tensor
    keys: Tensor
    aims: Tensor
    """Classes that the runs move towards in turn: (n, n_targets)."""
    runs: Tensor
    """How many runs the example has; run number ``runs`` is the final search."""
    run: Tensor
    taken: Tensor
    """Steps taken in this run; ``steps + 1`` once it is over."""
    retreated: Tensor
    """Whether ``current`` is a success taken a share nearer to the input."""
    looks: Tensor
    """Whether no step is taken from ``current`` as it is, so that its gradient is not asked for."""
    current: Tensor
    best: Tensor
    """The nearest success."""
    best_distance: Tensor
    best_margin: Tensor
    inner: Tensor
    """The furthest point of the segment to ``best`` that is known to fail."""
    inner_margin: Tensor


@dataclass(frozen=True)
class FastAdaptiveBoundary:
    """The state machine behind :func:`fab_targeted`."""

    norm: Norm
    n_targets: int
    steps: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    stop_within: float
    targeted: bool
    bounds: Bounds

    def start(self, inputs: Tensor, labels: Tensor, keys: Tensor) -> FABState:
        """Place every example at itself, as if a run before the first had ended there."""
        whole = torch.zeros_like(labels)
        real = inputs.new_zeros(len(inputs), dtype=torch.promote_types(inputs.dtype, torch.float32))
        return FABState(
            inputs=inputs,
            labels=labels,
            keys=keys,
            aims=labels.new_zeros(len(labels), self.n_targets),
            runs=whole + self.restarts,
            run=whole - 1,
            taken=whole + self.steps,
            retreated=whole.bool(),
            looks=~whole.bool(),
            current=inputs,
            best=inputs,
            best_distance=real + torch.inf,
            best_margin=real,
            inner=inputs,
            inner_margin=real,
        )

    def step(self, model: Model, state: FABState) -> FABState:
        """Look at some points, step from the others."""
        for looks, move in ((state.looks, self.looked), (~state.looks, self.stepped)):
            places = looks.nonzero().squeeze(1)
            if len(places) == len(looks):
                return self.restarted(move(model, state))
            if len(places):
                state = replaced(state, places, move(model, rows(state, places)))
        return self.restarted(state)

    def looked(self, model: Model, state: FABState) -> FABState:
        """Judge the current point: the input, one that has probably fooled, or a run's last."""
        logits = value(model, state.current)
        state, margin = self.judged(self.aimed(state, logits), logits)
        x, searching, last = state.current, state.run == state.runs, state.taken >= self.steps
        retreat = (margin > 0) & ~searching & ~last
        following = torch.where(per_example(retreat, x), self.back(state), x)
        following = torch.where(per_example(searching, x), self.on_segment(state), following)
        return state._replace(
            current=following,
            retreated=retreat,
            looks=searching,
            taken=state.taken + (searching | last),
        )

    def stepped(self, model: Model, state: FABState) -> FABState:
        """Step to the linearised boundary; from a success that comes unexpected, retreat first."""
        logits, gradient = value_and_gradient(
            model, state.current, lambda logits, _: self.lead(logits, state), state.labels
        )
        state, margin = self.judged(state, logits)
        retreat = (margin > 0) & ~state.retreated
        following = self.linearised(state, logits, gradient)
        following = torch.where(per_example(retreat, following), self.back(state), following)

        # Where nothing moves any more the run is over.
        idle = ~retreat & (size(following - state.current, "linf") == 0)
        taken = torch.where(idle, self.steps + 1, state.taken + ~retreat)
        return state._replace(
            current=following,
            retreated=retreat,
            # Once across the boundary, a step from behind it mostly leads across again.
            looks=~retreat & (state.retreated | (taken >= self.steps)),
            taken=taken,
        )

    def done(self, state: FABState) -> Tensor:
        """Near enough, or through with all runs and the final search."""
        failed = state.best_distance.isinf()
        over = (state.run == state.runs) & ((state.taken >= SEARCH_STEPS) | failed)
        return over | (state.best_distance <= self.stop_within)

    def result(self, state: FABState) -> Tensor:
        """Return the nearest success, or the input."""
        return state.best

    def lead(self, logits: Tensor, state: FABState) -> Tensor:
        """What is linearised: positive across the boundary to the aim. (n,)."""
        aim = aim_of_run(state.aims, state.run, state.runs // self.restarts)
        return lead(logits, state.labels, aim, self.targeted)

    def aimed(self, state: FABState, logits: Tensor) -> FABState:
        """At the first look choose the aims."""
        first = state.run < 0
        if not bool(first.any()):
            return state
        aims, count = choose_aims(logits, state.labels, self.n_targets, self.targeted)
        return state._replace(
            aims=torch.where(first[:, None], aims, state.aims),
            runs=torch.where(first, count * self.restarts, state.runs),
        )

    def judged(self, state: FABState, logits: Tensor) -> tuple[FABState, Tensor]:
        """Keep the nearest success, and on the way to it the furthest failure; also the margin."""
        margin = success_margin(logits, state.labels, self.targeted).to(state.best_margin)
        distance = size(state.current - state.inputs, self.norm).to(state.best_distance)
        nearer = (margin > 0) & (distance < state.best_distance)
        inner = (margin <= 0) & ((state.run < 0) | (state.run == state.runs))
        kept = state._replace(
            best=torch.where(per_example(nearer, state.best), state.current, state.best),
            best_distance=torch.where(nearer, distance, state.best_distance),
            best_margin=torch.where(nearer, margin, state.best_margin),
            inner=torch.where(per_example(inner, state.inner), state.current, state.inner),
            inner_margin=torch.where(inner, margin, state.inner_margin),
        )
        return kept, margin

    def linearised(self, state: FABState, logits: Tensor, gradient: Tensor) -> Tensor:
        """Step to the hyperplane where the linearised lead vanishes, pulled to the input."""
        x, inputs = state.current, state.inputs
        # A rounding error of the pixels beyond the boundary, so that a tie is left too.
        ulp = torch.finfo(x.dtype).eps * max(map(abs, self.bounds))
        gap = ulp * size(gradient, "l1") - self.lead(logits, state)
        gap_of_inputs = gap + (gradient * (x - inputs)).flatten(1).sum(dim=1)
        delta = step_to_hyperplane(x, gradient, gap, self.norm, self.bounds)
        delta_of_inputs = step_to_hyperplane(
            inputs, gradient, gap_of_inputs, self.norm, self.bounds
        )

        length = size(delta, self.norm)
        both = length + size(delta_of_inputs, self.norm)
        alpha = torch.where(both > 0, length / both, 0).clamp(max=self.alpha_max)
        alpha = per_example(alpha, x)
        following = (1 - alpha) * (x + self.eta * delta)
        following = following + alpha * (inputs + self.eta * delta_of_inputs)
        return following.clamp(*self.bounds)

    def back(self, state: FABState) -> Tensor:
        """Nearer to the input by a share."""
        return state.inputs + self.beta * (state.current - state.inputs)

    def restarted(self, state: FABState) -> FABState:
        """Send the examples whose run is over to the next, after the last to the final search."""
        again = (state.taken > self.steps) & (state.run < state.runs)
        places = again.nonzero().squeeze(1)
        if not len(places):
            return state
        ended = rows(state, places)
        ended = ended._replace(
            run=ended.run + 1,
            taken=torch.zeros_like(ended.taken),
            retreated=torch.zeros_like(ended.retreated),
            looks=ended.run + 1 == ended.runs,
        )
        last = per_example(ended.run == ended.runs, ended.current)
        first = torch.where(last, self.on_segment(ended), self.first_iterate(ended))
        return replaced(state, places, ended._replace(current=first))

    def first_iterate(self, state: FABState) -> Tensor:
        """Start at the input, in later rounds at a random point half as far as the best."""
        half_width = (self.bounds[1] - self.bounds[0]) / 2
        radius = size(torch.full_like(state.inputs, half_width), self.norm)
        radius = torch.minimum(state.best_distance.to(radius), radius) / 2
        if self.stop_within:
            radius = radius.clamp(max=self.stop_within / 2)
        radius = radius.masked_fill(state.run < state.runs // self.restarts, 0)
        delta = ball(self.norm).sample(state.inputs, state.keys, state.run)
        return (state.inputs + per_example(radius, delta) * delta).clamp(*self.bounds)

    def on_segment(self, state: FABState) -> Tensor:
        """Where the margin, if it were linear, would vanish between failure and success."""
        share = state.inner_margin / (state.inner_margin - state.best_margin)
        share = per_example(share + BEYOND * (1 - share), state.inner).to(state.inner)
        return (state.inner + share * (state.best - state.inner)).clamp(*self.bounds)
