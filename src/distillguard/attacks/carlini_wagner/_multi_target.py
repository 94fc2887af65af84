"""What the attacks of Carlini and Wagner (2017) share: a race between the likeliest classes.

The closest adversarial example often lies in another class than the one that the logits of the
clean input name first. So the likeliest classes race, and with them all classes together, by
a smooth maximum: each candidate is descended to for a few steps, the two that came closest are
descended further from there, and the closest to the end. An example that the first steps leave
without success leaves the race: it is searched for one, and descended from there.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..._geometry import ball, lp_norm, per_example
from ..._ruled_out import magnitude
from ..._typing import Distance
from .._engine import Query, logits_and_gradient, select
from .._examples import Examples
from .._losses import success_margin
from ._runs import (
    ALTERNATE_EVERY,
    CANDIDATES,
    CAREFUL_STEPS,
    SEARCH_AFTER,
    SHORTER,
    Run,
)

SMOOTHNESS = 0.1
"""Temperature of the smooth maximum of all rivals, relative to the margin of the clean logits:
at 0.1 about that of the softmax in an undefended network, and T times it in a distilled one."""
LEAST_REACH = 1e-3
"""The least distance that a slope is believed to foretell, as a share of the farthest."""
PATIENCE, GROWTH = 8, 1.3
"""After so many iterates of a run that reaches nothing, each further one multiplies the reach:
where the slope falls on the way, the boundary lies farther than it foretells."""
PRUNE_RATIO = 1.3
"""A class that came no closer than this many times the closest is given up."""
COLD_STEP, WARM_STEP = 1.0, 0.3
"""The first step of a run, relative to the distance: from the input, from an earlier result."""
FAR = 0.01
"""Share of the farthest distance from which on a boundary that the slope foretells is too far, if
the first iterates have not reached it. Where the slope foretells too little, the run goes on."""
SWEEP, FIRST_LIMIT = 22, 0.05
"""Iterates in which the limit of a search grows from this share of the bounds' width to 1."""
SEARCH_DECAY = 0.7
"""Steps as long as the limit lead to the closest starts; shorter ones, with a target and from sweep
to sweep, go by the mean of the gradients with this weight of the past, which reaches more."""


class DescentState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    targets: Tensor
    """The candidates, (n, CANDIDATES): a class; the label itself for all rivals together; or -1."""
    temperature: Tensor
    distances: Tensor
    """The closest that each has come, (n, CANDIDATES)."""
    points: Tensor
    """And where, (n, CANDIDATES, ...)."""
    run: Tensor
    candidate: Tensor
    """Whose run it is: a column of the three tables."""
    current: Tensor
    """The iterate, in the space of the descent."""
    mean: Tensor
    square: Tensor
    first_step: Tensor
    boundary_distance: Tensor
    """The distance to the boundary as far as this run knows it, which scales the steps."""
    best: Tensor
    best_distance: Tensor
    misses: Tensor
    """Iterates in a row, up to this one, without the wanted margin."""
    step: Tensor
    """Iterates judged in this run."""


class Descent(Protocol):
    """How one norm is made small."""

    @property
    def norm(self) -> Distance:
        """The distance."""

    @property
    def dual(self) -> Distance:
        """The norm by which a gradient bounds the change of the logits."""

    def enter(self, examples: Examples, points: Tensor) -> Tensor:
        """Take points of the input space to the space of the descent."""

    def leave(self, examples: Examples, current: Tensor) -> Tensor:
        """Take iterates back; one that never moved is exactly its input."""

    def moved(
        self, state: DescentState, delta: Tensor, gradient: Tensor, relative: Tensor
    ) -> DescentState:
        """Take one step of ``relative`` length."""


