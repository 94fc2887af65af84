"""Total-variation denoising."""

import torch
from torch import Tensor

from .._typing import Range
from .._validation import check_at_least, check_positive
from ._layer import Layer, check_images

_STEP = 0.125
"""Step size, the largest for which Chambolle proves convergence."""

_FLAT = 1e-12
"""Added under the square root, whose derivative at 0 is infinite."""


class TotalVariation(Layer):
    r"""Smooth each image by total-variation denoising [1]_ [2]_.

    Each channel :math:`x` is replaced by the minimiser over :math:`u` of

    .. math:: \tfrac12 \lVert u - x \rVert_2^2 + \lambda \sum |\nabla u|

    as computed by ``steps`` iterations of Chambolle's algorithm. The gradient is exact, through
    all iterations.

    Parameters
    ----------
    weight : float, default=0.1
        :math:`\lambda`, in units of the inputs. Larger values smooth more.
    steps : int, default=20
        Iterations of the algorithm.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    References
    ----------
    .. [1] C. Guo, M. Rana, M. Cisse and L. van der Maaten, "Countering Adversarial Images Using
       Input Transformations", ICLR 2018. https://arxiv.org/abs/1711.00117
    .. [2] A. Chambolle, "An Algorithm for Total Variation Minimization and Applications", Journal
       of Mathematical Imaging and Vision 20, 2004, section 3.

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import TotalVariation
    >>> noisy = 0.5 + 0.1 * torch.randn(1, 1, 16, 16)
    >>> bool(TotalVariation(0.2)(noisy).std() < 0.5 * noisy.std())
    True
    """

    def __init__(self, weight: float = 0.1, *, steps: int = 20, bounds: Range = (0.0, 1.0)) -> None:
        super().__init__(bounds=bounds)
        check_positive("weight", weight)
        check_at_least("steps", steps, 1)
        self.weight = float(weight)
        self.steps = steps

    def transform(self, inputs: Tensor) -> Tensor:
        """Denoise.

        Parameters
        ----------
        inputs : Tensor of shape (n, channels, height, width), floating
            Images.

        Returns
        -------
        Tensor of shape (n, channels, height, width)
            Smoothed images.
        """
        check_images(inputs)
        across, down = torch.zeros_like(inputs), torch.zeros_like(inputs)
        for _ in range(self.steps):
            slope = _gradient(_divergence(across, down) - inputs / self.weight)
            length = (slope[0].square() + slope[1].square() + _FLAT).sqrt()
            across = (across + _STEP * slope[0]) / (1 + _STEP * length)
            down = (down + _STEP * slope[1]) / (1 + _STEP * length)
        return inputs - self.weight * _divergence(across, down)


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel in both directions, 0 at the end."""
    pad = torch.nn.functional.pad
    return pad(image.diff(dim=3), (0, 1)), pad(image.diff(dim=2), (0, 0, 0, 1))


def _divergence(across: Tensor, down: Tensor) -> Tensor:
    """Minus the adjoint of the gradient, of fields that are 0 at the end."""
    pad = torch.nn.functional.pad
    return pad(across, (1, 0)).diff(dim=3) + pad(down, (0, 0, 1, 0)).diff(dim=2)
