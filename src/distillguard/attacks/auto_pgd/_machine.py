"""The state machine of Auto-PGD (Croce and Hein 2020, algorithm 1), in linf and l2."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..._geometry import ball, lp_norm, per_example
from ..._typing import Norm
from .._engine import Query, logits_and_gradient, put, select, take
from .._examples import Examples
from .._losses import success_margin
from ._checkpoints import checkpoint_periods

MOMENTUM = 0.75
"""Share of the new direction in a step; the rest is momentum."""


class APGDState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    targets: Tensor
    """Classes that the runs move towards in turn, (n, n_targets); none without targets."""
    runs: Tensor
    """How many runs the example has."""
    run: Tensor
    step: Tensor
    """Gradient steps taken in this run; ``steps + 1`` once the last iterate is judged."""
    current: Tensor
    previous: Tensor
    loss: Tensor
    """Of ``current``; f in algorithm 1."""
    best_point: Tensor
    """The run's highest, x_max."""
    best_loss: Tensor
    """And its loss, f_max."""
    best_gradient: Tensor
    loss_at_checkpoint: Tensor
    """What ``best_loss`` was at the last checkpoint."""
    n_improved: Tensor
    """Steps since the last checkpoint that raised the loss."""
    was_halved: Tensor
    """Whether the last checkpoint halved the step size."""
    step_size: Tensor
    support: Tensor
    """In l1: how many coordinates of the best point had moved at the last checkpoint."""
    best: Tensor
    """Of all runs, the iterate of widest margin."""
    best_margin: Tensor


