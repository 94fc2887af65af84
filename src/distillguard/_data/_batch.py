"""Any kind of training data as one thing: a source of batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
)

from .._boxes import check_range
from .._typing import Range
from .._validation import check_label_range

PREDICTION_BATCH = 512


class Batch(NamedTuple):
    """Inputs (n, ...), class indices (n,) int64, and which examples these are, where known."""

    inputs: Tensor
    labels: Tensor
    indices: Tensor | None


@dataclass(frozen=True)
class Expected:
    """What examples are held to, wherever they come from; None is not known yet."""

    classes: NDArray[Any] | None = None
    shape: tuple[int, ...] | None = None
    bounds: Range | None = None
    name: str = "X"

    def inputs(self, inputs: Tensor) -> Tensor:
        """Inputs as floating point; others are refused."""
        inputs = as_floating(inputs)
        if not inputs.isfinite().all():
            raise ValueError("inputs must be finite, got NaN or infinity")
        if self.shape is not None and tuple(inputs.shape[1:]) != self.shape:
            raise ValueError(
                f"{self.name} must hold examples of shape {self.shape} as in fit, "
                f"got {tuple(inputs.shape[1:])}"
            )
        if self.bounds is not None:
            check_range(self.name, inputs, self.bounds)
        return inputs

    def labels(self, labels: Tensor) -> Tensor:
        """Integer labels as indices of their classes; others are refused."""
        labels = as_classes(labels)
        if self.classes is None:
            return labels
        if self._counted:
            check_label_range(labels, len(self.classes))
            return labels
        values, inverse = labels.unique(return_inverse=True)
        found = [self._places.get(value, -1) for value in values.tolist()]
        if -1 in found:
            raise ValueError(f"labels must be known classes, got {values[found.index(-1)].item()}")
        return torch.tensor(found, dtype=torch.int64, device=labels.device)[inverse]

    @cached_property
    def _counted(self) -> bool:
        """Whether the classes are their own indices."""
        assert self.classes is not None
        return self.classes.tolist() == list(range(len(self.classes)))

    @cached_property
    def _places(self) -> dict[Any, int]:
        assert self.classes is not None
        return {value: place for place, value in enumerate(self.classes.tolist())}


class Source(Protocol):
    """Batches for training (shuffled, one pass an epoch) and for looking (in order)."""

    identified: bool
    """Whether batches carry indices, so that something computed per example can be looked up."""

    n_batches: int | None
    """Batches in an epoch, where known beforehand."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over the examples, in an order that depends on ``number``."""

    def in_order(self) -> Iterator[Batch]:
        """One pass by index where examples are identified; any pass otherwise."""

    def first(self) -> Batch:
        """Some examples to look at before training."""

    def within(self, name: str, bounds: Range) -> Self:
        """The same examples, called ``name``, held to ``bounds``."""

    divided: bool
    """Whether the processes of a run on several read different batches already."""

    def generators(self) -> list[torch.Generator]:
        """The random generators, other than torch's own, that decide what an epoch yields."""


def pair(item: Any) -> tuple[Tensor, Tensor]:
    """The inputs and labels of what a loader or data set yields."""
    if isinstance(item, list | tuple) and len(item) == 2:
        inputs, labels = item
        if isinstance(inputs, Tensor) and isinstance(labels, Tensor):
            if len(inputs) != len(labels) or labels.ndim != 1:
                raise ValueError(
                    f"loader must yield one label per input, got inputs {tuple(inputs.shape)} "
                    f"and labels {tuple(labels.shape)}"
                )
            return inputs, labels
    raise TypeError(f"loader must yield pairs of tensors (inputs, labels), got {_described(item)}")


def as_floating(inputs: Tensor) -> Tensor:
    """Numbers of any kind as floating point; images stored as bytes are refused."""
    if inputs.is_floating_point():
        return inputs
    if inputs.dtype == torch.uint8 and inputs.ndim > 2:
        raise TypeError(
            "inputs must be floating point, got torch.uint8 images; "
            "divide by 255, for instance X / 255.0"
        )
    if inputs.is_complex():
        raise ValueError("Complex data not supported: inputs must be real numbers")
    return inputs.float()


def as_classes(labels: Tensor) -> Tensor:
    """Class indices as int64; fractions are refused."""
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be integer classes, got {labels.dtype}")
    return labels.long()


def input_batches(X: Any, batch_size: int = PREDICTION_BATCH) -> Iterator[Tensor]:
    """The inputs alone, in order, from a tensor, an array, a data set or a loader."""
    if isinstance(X, DataLoader | Dataset):
        loader = X if isinstance(X, DataLoader) else DataLoader(X, batch_size)
        for item in loader:
            yield as_floating(item[0] if isinstance(item, list | tuple) else item)
        return
    values = torch.from_numpy(X) if isinstance(X, np.ndarray) else X
    for piece in values.split(batch_size):
        yield as_floating(piece)


def seen_classes(batches: Iterable[Batch]) -> Tensor:
    """The distinct labels of one pass, in order."""
    seen: Tensor = torch.empty(0, dtype=torch.int64)
    for batch in batches:
        seen = torch.cat([seen, batch.labels.cpu()]).unique()
    return seen


def _described(item: Any) -> str:
    if isinstance(item, list | tuple):
        return f"a {type(item).__name__} of {', '.join(type(part).__name__ for part in item)}"
    return type(item).__name__
