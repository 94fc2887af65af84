"""Auto-PGD: projected gradient descent that sets its own step sizes (Croce and Hein 2020)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import ball, per_example, size, within_budget
from .._l1 import project, steepest_step
from .._typing import Bounds, Loss, Model, Norm
from .._validation import (
    check_at_least,
    check_in_unit_interval,
    check_norm,
    check_positive,
)
from ._engine import replaced, rows, run, value, value_and_gradient
from ._losses import ascended_loss, success_margin

MOMENTUM = 0.75
"""Share of the new direction in a step; the rest goes on as before."""

STAGES = (0.3, 0.6)
"""In l1: shares of a run after which the ball shrinks from three to two and to one budget."""

CHECKED_EVERY = 0.04
"""In l1: share of a stage between two checkpoints."""

FIRST_SUPPORT = 0.15
"""In l1: share of the coordinates that count as moved in the beginning."""

SPARSER = 3.0
"""In l1: by which the number of moved coordinates is divided for the next steps."""

SETTLED = 0.95
"""In l1: share of the moved coordinates below which a peak has lost some."""

SHORTER, SHORTEST = 1.5, 100.0
"""In l1: what a step size is divided by at a checkpoint at least, and the radius at most."""


def apgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    loss: str | Loss = "cross_entropy",
    steps: int = 100,
    restarts: int = 1,
    rho: float = 0.75,
    early_stop: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Attack with Auto-PGD: gradient ascent whose step size follows its own success [1]_.

    From a random point of the ball, each example for itself repeats

    .. math::
        z &= \Pi\bigl(x_k + \eta \, d(\nabla_x \ell(f(x_k), y))\bigr) \\
        x_{k+1} &= \Pi\bigl(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})\bigr)

    with :math:`\eta = 2\varepsilon` at first, :math:`d` the steepest direction of the norm and
    :math:`\Pi` the projection onto the :math:`\varepsilon`-ball and ``bounds``. At checkpoints,
    after 22 % of the steps and then at ever shorter distances, :math:`\eta` is halved and the
    ascent taken up again at its highest point, if too few steps since the last checkpoint went
    up or if neither :math:`\eta` nor the highest loss has changed there.

    In l1 [2]_ the steps move few coordinates: a third as many as the highest point has moved.
    A run spends 30 % of its steps in the ball of radius :math:`3\varepsilon`, 30 % in that of
    :math:`2\varepsilon` and the others within the budget, each stage from the projection of the
    last one's highest point. There is no momentum, and :math:`\rho` has no part in it.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode and given back as it was.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    epsilon : float
        :math:`\varepsilon`, radius of the ball, in the units of ``inputs``.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball.
    loss : {"cross_entropy", "margin", "dlr"} or callable, default="cross_entropy"
        What to ascend: a name, or a function from ``(logits, labels)`` to one value per
        example. ``"dlr"`` and ``"margin"`` still have gradients where a distilled model's
        cross-entropy has none.
    steps : int, default=100
        Gradient steps of each run. The checkpoints are shares of it.
    restarts : int, default=1
        Independent runs.
    rho : float, default=0.75
        :math:`\rho`, in [0, 1]: the share of steps between two checkpoints that must raise the
        loss for the step size to stay.
    early_stop : bool, default=True
        Leave an example alone as soon as the model is fooled. Much cheaper, and the success
        rate is the same; without it the margin goes on growing, which transfers better.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of the random starts, drawn per example. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within ``epsilon``
        up to rounding. Where the attack failed its best candidate is returned: judge success
        by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point or ``labels`` is not int64.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, ``epsilon`` is not a finite number
        above 0, ``rho`` is outside [0, 1], ``steps`` or ``restarts`` is below 1, ``norm`` or
        ``loss`` is unknown, or ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    apgd_targeted : Tries the likeliest wrong classes one after another.
    pgd : The same ascent with a step size that the caller sets.

    Notes
    -----
    A run ends early where its iterate can move no further, such as at a zero gradient: the
    model would be asked about one point again and again.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable Evaluation of Adversarial Robustness with an
       Ensemble of Diverse Parameter-free Attacks", ICML 2020, algorithm 1.
       https://arxiv.org/abs/2003.01690
    .. [2] F. Croce and M. Hein, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image
       Classifiers", ICML 2021, algorithm 1. https://arxiv.org/abs/2103.01208

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import apgd
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> apgd(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]), epsilon=0.2, early_stop=False)
    tensor([[0.4000, 0.6000]])
    """
    check_positive("epsilon", epsilon)
    check_norm(norm)
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_in_unit_interval("rho", rho)

    ascended = ascended_loss(loss, targeted)
    algorithm = (SparseAutoPGD if norm == "l1" else AutoPGD)(
        epsilon=epsilon,
        norm=norm,
        objective=lambda logits, state: ascended(logits, state.labels),
        steps=steps,
        restarts=restarts,
        rho=rho,
        early_stop=early_stop,
        targeted=targeted,
        bounds=bounds,
    )
    return run(
        algorithm,
        model,
        inputs,
        labels,
        bounds=bounds,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
    )


