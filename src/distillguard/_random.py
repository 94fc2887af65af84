"""Randomness that belongs to an example rather than to a generator.

What an example draws is a function of the seed, of the example's own values and of a
counter: not of the batch it travels in, of its place in it or of the device. SplitMix64
[1]_ is the function, written in int64 tensors, whose arithmetic wraps as the original's does.

.. [1] G. L. Steele, D. Lea and C. H. Flood, "Fast Splittable Pseudorandom Number
   Generators", OOPSLA 2014, figure 16.
"""

import math
import secrets

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_ROWS = 64
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_DIGITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}


def draw_seed(random_state: int | None) -> int:
    """Return ``random_state``, or a fresh seed where there is none."""
    return secrets.randbits(62) if random_state is None else int(random_state) % 2**63


def example_keys(inputs: Tensor, seed: int) -> Tensor:
    """Hash each example's values with the seed: (n, ...) floating to (n,) int64."""
    values = inputs.detach().contiguous().flatten(1)
    bits = values.view(_BITS[values.element_size()])
    place = torch.arange(1, bits.shape[1] + 1, device=bits.device) * _GOLDEN
    offset = torch.tensor(seed % 2**63, device=bits.device) * _GOLDEN
    # A few rows at a time: in int64, with what the mixing needs, they take many times their size.
    sums = [_mix(part.long() + place).sum(dim=1) for part in bits.split(_ROWS)]
    return _mix(torch.cat(sums) + offset)


def key_of_copy(keys: Tensor, labels: Tensor) -> Tensor:
    """Give equal examples of one label keys of their own; the first of them keeps its key."""
    pairs = _mix(keys + labels * _GOLDEN)
    ordered, order = pairs.sort(stable=True)
    place = torch.arange(len(keys), device=keys.device)
    opens = torch.ones_like(ordered, dtype=torch.bool)
    opens[1:] = ordered[1:] != ordered[:-1]
    number = torch.empty_like(place)
    number[order] = place - torch.where(opens, place, 0).cummax(dim=0).values
    return torch.where(number > 0, _mix(keys + number * _GOLDEN), keys)


def uniform(keys: Tensor, counter: Tensor | int, size: int, dtype: torch.dtype) -> Tensor:
    """Uniform numbers in [0, 1) of shape (n, size), a fresh row for each key and counter."""
    stream = _mix(keys + _GOLDEN * (torch.as_tensor(counter, device=keys.device) + 1))
    # As many bits as the dtype holds: more would be rounded, and some of them up to 1.
    digits = _DIGITS[dtype]
    return _shift(split_mix(stream, size), 64 - digits).to(dtype) * 2.0**-digits


def normal(keys: Tensor, counter: Tensor | int, size: int, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers of shape (n, size), by the Box-Muller transform."""
    half = (size + 1) // 2
    radius, angle = uniform(keys, counter, 2 * half, torch.float64).split(half, dim=1)
    radius = (-2 * torch.log1p(-radius)).sqrt()
    pair = torch.cat([radius * (math.tau * angle).cos(), radius * (math.tau * angle).sin()], dim=1)
    return pair[:, :size].to(dtype)


def split_mix(seeds: Tensor, size: int) -> Tensor:
    """Return the first ``size`` outputs of SplitMix64 from each seed: (n,) to (n, size), int64."""
    place = torch.arange(1, size + 1, device=seeds.device) * _GOLDEN
    return _mix(seeds[:, None] + place)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _shift(z: Tensor, places: int) -> Tensor:
    """Logical right shift: int64's own shift would copy the sign downwards."""
    return (z >> places) & (2 ** (64 - places) - 1)
