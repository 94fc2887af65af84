"""Auto-PGD: projected gradient descent that sets its own step sizes (Croce and Hein 2020)."""

from torch import Tensor

from .._typing import Bounds, Loss, Model, Norm
from .._validation import (
    check_at_least,
    check_in_unit_interval,
    check_norm,
    check_positive,
)
from ._autopgd import AutoPGD
from ._engine import run
from ._losses import ascended_loss


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
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Attack with Auto-PGD: gradient ascent whose step size follows its own success [1]_.

    From a random point of the ball, each example for itself repeats

    .. math::
        z &= \Pi\bigl(x_k + \eta \, d(\nabla_x \ell(f(x_k), y))\bigr) \\
        x_{k+1} &= \Pi\bigl(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})\bigr)

    with :math:`\eta = 2\varepsilon` at first, :math:`d` the steepest direction of the norm and
    :math:`\Pi` the projection onto the :math:`\varepsilon`-ball and ``bounds``. At checkpoints,
    after 22 % of the steps and then at ever shorter distances, :math:`\eta` is halved and the
    ascent taken up again at its highest point, if too few steps since the last checkpoint went
    up or if neither :math:`\eta` nor the highest loss has changed there.

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
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    loss : {"cross_entropy", "margin", "dlr"} or callable, default="cross_entropy"
        What to ascend: a name, or a function from ``(logits, labels)`` to one value per
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
        rate is the same; without it the margin goes on growing, which transfers better.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of the random starts, drawn per example. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within ``epsilon``
        up to rounding. Where the attack failed its best candidate is returned: judge success
        by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point or ``labels`` is not int64.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, ``epsilon`` is not a finite number
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
    check_norm(norm, ("linf", "l2"))
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_in_unit_interval("rho", rho)

    ascended = ascended_loss(loss, targeted)
    algorithm = AutoPGD(
        epsilon=epsilon,
        norm=norm,
        objective=lambda logits, state: ascended(logits, state.labels),
        steps=steps,
        restarts=restarts,
        rho=rho,
        early_stop=early_stop,
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
