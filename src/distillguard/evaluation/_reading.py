"""The examples of curves, histograms and transfer: whatever ``evaluate`` takes, in chunks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._data import input_batches
from .._modes import dtype_of
from .._typing import Bounds
from .._validation import check_inputs
from ._model import EvaluatedModel
from ._stream import Chunk, LabelEncoder, chunks

CHUNK = 1024
"""Examples handed to an attack at once."""


def unpaired(X: Any, y: Any) -> tuple[Any, Any]:
    """Inputs and labels, also where both come as one pair."""
    if y is None and isinstance(X, tuple) and len(X) == 2:
        return X
    return X, y


def read(subject: EvaluatedModel, X: Any, y: Any, *, bounds: Bounds) -> Iterator[Chunk]:
    """Checked chunks of inputs and class indices."""
    yield from chunks(
        X,
        y,
        encode=LabelEncoder(subject.classes),
        dtype=dtype_of(subject.model, torch.get_default_dtype()),
        bounds=bounds,
        size=CHUNK,
    )


def read_inputs(X: Any, *, size: int) -> Iterator[Tensor]:
    """Batches of inputs alone; labels, where there are any, are left aside."""
    inputs, _ = unpaired(X, None)
    if not isinstance(inputs, Tensor | np.ndarray | DataLoader | Dataset):
        inputs = np.asarray(inputs)
    seen = 0
    for batch in input_batches(inputs, size):
        check_inputs(batch)
        if not bool(batch.isfinite().all()):
            raise ValueError("X must be finite, got NaN or infinity")
        seen += len(batch)
        yield batch.detach()
    if not seen:
        raise ValueError("X must hold at least one example, got none")
