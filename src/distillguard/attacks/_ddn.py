"""Decoupled direction and norm (Rony et al. 2019)."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._geometry import ball, lp_norm, per_example
from .._ruled_out import spread
from .._typing import Bounds, Callback, Mask, Model
from .._validation import check_at_least, check_choice, check_positive
from ..functional import cross_entropy
from ._engine import Query, logits_and_gradient, run, select
from ._examples import Examples
from ._losses import success_margin

LAST_STEP_SIZE = 0.01
"""Where the cosine schedule of the step size ends; it begins at 1."""

AUTO_SPREAD = 12.0
"""Distance of the largest from the smallest logit that ``temperature="auto"`` brings about.

On MNIST, 12 beats 20 and 32 as well as temperature 1 (undefended) and T (distilled at T=100).
"""


def ddn(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    initial_norm: float | None = None,
    gamma: float = 0.05,
    temperature: float | Literal["auto"] = "auto",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack by decoupling direction and norm: close l2 perturbations in few steps [1]_.

    Follows the cross-entropy only for the direction, and sets the norm separately: smaller by the
    factor :math:`1 - \gamma` after an iterate that fools the model, larger by
    :math:`1 + \gamma` after one that does not,

    .. math::
        \delta_k = \delta_{k-1} + \alpha_k \frac{g}{\lVert g \rVert_2}, \qquad
        \varepsilon_k = (1 \mp \gamma)\, \varepsilon_{k-1}, \qquad
        \tilde x_k = \operatorname{clip}\Bigl(x + \varepsilon_k
        \frac{\delta_k}{\lVert \delta_k \rVert_2}\Bigr),

    while the step size :math:`\alpha_k` falls from 1 to 0.01 along a cosine, in widths of
    ``bounds``. Of all iterates,
    the last included, the closest that fools the model is returned, without the paper's
    rounding to 256 levels.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode; its modes, ``requires_grad`` flags and gradients are left as they were.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    steps : int, default=100
        :math:`K`, gradient steps. The paper reports 100, 300 and 1000; more find smaller
        perturbations.
    initial_norm : float, optional
        :math:`\varepsilon_0`, the first norm tried, in the units of ``inputs``. If not given, the
        width of ``bounds``, the paper's 1 for images in [0, 1]. Far from the final one it costs
        steps: with the default ``gamma`` about 45 for a factor of ten down.
    gamma : float, default=0.05
        :math:`\gamma`, in (0, 1): how fast the norm changes.
    temperature : float or "auto", default="auto"
        What the logits are divided by before the cross-entropy. 1.0 is the paper's attack; it
        fails where a distilled model's softmax saturates and the gradient is exactly zero, and
        the temperature of the distillation undoes that. ``"auto"`` divides each example's
        logits such that the largest and the smallest are 12 apart, at every step: nothing can
        saturate, and multiplying the logits by a positive number changes nothing.
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
        Adversarial examples, like ``inputs``, within ``bounds`` exactly. An example on which
        the attack failed, and one that is misclassified already, comes back unchanged.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``steps`` is below 1,
        ``initial_norm`` or a given ``temperature`` is not a finite number above 0, ``gamma`` is
        outside (0, 1), or ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    carlini_wagner_l2 : Smaller perturbations still, in more evaluations.
    deepfool : A first estimate in a handful of evaluations.

    References
    ----------
    .. [1] J. Rony, L. G. Hafemann, L. S. Oliveira, I. Ben Ayed, R. Sabourin and E. Granger,
       "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and
       Defenses", CVPR 2019, algorithm 1. https://arxiv.org/abs/1811.09600

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import ddn
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> adversarial = ddn(model, torch.tensor([[0.7, 0.4]]), torch.tensor([0]))
    >>> (adversarial - torch.tensor([[0.7, 0.4]])).norm() < 1.02 * 0.3 / 2**0.5
    tensor(True)
    """
    check_at_least("steps", steps, 1)
    if initial_norm is not None:
        check_positive("initial_norm", initial_norm)
    check_positive("gamma", gamma)
    if gamma >= 1:
        raise ValueError(f"gamma must be below 1, got {gamma!r}")
    if isinstance(temperature, str):
        check_choice("temperature", temperature, ("auto",))
    else:
        check_positive("temperature", temperature)

    algorithm = DecoupledDirectionNorm(
        steps=steps,
        initial_norm=initial_norm,
        gamma=gamma,
        temperature=temperature,
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
    )


class DDNState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    current: Tensor
    radius: Tensor
    best: Tensor
    best_distance: Tensor
    step: Tensor


@dataclass(frozen=True)
class DecoupledDirectionNorm:
    """The state machine behind :func:`ddn`."""

    steps: int
    initial_norm: float | None
    gamma: float
    temperature: float | Literal["auto"]
    targeted: bool

    def start(self, examples: Examples) -> DDNState:
        """Begin at the input with the first norm to try (algorithm 1, line 1)."""
        inputs, scale = examples.inputs, examples.scale
        return DDNState(
            examples=examples,
            current=inputs,
            radius=scale if self.initial_norm is None else scale * 0 + self.initial_norm,
            best=inputs,
            best_distance=torch.full_like(scale, torch.inf),
            step=torch.zeros_like(examples.labels),
        )

    def step(self, model: Query, state: DDNState) -> DDNState:
        """Judge the current iterate and move to the next; the last one is only judged."""
        examples = state.examples
        logits, gradient = logits_and_gradient(
            model, examples, state.current, self._loss, moving=state.step < self.steps
        )
        fooled = success_margin(logits, examples, self.targeted) > 0
        delta = state.current - examples.inputs
        distance = lp_norm(delta, "l2")
        closer = fooled & (distance < state.best_distance)
        # Lines 7 to 11: the norm.
        smaller, larger = (1 - self.gamma) * state.radius, (1 + self.gamma) * state.radius
        radius = torch.where(fooled, smaller, larger).minimum(examples.farthest("l2"))

        # Lines 4 to 6 and 12: the direction.
        step_size = per_example(examples.scale * self._step_size(state.step.to(delta)), delta)
        direction = ball("l2").steepest(delta + step_size * ball("l2").steepest(gradient))
        ahead = examples.inputs + per_example(radius, delta) * direction
        return state._replace(
            current=examples.clamp(ahead),
            radius=radius,
            best=select(closer, state.current, state.best),
            best_distance=torch.where(closer, distance, state.best_distance),
            step=state.step + 1,
        )

    def done(self, state: DDNState) -> Tensor:
        """Out of steps, or fooled by the input itself."""
        return (state.step > self.steps) | (state.best_distance == 0)

    def result(self, state: DDNState) -> Tensor:
        """Return the closest iterate that fooled the model, and the input where none did."""
        return state.best

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the cooled logits, to be ascended."""
        if isinstance(self.temperature, str):
            wide = spread(logits)
            logits = logits * torch.where(wide > 0, AUTO_SPREAD / wide, 1)
        else:
            logits = logits / self.temperature
        loss = cross_entropy(logits, labels)
        return -loss if self.targeted else loss

    def _step_size(self, step: Tensor) -> Tensor:
        """From 1 to ``LAST_STEP_SIZE`` along half a cosine (section 3)."""
        falling = (1 + torch.cos(math.pi * step / self.steps)) / 2
        return LAST_STEP_SIZE + (1 - LAST_STEP_SIZE) * falling
