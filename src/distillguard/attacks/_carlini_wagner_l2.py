"""The L2 attack of Carlini and Wagner (2017), with c from its optimality condition."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import ball, per_example, size
from .._typing import Bounds, Model
from .._validation import check_at_least, check_not_negative
from ._engine import run, value_and_gradient
from ._losses import success_margin

EDGE = 1.0
"""Where the bounds lie in tanh space; the slope there is 0.42, so saturated pixels can move."""
PUSH = 2.0
"""c relative to the value at which its term balances the distance's: above 1, or nothing moves."""
PUSH_GROWTH = 0.05
"""How much c grows with each iterate that misses in a row."""
FIRST_STEP, LAST_STEP = 1.0, 0.005
"""Length of the first and the last step, relative to the distance."""
MEAN_DECAY, SQUARE_DECAY = 0.9, 0.99
"""Adam's."""


def carlini_wagner_l2(
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
    r"""Look for the closest adversarial example in L2 [1]_.

    Minimises, with Adam and in the variable :math:`w`,

    .. math::
        \|x' - x\|_2^2 + c \, \max\bigl(\kappa - f(x'), 0\bigr), \qquad
        x' = \text{mid} + \text{half} \cdot \tanh w / \tanh 1,

    where :math:`f` is the margin (best wrong logit minus the labelled one, or its negative when
    ``targeted``) and :math:`\kappa` is ``confidence``. Instead of the published search over
    :math:`c` by repeated runs, each step sets it from the optimality condition: at the closest
    adversarial example :math:`c = 2 \|x' - x\| / \|\nabla f\|`, and twice that pushes the
    iterate across the boundary, from where the distance draws it back. Nothing therefore
    depends on the scale of the logits, which a distilled network makes huge.

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
    steps : int, default=200
        Gradient steps, each one forward and one backward pass.
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
        the wanted margin the closest. An example without any comes back unchanged, and so does
        one that the model misclassifies already.

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
    check_at_least("steps", steps, 1)
    return run(
        CarliniWagnerL2(confidence, steps, targeted, bounds),
        model,
        inputs,
        labels,
        bounds=bounds,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
    )


class L2State(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    inputs: Tensor
    labels: Tensor
    origin: Tensor
    """The inputs in tanh space."""
    current: Tensor
    """The iterate in tanh space."""
    mean: Tensor
    """Adam's first moment."""
    square: Tensor
    """Adam's second moment, one per example so that a step keeps the gradient's direction."""
    reach: Tensor
    """Distance to the boundary as far as it is known, which scales the steps."""
    best: Tensor
    best_distance: Tensor
    misses: Tensor
    """Iterates in a row, up to this one, without the wanted margin."""
    taken: Tensor
    """Gradient steps taken; ``steps + 1`` once the last iterate is judged."""


@dataclass(frozen=True)
class CarliniWagnerL2:
    """The state machine behind :func:`carlini_wagner_l2`."""

    confidence: float
    steps: int
    targeted: bool
    bounds: Bounds

    def start(self, inputs: Tensor, labels: Tensor, keys: Tensor) -> L2State:
        """Place every example at its input."""
        exact = inputs.float() if inputs.element_size() < 4 else inputs
        low, high = self.bounds
        share = ((exact - low) / (high - low)).clamp(0, 1)
        origin = torch.atanh((2 * share - 1) * math.tanh(EDGE))
        farthest = size(torch.maximum(exact - low, high - exact), "l2")
        return L2State(
            inputs=inputs,
            labels=labels,
            origin=origin,
            current=origin,
            mean=torch.zeros_like(origin),
            square=torch.zeros_like(farthest),
            reach=farthest,
            best=inputs,
            best_distance=torch.full_like(farthest, math.inf),
            misses=torch.zeros_like(labels),
            taken=torch.zeros_like(labels),
        )

    def step(self, model: Model, state: L2State) -> L2State:
        """Judge the current iterate and move to the next; the last one is only judged."""
        point = self.point(state)
        logits, gradient = value_and_gradient(model, point, self.margin, state.labels)
        missing = (self.confidence - self.margin(logits, state.labels)).to(state.reach)
        reached = (missing <= 0) & (missing < self.confidence)

        delta = (point - state.inputs).to(state.origin)
        gradient = self.unblocked(gradient.to(state.origin), point)
        distance = size(delta, "l2")
        closer = reached & (distance < state.best_distance)
        linearised = missing.clamp(min=0) / size(gradient, "l2")
        state = state._replace(
            best=torch.where(per_example(closer, point), point, state.best),
            best_distance=torch.where(closer, distance, state.best_distance),
            reach=torch.where(
                closer | (state.taken == 0),
                torch.where(reached, distance, linearised).fmin(state.reach),
                state.reach,
            ),
            misses=torch.where(reached, 0, state.misses + 1),
            taken=state.taken + 1,
        )
        return self.moved(state, delta, gradient)

    def done(self, state: L2State) -> Tensor:
        """Out of steps, or misclassified to begin with."""
        return (state.taken > self.steps) | (state.best_distance == 0)

    def result(self, state: L2State) -> Tensor:
        """Return the closest iterate that reached the margin."""
        return state.best

    def margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The aim's margin, to be ascended."""
        return success_margin(logits, labels, self.targeted)

    def point(self, state: L2State) -> Tensor:
        """Return the iterate in input space; an unmoved coordinate is exactly the input's."""
        low, high = self.bounds
        moved = (state.current.tanh() - state.origin.tanh()) * (high - low) / (2 * math.tanh(EDGE))
        return (state.inputs.to(moved) + moved).clamp(low, high).to(state.inputs)

    def unblocked(self, gradient: Tensor, point: Tensor) -> Tensor:
        """Zero the slope of coordinates that would leave the bounds."""
        low, high = self.bounds
        blocked = ((point <= low) & (gradient < 0)) | ((point >= high) & (gradient > 0))
        return gradient.masked_fill(blocked, 0)

    def moved(self, state: L2State, delta: Tensor, gradient: Tensor) -> L2State:
        """Take one step of Adam down the objective, divided by twice the distance."""
        low, high = self.bounds
        unit = ball("l2").steepest
        push = torch.where(state.misses > 0, PUSH * (1 + PUSH_GROWTH * (state.misses - 1)), 0)
        descent = unit(delta) - per_example(push.to(delta), delta) * unit(gradient)
        descent = descent * (1 - state.current.tanh() ** 2)

        mean = torch.lerp(descent, state.mean, MEAN_DECAY)
        square = torch.lerp(size(descent, "l2") ** 2, state.square, SQUARE_DECAY)
        share = (state.taken - 1).to(square) / max(self.steps - 1, 1)
        relative = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** share
        length = relative * state.reach * 2 / (high - low)
        debiased = (square / (1 - SQUARE_DECAY ** state.taken.to(square))).sqrt()
        rate = length / (debiased * (1 - MEAN_DECAY ** state.taken.to(square)))
        rate = torch.where(debiased > 0, rate, 0)
        ahead = state.current - per_example(rate, mean) * mean
        return state._replace(current=ahead.clamp(-EDGE, EDGE), mean=mean, square=square)
