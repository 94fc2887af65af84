"""Where batches come from, and what a command line gives: worked out by hand."""

import argparse

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from distillguard._cli._data import Data, _labels
from distillguard._cli._values import count, number, one_of, seed, share
from distillguard._data import examples
from distillguard._data._batch import Batch, seen_classes
from distillguard._data._chunks import regrouped
from distillguard._data._mixed import MixedSource
from distillguard._data._sources import StreamSource, TensorSource, joined_at_the_end, source_of


def in_memory(n, batch_size, start=0, **more):
    inputs = torch.arange(start, start + n)[:, None].float()
    return TensorSource(inputs, torch.arange(n) % 2, batch_size, **more)


def numbers(batches):
    return [batch.inputs[:, 0].int().tolist() for batch in batches]


def loader(n, batch_size, **more):
    inputs = torch.arange(n)[:, None].float()
    return DataLoader(TensorDataset(inputs, torch.arange(n) % 2), batch_size, **more)


# In memory.


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (7, 3, [3, 4]),
        (8, 3, [3, 3, 2]),
        (1, 3, [1]),
        (3, 1, [1, 2]),
        (4, 3, [4]),
        (6, 3, [3, 3]),
        (2, 5, [2]),
    ],
)
def test_a_last_batch_of_one_joins_the_one_before(n, batch_size, sizes):
    source = in_memory(n, batch_size)
    batches = list(source.epoch(1))
    assert [len(batch.labels) for batch in batches] == sizes
    assert source.n_batches == len(sizes)
    assert sorted(sum(numbers(batches), [])) == list(range(n))  # noqa: RUF017
    assert all(batch.indices.equal(batch.inputs[:, 0].long()) for batch in batches)
    assert all(batch.labels.equal(batch.indices % 2) for batch in batches)


def test_the_order_of_an_epoch_is_that_of_its_number_and_seed():
    orders = {
        (seed, number): numbers(in_memory(20, 20, seed=seed).epoch(number))[0]
        for seed in (0, 1, 2**63 - 1)
        for number in (1, 2, 3)
    }
    assert len(set(map(tuple, orders.values()))) == 9
    again = in_memory(20, 20, seed=1)
    assert numbers(again.epoch(3))[0] == orders[1, 3]
    assert numbers(again.epoch(1))[0] == orders[1, 1]


@pytest.mark.parametrize("start", [0, 3, 5, 12])
def test_batches_for_ever_run_from_one_epoch_into_the_next_from_any_example(start):
    source = in_memory(5, 3)
    row = [each for epoch in range(1, 8) for batch in source.epoch(epoch)
           for each in batch.indices.tolist()]  # fmt: skip
    batches = source.forever(start)
    for place in range(start, start + 15, 3):
        assert next(batches).indices.tolist() == row[place : place + 3]


def test_a_part_keeps_its_own_labels_and_weights_and_a_part_of_it_too():
    weights = torch.tensor([1.0, 0.0, 3.0, 4.0, 5.0])
    source = in_memory(5, 2).weighted(weights)
    assert source.n_examples == 4
    part = source.subset(torch.tensor([3, 1]))
    (batch,) = part.in_order()
    assert batch.inputs[:, 0].tolist() == [4, 2]
    assert batch.weights.tolist() == [5, 3]
    assert batch.indices.tolist() == [0, 1]
    assert part.own_labels().tolist() == batch.labels.tolist() == [0, 0]
    assert in_memory(5, 2).own_labels().tolist() == [0, 1, 0, 1, 0]
    assert in_memory(5, 2).weighted(weights + 1).n_examples == 5
    cut = source.cut(3)
    assert (cut.n_batches, source.n_batches, cut.batch_size) == (1, 2, 3)


def test_looking_in_order_takes_five_hundred_and_twelve_at_once_or_a_larger_batch():
    assert [len(b.labels) for b in in_memory(1100, 3).in_order()] == [512, 512, 76]
    assert [len(b.labels) for b in in_memory(1100, 600).in_order()] == [600, 500]


# Streams.


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([3, 3, 1], [3, 4]),
        ([3, 1, 3], [3, 1, 3]),
        ([1, 1, 1], [1, 1, 1]),
        ([3, 3, 2], [3, 3, 2]),
        ([3, 1, 1], [3, 1, 1]),
        ([2, 1, 2, 1], [2, 1, 3]),
        ([1], [1]),
        ([], []),
        ([1, 3, 1], [1, 4]),
    ],
)
def test_in_a_stream_only_a_last_batch_of_one_after_a_larger_one_joins_it(sizes, expected):
    rows = torch.arange(sum(sizes))
    batches = [Batch(part[:, None].float(), part, part) for part in rows.split(sizes)]
    found = list(joined_at_the_end(iter(batches if sizes else [])))
    assert [len(batch.labels) for batch in found] == expected
    assert [each for batch in found for each in batch.labels.tolist()] == rows.tolist()
    assert [each for batch in found for each in batch.indices.tolist()] == rows.tolist()


