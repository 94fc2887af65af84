"""Auto-PGD: projected gradient descent that sets its own step sizes (Croce and Hein 2020)."""

from torch import Tensor

from ..._typing import Bounds, Callback, Loss, Mask, Model, Norm
from ..._validation import check_at_least, check_in_unit_interval, check_norm, check_positive
from .._engine import run
from .._losses import ascended_loss
from ._machine import AutoPGD
from ._sparse import SparseAutoPGD


def apgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    loss: str | Loss = "cross_entropy",
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
    r"""Attack with Auto-PGD: gradient ascent whose step size follows its own success [1]_.

    From a random point of the ball, it repeats for each example

    .. math::
        z &= \Pi\bigl(x_k + \eta \, d(\nabla_x \ell(f(x_k), y))\bigr) \\
        x_{k+1} &= \Pi\bigl(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})\bigr)

    with :math:`\eta = 2\varepsilon` at first, :math:`d` the steepest direction of the norm and
    :math:`\Pi` the projection onto the :math:`\varepsilon`-ball and ``bounds``. At checkpoints,
    after 22 % of the steps and then at ever shorter distances, :math:`\eta` is halved and the
    ascent continues from its highest point, if too few steps since the last checkpoint went up or
    if neither :math:`\eta` nor the highest loss has changed there.

    In l1 [2]_ the steps change few coordinates: a third as many as differ at the highest point. A
    run spends 30 % of its steps in the ball of radius :math:`3\varepsilon`, 30 % in that of
    :math:`2\varepsilon` and the others within the budget, each stage from the projection of the
    last one's highest point. There is no momentum, and :math:`\rho` has no part in it. A run
    starts from normal noise, projected.

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
        :math:`\varepsilon`, radius of the ball, in the units of ``inputs``.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball.
    loss : str or callable, default="cross_entropy"
        What to ascend: ``"cross_entropy"``, ``"margin"``, ``"dlr"``,
        ``"rescaled_cross_entropy"``, or a function from ``(logits, labels)`` to one value per
        example. ``"dlr"`` and ``"margin"`` still have gradients where a distilled model's
        cross-entropy has none.
    steps : int, default=100
        Gradient steps of each run. The checkpoints are shares of it.
    restarts : int, default=1
        Independent runs.
    rho : float, default=0.75
        :math:`\rho`, in [0, 1]: the share of steps between two checkpoints that must raise the
        loss for the step size to stay.
    early_stop : bool, default=True
        Leave an example alone as soon as the model is fooled. Much cheaper, and the success
        rate is the same; without it the margin keeps growing, which transfers better.
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
        by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` is not a finite number
        above 0, ``rho`` is outside [0, 1], ``steps`` or ``restarts`` is below 1, ``norm`` or
        ``loss`` is unknown, or ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    apgd_targeted : Tries the likeliest wrong classes one after another.
    pgd : The same ascent with a step size that the caller sets.

    Notes
    -----
    A run ends early where its iterate can move no further, such as at a zero gradient: the
    model would be asked about one point again and again.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable Evaluation of Adversarial Robustness with an
       Ensemble of Diverse Parameter-free Attacks", ICML 2020, algorithm 1.
       https://arxiv.org/abs/2003.01690
    .. [2] F. Croce and M. Hein, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image
       Classifiers", ICML 2021, algorithm 1. https://arxiv.org/abs/2103.01208

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import apgd
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> apgd(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]), epsilon=0.2, early_stop=False)
    tensor([[0.4000, 0.6000]])
    """
    check_positive("epsilon", epsilon)
    check_norm(norm)
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_in_unit_interval("rho", rho)

    ascended = ascended_loss(loss, targeted)
    algorithm = (SparseAutoPGD if norm == "l1" else AutoPGD)(
        epsilon=epsilon,
        norm=norm,
        objective=lambda logits, state: ascended(logits, state.examples.labels),
        steps=steps,
        restarts=restarts,
        rho=rho,
        early_stop=early_stop,
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
