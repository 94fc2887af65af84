"""Any data a caller may hold, as a stream of bounded chunks of (inputs, class indices)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._boxes import check_range
from .._typing import Bounds
from .._validation import check_inputs, check_labels


class Chunk(NamedTuple):
    """Some examples of the set."""

    places: Tensor
    """Their places in the whole set: (n,) int64."""

    inputs: Tensor
    labels: Tensor


class LabelEncoder:
    """From the caller's labels to class indices, through an estimator's ``classes_`` if any."""

    def __init__(self, classes: Any | None) -> None:
        self.classes = None if classes is None else np.asarray(classes)

    def __call__(self, labels: Any) -> Tensor:
        values = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if values.ndim != 1:
            raise ValueError(
                f"y must have one label per example, shape (n,), got shape {values.shape}"
            )
        if self.classes is not None:
            return _places(values, self.classes)
        if values.dtype.kind not in "iu":
            raise TypeError(f"y must hold integer classes, got {values.dtype}")
        return torch.from_numpy(values.astype(np.int64))


def _places(values: np.ndarray, classes: np.ndarray) -> Tensor:
    known = np.isin(values, classes)
    if not known.all():
        stranger = values[~known][0].item()
        raise ValueError(f"y must hold classes seen in fit, got {stranger!r}")
    order = np.argsort(classes)
    return torch.from_numpy(order[np.searchsorted(classes, values, sorter=order)])


def chunks(
    X: Any, y: Any, *, encode: LabelEncoder, dtype: torch.dtype, bounds: Bounds, size: int
) -> Iterator[Chunk]:
    """Yield the whole set once, ``size`` examples at a time, each chunk checked."""
    start = 0
    for inputs, labels in _regrouped(_batches(X, y, dtype, size), encode, size):
        check_inputs(inputs)
        check_range("inputs", inputs, bounds)
        check_labels(labels, inputs)
        yield Chunk(start + torch.arange(len(inputs)), inputs, labels)
        start += len(inputs)
    if start == 0:
        raise ValueError("X must hold at least one example, got none")


def _batches(X: Any, y: Any, dtype: torch.dtype, size: int) -> Iterator[tuple[Tensor, Any]]:
    if isinstance(X, Dataset) and not isinstance(X, Tensor):
        X = DataLoader(X, batch_size=size)
    if isinstance(X, DataLoader):
        if y is not None:
            raise TypeError("y must be None when X is a Dataset or DataLoader, which hold labels")
        for batch in X:
            yield _pair(batch)
        return

    if y is None:
        raise TypeError("y must be given when X is an array or a tensor")
    inputs = X if isinstance(X, Tensor) else _tensor(X, dtype)
    if len(inputs) != len(y):
        raise ValueError(f"y must have one label for each of {len(inputs)} inputs, got {len(y)}")
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size], y[start : start + size]


def _pair(batch: Any) -> tuple[Tensor, Any]:
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor)):
        shown = f"{len(batch)} items" if isinstance(batch, tuple | list) else type(batch).__name__
        raise TypeError(f"X must yield pairs (inputs, labels), got {shown}")
    return batch[0], batch[1]


def _tensor(X: Any, dtype: torch.dtype) -> Tensor:
    """Arrays come in the model's dtype; integers are kept, to be refused with the remedy."""
    values = torch.from_numpy(np.ascontiguousarray(X))
    return values.to(dtype) if values.is_floating_point() else values


def _regrouped(
    batches: Iterator[tuple[Tensor, Any]], encode: LabelEncoder, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Join and cut batches so that every group but the last has ``size`` examples."""
    held: list[tuple[Tensor, Tensor]] = []
    count = 0
    for inputs, labels in batches:
        held.append((inputs.detach(), encode(labels)))
        count += len(inputs)
        while count >= size:
            joined = tuple(torch.cat(parts) for parts in zip(*held, strict=True))
            yield joined[0][:size], joined[1][:size]
            held = [(joined[0][size:], joined[1][size:])]
            count -= size
    if count:
        inputs, labels = (torch.cat(parts) for parts in zip(*held, strict=True))
        yield inputs, labels
