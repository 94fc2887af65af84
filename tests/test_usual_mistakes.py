"""The usual mistakes, and the sentence that each of them gets, word for word."""

import dataclasses
import inspect
import re
import types
from collections import namedtuple
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from distillguard import UndefendedClassifier, attacks, evaluate, networks
from distillguard._data import examples
from distillguard.evaluation import (
    confidence_histogram,
    gradient_histogram,
    robustness_curve,
    transfer_matrix,
)
from distillguard.evaluation._model import resolve_model
from distillguard.evaluation._query import logits_of

N_CLASSES = 5
torch.manual_seed(0)
X = torch.rand(12, 3, 8, 8)
GRAY = torch.rand(12, 1, 8, 8)


def flattened(channels: int) -> nn.Module:
    """A convolution, and as many features as an image of 8x8 leaves."""
    return nn.Sequential(nn.Conv2d(channels, 2, 3), nn.Flatten(), nn.Linear(72, N_CLASSES))


NET, GRAY_NET, FLAT = flattened(3), flattened(1), nn.Linear(64, N_CLASSES)
BINARY = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
y = torch.arange(12) % N_CLASSES
PAIRS = [(X[:7], y[:7]), (X[7:], y[7:])]
NAMES = np.array(["cat", "dog", "elk", "fox", "gnu"])
MEAN, STD = 0.2860, 0.3530


class Images(Dataset):
    """Pairs of an image and whatever ``target`` makes of its label."""

    def __init__(self, images, target=lambda label: label):
        self.images, self.target = images, target

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.target(int(y[index]))


class Stream(IterableDataset):
    def __iter__(self):
        return (Images(X)[index] for index in range(12))


class Batches:
    """A loader of somebody's own."""

    def __iter__(self):
        return iter(PAIRS)


def reversed_in_memory(array):
    """The same values over memory that runs backwards."""
    return np.ascontiguousarray(array[::-1])[::-1]


class Ours(nn.Module):
    """A network that returns what ``pack`` makes of its logits."""

    def __init__(self, pack):
        super().__init__()
        self.net, self.pack = NET, pack

    def forward(self, inputs):
        return self.pack(self.net(inputs))


@dataclasses.dataclass
class ModelOutput:
    logits: torch.Tensor
    hidden: None = None


Outputs = namedtuple("Outputs", "logits aux")


class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()


def build() -> nn.Module:
    return NET


class Builder:
    def built(self) -> nn.Module:
        return NET


def make_unannotated(inputs):
    return NET


def unchanged(model, inputs, labels):
    return inputs


PICTURES = [Image.new("RGB", (8, 8))] * 12
FITTED = UndefendedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), max_epochs=1)
FITTED = FITTED.fit(X, y)
NAMED = types.SimpleNamespace(model_=NET, classes_=NAMES)
TABLE = X.flatten(1).numpy()


def ask(model=NET, X=X, y=y, epsilon=0.1, attacks=None, **settings):
    """Evaluate with an attack that does nothing."""
    return evaluate(model, X, y, epsilon=epsilon, attacks={"none": unchanged}, **settings)


def stream(*batches):
    return ask(X=iter(batches), y=None)


def mistake(name, call, error, message, instead=None):
    """A row: what is called, what it gets, and what the sentence says to write instead."""
    return pytest.param(call, error, message, instead, id=name)


NO_KINDS = (
    "X must be a tensor, an array, a pair (X, y), a Dataset, a DataLoader or "
    "batches (inputs, labels), got "
)
NO_LAYOUT = "X must hold examples in the layout of the model, got shape "
NO_MODEL = "model must be a module or a callable from inputs to logits, got "
NO_SHAPE = "model must return logits of shape (12, n_classes) with at least two classes, got "
NO_TENSOR = "model must return a torch.Tensor of logits, got "
NO_PAIRS = "X must yield pairs (inputs, labels), got "
NO_CLASS = "y must hold one class per example, shape (n,), got shape "
BYTES = "X must be floating point, got uint8 images; divide by 255, for instance "
NO_BOUNDS = "X must be within bounds (0.0, 1.0), got values in "

