r"""The losses of robust training, one value per example.

In all of them, :math:`p` is the softmax on clean inputs and :math:`p'` that on adversarial
inputs; :math:`\operatorname{KL}(a \| b) = \sum_i a_i \log (a_i / b_i)`.
"""

import torch
from torch import Tensor

from .._validation import (
    check_in_unit_interval,
    check_labels,
    check_not_negative,
    check_positive,
    check_same_shape,
)

__all__ = [
    "kl_divergence",
    "mart_loss",
    "smoothed_cross_entropy",
    "trades_loss",
]


def kl_divergence(logits: Tensor, target_logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Kullback-Leibler divergence between the softmax of the targets and that of the logits.

    .. math:: \operatorname{KL}\bigl(\operatorname{softmax}(v / T) \,\|\,
              \operatorname{softmax}(z / T)\bigr)

    The terms are summed over the classes and nothing is averaged, whereas ``torch.nn.KLDivLoss()``
    with its default reduction also divides by the number of classes.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes), floating
        :math:`z`, usually the student's.
    target_logits : Tensor of shape (n, n_classes), floating
        :math:`v`, usually the teacher's or the clean ones.
    temperature : float, default=1.0
        :math:`T`, above 0, used for both.

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
    check_same_shape(target_logits=target_logits, logits=logits)
    log_q = torch.log_softmax(logits / temperature, dim=1)
    log_p = torch.log_softmax(target_logits / temperature, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    r"""Cross-entropy with label smoothing.

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
    r"""TRADES [1]_: classify clean inputs correctly, and adversarial ones consistently.

    .. math:: \operatorname{CE}(p, y) + \beta \operatorname{KL}(p \,\|\, p')

    Gradients flow through both sets of logits, and through the clean ones in both terms.

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The network's logits on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The network's logits on adversarial inputs.
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
    r"""MART [1]_: more weight on examples that the network misclassifies.

    .. math:: -\log p'_y - \log\bigl(1 - \max_{k \ne y} p'_k\bigr)
              + \beta \operatorname{KL}(p \,\|\, p') (1 - p_y)

    Parameters
    ----------
    clean_logits : Tensor of shape (n, n_classes), floating
        The network's logits on clean inputs.
    adversarial_logits : Tensor of shape (n, n_classes), floating
        The network's logits on adversarial inputs.
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
