"""The L0 attack of Carlini and Wagner (2017), with an allowance that follows the iterates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._geometry import per_example, size
from .._typing import Bounds, Distance, Model
from .._validation import check_at_least, check_not_negative
from ._carlini_wagner import RACERS, Race, RaceState, in_full_precision, schedule
from ._engine import run

MEAN_DECAY = 0.7
"""Of the gradients that the iterates met."""
ALLOWANCE_CHANGE = 0.3
"""Change of the allowance per step, relative to the step; at least one coordinate."""


def carlini_wagner_l0(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    confidence: float = 0.0,
    steps: int = 200,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Look for an adversarial example that changes the fewest coordinates [1]_.

    The paper runs its L2 attack, forbids the coordinates that matter least to move, and repeats
    until the attack fails. Here one descent does both: each step ascends the margin and then
    takes back the smallest changes, so that no more coordinates differ than an allowance, which
    falls with every iterate that reaches the wanted margin and rises with every one that misses
    it. The classes race as in :func:`carlini_wagner_l2`.

    Coordinates are counted one by one: the three colours of a pixel are three.

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
        The margin to reach, in units of the logits. Examples with a higher one change
        more and transfer better to other models.
    steps : int, default=200
        Gradient steps in all, each one forward and one backward pass. An example on which
        classes drop out of the race takes fewer.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Only reaches models that draw random numbers themselves; the attack draws none.
    progress : bool, default=False
        Show a progress bar that counts decided examples.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs`` and within ``bounds`` exactly: of all iterates with
        the wanted margin the one with the fewest changes. An example without any comes back
        unchanged, and so does one that has the margin already.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point or ``labels`` is not int64.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, ``confidence`` is not a finite number
        of at least 0, ``steps`` is below 1, or ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    carlini_wagner_l2 : The same in L2.
    jsma : Changes features one pair after the other.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, section VI-B. https://arxiv.org/abs/1608.04644

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import carlini_wagner_l0
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    >>> inputs = torch.tensor([[0.6, 0.3]])
    >>> carlini_wagner_l0(model, inputs, torch.tensor([0])) != inputs
    tensor([[False,  True]])
    """
    check_not_negative("confidence", confidence)
    check_at_least("steps", steps, 1)
    return run(
        Race(
            descent=LargestChangesWithinAnAllowance(),
            runs=schedule(steps, 1 if targeted else RACERS),
            confidence=confidence,
            targeted=targeted,
            bounds=bounds,
        ),
        model,
        inputs,
        labels,
        bounds=bounds,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
    )


@dataclass(frozen=True)
class LargestChangesWithinAnAllowance:
    """How :func:`carlini_wagner_l0` descends; ``reach`` is the allowance."""

    norm: Distance = "l0"
    dual: Distance = "linf"

    def enter(self, inputs: Tensor, points: Tensor, bounds: Bounds) -> Tensor:
        """Work on the points themselves."""
        return in_full_precision(points)

    def leave(self, inputs: Tensor, current: Tensor, bounds: Bounds) -> Tensor:
        """Return the iterate as an input."""
        return current.to(inputs)

    def moved(
        self, state: RaceState, delta: Tensor, gradient: Tensor, relative: Tensor, bounds: Bounds
    ) -> RaceState:
        """Take one step along the mean gradient, then keep the largest changes alone."""
        change = (ALLOWANCE_CHANGE * relative * state.reach).clamp(min=1)
        allowance = state.reach + torch.where(state.misses > 0, change, -change)
        allowance = allowance.clamp(min=1, max=delta[0].numel())

        largest = per_example(size(gradient, "linf"), gradient)
        unit = torch.where(largest > 0, gradient / largest, 0)
        mean = torch.lerp(unit, state.mean, MEAN_DECAY)
        steepest = per_example(size(mean, "linf"), mean)
        low, high = bounds
        length = per_example(relative * (high - low), mean)
        ahead = delta + torch.where(steepest > 0, length * mean / steepest, 0)

        inputs = in_full_precision(state.inputs)
        changed = ((inputs + ahead).clamp(low, high) - inputs).flatten(1)
        order = changed.abs().argsort(dim=1, descending=True, stable=True)
        place = torch.arange(order.shape[1], device=order.device)
        kept = torch.zeros_like(changed).scatter(
            1, order, (place < allowance.floor()[:, None]).to(changed)
        )
        current = torch.where(kept.view_as(inputs) > 0, inputs + changed.view_as(inputs), inputs)
        return state._replace(current=current.clamp(low, high), mean=mean, reach=allowance)
