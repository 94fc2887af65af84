"""What an attack is given: examples, each with the box that it may move in."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import (
    COUNTS,
    ascent_step,
    ball,
    block_signs,
    clamped,
    feasible_gradient,
    lp,
    lp_norm,
    per_example,
    project_to_budget,
    random_point,
)
from .._random import normal
from .._typing import Distance, Norm


class Examples(NamedTuple):
    """A batch under attack; every tensor's first axis is the example.

    A coordinate that may not change has bounds of no width, both at its value. So a mask needs
    no code of its own: a box is all that an attack has to respect.
    """

    indices: Tensor
    """Places in the caller's batch, (n,)."""
    inputs: Tensor
    labels: Tensor
    keys: Tensor
    """What each example's random numbers are drawn by, (n,) int64."""
    low: Tensor
    """Lowest values, (n, ...), broadcastable to ``inputs``."""
    high: Tensor
    rounding: Tensor
    """The model's relative rounding error, (n,): a success has a margin above it."""

    @property
    def free(self) -> Tensor:
        """Which coordinates may change: bool, broadcastable to ``inputs``."""
        return self.low < self.high

    @property
    def width(self) -> Tensor:
        """Width of the bounds of each coordinate, 1 where it is 0."""
        return torch.where(self.free, self.high - self.low, 1)

    @property
    def scale(self) -> Tensor:
        """The largest width of each example's bounds, (n,): the unit of absolute constants."""
        widest = (self.high - self.low).flatten(1).amax(dim=1)
        return torch.where(widest > 0, widest, 1)

    @property
    def relative_width(self) -> Tensor:
        """Width of each coordinate's bounds in units of the widest."""
        return self.width / per_example(self.scale, self.width)

    def clamp(self, points: Tensor) -> Tensor:
        """Return the nearest points within the bounds."""
        return clamped(points, self.low, self.high)

    def project(self, points: Tensor, norm: Distance, epsilon: float) -> Tensor:
        """Come back into the ball around the inputs and into the bounds."""
        return project_to_budget(points, self.inputs, norm, epsilon, self.low, self.high)

    def l1_step(self, points: Tensor, gradient: Tensor, length: Tensor) -> Tensor:
        """Return the step of an l1 norm (n,) along which the gradient gains most."""
        return ascent_step(points, gradient, self.inputs, "l1", length, self.low, self.high)

    def feasible(self, gradient: Tensor, points: Tensor) -> Tensor:
        """Zero the slope of coordinates that would leave the bounds."""
        return feasible_gradient(gradient, points, self.low, self.high)

    def sample(self, norm: Norm, counter: Tensor | int) -> Tensor:
        """Draw a perturbation of the unit ball, another for each ``counter``."""
        return ball(norm).sample(self.inputs, self.keys, counter, self.free)

    def random_point(self, norm: Distance, epsilon: float, counter: Tensor | int) -> Tensor:
        """Draw a point of the ball within the bounds, another for each ``counter``."""
        if norm in COUNTS:
            box = (self.low, self.high)
            return random_point(self.inputs, self.keys, counter, norm, epsilon, *box)
        return self.project(self.inputs + epsilon * self.sample(lp(norm), counter), norm, epsilon)

    def sample_normal(self, counter: Tensor | int) -> Tensor:
        """Draw a standard normal number for each free coordinate, others for each ``counter``."""
        drawn = normal(self.keys, counter, self.inputs[0].numel(), self.inputs.dtype)
        return torch.where(self.free, drawn.view_as(self.inputs), 0)

    def sample_blocks(self, counter: Tensor | int) -> Tensor:
        """Draw a perturbation of signs that are constant on blocks of an image."""
        return torch.where(self.free, block_signs(self.inputs, self.keys, counter), 0)

    def farthest(self, norm: Distance) -> Tensor:
        """Distance to the farthest point within the bounds, (n,)."""
        return lp_norm(torch.maximum(self.inputs - self.low, self.high - self.inputs), norm)
