"""Where each coordinate of each example may go: bounds and a mask as one box per example."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._typing import Bounds, Mask
from ._words import written

ROUNDINGS = 4
"""Units of precision by which values may exceed a bound."""


def boxes(inputs: Tensor, bounds: Bounds, mask: Mask | None) -> tuple[Tensor, Tensor]:
    """Lowest and highest values, each (n, ...) and broadcastable to ``inputs`` (n, ...).

    Coordinates that the mask excludes have both at their own value.

    Raises
    ------
    TypeError
        If the bounds are no pair of numbers or floating tensors, or the mask is not boolean.
    ValueError
        If a lowest value is above its highest, shapes do not fit, or inputs leave the bounds.
    """
    hold_within("inputs", inputs, bounds)
    lowest, highest = box(bounds, inputs)
    rows = (len(inputs), *lowest.shape)
    low, high = lowest.expand(rows), highest.expand(rows)
    if mask is None:
        return low, high
    free = checked_mask(mask, inputs.shape).to(inputs.device)
    return torch.where(free, low, inputs), torch.where(free, high, inputs)


def box(bounds: Bounds, like: Tensor) -> tuple[Tensor, Tensor]:
    """Both bounds as tensors with the axes of one example of ``like`` (n, ...)."""
    check_bounds(bounds)
    lowest, highest = (_of_one_example(bound, like) for bound in bounds)
    lowest, highest = torch.broadcast_tensors(lowest, highest)
    if not bool((lowest.isfinite() & highest.isfinite()).all()):
        raise ValueError("bounds must be finite, got NaN or infinity")
    if bool((lowest > highest).any()):
        place = (lowest > highest).nonzero()[0].tolist()
        raise ValueError(f"bounds must have low at most high, got low above high at {place}")
    return lowest, highest


def check_bounds(bounds: Any) -> None:
    """Refuse bounds that are not two finite numbers or tensors, the lower first."""
    if not (isinstance(bounds, tuple | list) and len(bounds) == 2):
        raise TypeError(f"bounds must be a pair (low, high), got {bounds!r}")
    for bound in bounds:
        _check_bound(bound)
    low, high = bounds
    numbers = not isinstance(low, Tensor | np.ndarray) and not isinstance(high, Tensor | np.ndarray)
    if numbers and not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite with low below high, got {bounds!r}")


def hold_within(name: str, values: Tensor, bounds: Bounds) -> Tensor:
    """Return the values, those put on a bound that exceed it by rounding; refuse others.

    Bounds computed from a mean and a standard deviation in Python's floats differ from what the
    same formula gives in the dtype of the values, by a few units of its precision.

    Raises
    ------
    ValueError
        If values are not finite, or exceed ``bounds`` by more; the message says what probably
        happened.
    """
    # In the values' own dtype: 0.1 in float32 is a little more than 0.1 in float64.
    low, high = box(bounds, values)
    if not values.numel():
        return values
    least, most = torch.stack(values.detach().aminmax()).tolist()
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if low.numel() == high.numel() == 1 and low.item() <= least and most <= high.item():
        return values
    outside = (values < low) | (values > high)
    if not bool(outside.any()):
        return values
    slack = ROUNDINGS * torch.finfo(values.dtype).eps * torch.maximum(low.abs(), high.abs())
    outside = (values < low - slack) | (values > high + slack)
    if not bool(outside.any()):
        return values.clamp(low, high)
    if any(isinstance(bound, Tensor) and bound.numel() > 1 for bound in bounds):
        index = outside.nonzero()[0].tolist()
        lowest, highest = (bound.expand_as(values)[tuple(index)] for bound in (low, high))
        raise ValueError(
            f"{name} must be within bounds, got {digits(values[tuple(index)])} at {index}, "
            f"where bounds are [{digits(lowest)}, {digits(highest)}]"
        )
    numbers = tuple(float(bound) for bound in bounds)
    extremes = ", ".join(map(digits, values.detach().aminmax()))
    message = f"{name} must be within bounds {numbers}, got values in [{extremes}]"
    if least >= 0 and 1 < most <= 255 and numbers == (0.0, 1.0):
        message += f"; for images stored as 0 to 255 write {written(name, '{} / 255')}"
    elif least < 0 and numbers == (0.0, 1.0):
        message += (
            "; if they are normalised by mean and standard deviation, pass raw inputs and "
            "networks.Normalized(model, mean, std), or bounds=((0 - mean) / std, (1 - mean) / std)"
        )
    raise ValueError(message)


def digits(value: Tensor) -> str:
    """The shortest number that is this value in its own dtype, so that it can be copied."""
    wide = value.item() if value.dtype == torch.float64 else np.float32(value.item())
    return str(wide).removesuffix(".0")


def tensor_of(value: Any) -> Tensor:
    """A tensor as it is; anything else as one in memory, whatever torch's default device is."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")


def _check_bound(bound: Any) -> None:
    if isinstance(bound, Tensor | np.ndarray):
        values = tensor_of(bound)
        if values.dtype == torch.bool or values.is_complex():
            raise TypeError(f"bounds must hold real numbers, got {values.dtype}")
        if not bool(values.isfinite().all()):
            raise ValueError("bounds must be finite, got NaN or infinity")
        return
    if isinstance(bound, bool) or not isinstance(bound, Real):
        each = f"; for one per channel write torch.tensor({bound!r})[:, None, None]"
        remedy = each if isinstance(bound, list | tuple) else ""
        raise TypeError(f"bounds must be a number or a tensor, got {bound!r}{remedy}")


def _of_one_example(bound: Any, like: Tensor) -> Tensor:
    values = torch.as_tensor(bound, dtype=like.dtype, device=like.device)
    shape = like.shape[1:]
    if values.ndim == like.ndim and len(values) == 1:
        values = values[0]
    if not _broadcasts(values.shape, shape):
        channels = values.ndim == 1 < len(shape) and len(values) == shape[0]
        remedy = f"; for one per channel reshape them to {(len(values), *(1,) * (len(shape) - 1))}"
        raise ValueError(
            f"bounds must be broadcastable to one example {tuple(shape)}, "
            f"got shape {tuple(values.shape)}{remedy if channels else ''}"
        )
    return values.reshape(*(1,) * (len(shape) - values.ndim), *values.shape)


def checked_mask(mask: Any, shape: Sequence[int]) -> Tensor:
    """Return the mask with all axes of inputs of ``shape`` (n, ...), the first one 1 or n.

    A mask with the axes of one example holds for each; with as many axes as the inputs, its
    first one is 1 or n.
    """
    if not isinstance(mask, Tensor | np.ndarray):
        raise TypeError(
            f"mask must be a boolean tensor or None, got {type(mask).__name__}; write "
            "torch.as_tensor(mask)"
        )
    free = tensor_of(mask)
    if free.dtype != torch.bool:
        raise TypeError(f"mask must have dtype torch.bool, got {free.dtype}; write mask.bool()")
    whole = free.ndim == len(shape)
    if not _broadcasts(free.shape, shape if whole else shape[1:]):
        raise ValueError(
            f"mask must have the shape of one input {tuple(shape[1:])}, or of all inputs "
            f"{tuple(shape)} with a first axis of 1 or {shape[0]}, got {tuple(free.shape)}"
        )
    return free if whole else free.reshape(*(1,) * (len(shape) - free.ndim), *free.shape)


def _broadcasts(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape can be expanded to another."""
    pairs = zip(reversed(given), reversed(wanted), strict=False)
    return len(given) <= len(wanted) and all(one in (1, other) for one, other in pairs)
