"""Detection by comparing the predictions for an input and for squeezed versions of it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._validation import check_positive
from ..functional import softmax
from ._bit_depth import BitDepth
from ._detector import Detector
from ._median_filter import MedianFilter


class FeatureSqueezing(Detector):
    r"""Detect inputs whose predicted probabilities change when the input is squeezed [1]_.

    The score is the largest l1 distance, over the squeezers :math:`s`, between the probabilities
    of the input and of the squeezed input,

    .. math:: \max_s \lVert p(x) - p(s(x)) \rVert_1,

    which is in [0, 2]. Each squeezer costs one pass through the classifier.

    Parameters
    ----------
    squeezers : sequence of nn.Module, optional
        Layers. By default one bit and a median filter of size 2, as in the paper for MNIST.
    temperature : float, default=1.0
        Temperature of the softmax.

    References
    ----------
    .. [1] W. Xu, D. Evans and Y. Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep
       Neural Networks", NDSS 2018, section V. https://arxiv.org/abs/1704.01155

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import BitDepth, FeatureSqueezing
    >>> detector = FeatureSqueezing([BitDepth(1)])
    >>> clean, odd = [1.0, 0.0], [0.6, 0.4]
    >>> score = detector.score(lambda inputs: 9 * inputs, torch.tensor([clean, odd]))
    >>> score.round(decimals=2)
    tensor([0.0000, 0.2800])
    """

    def __init__(
        self, squeezers: Sequence[nn.Module] | None = None, *, temperature: float = 1.0
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        chosen = [BitDepth(1), MedianFilter(2)] if squeezers is None else list(squeezers)
        if not chosen:
            raise ValueError("squeezers must hold at least one layer, got none")
        self.squeezers = nn.ModuleList(chosen)
        self.temperature = float(temperature)

    def score(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return the largest distance.

        Parameters
        ----------
        model : callable
            From inputs to logits.
        inputs : Tensor of shape (n, ...)
            Inputs to score.

        Returns
        -------
        Tensor of shape (n,)
            Distances in [0, 2].
        """
        known = softmax(model(inputs), self.temperature)
        answers = [softmax(model(squeeze(inputs)), self.temperature) for squeeze in self.squeezers]
        distances = [(known - answer).abs().sum(dim=1) for answer in answers]
        return torch.stack(distances).amax(dim=0)
