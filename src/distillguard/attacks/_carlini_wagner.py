"""What the attacks of Carlini and Wagner (2017) share: a race between the likeliest classes.

The closest adversarial example often lies in another class than the one that the logits of the
clean input name first. So the likeliest classes race: each is descended to for a few steps, the
two that came closest are descended further from there, and the closest to the end.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .._geometry import per_example, size
from .._typing import Bounds, Distance, Model
from ._engine import value_and_gradient
from ._losses import success_margin

RACERS = 4
"""On MNIST the best class was among the four largest clean logits in 98 to 100 % of the cases."""
PRUNED = 1.3
"""A class that came no closer than this many times the closest is given up."""
COLD_STEP, WARM_STEP = 1.0, 0.3
"""The first step of a run, relative to the distance: from the input, from an earlier result."""
LAST_STEPS = 0.03, 0.01, 0.003
"""The last step of a run in each round, relative to the distance."""


class RaceState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    inputs: Tensor
    labels: Tensor
    targets: Tensor
    """The classes that race, (n, RACERS), -1 where there are fewer."""
    distances: Tensor
    """The closest that each has come, (n, RACERS)."""
    points: Tensor
    """And where, (n, RACERS, ...)."""
    run: Tensor
    racer: Tensor
    """Whose run it is: a column of the three tables."""
    current: Tensor
    """The iterate, in the space of the descent."""
    mean: Tensor
    square: Tensor
    first_step: Tensor
    reach: Tensor
    """The distance to the boundary as far as this run knows it, which scales the steps."""
    best: Tensor
    best_distance: Tensor
    misses: Tensor
    """Iterates in a row, up to this one, without the wanted margin."""
    taken: Tensor
    """Iterates judged in this run."""


class Run(NamedTuple):
    """One descent: for the class of this rank, so many iterates, down to this step."""

    rank: int
    length: int
    last_step: float
    opening: bool
    """Whether ranks are those of the clean logits; later, those of the distances."""


class Descent(Protocol):
    """How one norm is made small."""

    @property
    def norm(self) -> Distance:
        """The distance."""

    @property
    def dual(self) -> Distance:
        """The norm by which a gradient bounds the change of the logits."""

    def enter(self, inputs: Tensor, points: Tensor, bounds: Bounds) -> Tensor:
        """Take points of the input space to the space of the descent."""

    def leave(self, inputs: Tensor, current: Tensor, bounds: Bounds) -> Tensor:
        """Take iterates back; one that never moved is exactly its input."""

    def moved(
        self, state: RaceState, delta: Tensor, gradient: Tensor, relative: Tensor, bounds: Bounds
    ) -> RaceState:
        """Take one step of ``relative`` length."""


def schedule(steps: int, racers: int = RACERS) -> tuple[Run, ...]:
    """Share ``steps`` gradient steps out: a tenth to each class, then to the two best, to one."""
    judged = steps + 1
    opening, middle = judged // 10, 3 * judged // 20
    if opening < 2:
        return (Run(0, judged, LAST_STEPS[2], True),)
    runs = [Run(rank, opening, LAST_STEPS[0], True) for rank in range(racers)]
    runs += [Run(rank, middle, LAST_STEPS[1], False) for rank in range(min(racers, 2))]
    rest = judged - sum(run.length for run in runs)
    return (*runs, Run(0, rest, LAST_STEPS[2], False))


def in_full_precision(inputs: Tensor) -> Tensor:
    """Half precision would swallow the steps."""
    return inputs.float() if inputs.element_size() < 4 else inputs


def unblocked(gradient: Tensor, points: Tensor, bounds: Bounds) -> Tensor:
    """Zero the slope of coordinates that would leave the bounds."""
    low, high = bounds
    blocked = ((points <= low) & (gradient < 0)) | ((points >= high) & (gradient > 0))
    return gradient.masked_fill(blocked, 0)


@dataclass(frozen=True)
class Race:
    """The state machine behind the attacks."""

    descent: Descent
    runs: tuple[Run, ...]
    confidence: float
    targeted: bool
    bounds: Bounds

    def start(self, inputs: Tensor, labels: Tensor, keys: Tensor) -> RaceState:
        """Place every example at its input."""
        exact = in_full_precision(inputs)
        far = self.farthest(inputs)
        columns = inputs[:, None].expand(-1, RACERS, *inputs.shape[1:])
        zeros = torch.zeros_like(labels)
        return RaceState(
            inputs=inputs,
            labels=labels,
            targets=labels.new_full((len(labels), RACERS), -1),
            distances=far.new_full((len(labels), RACERS), math.inf),
            points=columns.contiguous(),
            run=zeros,
            racer=zeros,
            current=self.descent.enter(inputs, inputs, self.bounds),
            mean=torch.zeros_like(exact),
            square=torch.zeros_like(far),
            first_step=torch.full_like(far, COLD_STEP),
            reach=far,
            best=inputs,
            best_distance=torch.full_like(far, math.inf),
            misses=zeros,
            taken=zeros,
        )

    def step(self, model: Model, state: RaceState) -> RaceState:
        """Judge the current iterate and move on; the last of a run is only judged."""
        point = self.descent.leave(state.inputs, state.current, self.bounds)
        logits, gradient = value_and_gradient(
            model, point, lambda logits, labels: self.lead(logits, labels, state), state.labels
        )
        state = state._replace(targets=self.entered(logits, state))
        lacking = (self.confidence - self.lead(logits, state.labels, state)).to(state.reach)
        missing = self.confidence - success_margin(logits, state.labels, self.targeted)
        reached = (missing <= 0) & (missing < self.confidence)

        delta = in_full_precision(point) - in_full_precision(state.inputs)
        gradient = unblocked(gradient.to(delta), point, self.bounds)
        distance = size(delta, self.descent.norm)
        linearised = lacking.clamp(min=0) / size(gradient, self.descent.dual)
        cold = (state.taken == 0) & state.best_distance.isinf()
        closer = reached & (distance < state.best_distance)
        known = torch.where(cold, linearised.fmin(state.reach), state.reach)
        state = state._replace(
            reach=torch.where(closer, distance, known),
            best=torch.where(per_example(closer, point), point, state.best),
            best_distance=torch.where(closer, distance, state.best_distance),
            misses=torch.where(reached, 0, state.misses + 1),
            taken=state.taken + 1,
        )
        relative = self.relative_step(state)
        state = self.descent.moved(state, delta, gradient, relative, self.bounds)
        over = state.taken >= self.of_run([run.length for run in self.runs], state)
        return self.turned(state, over) if bool(over.any()) else state

    def done(self, state: RaceState) -> Tensor:
        """Out of runs, or there before the first step."""
        return (state.run == len(self.runs)) | (state.best_distance == 0)

    def result(self, state: RaceState) -> Tensor:
        """Return the closest point of all; the input where there is none."""
        return _column(state.points, state.distances.argmin(dim=1))

    def lead(self, logits: Tensor, labels: Tensor, state: RaceState) -> Tensor:
        """How far the racing class leads the labelled one: ascended. (n,)."""
        if self.targeted:
            return success_margin(logits, labels, targeted=True)
        target = _column(self.entered(logits, state), state.racer)
        return (logits.gather(1, target[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)

    def entered(self, logits: Tensor, state: RaceState) -> Tensor:
        """Return the racing classes, which the clean logits name at the very first evaluation."""
        fresh = (state.run == 0) & (state.taken == 0)
        if not bool(fresh.any()):
            return state.targets
        if self.targeted:
            chosen = state.labels[:, None]
        else:
            rivals = logits.detach().scatter(1, state.labels[:, None], -math.inf)
            chosen = rivals.topk(min(RACERS, logits.shape[1] - 1), dim=1).indices
        absent = chosen.new_full((len(chosen), RACERS - chosen.shape[1]), -1)
        return torch.where(fresh[:, None], torch.cat([chosen, absent], dim=1), state.targets)

    def relative_step(self, state: RaceState) -> Tensor:
        """Geometric from the run's first step to its last."""
        last = self.of_run([run.last_step for run in self.runs], state).to(state.reach)
        moves = self.of_run([max(run.length - 2, 1) for run in self.runs], state)
        share = ((state.taken - 1) / moves).to(last)
        return state.first_step * (last / state.first_step) ** share

    def of_run(self, values: list[int] | list[float], state: RaceState) -> Tensor:
        """Return each example's entry for its run."""
        return torch.tensor(values, device=state.run.device)[state.run]

    def turned(self, state: RaceState, over: Tensor) -> RaceState:
        """Enter the result of the runs that are over and send their examples on the next."""
        racing = torch.arange(RACERS, device=over.device) == state.racer[:, None]
        entered = racing & over[:, None]
        wide = entered.reshape(*entered.shape, *(1,) * (state.inputs.ndim - 1))
        distances = torch.where(entered, state.best_distance[:, None], state.distances)
        points = torch.where(wide, state.best[:, None], state.points)

        following, racer = self.following(state, distances)
        distance, point = _column(distances, racer), _column(points, racer)
        fresh = state._replace(
            run=following,
            racer=racer,
            current=self.descent.enter(state.inputs, point, self.bounds),
            mean=torch.zeros_like(state.mean),
            square=torch.zeros_like(state.square),
            first_step=torch.where(distance.isinf(), COLD_STEP, WARM_STEP).to(distance),
            reach=distance.fmin(self.farthest(state.inputs)),
            best=point,
            best_distance=distance,
            misses=torch.zeros_like(state.misses),
            taken=torch.zeros_like(state.taken),
        )
        turned = [
            torch.where(per_example(over, new), new, old)
            for old, new in zip(state, fresh, strict=True)
        ]
        return RaceState(*turned)._replace(distances=distances, points=points)

    def following(self, state: RaceState, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next run that is worth its steps, and whose it is."""
        ordered, order = distances.sort(dim=1, stable=True)
        following = torch.full_like(state.run, len(self.runs))
        racer = order[:, 0]
        for number, run in reversed(list(enumerate(self.runs))):
            own = torch.full_like(racer, run.rank) if run.opening else order[:, run.rank]
            near = ordered[:, run.rank] <= PRUNED * ordered[:, 0]
            worth = (_column(state.targets, own) >= 0) & (near | run.opening)
            taken = worth & (number > state.run)
            following = torch.where(taken, number, following)
            racer = torch.where(taken, own, racer)
        return following, racer

    def farthest(self, inputs: Tensor) -> Tensor:
        """Distance to the farthest point within bounds."""
        low, high = self.bounds
        exact = in_full_precision(inputs)
        return size(torch.maximum(exact - low, high - exact), self.descent.norm)


def _column(table: Tensor, column: Tensor) -> Tensor:
    return table[torch.arange(len(table), device=table.device), column]
