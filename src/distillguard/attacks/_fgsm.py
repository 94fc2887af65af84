"""The fast gradient sign method (Goodfellow et al. 2015)."""

from torch import Tensor

from .._typing import Bounds, Callback, Loss, Mask, Model, Norm
from .._validation import check_norm
from ._pgd import pgd


def fgsm(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    loss: str | Loss = "cross_entropy",
    judge_last: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack with one gradient step to the edge of the ball [1]_.

    .. math:: x' = \Pi\bigl(x + \varepsilon \, d(\nabla_x \ell(f(x), y))\bigr)

    with :math:`d = \operatorname{sign}` in linf and the normalised gradient in l2. In l1 all of
    :math:`\varepsilon` goes into the steepest coordinates, each as far as its bound: no other
    point is better on a linear model. An input that is misclassified already, or that the step
    does not bring nearer to misclassification, comes back unchanged.

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
        What to ascend, as for :func:`pgd`. The cross-entropy is blind where the softmax
        saturates.
    judge_last : bool, default=True
        Ask the model whether the step helped. False saves that pass where the caller judges the
        result anyway: the step is then returned as it is, as in the paper.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors
        broadcastable to one input, such as one bound for each feature or channel.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or of all (with a first axis of 1
        or n); the others come back bit-equal. All may if not given.
    batch_size : int, default=256
        Examples on the device at once.
    random_state : int, optional
        Only reaches models that draw random numbers themselves; the attack draws none.
    progress : bool, default=False
        Show a progress bar.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``, within ``bounds`` exactly and within
        ``epsilon`` up to rounding.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` is not a finite number
        above 0, ``norm`` or ``loss`` is unknown, or ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    pgd : Many small steps instead of one.

    References
    ----------
    .. [1] I. Goodfellow, J. Shlens and C. Szegedy, "Explaining and Harnessing Adversarial
       Examples", ICLR 2015, section 4. https://arxiv.org/abs/1412.6572

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import fgsm
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> fgsm(model, torch.tensor([[0.7, 0.4]]), torch.tensor([0]), epsilon=0.2)
    tensor([[0.5000, 0.6000]])
    """
    check_norm(norm)
    return pgd(
        model,
        inputs,
        labels,
        epsilon=epsilon,
        norm=norm,
        loss=loss,
        steps=1,
        step_size=epsilon,
        random_start=False,
        judge_last=judge_last,
        targeted=targeted,
        bounds=bounds,
        mask=mask,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
        callback=callback,
    )