@dataclass(frozen=True)
class MultiTargetDescent:
    """The state machine behind the attacks."""

    descent: Descent
    runs: tuple[Run, ...]
    confidence: float
    targeted: bool
    stop_within: float = 0.0
    """Done with an example as soon as it is fooled at no more than this distance."""

    def start(self, examples: Examples) -> DescentState:
        """Place every example at its input."""
        inputs, labels = examples.inputs, examples.labels
        far = self.farthest(examples)
        columns = inputs[:, None].expand(-1, CANDIDATES, *inputs.shape[1:])
        zeros = torch.zeros_like(labels)
        return DescentState(
            examples=examples,
            targets=labels.new_full((len(labels), CANDIDATES), -1),
            temperature=torch.ones_like(far),
            distances=far.new_full((len(labels), CANDIDATES), math.inf),
            points=columns.contiguous(),
            run=zeros,
            candidate=zeros,
            current=self.descent.enter(examples, inputs),
            mean=torch.zeros_like(inputs),
            square=torch.zeros_like(far),
            first_step=torch.full_like(far, COLD_STEP),
            boundary_distance=LEAST_REACH * far,
            best=inputs,
            best_distance=torch.full_like(far, math.inf),
            misses=zeros,
            step=zeros,
        )

    def step(self, model: Query, state: DescentState) -> DescentState:
        """Judge the current iterate and move on; the last of a run is only judged."""
        before, examples = state, state.examples
        point = self.descent.leave(examples, state.current)
        logits, gradient = logits_and_gradient(
            model, examples, point, lambda logits, labels: self.logit_gap(logits, labels, state)
        )
        state = self.init_candidates(logits, state)
        lacking = (self.confidence - self.logit_gap(logits, examples.labels, state)).to(
            state.boundary_distance
        )
        missing = self.confidence - success_margin(logits, examples, self.targeted)
        reached = (missing <= 0) & (missing < self.confidence)

        delta = point - examples.inputs
        gradient = examples.feasible(gradient.to(delta), point)
        distance = lp_norm(delta, self.descent.norm)
        linearised = lacking.clamp(min=0) / lp_norm(gradient, self.descent.dual)
        cold = (state.step == 0) & state.best_distance.isinf()
        closer = reached & (distance < state.best_distance)
        known = torch.where(cold, linearised.fmax(state.boundary_distance), state.boundary_distance)
        lost = state.best_distance.isinf() & ~reached & (state.misses >= PATIENCE)
        known = torch.where(lost, GROWTH * known, known).fmin(self.farthest(examples))
        state = state._replace(
            boundary_distance=torch.where(closer, distance, known),
            best=select(closer, point, state.best),
            best_distance=torch.where(closer, distance, state.best_distance),
            misses=torch.where(reached, 0, state.misses + 1),
            step=state.step + 1,
        )
        relative = self.relative_step(state)
        moved = self.descent.moved(state, delta, gradient, relative)
        state = self.searched(before, moved, delta, gradient)
        over = self.over(state)
        return self.next_run(state, over) if bool(over.any()) else state

    def over(self, state: DescentState) -> Tensor:
        """Whether the run is at its end, or in vain and better followed by a search."""
        over = state.step >= self.of_run([run.length for run in self.runs], state)
        if self.targeted or not self.runs[-1].search:
            return over
        return over | self.in_vain(state)

    def in_vain(self, state: DescentState) -> Tensor:
        """Whether a first run has reached nothing and is to be followed by a search."""
        nothing = (state.run == 0) & state.best_distance.isinf()
        if self.targeted:
            return nothing
        far = state.boundary_distance >= FAR * self.farthest(state.examples)
        return nothing & far & (state.step == SEARCH_AFTER)

    def searched(
        self, before: DescentState, state: DescentState, delta: Tensor, gradient: Tensor
    ) -> DescentState:
        """Where a search has reached nothing, go by signs within a limit that grows instead.

        Where a network answers to large changes of a coordinate only, the slope is that of the
        few that are past their thresholds. It foretells a boundary beyond the bounds, and steps
        so long go to and fro between their corners. Signs move every coordinate that answers.
        """
        searched = self.searching(before)
        if not bool(searched.any()):
            return state
        examples = state.examples
        sweep, place = (state.step - 1) // SWEEP, (state.step - 1) % SWEEP
        place = place.to(delta) / (SWEEP - 1)
        limit = per_example(FIRST_LIMIT ** (1 - place), delta) * (examples.high - examples.low)
        stride = self.of_run([run.stride for run in self.runs], state).to(delta)
        stride = stride * SHORTER ** sweep.to(delta)
        decay = per_example(torch.where(stride < 1, SEARCH_DECAY, 0.0).to(delta), delta)
        mean = torch.lerp(ball("l2").steepest(gradient), before.mean, decay)
        ahead = delta + per_example(stride, delta) * limit * mean.sign()
        within = torch.minimum(torch.maximum(ahead, -limit), limit)
        point = examples.clamp(examples.inputs + within)

        current = self.descent.enter(examples, point)
        still = per_example(searched & state.best_distance.isinf(), delta)
        # The descent from a success begins without momentum.
        mean = torch.where(still, mean, 0)
        return state._replace(
            current=torch.where(still, current, state.current),
            mean=select(searched, mean, state.mean),
        )

    def searching(self, state: DescentState) -> Tensor:
        """Whether the run goes by signs and has reached nothing so far."""
        signs = self.of_run([run.stride > 0 for run in self.runs], state)
        return signs & state.best_distance.isinf()

    def done(self, state: DescentState) -> Tensor:
        """Out of runs, or near enough: where nothing is to stop early, there from the beginning."""
        there = state.best_distance.isfinite() & (state.best_distance <= self.stop_within)
        return (state.run == len(self.runs)) | there

    def result(self, state: DescentState) -> Tensor:
        """Return the closest point of all; the input where there is none."""
        distances, column = state.distances.min(dim=1)
        # Of a run that was stopped, the tables do not know yet.
        return select(state.best_distance < distances, state.best, _column(state.points, column))

    def logit_gap(self, logits: Tensor, labels: Tensor, state: DescentState) -> Tensor:
        """How far the candidate leads the labelled class: ascended. (n,)."""
        state = self.init_candidates(logits.detach(), state)
        target = _column(state.targets, state.candidate)
        temperature = state.temperature.to(logits)[:, None]
        rivals = logits.scatter(1, labels[:, None], -math.inf)
        together = temperature.squeeze(1) * (rivals / temperature).logsumexp(dim=1)
        if self.targeted:
            # Two rivals on both sides of the way throw the iterates to and fro between them.
            turn = state.best_distance.isinf() & (state.step // ALTERNATE_EVERY % 2 == 1)
            turn = turn | self.searching(state)  # Without turns more targets are reached.
            return _column(logits, labels) - torch.where(turn, together, rivals.amax(dim=1))
        alone = _column(logits, target)
        return torch.where(target == labels, together, alone) - _column(logits, labels)

    def init_candidates(self, logits: Tensor, state: DescentState) -> DescentState:
        """Name the candidates and the temperature, which the very first evaluation tells."""
        fresh = (state.run == 0) & (state.step == 0)
        if not bool(fresh.any()):
            return state
        candidates = state.examples.labels[:, None]
        rivals = logits.scatter(1, candidates, -math.inf)
        if not self.targeted and logits.shape[1] > 2:
            likeliest = rivals.topk(min(CANDIDATES, logits.shape[1]) - 1, dim=1).indices
            candidates = torch.cat([candidates, likeliest], dim=1)
        candidates = nn.functional.pad(candidates, (0, CANDIDATES - candidates.shape[1]), value=-1)

        margin = success_margin(logits, state.examples, self.targeted).abs()
        # The second term is far below any margin that matters; it keeps the quotient finite.
        temperature = SMOOTHNESS * margin + 1e-6 * magnitude(logits)
        temperature = temperature.clamp(min=torch.finfo(logits.dtype).tiny).to(state.temperature)
        return state._replace(
            targets=torch.where(fresh[:, None], candidates, state.targets),
            temperature=torch.where(fresh, temperature, state.temperature),
        )

    def relative_step(self, state: DescentState) -> Tensor:
        """Geometric from the run's first step to its last."""
        last = self.of_run([run.last_step for run in self.runs], state).to(state.boundary_distance)
        moves = self.of_run([max(run.length - 2, 1) for run in self.runs], state)
        share = ((state.step - 1) / moves).to(last)
        return state.first_step * (last / state.first_step) ** share

    def of_run(self, values: list[int] | list[float] | list[bool], state: DescentState) -> Tensor:
        """Return each example's entry for its run."""
        return torch.tensor(values, device=state.run.device)[state.run]

    def next_run(self, state: DescentState, over: Tensor) -> DescentState:
        """Enter the result of the runs that are over and send their examples on the next."""
        racing = torch.arange(CANDIDATES, device=over.device) == state.candidate[:, None]
        entered = racing & over[:, None]
        wide = entered.reshape(*entered.shape, *(1,) * (state.best.ndim - 1))
        distances = torch.where(entered, state.best_distance[:, None], state.distances)
        points = torch.where(wide, state.best[:, None], state.points)

        following, candidate = self.plan_next_run(state, distances)
        distance, point = _column(distances, candidate), _column(points, candidate)
        first_step = torch.where(distance.isinf(), COLD_STEP, WARM_STEP)
        small = [run.stride > 0 or (run.search and not run.opening) for run in self.runs]
        careful = torch.tensor([*small, False], device=over.device)[following]
        first_step = torch.where(careful, CAREFUL_STEPS[0], first_step)
        fresh = state._replace(
            run=following,
            candidate=candidate,
            current=self.descent.enter(state.examples, point),
            mean=torch.zeros_like(state.mean),
            square=torch.zeros_like(state.square),
            first_step=first_step.to(distance),
            boundary_distance=torch.where(distance.isinf(), state.boundary_distance, distance),
            best=point,
            best_distance=distance,
            misses=torch.zeros_like(state.misses),
            step=torch.zeros_like(state.step),
        )
        return select(over, fresh, state)._replace(distances=distances, points=points)

    def plan_next_run(self, state: DescentState, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next run that is worth its steps, and whose it is."""
        ordered, order = distances.sort(dim=1, stable=True)
        nothing = ordered[:, 0].isinf()
        stranded = self.of_run([run.search for run in self.runs], state)
        if self.runs[-1].search:
            stranded = stranded | (nothing & self.in_vain(state))
        following = torch.full_like(state.run, len(self.runs))
        candidate = order[:, 0]
        for number, run in reversed(list(enumerate(self.runs))):
            own = torch.full_like(candidate, run.rank) if run.opening else order[:, run.rank]
            near = ordered[:, run.rank] <= PRUNE_RATIO * ordered[:, 0]
            worth = nothing == run.opening if run.search else near | run.opening
            worth = worth & (_column(state.targets, own) >= 0) & (stranded == run.search)
            taken = worth & (number > state.run)
            following = torch.where(taken, number, following)
            candidate = torch.where(taken, own, candidate)
        return following, candidate

    def farthest(self, examples: Examples) -> Tensor:
        """Distance to the farthest point within bounds."""
        return examples.farthest(self.descent.norm)


def _column(table: Tensor, column: Tensor) -> Tensor:
    return table[torch.arange(len(table), device=table.device), column]