@pytest.mark.parametrize(
    ("n", "batch_size", "drop_last", "batches"),
    [
        (7, 3, False, 2), (8, 3, False, 3), (7, 3, True, 2), (1, 3, False, 1),
        (3, 1, False, 3), (3, 3, False, 1), (4, 3, False, 1), (4, 3, True, 1),
    ],
)  # fmt: skip
def test_a_loader_has_as_many_batches_as_come(n, batch_size, drop_last, batches):
    source = StreamSource(loader(n, batch_size, drop_last=drop_last), examples([[0.0]], [0]).spec)
    assert source.n_batches == batches == len(list(source.epoch(1)))


def test_examples_of_a_plain_loader_are_known_by_number_and_looked_at_in_order():
    shuffled = loader(9, 4, shuffle=True, generator=torch.Generator().manual_seed(0))
    opened = examples(shuffled)
    source = source_of(opened, 2, 0)
    assert source.identified
    assert numbers(source.in_order()) == [list(range(9))]
    (first, last) = source.epoch(1)
    assert (len(first.labels), len(last.labels)) == (4, 5)
    for batch in (first, last):
        assert batch.indices.equal(batch.inputs[:, 0].long())
    assert source.generators()[0] is shuffled.generator
    strange = loader(9, 4, collate_fn=lambda rows: torch.utils.data.default_collate(rows))
    assert not source_of(examples(strange), 2, 0).identified
    kind = BatchSampler(RandomSampler(range(9)), 4, True)
    data = shuffled.dataset
    assert source_of(examples(DataLoader(data, batch_sampler=kind)), 2, 0).identified


def test_classes_of_several_batches_are_told_once_and_in_order():
    batches = [Batch(torch.zeros(2, 1), torch.tensor(each)) for each in ([3, 1], [1, 0], [3, 3])]
    assert seen_classes(batches).tolist() == [0, 1, 3]


# Two sources together.


@pytest.mark.parametrize(
    ("batch_size", "fraction", "sizes"),
    [
        (10, 0.3, (7, 3)),
        (10, 0.01, (9, 1)),
        (10, 0.99, (1, 9)),
        (8, 0.875, (1, 7)),
        (2, 0.9, (1, 1)),
    ],
)
def test_a_mixed_batch_in_memory_is_as_large_as_before(batch_size, fraction, sizes):
    mixed = MixedSource(in_memory(28, batch_size), in_memory(50, 4, 100), fraction)
    first = next(mixed.epoch(1)).inputs[:, 0]
    assert ((first < 100).sum(), (first >= 100).sum()) == sizes
    assert mixed.n_batches == mixed.source.n_batches == len(list(mixed.epoch(1)))


@pytest.mark.parametrize(
    ("own", "other", "fraction", "sizes"),
    [
        # A loader keeps its own batches of six; beside it, so many of the others.
        (loader(24, 6), in_memory(50, 4, 100), 0.25, (6, 2)),
        (loader(24, 6), in_memory(50, 4, 100), 0.75, (6, 18)),
        (loader(24, 6), in_memory(50, 4, 100), 0.01, (6, 1)),
        (in_memory(24, 4, 100), loader(24, 6), 0.25, (18, 6)),
        (in_memory(24, 4, 100), loader(24, 6), 0.75, (2, 6)),
        (in_memory(24, 4, 100), loader(24, 6), 0.99, (1, 6)),
    ],
)
def test_what_is_in_memory_is_cut_to_its_share_beside_a_loader(own, other, fraction, sizes):
    spec = examples([[0.0]], [0]).spec
    own, other = (
        StreamSource(each, spec) if isinstance(each, DataLoader) else each for each in (own, other)
    )
    mixed = MixedSource(own, other, fraction)
    assert (len(next(mixed.source.epoch(1)).labels), len(next(mixed.epoch(1)).labels)) == (
        sizes[0],
        sum(sizes),
    )


def test_the_second_source_goes_on_across_epochs_wherever_training_starts_again():
    mixed = MixedSource(in_memory(12, 4), in_memory(5, 9, 100), 0.5)
    seen = [
        [int(each) for batch in mixed.epoch(number) for each in batch.inputs[:, 0] if each >= 100]
        for number in (1, 2, 3, 4, 5)
    ]
    assert [len(each) for each in seen] == [12] * 5
    order = torch.cat([batch.inputs for batch in
                       [next(mixed.extra.forever(2 * k)) for k in range(30)]])  # fmt: skip
    assert sum(seen, []) == order[:, 0].int().tolist()  # noqa: RUF017
    # All of its examples before any comes again.
    assert sorted(sum(seen, [])[:5]) == [100, 101, 102, 103, 104]  # noqa: RUF017
    assert numbers(mixed.in_order()) == [list(range(12))]


