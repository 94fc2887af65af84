"""Projected gradient descent (Madry et al. 2018), with momentum (Dong et al. 2018)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._geometry import ascent_step, ball, coarse_signs, per_example, size, within_budget
from .._typing import Bounds, Loss, Model, Norm
from .._validation import (
    check_at_least,
    check_choice,
    check_norm,
    check_not_negative,
    check_positive,
)
from ._engine import run, value, value_and_gradient
from ._losses import ascended_loss, success_margin


def pgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
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
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Attack with projected gradient descent [1]_.

    Repeats the step

    .. math::
        x_{t+1} = \Pi\bigl(x_t + \alpha \, d(\nabla_x \ell(f(x_t), y))\bigr),

    where :math:`d` is the steepest ascent direction of the norm and :math:`\Pi` projects onto
    the :math:`\varepsilon`-ball around ``inputs`` and onto ``bounds``. Of all iterates of all
    restarts, the last included, the one that the model misclassifies by the widest logit
    margin is returned.

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
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball. In l1 a step goes into the steepest coordinates as far as ``bounds``
        lets them, spread over a third as many as have left the input, and :math:`\Pi` projects
        onto the intersection of ball and ``bounds``, not onto one after the other [4]_.
    loss : {"cross_entropy", "margin", "dlr"} or callable, default="cross_entropy"
        What to ascend: a name, or a function from ``(logits, labels)`` to one value per
        example. Prefer ``"margin"`` against distilled models, whose cross-entropy gradients
        can be exactly zero [3]_.
    steps : int, default=40
        Gradient steps of each run.
    step_size : float, optional
        :math:`\alpha`, in the units of ``inputs``. If not given, ``epsilon``, falling linearly
        towards 0 over each run: the first steps cross the ball, the last ones settle. With
        ``step_decay=False`` it is ``2.5 * epsilon / steps``, as is usual for steps that stay equal.
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
        network distilled at a high temperature, go on from another random point with the steps
        that are left. False follows gradients alone, and so does a start that is not random: the
        run ends there, since the iterate would stay for good.
    momentum : float, default=0.0
        Weight of the earlier directions, the :math:`\mu` of MIM [2]_ (1.0 there), where each
        gradient is first divided by its l1 norm.
    early_stop : bool, default=True
        Leave an example alone as soon as the model is fooled. Much cheaper, and the success
        rate is the same; without it the margin goes on growing, which transfers better.
    judge_last : bool, default=True
        Ask the model about the last iterate too. False saves that pass where the caller judges
        the result anyway: an example that no earlier iterate fooled comes back as its last one.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of the random starts, with the example's own values. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within
        ``epsilon`` of ``inputs`` up to rounding. Where the attack failed its best candidate
        is returned: judge success by asking the model, not by comparing tensors.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point or ``labels`` is not int64.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, ``epsilon`` or ``step_size`` is not a
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
    check_positive("epsilon", epsilon)
    check_norm(norm)
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_not_negative("momentum", momentum)
    if step_decay is None:
        step_decay = step_size is None
    if step_size is None:
        step_size = epsilon if step_decay else 2.5 * epsilon / steps
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
        length = gradient.new_full((len(gradient),), self.step_size, dtype=torch.float64)
        if self.step_decay:
            length = length * (1 - (state.taken - 1).clamp(max=self.steps) / self.steps)
        budget = (self.norm, length, self.bounds)
        step = ascent_step(state.current, gradient, state.inputs, *budget)
        ahead = state.current + step
        ahead = within_budget(ahead, state.inputs, self.norm, self.epsilon, self.bounds)

        return self.redrawn(state._replace(current=ahead), size(step, "linf") == 0)

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
