"""Where batches come from: memory, a loader, unlabelled examples."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from .._boxes import hold_within
from .._typing import Range
from ._batch import PREDICTION_BATCH, Batch
from ._open import pair
from ._spec import Spec, check_lengths


class TensorSource:
    """Examples in memory (or mapped from a file): rows are gathered, never collated.

    The order of an epoch is a function of the seed and of the epoch's number alone, so that a
    run that starts again at an epoch sees the same batches.
    """

    identified, divided = True, False

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int = 0,
        rows: Tensor | None = None,
    ) -> None:
        self.inputs, self.labels, self.rows = inputs, labels, rows
        self.batch_size, self.seed = int(batch_size), seed
        self.n_examples: int = len(inputs) if rows is None else len(rows)
        self.n_batches: int | None = len(self._slices())

    def epoch(self, number: int) -> Iterator[Batch]:
        """One shuffled pass."""
        order = self._order(number)
        for piece in self._slices():
            yield self._batch(order[piece])

    def forever(self, start: int) -> Iterator[Batch]:
        """Full batches for ever, one epoch running into the next, from example ``start``."""
        number, used = divmod(start, self.n_examples)
        rows = self._order(number + 1)[used:]
        while True:
            while len(rows) < self.batch_size:
                number += 1
                rows = torch.cat([rows, self._order(number + 1)])
            yield self._batch(rows[: self.batch_size])
            rows = rows[self.batch_size :]

    def in_order(self) -> Iterator[Batch]:
        """One pass from first to last."""
        everything = torch.arange(self.n_examples)
        yield from map(self._batch, everything.split(max(self.batch_size, PREDICTION_BATCH)))

    def first(self) -> Batch:
        """The first examples."""
        return next(self.in_order())

    def held_to(self, spec: Spec) -> Self:
        """The same memory, all of it looked at here and now."""
        source = copy(self)
        source.labels = _of_pairs(spec).encode(self.labels)
        check_lengths(self.inputs, source.labels, spec.name)
        for inputs in self.inputs.split(PREDICTION_BATCH):
            spec.check(inputs)
        return source

    def within(self, name: str, bounds: Range) -> Self:
        """The same memory, all of it looked at here and now."""
        for inputs in self.inputs.split(PREDICTION_BATCH):
            hold_within(name, inputs, bounds)
        return self

    def subset(self, rows: Tensor) -> "TensorSource":
        """Some of the examples, as a source of its own over the same memory."""
        return TensorSource(self.inputs, self.labels, self.batch_size, self.seed, rows)

    def generators(self) -> list[torch.Generator]:
        """None: an epoch's order follows from its number."""
        return []

    def _order(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed + 7919 * number) % 2**63)
        return torch.randperm(self.n_examples, generator=generator)

    def _batch(self, indices: Tensor) -> Batch:
        rows = indices if self.rows is None else self.rows[indices]
        # In rows, as a loader would stack them: images whose axes were permuted are not.
        return Batch(Spec().tensor(self.inputs[rows]).contiguous(), self.labels[rows], indices)

    def _slices(self) -> list[slice]:
        n = self.n_examples
        starts = list(range(0, n, self.batch_size))
        if len(starts) > 1 and n - starts[-1] == 1:
            starts.pop()  # BatchNorm cannot train on one example: it joins the batch before
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


