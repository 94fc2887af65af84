"""Detection by the confidence of the classifier."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._validation import check_positive
from ._detector import Detector


class MaximumProbability(Detector):
    r"""Detect inputs that the classifier predicts with low confidence [1]_.

    With the largest probability :math:`p`, the score is :math:`\log((1 - p) / p)`, which ranks
    inputs like :math:`1 - p` but does not saturate. It is computed from the logits, so that two
    inputs whose softmax rounds to 1 still get different scores and gradients.

    Parameters
    ----------
    temperature : float, default=1.0
        Divides the logits. For a distilled network, its training temperature is more informative.

    References
    ----------
    .. [1] D. Hendrycks and K. Gimpel, "A Baseline for Detecting Misclassified and
       Out-of-Distribution Examples in Neural Networks", ICLR 2017.
       https://arxiv.org/abs/1610.02136

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import MaximumProbability
    >>> MaximumProbability().score(torch.nn.Identity(), torch.tensor([[9.0, 0.0], [1.0, 0.0]]))
    tensor([-9., -1.])
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = float(temperature)

    def score(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return the log-odds against the likeliest class.

        Parameters
        ----------
        model : callable
            From inputs to logits.
        inputs : Tensor of shape (n, ...)
            Inputs to score.

        Returns
        -------
        Tensor of shape (n,)
            Log-odds.
        """
        logits = model(inputs) / self.temperature
        best = logits.argmax(dim=1, keepdim=True)
        others = logits.scatter(1, best, -math.inf)
        return torch.logsumexp(others, dim=1) - logits.gather(1, best).squeeze(1)