MISTAKES = [
    # What is no data at all.
    mistake("none as X", lambda: ask(X=None), TypeError, NO_KINDS + "None"),
    mistake("a number as X", lambda: ask(X=3), TypeError, NO_KINDS + "3"),
    mistake(
        "the name of a file",
        lambda: ask(X="digits.npz"),
        TypeError,
        NO_KINDS + "the string 'digits.npz'; load the file first",
    ),
    mistake(
        "a path",
        lambda: ask(X=Path("digits.npz")),
        TypeError,
        NO_KINDS + "PosixPath; load the file first",
    ),
    mistake(
        "a bunch of scikit-learn",
        lambda: ask(X={"data": X, "target": y}, y=None),
        TypeError,
        NO_KINDS + "dict with keys 'data', 'target'; write X['data'] and X['target']",
        lambda: ask(X=X, y=y),
    ),
    mistake(
        "a batch with names",
        lambda: ask(X={"image": X, "label": y}, y=None),
        TypeError,
        NO_KINDS + "dict with keys 'image', 'label'; write X['image'] and X['label']",
    ),
    mistake(
        "a dict of something else",
        lambda: ask(X={"train": X, "test": X}),
        TypeError,
        NO_KINDS + "dict with keys 'train', 'test'",
    ),
    mistake(
        "the class of a data set",
        lambda: ask(X=Images, y=None),
        TypeError,
        NO_KINDS + "the class Images; make an instance of it, Images(...)",
    ),
    mistake(
        "a function that makes a loader",
        lambda: ask(X=build, y=None),
        TypeError,
        NO_KINDS + "the function build; call it",
    ),
    mistake(
        "the model second",
        lambda: evaluate(X, NET, y, epsilon=0.1),
        TypeError,
        NO_MODEL + "Tensor of shape (12, 3, 8, 8); the model comes first, then X and y",
    ),
    mistake(
        "the model twice",
        lambda: ask(X=NET),
        TypeError,
        NO_KINDS + "Sequential; the model comes first",
    ),
    mistake(
        "weights as a third",
        lambda: ask(X=(X, y, torch.ones(12)), y=None),
        TypeError,
        NO_KINDS
        + ("tuple of 3 items: Tensor (12, 3, 8, 8), Tensor (12,), Tensor (12,); write X[:2]"),
    ),
    mistake(
        "an empty list",
        lambda: ask(X=[], y=[]),
        ValueError,
        "X must hold at least one example, got none",
    ),
    mistake(
        "an empty tensor",
        lambda: ask(X=X[:0], y=y[:0]),
        ValueError,
        "X must hold at least one example, got none",
    ),
    mistake(
        "an empty generator",
        lambda: stream(),
        ValueError,
        "X must hold at least one example, got none",
    ),
    mistake(
        "an empty data set",
        lambda: ask(X=Images(X[:0]), y=None),
        ValueError,
        "X must hold at least one example, got none",
    ),
    mistake(
        "an empty loader",
        lambda: ask(X=DataLoader([], batch_size=None), y=None),
        ValueError,
        "X must hold at least one example, got none",
    ),
    mistake(
        "empty batches",
        lambda: stream((X[:0], y[:0])),
        ValueError,
        "X must hold at least one example, got none",
    ),
    # Values.
    mistake(
        "bytes",
        lambda: ask(X=(X * 255).byte()),
        TypeError,
        BYTES + "X / 255.0",
        lambda: ask(X=(X * 255).byte() / 255),
    ),
    mistake(
        "bytes in an array",
        lambda: ask(X=(X * 255).byte().numpy()),
        TypeError,
        BYTES + "X / 255.0",
        lambda: ask(X=(X * 255).byte().numpy() / 255),
    ),
    mistake(
        "bytes in nested lists",
        lambda: ask(X=(X * 255).byte().tolist()),
        ValueError,
        NO_BOUNDS + "[0, 254]; for images stored as 0 to 255 write np.asarray(X) / 255",
        lambda: ask(X=np.asarray((X * 255).byte().tolist()) / 255),
    ),
    mistake(
        "integers up to 255",
        lambda: ask(X=(X * 255).long()),
        ValueError,
        NO_BOUNDS + "[0, 254]; for images stored as 0 to 255 write X / 255",
    ),
    mistake(
        "floats up to 255",
        lambda: ask(X=X.round() * 255),
        ValueError,
        NO_BOUNDS + "[0, 255]; for images stored as 0 to 255 write X / 255",
        lambda: ask(X=X.round() * 255 / 255),
    ),
    mistake(
        "bytes in a pair",
        lambda: ask(X=((X * 255).byte(), y), y=None),
        TypeError,
        BYTES + "X[0] / 255.0",
    ),
    mistake(
        "bytes in a loader",
        lambda: ask(X=DataLoader(Images((X * 255).byte()), 5), y=None),
        TypeError,
        BYTES + "((x / 255.0, y) for x, y in X)",
        lambda: ask(X=((x / 255, y) for x, y in DataLoader(Images((X * 255).byte()), 5)), y=None),
    ),
    mistake(
        "bytes in a TensorDataset",
        lambda: ask(X=TensorDataset((X * 255).byte(), y), y=None),
        TypeError,
        BYTES + "X.tensors[0] / 255.0",
    ),
    mistake("beyond 255", lambda: ask(X=X.round() * 1000), ValueError, NO_BOUNDS + "[0, 1000]"),
    mistake(
        "normalised",
        lambda: ask(X=(X.round() - MEAN) / STD),
        ValueError,
        NO_BOUNDS
        + (
            "[-0.81019837, 2.0226629]; if they are normalised by mean and standard "
            "deviation, pass raw inputs and networks.Normalized(model, mean, std), or "
            "bounds=((0 - mean) / std, (1 - mean) / std)"
        ),
        lambda: ask(networks.Normalized(NET, MEAN, STD)),
    ),
    mistake(
        "normalised to plus and minus one",
        lambda: ask(X=X.round() * 2 - 1),
        ValueError,
        NO_BOUNDS
        + (
            "[-1, 1]; if they are normalised by mean and standard deviation, pass raw "
            "inputs and networks.Normalized(model, mean, std), or bounds=((0 - mean) / std,"
            " (1 - mean) / std)"
        ),
        lambda: ask(X=X.round() * 2 - 1, bounds=((0 - 0.5) / 0.5, (1 - 0.5) / 0.5)),
    ),
    mistake(
        "normalised with six digits of the extremes",
        lambda: ask(X=(X.round() - MEAN) / STD, bounds=(-0.810198, 2.02266)),
        ValueError,
        "X must be within bounds (-0.810198, 2.02266), got values in [-0.81019837, 2.0226629]",
        lambda: ask(X=(X.round() - MEAN) / STD, bounds=(-0.81019837, 2.0226629)),
    ),
    mistake(
        "bounds of each channel",
        lambda: ask(
            X=X.round(), bounds=(torch.zeros(3, 1, 1), torch.tensor([1, 0.5, 1]).view(3, 1, 1))
        ),
        ValueError,
        "X must be within bounds, got 1 at [0, 1, 0, 0], where bounds are [0, 0.5]",
    ),
    mistake(
        "NaN",
        lambda: ask(X=torch.where(X > 0.9, torch.nan, X)),
        ValueError,
        "X must be finite, got NaN or infinity",
    ),
    mistake(
        "infinity",
        lambda: ask(X=torch.where(X > 0.9, torch.inf, X)),
        ValueError,
        "X must be finite, got NaN or infinity",
    ),
    mistake(
        "NaN in a late batch",
        lambda: stream(*PAIRS, (X * torch.nan, y)),
        ValueError,
        "X must be finite, got NaN or infinity",
    ),
    mistake(
        "complex numbers",
        lambda: ask(X=X.to(torch.complex64)),
        ValueError,
        "X must hold real numbers, got torch.complex64. Complex data not supported",
    ),
    mistake(
        "strings",
        lambda: ask(BINARY, X=[["red", "round"]] * 12),
        TypeError,
        "X must hold numbers, got 'red'",
    ),
    mistake(
        "a table with a column of names",
        lambda: ask(
            FLAT, X=pd.DataFrame({"age": [0.5] * 12, "town": pd.Series(["Ulm"] * 12, dtype=object)})
        ),
        TypeError,
        "X must hold numbers, got column 'town' of dtype object; drop it or encode it as numbers",
    ),
    mistake(
        "a table with dates",
        lambda: ask(FLAT, X=np.array([["2024-01-01"]] * 12, dtype="M8[D]")),
        TypeError,
        "X must hold numbers, got dtype datetime64[D]",
    ),
    mistake(
        "images of different sizes",
        lambda: ask(X=[X[0], X[1, :, :7]], y=[0, 1]),
        ValueError,
        "X must hold examples of one shape, got (3, 7, 8) and (3, 8, 8)",
    ),
    mistake(
        "images of different sizes in a generator",
        lambda: stream((X, y), (X[:, :, :7], y)),
        ValueError,
        "X must hold examples of one shape, got (3, 8, 8) and (3, 7, 8)",
    ),
    mistake(
        "rows of different lengths",
        lambda: ask(FLAT, X=[[0.5, 0.5], [0.5]], y=[0, 1]),
        ValueError,
        "X must hold examples of one shape, got rows of different lengths",
    ),
    mistake(
        "a sparse matrix",
        lambda: ask(X=scipy.sparse.csr_array(TABLE)),
        TypeError,
        "X must be dense, got a sparse csr_array; write X.toarray()",
    ),
    mistake(
        "a sparse tensor",
        lambda: ask(X=X.to_sparse()),
        TypeError,
        "X must be dense, got a sparse tensor; write X.to_dense()",
        lambda: ask(X=X.to_sparse().to_dense()),
    ),
    # Layouts.
    mistake(
        "channels last",
        lambda: ask(X=X.permute(0, 2, 3, 1)),
        ValueError,
        NO_LAYOUT + "(12, 8, 8, 3) in torch.float32; write X.permute(0, 3, 1, 2)",
        lambda: ask(X=X.permute(0, 2, 3, 1).permute(0, 3, 1, 2)),
    ),
    mistake(
        "channels last in an array",
        lambda: ask(X=X.permute(0, 2, 3, 1).numpy()),
        ValueError,
        NO_LAYOUT + "(12, 8, 8, 3) in torch.float32; write torch.as_tensor(X).permute(0, 3, 1, 2)",
        lambda: ask(X=torch.as_tensor(X.permute(0, 2, 3, 1).numpy()).permute(0, 3, 1, 2)),
    ),
    mistake(
        "channels last in a loader",
        lambda: ask(X=DataLoader(Images(X.permute(0, 2, 3, 1)), 5), y=None),
        ValueError,
        NO_LAYOUT
        + ("(12, 8, 8, 3) in torch.float32; write ((x.permute(0, 3, 1, 2), y) for x, y in X)"),
        lambda: ask(
            X=((x.permute(0, 3, 1, 2), y) for x, y in DataLoader(Images(X.permute(0, 2, 3, 1)), 5)),
            y=None,
        ),
    ),
    mistake(
        "channels first for a model that takes them last",
        lambda: ask(lambda x: NET(x.permute(0, 3, 1, 2))),
        ValueError,
        NO_LAYOUT + "(12, 3, 8, 8) in torch.float32; write X.permute(0, 2, 3, 1)",
        lambda: ask(lambda x: NET(x.permute(0, 3, 1, 2)), X=X.permute(0, 2, 3, 1)),
    ),
    mistake(
        "no axis of channels",
        lambda: ask(GRAY_NET, X=GRAY[:, 0]),
        ValueError,
        NO_LAYOUT + "(12, 8, 8) in torch.float32; write X[:, None]",
        lambda: ask(GRAY_NET, X=GRAY[:, 0][:, None]),
    ),
    mistake(
        "no axis of channels for a model of colours",
        lambda: ask(X=GRAY[:, 0]),
        ValueError,
        NO_LAYOUT + "(12, 8, 8) in torch.float32; write X[:, None].expand(-1, 3, -1, -1)",
        lambda: ask(X=GRAY[:, 0][:, None].expand(-1, 3, -1, -1)),
    ),
    mistake(
        "gray images for a model of colours",
        lambda: ask(X=GRAY),
        ValueError,
        NO_LAYOUT + "(12, 1, 8, 8) in torch.float32; write X.expand(-1, 3, -1, -1)",
        lambda: ask(X=GRAY.expand(-1, 3, -1, -1)),
    ),
    mistake(
        "colours for a model of gray images",
        lambda: ask(GRAY_NET),
        ValueError,
        NO_LAYOUT + "(12, 3, 8, 8) in torch.float32; write X.mean(1, keepdim=True)",
        lambda: ask(GRAY_NET, X=X.mean(1, keepdim=True)),
    ),
    mistake(
        "rows of pixels",
        lambda: ask(GRAY_NET, X=GRAY.flatten(1)),
        ValueError,
        NO_LAYOUT + "(12, 64) in torch.float32; write X.reshape(-1, 1, 8, 8)",
        lambda: ask(GRAY_NET, X=GRAY.flatten(1).reshape(-1, 1, 8, 8)),
    ),
    mistake(
        "rows of pixels in three colours",
        lambda: ask(X=TABLE),
        ValueError,
        NO_LAYOUT + "(12, 192) in torch.float32; write torch.as_tensor(X).reshape(-1, 3, 8, 8)",
        lambda: ask(X=torch.as_tensor(TABLE).reshape(-1, 3, 8, 8)),
    ),
    mistake(
        "images for a model of rows",
        lambda: ask(FLAT, X=GRAY),
        ValueError,
        NO_LAYOUT + "(12, 1, 8, 8) in torch.float32; write X.flatten(1)",
        lambda: ask(FLAT, X=GRAY.flatten(1)),
    ),
    mistake(
        "double precision for a function of single",
        lambda: ask(lambda x: NET(x), X=X.double()),
        ValueError,
        NO_LAYOUT + "(12, 3, 8, 8) in torch.float64; write X.float()",
        lambda: ask(lambda x: NET(x), X=X.double().float()),
    ),
    mistake(
        "one image with a list of its label",
        lambda: ask(X=X[0], y=[3]),
        ValueError,
        "y must have one label for each of 3 inputs, got 1; for one example write X[None]",
        lambda: ask(X=X[0][None], y=[3]),
    ),
    mistake(
        "a table with one label",
        lambda: ask(FLAT, X=GRAY.flatten(1), y=3),
        ValueError,
        "y must have one label for each of 12 inputs, got one label, 3; for one example"
        " write X[None]",
    ),
    mistake(
        "one feature",
        lambda: ask(nn.Linear(1, 5), X=X[:, 0, 0, 0]),
        ValueError,
        "X must have shape (n, ...) with at least two axes, got (12,). Reshape your data; for "
        "one feature write X[:, None]",
        lambda: ask(nn.Linear(1, 5), X=X[:, 0, 0, 0][:, None]),
    ),
    # Loaders, data sets, generators.
    mistake(
        "a loader of three",
        lambda: ask(X=DataLoader(TensorDataset(X, y, y)), y=None),
        TypeError,
        NO_PAIRS
        + (
            "list of 3 items: Tensor (1, 3, 8, 8), Tensor (1,), Tensor (1,); write ((b[0], "
            "b[1]) for b in X)"
        ),
        lambda: ask(X=((b[0], b[1]) for b in DataLoader(TensorDataset(X, y, y))), y=None),
    ),
    mistake(
        "a TensorDataset of three",
        lambda: ask(X=TensorDataset(X, y, y), y=None),
        TypeError,
        NO_PAIRS
        + (
            "tuple of 3 items: Tensor (12, 3, 8, 8), Tensor (12,), Tensor (12,); write "
            "((b[0], b[1]) for b in X)"
        ),
    ),
    mistake(
        "batches with names",
        lambda: stream({"pixel_values": X, "labels": y}),
        TypeError,
        NO_PAIRS
        + (
            "dict with keys 'pixel_values', 'labels'; write ((b['pixel_values'], "
            "b['labels']) for b in X)"
        ),
        lambda: ask(
            X=((b["pixel_values"], b["labels"]) for b in [{"pixel_values": X, "labels": y}]), y=None
        ),
    ),
    mistake(
        "batches with other names",
        lambda: stream({"scan": X, "finding": y}),
        TypeError,
        NO_PAIRS + "dict with keys 'scan', 'finding'",
    ),
    mistake(
        "a list of batches with names",
        lambda: ask(X=[{"image": X, "label": y}], y=None),
        TypeError,
        NO_PAIRS + "dict with keys 'image', 'label'; write ((b['image'], b['label']) for b in X)",
    ),
    mistake(
        "a loader without labels",
        lambda: ask(X=DataLoader(X, 5), y=None),
        TypeError,
        NO_PAIRS + "Tensor of shape (5, 3, 8, 8); labels are missing",
    ),
    mistake(
        "a loader of TensorDataset without labels",
        lambda: ask(X=DataLoader(TensorDataset(X), 5), y=None),
        TypeError,
        NO_PAIRS + "list of 1 item: Tensor (5, 3, 8, 8); labels are missing",
    ),
    mistake(
        "a TensorDataset without labels",
        lambda: ask(X=TensorDataset(X), y=None),
        TypeError,
        NO_PAIRS + "tuple of 1 item: Tensor (12, 3, 8, 8); labels are missing",
    ),
    mistake(
        "enumerate",
        lambda: ask(X=enumerate(DataLoader(TensorDataset(X, y), 5)), y=None),
        TypeError,
        NO_PAIRS + "tuple of 2 items: int, list; leave out enumerate",
        lambda: ask(X=DataLoader(TensorDataset(X, y), 5), y=None),
    ),
    mistake(
        "pictures",
        lambda: ask(X=Images(PICTURES), y=None),
        TypeError,
        "X must yield inputs that are tensors, got Image; give the data set "
        "transform=torchvision.transforms.ToTensor()",
    ),
    mistake(
        "a list of pictures with labels",
        lambda: ask(X=[(picture, 3) for picture in PICTURES], y=None),
        TypeError,
        "X must yield inputs that are tensors, got Image; give the data set "
        "transform=torchvision.transforms.ToTensor()",
    ),
    mistake(
        "labels beside a loader",
        lambda: ask(X=DataLoader(TensorDataset(X, y))),
        TypeError,
        "y must be None when X yields pairs (inputs, labels), got Tensor of shape (12,)",
    ),
    mistake(
        "labels beside a data set",
        lambda: ask(X=Images(X)),
        TypeError,
        "y must be None when X yields pairs (inputs, labels), got Tensor of shape (12,)",
    ),
    mistake(
        "labels beside a TensorDataset",
        lambda: ask(X=TensorDataset(X, y)),
        TypeError,
        "y must be None when X yields pairs (inputs, labels), got Tensor of shape (12,)",
    ),
    mistake(
        "labels beside batches",
        lambda: ask(X=PAIRS),
        TypeError,
        "y must be None when X yields pairs (inputs, labels), got Tensor of shape (12,)",
    ),
    mistake(
        "labels as a list beside a generator",
        lambda: ask(X=iter(PAIRS), y=[0, 1]),
        TypeError,
        "y must be None when X yields pairs (inputs, labels), got list of 2 items: int, int",
    ),
    mistake(
        "fewer labels than inputs in a batch",
        lambda: stream((X, y[:5])),
        ValueError,
        "X must yield one label per input, got 12 inputs and 5 labels",
    ),
    mistake(
        "two inputs to a batch",
        lambda: stream(((X, X), y)),
        TypeError,
        "X must yield inputs that are tensors, got tuple of 2 items: Tensor (12, 3, 8, "
        "8), Tensor (12, 3, 8, 8)",
    ),
    mistake(
        "inputs with names",
        lambda: stream(({"image": X}, y)),
        TypeError,
        "X must yield pairs (inputs, labels) with one tensor of inputs, got dict with keys 'image'",
    ),
    mistake(
        "boxes for labels",
        lambda: ask(X=Images(X, lambda label: {"boxes": [], "labels": [label]}), y=None),
        TypeError,
        "labels in X must hold integer classes, got dict with keys 'boxes', 'labels'",
    ),
    mistake(
        "classes one-hot in a data set",
        lambda: ask(
            X=Images(X, lambda label: nn.functional.one_hot(torch.tensor(label), 5)), y=None
        ),
        ValueError,
        "labels in X must be one class per example, got shape (5,); if they are "
        "one-hot, write ((x, y.argmax()) for x, y in X)",
    ),
    mistake(
        "classes one-hot in a loader",
        lambda: stream((X, nn.functional.one_hot(y))),
        ValueError,
        "labels in X must hold one class per example, shape (n,), got shape (12, 5); "
        "write ((x, y.argmax(1)) for x, y in X)",
        lambda: ask(X=((x, y.argmax(1)) for x, y in [(X, nn.functional.one_hot(y))]), y=None),
    ),
    mistake(
        "names in a data set",
        lambda: ask(X=Images(X, lambda label: str(NAMES[label])), y=None),
        TypeError,
        "labels in X must hold integer classes, got 'cat'; a network numbers its "
        "classes: yield the number of each, in the order of its outputs",
    ),
    mistake(
        "classes from 1 in a loader",
        lambda: stream((X, y + 1)),
        ValueError,
        "labels in X must be classes from 0 to 4, got values in [1, 5]; if they count "
        "from 1, write ((x, y - 1) for x, y in X)",
        lambda: ask(X=((x, y - 1) for x, y in [(X, y + 1)]), y=None),
    ),
    mistake(
        "classes beyond the model in a data set",
        lambda: ask(X=Images(X, lambda label: label + 5), y=None),
        ValueError,
        "labels in X must be classes from 0 to 4, got values in [5, 9]",
    ),
    mistake(
        "numbers one by one", lambda: ask(X=iter([0.5, 0.5]), y=None), TypeError, NO_PAIRS + "0.5"
    ),
    mistake("a set", lambda: ask(X={0.25, 0.5}, y=None), TypeError, NO_PAIRS + "0.25"),
    # Labels.
    mistake(
        "no labels",
        lambda: ask(y=None),
        TypeError,
        "y must be given when X is an array or a tensor, got None",
    ),
    mistake(
        "no labels beside a list",
        lambda: ask(X=[X[0], X[1]], y=None),
        TypeError,
        "y must be given when X is an array or a tensor, got None",
    ),
    mistake(
        "too few labels",
        lambda: ask(y=y[:11]),
        ValueError,
        "y must have one label for each of 12 inputs, got 11",
    ),
    mistake(
        "too many labels",
        lambda: ask(X=X[:4]),
        ValueError,
        "y must have one label for each of 4 inputs, got 12",
    ),
    mistake(
        "labels for batches",
        lambda: ask(X=X[:7], y=[y[:4], y[4:7]]),
        ValueError,
        "y must hold one class per example, got rows of different lengths; write np.concatenate(y)",
    ),
    mistake(
        "one label for many",
        lambda: ask(y=3),
        ValueError,
        "y must have one label for each of 12 inputs, got one label, 3; for one example"
        " write X[None]",
    ),
    mistake(
        "one-hot",
        lambda: ask(y=nn.functional.one_hot(y)),
        ValueError,
        NO_CLASS + "(12, 5); write y.argmax(1)",
        lambda: ask(y=nn.functional.one_hot(y).argmax(1)),
    ),
    mistake(
        "one-hot in an array",
        lambda: ask(y=np.eye(5)[y]),
        ValueError,
        NO_CLASS + "(12, 5); write y.argmax(1)",
        lambda: ask(y=np.eye(5)[y].argmax(1)),
    ),
    mistake(
        "one-hot in a list",
        lambda: ask(y=np.eye(5)[y].tolist()),
        ValueError,
        NO_CLASS + "(12, 5); write np.asarray(y).argmax(1)",
        lambda: ask(y=np.asarray(np.eye(5)[y].tolist()).argmax(1)),
    ),
    mistake(
        "one-hot in a table",
        lambda: ask(y=pd.get_dummies(y.numpy())),
        ValueError,
        NO_CLASS + "(12, 5); write y.argmax(1)",
        lambda: ask(y=np.asarray(pd.get_dummies(y.numpy())).argmax(1)),
    ),
    mistake(
        "a row of labels",
        lambda: ask(y=y[None]),
        ValueError,
        NO_CLASS + "(1, 12); write y.reshape(-1)",
        lambda: ask(y=y[None].reshape(-1)),
    ),
    mistake(
        "a mask for labels", lambda: ask(y=X[:, 0].long()), ValueError, NO_CLASS + "(12, 8, 8)"
    ),
    mistake(
        "soft labels",
        lambda: ask(y=NET(X).softmax(1)),
        ValueError,
        NO_CLASS + "(12, 5); write y.argmax(1)",
    ),
    mistake("fractions", lambda: ask(y=y / 2), TypeError, "y must hold integer classes, got 0.5"),
    mistake(
        "NaN for a label",
        lambda: ask(y=torch.where(y > 3, torch.nan, y)),
        TypeError,
        "y must hold integer classes, got nan",
    ),
    mistake(
        "None for a label",
        lambda: ask(y=[None, *y[1:].tolist()]),
        TypeError,
        "y must hold integer classes, got None",
    ),
    mistake(
        "names",
        lambda: ask(y=NAMES[y]),
        TypeError,
        "y must hold integer classes, got 'cat'; a network numbers its classes: write "
        "[classes.index(name) for name in y], with classes in the order of its outputs",
        lambda: ask(y=np.unique(NAMES[y], return_inverse=True)[1]),
    ),
    mistake(
        "names in a series",
        lambda: ask(y=pd.Series(NAMES[y])),
        TypeError,
        "y must hold integer classes, got 'cat'; a network numbers its classes: write "
        "[classes.index(name) for name in y], with classes in the order of its outputs",
    ),
    mistake(
        "names and digits as text",
        lambda: ask(y=["cat", *(str(label) for label in y[1:].tolist())]),
        TypeError,
        "y must hold integer classes, got 'cat'; a network numbers its classes: write "
        "[classes.index(name) for name in y], with classes in the order of its outputs",
    ),
    mistake(
        "digits as text",
        lambda: ask(y=[str(label) for label in y.tolist()]),
        TypeError,
        "y must hold integer classes, got '0'; write np.asarray(y).astype(int)",
        lambda: ask(y=np.asarray([str(label) for label in y.tolist()], dtype=int)),
    ),
    mistake(
        "classes from 1",
        lambda: ask(y=y + 1),
        ValueError,
        "y must be classes from 0 to 4, got values in [1, 5]; if they count from 1, write y - 1",
        lambda: ask(y=y + 1 - 1),
    ),
    mistake(
        "classes from 1 in a list",
        lambda: ask(y=(y + 1).tolist()),
        ValueError,
        "y must be classes from 0 to 4, got values in [1, 5]; if they count from 1, "
        "write np.asarray(y) - 1",
        lambda: ask(y=np.asarray((y + 1).tolist()) - 1),
    ),
    mistake(
        "minus and plus one",
        lambda: ask(BINARY, y=y % 2 * 2 - 1),
        ValueError,
        "y must be classes from 0 to 1, got values in [-1, 1]; write (y + 1) // 2",
        lambda: ask(BINARY, y=(y % 2 * 2 - 1 + 1) // 2),
    ),
    mistake(
        "minus one for unlabelled",
        lambda: ask(y=y - 1),
        ValueError,
        "y must be classes from 0 to 4, got values in [-1, 3]; if -1 marks examples "
        "without a class, leave those out",
    ),
    mistake(
        "classes beyond the model",
        lambda: ask(y=y * 20),
        ValueError,
        "y must be classes from 0 to 4, got values in [0, 80]",
    ),
    mistake(
        "a dict of labels",
        lambda: ask(y={"label": y}),
        TypeError,
        "y must hold one class per example, got dict with keys 'label'",
    ),
    mistake(
        "a loader of labels",
        lambda: ask(y=DataLoader(y)),
        TypeError,
        "y must hold one class per example, got DataLoader",
    ),
    mistake(
        "a generator of labels",
        lambda: ask(y=(int(label) for label in y)),
        TypeError,
        "y must hold one class per example, got generator",
    ),
    mistake(
        "inputs and labels exchanged",
        lambda: ask(X=y, y=X),
        ValueError,
        "X must hold inputs and y classes, got shapes (12,) and (12, 3, 8, 8); exchange the two",
        lambda: ask(X=X, y=y),
    ),
    mistake(
        "a single feature without its axis, and a list of labels",
        lambda: UndefendedClassifier(max_epochs=1).fit(TABLE[:, 0], y.tolist()),
        ValueError,
        "X must have shape (n, ...) with at least two axes, got (12,). Reshape your data; "
        "for one feature write torch.as_tensor(X)[:, None]",
        lambda: UndefendedClassifier(max_epochs=1).fit(
            torch.as_tensor(TABLE[:, 0])[:, None], y.tolist()
        ),
    ),
    mistake(
        "ragged labels",
        lambda: ask(X=X[:2], y=[[0], [1, 2]]),
        ValueError,
        "y must hold one class per example, got rows of different lengths",
    ),
    mistake(
        "dates",
        lambda: ask(y=np.array(["2024-01-01"] * 12, dtype="M8[D]")),
        TypeError,
        "y must hold integer classes, got date",
    ),
    mistake(
        "complex labels",
        lambda: ask(y=y.to(torch.complex64)),
        TypeError,
        "y must hold integer classes, got 0j",
    ),
    mistake(
        "sparse labels",
        lambda: ask(y=scipy.sparse.csr_array(np.eye(5)[y])),
        TypeError,
        "y must be dense, got csr_array; write y.toarray()",
    ),
    mistake(
        "a class that the estimator does not know",
        lambda: ask(NAMED, y=["cat"] * 11 + ["emu"]),
        ValueError,
        "y must hold known classes, got 'emu'; known are 'cat', 'dog', 'elk', 'fox', 'gnu'",
    ),
    mistake(
        "numbers for an estimator that knows names",
        lambda: ask(NAMED),
        ValueError,
        "y must hold known classes, got 0; known are 'cat', 'dog', 'elk', 'fox', 'gnu'",
    ),
    mistake(
        "names for an estimator that knows numbers",
        lambda: ask(FITTED, y=NAMES[y]),
        ValueError,
        "y must hold known classes, got 'cat'; known are 0, 1, 2, 3, 4",
    ),
    mistake(
        "a network for the labels",
        lambda: ask(y=NET),
        TypeError,
        "y must hold one class per example, got Sequential",
    ),
    # Models.
    mistake(
        "a class", lambda: ask(Images), TypeError, NO_MODEL + "the class Images; write Images(...)"
    ),
    mistake(
        "a class of a network",
        lambda: ask(Wide),
        TypeError,
        NO_MODEL + "the class Wide; write Wide(...)",
    ),
    mistake(
        "the class of an estimator of ours",
        lambda: ask(UndefendedClassifier),
        TypeError,
        NO_MODEL + "the class UndefendedClassifier; write UndefendedClassifier().fit(X, y)",
    ),
    mistake(
        "a function that builds a network",
        lambda: ask(build),
        TypeError,
        NO_MODEL + "the function build; write build()",
        lambda: ask(build()),
    ),
    mistake(
        "a method that builds a network",
        lambda: ask(Builder().built),
        TypeError,
        NO_MODEL + "the function built; write built()",
        lambda: ask(Builder().built()),
    ),
    mistake(
        "a function that builds a network once",
        lambda: ask(cache(build)),
        TypeError,
        NO_MODEL + "the function build; write build()",
        lambda: ask(cache(build)()),
    ),
    mistake(
        "a function of networks",
        lambda: ask(networks.mlp),
        TypeError,
        NO_MODEL + "the function mlp; write mlp(...)",
    ),
    mistake(
        "a function that builds a network without saying so",
        lambda: ask(make_unannotated),
        TypeError,
        NO_TENSOR + "Sequential; pass the module that the function returns",
        lambda: ask(make_unannotated(X)),
    ),
    mistake(
        "weights",
        lambda: ask(NET.state_dict()),
        TypeError,
        NO_MODEL
        + (
            "OrderedDict with keys '0.weight', '0.bias', '2.weight', '2.bias'; build the "
            "network and call its load_state_dict"
        ),
    ),
    mistake(
        "a checkpoint",
        lambda: ask({"epoch": 3, "model": NET.state_dict()}),
        TypeError,
        NO_MODEL
        + ("dict with keys 'epoch', 'model'; build the network and call its load_state_dict"),
    ),
    mistake(
        "a file of weights",
        lambda: ask("model.pt"),
        TypeError,
        NO_MODEL + "the string 'model.pt'; load the file first",
    ),
    mistake("nothing", lambda: ask(None), TypeError, NO_MODEL + "None"),
    mistake(
        "an optimiser",
        lambda: ask(torch.optim.SGD(NET.parameters(), lr=0.1)),
        TypeError,
        NO_MODEL + "SGD",
    ),
    mistake(
        "several models",
        lambda: ask([NET, NET]),
        TypeError,
        NO_MODEL + "list of 2 items: Sequential, Sequential; evaluate one after another",
    ),
    mistake(
        "a model among other things",
        lambda: ask([NET, "net.pt"]),
        TypeError,
        NO_MODEL + "list of 2 items: Sequential, str",
    ),
    mistake(
        "an estimator of ours not fitted",
        lambda: ask(UndefendedClassifier()),
        NotFittedError,
        "model must be fitted before it is evaluated, got UndefendedClassifier()",
    ),
    mistake(
        "an estimator of scikit-learn",
        lambda: ask(LogisticRegression().fit(TABLE, y), X=TABLE),
        TypeError,
        "model must be an estimator of distillguard, a module or a callable from inputs"
        " to logits, got a fitted LogisticRegression; pass a function of tensors that "
        "returns its logits, or the distillguard estimator inside it",
    ),
    mistake(
        "an estimator of scikit-learn not fitted",
        lambda: ask(LogisticRegression(), X=TABLE),
        NotFittedError,
        "model must be fitted before it is evaluated, got LogisticRegression()",
    ),
    mistake(
        "a pipeline that scales",
        lambda: ask(
            make_pipeline(StandardScaler(), UndefendedClassifier(max_epochs=1)).fit(TABLE, y),
            X=TABLE,
        ),
        TypeError,
        "model must be an estimator without steps before it, got a Pipeline with "
        "StandardScaler; pass model[-1] and model[:-1].transform(X), with bounds and "
        "epsilon in its units",
    ),
    mistake(
        "a pipeline not fitted",
        lambda: ask(make_pipeline(StandardScaler(), UndefendedClassifier(max_epochs=1)), X=TABLE),
        NotFittedError,
        "model must be fitted before it is evaluated, got UndefendedClassifier(max_epochs=1)",
    ),
    mistake(
        "a pipeline of scikit-learn",
        lambda: ask(make_pipeline(StandardScaler(), DummyClassifier()).fit(TABLE, y), X=TABLE),
        TypeError,
        "model must be an estimator of distillguard, a module or a callable from inputs"
        " to logits, got a fitted DummyClassifier; pass a function of tensors that "
        "returns its logits, or the distillguard estimator inside it",
    ),
    mistake(
        "predict",
        lambda: ask(FITTED.predict),
        TypeError,
        "model must return logits as tensors, got the method predict of "
        "UndefendedClassifier; pass the estimator itself",
        lambda: ask(FITTED),
    ),
    mistake(
        "predict_proba of scikit-learn",
        lambda: ask(LogisticRegression().fit(TABLE, y).predict_proba, X=TABLE),
        TypeError,
        "model must return logits as tensors, got the method predict_proba of "
        "LogisticRegression; pass a function of tensors",
    ),
    mistake(
        "a forward without return",
        lambda: ask(Ours(lambda logits: None)),
        TypeError,
        NO_TENSOR + "None; let its forward return them",
    ),
    mistake(
        "a dict",
        lambda: ask(Ours(lambda logits: {"loss": None, "logits": logits})),
        TypeError,
        NO_TENSOR + "dict with keys 'loss', 'logits'; wrap it: networks.Logits(model, 'logits')",
        lambda: ask(
            networks.Logits(Ours(lambda logits: {"loss": None, "logits": logits}), "logits")
        ),
    ),
    mistake(
        "a dict with another name",
        lambda: ask(Ours(lambda logits: {"out": logits})),
        TypeError,
        NO_TENSOR + "dict with keys 'out'; wrap it: networks.Logits(model, 'out')",
        lambda: ask(networks.Logits(Ours(lambda logits: {"out": logits}), "out")),
    ),
    mistake(
        "a tuple",
        lambda: ask(Ours(lambda logits: (logits, logits))),
        TypeError,
        NO_TENSOR
        + ("tuple of 2 items: Tensor (12, 5), Tensor (12, 5); wrap it: networks.Logits(model, 0)"),
        lambda: ask(networks.Logits(Ours(lambda logits: (logits, logits)), 0)),
    ),
    mistake(
        "a loss and logits",
        lambda: ask(Ours(lambda logits: (logits.sum(), logits))),
        TypeError,
        NO_TENSOR
        + ("tuple of 2 items: Tensor (), Tensor (12, 5); wrap it: networks.Logits(model, 1)"),
        lambda: ask(networks.Logits(Ours(lambda logits: (logits.sum(), logits)), 1)),
    ),
    mistake(
        "a list",
        lambda: ask(Ours(lambda logits: [logits])),
        TypeError,
        NO_TENSOR + "list of 1 item: Tensor (12, 5); wrap it: networks.Logits(model, 0)",
        lambda: ask(networks.Logits(Ours(lambda logits: [logits]), 0)),
    ),
    mistake(
        "a dataclass",
        lambda: ask(Ours(ModelOutput)),
        TypeError,
        NO_TENSOR + "ModelOutput; wrap it: networks.Logits(model, 'logits')",
        lambda: ask(networks.Logits(Ours(ModelOutput), "logits")),
    ),
    mistake(
        "a named tuple",
        lambda: ask(Ours(lambda logits: Outputs(logits, None))),
        TypeError,
        NO_TENSOR
        + (
            "Outputs of 2 items: Tensor (12, 5), NoneType; wrap it: networks.Logits(model, "
            "'logits')"
        ),
        lambda: ask(networks.Logits(Ours(lambda logits: Outputs(logits, None)), "logits")),
    ),
    mistake("a string", lambda: ask(lambda x: "cat"), TypeError, NO_TENSOR + "the string 'cat'"),
    mistake(
        "an array",
        lambda: ask(Ours(lambda logits: logits.detach().numpy())),
        TypeError,
        NO_TENSOR + "ndarray of shape (12, 5); compute them in PyTorch, without NumPy",
    ),
    mistake(
        "logits by pixel",
        lambda: ask(Ours(lambda logits: logits[:, :, None, None].expand(-1, -1, 4, 4))),
        ValueError,
        NO_SHAPE
        + ("(12, 5, 4, 4); wrap it: networks.Logits(model, lambda output: output.mean((2, 3)))"),
        lambda: ask(
            networks.Logits(
                Ours(lambda logits: logits[:, :, None, None].expand(-1, -1, 4, 4)),
                lambda output: output.mean((2, 3)),
            )
        ),
    ),
    mistake(
        "logits by position",
        lambda: ask(Ours(lambda logits: logits[:, :, None])),
        ValueError,
        NO_SHAPE + "(12, 5, 1); wrap it: networks.Logits(model, lambda output: output.mean(2))",
        lambda: ask(
            networks.Logits(Ours(lambda logits: logits[:, :, None]), lambda output: output.mean(2))
        ),
    ),
    mistake(
        "one logit in a column",
        lambda: ask(Ours(lambda logits: logits[:, :1] - 1), y=y % 2),
        ValueError,
        NO_SHAPE
        + ("(12, 1); wrap it: networks.Logits(model), which makes the pair (0, z) of one logit z"),
        lambda: ask(networks.Logits(Ours(lambda logits: logits[:, :1] - 1)), y=y % 2),
    ),
    mistake(
        "one logit",
        lambda: ask(Ours(lambda logits: logits[:, 0] - 1), y=y % 2),
        ValueError,
        NO_SHAPE
        + ("(12,); wrap it: networks.Logits(model), which makes the pair (0, z) of one logit z"),
        lambda: ask(networks.Logits(Ours(lambda logits: logits[:, 0] - 1)), y=y % 2),
    ),
    mistake(
        "one probability",
        lambda: ask(Ours(lambda logits: logits[:, :1].sigmoid()), y=y % 2),
        ValueError,
        NO_SHAPE
        + (
            "(12, 1); remove the final sigmoid if it has one, then wrap it: "
            "networks.Logits(model), which makes the pair (0, z) of one logit z"
        ),
    ),
    mistake(
        "classes instead of logits",
        lambda: ask(Ours(lambda logits: logits.argmax(1))),
        TypeError,
        "model must return floating point logits, got torch.int64; return what goes into argmax",
    ),
    mistake(
        "a loss instead of logits",
        lambda: ask(Ours(lambda logits: logits.sum())),
        ValueError,
        NO_SHAPE + "()",
    ),
    mistake(
        "examples mixed by a view",
        lambda: ask(lambda x: GRAY_NET(x.view(-1, 1, 8, 8))),
        ValueError,
        NO_SHAPE + "(36, 5); look for a view or reshape that mixes examples",
        lambda: ask(GRAY_NET, X=X.view(-1, 1, 8, 8), y=y.repeat_interleave(3)),
    ),
    mistake(
        "the mean over the batch",
        lambda: ask(Ours(lambda logits: logits.mean(0, keepdim=True))),
        ValueError,
        NO_SHAPE + "(1, 5); look for a view or reshape that mixes examples",
    ),
    mistake(
        "NaN from the model",
        lambda: ask(Ours(lambda logits: logits * torch.nan)),
        ValueError,
        "model must return finite logits, got NaN or infinity",
    ),
    mistake(
        "the logarithm of 0",
        lambda: ask(Ours(lambda logits: (1e6 * logits).softmax(1).log())),
        ValueError,
        "model must return finite logits, got -infinity, such as the logarithm of a "
        "probability of 0; return what goes into the softmax, or its log_softmax",
    ),
    mistake(
        "a class as surrogate",
        lambda: ask(surrogate=Wide),
        TypeError,
        "surrogate must be a module or a callable from inputs to logits, got the class "
        "Wide; write Wide(...)",
    ),
    mistake(
        "a surrogate of other classes",
        lambda: ask(FITTED, surrogate=NAMED),
        ValueError,
        "surrogate must know the classes of model, 0, 1, 2, 3, 4, got 'cat', 'dog', 'elk', 'fox', "
        "'gnu'",
    ),
    mistake(
        "weights as surrogate",
        lambda: ask(surrogate=NET.state_dict()),
        TypeError,
        "surrogate must be a module or a callable from inputs to logits, got "
        "OrderedDict with keys '0.weight', '0.bias', '2.weight', '2.bias'; build the "
        "network and call its load_state_dict",
    ),
    # Settings.
    mistake(
        "epsilon in levels of 255",
        lambda: ask(epsilon=8),
        ValueError,
        "epsilon must be at most 1, how far apart inputs within bounds can be in linf, "
        "got 8.0; it is in the units of the inputs, 8 / 255 for 8 grey levels of images"
        " in [0, 1]",
        lambda: ask(epsilon=8 / 255),
    ),
    mistake(
        "epsilon of 0",
        lambda: ask(epsilon=0),
        ValueError,
        "epsilon must be a finite number above 0, got 0",
    ),
    mistake(
        "epsilon below 0",
        lambda: ask(epsilon=-0.1),
        ValueError,
        "epsilon must be a finite number above 0, got -0.1",
    ),
    mistake(
        "epsilon as text",
        lambda: ask(epsilon="8/255"),
        TypeError,
        "epsilon must be a number, got '8/255'",
    ),
    mistake(
        "no epsilon", lambda: ask(epsilon=None), TypeError, "epsilon must be a number, got None"
    ),
    mistake(
        "epsilon of NaN",
        lambda: ask(epsilon=float("nan")),
        ValueError,
        "epsilon must be a finite number above 0, got nan",
    ),
    mistake(
        "the norm as Linf",
        lambda: ask(norm="Linf"),
        ValueError,
        "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'Linf'; write 'linf'",
        lambda: ask(norm="linf"),
    ),
    mistake(
        "the norm as 2",
        lambda: ask(norm=2, epsilon=0.5),
        ValueError,
        "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 2; write 'l2'",
        lambda: ask(norm="l2", epsilon=0.5),
    ),
    mistake(
        "the norm as infinity",
        lambda: ask(norm=np.inf),
        ValueError,
        "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got inf; write 'linf'",
        lambda: ask(norm="linf"),
    ),
    mistake(
        "the norm as L_2",
        lambda: ask(norm="L_2"),
        ValueError,
        "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'L_2'; write 'l2'",
    ),
    mistake(
        "a norm that is none",
        lambda: ask(norm="tv"),
        ValueError,
        "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'tv'",
    ),
    mistake(
        "bounds exchanged",
        lambda: ask(bounds=(1, 0)),
        ValueError,
        "bounds must be finite with low below high, got (1, 0)",
        lambda: ask(bounds=(0, 1)),
    ),
    mistake(
        "one bound",
        lambda: ask(bounds=1.0),
        TypeError,
        "bounds must be a pair (low, high), got 1.0",
    ),
    mistake(
        "bounds as text",
        lambda: ask(bounds=("0", "1")),
        TypeError,
        "bounds must be a number or a tensor, got '0'",
    ),
    mistake(
        "bounds of channels as lists",
        lambda: ask(bounds=([0, 0, 0], [1, 1, 1])),
        TypeError,
        "bounds must be a number or a tensor, got [0, 0, 0]; for one per channel write "
        "torch.tensor([0, 0, 0])[:, None, None]",
        lambda: ask(
            bounds=(torch.tensor([0, 0, 0])[:, None, None], torch.tensor([1, 1, 1])[:, None, None])
        ),
    ),
    mistake(
        "bounds of channels without axes",
        lambda: ask(bounds=(torch.zeros(3), torch.ones(3))),
        ValueError,
        "bounds must be broadcastable to one example (3, 8, 8), got shape (3,); for one"
        " per channel reshape them to (3, 1, 1)",
    ),
    mistake(
        "a mask of numbers",
        lambda: ask(mask=torch.ones(3, 8, 8)),
        TypeError,
        "mask must have dtype torch.bool, got torch.float32; write mask.bool()",
        lambda: ask(mask=torch.ones(3, 8, 8).bool()),
    ),
    mistake(
        "a mask of another shape",
        lambda: ask(mask=torch.ones(8, 9).bool()),
        ValueError,
        "mask must have the shape of one input (3, 8, 8), or of all inputs (12, 3, 8, "
        "8) with a first axis of 1 or 12, got (8, 9)",
    ),
    mistake(
        "a mask as a list",
        lambda: ask(mask=[True] * 8),
        TypeError,
        "mask must be a boolean tensor or None, got list; write torch.as_tensor(mask)",
    ),
    mistake(
        "no examples at once",
        lambda: ask(batch_size=0),
        ValueError,
        "batch_size must be at least 1, got 0",
    ),
    mistake(
        "half an example",
        lambda: ask(batch_size=32.0),
        TypeError,
        "batch_size must be an integer, got 32.0",
    ),
    mistake(
        "a chunk of text",
        lambda: ask(chunk_size="1024"),
        TypeError,
        "chunk_size must be an integer, got '1024'",
    ),
    mistake(
        "a negative seed",
        lambda: ask(random_state=-1),
        ValueError,
        "random_state must be at least 0, got -1",
    ),
    mistake(
        "a fraction for a seed",
        lambda: ask(random_state=0.5),
        TypeError,
        "random_state must be an integer, got 0.5",
    ),
    # Attacks and curves, where they share the checks.
    mistake(
        "attack: a class",
        lambda: attacks.pgd(Wide, X, y, epsilon=0.1),
        TypeError,
        NO_MODEL + "the class Wide; write Wide(...)",
    ),
    mistake(
        "attack: an estimator",
        lambda: attacks.pgd(FITTED, X, y, epsilon=0.1),
        TypeError,
        NO_MODEL + "UndefendedClassifier; pass its model_",
        lambda: attacks.fgsm(FITTED.model_, X, y, epsilon=0.1),
    ),
    mistake(
        "attack: a dict",
        lambda: attacks.pgd(Ours(lambda logits: {"logits": logits}), X, y, epsilon=0.1),
        TypeError,
        NO_TENSOR + "dict with keys 'logits'; wrap it: networks.Logits(model, 'logits')",
        lambda: attacks.fgsm(
            networks.Logits(Ours(lambda logits: {"logits": logits}), "logits"), X, y, epsilon=0.1
        ),
    ),
    mistake(
        "attack: a tuple",
        lambda: attacks.deepfool(Ours(lambda logits: (logits, None)), X, y),
        TypeError,
        NO_TENSOR
        + "tuple of 2 items: Tensor (12, 5), NoneType; wrap it: networks.Logits(model, 0)",
    ),
    mistake(
        "attack: one logit",
        lambda: attacks.fgsm(Ours(lambda logits: logits[:, :1] - 1), X, y % 2, epsilon=0.1),
        ValueError,
        NO_SHAPE
        + ("(12, 1); wrap it: networks.Logits(model), which makes the pair (0, z) of one logit z"),
        lambda: attacks.fgsm(
            networks.Logits(Ours(lambda logits: logits[:, :1] - 1)), X, y % 2, epsilon=0.1
        ),
    ),
    mistake(
        "attack: logits by pixel",
        lambda: attacks.ddn(Ours(lambda logits: logits[:, :, None, None]), X, y),
        ValueError,
        NO_SHAPE
        + ("(12, 5, 1, 1); wrap it: networks.Logits(model, lambda output: output.mean((2, 3)))"),
    ),
    mistake(
        "attack: probabilities",
        lambda: attacks.pgd(Ours(lambda logits: logits.softmax(1)), X, y, epsilon=0.1),
        ValueError,
        "model must return logits, got rows in [0, 1] that sum to 1; remove the final "
        "softmax (gradients through it vanish and attacks then mislead)",
    ),
    mistake(
        "attack: an array",
        lambda: attacks.pgd(NET, X.numpy(), y, epsilon=0.1),
        TypeError,
        "inputs must be a torch.Tensor, got ndarray; write torch.as_tensor(inputs)",
    ),
    mistake(
        "attack: bytes",
        lambda: attacks.pgd(NET, (X * 255).byte(), y, epsilon=0.1),
        TypeError,
        "inputs must be floating point, got torch.uint8; for images stored as integers "
        "use inputs.float() / 255",
    ),
    mistake(
        "attack: a list of labels",
        lambda: attacks.pgd(NET, X, y.tolist(), epsilon=0.1),
        TypeError,
        "labels must be a torch.Tensor, got list; write torch.as_tensor(labels)",
    ),
    mistake(
        "attack: classes from 1",
        lambda: attacks.pgd(NET, X, y + 1, epsilon=0.1),
        ValueError,
        "labels must be classes from 0 to 4, got values in [1, 5]; if they count from "
        "1, write labels - 1",
    ),
    mistake(
        "attack: the norm as Linf",
        lambda: attacks.pgd(NET, X, y, epsilon=0.1, norm="Linf"),
        ValueError,
        "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'Linf'; write 'linf'",
    ),
    mistake(
        "curve: a class",
        lambda: robustness_curve(Wide, X, y, budget=attacks.fgsm, epsilons=[0.1]),
        TypeError,
        NO_MODEL + "the class Wide; write Wide(...)",
    ),
    mistake(
        "curve: a dict",
        lambda: robustness_curve(
            Ours(lambda logits: {"logits": logits}), X, y, budget=attacks.fgsm, epsilons=[0.1]
        ),
        TypeError,
        NO_TENSOR + "dict with keys 'logits'; wrap it: networks.Logits(model, 'logits')",
    ),
]


@pytest.mark.parametrize(("call", "error", "message", "instead"), MISTAKES)
def test_a_usual_mistake_gets_its_sentence(call, error, message, instead):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize(
    ("call", "error", "message", "instead"), [row for row in MISTAKES if row.values[3]]
)
def test_what_the_sentence_says_to_write_works(call, error, message, instead):
    instead()


ARGUMENTS = (
    "X|y|labels in X|model|surrogate|epsilon|norm|bounds|mask|batch_size|chunk_size|random_state"
)


@pytest.mark.parametrize(("call", "error", "message", "instead"), MISTAKES)
def test_every_sentence_names_the_argument_the_rule_and_the_value(call, error, message, instead):
    assert re.match(rf"({ARGUMENTS}|inputs|labels) must .+, got ", message)


# What works.


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


ARRAY, CLASSES = X.numpy(), y.numpy()
ACCEPTED = {
    "arrays": (ARRAY, CLASSES),
    "arrays in the order of Fortran": (np.asfortranarray(ARRAY), CLASSES),
    "arrays with negative strides": (reversed_in_memory(ARRAY), reversed_in_memory(CLASSES)),
    "arrays that are read-only": (read_only(ARRAY), read_only(CLASSES)),
    "arrays of the other byte order": (ARRAY.astype(">f4"), CLASSES.astype(">i4")),
    "arrays in double precision": (ARRAY.astype(float), CLASSES.astype(np.uint16)),
    "arrays in extended precision": (ARRAY.astype(np.longdouble), CLASSES.astype(np.longdouble)),
    "tensors of every other pixel": (torch.rand(12, 3, 8, 16)[..., ::2].copy_(X), y.int()),
    "tensors that require a gradient": (X.clone().requires_grad_(), y),
    "channels last in memory": (X.contiguous(memory_format=torch.channels_last), y),
    "nested lists": (X.tolist(), y.tolist()),
    "a list of tensors": (list(X), list(y)),
    "a list of arrays": (list(ARRAY), list(CLASSES)),
    "labels that are whole floats": (X, y.double()),
    "labels in a column": (X, y[:, None]),
    "labels in a series": (X, pd.Series(CLASSES, index=range(100, 112))),
    "labels that may be missing": (X, pd.Series(CLASSES, dtype="Int64")),
    "labels in a table": (X, pd.DataFrame({"label": CLASSES})),
    "labels in a tuple": (X, tuple(CLASSES.tolist())),
    "a pair": ((X, y), None),
    "a pair of arrays": ((ARRAY, CLASSES), None),
    "a pair in a list": ([X, y], None),
    "a pair of lists": ((X.tolist(), y.tolist()), None),
    "a TensorDataset": (TensorDataset(X, y), None),
    "a data set": (Images(X), None),
    "a data set of arrays": (Images(ARRAY), None),
    "a data set with labels as arrays": (Images(X, lambda label: np.array([label])), None),
    "a data set with labels as tensors": (Images(X, torch.tensor), None),
    "a stream": (Stream(), None),
    "a loader": (DataLoader(Images(X), 5), None),
    "a loader of examples": (DataLoader(Images(X), batch_size=None), None),
    "a loader of a stream": (DataLoader(Stream(), 5), None),
    "a loader of somebody's own": (Batches(), None),
    "a list of batches": (PAIRS, None),
    "a tuple of batches": (tuple(PAIRS), None),
    "a list of batches as lists": ([list(pair) for pair in PAIRS], None),
    "a list of batches of arrays": ([(x.numpy(), t.numpy()) for x, t in PAIRS], None),
    "a list of examples": ([(X[i], int(y[i])) for i in range(12)], None),
    "an empty batch among others": ([(X[:0], y[:0]), *PAIRS, (X[:0], y[:0])], None),
}


def read(X, y=None, size=5, **settings):
    """What the door makes of the examples, chunk by chunk."""
    return list(examples(X, y, **settings).chunks(size, torch.float32))


@pytest.mark.parametrize("form", ACCEPTED)
def test_every_form_of_the_same_examples_is_read_as_the_same_chunks(form):
    chunks = read(*ACCEPTED[form])
    assert [len(chunk.inputs) for chunk in chunks] == [5, 5, 2]
    assert torch.cat([chunk.places for chunk in chunks]).tolist() == list(range(12))
    assert torch.equal(torch.cat([chunk.inputs for chunk in chunks]), X)
    assert torch.equal(torch.cat([chunk.labels for chunk in chunks]), y)
    assert all(chunk.labels.dtype == torch.int64 for chunk in chunks)


def test_tensors_keep_their_dtype_and_everything_else_takes_that_of_the_model():
    (double,) = examples(X.double(), y).chunks(12, torch.float32)
    (single,) = examples(ARRAY.astype(float), y).chunks(12, torch.float32)
    (same,) = examples(ARRAY.astype(float), y).chunks(12)
    assert (double.inputs.dtype, single.inputs.dtype) == (torch.float64, torch.float32)
    assert same.inputs.dtype == torch.float64
    (half,) = examples(list(X.bfloat16()), y).chunks(12, torch.float64)
    assert torch.equal(half.inputs, X.bfloat16().double())


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_tables_of_whole_numbers_are_numbers(kind):
    (table,) = read((TABLE > 0.5).astype(kind), y, size=12)
    assert torch.equal(table.inputs, torch.as_tensor(TABLE > 0.5).float())


def test_a_table_of_pandas_is_an_array():
    (table,) = read(pd.DataFrame(TABLE), pd.Series(CLASSES), size=12)
    assert torch.equal(table.inputs, torch.as_tensor(TABLE))


def test_a_generator_is_read_no_further_than_the_chunk_needs():
    drawn = []

    def batches():
        for start in range(0, 40, 4):
            drawn.append(start)
            yield torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)

    chunks = examples(batches()).chunks(10)
    for needed in (3, 5, 8, 10):
        next(chunks)
        assert len(drawn) == needed
    assert list(chunks) == []


