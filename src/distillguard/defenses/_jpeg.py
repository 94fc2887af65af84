"""JPEG compression."""

from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .._typing import Range
from .._validation import check_at_least
from ._layer import Layer, check_images


class JPEG(Layer):
    """Compress each image as JPEG and decode it again [1]_.

    The gradient is that of the identity (straight-through), since the codec has none.

    Parameters
    ----------
    quality : int, default=75
        JPEG quality, from 1 to 100.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input, which become 0 and 255.

    References
    ----------
    .. [1] C. Guo, M. Rana, M. Cisse and L. van der Maaten, "Countering Adversarial Images Using
       Input Transformations", ICLR 2018. https://arxiv.org/abs/1711.00117

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import JPEG
    >>> image = torch.rand(1, 1, 16, 16)
    >>> error = (JPEG(90)(image) - image).abs().mean()
    >>> bool(0 < error < 0.05)
    True
    """

    gradient: ClassVar[str] = "identity"

    def __init__(self, quality: int = 75, *, bounds: Range = (0.0, 1.0)) -> None:
        super().__init__(bounds=bounds)
        check_at_least("quality", quality, 1)
        if quality > 100:
            raise ValueError(f"quality must be at most 100, got {quality!r}")
        self.quality = quality

    def transform(self, inputs: Tensor) -> Tensor:
        """Compress and decode.

        Parameters
        ----------
        inputs : Tensor of shape (n, channels, height, width), floating
            Images of one or three channels.

        Returns
        -------
        Tensor of shape (n, channels, height, width)
            Decoded images.
        """
        check_images(inputs)
        if inputs.shape[1] not in (1, 3):
            raise ValueError(f"inputs must have 1 or 3 channels, got {inputs.shape[1]}")
        low, high = self.bounds
        pixels = ((inputs.detach() - low) * (255 / (high - low))).round().clamp(0, 255)
        read = [_recoded(one.numpy(), self.quality) for one in pixels.to("cpu", torch.uint8)]
        return low + torch.stack(read).to(inputs) * ((high - low) / 255)


def _recoded(pixels: Any, quality: int) -> Tensor:
    """Encode and decode an image of bytes, (channels, height, width)."""
    # Pillow's: torchvision's own is deprecated since 0.29.
    from PIL import Image

    file = BytesIO()
    grey = len(pixels) == 1
    image = Image.fromarray(pixels[0] if grey else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(file, "JPEG", quality=quality)
    read = torch.from_numpy(np.array(Image.open(file)))
    return read[None] if grey else read.permute(2, 0, 1)
