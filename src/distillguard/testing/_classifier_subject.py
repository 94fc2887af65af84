"""An estimator under test, and the examples that it is trained on."""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor, nn

from ._subject import shares

CLASSES, EACH, FEATURES = 3, 20, 4
"""Numbers of the default examples."""
METHODS = ("predict", "predict_proba", "decision_function")


@dataclass
class ClassifierSubject:
    """An estimator under test; only clones of it are fitted."""

    estimator: Any
    X: Any
    y: Any

    @classmethod
    def of(cls, estimator: Any, X: Any, y: Any) -> "ClassifierSubject":
        """With the given examples, or default ones of three classes around three corners."""
        return cls(estimator, *((X, y) if X is not None else drawn()))

    def fresh(self) -> Any:
        """An unfitted clone, with a seed if it takes one."""
        twin = clone(self.estimator)
        return twin.set_params(random_state=0) if "random_state" in twin.get_params() else twin

    def trained(self, **settings: Any) -> Any:
        """A clone fitted to copies of the examples."""
        return self.fresh().set_params(**settings).fit(*self.given())

    def given(self) -> tuple[Any, Any]:
        """Copies of the examples and their classes."""
        return copy.deepcopy(self.X), copy.deepcopy(self.y)

    @cached_property
    def fitted(self) -> Any:
        """A fitted clone that the promises share and must not change."""
        return self.trained()

    @property
    def columns(self) -> int:
        """Number of probabilities for each example, including one for rejection."""
        return len(self.fitted.classes_) + hasattr(self.fitted, "rejected_label")

    def answers(self, estimator: Any, X: Any = None) -> dict[str, NDArray[Any]]:
        """Outputs of each prediction method of an estimator, for the examples or for others."""
        X = self.X if X is None else X
        return {
            name: np.asarray(getattr(estimator, name)(copy.deepcopy(X)))
            for name in METHODS
            if hasattr(estimator, name)
        }

    def rows(self, bad: NDArray[np.bool_]) -> Tensor:
        """The first of the examples that are marked."""
        place = int(np.flatnonzero(bad)[0])
        return torch.as_tensor(np.asarray(self.X[place : place + 1]), device="cpu")


def drawn() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Examples in [0, 1] of three classes, the same ones each time."""
    spread = shares(CLASSES * EACH, torch.zeros(1, FEATURES, device="cpu")).numpy()
    y = np.arange(CLASSES * EACH) % CLASSES
    corners = np.eye(CLASSES, FEATURES, dtype=np.float32)
    return (0.6 * corners[y] + 0.4 * spread).astype(np.float32), y


def told(estimator: Any) -> dict[str, Any]:
    """The learned attributes of an estimator, by name."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_")}


def modules(parameters: dict[str, Any]) -> dict[str, nn.Module]:
    """The networks among the parameters."""
    return {name: value for name, value in parameters.items() if isinstance(value, nn.Module)}


def differing(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Rows that differ, for each method with at least one."""
    found = {name: rows_apart(one[name], other[name]) for name in one if name in other}
    return {name: bad for name, bad in found.items() if bad.any()}


def rows_apart(one: NDArray[Any], other: NDArray[Any], slack: float = 0.0) -> NDArray[np.bool_]:
    """Which rows of two outputs differ by more than this share of the largest value."""
    if one.shape != other.shape:
        return np.ones(len(one), dtype=bool)
    apart = one != other
    if slack and one.dtype.kind == "f":
        apart = ~(np.abs(one - other) <= slack * np.abs(other).max(initial=0))
    return apart.reshape(len(one), -1).any(axis=1)