def test_a_batch_larger_than_a_chunk_is_cut():
    sizes = [len(chunk.inputs) for chunk in read([(X[:11], y[:11]), (X[11:], y[11:])], size=3)]
    assert sizes == [3, 3, 3, 3]


def test_labels_need_not_be_there_where_nobody_looks_at_them():
    for unlabelled in (X, ARRAY, TensorDataset(X), DataLoader(X, 5)):
        whole = examples(unlabelled, labelled=False).whole(torch.float32)
        assert torch.equal(whole.inputs, X)
        assert (whole.labels == -1).all()
    for labelled in ((X, y), TensorDataset(X, y), Images(X), PAIRS):
        assert torch.equal(examples(labelled, labelled=False).whole().inputs, X)


def test_names_of_arguments_are_the_caller_s():
    with pytest.raises(ValueError, match=r"^inputs must be finite"):
        read(X * torch.nan, y, name="inputs", label_name="labels")
    with pytest.raises(ValueError, match=r"^labels must have one label for each of 12 inputs"):
        read(X, y[:3], name="inputs", label_name="labels")
    with pytest.raises(ValueError, match=r"^labels in inputs must hold one class"):
        read([(X, X)], name="inputs", label_name="labels")


def figures(model, X, y):
    """What an attack that looks at the values and labels leaves."""
    attack = {"fgsm": partial(attacks.fgsm, epsilon=0.02)}
    report = evaluate(model, X, y, epsilon=0.02, attacks=attack, chunk_size=5, random_state=0)
    (row,) = report.attacks
    return report.n_examples, report.clean_accuracy, report.robust_accuracy, row.median_distance


