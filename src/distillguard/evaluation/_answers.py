"""A model told by what it answers on a few examples."""

import torch
from torch import Tensor

from .._modes import borrowed, device_of, dtype_of
from .._ruled_out import magnitude
from .._typing import Model
from ..attacks._checks import KERNELS
from ._query import QueryCounter, logits_of

ASKED = 8
"""Examples that are asked about."""

ROUNDINGS = 64
"""Roundings by which answers may differ on one machine, in shares of the largest logit."""

HALF_ROUNDINGS = 4
"""The same in half precision, where sums are taken in single and rounded once."""


def answers_of(model: Model, inputs: Tensor, seed: int) -> Tensor:
    """Logits of the first examples, or what the model returns in their place, on the CPU."""
    inputs = inputs[:ASKED].to(device_of(model, inputs.device))
    # On an account of its own: what it costs to recognise a model is not the evaluation's.
    counter = QueryCounter(model)
    with borrowed(counter, seed):
        logits = logits_of(counter, inputs, dtype_of(model, inputs.dtype), ASKED)
    return logits.cpu()


def same_answers(one: Tensor, other: Tensor, dtype: torch.dtype, *, elsewhere: bool) -> bool:
    """Whether two answers are equal up to rounding; ``elsewhere``, up to that of other kernels."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    half = dtype in (torch.float16, torch.bfloat16)
    share = (HALF_ROUNDINGS if half else ROUNDINGS) * torch.finfo(dtype).eps
    allowed = max(share, KERNELS) if elsewhere else share
    return bool(((one - other).abs() <= allowed * magnitude(other).amax()).all())
