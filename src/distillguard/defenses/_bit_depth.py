"""Reduction of the bit depth."""

from typing import ClassVar

from torch import Tensor

from .._typing import Range
from .._validation import check_at_least
from ._layer import Layer


class BitDepth(Layer):
    """Round each value to one of a few levels [1]_.

    The gradient is that of the identity (straight-through), because the gradient of rounding is
    zero and rounding changes a value only a little.

    Parameters
    ----------
    bits : int, default=3
        There are ``2**bits`` evenly spaced levels, including both bounds.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    References
    ----------
    .. [1] W. Xu, D. Evans and Y. Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep
       Neural Networks", NDSS 2018, section III. https://arxiv.org/abs/1704.01155

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import BitDepth
    >>> BitDepth(1)(torch.tensor([[0.2, 0.7]]))
    tensor([[0., 1.]])
    """

    gradient: ClassVar[str] = "identity"

    def __init__(self, bits: int = 3, *, bounds: Range = (0.0, 1.0)) -> None:
        super().__init__(bounds=bounds)
        check_at_least("bits", bits, 1)
        self.bits = bits

    def transform(self, inputs: Tensor) -> Tensor:
        """Round each value to the nearest level.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...), floating
            Values within the bounds.

        Returns
        -------
        Tensor of shape (n, ...)
            Rounded values.
        """
        low, high = self.bounds
        steps = 2**self.bits - 1
        levels = ((inputs - low) * (steps / (high - low))).round()
        return low + levels * ((high - low) / steps)