@pytest.mark.parametrize(
    "form",
    [
        lambda: (X.tolist(), y.tolist()),
        lambda: ((ARRAY, CLASSES), None),
        lambda: (DataLoader(Images(X), 5), None),
        lambda: (zip(X, y.tolist(), strict=True), None),
    ],
    ids=["lists", "a pair of arrays", "a loader", "zip"],
)
def test_the_report_is_that_of_the_tensors(form):
    assert figures(NET, *form()) == figures(NET, X, y)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        (X[0], 3),
        (X[0], torch.tensor(3)),
        (X[0].numpy(), np.int64(3)),
        (X[:1], 3),
        (X[:1], [3]),
        ((X[0], 3), None),
        ([(X[0], 3)], None),
    ],
)
def test_one_example_needs_no_axis_of_its_own(image, label):
    (chunk,) = read(image, label)
    assert torch.equal(chunk.inputs, X[:1])
    assert chunk.labels.tolist() == [3]


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(FITTED),
        make_pipeline("passthrough", FITTED),
        FITTED.model_.forward,
        types.SimpleNamespace(best_estimator_=FITTED),
    ],
    ids=["pipeline", "passthrough", "forward", "search"],
)
def test_what_holds_nothing_but_a_network_of_ours_is_that_network(model):
    evaluated = resolve_model(model)
    assert evaluated.model is FITTED.model_
    assert list(evaluated.classes if evaluated.classes is not None else range(5)) == [*range(5)]


