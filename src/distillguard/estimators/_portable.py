"""Estimators on disk: what ``save`` writes of one, and the methods that bring one elsewhere."""

import os
import platform
from functools import partial
from importlib.metadata import version
from typing import Any, get_type_hints

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .. import _storage, networks
from .._processes import joined
from .._version import __version__
from ..exceptions import SaveError
from ._onnx import export

PLAIN = (bool, int, float, str, type(None))


class Portable:
    """Methods that write a fitted estimator to disk."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a folder, for :func:`distillguard.load` to read.

        The folder holds ``manifest.json`` (parameters, classes, history, the tensors of each
        network) and one safetensors file for each network. A save that is there already is
        replaced in one stroke: killed at any moment, the folder holds the old one or the new.
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
            If the folder holds another program's ``manifest.json``, or a network's state
            holds something other than tensors.

        See Also
        --------
        distillguard.load : Reads it.
        """
        check_is_fitted(self)
        if not joined().first:
            return
        held = {name.rstrip("_"): getattr(self, name) for name in networks_of(type(self))}
        states = {name: _state(network) for name, network in held.items()}
        _storage.write(path, _described(self, held), states)

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
        network = self.model_  # type: ignore[attr-defined]
        classes = np.asarray(self.classes_).tolist()  # type: ignore[attr-defined]
        export(network, self.input_shape_, path, classes)  # type: ignore[attr-defined]


def networks_of(kind: type) -> dict[str, str]:
    """The attributes that a class declares as ``nn.Module``, each with its parameter.

    ``teacher_`` comes from the parameter ``teacher`` where there is one; ``student_`` and
    ``model_`` come from ``module``.
    """
    declared = [name for name, hint in get_type_hints(kind).items() if hint is nn.Module]
    parameters = kind._get_param_names()  # type: ignore[attr-defined]
    return {
        name: name.rstrip("_") if name.rstrip("_") in parameters else "module"
        for name in declared
        if name.endswith("_")
    }


def _state(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise SaveError(
                f"module must have a state_dict of tensors, got {type(value).__name__} as {name}"
            )
    return state


def _described(estimator: Any, held: dict[str, nn.Module]) -> dict[str, Any]:
    """All of an estimator but its weights, as JSON carries it."""
    builders = sorted(set(networks_of(type(estimator)).values()))
    parameters = {
        name: _plain(value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in builders
    }
    fitted = {"classes": _classes(estimator.classes_)}
    for name in ("input_shape_", "n_features_in_", "feature_names_in_", "n_iter_", "history_"):
        if hasattr(estimator, name):
            fitted[name.rstrip("_")] = _plain(getattr(estimator, name))
    return {
        "estimator": type(estimator).__name__,
        "libraries": _libraries(),
        "parameters": {k: v for k, v in parameters.items() if v is not NotImplemented},
        "omitted": [k for k, v in parameters.items() if v is NotImplemented],
        "builders": {name: _builder(getattr(estimator, name)) for name in builders},
        "fitted": fitted,
        "channels_last": [name for name, network in held.items() if _is_channels_last(network)],
    }


def _plain(value: Any) -> Any:
    """What JSON can carry of a value; NotImplemented for what it cannot."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None  # JSON has no NaN
    if type(value) in PLAIN:
        return value
    if isinstance(value, list | tuple):
        parts = [_plain(each) for each in value]
        return NotImplemented if NotImplemented in parts else parts
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        held = {key: _plain(each) for key, each in value.items()}
        return NotImplemented if NotImplemented in held.values() else held
    return NotImplemented


def _classes(classes: Any) -> dict[str, Any]:
    values = classes.tolist()
    if classes.dtype.kind not in "biufUO" or not all(type(each) in PLAIN for each in values):
        raise SaveError(
            f"classes_ must be numbers or strings to be saved, got dtype {classes.dtype}"
        )
    return {"dtype": classes.dtype.str, "values": values}


def _builder(value: Any) -> dict[str, Any]:
    """How to make a network again: by a name that the library knows, or by the caller."""
    keywords: Any = {}
    if isinstance(value, partial) and not value.args:
        value, keywords = value.func, _plain(value.keywords)
    name = getattr(value, "__name__", "")
    if value is None:
        return {"kind": "none"}
    if name in networks.__all__ and value is getattr(networks, name) and isinstance(keywords, dict):
        return {"kind": "built-in", "name": name, "keywords": keywords}
    named = value if hasattr(value, "__qualname__") else type(value)
    return {"kind": "given", "name": f"{named.__module__}.{named.__qualname__}"}


def _is_channels_last(network: nn.Module) -> bool:
    """Whether convolutions lie as training may have laid them, which decides how they round."""
    return any(
        tensor.dim() == 4
        and tensor.is_contiguous(memory_format=torch.channels_last)
        and not tensor.is_contiguous()
        for tensor in network.parameters()
    )


def _libraries() -> dict[str, str]:
    names = ("torch", "numpy", "scikit-learn", "safetensors")
    ours = {"python": platform.python_version(), "distillguard": __version__}
    return ours | {name: version(name) for name in names}
