"""What ``fit`` is given: checked, and turned into a source of batches."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_X_y
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .._copies import copied
from .._data._arrays import DTYPES, as_array, as_tensor, refuse_bytes
from .._data._batch import Source, seen_classes
from .._data._sources import TensorSource, source_of
from .._data._spec import Spec
from ._predicting import Predicting


class TrainingData(Predicting):
    """Learns classes and shape from the training data, and holds all other data to them."""

    module: Any
    early_stopping: Any
    validation_fraction: float

    def _check_same_kind(self, classes: NDArray[Any], shape: tuple[int, ...]) -> None:
        """Refuse examples that the networks of the last fit cannot go on with."""
        remedy = "set warm_start=False to start anew"
        if self.input_shape_ != shape:
            raise ValueError(
                f"X must hold examples of shape {shape} as in the last fit with warm_start=True, "
                f"got {self.input_shape_}; {remedy}"
            )
        if not np.array_equal(self.classes_, classes):
            raise ValueError(
                f"y must hold the classes of the last fit with warm_start=True, "
                f"{classes.tolist()}, got {self.classes_.tolist()}; {remedy}"
            )

    def _held_out(self, source: Source) -> tuple[Source, Source | None]:
        """Split off the validation examples for early stopping."""
        if not self.early_stopping:
            return source, None
        if not isinstance(source, TensorSource):
            raise ValueError(
                "early_stopping must be False with a DataLoader and no validation, got "
                f"{self.early_stopping!r}"
            )
        n = source.n_examples
        held = max(1, round(self.validation_fraction * n))
        if held >= n:
            raise ValueError(
                f"validation_fraction must leave examples to train on, got "
                f"{self.validation_fraction} of {n} examples"
            )
        order = torch.randperm(n)
        return source.subset(order[held:]), source.subset(order[:held])

    def _other_source(self, name: str, data: Any, seed: int) -> Source:
        """Check more labelled examples, for validation or training, against the training data."""
        if isinstance(data, DataLoader | Dataset):
            source = source_of(data, self.batch_size, seed).held_to(Spec(self.classes_))
        elif isinstance(data, tuple | list) and len(data) == 2:
            X, y = map(as_array, data)
            refuse_bytes(X)
            X, y = check_X_y(X, y, allow_nd=True, dtype=DTYPES)
            unknown = np.setdiff1d(y, self.classes_)
            if len(unknown):
                raise ValueError(f"{name} must hold known classes, got {unknown[0].item()!r}")
            indices = torch.from_numpy(np.searchsorted(self.classes_, y))
            source = TensorSource(as_tensor(X), indices, self.batch_size, seed)
        else:
            raise TypeError(
                f"{name} must be a DataLoader, a Dataset or a pair (X, y), got "
                f"{type(data).__name__}"
            )
        shape = tuple(source.first().inputs.shape[1:])
        if shape != self.input_shape_:
            raise ValueError(
                f"{name} must hold examples of shape {self.input_shape_} as X does, got {shape}"
            )
        return source

    def _training_source(self, X: Any, y: Any, seed: int) -> Source:
        """Check the training data; learn the classes and the shape of an example."""
        if y is None and isinstance(X, tuple) and len(X) == 2:
            X, y = X
        if isinstance(X, DataLoader | Dataset):
            if y is not None:
                raise ValueError("y must be None when X yields pairs (inputs, labels), got labels")
            source = source_of(X, self.batch_size, seed)
            self._learn_shape(source.first().inputs.shape[1:])
            self.classes_ = np.arange(self._n_classes(source))
            self.__dict__.pop("feature_names_in_", None)
            source = source.held_to(Spec(self.classes_))
            if isinstance(source, TensorSource):
                _refuse_one_class(source.labels.unique())
            return source

        X, y = as_array(X), as_array(y)
        refuse_bytes(X)
        X, y = validate_data(self, X, y, allow_nd=True, dtype=DTYPES)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        _refuse_one_class(self.classes_)
        self._learn_shape(X.shape[1:])
        return TensorSource(as_tensor(X), torch.from_numpy(indices), self.batch_size, seed)

    def _n_classes(self, source: Source) -> int:
        """The network's width, or by a pass over the labels without a network."""
        if isinstance(self.module, nn.Module):
            inputs = source.first().inputs[:2]
            return self._forward(copied(self.module), inputs).shape[1]
        seen = seen_classes(source.in_order())
        _refuse_one_class(seen)
        return int(seen.max()) + 1

    def _learn_shape(self, shape: Sequence[int]) -> None:
        self.input_shape_ = tuple(shape)
        self.n_features_in_ = prod(shape)


def _refuse_one_class(classes: Any) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"y must hold at least two classes, got one class: {classes.tolist()[0]!r}"
        )