def test_bounds_from_mean_and_deviation_hold_the_values_that_the_same_formula_gives():
    bounds = (0 - MEAN) / STD, (1 - MEAN) / STD
    normalised = (X.round() - MEAN) / STD
    low, high = (torch.tensor(bound) for bound in bounds)
    assert not ((normalised >= low) & (normalised <= high)).all()

    given = []

    def keep(model, inputs, labels):
        given.append(inputs)
        return inputs

    labels = NET(normalised).argmax(dim=1)
    attack = {"keep": keep}
    report = evaluate(NET, normalised, labels, epsilon=0.1, bounds=bounds, attacks=attack)
    assert report.bounds == bounds
    assert given[0].shape == normalised.shape
    assert ((given[0] >= low) & (given[0] <= high)).all()


# Models that raise by themselves.


def test_an_error_of_the_model_that_no_layout_explains_stays_itself_with_a_note():
    def broken(inputs):
        raise KeyError("fc7")

    with pytest.raises(KeyError, match="fc7") as caught:
        ask(broken)
    assert caught.value.__notes__ == [
        "The model raised this when it was given X: shape (12, 3, 8, 8) in torch.float32."
    ]


class NoEmptyBatch(nn.Module):
    """The flattening of many a tutorial, which no batch without examples survives."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(12, 4)

    def forward(self, inputs):
        assert len(inputs)
        return self.last(inputs.view(inputs.size(0), -1))


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_no_model_is_asked_about_an_empty_batch_when_every_example_falls(preset):
    torch.manual_seed(1)
    model, inputs = NoEmptyBatch(), torch.rand(9, 3, 4)
    labels = model(inputs).argmax(dim=1)
    surrogate = NoEmptyBatch()
    report = evaluate(
        model, inputs, labels, epsilon=0.6, attacks=preset, surrogate=surrogate, random_state=0
    )
    assert report.robust_accuracy == 0
    wrong = evaluate(model, inputs, (labels + 1) % 4, epsilon=0.6, attacks=preset, random_state=0)
    assert wrong.clean_accuracy == wrong.robust_accuracy == 0


@pytest.mark.parametrize("name", attacks.__all__)
def test_no_attack_asks_a_model_about_an_empty_batch(name):
    torch.manual_seed(1)
    model, inputs = NoEmptyBatch(), torch.rand(3, 3, 4)
    labels = model(inputs).argmax(dim=1)
    attack = getattr(attacks, name)
    radius = 2 if name.endswith("sparse_rs") else 0.6
    budget = {"epsilon": radius} if "epsilon" in inspect.signature(attack).parameters else {}
    for n in (3, 0):
        found = attack(model, inputs[:n], labels[:n], batch_size=2, **budget)
        assert found.shape == inputs[:n].shape


def test_nor_do_curves_matrices_and_histograms():
    torch.manual_seed(1)
    model, inputs = NoEmptyBatch(), torch.rand(9, 3, 4)
    labels = (model(inputs).argmax(dim=1) + 1) % 4
    curve = robustness_curve(model, inputs, labels, budget=attacks.fgsm, epsilons=[0.1, 0.2])
    assert curve.robust_accuracy.tolist() == [0.0, 0.0, 0.0]
    fgsm = partial(attacks.fgsm, epsilon=0.1)
    assert np.isnan(transfer_matrix({"a": model}, fgsm, inputs, labels)).all()
    gradient_histogram(model, inputs, batch_size=4)
    confidence_histogram(model, inputs, batch_size=4)


def test_an_attack_of_somebody_s_that_asks_about_nothing_gets_an_empty_answer():
    torch.manual_seed(1)
    model, inputs = NoEmptyBatch(), torch.rand(4, 3, 4)
    asked = []

    def attack(model, inputs, labels):
        nothing = inputs[:0].requires_grad_()
        logits = model(nothing)
        torch.autograd.grad(logits.sum(), nothing)
        asked.append(logits.shape)
        return inputs

    labels = model(inputs).argmax(dim=1)
    # A full diagnosis would call the attack again, on a test of its own.
    evaluate(model, inputs, labels, epsilon=0.1, attacks={"it": attack}, diagnosis="brief")
    assert asked == [(0, 4)]


def test_logits_of_no_examples_need_no_model():
    logits = logits_of(None, torch.rand(0, 3, 4), torch.float16, 8)
    assert logits.dtype == torch.float32
    assert logits.argmax(dim=1).shape == (0,)


def test_the_page_of_questions_quotes_twenty_sentences_word_for_word():
    page = (Path(__file__).parents[1] / "docs/howto/faq.md").read_text()
    quoted = re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    quoted = [" ".join(block.split()) for block in quoted]
    assert len(set(quoted)) == len(quoted) >= 20
    assert set(quoted) <= {row.values[2] for row in MISTAKES}