class APGDState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    inputs: Tensor
    labels: Tensor
    keys: Tensor
    aims: Tensor
    """Classes that the runs move towards in turn: (n, n_targets), (n, 0) without targets."""
    runs: Tensor
    """How many runs the example has in all."""
    run: Tensor
    taken: Tensor
    """Gradient steps taken in this run; ``steps + 1`` once it is over."""
    current: Tensor
    previous: Tensor
    height: Tensor
    """Loss at the previous iterate."""
    peak: Tensor
    """The run's iterate of highest loss, where it is taken up again."""
    peak_height: Tensor
    peak_gradient: Tensor
    checked_height: Tensor
    """``peak_height`` at the last checkpoint."""
    rises: Tensor
    """How many steps since the last checkpoint raised the loss."""
    halved: Tensor
    """Whether the last checkpoint halved the step size."""
    step_size: Tensor
    support: Tensor
    """In l1: how many coordinates of the peak had moved at the last checkpoint."""
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
    bounds: Bounds

    def start(self, inputs: Tensor, labels: Tensor, keys: Tensor) -> APGDState:
        """Place every example at a random point of its ball."""
        whole = torch.zeros_like(labels)
        real = inputs.new_zeros(len(inputs), dtype=torch.promote_types(inputs.dtype, torch.float32))
        blank = APGDState(
            inputs=inputs,
            labels=labels,
            keys=keys,
            aims=labels.new_empty(len(labels), 0),
            runs=whole + self.restarts,
            run=whole,
            taken=whole,
            current=inputs,
            previous=inputs,
            height=real,
            peak=inputs,
            peak_height=real,
            peak_gradient=torch.zeros_like(inputs),
            checked_height=real,
            rises=whole,
            halved=whole.bool(),
            step_size=real,
            support=real,
            best=inputs,
            best_margin=real - torch.inf,
        )
        return self.begun(blank)

    def step(self, model: Model, state: APGDState) -> APGDState:
        """Judge the current iterate, move to the next; the last of a run is only judged."""
        if bool((state.taken < self.steps).any()):
            logits, gradient = value_and_gradient(
                model, state.current, lambda logits, _: self.objective(logits, state), state.labels
            )
        else:
            logits, gradient = value(model, state.current), torch.zeros_like(state.current)

        state = self.judged(state, logits)
        state = self.recorded(state, self.objective(logits, state), gradient)
        state = self.moved(*self.checked(state, gradient))
        return self.restarted(state)

    def done(self, state: APGDState) -> Tensor:
        """Fooled, or out of runs."""
        over = (state.run == state.runs - 1) & (state.taken > self.steps)
        return over | (state.best_margin > 0) if self.early_stop else over

    def result(self, state: APGDState) -> Tensor:
        """Return the iterate of widest margin."""
        return state.best

    def judged(self, state: APGDState, logits: Tensor) -> APGDState:
        """Keep the iterate of widest margin."""
        margin = success_margin(logits, state.labels, self.targeted).to(state.best_margin)
        better = margin > state.best_margin
        return state._replace(
            best=torch.where(per_example(better, state.best), state.current, state.best),
            best_margin=torch.where(better, margin, state.best_margin),
        )

    def recorded(self, state: APGDState, height: Tensor, gradient: Tensor) -> APGDState:
        """Keep the run's highest point, and count the steps that went up."""
        height = height.to(state.height)
        higher = height > state.peak_height
        wide = per_example(higher, state.peak)
        return state._replace(
            rises=state.rises + (height > state.height),
            height=height,
            peak=torch.where(wide, state.current, state.peak),
            peak_height=torch.where(higher, height, state.peak_height),
            peak_gradient=torch.where(wide, gradient, state.peak_gradient),
        )

    def checked(self, state: APGDState, gradient: Tensor) -> tuple[APGDState, Tensor]:
        """At a checkpoint, halve the step size and go back to the peak where the ascent stalls."""
        period = checkpoint_periods(self.steps, state.taken.device)[state.taken]
        here = period >= 0
        oscillates = state.rises < self.rho * period
        stuck = ~state.halved & (state.peak_height == state.checked_height)
        halve = here & (oscillates | stuck)

        state = state._replace(
            step_size=torch.where(halve, state.step_size / 2, state.step_size),
            rises=torch.where(here, 0, state.rises),
            halved=torch.where(here, halve, state.halved),
            checked_height=torch.where(here, state.peak_height, state.checked_height),
        )
        if not bool(halve.any()):
            return state, gradient
        wide = per_example(halve, gradient)
        current = torch.where(wide, state.peak, state.current)
        return state._replace(current=current), torch.where(wide, state.peak_gradient, gradient)

    def moved(self, state: APGDState, gradient: Tensor) -> APGDState:
        """Take a step with momentum; where nothing moves any more, the run is over."""
        x, previous = state.current, state.previous
        share = per_example(torch.where(state.taken > 0, MOMENTUM, 1.0).to(x), x)
        step = per_example(state.step_size.to(x), x) * ball(self.norm).steepest(gradient)
        ahead = self.within_budget(x + step, state.inputs)
        following = x + share * (ahead - x) + (1 - share) * (x - previous)
        following = self.within_budget(following, state.inputs)

        # Elsewhere than at its peak the run will still be taken up there.
        idle = unchanged(following, x)
        if bool(idle.any()):
            idle &= unchanged(previous, x) & unchanged(state.peak, x)
        return state._replace(
            current=following,
            previous=x,
            taken=torch.where(idle, self.steps + 1, state.taken + 1),
        )

    def restarted(self, state: APGDState) -> APGDState:
        """Send the examples whose run is over to their next one."""
        again = (state.taken > self.steps) & (state.run < state.runs - 1)
        places = again.nonzero().squeeze(1)
        if not len(places):
            return state
        ended = rows(state, places)
        return replaced(state, places, self.begun(ended._replace(run=ended.run + 1)))

    def begun(self, state: APGDState) -> APGDState:
        """Forget the run before and start from a random point of the ball."""
        inputs = state.inputs
        delta = self.epsilon * ball(self.norm).sample(inputs, state.keys, state.run)
        first = self.within_budget(inputs + delta, inputs)
        return state._replace(
            taken=torch.zeros_like(state.taken),
            current=first,
            previous=first,
            height=torch.full_like(state.height, torch.inf),
            peak=first,
            peak_height=torch.full_like(state.height, -torch.inf),
            checked_height=torch.full_like(state.height, -torch.inf),
            rises=torch.zeros_like(state.rises),
            halved=torch.zeros_like(state.halved),
            step_size=torch.full_like(state.step_size, 2 * self.epsilon),
        )

    def within_budget(self, candidate: Tensor, inputs: Tensor) -> Tensor:
        """Come back into the ball and the bounds."""
        return within_budget(candidate, inputs, self.norm, self.epsilon, self.bounds)


