"""What the fitted estimators say about examples: predictions at T = 1."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .. import functional
from .._data._arrays import DTYPES, as_array, as_tensor, refuse_bytes
from .._data._batch import PREDICTION_BATCH
from .._data._sources import input_batches, source_of
from .._data._spec import Spec
from .._modes import borrowed, fitted_to, isolated_random_state
from .._validation import check_logits


class Predicting(ClassifierMixin):
    """Predictions of the network behind them, for whatever holds examples."""

    _predictor: ClassVar[str]
    """Name of the attribute that holds the network behind the predictions."""

    batch_size: int
    classes_: NDArray[Any]
    input_shape_: tuple[int, ...]
    n_features_in_: int

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict classes at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``. Of pairs (inputs, labels) the inputs are used.

        Returns
        -------
        ndarray of shape (n,)
            Members of ``classes_``.
        """
        winners = stacked(logits.argmax(dim=1) for logits in self._logits_in_batches(X))
        return self.classes_[winners.numpy()]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Predict the probability of each class: the softmax at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            Rows that sum to 1, in the order of ``classes_``.
        """
        return functional.softmax(self._logits(X).double()).numpy()

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the logits at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            Logits in the order of ``classes_``; for two classes the second less the first.
        """
        logits = self._logits(X)
        if logits.shape[1] == 2:
            return (logits[:, 1] - logits[:, 0]).numpy()
        return logits.numpy()

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy of ``predict`` on the given examples.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``.
        y : array or Tensor of shape (n,), optional
            True classes; taken from ``X`` when that yields pairs.
        sample_weight : array of shape (n,), optional
            Weights of the examples.

        Returns
        -------
        float
            Share of right predictions, in [0, 1].
        """
        if y is None and isinstance(X, DataLoader | Dataset):
            if sample_weight is not None:
                raise ValueError("sample_weight must be None when X yields pairs, got weights")
            return self._score_of_pairs(X)
        return float(super().score(X, np.asarray(y), sample_weight))

    def _score_of_pairs(self, X: Any) -> float:
        check_is_fitted(self)
        right = seen = 0
        spec = Spec(self.classes_, self.input_shape_)
        with isolated_random_state([], None):  # a loader that shuffles draws from it
            for batch in source_of(X, self.batch_size, 0).held_to(spec).in_order():
                logits = self._forward(getattr(self, self._predictor), batch.inputs)
                right += int((logits.argmax(dim=1) == batch.labels.cpu()).sum())
                seen += len(batch.labels)
        return right / seen

    def _checked_batches(self, X: Any) -> Iterator[Tensor]:
        """Batches of what is to be predicted, checked against what was fitted."""
        if isinstance(X, DataLoader | Dataset):
            yield from map(Spec(shape=self.input_shape_).check, input_batches(X))
            return
        X = as_array(X)
        refuse_bytes(X)
        # An array is checked and converted some megabytes at a time: one mapped from a file is
        # then never in memory as a whole, whatever its dtype.
        streams = isinstance(X, np.ndarray) and X.ndim > 1 and len(X) > 0
        step = PREDICTION_BATCH * max(1, 2**20 // (PREDICTION_BATCH * self.n_features_in_))
        pieces = (X[i : i + step] for i in range(0, len(X), step)) if streams else [X]
        for piece in pieces:
            yield from input_batches(self._checked(piece))

    def _checked(self, X: Any) -> Tensor:
        if len(self.input_shape_) == 1:
            return as_tensor(validate_data(self, X, reset=False, dtype=DTYPES))
        X = check_array(X, allow_nd=True, dtype=DTYPES)
        if X.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X must have shape (n, {', '.join(map(str, self.input_shape_))}) as in fit, "
                f"got {X.shape}"
            )
        return as_tensor(X)

    def _logits_in_batches(self, X: Any, network: nn.Module | None = None) -> Iterator[Tensor]:
        """Logits of the predictor, or of another network, on the CPU in float32 at least."""
        check_is_fitted(self)
        asked = getattr(self, self._predictor) if network is None else network
        # Rows of a table travel in batches of one size: matrix products of different shapes
        # round differently, and a row's logits would depend on its company.
        size = PREDICTION_BATCH if len(self.input_shape_) == 1 else 1
        with borrowed(asked, gradients=False):
            for inputs in self._checked_batches(X):
                yield _ask(asked, filled(inputs, size))[: len(inputs)]

    def _logits(self, X: Any, network: nn.Module | None = None) -> Tensor:
        return stacked(self._logits_in_batches(X, network))

    def _forward(self, network: nn.Module, inputs: Tensor, name: str = "module") -> Tensor:
        with borrowed(network, gradients=False):
            return _ask(network, inputs, name)


def stacked(parts: Iterable[Tensor]) -> Tensor:
    """Concatenate along the first axis, as the parts come.

    Many small tensors kept while large ones come and go would tear memory into pieces that
    nothing fits in; so they are copied into one that doubles.
    """
    rows, n = torch.empty(0), 0
    for part in parts:
        if n + len(part) > len(rows):
            larger = part.new_empty(max(2 * len(rows), n + len(part)), *part.shape[1:])
            if n:
                larger[:n] = rows[:n]
            rows = larger
        rows[n : n + len(part)] = part
        n += len(part)
    if not n:
        raise ValueError("X must hold at least one example, got an empty loader or data set")
    return rows[:n].clone() if n < len(rows) else rows


def filled(inputs: Tensor, size: int) -> Tensor:
    """Inputs with zeros below, up to ``size`` rows."""
    missing = max(0, size - len(inputs))
    return torch.cat([inputs, inputs.new_zeros(missing, *inputs.shape[1:])]) if missing else inputs


def _ask(network: nn.Module, inputs: Tensor, name: str = "module") -> Tensor:
    """Logits of one batch, checked, on the CPU, in memory that the network has no hold of."""
    logits = network(fitted_to(network, inputs))
    check_logits(logits, len(inputs), name)
    return logits.to("cpu", torch.promote_types(logits.dtype, torch.float32), copy=True)
