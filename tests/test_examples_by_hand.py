"""The one door for data: what each form of the same examples becomes, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from distillguard._data import examples
from distillguard._data._mixed import _batch_size
from distillguard._data._sources import source_of

X = torch.arange(10.0).view(5, 2)
Y = torch.tensor([0, 1, 0, 1, 1])


class Rows(Dataset):
    """Examples one by one, whose labels lie as they are made to."""

    def __init__(self, label=lambda y: int(y), inputs=X):
        self.label, self.inputs = label, inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, place):
        return self.inputs[place], self.label(Y[place])


FORMS = {
    "arrays": lambda: examples(X.numpy(), Y.numpy()),
    "a pair": lambda: examples((X, Y)),
    "a list of two": lambda: examples([X, Y]),
    "lists": lambda: examples(X.tolist(), Y.tolist()),
    "a tensor data set": lambda: examples(TensorDataset(X, Y)),
    "a data set": lambda: examples(Rows()),
    "labels with an axis": lambda: examples(Rows(lambda y: y.view(1))),
    "labels without one": lambda: examples(Rows(lambda y: y)),
    "a loader": lambda: examples(DataLoader(TensorDataset(X, Y), 2)),
    "a loader of one by one": lambda: examples(DataLoader(Rows(), None)),
    "batches": lambda: examples([(X[:2], Y[:2]), (X[2:], Y[2:])]),
    "single examples": lambda: examples(iter([(x, int(y)) for x, y in zip(X, Y, strict=True)])),
}


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_in_order_with_places_and_classes(form, size):
    chunks = list(FORMS[form]().chunks(size))
    assert [len(chunk.inputs) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert torch.cat([chunk.inputs for chunk in chunks]).equal(X)
    assert torch.cat([chunk.labels for chunk in chunks]).equal(Y)
    assert torch.cat([chunk.places for chunk in chunks]).equal(torch.arange(5))
    whole = FORMS[form]().whole()
    assert (whole.inputs.equal(X), whole.labels.equal(Y), whole.places[-1]) == (True, True, 4)


@pytest.mark.parametrize(
    "given",
    [
        X,
        (X,),
        (X, Y),
        [X, Y],
        TensorDataset(X),
        TensorDataset(X, Y),
        Rows(),
        DataLoader(TensorDataset(X), 2),
        DataLoader(TensorDataset(X, Y), 2),
        [(X[:2], Y[:2]), (X[2:], Y[2:])],
        [(x, 3) for x in X],
    ],
)
def test_labels_that_nobody_asked_for_are_not_looked_at(given):
    whole = examples(given, labelled=False).whole()
    assert whole.inputs.equal(X)
    assert whole.labels.tolist() == [-1] * 5


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        (Y.float(), X, r"exchange the two"),
        (torch.zeros(5), Y, r"X must have shape \(n, \.\.\.\) with at least two axes"),
        (torch.zeros(4), X, r"one class per example, .* write y\.argmax\(1\)"),
        (X, 1, r"for one example write X\[None\]"),
        (X, torch.zeros(4).long(), "one label for each of 5 inputs, got 4"),
        (X[:0], Y[:0], "at least one example, got none"),
        (Rows(lambda y: torch.nn.functional.one_hot(y, 2)), None, r"\(\(x, y\.argmax\(\)\) for"),
        ([], None, "y must be given when X is an array or a tensor"),
        ([], [], "at least one example, got none"),
        (iter([]), None, "at least one example, got none"),
    ],
)
def test_what_does_not_fit_together_is_refused(given, labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        examples(given, labels).whole()


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        (TensorDataset(X, Y), Y, "y must be None when X yields pairs"),
        (X, None, "y must be given when X is an array or a tensor"),
        ((X, Y, Y), None, r"write X\[:2\]"),
        (X, {0: 1}, "y must hold one class per example"),
        ({"image": X, "label": Y}, None, r"write X\['image'\] and X\['label'\]"),
        (Rows, None, r"make an instance of it, Rows\(\.\.\.\)"),
        (torch.nn.Linear(2, 2), Y, "the model comes first"),
        (len, Y, "call it"),
        ("data.npz", Y, "load the file first"),
        (3, Y, "X must be a tensor, an array"),
    ],
)
def test_what_holds_no_examples_is_told_what_to_give(given, labels, message):
    with pytest.raises(TypeError, match=message):
        examples(given, labels)


def test_pictures_want_to_be_tensors_first():
    pictures = Rows(inputs=[Image.new("L", (2, 2))] * 5)
    with pytest.raises(TypeError, match=r"give the data set transform=torchvision"):
        examples(pictures).whole()
    with pytest.raises(TypeError, match="X must yield inputs that are tensors, got the string"):
        examples(Rows(inputs=["a"] * 5)).whole()


def test_one_label_says_that_there_is_one_example_with_an_axis_of_its_own_or_without():
    for inputs, shape in (
        (torch.rand(3), (1, 3)), (torch.rand(1, 3), (1, 3)), (torch.rand(2, 4, 4), (1, 2, 4, 4)),
        (torch.rand(1, 4, 4), (1, 1, 4, 4)), (torch.rand(1, 2, 4, 4), (1, 2, 4, 4)),
    ):  # fmt: skip
        for label in (1, np.int64(1), torch.tensor(1)):
            whole = examples(inputs, label).whole()
            assert whole.inputs.shape == shape
            assert whole.labels.tolist() == [1]


def test_classes_are_learned_where_that_is_asked_for():
    names = np.array(["b", "a", "b", "c", "a"])
    opened = examples(X, names, learn_classes=True)
    assert list(opened.spec.classes) == ["a", "b", "c"]
    assert opened.whole().labels.tolist() == [1, 0, 1, 2, 0]
    assert examples(X, Y).spec.classes is None
    assert examples(X, Y).shape == (5, 2)
    assert examples(Rows()).shape is None


def test_the_size_of_a_batch_is_the_loaders_or_that_of_the_first_it_yields():
    class Own:
        """Somebody's loader."""

        def __iter__(self):
            return iter([(X[:3], Y[:3]), (X[3:], Y[3:])])

    assert _batch_size(source_of(examples(DataLoader(Rows(), 2)), 7, 0)) == 2
    assert _batch_size(source_of(examples(Own()), 7, 0)) == 3
