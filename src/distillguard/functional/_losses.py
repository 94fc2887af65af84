"""Softmax with a temperature, distillation losses and attack losses."""

import math

import torch
from torch import Tensor

from .._ruled_out import magnitude
from .._validation import check_in_unit_interval, check_labels, check_positive


def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Softmax of the logits divided by a temperature [1]_.

    .. math:: q_i = \frac{\exp(z_i / T)}{\sum_j \exp(z_j / T)}

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`, of any finite size; the largest is subtracted before the division.
    temperature : float, default=1.0
        :math:`T`, above 0. High temperatures give nearly uniform rows, low ones nearly one-hot.

    Returns
    -------
    Tensor of shape (n, n_classes)
        Rows of probabilities, in the dtype of ``logits``.

    Raises
    ------
    TypeError
        If ``temperature`` is not a number.
    ValueError
        If ``temperature`` is not a finite number above 0.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural
       Network", 2015, equation 1. https://arxiv.org/abs/1503.02531

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import softmax
    >>> softmax(torch.tensor([[2.0, 0.0]]), temperature=1.0)
    tensor([[0.8808, 0.1192]])
    >>> softmax(torch.tensor([[2.0, 0.0]]), temperature=20.0)
    tensor([[0.5250, 0.4750]])
    """
    return torch.softmax(_softened(logits, temperature), dim=1)


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Logarithm of :func:`softmax`, computed without underflow.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`.
    temperature : float, default=1.0
        :math:`T`, above 0.

    Returns
    -------
    Tensor of shape (n, n_classes)
        Natural logarithms of probabilities, at most 0.

    Raises
    ------
    TypeError
        If ``temperature`` is not a number.
    ValueError
        If ``temperature`` is not a finite number above 0.

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import log_softmax
    >>> log_softmax(torch.tensor([[500.0, 0.0]]))
    tensor([[   0., -500.]])
    """
    return torch.log_softmax(_softened(logits, temperature), dim=1)


def soft_cross_entropy(logits: Tensor, soft_targets: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Cross-entropy with soft targets at a temperature: the distillation loss of Papernot [1]_.

    .. math:: -\sum_i F_i \log \operatorname{softmax}(z / T)_i

    No factor :math:`T^2` is applied; :func:`distillation_loss` applies it.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`, the student's.
    soft_targets : Tensor of shape (n, n_classes), floating
        :math:`F`, rows of probabilities, usually the teacher's softmax at the same
        temperature. A target of exactly 0 contributes exactly 0.
    temperature : float, default=1.0
        :math:`T`, above 0.

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``temperature`` is not a number.
    ValueError
        If shapes differ or ``temperature`` is not a finite number above 0.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, X. Wu, S. Jha and A. Swami, "Distillation as a
       Defense to Adversarial Perturbations against Deep Neural Networks", IEEE S&P
       2016, section III-B. https://arxiv.org/abs/1511.04508

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import soft_cross_entropy
    >>> soft_cross_entropy(torch.zeros(1, 4), torch.tensor([[0.7, 0.1, 0.1, 0.1]]))
    tensor([1.3863])
    """
    if logits.shape != soft_targets.shape:
        raise ValueError(
            f"soft_targets must have the shape of logits {tuple(logits.shape)}, "
            f"got {tuple(soft_targets.shape)}"
        )
    terms = soft_targets * log_softmax(logits, temperature)
    return -terms.masked_fill(soft_targets == 0, 0).sum(dim=1)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    hard_label_weight: float,
) -> Tensor:
    r"""Hinton's two-term objective [1]_.

    .. math::
        (1 - w)\, T^2 \cdot \Bigl(-\sum_i \operatorname{softmax}(v / T)_i
        \log \operatorname{softmax}(z / T)_i\Bigr)
        \;+\; w \cdot \bigl(-\log \operatorname{softmax}(z)_y\bigr)

    The gradient of the soft term scales as :math:`1 / T^2`; the factor :math:`T^2` keeps the two
    terms in proportion when the temperature changes.

    Parameters
    ----------
    student_logits : Tensor of shape (n, n_classes), floating
        :math:`z`.
    teacher_logits : Tensor of shape (n, n_classes), floating
        :math:`v`. Treated as a constant.
    labels : Tensor of shape (n,), int64
        :math:`y`, true classes.
    temperature : float
        :math:`T`, above 0. The hard term always has temperature 1.
    hard_label_weight : float
        :math:`w`, in [0, 1]. 0 keeps only the soft term, 1 only the hard term.

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``temperature`` or ``hard_label_weight`` is not a number.
    ValueError
        If shapes differ, ``temperature`` is not a finite number above 0, or
        ``hard_label_weight`` is outside [0, 1].

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural
       Network", 2015, section 2. https://arxiv.org/abs/1503.02531

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import distillation_loss
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[8.0, 0.0]])
    >>> distillation_loss(student, teacher, torch.tensor([0]), 4.0, 0.0) / 16
    tensor([0.6931])
    """
    check_in_unit_interval("hard_label_weight", hard_label_weight)
    soft_targets = softmax(teacher_logits.detach(), temperature)
    soft = temperature**2 * soft_cross_entropy(student_logits, soft_targets, temperature)
    return (1 - hard_label_weight) * soft + hard_label_weight * cross_entropy(
        student_logits, labels
    )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with hard labels at temperature 1.

    Its gradient becomes exactly 0 when the softmax saturates, as it does on networks trained by
    defensive distillation. :func:`margin_loss` does not have this weakness.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        Outputs of a network before the softmax.
    labels : Tensor of shape (n,), int64
        True classes.

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``labels`` is not an int64 tensor.
    ValueError
        If ``labels`` is not of shape (n,).

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import cross_entropy
    >>> cross_entropy(torch.tensor([[0.0, 0.0], [500.0, 0.0]]), torch.tensor([0, 1]))
    tensor([  0.6931, 500.0000])
    """
    check_labels(labels, logits)
    # Not F.cross_entropy, which silently ignores a label of -100.
    return -torch.log_softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)


def margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Largest wrong logit minus the label's logit: positive exactly when misclassified.

    .. math:: \max_{i \ne y} z_i - z_y

    The :math:`f_6` of Carlini and Wagner [1]_ without its clamp.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`, with at least two classes.
    labels : Tensor of shape (n,), int64
        :math:`y`.

    Returns
    -------
    Tensor of shape (n,)
        One margin per example, in units of the logits.

    Raises
    ------
    TypeError
        If ``labels`` is not an int64 tensor.
    ValueError
        If ``labels`` is not of shape (n,).

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural
       Networks", IEEE S&P 2017, section V-A. https://arxiv.org/abs/1608.04644

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import margin_loss
    >>> margin_loss(torch.tensor([[-5.0, -1.0, -3.0]]), torch.tensor([1]))
    tensor([-2.])
    """
    check_labels(labels, logits)
    labelled = labels[:, None]
    others = logits.scatter(1, labelled, -math.inf)
    return others.amax(dim=1) - logits.gather(1, labelled).squeeze(1)


