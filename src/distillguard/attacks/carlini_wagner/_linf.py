"""The L-infinity attack of Carlini and Wagner (2017), with a limit that follows the iterates."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..._geometry import ball, lp_norm, per_example
from ..._typing import Bounds, Callback, Distance, Mask, Model
from ..._validation import check_at_least, check_choice, check_not_negative
from .._engine import Algorithm, run
from .._examples import Examples
from ._linf_published import LargestChange
from ._multi_target import DescentState, MultiTargetDescent
from ._published import ShrinkingConstraint, TanhObjective
from ._runs import CANDIDATES, schedule

STEPS = {"fast": 200, "paper": 1_000}
"""Where the caller names none."""
BETA1 = 0.7
"""Of the directions that the iterates followed."""
LIMIT_CHANGE = 0.3
"""Change of the limit per step, relative to the step."""


def carlini_wagner_linf(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    confidence: float = 0.0,
    algorithm: Literal["fast", "paper"] = "fast",
    steps: int | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Look for the closest adversarial example in the maximum norm [1]_.

    The default differs from the published attack: no coordinate may exceed a limit :math:`\tau`,
    which falls with every iterate that reaches the requested margin and rises with every one that
    does not, and several likely classes compete. ``algorithm="paper"`` is the published sequence of
    descents of
    :math:`c f(x') + \sum_i (|\delta_i| - \tau)^+` with the constants of the authors' code: 21,000
    to 74,000 passes an example. Both are described in
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
        The margin to reach, in units of the logits. Examples with a higher one lie farther away
        and transfer better to other models.
    algorithm : {"fast", "paper"}, default="fast"
        How to look: as described first, or as published, with the published constants.
    steps : int, optional
        Gradient steps, each one forward and one backward pass. In all when fast, 200 if not
        given, and fewer for an example on which classes drop out of the race; for each value of
        :math:`c` when as published, 1,000 if not given.
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
        in the batch, ``confidence`` is not a finite number
        of at least 0, ``algorithm`` is unknown, ``steps`` is below 1, or ``model`` returns
        something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    carlini_wagner_l2 : The same in L2.
    pgd : Fills a budget instead of looking for the smallest perturbation.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, section VI-C. https://arxiv.org/abs/1608.04644

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import carlini_wagner_linf
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> carlini_wagner_linf(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0])).round(decimals=3)
    tensor([[0.5000, 0.5000]])
    """
    check_not_negative("confidence", confidence)
    check_choice("algorithm", algorithm, STEPS)
    steps = STEPS[algorithm] if steps is None else steps
    check_at_least("steps", steps, 1)
    machine: Algorithm[Any] = (
        ShrinkingConstraint(LargestChange(), steps, TanhObjective(confidence, targeted))
        if algorithm == "paper"
        else MultiTargetDescent(
            descent=SignsWithinALimit(),
            runs=schedule(steps, 1 if targeted else CANDIDATES),
            confidence=confidence,
            targeted=targeted,
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
class SignsWithinALimit:
    """How :func:`carlini_wagner_linf` descends; ``boundary_distance`` is the limit."""

    norm: Distance = "linf"
    dual: Distance = "l1"

    def enter(self, examples: Examples, points: Tensor) -> Tensor:
        """Work on the points themselves."""
        return points

    def leave(self, examples: Examples, current: Tensor) -> Tensor:
        """Return the iterate as an input."""
        return current

    def moved(
        self, state: DescentState, delta: Tensor, gradient: Tensor, relative: Tensor
    ) -> DescentState:
        """Take one step by the signs of the mean gradient, within the new limit."""
        change = LIMIT_CHANGE * relative
        limit = state.boundary_distance * torch.where(state.misses > 0, 1 + change, 1 - change)
        limit = limit.minimum(state.examples.scale)
        largest = per_example(lp_norm(gradient, "l1"), gradient)
        unit = torch.where(largest > 0, gradient / largest, 0)
        mean = torch.lerp(unit, state.mean, BETA1)
        ahead = delta + per_example(relative * limit, delta) * mean.sign()
        within = ball("linf").project(ahead, limit)
        current = state.examples.clamp(state.examples.inputs + within)
        return state._replace(current=current, mean=mean, boundary_distance=limit)
