"""Targeted FAB: the nearest point across linearised boundaries (Croce and Hein 2020)."""

from torch import Tensor

from .._typing import Bounds, Model, Norm
from .._validation import check_at_least, check_in_unit_interval, check_norm, check_positive
from ._boundary import FastAdaptiveBoundary
from ._engine import run


def fab_targeted(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "linf",
    n_targets: int = 9,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_within: float | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Attack by stepping to linearised class boundaries, close to the input [1]_.

    The ``n_targets`` wrong classes that the model finds likeliest at the input are tried one
    after another. Towards a class :math:`t` each step linearises :math:`z_t - z_y` at
    :math:`x_k`, finds within ``bounds`` the smallest steps :math:`\delta` from :math:`x_k` and
    :math:`\delta_0` from the input :math:`x` to the hyperplane where it vanishes, exactly, and
    goes to

    .. math::
        x_{k+1} = (1 - \alpha)(x_k + \eta\delta) + \alpha(x + \eta\delta_0),
        \qquad \alpha = \min\Bigl(\tfrac{\lVert\delta\rVert}
        {\lVert\delta\rVert + \lVert\delta_0\rVert}, \alpha_{\max}\Bigr).

    From a point that fools the model the next step is taken a share :math:`1 - \beta` nearer to
    the input. At last the segment from the input to the nearest such point is searched.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode and given back as it was.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    norm : {"linf", "l2"}, default="linf"
        Norm of the perturbation to make small.
    n_targets : int, default=9
        Wrong classes to try; all of them where the model has fewer.
    steps : int, default=100
        Steps towards each class, one or two model evaluations each.
    restarts : int, default=1
        How often to go through all the classes: first from the input, then each time from
        random points around it, half as far as the nearest success.
    alpha_max : float, default=0.1
        :math:`\alpha_{\max}`, in [0, 1]: how strongly the steps are pulled towards the input.
    eta : float, default=1.05
        :math:`\eta`, at least 1: by how much the steps overshoot the hyperplane.
    beta : float, default=0.9
        :math:`\beta`, in [0, 1]: 1 goes on from a success itself, 0 from the input.
    stop_within : float, optional
        Leave an example alone as soon as a success is at most this far. Far cheaper where only
        the share of examples with a success within a radius is asked for.
    targeted : bool, default=False
        Look for the nearest point of the classes ``labels``, the only ones tried then.
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
        Adversarial examples, like ``inputs``, within ``bounds`` exactly. Unchanged where the
        attack failed or the input is misclassified already.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point or ``labels`` is not int64.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, ``alpha_max`` or ``beta`` is outside
        [0, 1], ``eta`` is below 1, ``stop_within`` is not a finite number above 0,
        ``n_targets``, ``steps`` or ``restarts`` is below 1, ``norm`` is unknown, or ``model``
        returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    carlini_wagner_l2 : Minimises the distance by gradient descent instead.
    apgd_targeted : Tries the same classes within a budget.

    Notes
    -----
    A run towards a class ends early where the iterate no longer moves, as at a zero gradient.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive
       Boundary Attack", ICML 2020, algorithm 1. https://arxiv.org/abs/1907.02044

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import fab_targeted
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> adversarial = fab_targeted(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
    >>> (adversarial * 1000).round() / 1000  # just across the diagonal
    tensor([[0.5000, 0.5000]])
    """
    check_norm(norm, ("linf", "l2"))
    check_at_least("n_targets", n_targets, 1)
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_in_unit_interval("alpha_max", alpha_max)
    check_in_unit_interval("beta", beta)
    check_positive("eta", eta)
    if eta < 1:
        raise ValueError(f"eta must be at least 1, got {eta!r}")
    if stop_within is not None:
        check_positive("stop_within", stop_within)

    algorithm = FastAdaptiveBoundary(
        norm=norm,
        n_targets=n_targets,
        steps=steps,
        restarts=restarts,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
        stop_within=0.0 if stop_within is None else stop_within,
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
