"""The L2 attack of Carlini and Wagner (2017), with c from its optimality condition."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..._geometry import ball, lp_norm, per_example
from ..._typing import Bounds, Callback, Distance, Mask, Model
from ..._validation import check_at_least, check_choice, check_not_negative, check_positive
from .._engine import Algorithm, run
from .._examples import Examples
from ._l2_published import BinarySearch
from ._multi_target import DescentState, MultiTargetDescent
from ._published import TanhObjective
from ._runs import CANDIDATES, schedule

STEPS = {"fast": 200, "paper": 10_000}
"""Where the caller names none."""
TANH_EDGE = 0.7
"""Where the bounds lie in tanh space; the slope there is 0.63, so saturated pixels can move."""
C_FACTOR = 2.0
"""c relative to the value at which its term balances the distance's: above 1, or nothing moves."""
C_GROWTH = 0.05
"""How much c grows with each iterate that misses in a row."""
BETA1, BETA2 = 0.3, 0.99
"""Adam's."""


def carlini_wagner_l2(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    confidence: float = 0.0,
    algorithm: Literal["fast", "paper"] = "fast",
    steps: int | None = None,
    stop_within: float | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Look for the closest adversarial example in L2 [1]_.

    Minimises, with Adam and in the variable :math:`w`,

    .. math::
        \|x' - x\|_2^2 + c \, \max\bigl(\kappa - f(x'), 0\bigr), \qquad
        x' = \text{mid} + \text{half} \cdot \tanh w / \tanh 0.7,

    where :math:`f` is a margin of logits and :math:`\kappa` is ``confidence``. The default differs
    from the published attack: :math:`c` follows from its optimality condition at every step, and
    several likely classes compete, which finds closer examples in a hundredth of the passes.
    ``algorithm="paper"`` is the published binary search over :math:`c`, with the constants of the
    authors' code: up to 90,009 passes an example. Both are described in
    :doc:`/explanation/attacks`.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode; its modes, ``requires_grad`` flags and gradients are left as they were.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    confidence : float, default=0.0
        :math:`\kappa`, the margin to reach, in units of the logits. Examples with a higher one
        lie farther away and transfer better to other models.
    algorithm : {"fast", "paper"}, default="fast"
        How to look: as described first, or as published, with the published constants.
    steps : int, optional
        Gradient steps, each one forward and one backward pass. In all when fast, 200 if not
        given, and fewer for an example on which classes drop out of the race; for each value of
        :math:`c` when as published, 10,000 if not given.
    stop_within : float, optional
        Leave an example alone as soon as a success is at most this far, in L2 and the units of
        ``inputs``. Far cheaper where only the share of examples with a success within a radius is
        asked for.
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
        Only reaches models that draw random numbers themselves; the attack draws none.
    progress : bool, default=False
        Show a progress bar that counts decided examples.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs`` and within ``bounds`` exactly: of all iterates with
        the wanted margin the closest. An example without any comes back unchanged, and so does
        one that has the margin already.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``confidence`` is not a finite number of at least 0, ``stop_within`` is not
        one above 0, ``algorithm`` is unknown, ``steps`` is below 1, or ``model`` returns something
        else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    carlini_wagner_linf : The same in the maximum norm.
    carlini_wagner_l0 : Changes as few coordinates as possible.
    pgd : Fills a budget instead of looking for the smallest perturbation.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, sections V and VI-A. https://arxiv.org/abs/1608.04644

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import carlini_wagner_l2
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> carlini_wagner_l2(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
    tensor([[0.5000, 0.5000]])
    """
    check_not_negative("confidence", confidence)
    check_choice("algorithm", algorithm, STEPS)
    steps = STEPS[algorithm] if steps is None else steps
    check_at_least("steps", steps, 1)
    if stop_within is not None:
        check_positive("stop_within", stop_within)
    enough = 0.0 if stop_within is None else stop_within
    machine: Algorithm[Any] = (
        BinarySearch(steps, TanhObjective(confidence, targeted), enough)
        if algorithm == "paper"
        else MultiTargetDescent(
            descent=AdamInTanhSpace(),
            runs=schedule(steps, 1 if targeted else CANDIDATES),
            confidence=confidence,
            targeted=targeted,
            stop_within=enough,
        )
    )
    return run(
        machine,
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
    )


@dataclass(frozen=True)
class AdamInTanhSpace:
    """How :func:`carlini_wagner_l2` descends."""

    norm: Distance = "l2"
    dual: Distance = "l2"

    def enter(self, examples: Examples, points: Tensor) -> Tensor:
        """Return w at points within bounds."""
        share = (points - examples.low) / examples.width
        return torch.atanh((2 * share - 1).clamp(-1, 1) * math.tanh(TANH_EDGE))

    def leave(self, examples: Examples, current: Tensor) -> Tensor:
        """Return the points at w."""
        origin = self.enter(examples, examples.inputs)
        moved = (current.tanh() - origin.tanh()) * examples.width / (2 * math.tanh(TANH_EDGE))
        return examples.clamp(examples.inputs + moved)

    def moved(
        self, state: DescentState, delta: Tensor, gradient: Tensor, relative: Tensor
    ) -> DescentState:
        """Take one step of Adam down the objective, divided by twice the distance."""
        unit = ball("l2").steepest
        push = torch.where(state.misses > 0, C_FACTOR * (1 + C_GROWTH * (state.misses - 1)), 0)
        descent = unit(delta) - per_example(push.to(delta), delta) * unit(gradient)
        descent = descent * (1 - state.current.tanh() ** 2)

        step = state.step.to(relative)
        mean = torch.lerp(descent, state.mean, BETA1)
        # One second moment per example, so that a step keeps the direction of the gradient.
        square = torch.lerp(lp_norm(descent, "l2") ** 2, state.square, BETA2)
        spread = (square / (1 - BETA2**step)).sqrt() * (1 - BETA1**step)
        length = relative * state.boundary_distance * 2 / state.examples.scale
        rate = torch.where(spread > 0, length / spread, 0)
        # A step in w is one in x times the width: a narrow coordinate is to move no less.
        ahead = state.current - per_example(rate, mean) * mean / state.examples.relative_width
        return state._replace(current=ahead.clamp(-TANH_EDGE, TANH_EDGE), mean=mean, square=square)
