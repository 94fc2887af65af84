"""One door for data: whatever is wrong with examples gets one sentence, whoever is given them."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    UndefendedClassifier,
    attacks,
    evaluate,
)
from distillguard.evaluation import robustness_curve

N, WIDTH = 24, 6
generator = torch.Generator().manual_seed(0)
X = torch.rand(N, WIDTH, generator=generator)
y = torch.arange(N) % 3


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Broken(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        raise OSError(f"image {index} cannot be read")


def loader(items, batch_size=1):
    return DataLoader(Items(items), batch_size)


def fitted():
    return UndefendedClassifier(nn.Linear(WIDTH, 3), max_epochs=1, random_state=0).fit(X, y)


def fit(*data):
    UndefendedClassifier(max_epochs=1, random_state=0).fit(*data)


def fit_robust(*data):
    AdversarialTrainer(max_epochs=1, steps=1, random_state=0).fit(*data)


def validate(*data):
    given = data if len(data) == 2 else data[0]
    UndefendedClassifier(max_epochs=1).fit(X, y, validation=given)


def predict(*data):
    fitted().predict(data[0])


def transfer(*data):
    DefensiveDistiller(max_epochs=1).fit(X, y, transfer=data[0])


def score(*data):
    fitted().score(*data)


def judge(*data):
    evaluate(fitted(), *data, epsilon=0.1, attacks="quick", diagnosis=None)


def draw(*data):
    robustness_curve(fitted(), *data, minimum_distance=attacks.deepfool, norm="l2")


LABELLED = {"fit": fit, "robust fit": fit_robust, "score": score, "evaluate": judge, "curve": draw}
UNLABELLED = {"predict": predict, "transfer": transfer}
ALL = LABELLED | UNLABELLED | {"validation": validate}
NAMES = {"transfer": "transfer", "validation": "validation"}
"""What the argument is called, where it is not X."""

spoilt = X.clone()
spoilt[-1, 0] = torch.nan
pictures = (torch.rand(N, 3, 4, 4) * 255).byte()
sizes = [(torch.rand(WIDTH + i % 2), i % 3) for i in range(8)]

ODD = {
    "triples": (
        lambda: (loader([(x, label, 0) for x, label in zip(X, y, strict=True)], 4),),
        LABELLED | {"validation": validate},
        "{X} must yield pairs (inputs, labels), got list of 3 items: Tensor (4, 6), Tensor (4,), "
        "Tensor (4,); write ((b[0], b[1]) for b in {X})",
    ),
    "dicts": (
        lambda: (loader([{"image": x, "label": int(n)} for x, n in zip(X, y, strict=True)], 4),),
        LABELLED | {"validation": validate},
        "{X} must yield pairs (inputs, labels), got dict with keys 'image', 'label'; write "
        "((b['image'], b['label']) for b in {X})",
    ),
    "mixed sizes": (
        lambda: (loader(sizes),),
        {name: call for name, call in ALL.items() if name != "validation"},
        "{X} must hold examples of one shape, got (6,) and (7,)",
    ),
    "empty array": (
        lambda: (X[:0], y[:0]),
        ALL,
        "{X} must hold at least one example, got none",
    ),
    "empty loader": (
        lambda: (DataLoader(TensorDataset(X[:0], y[:0]), 4),),
        ALL,
        "{X} must hold at least one example, got none",
    ),
    "empty generator": (
        lambda: ((pair for pair in ()),),
        ALL,
        "{X} must hold at least one example, got none",
    ),
    "NaN in an array": (
        lambda: (spoilt, y),
        ALL,
        "{X} must be finite, got NaN or infinity",
    ),
    "NaN in a loader": (
        lambda: (DataLoader(TensorDataset(spoilt, y), 5),),
        ALL,
        "{X} must be finite, got NaN or infinity",
    ),
    "byte images": (
        lambda: (pictures, y),
        ALL,
        "{X} must be floating point, got uint8 images; divide by 255, for instance {X} / 255.0",
    ),
    "complex numbers": (
        lambda: (X.numpy() * 1j, y),
        ALL,
        "{X} must hold real numbers, got complex64. Complex data not supported",
    ),
    "a single row": (
        lambda: (X[0].numpy(), None),
        UNLABELLED,
        "{X} must have shape (n, ...) with at least two axes, got (6,). Reshape your data; for "
        "one feature write torch.as_tensor({X})[:, None]",
    ),
    "strings": (
        lambda: (np.full((N, WIDTH), "a"), y),
        ALL,
        "{X} must hold numbers, got 'a'",
    ),
    "a loader that raises": (
        lambda: (DataLoader(Broken(), 4),),
        ALL,
        "image 0 cannot be read",
    ),
    "a class": (
        lambda: (TensorDataset, None),
        LABELLED | UNLABELLED,
        "{X} must be a tensor, an array, a pair (X, y), a Dataset, a DataLoader or batches "
        "(inputs, labels), got the class TensorDataset; make an instance of it, "
        "TensorDataset(...)",
    ),
    "a path": (
        lambda: ("digits.csv", None),
        LABELLED | UNLABELLED,
        "{X} must be a tensor, an array, a pair (X, y), a Dataset, a DataLoader or batches "
        "(inputs, labels), got the string 'digits.csv'; load the file first",
    ),
    "one label short": (
        lambda: (X, y[:-1]),
        LABELLED,
        "y must have one label for each of 24 inputs, got 23",
    ),
    "labels beside a loader": (
        lambda: (DataLoader(TensorDataset(X, y), 4), y),
        LABELLED,
        "y must be None when {X} yields pairs (inputs, labels), got Tensor of shape (24,)",
    ),
}
CASES = [(kind, call) for kind, (_, calls, _) in ODD.items() for call in calls]


@pytest.mark.parametrize(("kind", "call"), CASES)
def test_odd_data_gets_one_sentence_wherever_it_is_given(kind, call):
    data, _, sentence = ODD[kind]
    expected = sentence.replace("{X}", NAMES.get(call, "X"))
    with pytest.raises((TypeError, ValueError, OSError)) as caught:
        ALL[call](*data())
    first = str(caught.value).splitlines()[0]
    if call == "validation" and "[" in first:
        # A pair's parts are written as code: validation[0].
        first = re.sub(r"validation\[\d\]", "validation", first)
    assert first == expected


@pytest.mark.parametrize("call", ["fit", "robust fit"])
@pytest.mark.parametrize(
    "data",
    [
        (X, torch.zeros(N)),
        (TensorDataset(X, torch.zeros(N, dtype=torch.int64)),),
        (DataLoader(Items([(x, 0) for x in X]), 5),),
    ],
    ids=["arrays", "data set", "loader"],
)
def test_one_class_is_nothing_to_learn_from(call, data):
    with pytest.raises(ValueError, match=r"^y must hold at least two classes, got one class: 0"):
        ALL[call](*data)


SAME = {
    "arrays": lambda: (X.numpy(), y.numpy()),
    "tensors": lambda: (X, y),
    "pair": lambda: ((X, y),),
    "lists": lambda: (X.tolist(), y.tolist()),
    "data set": lambda: (TensorDataset(X, y),),
    "other data set": lambda: (Items([(x, int(n)) for x, n in zip(X, y, strict=True)]),),
    "loader": lambda: (DataLoader(TensorDataset(X, y), 5),),
    "list of batches": lambda: (list(zip(X.split(5), y.split(5), strict=True)),),
    "generator": lambda: (((a, b) for a, b in zip(X.split(5), y.split(5), strict=True)),),
    "examples": lambda: (list(zip(X, y, strict=True)),),
}


@pytest.mark.parametrize("form", SAME)
def test_whatever_holds_examples_is_fitted_scored_predicted_and_evaluated(form):
    make = SAME[form]
    settings = {"module": nn.Linear(WIDTH, 3), "max_epochs": 2, "random_state": 0}
    model = UndefendedClassifier(**settings).fit(*make())
    AdversarialTrainer(**settings, steps=1).fit(*make())
    by_hand = fitted()
    accuracy = float((by_hand.predict(X) == y.numpy()).mean())
    assert by_hand.score(*make()) == pytest.approx(accuracy)
    np.testing.assert_array_equal(by_hand.predict(make()[0]), by_hand.predict(X))
    report = evaluate(by_hand, *make(), epsilon=0.01, attacks="quick", diagnosis=None)
    assert report.clean_accuracy == pytest.approx(accuracy)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.input_shape_ == (WIDTH,)
    UndefendedClassifier(**settings).fit(X, y, validation=make()[0] if len(make()) == 1 else make())


def test_a_refused_fit_has_written_nothing():
    model = fitted()
    before = dict(vars(model))
    for data in ((X[:0], y[:0]), (spoilt, y), (X, torch.zeros(N)), (loader(sizes),)):
        with pytest.raises(ValueError, match="must"):
            model.fit(*data)
        assert vars(model) == before
    fresh = UndefendedClassifier()
    with pytest.raises(ValueError, match="at least one example"):
        fresh.fit(X[:0], y[:0])
    assert not [name for name in vars(fresh) if name.endswith("_")]
