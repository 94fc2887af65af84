"""Defences that stand in front of a network: each takes images and returns what it makes of them.

Images have shape (n, channels, height, width) and values in [0, 1]. None of them is written to be
easy to attack: what has no gradient in the paper has none here.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Clamp(nn.Module):
    """Cut values to [0, 1], as careful people do; the identity on every image."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the values, cut."""
        return inputs.clamp(0.0, 1.0)


class Thermometer(nn.Module):
    """Write each value as a code of zeros and ones: level k is one from k / levels upwards."""

    def __init__(self, levels: int = 16) -> None:
        super().__init__()
        self.register_buffer("floors", torch.arange(levels) / levels, persistent=False)
        self.floors: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the codes, of shape (n, channels * levels, height, width)."""
        codes = inputs[:, :, None] >= self.floors[:, None, None]
        return codes.to(inputs.dtype).flatten(1, 2)

    def softened(self, inputs: Tensor) -> Tensor:
        """Return something like the codes that has a gradient."""
        heights = inputs[:, :, None] - self.floors[:, None, None]
        return torch.sigmoid(heights * len(self.floors)).flatten(1, 2)


class BitDepth(nn.Module):
    """Round values to as many levels as so many bits hold."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.steps = 2**bits - 1

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the rounded values."""
        return (inputs * self.steps).round() / self.steps


class MedianFilter(nn.Module):
    """The third of the four values in a window of 2 x 2, the image's edge repeated."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the filtered image."""
        padded = F.pad(inputs, (1, 0, 1, 0), mode="replicate")
        windows = padded.unfold(2, 2, 1).unfold(3, 2, 1).flatten(-2)
        return windows.kthvalue(3, dim=-1).values


class JPEG(nn.Module):
    """What JPEG loses of a grey image: rounded coefficients of the cosines of 8 x 8 blocks."""

    LUMINANCE: ClassVar[list[list[int]]] = [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
    """The standard's example table, ITU-T T.81, Table K.1: what everybody uses."""

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        steps = torch.tensor(self.LUMINANCE).mul(scale).add(50).div(100).floor().clamp(1, 255)
        row = torch.arange(8)
        cosines = torch.cos((2 * row + 1) * row[:, None] * math.pi / 16) / 2
        cosines[0] /= math.sqrt(2)
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("cosines", cosines, persistent=False)
        self.steps: Tensor
        self.cosines: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the decoded images, of 8 bits."""
        height, width = inputs.shape[-2:]
        grey = (inputs * 255).round() - 128
        grey = F.pad(grey, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = grey.unfold(2, 8, 8).unfold(3, 8, 8)
        rounded = (self.cosines @ blocks @ self.cosines.T / self.steps).round() * self.steps
        blocks = (self.cosines.T @ rounded @ self.cosines + 128).round().clamp(0, 255) / 255
        whole = blocks.transpose(3, 4).reshape(grey.shape)
        return whole[..., :height, :width]


class TotalVariation(nn.Module):
    """Forget pixels at random and fill in the image of least total variation.

    Minimises half the squared distance on the pixels kept plus ``weight`` times the total
    variation by gradient descent, and like the paper's solver shows autograd nothing of it.
    """

    def __init__(self, weight: float = 0.03, kept: float = 0.5, steps: int = 30) -> None:
        super().__init__()
        self.weight, self.kept, self.steps = weight, kept, steps

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Return the smooth images."""
        kept = (torch.rand_like(inputs) < self.kept).to(inputs.dtype)
        found = inputs.clone()
        for _ in range(self.steps):
            found -= 0.2 * (kept * (found - inputs) - self.weight * curvature(found))
        return found


def curvature(images: Tensor, smoothing: float = 1e-3) -> Tensor:
    """Minus the gradient of the total variation, smoothed where the image is flat."""
    across = F.pad(images.diff(dim=3), (0, 1, 0, 0))
    down = F.pad(images.diff(dim=2), (0, 0, 0, 1))
    length = (across**2 + down**2 + smoothing).sqrt()
    across, down = across / length, down / length
    return (
        F.pad(across, (1, 0, 0, 0)).diff(dim=3) + F.pad(down, (0, 0, 1, 0)).diff(dim=2)
    )  # fmt: skip


class ResizeAndPad(nn.Module):
    """Shrink each image by a random factor and put it at a random place on black.

    The paper enlarges 299 pixels to between 299 and 331, by a tenth at most; here 28 shrink to
    between ``smallest`` and 28, so that the network stays as it is.
    """

    def __init__(self, smallest: int = 25) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the shrunk images on a black ground of the old size."""
        n, _, _, size = inputs.shape
        drawn = torch.randint(self.smallest, size + 1, (n,), device=inputs.device)
        zoom = size / drawn.to(inputs.dtype)
        # A centre anywhere where the whole image stays on the ground.
        shift = (2 * torch.rand(n, 2, device=inputs.device, dtype=inputs.dtype) - 1) * (
            zoom[:, None] - 1
        )
        affine = torch.zeros(n, 2, 3, device=inputs.device, dtype=inputs.dtype)
        affine[:, 0, 0] = affine[:, 1, 1] = zoom
        affine[:, :, 2] = shift
        grid = F.affine_grid(affine, list(inputs.shape), align_corners=False)
        return F.grid_sample(inputs, grid, align_corners=False)


class Noise(nn.Module):
    """Add Gaussian noise, in training and at test time."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the noisy images."""
        return inputs + self.deviation * torch.randn_like(inputs)
