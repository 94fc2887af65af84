"""Median filter."""

import torch
from torch import Tensor

from .._typing import Range
from .._validation import check_at_least
from ._layer import Layer, check_images


class MedianFilter(Layer):
    """Replace each pixel by the median of a window around it (spatial smoothing) [1]_.

    Edge pixels are repeated beyond the edge. The gradient is exact and goes to the median pixel;
    of an even number of pixels, the median is the lower of the middle two.

    Parameters
    ----------
    size : int, default=3
        Side of the window in pixels. If it is even, the pixel is right of and below the centre.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    References
    ----------
    .. [1] W. Xu, D. Evans and Y. Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep
       Neural Networks", NDSS 2018, section III. https://arxiv.org/abs/1704.01155

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import MedianFilter
    >>> image = torch.zeros(1, 1, 5, 5)
    >>> image[0, 0, 2, 2] = 1  # a single bright pixel
    >>> MedianFilter(3)(image).max()
    tensor(0.)
    """

    def __init__(self, size: int = 3, *, bounds: Range = (0.0, 1.0)) -> None:
        super().__init__(bounds=bounds)
        check_at_least("size", size, 1)
        self.size = size

    def transform(self, inputs: Tensor) -> Tensor:
        """Apply the filter.

        Parameters
        ----------
        inputs : Tensor of shape (n, channels, height, width), floating
            Images.

        Returns
        -------
        Tensor of shape (n, channels, height, width)
            Filtered images.
        """
        check_images(inputs)
        before, after = self.size // 2, (self.size - 1) // 2
        margins = (before, after, before, after)
        padded = torch.nn.functional.pad(inputs, margins, mode="replicate")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        return windows.sort(dim=4).values[..., (self.size**2 - 1) // 2]