def merge_rejection(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Merge the last column, rejection, into the true class, as attacks need it.

    A classifier that may reject inputs is fooled only if it predicts a wrong class; a rejection
    withstands the attack just as the true class does. The label's logit therefore becomes the
    larger of the two,

    .. math:: z_y \leftarrow \max(z_y, z_{N+1}),

    so that losses of the remaining logits have the right sign: :func:`margin_loss` is positive
    exactly when a wrong class exceeds both the true class and rejection. On the original logits,
    the margin would count a rejected input as fooled.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes + 1), floating
        :math:`z`, with at least two classes and rejection as the last column.
    labels : Tensor of shape (n,), int64
        :math:`y`, true classes.

    Returns
    -------
    Tensor of shape (n, n_classes)
        Logits of the classes.

    Raises
    ------
    TypeError
        If ``labels`` is not an int64 tensor.
    ValueError
        If ``labels`` is not of shape (n,), or there are fewer than three columns.

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import margin_loss, merge_rejection
    >>> labels = torch.tensor([0, 0])
    >>> logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 4.0]])
    >>> merge_rejection(logits, labels)
    tensor([[2., 3.],
            [4., 3.]])
    >>> margin_loss(merge_rejection(logits, labels), labels)
    tensor([ 1., -1.])
    """
    check_labels(labels, logits)
    if logits.shape[1] < 3:
        raise ValueError(
            "logits must have a last column for rejection after at least two classes, got shape "
            f"{tuple(logits.shape)}"
        )
    classes, labelled = logits[:, :-1], labels[:, None]
    withstands = torch.maximum(classes.gather(1, labelled), logits[:, -1:])
    return classes.scatter(1, labelled, withstands)


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Difference of logits ratio [1]_: the margin relative to the spread of the largest logits.

    .. math:: -\frac{z_y - \max_{i \ne y} z_i}{z_{\pi_1} - z_{\pi_3} + 10^{-12}}

    with :math:`z_{\pi_1} \ge z_{\pi_2} \ge z_{\pi_3}` the three largest logits. Invariant to
    adding a constant to the logits and to multiplying them by a positive number.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`. With two classes there is no third logit, and :func:`margin_loss` is
        returned instead.
    labels : Tensor of shape (n,), int64
        :math:`y`.

    Returns
    -------
    Tensor of shape (n,)
        One value per example, positive exactly when misclassified.

    Raises
    ------
    TypeError
        If ``labels`` is not an int64 tensor.
    ValueError
        If ``labels`` is not of shape (n,).

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable Evaluation of Adversarial Robustness with an
       Ensemble of Diverse Parameter-free Attacks", ICML 2020, equation 6.
       https://arxiv.org/abs/2003.01690

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import dlr_loss
    >>> dlr_loss(torch.tensor([[9.0, 5.0, 1.0]]), torch.tensor([0]))
    tensor([-0.5000])
    >>> dlr_loss(torch.tensor([[900.0, 500.0, 100.0]]), torch.tensor([0]))
    tensor([-0.5000])
    """
    margin = margin_loss(logits, labels)
    if logits.shape[1] < 3:
        return margin
    first, _, third = logits.topk(3, dim=1).values.unbind(dim=1)
    # In float16 the paper's 1e-12 would be 0.
    return margin / (first - third + max(1e-12, torch.finfo(logits.dtype).tiny))


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """Logits over temperature, shifted so that the largest is 0 and nothing overflows."""
    check_positive("temperature", temperature)
    return (logits - logits.detach().amax(dim=1, keepdim=True)) / temperature


