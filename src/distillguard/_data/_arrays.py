"""NumPy arrays and PyTorch tensors for one another, without a copy where there need be none."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._modes import one_at_a_time

DTYPES = (np.float32, np.float64)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor over the array's own memory, also where that is mapped read-only from a file."""
    with one_at_a_time(), warnings.catch_warnings():
        # Nothing here writes to the data, so that it is read-only is no danger.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        # A view that runs backwards is nothing that torch knows.
        return torch.from_numpy(array if min(array.strides, default=0) >= 0 else array.copy())


def as_array(data: Any) -> Any:
    """A tensor as an array, in float32 where NumPy does not know the dtype; others as they are."""
    if not isinstance(data, Tensor):
        return data
    data = data.detach().cpu()
    return (data.float() if data.dtype == torch.bfloat16 else data).numpy()


def refuse_bytes(X: Any, name: str = "X") -> None:
    """Refuse images stored as bytes, which would be taken for numbers up to 255."""
    if getattr(X, "dtype", None) == np.uint8 and X.ndim > 2:
        raise TypeError(
            f"{name} must be floating point, got uint8 images; divide by 255, for instance "
            f"{name} / 255.0"
        )
