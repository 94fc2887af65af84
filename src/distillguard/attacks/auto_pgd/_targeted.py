"""Targeted Auto-PGD: the likeliest wrong classes, one after another (Croce and Hein 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._typing import Bounds, Callback, Mask, Model, Norm
from ..._validation import check_at_least, check_in_unit_interval, check_norm, check_positive
from .._engine import Query, put, run, take
from .._examples import Examples
from .._targets import (
    TargetChoice,
    TargetOrder,
    check_target_order,
    logit_gap,
    target_of_run,
)
from ._machine import APGDState, AutoPGD
from ._sparse import SparseAutoPGD


def apgd_targeted(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    n_targets: int = 9,
    target_order: TargetOrder = "likeliest",
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
    r"""Attack with Auto-PGD towards each likely wrong class in turn [1]_.

    The ``n_targets`` wrong classes that the model finds likeliest at the clean input, or whose
    boundaries are nearest, are tried one after another, each by a run of :func:`apgd` that ascends

    .. math:: -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2 + 10^{-12}}

    with :math:`t` the class tried and :math:`z_{\pi_1} \ge z_{\pi_2} \ge \dots` the logits in
    order. The first success ends the search.

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
        Radius of the ball, in the units of ``inputs``.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball.
    n_targets : int, default=9
        Wrong classes to try; all of them where the model has fewer.
    target_order : {"likeliest", "nearest"}, default="likeliest"
        In which order wrong classes are tried: by their logits, as the authors have it, or by the
        distance to their boundaries of the model linearised at the input [2]_. That looks at the
        12 likeliest wrong classes, or at ``n_targets`` if they are more, one backward pass each,
        and few of them find what many of the likeliest find.
    steps : int, default=100
        Gradient steps towards each class.
    restarts : int, default=1
        How often to go through all the classes, each time from other random points.
    rho : float, default=0.75
        In [0, 1]: the share of steps between two checkpoints that must raise the loss for the
        step size to stay.
    early_stop : bool, default=True
        Leave an example alone as soon as the model is fooled, rather than run towards every
        class and return the widest margin.
    targeted : bool, default=False
        Move towards ``labels``, the only class tried then, ahead of its best rival.
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
        by asking the model. An input that is misclassified already comes back unchanged.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` is not a finite number
        above 0, ``rho`` is outside [0, 1], ``n_targets``, ``steps`` or ``restarts`` is below 1,
        ``norm`` or ``target_order`` is unknown, or ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    apgd : Away from the label, without a class in view; many times cheaper where it fails.

    Notes
    -----
    The loss needs a fourth logit. With two or three classes its numerator alone is ascended.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable Evaluation of Adversarial Robustness with an
       Ensemble of Diverse Parameter-free Attacks", ICML 2020, algorithm 1 and equation 7.
       https://arxiv.org/abs/2003.01690
    .. [2] O. Melamed, G. Yehudai and A. Shamir, "MALT Powers Up Adversarial Attacks",
       NeurIPS 2024. https://arxiv.org/abs/2407.02240

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import apgd_targeted
    >>> model = torch.nn.Linear(2, 3, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.5]]))
    >>> inputs, labels = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
    >>> model(apgd_targeted(model, inputs, labels, epsilon=0.2)).argmax(dim=1)
    tensor([1])
    """
    check_positive("epsilon", epsilon)
    check_norm(norm)
    check_at_least("n_targets", n_targets, 1)
    check_target_order(target_order)
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_in_unit_interval("rho", rho)

    def objective(logits: Tensor, state: APGDState) -> Tensor:
        target = target_of_run(state.targets, state.run, state.runs // restarts)
        return targeted_dlr(logits, logit_gap(logits, state.examples.labels, target, targeted))

    algorithm = (TargetedSparseAutoPGD if norm == "l1" else TargetedAutoPGD)(
        epsilon=epsilon,
        norm=norm,
        objective=objective,
        steps=steps,
        restarts=restarts,
        rho=rho,
        early_stop=early_stop,
        targeted=targeted,
        choose=TargetChoice(n_targets, target_order, norm, targeted),
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


@dataclass(frozen=True)
class TargetedAutoPGD(AutoPGD):
    """Auto-PGD whose runs have a target each, chosen by a first look at the clean example."""

    choose: TargetChoice

    def start(self, examples: Examples) -> APGDState:
        """Place every example at itself, as if a run before the first had ended there."""
        state, labels = super().start(examples), examples.labels
        return state._replace(
            targets=labels.new_zeros(len(labels), self.choose.n_targets),
            run=torch.full_like(labels, -1),
            step=torch.full_like(labels, self.steps + 1),
            current=examples.inputs,
        )

    def step(self, model: Query, state: APGDState) -> APGDState:
        """At the first look choose the targets; later move towards them."""
        first = state.run < 0
        for chosen, move in ((first, self.first_look), (~first, super().step)):
            rows = chosen.nonzero().squeeze(1)
            if len(rows) == len(chosen):
                return move(model, state)
            if len(rows):
                state = put(state, rows, move(model, take(state, rows)))
        return state

    def first_look(self, model: Query, state: APGDState) -> APGDState:
        """Judge the input, choose the targets and go to the first run's start."""
        logits, targets, count = self.choose(model, state.examples)
        state = self.keep_widest(state, logits)
        runs = torch.full_like(state.runs, count * self.restarts)
        return self.restart(state._replace(targets=targets, runs=runs))


@dataclass(frozen=True)
class TargetedSparseAutoPGD(TargetedAutoPGD, SparseAutoPGD):
    """The same in l1."""


def targeted_dlr(logits: Tensor, gap: Tensor) -> Tensor:
    """Lead of a class in units of the spread of the largest logits (equation 7)."""
    if logits.shape[1] < 4:
        return gap
    ordered = logits.topk(4, dim=1).values
    return gap / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)