def rescaled_cross_entropy(logits: Tensor, labels: Tensor, scale: float = 1.0) -> Tensor:
    r"""Cross-entropy of logits in units of the gap between the two largest [1]_.

    .. math:: \operatorname{CE}\left(\frac{s\, z}{z_{\pi_1} - z_{\pi_2}},\, y\right)

    The divisor is treated as a constant. Where the softmax saturates, as in a distilled network
    at temperature 1, the gradient of the cross-entropy rounds to zero. Here the two largest logits
    are always ``scale`` apart, so the gradient does not vanish. Invariant to adding a constant to
    the logits and to multiplying them by a positive number.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`.
    labels : Tensor of shape (n,), int64
        :math:`y`.
    scale : float, default=1.0
        :math:`s`, above 0: the gap between the two largest logits after rescaling.

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``labels`` is not an int64 tensor or ``scale`` is not a number.
    ValueError
        If ``labels`` is not of shape (n,) or ``scale`` is not above 0.

    References
    ----------
    .. [1] The loss T-MIFPE of https://arxiv.org/abs/2507.22428 (2025), after MIFPE: the detrimental
       effect of floating-point errors on gradient-based attacks.

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import cross_entropy, rescaled_cross_entropy
    >>> logits = torch.tensor([[900.0, 500.0, 100.0]], requires_grad=True)
    >>> label = torch.tensor([0])
    >>> torch.autograd.grad(cross_entropy(logits, label).sum(), logits)[0]
    tensor([[0., 0., 0.]])
    >>> rescaled_cross_entropy(logits, label)
    tensor([0.4076], grad_fn=<NegBackward0>)
    """
    check_positive("scale", scale)
    check_labels(labels, logits)
    first, second = logits.detach().topk(2, dim=1).values.unbind(dim=1)
    # For a tie, the rounding error of the logits, which is also the smallest divisor.
    least = torch.finfo(logits.dtype).eps * magnitude(logits.detach())
    gap = (first - second).maximum(least).clamp_min(torch.finfo(logits.dtype).tiny)
    return cross_entropy(logits * (scale / gap)[:, None], labels)
