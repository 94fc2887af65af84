"""The methods that bring a fitted estimator elsewhere."""

import os

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._processes import joined
from ..persistence._saving import save
from ._onnx import export


class Portable:
    """Methods that write a fitted estimator to disk."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a folder, for :func:`distillguard.load` to read.

        The folder holds ``manifest.json`` (parameters, classes, history, the tensors of each
        network, its answers to a few made-up inputs) and one safetensors file for each
        network. A save that is there already is replaced in one stroke: killed at any moment,
        the folder holds the old one or the new; of saves at the same time it holds one.
        Under several processes the first one writes, and the others do not wait for it.

        Parameters
        ----------
        path : str or path
            The folder, made if need be.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        SaveError
            If the folder holds another program's ``manifest.json``, a network's state holds
            something other than tensors, or the estimator's class is not one of this package.

        See Also
        --------
        distillguard.load : Reads it.
        """
        check_is_fitted(self)
        if joined().first:
            save(self, path)

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network behind the predictions as ONNX, and check it in ONNX Runtime.

        The graph takes ``inputs``, float32 of shape (n, ...) for any n, and returns ``logits``,
        float32 of shape (n, n_classes) at temperature 1, in the order of ``classes_``, which
        are in the file's metadata as JSON under ``classes``.

        Parameters
        ----------
        path : str or path
            The file to write or replace. Nothing is left there if the check fails.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        MissingPackageError
            If onnx, onnxruntime or onnxscript is not installed: the extra ``onnx``.
        RuntimeError
            If ONNX Runtime's logits differ from torch's by more than 1e-4, or 1e-4 of the
            largest logit where that is above 1.

        Notes
        -----
        Networks trained in another precision are exported, and compared, in float32.
        """
        check_is_fitted(self)
        network = getattr(self, self._predictor)  # type: ignore[attr-defined]
        classes = np.asarray(self.classes_).tolist()  # type: ignore[attr-defined]
        export(network, self.input_shape_, path, classes)  # type: ignore[attr-defined]
