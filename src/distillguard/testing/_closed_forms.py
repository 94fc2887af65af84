"""Models for which it is known what can be fooled, and one that shows what an attack changed."""

import torch
from torch import Tensor, nn

from .._modes import on_cpu
from ._subject import shares

SHAPE = (1, 3, 4)
"""Shape of one example: an image, small enough for any attack."""


class Halfspace(nn.Module):
    """Two classes on either side of a plane through the middle of the bounds.

    The dual norm gives the distance to the other class; a large ``bias`` puts it out of reach.
    """

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        like = torch.zeros(1, *SHAPE, device="cpu")
        signs = torch.where(shares(2, like)[1] < 0.5, -1.0, 1.0)
        self.weight = nn.Parameter((signs * (0.5 + shares(1, like)[0])).flatten())
        self.bias = bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Minus and plus half the signed distance from the plane."""
        value = (inputs - 0.5).flatten(1) @ self.weight.to(inputs) + self.bias
        return torch.stack([-value, value], dim=1) / 2

    def least(self, inputs: Tensor, norm: str) -> Tensor:
        """The distance to the other class, (n,), as if there were no bounds."""
        signed = (inputs - 0.5).flatten(1) @ self.weight.detach() + self.bias
        dual = {"l2": 2.0, "linf": 1.0, "l1": float("inf")}[norm]
        return signed.abs() / self.weight.detach().norm(p=dual)


class Ball(nn.Module):
    """Class 0 within a ball around the middle of the bounds, class 1 outside."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius, device="cpu"))

    def forward(self, inputs: Tensor) -> Tensor:
        """1 minus and 1 plus the difference of the squared radii, rounded a few times."""
        flat = inputs.flatten(1)
        # Not (x - 0.5) ** 2: cancelling terms leave rounding errors like those of a network.
        square = flat.square().sum(dim=1) - flat.sum(dim=1) + flat.shape[1] / 4
        beyond = square - self.radius.to(inputs) ** 2
        return torch.stack([1 - beyond, 1 + beyond], dim=1)


class Lent(nn.Module):
    """Four classes, and all that an attack can change: modes, statistics, gradients, noise."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]), on_cpu():
            torch.manual_seed(0)
            self.normalise = nn.BatchNorm1d(12)
            self.hidden, self.drop = nn.Linear(12, 12), nn.Dropout(0.5)
            self.last = nn.Linear(12, 4)
        with torch.no_grad():
            self.normalise.running_mean.fill_(0.5)  # type: ignore[union-attr]
            self.normalise.running_var.fill_(0.04)  # type: ignore[union-attr]
        self.last.weight.requires_grad_(False)
        self.last.bias.grad = torch.ones_like(self.last.bias)
        self.train()
        self.drop.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the four classes."""
        hidden = torch.tanh(self.hidden(self.normalise(inputs.flatten(1))))
        return self.last(self.drop(hidden))
