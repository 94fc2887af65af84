"""Where batches come from: memory, a loader, unlabelled examples."""

import itertools
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any, NoReturn, Self

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
from .._modes import on_cpu
from .._typing import Range
from ._arrays import as_tensor
from ._batch import PREDICTION_BATCH, Batch, seen_classes
from ._chunks import check_one_shape
from ._open import Examples, as_labels, pair
from ._spec import Spec, check_lengths, check_several


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
        weights: Tensor | None = None,
    ) -> None:
        self.inputs, self.labels, self.rows, self.weights = inputs, labels, rows, weights
        self.batch_size, self.seed = batch_size, seed
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
        everything = torch.arange(self.n_examples, device="cpu")
        yield from map(self._batch, everything.split(max(self.batch_size, PREDICTION_BATCH)))

    def first(self) -> Batch:
        """The first examples."""
        return next(self.in_order())

    def held_to(self, spec: Spec) -> Self:
        """The same memory, its labels held to the classes."""
        source = copy(self)
        source.labels = spec.encode(self.labels)
        return source

    def own_labels(self) -> Tensor:
        """The labels of the examples, in order."""
        return self.labels if self.rows is None else self.labels[self.rows]

    def within(self, name: str, bounds: Range) -> Self:
        """The same memory, all of it looked at here and now."""
        for inputs in self.inputs.split(PREDICTION_BATCH):
            hold_within(name, inputs, bounds)
        return self

    def subset(self, rows: Tensor) -> "TensorSource":
        """Some of the examples, as a source of its own over the same memory."""
        rows = rows if self.rows is None else self.rows[rows]
        return self._over(rows, self.weights)

    def weighted(self, weights: Tensor) -> "TensorSource":
        """The same examples, each with its weight; those of weight 0 are left out."""
        weighted = self._over(self.rows, weights)
        return weighted if bool(weights.all()) else weighted.subset(weights.nonzero()[:, 0])

    def cut(self, batch_size: int) -> "TensorSource":
        """The same examples in batches of another size."""
        source = copy(self)
        source.batch_size = batch_size
        source.n_batches = len(source._slices())
        return source

    def _over(self, rows: Tensor | None, weights: Tensor | None) -> "TensorSource":
        return TensorSource(self.inputs, self.labels, self.batch_size, self.seed, rows, weights)

    def generators(self) -> list[torch.Generator]:
        """None: an epoch's order follows from its number."""
        return []

    def _order(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed + 7919 * number) % 2**63)
        return torch.randperm(self.n_examples, generator=generator, device="cpu")

    def _batch(self, indices: Tensor) -> Batch:
        rows = indices if self.rows is None else self.rows[indices]
        weights = None if self.weights is None else self.weights[rows]
        # In rows, as a loader would stack them: images whose axes were permuted are not.
        inputs = Spec().tensor(self.inputs[rows]).contiguous()
        return Batch(inputs, self.labels[rows], indices, weights)

    def _slices(self) -> list[slice]:
        n = self.n_examples
        starts = list(range(0, n, self.batch_size))
        if len(starts) > 1 and n - starts[-1] == 1:
            starts.pop()  # BatchNorm cannot train on one example: it joins the batch before
        return [slice(a, b) for a, b in itertools.pairwise([*starts, n])]