@dataclass(frozen=True)
class AutoPGD:
    """The state machine behind :func:`apgd` and, with targets, :func:`apgd_targeted`."""

    epsilon: float
    norm: Norm
    objective: Callable[[Tensor, APGDState], Tensor]
    """From logits and state to the loss to ascend: (n,)."""
    steps: int
    restarts: int
    rho: float
    early_stop: bool
    targeted: bool

    def start(self, examples: Examples) -> APGDState:
        """Place every example at a random point of its ball."""
        inputs, labels = examples.inputs, examples.labels
        whole = torch.zeros_like(labels)
        real = inputs.new_zeros(len(inputs))
        blank = APGDState(
            examples=examples,
            targets=labels.new_empty(len(labels), 0),
            runs=whole + self.restarts,
            run=whole,
            step=whole,
            current=inputs,
            previous=inputs,
            loss=real,
            best_point=inputs,
            best_loss=real,
            best_gradient=torch.zeros_like(inputs),
            loss_at_checkpoint=real,
            n_improved=whole,
            was_halved=whole.bool(),
            step_size=real,
            support=real,
            best=inputs,
            best_margin=real - torch.inf,
        )
        return self.start_run(blank)

    def step(self, model: Query, state: APGDState) -> APGDState:
        """Judge the current iterate, move to the next; the last of a run is only judged."""
        logits, gradient = logits_and_gradient(
            model,
            state.examples,
            state.current,
            lambda logits, _: self.objective(logits, state),
            moving=state.step < self.steps,
        )
        state = self.keep_widest(state, logits)
        state = self.record_loss(state, self.objective(logits, state), gradient)
        state = self.ascend(*self.halve_at_checkpoint(state, gradient))
        return self.restart(state)

    def done(self, state: APGDState) -> Tensor:
        """Fooled, or out of runs."""
        over = (state.run == state.runs - 1) & (state.step > self.steps)
        return over | (state.best_margin > 0) if self.early_stop else over

    def result(self, state: APGDState) -> Tensor:
        """Return the iterate of widest margin."""
        return state.best

    def keep_widest(self, state: APGDState, logits: Tensor) -> APGDState:
        """Keep the iterate of widest margin."""
        margin = success_margin(logits, state.examples, self.targeted).to(state.best_margin)
        better = margin > state.best_margin
        return state._replace(
            best=select(better, state.current, state.best),
            best_margin=torch.where(better, margin, state.best_margin),
        )

    def record_loss(self, state: APGDState, loss: Tensor, gradient: Tensor) -> APGDState:
        """Update f_max and x_max (lines 4 and 9), and count the steps that went up."""
        loss = loss.to(state.loss)
        higher = loss > state.best_loss
        return state._replace(
            n_improved=state.n_improved + (loss > state.loss),
            loss=loss,
            best_point=select(higher, state.current, state.best_point),
            best_loss=torch.where(higher, loss, state.best_loss),
            best_gradient=select(higher, gradient, state.best_gradient),
        )

    def halve_at_checkpoint(self, state: APGDState, gradient: Tensor) -> tuple[APGDState, Tensor]:
        """Where k is in W and condition 1 or 2 holds, halve the step and go to x_max (line 11)."""
        period = checkpoint_periods(self.steps, state.step.device)[state.step]
        here = period >= 0
        few_improved = state.n_improved < self.rho * period
        stalled = ~state.was_halved & (state.best_loss == state.loss_at_checkpoint)
        halve = here & (few_improved | stalled)

        state = state._replace(
            step_size=torch.where(halve, state.step_size / 2, state.step_size),
            n_improved=torch.where(here, 0, state.n_improved),
            was_halved=torch.where(here, halve, state.was_halved),
            loss_at_checkpoint=torch.where(here, state.best_loss, state.loss_at_checkpoint),
        )
        if not bool(halve.any()):
            return state, gradient
        current = select(halve, state.best_point, state.current)
        return state._replace(current=current), select(halve, state.best_gradient, gradient)

    def ascend(self, state: APGDState, gradient: Tensor) -> APGDState:
        """Take a step with momentum (lines 7 and 8); where nothing moves, the run is over."""
        x, previous = state.current, state.previous
        share = per_example(torch.where(state.step > 0, MOMENTUM, 1.0).to(x), x)
        step = per_example(state.step_size.to(x), x) * ball(self.norm).steepest(gradient)
        ahead = self.project(x + step, state.examples)
        following = x + share * (ahead - x) + (1 - share) * (x - previous)
        following = self.project(following, state.examples)

        # Elsewhere than at its best point the run will still be taken up there.
        idle = unchanged(following, x)
        if bool(idle.any()):
            idle &= unchanged(previous, x) & unchanged(state.best_point, x)
        return state._replace(
            current=following,
            previous=x,
            step=torch.where(idle, self.steps + 1, state.step + 1),
        )

    def restart(self, state: APGDState) -> APGDState:
        """Send the examples whose run is over to their next one."""
        again = (state.step > self.steps) & (state.run < state.runs - 1)
        rows = again.nonzero().squeeze(1)
        if not len(rows):
            return state
        ended = take(state, rows)
        return put(state, rows, self.start_run(ended._replace(run=ended.run + 1)))

    def start_run(self, state: APGDState) -> APGDState:
        """Forget the run before and start from a random point of the ball (line 2)."""
        delta = self.epsilon * state.examples.sample(self.norm, state.run)
        first = self.project(state.examples.inputs + delta, state.examples)
        return state._replace(
            step=torch.zeros_like(state.step),
            current=first,
            previous=first,
            loss=torch.full_like(state.loss, torch.inf),
            best_point=first,
            best_loss=torch.full_like(state.loss, -torch.inf),
            loss_at_checkpoint=torch.full_like(state.loss, -torch.inf),
            n_improved=torch.zeros_like(state.n_improved),
            was_halved=torch.zeros_like(state.was_halved),
            step_size=torch.full_like(state.step_size, 2 * self.epsilon),
        )

    def project(self, candidate: Tensor, examples: Examples) -> Tensor:
        """Come back into the ball and the bounds: P_S of algorithm 1."""
        return examples.project(candidate, self.norm, self.epsilon)


def unchanged(points: Tensor, others: Tensor) -> Tensor:
    """Which examples are the same in both: (n,)."""
    # A norm, since all(dim=1) is many times slower.
    return lp_norm(points - others, "linf") == 0
