"""Labels, columns and batches on their way in: what each becomes, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from distillguard._data import Spec, examples
from distillguard._data._arrays import as_array, as_tensor, refuse_bytes
from distillguard._data._mixed import MixedSource, _sizes
from distillguard._data._open import as_labels, pair
from distillguard._data._sources import TensorSource, _ends_in_one, _n_batches, source_of
from distillguard._data._spec import (
    check_lengths,
    classes_of,
    label_values,
    numbers,
    whole_numbers,
)

# Labels.


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.array([1.0, 2.0]), [1, 2]),
        (np.array([True, False]), [1, 0]),
        (np.array([], dtype=object), []),
        (np.array(["3", " 4 "]), "got '3'; write y.astype(int)"),
        (np.array(["3", "x"]), "got '3'; a network numbers its classes: write [classes.index"),
        (np.array([1.0, 2.5]), "got 2.5"),
        (np.array([1.0, np.nan]), "got nan"),
        (np.array([np.inf, 1.0]), "got inf"),
        (np.array([1, None], dtype=object), "got None"),
    ],
)
def test_classes_of_a_network_are_whole_numbers_of_any_dtype(labels, found):
    if isinstance(found, list):
        assert whole_numbers(labels, "y").tolist() == found
        assert whole_numbers(labels, "y").dtype == np.int64
    else:
        with pytest.raises(TypeError, match="y must hold integer classes, got") as caught:
            whole_numbers(labels, "y")
        assert found in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "n", "found"),
    [
        ([[1], [2]], 2, [1, 2]),
        (torch.tensor([1, 2]), 2, [1, 2]),
        ([torch.tensor(1), torch.tensor(2)], 2, [1, 2]),
        ([[1, 2]], 2, "shape (n,), got shape (1, 2); write y.reshape(-1)"),
        ([[1, 2]], 1, "shape (n,), got shape (1, 2); write y.argmax(1)"),
        ([[1, 0], [0, 1]], 2, "shape (n,), got shape (2, 2); write y.argmax(1)"),
        (np.zeros((2, 1, 1)), 2, "got shape (2, 1, 1)"),
        (np.array(3), 1, "y must hold one class per example, got"),
        ([[1], [2, 3]], 2, "rows of different lengths"),
        ([np.zeros(2), np.zeros(3)], 5, "rows of different lengths; write np.concatenate(y)"),
    ],
)
def test_labels_are_one_for_each_example_or_told_how_to_become_so(labels, n, found):
    if isinstance(found, list):
        assert label_values(labels, "y", n).tolist() == found
        return
    with pytest.raises(
        (TypeError, ValueError), match="y must hold one class per example"
    ) as caught:
        label_values(labels, "y", n)
    assert str(caught.value).endswith(found) or found == "y must hold one class per example, got"


@pytest.mark.parametrize(
    ("classes", "labels", "unknown", "codes"),
    [
        (["a", "b"], np.array(["b", "a", "b"]), None, [1, 0, 1]),
        (["a", "b"], np.array(["b", "c"]), None, "got 'c'; known are 'a', 'b'"),
        (["a", "b"], np.array(["b", "c"]), -1, [1, -1]),
        (["a", "b"], np.array([1, 0]), -1, "got 1; known are"),
        ([3, 5], torch.tensor([5, 4]), None, "got 4; known are 3, 5"),
        ([0, 1], torch.tensor([1, 0]), None, [1, 0]),
        ([0, 1], torch.tensor([1, 2]), None, "classes from 0 to 1, got values in [1, 2]"),
        ([0, 1], torch.tensor([1, 2, -1, 0]), 7, [1, 7, 7, 0]),
        ([0, 1], np.array([1.0, 0.0]), None, [1, 0]),
        (None, np.array([7, 9]), None, [7, 9]),
        (None, torch.tensor([7, 9], dtype=torch.uint8), None, [7, 9]),
    ],
)
def test_labels_are_looked_up_in_the_classes_that_are_known(classes, labels, unknown, codes):
    spec = Spec(classes, unknown=unknown)
    if isinstance(codes, list):
        found = spec.encode(labels)
        assert found.tolist() == codes
        assert found.dtype == torch.int64
    else:
        with pytest.raises(ValueError, match="y must ") as caught:
            spec.encode(labels)
        assert codes in str(caught.value)


def test_two_classes_are_the_fewest_and_come_in_order():
    assert classes_of(np.array(["b", "a", "b"]), "y").tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="at least two classes, got one class: 'b'"):
        classes_of(np.array(["b", "b"]), "y")
    with pytest.raises(ValueError, match="Input y contains NaN"):
        classes_of(np.array([0.0, np.nan]), "y")
    with pytest.raises(ValueError, match="Input contains NaN"):
        classes_of(np.array([0, np.nan], dtype=object), "y")
    with pytest.raises(ValueError, match="Unknown label type"):
        classes_of(np.array([0.1, 0.25, 0.3]), "y")
    check_lengths([1, 2], [1, 2], "X")
    with pytest.raises(ValueError, match="got 2 inputs and 1 labels"):
        check_lengths([1, 2], [1], "X")


# Inputs.


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.zeros(3), ValueError, r"at least two axes, got \(3,\)"),
        (torch.zeros(3, 0), ValueError, r"0 feature\(s\) \(shape=\(3, 0\)\)"),
        (torch.zeros(3, 5), ValueError, r"examples of shape \(4,\) as in fit, got \(5,\)"),
        (torch.zeros(3, 4).index_fill(0, torch.tensor(1), torch.nan), ValueError, "must be finite"),
        (torch.zeros(3, 4, dtype=torch.complex64), ValueError, "must hold real numbers"),
        (torch.zeros(3, 4).to_sparse(), TypeError, "must be dense"),
        (np.zeros((3, 4, 4), dtype=np.uint8), TypeError, "got uint8 images"),
        (np.full((3, 4), "x"), TypeError, "must hold numbers, got 'x'"),
        ([[1.0], [2.0, 3.0]], ValueError, "got rows of different lengths"),
        ([np.zeros(2), np.zeros(3)], ValueError, r"got \(2,\) and \(3,\)"),
        (np.array([[1, {}]], dtype=object), TypeError, "dtype object: "),
    ],
)
def test_inputs_that_are_no_numbers_of_one_shape_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        Spec(shape=(4,)).check(inputs)


def test_inputs_keep_their_dtype_where_they_are_tensors_and_take_the_models_otherwise():
    double = torch.float64
    assert Spec().tensor(torch.zeros(2, 2, dtype=double), torch.float32).dtype == double
    assert Spec().tensor(np.zeros((2, 2)), torch.float32).dtype == torch.float32
    assert Spec().tensor(np.zeros((2, 2))).dtype == double
    assert Spec().tensor([[1, 2]]).dtype == torch.float32
    assert Spec().tensor(np.array([[1, 2.5]], dtype=object), double).tolist() == [[1, 2.5]]
    assert Spec().tensor([torch.ones(2), torch.zeros(2)]).tolist() == [[1, 1], [0, 0]]
    bytes_ = np.full((2, 3, 3), 200, dtype=np.uint8)
    assert Spec(bounds=(0.0, 255.0)).check(bytes_).max() == 200
    assert Spec(bounds=(0.0, 200.0)).check(bytes_).max() == 200
    with pytest.raises(TypeError, match="uint8 images"):
        Spec(bounds=(0.0, 1.0)).check(bytes_)
    refuse_bytes(bytes_[0])  # a table of counts
    assert numbers(np.ones(2, dtype=bool), "X").tolist() == [True, True]


def test_arrays_of_any_order_and_kind_become_tensors_over_the_same_memory_where_they_can():
    array = np.arange(6.0).reshape(2, 3)
    assert as_tensor(array).data_ptr() == array.ctypes.data
    for each in (array[::-1], array[:, ::-1]):
        assert as_tensor(each).tolist() == each.tolist()
    assert as_tensor(array.astype(">f8")).dtype == torch.float64
    assert as_tensor(np.array([1, 2], dtype=np.uint16)).dtype == torch.int64
    assert as_tensor(np.array([0.5], dtype=np.longdouble)).dtype == torch.float64
    assert as_tensor(np.ones(())).shape == ()
    half = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    assert as_array(half).dtype == np.float32
    assert as_array(torch.ones(2, dtype=torch.float16)).dtype == np.float16
    assert as_array("text") == "text"


def test_columns_of_a_table_are_those_of_fit():
    spec = Spec(columns=["a", "b"])
    for columns, message in (
        (["a", "b"], None),
        ([0, 1], None),
        (["a", 1], None),
        ([], None),
        (["a"], "the 2 columns of fit, got 1"),
        (["b", "a"], "got 'b' in place 0 instead of 'a'"),
        (["a", "c"], "got 'c' in place 1 instead of 'b'"),
    ):
        table = SimpleNamespace(columns=columns)
        if message is None:
            spec.check_columns(table)
        else:
            with pytest.raises(ValueError, match=message):
                spec.check_columns(table)
    Spec().check_columns(SimpleNamespace(columns=["z"]))


# Batches.


@pytest.mark.parametrize(
    ("item", "remedy"),
    [
        ({"image": 1, "label": 2}, "; write ((b['image'], b['label']) for b in X)"),
        ({"picture": 1}, "{'picture'"),
        ((1, 2, 3), "; write ((b[0], b[1]) for b in X)"),
        ((0, torch.ones(2)), "; leave out enumerate"),
        (torch.ones(2), "; labels are missing"),
        ((torch.ones(2),), "; labels are missing"),
        (7, "got 7"),
    ],
)
def test_what_is_no_pair_is_told_how_to_become_one(item, remedy):
    with pytest.raises(TypeError, match=r"X must yield pairs \(inputs, labels\)") as caught:
        pair(item)
    assert str(caught.value).endswith(remedy) or remedy.startswith("{")
    assert pair([torch.ones(2), 3])[1] == 3
    with pytest.raises(TypeError, match="with one tensor of inputs"):
        pair(({"a": 1}, 2))
    assert as_labels(torch.tensor(3)).tolist() == [3]
    assert as_labels("a") == ["a"]


class Few(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, place):
        return torch.full((2,), float(place)), place % 2


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(2), 0), (torch.ones(2), 1)])


@pytest.mark.parametrize(
    ("X", "n"),
    [
        (np.zeros((5, 2)), 5),
        (TensorDataset(torch.zeros(5, 2)), 5),
        (Few(5), 5),
        (DataLoader(Few(5), 2), 5),
        (DataLoader(Few(5), 2, drop_last=True), None),
        (DataLoader(Few(5), None), None),
        (Endless(), None),
        (DataLoader(Endless(), 2), None),
        (iter([(torch.zeros(2, 2), torch.zeros(2))]), None),
        ([(torch.zeros(2, 2), torch.zeros(2))], None),
    ],
)
def test_how_many_examples_there_are_is_known_where_something_says_so(X, n):
    assert examples(X, labelled=False).n_examples == n


@pytest.mark.parametrize(
    ("n", "size", "drop", "one", "batches"),
    [
        (5, 2, False, True, 2),
        (5, 2, True, False, 2),
        (4, 2, False, False, 2),
        (1, 2, False, False, 1),
        (5, 1, False, False, 5),
    ],
)
def test_a_last_batch_of_one_is_known_beforehand_and_counts_with_the_one_before(
    n, size, drop, one, batches
):
    loader = DataLoader(Few(n), size, drop_last=drop)
    assert _ends_in_one(loader) is one
    assert _n_batches(loader) == batches
    source = source_of(examples(loader), size, 0)
    assert len(list(source.epoch(1))) == batches
    assert _ends_in_one([]) is None
    assert _n_batches(iter([])) is None


@pytest.mark.parametrize(
    ("sizes", "fraction", "found"),
    [
        ((8, 8), 0.7, (2, 6)),
        ((8, 8), 0.01, (7, 1)),
        ((1, 1), 0.5, (0, 1)),
        ((8, "loader"), 0.75, (1, 4)),
        ((8, "loader"), 0.2, (16, 4)),
        (("loader", 8), 0.75, (4, 12)),
        (("loader", 8), 0.01, (4, 1)),
    ],
)
def test_a_mixed_batch_has_its_share_of_either_source(sizes, fraction, found):
    def source(size):
        if size == "loader":
            return source_of(examples(DataLoader(Few(12), 4)), 4, 0)
        return TensorSource(torch.zeros(20, 2), torch.arange(20) % 2, size)

    one, other = map(source, sizes)
    assert _sizes(one, other, fraction) == found
    if found[0]:
        batch = next(MixedSource(one, other, fraction).epoch(1))
        assert len(batch.labels) == found[0] + (found[1] if sizes[1] != "loader" else 4)
