"""How sure the classifier is."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._validation import check_positive
from ._detector import Detector


class MaximumProbability(Detector):
    r"""Suspect inputs of which the classifier is not sure [1]_.

    With :math:`p` the largest probability the score is :math:`\log((1 - p) / p)`, which keeps the
    order of :math:`1 - p` and does not saturate: it is computed from the logits, so that two
    answers of which a softmax makes 1 both are still told apart, and have a gradient.

    Parameters
    ----------
    temperature : float, default=1.0
        What logits are divided by first: that of training tells more of a distilled network.

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
