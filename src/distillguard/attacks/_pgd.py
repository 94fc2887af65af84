"""Projected gradient descent (Madry et al. 2018), with momentum (Dong et al. 2018)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .. import _l0
from .._geometry import COUNTS, ball, lp, lp_norm, per_example
from .._typing import Bounds, Callback, Distance, Loss, Mask, Model
from .._validation import (
    DISTANCES,
    check_at_least,
    check_choice,
    check_epsilon,
    check_norm,
    check_not_negative,
    check_positive,
)
from ._engine import Query, logits_and_gradient, run, select
from ._examples import Examples
from ._losses import ascended_loss, success_margin

L0_STEP = 10.0
"""First step in l0, in widths of the bounds: 3 to 10 find more than 1 on the networks tried."""


def pgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Distance = "linf",
    loss: str | Loss = "cross_entropy",
    steps: int = 40,
    step_size: float | None = None,
    step_decay: bool | None = None,
    restarts: int = 1,
    random_start: bool | Literal["blocks"] = True,
    redraw: bool = True,
    momentum: float = 0.0,
    early_stop: bool = True,
    judge_last: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack with projected gradient descent [1]_.

    Repeats the step

    .. math::
        x_{t+1} = \Pi\bigl(x_t + \alpha \, d(\nabla_x \ell(f(x_t), y))\bigr),

    where :math:`d` is the steepest ascent direction of the norm and :math:`\Pi` projects onto the
    :math:`\varepsilon`-ball around ``inputs`` and onto ``bounds``. Of all iterates of all restarts,
    the last included, the one with the largest logit margin is returned.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode; its modes, ``requires_grad`` flags and gradients are left as they were.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    epsilon : float
        :math:`\varepsilon`, radius of the ball, in the units of ``inputs`` (8/255 for images
        in [0, 1]).
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, default="linf"
        Norm of the ball. In l1 a step changes the steepest coordinates as far as ``bounds`` allow,
        spread over a third as many as already differ from the input, and :math:`\Pi` projects onto
        the intersection of ball and ``bounds``, not onto one after the other [4]_. In l0
        ``epsilon`` is a whole number of values, in ``"l0_pixels"`` of pixels with all their
        channels, and :math:`\Pi` keeps the largest changes [6]_.
    loss : str or callable, default="cross_entropy"
        The loss to maximise: ``"cross_entropy"``, ``"margin"``, ``"dlr"``,
        ``"rescaled_cross_entropy"``, or a function from ``(logits, labels)`` to one value per
        example. Prefer ``"margin"`` against distilled models, whose cross-entropy gradients can be
        exactly zero [3]_.
    steps : int, default=40
        Gradient steps of each run.
    step_size : float, optional
        :math:`\alpha`, in the units of ``inputs``. If not given, ``epsilon``, falling linearly
        towards 0 over each run: the first steps cross the ball, the last ones settle. With
        ``step_decay=False`` it is ``2.5 * epsilon / steps``, as is usual for steps that stay equal.
        In l0 it is the largest change of a value in widths of the bounds, 10 if not given, which
        sends several values across the box at once.
    step_decay : bool, optional
        Shorten the steps linearly over each run, towards 0. If not given, steps of a given
        ``step_size`` stay equal.
    restarts : int, default=1
        Independent runs; more than one needs ``random_start``.
    random_start : bool or "blocks", default=True
        Start from a uniform point of the ball rather than from ``inputs``; ``"blocks"`` from one
        of its surface, a random sign for each of 4x4 blocks of an image's channel or each value
        of other inputs. Patterns as large as Square's [5]_ cross plateaus in a few long steps.
    redraw : bool, default=True
        Where the gradient is exactly zero, as that of the cross-entropy is at most points of a
        network distilled at a high temperature, continue from another random point with the steps
        that are left. With False, or a start that is not random, the run ends there, since the
        iterate would never move again.
    momentum : float, default=0.0
        Weight of the earlier directions, the :math:`\mu` of MIM [2]_ (1.0 there), where each
        gradient is first divided by its l1 norm.
    early_stop : bool, default=True
        Stop on an example as soon as it fools the model. This is much cheaper, and the success rate
        is the same; without it the margin keeps growing, which transfers better.
    judge_last : bool, default=True
        Evaluate the model at the last iterate too. False saves that pass if the caller checks the
        result anyway: if no earlier iterate fools the model, the last one is returned.
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
        Seed of the random starts, with the example's own values. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within
        ``epsilon`` of ``inputs`` up to rounding. Where the attack failed its best candidate
        is returned: judge success by asking the model, not by comparing tensors.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` or ``step_size`` is not a
        finite number above 0, ``steps`` or ``restarts`` is below 1, restarts would all be
        alike or unjudged, ``norm`` or ``loss`` is unknown, or ``model`` returns something else
        than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    fgsm : The single-step special case.
    carlini_wagner_l2 : Looks for the smallest perturbation instead of filling a budget.

    References
    ----------
    .. [1] A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu, "Towards Deep Learning
       Models Resistant to Adversarial Attacks", ICLR 2018. https://arxiv.org/abs/1706.06083
    .. [2] Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu and J. Li, "Boosting Adversarial
       Attacks with Momentum", CVPR 2018, algorithm 1. https://arxiv.org/abs/1710.06081
    .. [3] N. Carlini and D. Wagner, "Defensive Distillation is Not Robust to Adversarial
       Examples", 2016. https://arxiv.org/abs/1607.04311
    .. [4] F. Croce and M. Hein, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image
       Classifiers", ICML 2021, proposition 2.1 and section 3. https://arxiv.org/abs/2103.01208
    .. [5] M. Andriushchenko et al., "Square Attack", ECCV 2020. https://arxiv.org/abs/1912.00049
    .. [6] F. Croce and M. Hein, "Sparse and Imperceivable Adversarial Attacks", ICCV 2019, section
       4.1 (PGD0). https://arxiv.org/abs/1909.05040

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import pgd
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> inputs, labels = torch.tensor([[0.7, 0.4]]), torch.tensor([0])
    >>> pgd(model, inputs, labels, epsilon=0.2, random_start=False, early_stop=False)
    tensor([[0.5000, 0.6000]])
    """
    check_norm(norm, DISTANCES)
    check_epsilon(epsilon, norm)
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_not_negative("momentum", momentum)
    if step_decay is None:
        step_decay = step_size is None
    if step_size is None:
        step_size = epsilon if step_decay else 2.5 * epsilon / steps
        step_size = L0_STEP if norm in COUNTS else step_size
    check_positive("step_size", step_size)
    check_choice("random_start", random_start, (True, False, "blocks"))
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts must be 1 without random_start, got {restarts}")
    if restarts > 1 and not judge_last:
        raise ValueError(f"restarts must be 1 without judge_last, got {restarts}")

    algorithm = ProjectedGradientDescent(
        epsilon=epsilon,
        norm=norm,
        loss=ascended_loss(loss, targeted),
        steps=steps,
        step_size=step_size,
        step_decay=step_decay,
        restarts=restarts,
        random_start=random_start,
        redraw=redraw and bool(random_start),
        momentum=momentum,
        early_stop=early_stop,
        judge_last=judge_last,
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


class PGDState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    current: Tensor
    velocity: Tensor
    best: Tensor
    best_margin: Tensor
    step: Tensor
    """Gradient steps taken in this run; ``steps + 1`` once the last iterate is judged."""
    run: Tensor


@dataclass(frozen=True)
class ProjectedGradientDescent:
    """The state machine behind :func:`pgd` and :func:`fgsm`."""

    epsilon: float
    norm: Distance
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

    def start(self, examples: Examples) -> PGDState:
        """Place every example at its first iterate."""
        inputs, zeros = examples.inputs, torch.zeros_like(examples.labels)
        return PGDState(
            examples=examples,
            current=self._first_iterate(examples, zeros),
            velocity=torch.zeros_like(inputs)
            if self.momentum
            else inputs.new_empty(len(inputs), 0),
            best=inputs,
            best_margin=inputs.new_full((len(inputs),), -torch.inf),
            step=zeros,
            run=zeros,
        )

    def step(self, model: Query, state: PGDState) -> PGDState:
        """Judge the current iterate and move to the next; the last one is only judged."""
        logits, gradient = logits_and_gradient(
            model, state.examples, state.current, self.loss, moving=state.step < self.steps
        )
        margin = success_margin(logits, state.examples, self.targeted).to(state.best_margin)
        better = margin > state.best_margin
        state = state._replace(
            best=select(better, state.current, state.best),
            best_margin=torch.where(better, margin, state.best_margin),
            step=state.step + 1,
        )
        return self._restart(self._ascend(state, gradient))

    def done(self, state: PGDState) -> Tensor:
        """Fooled, or out of runs."""
        last = self.steps if self.judge_last else self.steps - 1
        over = (state.run == self.restarts - 1) & (state.step > last)
        return over | (state.best_margin > 0) if self.early_stop else over

    def result(self, state: PGDState) -> Tensor:
        """Return the iterate of widest margin, or the one that nobody has judged."""
        if self.judge_last:
            return state.best
        return select(state.best_margin > 0, state.best, state.current)

    def _ascend(self, state: PGDState, gradient: Tensor) -> PGDState:
        """Take one step of steepest ascent and come back into the ball and the bounds."""
        if self.momentum:
            # Dong et al. 2018, algorithm 1, equation 6.
            scale = per_example(lp_norm(gradient, "l1"), gradient)
            unit = torch.where(scale > 0, gradient / scale, 0)
            gradient = self.momentum * state.velocity + unit
            state = state._replace(velocity=gradient)
        # Madry et al. 2018, section 2.1: x^{t+1} = Pi(x^t + alpha sgn(...)).
        step = self._step(state, gradient)
        ahead = state.examples.project(state.current + step, self.norm, self.epsilon)
        return self._redraw(state._replace(current=ahead), lp_norm(step, "linf") == 0)

    def _step(self, state: PGDState, gradient: Tensor) -> Tensor:
        """Return the steepest step of this iterate's length."""
        left = torch.ones_like(state.best_margin)
        if self.step_decay:
            left = 1 - (state.step - 1).clamp(max=self.steps) / self.steps
        if self.norm == "l1":
            return state.examples.l1_step(state.current, gradient, self.step_size * left.double())
        if self.norm in COUNTS:
            direction = _l0.direction(gradient, state.examples.width)
        else:
            direction = ball(lp(self.norm)).steepest(gradient)
        return self.step_size * (per_example(left.to(direction), direction) * direction)

    def _redraw(self, state: PGDState, stuck: Tensor) -> PGDState:
        """Where nothing moves, spend the steps that are left elsewhere; without a draw, end."""
        stuck = stuck & (state.step <= self.steps)
        if not bool(stuck.any()):
            return state
        if not self.redraw:
            return state._replace(step=torch.where(stuck, self.steps + 1, state.step))
        draw = state.run + self.restarts * state.step
        fresh = self._first_iterate(state.examples, draw)
        return state._replace(current=select(stuck, fresh, state.current))

    def _restart(self, state: PGDState) -> PGDState:
        """Send the examples that finished a run without success to another start."""
        again = (state.step > self.steps) & (state.run < self.restarts - 1)
        if self.restarts == 1 or not bool(again.any()):
            return state
        run = state.run + again.long()
        return state._replace(
            current=select(again, self._first_iterate(state.examples, run), state.current),
            velocity=select(again, torch.zeros_like(state.velocity), state.velocity),
            step=torch.where(again, 0, state.step),
            run=run,
        )

    def _first_iterate(self, examples: Examples, run: Tensor) -> Tensor:
        """Draw a point of the ball, another one for each run; or stay at the input."""
        if not self.random_start:
            return examples.inputs
        blocks = self.random_start == "blocks"
        if not blocks:
            return examples.random_point(self.norm, self.epsilon, run)
        length = 1.0 if self.norm in COUNTS else self.epsilon
        delta = length * examples.sample_blocks(run)
        return examples.project(examples.inputs + delta, self.norm, self.epsilon)
