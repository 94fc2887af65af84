"""A model under test, and the points at which it is evaluated."""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from .._boxes import box, hold_within
from .._copies import copied
from .._modes import device_of, dtype_of, unwrapped
from .._random import split_mix
from .._ruled_out import magnitude
from .._typing import Bounds, Model

ROWS = 6
"""Minimum number of rows that are evaluated together."""
POINTS = 48
"""Number of points; each coordinate is in turn at its lowest, its highest and in between."""
TOLERANCE = 1e-4
"""Share of the largest logit by which outputs may differ because of rounding."""
KERNELS = 0.02
"""The same in half precision and on a GPU, where the batch size decides the kernels."""


@dataclass
class ModelSubject:
    """A borrowed model, and examples on its device and in its dtype."""

    model: Model
    examples: Tensor
    low: Tensor
    """Lowest values, of the shape of one example."""
    high: Tensor
    rows: Tensor = field(init=False)
    """A few examples, filled up with points if they are fewer than six."""
    points: Tensor = field(init=False)
    interior: Tensor = field(init=False)
    """Points well inside the bounds."""

    @classmethod
    def of(cls, model: Model, examples: Tensor, bounds: Bounds) -> "ModelSubject":
        """Move the examples to the model's device and dtype."""
        examples = hold_within("example_inputs", examples.detach(), bounds)
        kind, device = dtype_of(model, examples.dtype), device_of(model, examples.device)
        low, high = (bound.expand(examples.shape[1:]) for bound in box(bounds, examples))
        return cls(model, *(part.to(device, kind) for part in (examples, low, high)))

    def __post_init__(self) -> None:
        drawn = shares(POINTS, self.examples)
        width = self.high - self.low
        self.interior = self.low + (0.1 + 0.8 * drawn) * width
        turn = torch.arange(POINTS, device=drawn.device)[:, None]
        state = (split_mix(turn.new_zeros(1), drawn[0].numel()) + turn) % 3
        state = state.view(drawn.shape)
        ends = torch.where(state == 0, self.low, self.high)
        self.points = torch.where(state == 2, self.interior, ends)
        few = self.examples[:ROWS]
        self.rows = torch.cat([few, self.points[: ROWS - len(few)]])

    def ask(self, inputs: Tensor) -> Tensor:
        """Logits for a copy of the inputs, which the model may write to."""
        return self.model(inputs.clone())

    def answer(self, inputs: Tensor) -> Tensor:
        """The same without a graph."""
        with torch.no_grad():
            return self.ask(inputs)

    def close(self, one: Tensor, other: Tensor) -> bool:
        """Whether two outputs are equal up to rounding; NaN and infinity equal themselves."""
        if one.shape != other.shape:
            return False
        coarse = one.is_cuda or torch.finfo(one.dtype).bits < 32
        told = other.nan_to_num(0, 0, 0)
        largest = magnitude(told) if told.ndim == 2 else told.abs()
        slack = (KERNELS if coarse else TOLERANCE) * float(largest.amax())
        return torch.allclose(one, other, rtol=0, atol=slack, equal_nan=True)

    def in_double(self) -> Self | None:
        """A copy that computes in float64; None if the model cannot be copied so."""
        module = self.model
        if not isinstance(module, nn.Module):
            return None
        try:
            twin = copied(unwrapped(module)).double()
            parts = (part.double() for part in (self.examples, self.low, self.high))
            subject = type(self)(twin, *parts)
            found = subject.answer(subject.interior[:2])
        except Exception:
            return None  # A module need not work in another dtype.
        return subject if found.dtype == torch.float64 else None


def shares(count: int, like: Tensor) -> Tensor:
    """Numbers in [0, 1) of the shape of ``count`` examples: the same ones each time."""
    seeds = torch.arange(count, device=like.device)
    bits = split_mix(seeds, like[0].numel()) & (2**24 - 1)
    return (bits.double() / 2**24).to(like).view(count, *like.shape[1:])


def coordinate(place: int, shape: torch.Size) -> list[int]:
    """The index of the ``place``-th value of an example of this shape."""
    index = []
    for side in reversed(shape):
        place, rest = divmod(place, side)
        index.append(rest)
    return index[::-1]
