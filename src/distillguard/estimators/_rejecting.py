"""What every classifier is that may refuse to answer: a class or the rejected label."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from .. import functional
from .._clopper_pearson import clopper_pearson
from .._validation import check_finite
from ._classifier import NetworkClassifier


class RejectingClassifier(NetworkClassifier):
    """A classifier whose ``model_`` has a last column for rejection, and says so by ``rejects``."""

    rejected_label: Any
    false_alarms_: tuple[int, int]

    @property
    def false_positive_rate_(self) -> float:
        """Share rejected of clean examples not used to set a threshold; NaN if there are none."""
        check_is_fitted(self)
        alarms, shown = self.false_alarms_
        return alarms / shown if shown else float("nan")

    @property
    def false_positive_interval_(self) -> tuple[float, float]:
        """The 95 % Clopper-Pearson interval of ``false_positive_rate_``."""
        check_is_fitted(self)
        return clopper_pearson(*self.false_alarms_)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict classes, or reject inputs.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``. Of pairs (inputs, labels) the inputs are used.

        Returns
        -------
        ndarray of shape (n,)
            Members of ``classes_``, or ``rejected_label``.
        """
        winners = self._gathered(X, lambda logits: logits.argmax(dim=1))
        rejected = winners == len(self.classes_)
        if not rejected.any():
            return self.classes_[winners]
        label = str(self.rejected_label) if _is_text(self.classes_) else self.rejected_label
        return np.append(self.classes_, np.array([label]))[winners]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the softmax of ``decision_function``.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes + 1), float64
            Rows that sum to 1, the last column for rejection. That one is no probability of
            anything: it is the largest where ``predict`` refuses.
        """
        return self._gathered(X, lambda logits: functional.softmax(logits.double()))

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the logits with a last column for rejection.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes + 1)
            Logits in the order of ``classes_``, then rejection; three columns for two classes.
        """
        return self._gathered(X, lambda logits: logits)

    def _check_rejected_label(self, classes: Any) -> None:
        text, label = _is_text(classes), self.rejected_label
        if not (text and isinstance(label, str)):
            check_finite("rejected_label", label)
        known = [str(each) if text else each for each in classes.tolist()]
        if (str(label) if text else label) in known:
            raise ValueError(f"rejected_label must be none of the classes, got {label!r}")


def _is_text(classes: NDArray[Any]) -> bool:
    return any(isinstance(each, str) for each in classes.tolist())