@dataclass(frozen=True)
class SparseAutoPGD(AutoPGD):
    """Auto-PGD in l1 (Croce and Hein 2021, algorithm 1), where steps move few coordinates.

    A run begins in a ball three times as large, goes on in one twice as large from the projection
    of what it found there, and ends in that of the budget.
    """

    def judged(self, state: APGDState, logits: Tensor) -> APGDState:
        """Keep the iterate of widest margin; those of the larger balls do not count."""
        kept = super().judged(state, logits)
        counts = self.radius(state.taken) == self.epsilon
        return kept._replace(
            best=torch.where(per_example(counts, kept.best), kept.best, state.best),
            best_margin=torch.where(counts, kept.best_margin, state.best_margin),
        )

    def checked(self, state: APGDState, gradient: Tensor) -> tuple[APGDState, Tensor]:
        """At a checkpoint set the step size by whether the peak has lost coordinates.

        If it has, steps are long again, from the peak; if not, shorter.
        """
        begun, ended = stages(self.steps, state.taken.device)[:2, state.taken].long()
        period = (CHECKED_EVERY * (ended - begun)).long().clamp(min=1)
        here = (state.taken > begun) & ((state.taken - begun) % period == 0)
        support = size(state.peak - state.inputs, "l0").to(state.support)
        fewer = here & (support < SETTLED * state.support)
        radius = self.radius(state.taken).to(state.step_size)
        # A short stage has to come down to the shortest step too.
        divisor = (SHORTEST ** (period / (ended - begun))).clamp(min=SHORTER)
        shorter = torch.maximum(state.step_size / divisor, radius / SHORTEST).to(radius)
        state = state._replace(
            step_size=torch.where(here, torch.where(fewer, radius, shorter), state.step_size),
            support=torch.where(here, support, state.support),
        )
        wide = per_example(fewer, gradient)
        current = torch.where(wide, state.peak, state.current)
        return state._replace(current=current), torch.where(wide, state.peak_gradient, gradient)

    def moved(self, state: APGDState, gradient: Tensor) -> APGDState:
        """Take a step, or enter the next ball; where nothing moves any more, the stage is over."""
        x, inputs = state.current, state.inputs
        low, high = inputs.new_tensor(self.bounds)
        spread = (state.support / SPARSER).clamp(min=1)
        step = steepest_step(x, gradient, state.step_size, low, high, spread)
        radius = self.radius(state.taken)
        following = project(x + step, inputs, radius, low, high)

        idle = unchanged(following, x) & unchanged(state.peak, x)
        ended = stages(self.steps, state.taken.device)[1, state.taken].long()
        taken = torch.where(idle, ended, state.taken + 1)
        state = state._replace(current=following, previous=x, taken=taken)
        enters = (taken == ended) & (taken <= self.steps)
        places = enters.nonzero().squeeze(1)
        if not len(places):
            return state
        return replaced(state, places, self.entered(rows(state, places)))

    def entered(self, state: APGDState) -> APGDState:
        """Go on in the next ball from the projection of the peak."""
        low, high = state.inputs.new_tensor(self.bounds)
        radius = self.radius(state.taken)
        first = project(state.peak, state.inputs, radius, low, high)
        return self.placed(state, first)._replace(
            support=size(first - state.inputs, "l0").to(state.support)
        )

    def begun(self, state: APGDState) -> APGDState:
        """Forget the run before and start from a random point of the largest ball."""
        inputs, whole = state.inputs, torch.zeros_like(state.taken)
        low, high = inputs.new_tensor(self.bounds)
        radius = self.radius(whole)
        delta = per_example(radius, inputs) * ball("l1").sample(inputs, state.keys, state.run)
        first = project(inputs + delta.to(inputs), inputs, radius, low, high)
        support = torch.full_like(state.support, FIRST_SUPPORT * inputs[0].numel())
        return self.placed(state._replace(taken=whole), first)._replace(support=support)

    def placed(self, state: APGDState, first: Tensor) -> APGDState:
        """Climb from a first point on, with steps as long as the ball's radius."""
        return state._replace(
            current=first,
            previous=first,
            height=torch.full_like(state.height, torch.inf),
            peak=first,
            peak_height=torch.full_like(state.height, -torch.inf),
            step_size=self.radius(state.taken).to(state.step_size),
        )

    def radius(self, taken: Tensor) -> Tensor:
        """Radius of the ball that an iterate belongs to: (n,)."""
        return self.epsilon * stages(self.steps, taken.device)[2, taken.clamp(max=self.steps)]


