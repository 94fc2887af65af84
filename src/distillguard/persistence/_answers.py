"""What a network answers to a few inputs, by which a module of another forward pass is told.

Weights alone do not tell it: a constant that a constructor was given, or a line of ``forward``,
is in no state dict. The inputs are nobody's data: numbers between 0 and 1 as pixels have, and
normal ones as standardised columns have, from a generator whose numbers NumPy never changes.
A copy of the network answers on the CPU, in float64 where it can, so that neither the device nor
a kernel's rounding matters.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from .._copies import copied
from .._modes import borrowed, dtype_of, on_cpu, one_thread_after_fork
from .._ruled_out import magnitude
from ..exceptions import SaveError
from ._schema import ASKED

Answers: TypeAlias = dict[str, Any]
"""The dtype that a network answered in, and its logits for each kind of input."""

LARGEST = 2**19
"""Numbers in an input; a network of larger ones is not asked."""

_NUMBERS = 2**12
"""Numbers in all inputs of a kind, or in all logits: of large images one is enough."""

_SHARE = 1e-4
_ROUNDINGS = 16
"""Tolerance of answers: a share of the largest, or a number of roundings of it."""

_SEED = 1503
_INPUTS: dict[str, Callable[[np.random.RandomState, Sequence[int]], Any]] = {
    "uniform": lambda generator, shape: generator.random_sample(shape),
    "normal": lambda generator, shape: generator.standard_normal(shape),
}


def answers_of(network: nn.Module, shape: Sequence[int], n_classes: int) -> Answers | None:
    """Return what to store of a network; None of one that cannot be told by its answers.

    That is one that contradicts itself, or has no finite logits for such numbers.
    """
    numel = math.prod(shape)
    if numel > LARGEST:
        return None
    rows = max(1, min(ASKED, _NUMBERS // numel, _NUMBERS // n_classes))
    for dtype in dict.fromkeys((torch.float64, dtype_of(network, torch.float32))):
        logits = {}
        for kind in _INPUTS:
            one, other = (_logits(network, kind, (rows, *shape), dtype, seed) for seed in (0, 1))
            if one is None or other is None or one.shape != (rows, n_classes):
                continue
            if one.isfinite().all() and torch.equal(one, other):
                logits[kind] = one.tolist()
        if logits:
            return {"dtype": str(dtype).removeprefix("torch."), "logits": logits}
    return None


def check_answers(
    network: nn.Module, parameter: str, name: str, shape: Sequence[int], answers: Answers
) -> None:
    """Refuse a network that answers otherwise than the saved one did.

    One that cannot be asked here, say for want of a device, is let through: it will say so.
    """
    dtype: torch.dtype = getattr(torch, answers["dtype"])
    for kind, rows in answers["logits"].items():
        found = _logits(network, kind, (len(rows), *shape), dtype, 0)
        if found is None:
            continue
        saved = torch.from_numpy(np.array(rows, dtype=np.float64))
        largest = magnitude(saved).amax().item()
        apart = (found - saved).abs().amax().item() if found.shape == saved.shape else math.inf
        if not apart <= _allowed(dtype) * largest:
            raise SaveError(
                f"{parameter} must answer as the saved {name} did, got logits that differ by "
                f"{apart:.3g} where the largest is {largest:.3g}; pass the network with the "
                "arguments and the code that it was trained with"
            )


def _logits(
    network: nn.Module, kind: str, shape: Sequence[int], dtype: torch.dtype, seed: int
) -> Tensor | None:
    """What a network answers, in float64; None where it does not answer."""
    generator = np.random.RandomState(_SEED)
    inputs = torch.from_numpy(_INPUTS[kind](generator, shape)).to(dtype)
    try:
        asked = copied(network).to("cpu", dtype)
        alone = one_thread_after_fork()
        # The copy is on the CPU: so has to be what it makes.
        lent = borrowed(asked, seed, gradients=False)
        with alone, on_cpu(), lent, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits: Tensor = asked(inputs).double()
            return logits
    except Exception:  # whatever a network raises at inputs that it is not for
        return None


def _allowed(dtype: torch.dtype) -> float:
    reduced = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return max(_SHARE, _ROUNDINGS * torch.finfo(torch.bfloat16 if reduced else dtype).eps)
