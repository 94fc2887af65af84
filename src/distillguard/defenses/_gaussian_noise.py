"""Gaussian noise on the inputs."""

from torch import Tensor

from .._typing import Range
from .._validation import check_positive
from ._layer import RandomLayer


class GaussianNoise(RandomLayer):
    """Add Gaussian noise to each value and clip the result to the bounds.

    The gradient is that of the identity, which is exact except where values are clipped.

    Parameters
    ----------
    std : float, default=0.1
        Standard deviation, in units of the inputs.
    seed : int, optional
        None draws new noise for every example and call. With a seed, all share one draw.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    See Also
    --------
    distillguard.adaptive.averaged : What an attack on a random layer needs.

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import GaussianNoise
    >>> noisy = GaussianNoise(0.1)(torch.full((100, 100), 0.5))
    >>> bool(0.09 < noisy.std() < 0.11)
    True
    """

    def __init__(
        self, std: float = 0.1, *, seed: int | None = None, bounds: Range = (0.0, 1.0)
    ) -> None:
        super().__init__(seed=seed, bounds=bounds)
        check_positive("std", std)
        self.std = float(std)

    def transform(self, inputs: Tensor) -> Tensor:
        """Add the noise.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...), floating
            Values within the bounds.

        Returns
        -------
        Tensor of shape (n, ...)
            Noisy values, not yet clipped.
        """
        return inputs + self.std * self.draw(inputs, *inputs.shape[1:], normal=True)
