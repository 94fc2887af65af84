r"""The losses of robust distillation, one value per example.

In all of them, :math:`p` and :math:`p'` are the student's softmax on clean and on adversarial
inputs, :math:`q` and :math:`q'` the teacher's;
:math:`\operatorname{KL}(a \| b) = \sum_i a_i \log (a_i / b_i)`.
"""

import torch
from torch import Tensor

from .._validation import check_in_unit_interval, check_labels, check_not_negative, check_same_shape
from ._robust_losses import kl_divergence, smoothed_cross_entropy

__all__ = ["adaad_loss", "ard_loss", "iad_loss", "rslad_loss"]


def ard_loss(
    clean_logits: Tensor,
    adversarial_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    temperature: float = 30.0,
) -> Tensor:
    r"""Adversarially robust distillation [1]_.

    .. math:: (1 - \alpha) \operatorname{CE}(p, y) + \alpha T^2
              \operatorname{KL}(q_T \,\|\, p'_T)

    :math:`q` is the teacher's softmax on clean inputs, and the index :math:`T` denotes a softmax
    at that temperature. The published code also averages over the classes, which makes its
    second term ten times smaller than in the formula for ten classes.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's logits on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's logits on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits on clean inputs.
    labels : Tensor of shape (n,), int64
        True classes.
    alpha : float, default=1.0
        Weight of the teacher, in [0, 1].
    temperature : float, default=30.0
        :math:`T`, above 0.

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``alpha`` or ``temperature`` is not a number.
    ValueError
        If shapes differ, ``alpha`` is outside [0, 1] or ``temperature`` not above 0.

    References
    ----------
    .. [1] M. Goldblum, L. Fowl, S. Feizi and T. Goldstein, "Adversarially Robust Distillation",
       AAAI 2020, equation 3. https://arxiv.org/abs/1905.09747

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import ard_loss
    >>> same = torch.tensor([[1.0, 0.0]])
    >>> ard_loss(same, same, same, torch.tensor([0]))
    tensor([0.])
    """
    check_in_unit_interval("alpha", alpha)
    soft = kl_divergence(adversarial_logits, teacher_logits, temperature) * temperature**2
    if alpha == 1:
        return soft
    return (1 - alpha) * smoothed_cross_entropy(clean_logits, labels) + alpha * soft


def iad_loss(
    clean_logits: Tensor,
    adversarial_logits: Tensor,
    teacher_logits: Tensor,
    teacher_adversarial_logits: Tensor,
    labels: Tensor,
    beta: float = 0.1,
) -> Tensor:
    r"""Introspective adversarial distillation [1]_: weigh the teacher by its reliability.

    .. math:: w \operatorname{KL}(q \,\|\, p') + (1 - w) \operatorname{KL}(p \,\|\, p'),
              \qquad w = (q'_y)^\beta

    :math:`q` and :math:`q'` are the teacher's softmax on clean and on adversarial inputs.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's logits on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's logits on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits on clean inputs.
    teacher_adversarial_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits on the same adversarial inputs.
    labels : Tensor of shape (n,), int64
        True classes.
    beta : float, default=0.1
        Exponent, at least 0; at 0 the teacher has full weight everywhere.

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``beta`` is not a number.
    ValueError
        If shapes differ or ``beta`` is below 0.

    References
    ----------
    .. [1] J. Zhu, J. Yao, B. Han, J. Zhang, T. Liu, G. Niu, J. Zhou, J. Xu and H. Yang, "Reliable
       Adversarial Distillation with Unreliable Teachers", ICLR 2022, equation 4.
       https://arxiv.org/abs/2106.04928

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import iad_loss
    >>> same = torch.tensor([[1.0, 0.0]])
    >>> iad_loss(same, same, same, same, torch.tensor([0]))
    tensor([0.])
    """
    check_not_negative("beta", beta)
    check_same_shape(
        teacher_adversarial_logits=teacher_adversarial_logits, adversarial_logits=adversarial_logits
    )
    check_labels(labels, teacher_adversarial_logits)
    right = torch.softmax(teacher_adversarial_logits, dim=1).gather(1, labels[:, None]).squeeze(1)
    trust = right**beta
    taught = kl_divergence(adversarial_logits, teacher_logits)
    return trust * taught + (1 - trust) * kl_divergence(adversarial_logits, clean_logits)


