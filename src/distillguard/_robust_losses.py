r"""The losses of robust training and robust distillation, one value per example.

In all of them :math:`p` is the softmax of the clean logits and :math:`p'` that of the logits on
adversarial inputs; :math:`\operatorname{KL}(a \| b) = \sum_i a_i \log (a_i / b_i)`.
"""

import torch
from torch import Tensor

from ._validation import (
    check_in_unit_interval,
    check_labels,
    check_not_negative,
    check_positive,
)

__all__ = [
    "adaad_loss",
    "ard_loss",
    "iad_loss",
    "kl_divergence",
    "mart_loss",
    "rslad_loss",
    "smoothed_cross_entropy",
    "trades_loss",
]


def kl_divergence(logits: Tensor, target_logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Kullback-Leibler divergence of the softmax from a target's.

    .. math:: \operatorname{KL}\bigl(\operatorname{softmax}(v / T) \,\|\,
              \operatorname{softmax}(z / T)\bigr)

    The sum goes over the classes and nothing is averaged: ``torch.nn.KLDivLoss()`` with its
    default reduction divides by the number of classes too.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`, usually the student's.
    target_logits : Tensor of shape (n, n_classes), floating
        :math:`v`, usually the teacher's or the clean ones.
    temperature : float, default=1.0
        :math:`T`, above 0, of both.

    Returns
    -------
    Tensor of shape (n,)
        Values of at least 0, in nats.

    Raises
    ------
    TypeError
        If ``temperature`` is not a number.
    ValueError
        If shapes differ or ``temperature`` is not a finite number above 0.

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import kl_divergence
    >>> kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[100.0, 0.0]]))
    tensor([0.6931])
    """
    check_positive("temperature", temperature)
    _check_alike(target_logits=target_logits, logits=logits)
    log_q = torch.log_softmax(logits / temperature, dim=1)
    log_p = torch.log_softmax(target_logits / temperature, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    r"""Cross-entropy with smoothed labels: :math:`(1 - s)` times the label's, :math:`s` times all.

    .. math:: -(1 - s) \log p_y - \frac{s}{C} \sum_i \log p_i

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        The network's output.
    labels : Tensor of shape (n,), int64
        True classes.
    smoothing : float, default=0.0
        :math:`s`, in [0, 1].

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``smoothing`` is not a number.
    ValueError
        If ``smoothing`` is outside [0, 1].

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import smoothed_cross_entropy
    >>> smoothed_cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), smoothing=0.1)
    tensor([0.2269])
    """
    check_in_unit_interval("smoothing", smoothing)
    check_labels(labels, logits)
    log_p = torch.log_softmax(logits, dim=1)
    hard = -log_p.gather(1, labels[:, None]).squeeze(1)
    return hard if smoothing == 0 else (1 - smoothing) * hard - smoothing * log_p.mean(dim=1)


def trades_loss(
    clean_logits: Tensor,
    adversarial_logits: Tensor,
    labels: Tensor,
    beta: float = 6.0,
    smoothing: float = 0.0,
) -> Tensor:
    r"""TRADES [1]_: be right on clean inputs, and say the same on adversarial ones.

    .. math:: \operatorname{CE}(p, y) + \beta \operatorname{KL}(p \,\|\, p')

    Gradients flow through both logits, the clean ones in the second term too.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The network's on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The network's on adversarial inputs.
    labels : Tensor of shape (n,), int64
        True classes.
    beta : float, default=6.0
        Weight of the second term, at least 0 (the paper's :math:`1/\lambda`).
    smoothing : float, default=0.0
        Label smoothing of the first term, in [0, 1].

    Returns
    -------
    Tensor of shape (n,)
        One loss per example, in nats.

    Raises
    ------
    TypeError
        If ``beta`` or ``smoothing`` is not a number.
    ValueError
        If shapes differ or a weight is out of its range.

    References
    ----------
    .. [1] H. Zhang, Y. Yu, J. Jiao, E. P. Xing, L. El Ghaoui and M. I. Jordan, "Theoretically
       Principled Trade-off between Robustness and Accuracy", ICML 2019, equation 5.
       https://arxiv.org/abs/1901.08573

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import trades_loss
    >>> trades_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([0]), 1.0)
    tensor([0.4547])
    """
    check_not_negative("beta", beta)
    natural = smoothed_cross_entropy(clean_logits, labels, smoothing)
    return natural + beta * kl_divergence(adversarial_logits, clean_logits)


def mart_loss(
    clean_logits: Tensor, adversarial_logits: Tensor, labels: Tensor, beta: float = 5.0
) -> Tensor:
    r"""MART [1]_: more weight on what the network gets wrong.

    .. math:: -\log p'_y - \log\bigl(1 - \max_{k \ne y} p'_k\bigr)
              + \beta \operatorname{KL}(p \,\|\, p') (1 - p_y)

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The network's on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The network's on adversarial inputs.
    labels : Tensor of shape (n,), int64
        True classes.
    beta : float, default=5.0
        Weight of the last term, at least 0 (the paper's :math:`\lambda`).

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
    .. [1] Y. Wang, D. Zou, J. Yi, J. Bailey, X. Ma and Q. Gu, "Improving Adversarial Robustness
       Requires Revisiting Misclassified Examples", ICLR 2020, equation 11.

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import mart_loss
    >>> mart_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
    tensor([1.3863])
    """
    check_not_negative("beta", beta)
    check_labels(labels, adversarial_logits)
    log_p = torch.log_softmax(adversarial_logits, dim=1)
    right = log_p.gather(1, labels[:, None]).squeeze(1)
    others = log_p.scatter(1, labels[:, None], -torch.inf)
    # log(1 - p_k) as the log-sum of all other classes, which a p_k of almost 1 does not round off.
    strongest = others.argmax(dim=1, keepdim=True)
    rest = log_p.scatter(1, strongest, -torch.inf).logsumexp(dim=1)
    wrong = 1 - torch.softmax(clean_logits, dim=1).gather(1, labels[:, None]).squeeze(1)
    return -right - rest + beta * wrong * kl_divergence(adversarial_logits, clean_logits)


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

    :math:`q` is the teacher's softmax on clean inputs, and the index :math:`T` a softmax at that
    temperature. The published code averages over the classes too, which makes its
    :math:`\alpha` ten times smaller on ten classes than the formula's.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's on clean inputs.
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
    soft = temperature**2 * kl_divergence(adversarial_logits, teacher_logits, temperature)
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
    r"""Introspective adversarial distillation [1]_: trust the teacher where it is right.

    .. math:: w \operatorname{KL}(q \,\|\, p') + (1 - w) \operatorname{KL}(p \,\|\, p'),
              \qquad w = (q'_y)^\beta

    :math:`q` and :math:`q'` are the teacher's softmax on clean and on adversarial inputs.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's on clean inputs.
    teacher_adversarial_logits : Tensor of shape (n, n_classes), floating
        The teacher's on the same adversarial inputs.
    labels : Tensor of shape (n,), int64
        True classes.
    beta : float, default=0.1
        Exponent, at least 0; 0 trusts the teacher always.

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
    _check_alike(
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
    r"""Robust soft label adversarial distillation [1]_: no hard labels anywhere.

    .. math:: (1 - \alpha) \operatorname{KL}(q \,\|\, p) + \alpha \operatorname{KL}(q \,\|\, p')

    :math:`q` is the teacher's softmax on clean inputs.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's on clean inputs.
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
    r"""Adaptive adversarial distillation [1]_: the teacher is asked where the student is attacked.

    .. math:: (1 - \alpha) \operatorname{KL}(q \,\|\, p) + \alpha \operatorname{KL}(q' \,\|\, p')

    :math:`q` and :math:`q'` are the teacher's softmax on clean and on adversarial inputs.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The student's on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The student's on adversarial inputs.
    teacher_logits : Tensor of shape (n, n_classes), floating
        The teacher's on clean inputs.
    teacher_adversarial_logits : Tensor of shape (n, n_classes), floating
        The teacher's on the same adversarial inputs.
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


def _check_alike(**two: Tensor) -> None:
    (name, one), (other_name, other) = two.items()
    if one.shape != other.shape:
        raise ValueError(
            f"{name} must have the shape of {other_name} {tuple(other.shape)}, "
            f"got {tuple(one.shape)}"
        )
