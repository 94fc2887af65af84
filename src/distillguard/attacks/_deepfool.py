"""DeepFool (Moosavi-Dezfooli et al. 2016)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._geometry import DUAL, ball, lp_norm, per_example
from .._typing import Bounds, Callback, Mask, Model, Norm
from .._validation import check_at_least, check_norm, check_not_negative
from ._engine import Query, logits_and_jacobian, logits_at, run, select
from ._examples import Examples
from ._losses import success_margin

LEAST_STEP = 1e-5
"""Share of the width of the bounds that the first step moves at least; each further one twice that.

Without it a point on the boundary itself, where the linear distance is 0, stays for ever, and so
does one whose step half precision swallows, or that ties there. The authors' code adds 1e-4 to
every step to that end.
"""


def deepfool(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Literal["l2", "linf"] = "l2",
    steps: int = 50,
    overshoot: float = 0.02,
    n_candidates: int = 10,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack by crossing the nearest linearised class boundary, again and again [1]_.

    At each point the logits are approximated by linear functions. With :math:`f_k` the gap between
    the logit of class :math:`k` and that of the label, and :math:`w_k` its gradient, the nearest
    boundary is that of

    .. math:: \hat l = \arg\min_k \frac{|f_k|}{\lVert w_k \rVert_q}, \qquad
        r = \frac{|f_{\hat l}|}{\lVert w_{\hat l} \rVert_q} \, d(w_{\hat l}),

    with :math:`d` the direction of size 1 that ascends fastest and :math:`q` the dual norm. The
    steps :math:`r` add up, within ``bounds``, until the input moved by
    :math:`1 + \text{overshoot}` times their sum is misclassified. The result is close, but not
    the closest: :func:`ddn` finds smaller perturbations in more steps.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode; its modes, ``requires_grad`` flags and gradients are left as they were.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    norm : {"l2", "linf"}, default="l2"
        Norm of the perturbation that is kept small.
    steps : int, default=50
        Linearisations at most. Each costs one forward and one backward per candidate class;
        on most networks two to eight suffice.
    overshoot : float, default=0.02
        :math:`\eta`, how far past the linear boundary to go, as a share of the perturbation.
    n_candidates : int, default=10
        Wrong classes whose boundaries are considered, the likeliest at each step. The paper
        considers all; with hundreds of classes few boundaries are near and each costs a
        backward.
    targeted : bool, default=False
        Move towards ``labels``: the only boundary is then that between the label and the
        likeliest other class.
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
        in the batch, ``steps`` or ``n_candidates`` is below
        1, ``overshoot`` is negative or not finite, ``norm`` is neither ``"l2"`` nor ``"linf"``,
        or ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    ddn : Smaller l2 perturbations, one backward a step.
    carlini_wagner_l2 : The smallest l2 perturbations.

    Notes
    -----
    Only gaps of logits and their gradients enter: multiplying the logits by a positive number
    changes nothing, so that a distillation temperature is no obstacle. Steps know no bounds, to
    which only their sum is cut: in l2, pixels at a bound with a huge slope across it hold it up.

    References
    ----------
    .. [1] S.-M. Moosavi-Dezfooli, A. Fawzi and P. Frossard, "DeepFool: a Simple and Accurate
       Method to Fool Deep Neural Networks", CVPR 2016, algorithm 2 and section 3.3.
       https://arxiv.org/abs/1511.04599

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import deepfool
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> deepfool(model, torch.tensor([[0.7, 0.4]]), torch.tensor([0]))
    tensor([[0.5470, 0.5530]])
    """
    check_norm(norm, ("l2", "linf"))
    check_at_least("steps", steps, 1)
    check_not_negative("overshoot", overshoot)
    check_at_least("n_candidates", n_candidates, 1)

    algorithm = DeepFool(
        norm=norm,
        steps=steps,
        overshoot=overshoot,
        n_candidates=n_candidates,
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


class DeepFoolState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    total: Tensor
    """Sum of the steps, before the overshoot."""
    current: Tensor
    reached: Tensor
    step: Tensor


@dataclass(frozen=True)
class DeepFool:
    """The state machine behind :func:`deepfool`."""

    norm: Norm
    steps: int
    overshoot: float
    n_candidates: int
    targeted: bool

    def start(self, examples: Examples) -> DeepFoolState:
        """Begin at the input."""
        return DeepFoolState(
            examples=examples,
            total=torch.zeros_like(examples.inputs),
            current=examples.inputs,
            reached=torch.zeros_like(examples.labels, dtype=torch.bool),
            step=torch.zeros_like(examples.labels),
        )

    def step(self, model: Query, state: DeepFoolState) -> DeepFoolState:
        """Judge the current point and step to the nearest boundary; the last is only judged."""
        examples, inputs = state.examples, state.examples.inputs
        if bool((state.step < self.steps).any()):
            logits, jacobian = logits_and_jacobian(model, examples, state.current, self._gaps)
            gaps = self._gaps(logits, examples.labels)
            move = self._shortest(gaps, jacobian, state.step, examples.scale)
        else:
            logits = logits_at(model, examples, state.current)
            move = torch.zeros_like(state.current)

        reached = success_margin(logits, examples, self.targeted) > 0
        total = examples.clamp(inputs + state.total + move) - inputs
        ahead = examples.clamp(inputs + (1 + self.overshoot) * total)
        return state._replace(
            total=total,
            current=select(reached, state.current, ahead),
            reached=reached,
            step=state.step + 1,
        )

    def done(self, state: DeepFoolState) -> Tensor:
        """Across a boundary, or out of steps."""
        return state.reached | (state.step > self.steps)

    def result(self, state: DeepFoolState) -> Tensor:
        """Return the point across the boundary, and the input where there is none."""
        return select(state.reached, state.current, state.examples.inputs)

    def _gaps(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How far each class to reach is above the one to leave, in logits: (n, k)."""
        labelled = logits.gather(1, labels[:, None])
        others = logits.scatter(1, labels[:, None], -torch.inf)
        if self.targeted:
            return labelled - others.amax(dim=1, keepdim=True)
        rivals = min(self.n_candidates, logits.shape[1] - 1)
        return others.topk(rivals, dim=1).values - labelled

    def _shortest(self, gaps: Tensor, jacobian: Tensor, step: Tensor, scale: Tensor) -> Tensor:
        """Step onto the nearest of the k linearised boundaries (algorithm 2, lines 5 to 9).

        Nowhere if all are flat.
        """
        steepness = lp_norm(jacobian.flatten(0, 1), DUAL[self.norm]).view_as(gaps)
        distances = torch.where(steepness > 0, gaps.abs() / steepness, torch.inf)
        distance, nearest = distances.min(dim=1)

        scale = scale.to(distance)
        least = (LEAST_STEP * scale * torch.exp2(step.to(distance))).minimum(scale)
        length = torch.where(distance.isfinite(), distance, 0).maximum(least)
        slope = jacobian[torch.arange(len(jacobian), device=jacobian.device), nearest]
        return per_example(length, slope).to(slope) * ball(self.norm).steepest(slope)
