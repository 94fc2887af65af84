"""Any kind of training data as one thing: a source of batches."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from .._typing import Range

PREDICTION_BATCH = 512


class Batch(NamedTuple):
    """Some examples to train on."""

    inputs: Tensor
    """(n, ...), floating."""

    labels: Tensor
    """Class indices (n,), int64."""

    indices: Tensor | None = None
    """Which examples these are, (n,) int64, where that is known."""

    weights: Tensor | None = None
    """What each counts in the loss, (n,) float64 with mean 1 over all examples."""

    progress: float = 0.0
    """The share of the epochs at whose end this epoch is, in (0, 1], where it is trained on."""


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


def seen_classes(batches: Iterable[Batch]) -> Tensor:
    """The distinct labels of one pass, in order."""
    seen: Tensor = torch.empty(0, dtype=torch.int64, device="cpu")
    for batch in batches:
        seen = torch.cat([seen, batch.labels.cpu()]).unique()
    return seen
