"""Random resizing and padding."""

import torch
from torch import Tensor

from .._typing import Range
from .._validation import check_positive
from ._layer import RandomLayer, check_images


class RandomResizePad(RandomLayer):
    """Shrink each image by a random factor and pad it at a random position [1]_.

    The padding has the value of the lower bound. Pixels are interpolated bilinearly, and the factor
    is uniform between ``smallest`` and 1, so that sizes need not be whole pixels. The gradient is
    exact. The paper enlarges images first; here they keep their shape.

    Parameters
    ----------
    smallest : float, default=0.8
        Smallest factor of the side lengths, above 0 and at most 1.
    seed : int, optional
        None draws anew for every example and call. With a seed, all share one draw.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    References
    ----------
    .. [1] C. Xie, J. Wang, Z. Zhang, Z. Ren and A. Yuille, "Mitigating Adversarial Effects Through
       Randomization", ICLR 2018. https://arxiv.org/abs/1711.01991

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import RandomResizePad
    >>> RandomResizePad(seed=0)(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self, smallest: float = 0.8, *, seed: int | None = None, bounds: Range = (0.0, 1.0)
    ) -> None:
        super().__init__(seed=seed, bounds=bounds)
        check_positive("smallest", smallest)
        if smallest > 1:
            raise ValueError(f"smallest must be at most 1, got {smallest!r}")
        self.smallest = float(smallest)

    def transform(self, inputs: Tensor) -> Tensor:
        """Resize and pad.

        Parameters
        ----------
        inputs : Tensor of shape (n, channels, height, width), floating
            Images.

        Returns
        -------
        Tensor of shape (n, channels, height, width)
            Shrunken images with padding.
        """
        check_images(inputs)
        share, right, down = self.draw(inputs, 3).unbind(dim=1)
        size = self.smallest + (1 - self.smallest) * share
        # Both axes run from -1 to 1: the middle may be off by what the frame leaves.
        x, y = ((1 - size) * (2 * place - 1) for place in (right, down))
        zero = torch.zeros_like(size)
        rows = torch.stack([1 / size, zero, -x / size, zero, 1 / size, -y / size], dim=1)
        functional = torch.nn.functional
        grid = functional.affine_grid(rows.view(-1, 2, 3), list(inputs.shape), align_corners=False)
        low = self.bounds[0]
        return low + functional.grid_sample(inputs - low, grid, align_corners=False)