def test_a_second_loader_starts_anew_where_training_starts_again():
    began = []

    class Counted(StreamSource):
        def epoch(self, number):
            began.append(number)
            return super().epoch(number)

    mixed = MixedSource(in_memory(9, 3), Counted(loader(4, 2), examples([[0.0]], [0]).spec), 0.5)
    per_epoch = mixed.n_batches
    list(mixed.epoch(1))
    assert began == list(range(1, 1 + -(-per_epoch // 2)))
    began.clear()
    next(mixed.epoch(3))
    assert began == [2 * per_epoch + 1]


@pytest.mark.parametrize("sizes", [[5], [1, 1, 3], [2, 3], [7, 1, 4], [0, 4, 0], [4, 4]])
@pytest.mark.parametrize("labelled", [True, False])
def test_batches_of_any_size_become_chunks_of_one_size_in_order(sizes, labelled):
    rows = torch.arange(sum(sizes))
    batches = [(part, part.numpy() if labelled else None) for part in rows.split(sizes)]
    found = list(regrouped(batches, 2, "X"))
    assert [len(inputs) for inputs, _ in found[:-1]] == [2] * (len(found) - 1)
    assert len(found[-1][0]) in (1, 2)
    assert torch.cat([inputs for inputs, _ in found]).equal(rows)
    if labelled:
        assert np.concatenate([labels for _, labels in found]).tolist() == rows.tolist()
    else:
        assert all(labels is None for _, labels in found)


# Default devices: whatever the caller set, what is counted here lies on the CPU.


@pytest.mark.parametrize(
    "ask",
    [
        lambda: list(in_memory(7, 3).epoch(1)) + list(in_memory(7, 3).in_order()),
        lambda: [next(in_memory(7, 3).forever(1))],
        lambda: list(in_memory(4, 2).weighted(torch.arange(4.0)).in_order()),
        lambda: list(MixedSource(in_memory(12, 4), in_memory(5, 9), 0.5).epoch(1)),
        lambda: list(source_of(examples(loader(5, 2)), 2, 0).in_order()),
        lambda: list(examples(np.zeros((5, 2), np.float32), [0, 1, 0, 1, 0]).chunks(2)),
        lambda: list(examples(np.zeros((5, 2)), labelled=False).chunks(2)),
    ],
)
def test_batches_lie_on_the_cpu_whatever_the_default_device(ask, monkeypatch):
    real = torch.arange
    # The tests' own examples are on the CPU.
    monkeypatch.setattr(torch, "arange", lambda *a, **k: real(*a, **{"device": "cpu"} | k))
    with torch.device("meta"):
        batches = ask()
    assert batches
    for batch in batches:
        parts = [part for part in batch if isinstance(part, torch.Tensor)]
        assert {part.device.type for part in parts} == {"cpu"}


# The command line.


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (number, "8/255", 8 / 255), (number, "0.5", 0.5), (number, "-1e-3", -1e-3),
        (share, "0", 0.0), (share, "1", 1.0), (share, "9/20", 0.45),
        (count, "1", 1), (count, "12", 12), (seed, "0", 0), (seed, "7", 7),
        (one_of("l2", "linf"), "l2", "l2"),
    ],
)  # fmt: skip
def test_values_of_the_command_line_are_read(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (number, "8/0"), (number, "much"), (number, ""), (number, "1e999/1"),
        (share, "45%"), (share, "1.01"), (share, "-0.01"), (share, "45"),
        (count, "0"), (count, "-1"), (count, "1.5"), (seed, "-1"), (seed, "x"),
        (one_of("l2", "linf"), "l3"),
    ],
)  # fmt: skip
def test_values_that_nobody_can_mean_are_refused_with_what_was_given(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be") as caught:
        kind(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("n", [None, 4, 5, 9])
def test_a_limit_draws_so_many_examples_in_their_order_and_the_same_for_a_seed(n):
    X = np.arange(5)
    data = Data(X, 10 * X, "numbers")
    found = data.limited(n, 0)
    assert len(found.X) == (4 if n == 4 else 5)
    assert found.y.tolist() == (10 * found.X).tolist() == sorted(found.y.tolist())
    assert found.X.tolist() == data.limited(n, 0).X.tolist()
    if n == 4:
        drawn = {tuple(data.limited(n, seed).X.tolist()) for seed in range(40)}
        assert len(drawn) == 5
    pictures = Data(TensorDataset(torch.arange(5)), None, "pictures").limited(2, 1)
    assert [each.item() for (each,) in pictures.X] == data.limited(2, 1).X.tolist()


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (None, ({"cat": 0, "dog": 1}, ("cat", "dog"))),
        # Known by name, in the model's own order; and more of them than there are folders.
        (["dog", "cat"], ({"cat": "cat", "dog": "dog"}, None)),
        (["ant", "dog", "cat"], ({"cat": "cat", "dog": "dog"}, None)),
        ([7, 9], ({"cat": 0, "dog": 1}, ("cat", "dog"))),
        (["ant", "dog"], "got 'cat'"),
    ],
)
def test_folders_are_classes_by_the_names_that_the_model_knows_or_by_number(classes, expected):
    known = None if classes is None else np.array(classes)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            _labels(["cat", "dog"], known)
    else:
        assert _labels(["cat", "dog"], known) == expected
