"""The examples of curves, histograms and transfer: whatever ``evaluate`` takes, in chunks."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._data import Chunk, Examples
from .._data import examples as open_examples
from .._modes import dtype_of
from .._typing import Bounds
from ._model import EvaluatedModel

CHUNK = 1024
"""Examples handed to an attack at once."""


def opened(subject: EvaluatedModel, X: Any, y: Any, *, bounds: Bounds) -> Examples:
    """Return labelled examples, held to the bounds and to the model's classes."""
    return open_examples(X, y, spec=subject.spec(bounds))


def read(subject: EvaluatedModel, data: Examples) -> Iterator[Chunk]:
    """Yield checked chunks of inputs and class indices."""
    return data.chunks(CHUNK, dtype_of(subject.model, torch.get_default_dtype()))


def read_inputs(X: Any, *, size: int) -> Iterator[Tensor]:
    """Yield batches of inputs alone; labels, where there are any, are left aside."""
    for chunk in open_examples(X, labelled=False).chunks(size, torch.get_default_dtype()):
        yield chunk.inputs