class LoaderSource:
    """The caller's own DataLoader, with its sampler, workers and augmentation."""

    def __init__(self, loader: "DataLoader[Any]") -> None:
        indexed = _indexed(loader)
        self.loader = loader if indexed is None else indexed
        self.spec = _of_pairs(Spec())
        self.identified = indexed is not None
        self.divided = _divided(self.loader)
        self.n_batches = _n_batches(self.loader)
        self._first: Batch | None = None

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass as the loader gives it, but for a last batch of one."""
        batches = self._pass(number)
        return batches if _ends_in_one(self.loader) is False else joined_at_the_end(batches)

    def in_order(self) -> Iterator[Batch]:
        """By index where examples are identified, as the loader gives them otherwise."""
        if not self.identified:
            yield from self._pass(0)
            return
        inputs, labels, indices = self.loader.dataset.tensors  # type: ignore[attr-defined]
        for rows in indices.split(PREDICTION_BATCH):
            yield self._batch(inputs[rows].contiguous(), labels[rows], rows)

    def first(self) -> Batch:
        """The first batch; kept, because asking a loader again starts its workers again."""
        if self._first is None:
            self._first = next(self.in_order(), None)
        if self._first is None:
            raise ValueError("X must hold at least one example, got an empty loader")
        return self._first

    def held_to(self, spec: Spec) -> Self:
        """The same loader; every batch is looked at as it comes."""
        source = copy(self)
        source.spec = _of_pairs(spec)
        return source

    def within(self, name: str, bounds: Range) -> Self:
        """The same loader; every batch is looked at as it comes."""
        spec = replace(self.spec, name=name, bounds=bounds)
        spec.check(self.first().inputs)
        return self.held_to(spec)

    def generators(self) -> list[torch.Generator]:
        """The loader's and its sampler's, where the caller gave them one."""
        return _generators(self.loader)

    def _pass(self, number: int) -> Iterator[Batch]:
        _start(self.loader, number)
        for item in self.loader:
            indices = item[2] if self.identified else None
            yield self._batch(*pair(item[:2] if self.identified else item), indices)

    def _batch(self, inputs: Any, labels: Any, indices: Tensor | None) -> Batch:
        batch = Batch(self.spec.check(inputs), self.spec.encode(labels), indices)
        check_lengths(batch.inputs, batch.labels, self.spec.name)
        return batch


class UnlabelledSource:
    """The inputs of a loader or data set, labelled by a function of theirs."""

    identified = False

    def __init__(
        self,
        data: "DataLoader[Any] | Dataset[Any]",
        label: Callable[[Tensor], Tensor],
        batch_size: int,
    ) -> None:
        if not isinstance(data, DataLoader):
            data = _cut(data, batch_size, not isinstance(data, IterableDataset))
        self.loader, self.label, self.spec = data, label, Spec()
        self.divided = _divided(data)
        self.n_batches = _n_batches(data)

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass as the loader gives it, but for a last batch of one."""
        batches = self._pass(number)
        return batches if _ends_in_one(self.loader) is False else joined_at_the_end(batches)

    def in_order(self) -> Iterator[Batch]:
        """One pass as the loader gives it."""
        return self._pass(0)

    def first(self) -> Batch:
        """A first batch."""
        return next(self._pass(0))

    def within(self, name: str, bounds: Range) -> Self:
        """The same loader; every batch is looked at as it comes."""
        source = copy(self)
        source.spec = replace(self.spec, name=name, bounds=bounds)
        return source

    def _pass(self, number: int) -> Iterator[Batch]:
        _start(self.loader, number)
        for inputs in input_batches(self.loader):
            inputs = self.spec.check(inputs)
            yield Batch(inputs, self.label(inputs), None)

    def generators(self) -> list[torch.Generator]:
        """The loader's and its sampler's, where the caller gave them one."""
        return _generators(self.loader)


def input_batches(X: Any, batch_size: int = PREDICTION_BATCH) -> Iterator[Tensor]:
    """The inputs alone, in order, from a tensor, an array, a data set or a loader."""
    if isinstance(X, DataLoader | Dataset):
        loader = X if isinstance(X, DataLoader) else DataLoader(X, batch_size)
        for item in loader:
            yield Spec().tensor(item[0] if isinstance(item, list | tuple) else item)
        return
    for start in range(0, len(X), batch_size):
        yield Spec().tensor(X[start : start + batch_size]).contiguous()


