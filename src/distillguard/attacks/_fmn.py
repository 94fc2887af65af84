"""Fast minimum norm (Pintor et al. 2021)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _l1
from .._geometry import ball, lp_norm, per_example
from .._typing import Bounds, Callback, Mask, Model, Norm
from .._validation import check_at_least, check_norm, check_positive
from ..functional import margin_loss
from ._box_projection import step_to_hyperplane
from ._engine import Query, logits_and_gradient, run, select
from ._examples import Examples
from ._losses import success_margin

STEP_SIZES: dict[Norm, float] = {"linf": 2.0, "l2": 1.0, "l1": 1.0}
"""Length of the first step, in radii: in linf it crosses the ball."""

LAST_STEP_SIZE = 0.01
"""Where the cosine schedule of the step size ends, as a share of where it begins."""

LAST_GAMMA = 0.001
"""Where that of gamma ends."""

FALL = 5.0
"""How many times faster than by gamma the radius may fall where the linear model is nearer."""

OVERSHOOT = 0.02
"""By which share the first radii go beyond the linearised boundary: on it nobody is fooled."""


def fmn(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 100,
    step_size: float | None = None,
    gamma: float = 0.1,
    stop_within: float | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack by the fast minimum norm method: close perturbations in few steps, in any norm [1]_.

    Ascends the margin :math:`m = \max_{k \ne y} z_k - z_y` within a ball whose radius follows the
    class boundary. Until the model is fooled for the first time, the radius is the distance
    to the boundary of the linearised model,

    .. math::
        \varepsilon_k = \lVert \delta_{k-1} \rVert + \frac{-m}{\lVert \nabla m \rVert_*},

    after that it shrinks by the factor :math:`1 - \gamma_k` where the model is fooled, to the least
    distance so far at most, and grows by :math:`1 + \gamma_k` where it is not. The
    perturbation takes a step up the gradient and is projected,

    .. math::
        \delta_k = \Pi_{\varepsilon_k}\Bigl(\delta_{k-1}
        + \alpha_k \varepsilon_k \frac{\nabla m}{\lVert \nabla m \rVert_2}\Bigr),

    while :math:`\alpha_k` and :math:`\gamma_k` fall along half a cosine. Of all iterates, the last
    included, the closest that fools the model is returned.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode; its modes, ``requires_grad`` flags and gradients are left as they were.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    norm : {"linf", "l2", "l1"}, default="l2"
        Norm of the perturbation that is kept small.
    steps : int, default=100
        :math:`K`, gradient steps. More find smaller perturbations.
    step_size : float, optional
        :math:`\alpha_0`, the length of the first step as a share of the radius; it falls to a
        hundredth. If not given, 2 in linf and 1 otherwise.
    gamma : float, default=0.1
        :math:`\gamma_0`, in (0, 1): how fast the radius changes at first. It falls to 0.001.
    stop_within : float, optional
        Leave an example alone once the model is fooled within this distance.
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
        in the batch, ``norm`` is unknown, ``steps`` is below 1, a given ``step_size`` or
        ``stop_within`` is not a finite number above 0, ``gamma`` is outside (0, 1), or ``model``
        returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    ddn : The same idea with the cross-entropy, in l2.
    carlini_wagner_linf, carlini_wagner_l2 : Smaller perturbations with more steps.
    sigma_zero : The fewest changes, by the same authors.

    Notes
    -----
    Five things differ from the paper. The length of a step is a share of the radius; there it is
    an absolute number, the same for all inputs. In linf a step follows the sign of the gradient.
    Slopes that lead out of the bounds are left out. The distance to the linearised boundary is
    that within the bounds, and the first radii are two percent longer. And where the
    model is fooled, the radius falls to the distance between the input and that boundary, by
    the factor :math:`1 - 5 \gamma_k` at most. The paper's ``gamma`` is 0.05. In few steps
    this finds much smaller perturbations (see :doc:`/explanation/attacks`).

    References
    ----------
    .. [1] M. Pintor, F. Roli, W. Brendel and B. Biggio, "Fast Minimum-norm Adversarial Attacks
       through Adaptive Norm Constraints", NeurIPS 2021, algorithm 1.
       https://arxiv.org/abs/2102.12827

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import fmn
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> adversarial = fmn(model, torch.tensor([[0.7, 0.4]]), torch.tensor([0]), norm="linf")
    >>> (adversarial - torch.tensor([[0.7, 0.4]])).abs().amax() < 1.02 * 0.15
    tensor(True)
    """
    check_norm(norm, ("linf", "l2", "l1"))
    check_at_least("steps", steps, 1)
    if step_size is not None:
        check_positive("step_size", step_size)
    if stop_within is not None:
        check_positive("stop_within", stop_within)
    check_positive("gamma", gamma)
    if gamma >= 1:
        raise ValueError(f"gamma must be below 1, got {gamma!r}")

    algorithm = FastMinimumNorm(
        norm=norm,
        steps=steps,
        step_size=STEP_SIZES[norm] if step_size is None else step_size,
        gamma=gamma,
        stop_within=0.0 if stop_within is None else stop_within,
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


class FMNState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    current: Tensor
    radius: Tensor
    best: Tensor
    best_distance: Tensor
    """Infinite until the model is fooled."""
    step: Tensor


@dataclass(frozen=True)
class FastMinimumNorm:
    """The state machine behind :func:`fmn`."""

    norm: Norm
    steps: int
    step_size: float
    gamma: float
    stop_within: float
    targeted: bool

    def start(self, examples: Examples) -> FMNState:
        """Begin at the input (algorithm 1, line 1)."""
        endless = torch.full_like(examples.scale, torch.inf)
        return FMNState(
            examples=examples,
            current=examples.inputs,
            radius=endless,
            best=examples.inputs,
            best_distance=endless,
            step=torch.zeros_like(examples.labels),
        )

    def step(self, model: Query, state: FMNState) -> FMNState:
        """Judge the current iterate and move to the next; the last one is only judged."""
        examples, current = state.examples, state.current
        logits, gradient = logits_and_gradient(
            model, examples, current, self._margin, moving=state.step < self.steps
        )
        margin = success_margin(logits, examples, self.targeted)
        distance = lp_norm(current - examples.inputs, self.norm)
        closer = (margin > 0) & (distance < state.best_distance)
        judged = state._replace(
            best=select(closer, current, state.best),
            best_distance=torch.where(closer, distance, state.best_distance),
            step=state.step + 1,
        )

        cosine = (1 + torch.cos(math.pi * state.step.to(distance) / self.steps)) / 2
        gamma = LAST_GAMMA + (self.gamma - LAST_GAMMA) * cosine
        radius = self._radius(judged, distance, margin.to(distance), gradient, gamma)
        # Lines 9 and 10: the step, and the projection onto the ball and the bounds.
        length = self.step_size * (LAST_STEP_SIZE + (1 - LAST_STEP_SIZE) * cosine) * radius
        slope = examples.feasible(gradient, current)
        direction = ball("linf" if self.norm == "linf" else "l2").steepest(slope)
        ahead = current + per_example(length, current) * direction
        return judged._replace(current=self._projected(examples, ahead, radius), radius=radius)

    def done(self, state: FMNState) -> Tensor:
        """Out of steps, or fooled as near as is asked for, or by the input itself."""
        return (state.step > self.steps) | (state.best_distance <= self.stop_within)

    def result(self, state: FMNState) -> Tensor:
        """Return the closest iterate that fooled the model, and the input where none did."""
        return state.best

    def _margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        margin = margin_loss(logits, labels)
        return -margin if self.targeted else margin

    def _radius(
        self, state: FMNState, distance: Tensor, margin: Tensor, gradient: Tensor, gamma: Tensor
    ) -> Tensor:
        """Where the next iterate is looked for (lines 4 to 8)."""
        examples, current, radius = state.examples, state.current, state.radius
        delta = current - examples.inputs
        margin_of_input = margin - (gradient * delta).flatten(1).sum(dim=1).to(margin)
        # Where the model is fooled the input's distance counts, elsewhere that still to go.
        fooled = margin > 0
        start = select(fooled, examples.inputs, current)
        gap = -torch.where(fooled, margin_of_input, margin)
        step = step_to_hyperplane(start, gradient, gap, self.norm, examples.low, examples.high)
        reach = lp_norm(step, self.norm)

        slower, faster = (1 - gamma) * radius, (1 - FALL * gamma) * radius
        smaller = reach.maximum(faster).minimum(slower).minimum(state.best_distance)
        found = state.best_distance.isfinite()
        to_boundary = (1 + OVERSHOOT) * (distance + reach)
        larger = torch.where(found, (1 + gamma) * radius, to_boundary)
        chosen = torch.where(fooled, smaller, larger)
        return chosen.minimum(examples.farthest(self.norm))

    def _projected(self, examples: Examples, points: Tensor, radius: Tensor) -> Tensor:
        if self.norm == "l1":
            return _l1.project(points, examples.inputs, radius, examples.low, examples.high)
        delta = ball(self.norm).project(points - examples.inputs, radius)
        return examples.clamp(examples.inputs + delta)