class StreamSource:
    """What yields batches one after another: the caller's own loader, with all that it does.

    ``label`` gives the labels of inputs that come without any.
    """

    def __init__(
        self, stream: Any, spec: Spec, label: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        loader = _indexed(stream) if label is None else None
        self.identified = loader is not None
        self.stream: Any = stream if loader is None else loader
        self.spec, self.label = spec, label
        self.divided = _divided(self.stream)
        self.n_batches = _n_batches(self.stream)
        self._first: Batch | None = None
        self._shape: tuple[int, ...] | None = None

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass as the stream gives it, but for a last batch of one."""
        batches = self._pass(number)
        return batches if _ends_in_one(self.stream) is False else joined_at_the_end(batches)

    def in_order(self) -> Iterator[Batch]:
        """By index where examples are identified, as the stream gives them otherwise."""
        if not self.identified:
            yield from self._pass(0)
            return
        inputs, labels, indices = self.stream.dataset.tensors
        for rows in indices.split(PREDICTION_BATCH):
            yield self._batch((inputs[rows].contiguous(), labels[rows], rows))

    def first(self) -> Batch:
        """The first batch; kept, because asking a loader again starts its workers again."""
        if self._first is None:
            self._first = next(self.in_order(), None)
        if self._first is None:
            _refuse_empty(self.spec.name)
        return self._first

    def held_to(self, spec: Spec) -> Self:
        """The same stream; every batch is checked as it comes."""
        source = copy(self)
        source.spec, source._first = spec, self._first
        return source

    def within(self, name: str, bounds: Range) -> Self:
        """The same stream; every batch is checked as it comes."""
        source = self.held_to(replace(self.spec, name=name, bounds=bounds))
        source.spec.check(source.first().inputs)
        return source

    def generators(self) -> list[torch.Generator]:
        """The loader's and its sampler's, where the caller gave them one."""
        sampler = getattr(self.stream, "sampler", None)
        given = (getattr(self.stream, "generator", None), getattr(sampler, "generator", None))
        return [each for each in given if isinstance(each, torch.Generator)]

    def _pass(self, number: int) -> Iterator[Batch]:
        _start(self.stream, number)
        for item in self.stream:
            yield self._batch(item)

    def _batch(self, item: Any) -> Batch:
        indices = item[2] if self.identified else None
        if self.label is not None:
            inputs = self._inputs(item[0] if isinstance(item, list | tuple) else item)
            return Batch(inputs, self.label(inputs))
        inputs, labels = pair(item[:2] if self.identified else item, self.spec.name)
        if getattr(labels, "ndim", 1) == 0:  # one example, which has no axis of its own
            inputs, labels = inputs[None], as_labels(labels)
        inputs = self._inputs(inputs)
        check_lengths(inputs, labels, self.spec.name)
        return Batch(inputs, self.spec.encode(labels), indices)

    def _inputs(self, inputs: Any) -> Tensor:
        inputs = self.spec.tensor(inputs)
        inputs_shape = tuple(inputs.shape[1:])
        if self._shape is not None:
            check_one_shape(self.spec.name, self._shape, inputs_shape)
        inputs = self.spec.check(inputs)
        self._shape = inputs_shape
        return inputs


def source_of(
    opened: Examples,
    batch_size: int,
    seed: int,
    label: Callable[[Tensor], Tensor] | None = None,
) -> TensorSource | StreamSource:
    """Batches for training on what was opened.

    A loader keeps its own batches, a data set is given shuffled ones; what is in memory, or can
    be read only once, is shuffled and cut here. ``label`` gives the labels where there are none.
    """
    stream, spec = opened.stream, opened.spec
    if isinstance(stream, Dataset) and not isinstance(stream, DataLoader):
        shuffle = not isinstance(stream, IterableDataset)
        if shuffle and len(stream) == 0:  # type: ignore[arg-type]
            _refuse_empty(spec.name)
        sampler = _Shuffled(opened.stream) if shuffle else None
        stream = _Loader(stream, batch_size, sampler=sampler)
    if stream is None or isinstance(stream, Iterator | list | tuple):
        inputs, labels = _in_memory(opened)
        if label is not None:
            pieces = (piece.contiguous() for piece in inputs.split(PREDICTION_BATCH))
            labels = torch.cat([label(Spec().tensor(piece)) for piece in pieces])
        return TensorSource(inputs, labels, batch_size, seed)
    if _length(stream) == 0:
        _refuse_empty(spec.name)
    return StreamSource(stream, spec, label)


class _Loader(DataLoader[Any]):
    """PyTorch's, whose seed is drawn on the default device, for a data set of the caller's."""

    def __iter__(self) -> Any:
        with on_cpu():
            return super().__iter__()


class _Shuffled(RandomSampler):
    """PyTorch's, which shuffles on the default device with a generator of the CPU."""

    def __iter__(self) -> Iterator[int]:
        with on_cpu():
            return iter([*super().__iter__()])


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


def classes_in(source: TensorSource | StreamSource) -> Tensor:
    """The distinct labels of a source: at least two."""
    if isinstance(source, TensorSource):
        seen: Tensor = source.own_labels().unique()
    else:
        seen = seen_classes(source.in_order())
    check_several(seen, "y")
    return seen


def _in_memory(opened: Examples) -> tuple[Tensor, Tensor]:
    """Inputs as they are, mapped from a file perhaps, and class indices; all of it checked."""
    if opened.memory is None:
        chunk = opened.whole()
        return chunk.inputs, chunk.labels
    spec, (inputs, labels) = opened.spec, opened.memory
    tensor = inputs.detach().cpu() if isinstance(inputs, Tensor) else as_tensor(inputs)
    if len(tensor) == 0:
        _refuse_empty(spec.name)
    for piece in tensor.split(PREDICTION_BATCH):
        spec.check(piece)
    codes = torch.full((len(tensor),), -1, device="cpu") if labels is None else spec.encode(labels)
    return tensor, codes


def _refuse_empty(name: str) -> NoReturn:
    raise ValueError(f"{name} must hold at least one example, got none")


def _indexed(loader: Any) -> "DataLoader[Any] | None":
    """The same loader with each example's index as a third tensor, where nothing can notice."""
    plain = (
        type(loader) in (DataLoader, _Loader)
        and type(loader.dataset) is TensorDataset
        and loader.collate_fn is default_collate
        and type(loader.batch_sampler) is BatchSampler
        and type(loader.sampler) in (RandomSampler, SequentialSampler, _Shuffled)
    )
    if not plain:
        return None
    tensors = loader.dataset.tensors
    inputs, labels = pair(tensors)
    indices = torch.arange(len(inputs), device="cpu")
    return type(loader)(
        TensorDataset(inputs, labels, indices),
        batch_sampler=loader.batch_sampler,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        generator=loader.generator,
        persistent_workers=loader.persistent_workers,
    )


def _start(loader: Any, number: int) -> None:
    """Tell a sampler that wants to know which epoch this is."""
    sampler = getattr(loader, "sampler", None)
    if sampler is not None and hasattr(sampler, "set_epoch"):
        sampler.set_epoch(number)


def _divided(loader: Any) -> bool:
    return isinstance(getattr(loader, "sampler", None), DistributedSampler)


def _n_batches(stream: Any) -> int | None:
    """The batches of an epoch, where a last one of one example counts with the one before."""
    n = _length(stream)
    return n - 1 if n is not None and _ends_in_one(stream) else n


def _ends_in_one(stream: Any) -> bool | None:
    """Whether the last of several batches has one example; None where nobody knows."""
    cut = getattr(stream, "batch_sampler", None)
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
