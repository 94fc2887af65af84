"""Batches of two sources: labelled examples beside generated or unlabelled ones."""

from collections.abc import Iterator
from copy import copy
from itertools import count
from typing import Self

import torch
from torch import Tensor

from .._typing import Range
from ._batch import Batch, Source
from ._sources import TensorSource


class MixedSource:
    """Batches of which a share comes from a second source, which continues across epochs.

    Sources in memory are cut so that a mixed batch is as large as theirs were; loaders keep
    their own batches, and what is in memory is cut to the share beside them. Which of the second
    source's examples an epoch uses is a function of the epoch's number, so that a run can start
    again at any.
    """

    identified, divided = False, False

    def __init__(self, source: Source, extra: Source, fraction: float) -> None:
        first, second = _sizes(source, extra, fraction)
        self.source, self.extra = _cut(source, first), _cut(extra, second)
        self.n_batches = self.source.n_batches
        if self.n_batches is None:
            raise ValueError("extra must be None for a data set X without a length")

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over the first source."""
        more = self._from((number - 1) * (self.n_batches or 0))
        for batch in self.source.epoch(number):
            other = next(more)
            inputs = torch.cat([batch.inputs, other.inputs.to(batch.inputs.dtype)])
            labels = torch.cat([batch.labels, other.labels])
            yield Batch(inputs, labels, weights=_weights(batch, other))

    def in_order(self) -> Iterator[Batch]:
        """The first source's examples."""
        return self.source.in_order()

    def first(self) -> Batch:
        """The first source's."""
        return self.source.first()

    def within(self, name: str, bounds: Range) -> Self:
        """Both are held to them."""
        source = copy(self)
        source.source = self.source.within(name, bounds)
        source.extra = self.extra.within("extra", bounds)
        return source

    def generators(self) -> list[torch.Generator]:
        """Those of both."""
        return [*self.source.generators(), *self.extra.generators()]

    def _from(self, used: int) -> Iterator[Batch]:
        """The second source's batches for ever, but for those used already."""
        if isinstance(self.extra, TensorSource):
            yield from self.extra.forever(used * self.extra.batch_size)
        # Reading a loader only to skip what was used would cost too much: it starts anew.
        for number in count(used + 1):
            yield from self.extra.epoch(number)


def _weights(batch: Batch, other: Batch) -> Tensor | None:
    """The second source's examples count 1 each, where the first one's have weights."""
    if batch.weights is None:
        return None
    return torch.cat([batch.weights, batch.weights.new_ones(len(other.labels))])


def _sizes(source: Source, extra: Source, fraction: float) -> tuple[int, int]:
    """How many examples of a mixed batch come from either source."""
    if isinstance(source, TensorSource) and isinstance(extra, TensorSource):
        whole = source.batch_size
        second = min(max(1, round(fraction * whole)), max(1, whole - 1))
        return whole - second, second
    if isinstance(source, TensorSource):
        second = _batch_size(extra)
        return max(1, round(second * (1 - fraction) / fraction)), second
    first = _batch_size(source)
    return first, max(1, round(first * fraction / (1 - fraction)))


def _batch_size(source: Source) -> int:
    sampler = getattr(getattr(source, "stream", None), "batch_sampler", None)
    size = getattr(sampler, "batch_size", None)
    return len(source.first().labels) if size is None else int(size)


def _cut(source: Source, batch_size: int) -> Source:
    return source.cut(batch_size) if isinstance(source, TensorSource) else source