def source_of(
    data: "DataLoader[Any] | Dataset[Any]", batch_size: int, seed: int
) -> TensorSource | LoaderSource:
    """A loader keeps its own batches; a data set is given shuffled ones."""
    source: TensorSource | LoaderSource
    if isinstance(data, DataLoader):
        source = LoaderSource(data)
        empty = not isinstance(data.dataset, IterableDataset) and len(data) == 0
    elif isinstance(data, TensorDataset):
        source = TensorSource(*pair(data.tensors), batch_size, seed).held_to(Spec())
        empty = len(data) == 0
    else:
        shuffle = not isinstance(data, IterableDataset)
        empty = shuffle and len(data) == 0  # type: ignore[arg-type]
        source = LoaderSource(_cut(data, batch_size, shuffle and not empty))
    if empty:
        raise ValueError("X must hold at least one example, got an empty loader or data set")
    return source


def joined_at_the_end(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Let a last batch of one example join the one before: BatchNorm cannot train on it.

    No batch is larger by more, and where all are of one example they stay so.
    """
    before = next(batches, None)
    while before is not None:
        batch = next(batches, None)
        if batch is None or not _may_join(before, batch):
            yield before
            before = batch
        elif (after := next(batches, None)) is None:
            yield _joined(before, batch)
            return
        else:
            yield before
            yield batch
            before = after


def _may_join(before: Batch, batch: Batch) -> bool:
    alike = before.inputs.shape[1:] == batch.inputs.shape[1:]
    return alike and len(batch.labels) == 1 < len(before.labels)


def _joined(one: Batch, other: Batch) -> Batch:
    inputs, labels = (torch.cat(each) for each in zip(one[:2], other[:2], strict=True))
    indices = (one.indices, other.indices)
    both = None if None in indices else torch.cat(indices)  # type: ignore[arg-type]
    return Batch(inputs, labels, both)


def _cut(data: "Dataset[Any]", batch_size: int, shuffle: bool) -> "DataLoader[Any]":
    # Loaders refuse NumPy's integers.
    return DataLoader(data, int(batch_size), shuffle=shuffle)


def _of_pairs(spec: Spec) -> Spec:
    """The same with a name for labels that came with the inputs."""
    return replace(spec, label_name=f"labels in {spec.name}")


def _indexed(loader: "DataLoader[Any]") -> "DataLoader[Any] | None":
    """The same loader with each example's index as a third tensor, where nothing can notice."""
    plain = (
        type(loader.dataset) is TensorDataset
        and loader.collate_fn is default_collate
        and type(loader.batch_sampler) is BatchSampler
        and type(loader.sampler) in (RandomSampler, SequentialSampler)
    )
    if not plain:
        return None
    tensors = loader.dataset.tensors  # type: ignore[attr-defined]
    inputs, labels = pair(tensors)
    indices = torch.arange(len(inputs))
    return DataLoader(
        TensorDataset(inputs, labels, indices),
        batch_sampler=loader.batch_sampler,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        generator=loader.generator,
        persistent_workers=loader.persistent_workers,
    )


def _start(loader: "DataLoader[Any]", number: int) -> None:
    """Tell a sampler that wants to know which epoch this is."""
    sampler = getattr(loader, "sampler", None)
    if sampler is not None and hasattr(sampler, "set_epoch"):
        sampler.set_epoch(number)


def _divided(loader: "DataLoader[Any]") -> bool:
    return isinstance(getattr(loader, "sampler", None), DistributedSampler)


def _generators(loader: "DataLoader[Any]") -> list[torch.Generator]:
    sampler = getattr(loader, "sampler", None)
    given = (loader.generator, getattr(sampler, "generator", None))
    return [each for each in given if isinstance(each, torch.Generator)]


def _n_batches(loader: "DataLoader[Any]") -> int | None:
    """The batches of an epoch, where a last one of one example counts with the one before."""
    n = _length(loader)
    return n - 1 if n is not None and _ends_in_one(loader) else n


def _ends_in_one(loader: "DataLoader[Any]") -> bool | None:
    """Whether the last of several batches has one example; None where nobody knows."""
    cut = loader.batch_sampler
    if type(cut) is not BatchSampler:
        return None
    examples = _length(cut.sampler)
    if examples is None:
        return None
    return examples % cut.batch_size == 1 < cut.batch_size < examples and not cut.drop_last


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except TypeError:
        return None
