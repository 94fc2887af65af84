"""Batches of any size, regrouped into chunks of one size."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Chunk(NamedTuple):
    """Some examples of the set."""

    places: Tensor
    """Their places in the whole set: (n,) int64."""

    inputs: Tensor
    labels: Tensor


Group = tuple[Tensor, NDArray[Any] | None]
"""Inputs (n, ...) and labels (n,) of any kind, or None for unlabelled examples."""


def regrouped(batches: Iterable[Group], size: int, name: str) -> Iterator[Group]:
    """Join and cut batches so that every group but the last has ``size`` examples."""
    held: list[Group] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch[0])
        if count < size:
            continue
        inputs, labels = _joined(held, name)
        whole = count - count % size
        for start in range(0, whole, size):
            yield _cut(inputs, labels, slice(start, start + size))
        held, count = [_cut(inputs, labels, slice(whole, None))], count - whole
    if count:
        yield _joined(held, name)


def _joined(held: list[Group], name: str) -> Group:
    check_one_shape(name, *(tuple(inputs.shape[1:]) for inputs, _ in held if len(inputs)))
    filled = [group for group in held if len(group[0])]
    labels = [labels for _, labels in filled if labels is not None]
    inputs = torch.cat([inputs for inputs, _ in filled])
    return inputs, np.concatenate(labels) if labels else None


def check_one_shape(name: str, *shapes: tuple[int, ...]) -> None:
    """Refuse examples of several shapes."""
    different = list(dict.fromkeys(shapes))
    if len(different) > 1:
        first, second = different[:2]
        raise ValueError(f"{name} must hold examples of one shape, got {first} and {second}")


def _cut(inputs: Tensor, labels: NDArray[Any] | None, rows: slice) -> Group:
    return inputs[rows], None if labels is None else labels[rows]