def rslad_loss(
    clean_logits: Tensor, adversarial_logits: Tensor, teacher_logits: Tensor, alpha: float = 5 / 6
) -> Tensor:
    r"""Robust soft label adversarial distillation [1]_: soft labels in both terms.

    .. math:: (1 - \alpha) \operatorname{KL}(q \,\|\, p) + \alpha \operatorname{KL}(q \,\|\, p')

    :math:`q` is the teacher's softmax on clean inputs.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's logits on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's logits on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits on clean inputs.
    alpha : float, default=5/6
        Weight of the adversarial inputs, in [0, 1].

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``alpha`` is not a number.
    ValueError
        If shapes differ or ``alpha`` is outside [0, 1].

    References
    ----------
    .. [1] B. Zi, S. Zhao, X. Ma and Y.-G. Jiang, "Revisiting Adversarial Robustness Distillation:
       Robust Soft Labels Make Student Better", ICCV 2021, equation 4.
       https://arxiv.org/abs/2108.07969

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import rslad_loss
    >>> same = torch.tensor([[1.0, 0.0]])
    >>> rslad_loss(same, same, same)
    tensor([0.])
    """
    check_in_unit_interval("alpha", alpha)
    clean = kl_divergence(clean_logits, teacher_logits)
    return (1 - alpha) * clean + alpha * kl_divergence(adversarial_logits, teacher_logits)


def adaad_loss(
    clean_logits: Tensor,
    adversarial_logits: Tensor,
    teacher_logits: Tensor,
    teacher_adversarial_logits: Tensor,
    alpha: float = 1.0,
) -> Tensor:
    r"""Adaptive adversarial distillation [1]_: the teacher labels the adversarial inputs too.

    .. math:: (1 - \alpha) \operatorname{KL}(q \,\|\, p) + \alpha \operatorname{KL}(q' \,\|\, p')

    :math:`q` and :math:`q'` are the teacher's softmax on clean and on adversarial inputs.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's logits on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's logits on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits on clean inputs.
    teacher_adversarial_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits on the same adversarial inputs.
    alpha : float, default=1.0
        Weight of the adversarial inputs, in [0, 1].

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``alpha`` is not a number.
    ValueError
        If shapes differ or ``alpha`` is outside [0, 1].

    References
    ----------
    .. [1] B. Huang, M. Chen, Y. Wang, J. Lu, M. Cheng and W. Wang, "Boosting Accuracy and
       Robustness of Student Models via Adaptive Adversarial Distillation", CVPR 2023.

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import adaad_loss
    >>> same = torch.tensor([[1.0, 0.0]])
    >>> adaad_loss(same, same, same, same)
    tensor([0.])
    """
    check_in_unit_interval("alpha", alpha)
    adversarial = kl_divergence(adversarial_logits, teacher_adversarial_logits)
    if alpha == 1:
        return adversarial
    return (1 - alpha) * kl_divergence(clean_logits, teacher_logits) + alpha * adversarial


def igdm_loss(
    adversarial_logits: Tensor,
    opposite_logits: Tensor,
    teacher_adversarial_logits: Tensor,
    teacher_opposite_logits: Tensor,
) -> Tensor:
    r"""Indirect gradient matching [1]_: match how logits change across an example.

    .. math:: \operatorname{KL}\bigl(
        \operatorname{softmax}(t(x + \delta) - t(x - \delta)) \,\|\,
        \operatorname{softmax}(s(x + \delta) - s(x - \delta))\bigr)

    :math:`x + \delta` is the adversarial input and :math:`x - \delta` the point opposite. To first
    order, each difference of logits is twice the product of the input gradient with
    :math:`\delta`, so that gradients are matched without being computed. This term is added to
    another loss of robust distillation.

    Parameters
    ----------
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's logits on adversarial inputs, :math:`s(x + \delta)`.
    opposite_logits : Tensor of shape (n, n_classes), floating
        The student's logits at the opposite points, :math:`s(x - \delta)`.
    teacher_adversarial_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits on the adversarial inputs.
    teacher_opposite_logits : Tensor of shape (n, n_classes), floating
        The teacher's logits at the opposite points.

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    ValueError
        If shapes differ.

    References
    ----------
    .. [1] H. Lee, S. Cho and C. Kim, "Indirect Gradient Matching for Adversarial Robust
       Distillation", ICLR 2025, section 4. https://arxiv.org/abs/2312.03286

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import igdm_loss
    >>> there, opposite = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    >>> igdm_loss(there + 5, opposite + 5, there, opposite)
    tensor([0.])
    """
    return kl_divergence(
        adversarial_logits - opposite_logits,
        teacher_adversarial_logits - teacher_opposite_logits,
    )
