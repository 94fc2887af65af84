"""All of an estimator but its weights: as a manifest tells it, and back from there."""

import math
import os
import platform
import warnings
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .. import networks
from .._version import __version__
from ..exceptions import SaveError
from ._networks import is_channels_last, networks_of
from ._schema import MANIFEST

MAX_CLASS_BYTES = 64 * 2**20
_PLAIN = (bool, int, float, str, type(None))
_OPTIONAL = ("feature_names_in", "n_iter", "history", "false_alarms")
_HOMES = ("distillguard.estimators", "distillguard.defenses")
"""Where the classes are that a manifest may name; they stand above what saves them."""

_NAMED, _ARGUMENTS = "class of distillguard", "arguments"
"""What tells a part of an estimator, such as a layer, from a mapping."""


def described(estimator: Any, held: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Tell an estimator, whose networks are given by name, as JSON carries it."""
    kind = type(estimator)
    if _class_named(kind.__name__) is not kind:
        raise SaveError(
            "the estimator must be of a class of distillguard, as a save holds no code to make "
            f"another again, got {kind.__module__}.{kind.__qualname__}"
        )
    builders = sorted(set(networks_of(kind).values()))
    made_by = [getattr(estimator, name) for name in builders]
    parameters = {
        name: _plain(value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in builders and not any(value is each for each in made_by if each is not None)
    }
    for name in getattr(kind, "_PARTS", ()):
        if parameters[name] is NotImplemented:
            raise SaveError(
                f"{name} must be of classes of distillguard.defenses to be saved, as a save holds "
                "no code to make others again; pickle the estimator"
            )
    return {
        "estimator": kind.__name__,
        "libraries": _libraries(),
        "parameters": {k: v for k, v in parameters.items() if v is not NotImplemented},
        "omitted": [k for k, v in parameters.items() if v is NotImplemented],
        "builders": {name: _builder(getattr(estimator, name)) for name in builders},
        "fitted": _learned(estimator),
        "channels_last": [name for name, network in held.items() if is_channels_last(network)],
    }


def restored(manifest: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Make the estimator again, but for its networks; ``given`` are the caller's builders."""
    kind = _kind(manifest)
    estimator = kind(**_parameters(manifest, kind))
    for name, value in _fitted(manifest["fitted"]).items():
        setattr(estimator, name, value)
    for name, builder in _builders(manifest, kind, given).items():
        setattr(estimator, name, builder)
    return estimator


def expect(right: bool, where: str, what: str, got: Any) -> None:
    """Refuse a manifest that has something else than ``what`` at a place."""
    if not right:
        shown = repr(got)
        raise SaveError(
            f"{MANIFEST} must have {what} at {where}, "
            f"got {shown if len(shown) < 80 else shown[:77] + '...'}"
        )


# --- the class and its parameters ------------------------------------------------------------


def _kind(manifest: Mapping[str, Any]) -> Any:
    """The class, among the estimators that the package itself offers."""
    kind = _class_named(manifest["estimator"])
    expect(kind is not None, "estimator", "a class of ours", manifest["estimator"])
    return kind


def _class_named(name: str) -> Any:
    kind = _part_named(name)
    return kind if hasattr(kind, "save") else None


def _part_named(name: Any) -> Any:
    """A class that a manifest may name: an estimator, a layer or a detector."""
    homes = map(import_module, _HOMES)
    kind = next((getattr(home, name) for home in homes if name in home.__all__), None)
    return kind if isinstance(kind, type) else None


def _part(value: Any) -> Any:
    """Identify an estimator, layer or detector of this package by class and arguments."""
    kind = type(value)
    arguments = {
        name: _plain(list(held) if isinstance(held, nn.ModuleList) else held)
        for name in signature(kind).parameters
        if (held := getattr(value, name, None)) is not None and name not in ("module", "teacher")
    }
    # What an estimator has that JSON cannot carry matters to its next fit only.
    if hasattr(kind, "save"):
        arguments = {k: v for k, v in arguments.items() if v is not NotImplemented}
    lost = NotImplemented in arguments.values()
    return NotImplemented if lost else {_NAMED: kind.__name__, _ARGUMENTS: arguments}


def _plain(value: Any) -> Any:
    """What JSON can carry of a value; NotImplemented for what it cannot."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value) in _PLAIN:
        finite = not isinstance(value, float) or math.isfinite(value)
        return value if finite else NotImplemented
    if isinstance(value, list | tuple):
        parts = [_plain(each) for each in value]
        return NotImplemented if NotImplemented in parts else parts
    if isinstance(value, nn.Module) or hasattr(value, "get_params"):
        return _part(value) if _part_named(type(value).__name__) is type(value) else NotImplemented
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        held = {key: _plain(each) for key, each in value.items()}
        return NotImplemented if NotImplemented in held.values() else held
    return NotImplemented


def _parameters(manifest: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    known = set(kind._get_param_names()) - set(networks_of(kind).values())
    for name in (*manifest["parameters"], *manifest["omitted"]):
        expect(name in known, "parameters", f"parameters of {kind.__name__}", name)
    if manifest["omitted"]:
        warnings.warn(
            f"{', '.join(manifest['omitted'])} could not be saved and will be as by default in "
            "the next fit; set_params sets them again",
            stacklevel=4,
        )
    return {name: _tuples(value) for name, value in manifest["parameters"].items()}


def _tuples(value: Any, depth: int = 0) -> Any:
    """JSON's lists as tuples, which nobody changes by mistake, and parts as they were."""
    expect(depth < 32, "parameters", "lists within fewer than 32 lists", "more")
    if isinstance(value, list):
        return tuple(_tuples(each, depth + 1) for each in value)
    if isinstance(value, dict) and _NAMED in value:
        return _made(value, depth)
    return value


def _made(told: Mapping[str, Any], depth: int) -> Any:
    """Make a part again."""
    name, arguments = told[_NAMED], told.get(_ARGUMENTS)
    kind: Any = _part_named(name) if isinstance(name, str) else None
    expect(kind is not None, "parameters", "classes of ours", name)
    expect(isinstance(arguments, dict), "parameters", f"the arguments of {name}", arguments)
    values = {key: _tuples(each, depth + 1) for key, each in told[_ARGUMENTS].items()}
    try:
        return kind(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise SaveError(f"{MANIFEST} must have arguments for {name}, got: {error}") from None


# --- what was learned ------------------------------------------------------------------------


def _learned(estimator: Any) -> dict[str, Any]:
    learned = {
        "classes": _told_classes(estimator.classes_),
        "input_shape": list(estimator.input_shape_),
        "n_features_in": estimator.n_features_in_,
    }
    for name in _OPTIONAL:
        if hasattr(estimator, f"{name}_"):
            value = getattr(estimator, f"{name}_")
            learned[name] = [*map(_row, value)] if name == "history" else _plain(value)
    return learned


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the history; None for what JSON has no word for: NaN, a callback's objects."""
    plain = {str(name): _plain(value) for name, value in record.items()}
    return {name: None if value is NotImplemented else value for name, value in plain.items()}


def _fitted(fitted: Mapping[str, Any]) -> dict[str, Any]:
    """The learned attributes, checked against one another."""
    shape, n = fitted["input_shape"], fitted["n_features_in"]
    expect(math.prod(shape) == n, "fitted.input_shape", f"a shape of {n} numbers", shape)
    found = {"classes_": _classes(**fitted["classes"]), "input_shape_": tuple(shape)}
    found |= {f"{k}_": fitted[k] for k in ("n_features_in", "n_iter", "history") if k in fitted}
    if "false_alarms" in fitted:
        alarms, shown = fitted["false_alarms"]
        expect(alarms <= shown, "fitted.false_alarms", "at most all examples", [alarms, shown])
        found["false_alarms_"] = (alarms, shown)
    if "feature_names_in" in fitted:
        names = fitted["feature_names_in"]
        expect(len(names) == n, "fitted.feature_names_in", f"{n} names", len(names))
        found["feature_names_in_"] = np.array(names, dtype=object)
    return found


def _told_classes(classes: Any) -> dict[str, Any]:
    values = classes.tolist()
    if classes.dtype.kind not in "biufUO" or not all(type(each) in _PLAIN for each in values):
        raise SaveError(
            f"classes_ must be numbers or strings to be saved, got dtype {classes.dtype}"
        )
    return {"dtype": classes.dtype.str, "values": values}


def _classes(dtype: str, values: list[Any]) -> NDArray[Any]:
    where = "fitted.classes"
    try:
        kind = np.dtype(dtype)
        small = kind.itemsize * len(values) <= MAX_CLASS_BYTES
        right = small and kind.kind in "biufUO" and kind.str == dtype
        expect(right, where, "a dtype of numbers or short strings", dtype)
        classes = np.array(values, dtype=kind)
        # A dtype that cannot hold the values changes them.
        same = classes.tolist() == values and len(np.unique(classes)) == len(values) >= 2
    except SaveError:
        raise
    except (ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise SaveError(f"{MANIFEST} must have classes at {where}, got: {error}") from None
    expect(same and list(np.unique(classes)) == list(classes), where, "sorted classes", values)
    return classes


# --- how the networks are made ---------------------------------------------------------------


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


def _builders(manifest: Mapping[str, Any], kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """For each parameter that makes a network what the caller gave, else what was recorded."""
    names = sorted(set(networks_of(kind).values()))
    recorded = manifest["builders"]
    expect(sorted(recorded) == names, "builders", ", ".join(names), [*recorded])
    if unused := [key for key, value in given.items() if value is not None and key not in names]:
        raise TypeError(f"{unused[0]} must be None for {manifest['estimator']}, which has none")
    return {
        name: given[name] if given.get(name) is not None else _recorded(name, recorded[name])
        for name in names
    }


def _recorded(parameter: str, builder: Mapping[str, Any]) -> Any:
    kind, name, keywords = builder["kind"], builder.get("name"), builder.get("keywords", {})
    if kind == "none":
        return None
    if kind == "given":
        raise SaveError(
            f"{parameter} must be given to load this save, made with {name}; pass that network "
            "or the function that builds it"
        )
    known = name in networks.__all__
    expect(known, f"builders.{parameter}", "a function of distillguard.networks", name)
    function = getattr(networks, str(name))
    keywords = {key: _tuples(value) for key, value in keywords.items()}
    return partial(function, **keywords) if keywords else function


def _libraries() -> dict[str, str]:
    names = ("torch", "numpy", "scikit-learn", "safetensors")
    ours = {"python": platform.python_version(), "distillguard": __version__}
    return ours | {name: version(name) for name in names}
