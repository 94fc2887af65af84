"""NumPy arrays and PyTorch tensors for one another, without a copy where there need be none."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._modes import one_at_a_time
from .._words import written

DTYPES = (np.float32, np.float64)
_KNOWN = {np.dtype(kind) for kind in ("bool", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")}


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor over the array's own memory, also where that is mapped from a file.

    Copies what torch does not support: negative strides, foreign byte order, unsigned integers
    of more than a byte and extended precision.
    """
    if array.dtype not in _KNOWN or not array.dtype.isnative:
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    with one_at_a_time(), warnings.catch_warnings():
        # Read-only is safe: nothing here writes to the data.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array if min(array.strides, default=0) >= 0 else array.copy())


def as_array(data: Any) -> Any:
    """Return a tensor as an array, in float32 where NumPy lacks the dtype; others as they are."""
    if not isinstance(data, Tensor):
        return data
    data = data.detach().cpu()
    return (data.float() if data.dtype == torch.bfloat16 else data).numpy()


def refuse_bytes(X: Any, name: str = "X") -> None:
    """Refuse images stored as bytes, which would be taken for numbers up to 255."""
    if getattr(X, "dtype", None) in (np.uint8, torch.uint8) and X.ndim > 2:
        raise TypeError(
            f"{name} must be floating point, got uint8 images; divide by 255, for instance "
            f"{written(name, '{} / 255.0')}"
        )
