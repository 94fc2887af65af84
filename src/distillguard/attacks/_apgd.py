"""Auto-PGD: projected gradient descent that sets its own step sizes (Croce and Hein 2020)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import ball, lp_norm, per_example
from .._l1 import project, steepest_step
from .._typing import Bounds, Callback, Loss, Mask, Model, Norm
from .._validation import (
    check_at_least,
    check_in_unit_interval,
    check_norm,
    check_positive,
)
from ._checkpoints import STAGES, checkpoint_periods, stages
from ._engine import Query, logits_and_gradient, put, run, select, take
from ._examples import Examples
from ._losses import ascended_loss, success_margin

MOMENTUM = 0.75
"""Share of the new direction in a step; the rest is momentum."""

CHECKED_EVERY = 0.04
"""In l1: share of a stage between two checkpoints."""

FIRST_SUPPORT = 0.15
"""In l1: share of the coordinates free to move that count as moved in the beginning."""

SPARSER = 3.0
"""In l1: by which the number of moved coordinates is divided for the next steps."""

SETTLED = 0.95
"""In l1: share of the moved coordinates below which a peak has lost some."""

STIRRED = 0.3
"""In l1: width of the noise on the best point so far, from which a later run begins."""

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
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
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
    last one's highest point. There is no momentum, and :math:`\rho` has no part in it. The first
    run starts from normal noise, projected; each later one from the best point so far with noise
    on it, in the ball of radius :math:`2\varepsilon`, so that it takes 70 % of the steps.

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
    loss : str or callable, default="cross_entropy"
        What to ascend: ``"cross_entropy"``, ``"margin"``, ``"dlr"``,
        ``"rescaled_cross_entropy"``, or a function from ``(logits, labels)`` to one value per
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
        rate is the same; without it the margin keeps growing, which transfers better.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors
        broadcastable to one input, such as one bound for each feature or channel.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or of all (with a first axis of 1
        or n); the others come back bit-equal. All may if not given.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of the random starts, drawn per example. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within ``epsilon``
        up to rounding. Where the attack failed its best candidate is returned: judge success
        by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` is not a finite number
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
        objective=lambda logits, state: ascended(logits, state.examples.labels),
        steps=steps,
        restarts=restarts,
        rho=rho,
        early_stop=early_stop,
        targeted=targeted,
    )
    return run(
        algorithm,
        model,
        inputs,
        labels,
        targeted=targeted,
        bounds=bounds,
        mask=mask,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
        callback=callback,
        budget=(norm, epsilon),
    )


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


@dataclass(frozen=True)
class SparseAutoPGD(AutoPGD):
    """Auto-PGD in l1 (Croce and Hein 2021, algorithm 1), where steps move few coordinates.

    The first run begins in a ball three times as large, goes on in one twice as large from the
    projection of what it found there, and ends in that of the budget. The others leave out the
    first ball.
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
        """Start from normal noise, projected, as the authors' code does; later from the best point.

        Noise as wide as the box comes down to few coordinates, to others in every run; a point
        drawn evenly from the ball moves all of them by next to nothing. Later runs put some of
        it on the best point so far and begin with the second ball.
        """
        inputs, low, high = box(state)
        later = state.run > 0
        begun = torch.where(later, math.floor(STAGES[0] * self.steps), 0)
        radius = self.radius(begun)
        share = per_example(torch.where(later, STIRRED, 1.0).to(inputs), inputs)
        width = share * torch.minimum(high - low, per_example(radius, inputs)).to(inputs)
        noise = width * state.examples.sample_normal(state.run)
        first = project(select(later, state.best, inputs) + noise, inputs, radius, low, high)

        free = state.examples.free.expand_as(inputs).flatten(1).sum(dim=1)
        support = lp_norm(first - inputs, "l0").to(state.support)
        support = torch.where(later, support, (FIRST_SUPPORT * free).to(support))
        return self.placed(state._replace(step=begun), first)._replace(support=support)

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


def unchanged(points: Tensor, others: Tensor) -> Tensor:
    """Which examples are the same in both: (n,)."""
    # A norm, since all(dim=1) is many times slower.
    return lp_norm(points - others, "linf") == 0


def box(state: APGDState) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs and their lowest and highest values."""
    return state.examples.inputs, state.examples.low, state.examples.high