@cache
def stages(steps: int, device: torch.device) -> Tensor:
    """For each step of a run in l1: first step of its stage, of the next, and ball: (3, steps + 1).

    The last stage has the last iterate too, which is only judged.
    """
    table = torch.zeros(3, steps + 1, dtype=torch.float64, device=device)
    ends = [math.floor(share * steps) for share in STAGES] + [steps + 1]
    for begun, ended, multiple in zip([0, *ends[:-1]], ends, (3.0, 2.0, 1.0), strict=True):
        table[:, begun:ended] = table.new_tensor([[begun], [ended], [multiple]])
    return table


def unchanged(points: Tensor, others: Tensor) -> Tensor:
    """Which examples are the same in both: (n,)."""
    # A norm, since all(dim=1) is many times slower.
    return size(points - others, "linf") == 0


@cache
def checkpoint_periods(steps: int, device: torch.device) -> Tensor:
    """For each step, how many have passed since the checkpoint before, -1 between checkpoints."""
    percents = [0, 22]
    while percents[-1] < 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    checkpoints = sorted({math.ceil(p * steps / 100) for p in percents if p <= 100})

    periods = torch.full((steps + 1,), -1, device=device)
    periods[0] = 0
    for earlier, later in pairwise(checkpoints):
        periods[later] = later - earlier
    return periods
