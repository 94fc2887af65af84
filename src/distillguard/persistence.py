"""Reading what ``estimator.save`` wrote, without believing any of it."""

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import zip_longest
from types import UnionType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from . import _storage, estimators, networks
from ._copies import copied
from ._modes import dtype_of, isolated_random_state
from ._storage import MANIFEST, Described
from ._wrappers import scaled_as_saved
from .estimators._base import NetworkClassifier, NetworkFactory
from .estimators._builders import called
from .estimators._portable import networks_of
from .exceptions import SaveError

__all__ = ["load"]

MAX_CLASS_BYTES = 64 * 2**20

_FORM: dict[str, Any] = {
    "estimator": str,
    "libraries": {...: str},
    "parameters": {...: object},
    "omitted": [str],
    "builders": {...: {"kind": str, "name?": str, "keywords?": {...: object}}},
    "fitted": {
        "classes": {"dtype": str, "values": [bool | int | float | str]},
        "input_shape": [int],
        "n_features_in": int,
        "feature_names_in?": [str],
        "n_iter?": int,
        "history?": [{...: object}],
    },
    "channels_last": [str],
    "networks": {...: {"file": str, "sha256": str, "tensors": [(str, str, [int])]}},
    "format": str,
    "version": int,
}
"""What a manifest looks like: ``...`` stands for any key, ``?`` marks one that may be absent."""


def load(
    path: str | os.PathLike[str],
    module: nn.Module | NetworkFactory | None = None,
    teacher: nn.Module | NetworkClassifier | NetworkFactory | None = None,
    *,
    device: str = "cpu",
) -> Any:
    """Read a fitted estimator that its ``save`` wrote.

    It predicts what the saved one predicted, bit for bit on the same machine. Nothing is
    unpickled and no code comes from the folder, so that a save from a stranger is safe to try:
    it loads or raises :class:`~distillguard.exceptions.SaveError`.

    Parameters
    ----------
    path : str or path
        The folder.
    module : nn.Module or callable, optional
        The network, as the estimator was given it: a module, whose weights are not used, or a
        callable ``(input_shape, n_classes) -> nn.Module``. It may be left out where the
        estimator had None, a function of :mod:`distillguard.networks`, or a partial of one
        with keywords that JSON can carry.
    teacher : nn.Module, callable or fitted estimator, optional
        The same for the teacher, where the estimator was given another network for it.
    device : str, default="cpu"
        Where the networks are put: a torch device, or ``"auto"`` for CUDA if there is any.

    Returns
    -------
    estimator
        Of the class that was saved. ``fit`` trains it anew with the saved parameters.

    Raises
    ------
    SaveError
        If the save is damaged, truncated, of another program or of a newer version; or if a
        network does not fit it, in which case the message names the first tensor that differs.
    TypeError
        If ``module`` or ``teacher`` is neither a module nor a callable that makes one.

    Warns
    -----
    UserWarning
        If parameters such as callbacks or an optimiser's function could not be saved. They are
        at their defaults, which matters to the next ``fit`` only.

    Examples
    --------
    >>> import tempfile
    >>> from distillguard import DefensiveDistiller, datasets, load
    >>> X, y = datasets.load_digits("train")
    >>> distiller = DefensiveDistiller(max_epochs=1, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     distiller.save(folder)
    ...     loaded = load(folder)
    >>> bool((loaded.decision_function(X) == distiller.decision_function(X)).all())
    True
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest = _storage.read_manifest(path)
    _check_form(manifest, _FORM, "")
    kind = _kind(manifest)
    estimator = kind(**_parameters(manifest, kind))
    for name, value in _fitted(manifest["fitted"]).items():
        setattr(estimator, name, value)

    attributes = networks_of(kind)
    given = {"module": module, "teacher": teacher}
    builders = _builders(manifest, sorted(set(attributes.values())), given)
    for name, builder in builders.items():
        setattr(estimator, name, builder)
    states = {
        name: _storage.read_weights(path, name, entry)
        for name, entry in manifest["networks"].items()
    }
    if states.keys() != {name.rstrip("_") for name in attributes}:
        raise SaveError(f"{MANIFEST} must list the networks of {kind.__name__}, got {[*states]}")
    for attribute, parameter in attributes.items():
        name = attribute.rstrip("_")
        chosen = parameter if builders[parameter] is not None else "module"
        network = _built(chosen, builders[chosen], estimator, states[name])
        network = scaled_as_saved(network, states[name])
        _fill(network, chosen, name, states[name])
        if name in manifest["channels_last"]:
            network.to(memory_format=torch.channels_last)
        network.to(torch.device(device)).eval()
        _check_width(network, chosen, estimator)
        setattr(estimator, attribute, network)
    return estimator


def _check_form(value: Any, form: Any, where: str) -> None:
    """Compare what JSON gave with what is expected there."""
    if isinstance(form, dict):
        _expect(isinstance(value, dict), where, "an object", value)
        any_key = form.get(...)
        expected = {str(key).rstrip("?"): part for key, part in form.items() if key is not ...}
        for key, part in value.items():
            _expect(key in expected or any_key is not None, where, "known keys", key)
            _check_form(part, expected.get(key, any_key), f"{where}.{key}")
        needed = [key for key in form if key is not ... and not key.endswith("?")]
        missing = [key for key in needed if key not in value]
        _expect(not missing, where, f"the key {', '.join(missing)}", "none")
    elif isinstance(form, list):
        _expect(isinstance(value, list), where, "a list", value)
        for part in value:
            _check_form(part, form[0], f"{where}[]")
    elif isinstance(form, tuple):
        _expect(isinstance(value, list) and len(value) == len(form), where, "a list", value)
        for part, expected_part in zip(value, form, strict=True):
            _check_form(part, expected_part, f"{where}[]")
    elif isinstance(form, UnionType):
        _expect(type(value) in form.__args__, where, "a number or a string", value)
    else:
        # Exactly: True is an int to isinstance.
        _expect(form is object or type(value) is form, where, f"of type {form.__name__}", value)


def _expect(right: bool, where: str, what: str, got: Any) -> None:
    if not right:
        shown = repr(got)
        raise SaveError(
            f"{MANIFEST} must have {what} at {where.lstrip('.') or 'its top'}, "
            f"got {shown if len(shown) < 80 else shown[:77] + '...'}"
        )


def _kind(manifest: Mapping[str, Any]) -> type:
    """The class, among the library's own."""
    name = manifest["estimator"]
    kind = getattr(estimators, name) if name in estimators.__all__ else None
    _expect(isinstance(kind, type) and hasattr(kind, "save"), "estimator", "a class of ours", name)
    assert isinstance(kind, type)
    return kind


def _parameters(manifest: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    known = set(kind._get_param_names()) - set(networks_of(kind).values())
    for name in (*manifest["parameters"], *manifest["omitted"]):
        _expect(name in known, "parameters", f"parameters of {kind.__name__}", name)
    if manifest["omitted"]:
        warnings.warn(
            f"{', '.join(manifest['omitted'])} could not be saved and will be as by default in "
            "the next fit; set_params sets them again",
            stacklevel=3,
        )
    return {name: _tuples(value) for name, value in manifest["parameters"].items()}


def _tuples(value: Any, depth: int = 0) -> Any:
    """JSON's lists as tuples, which nobody changes by mistake."""
    _expect(depth < 32, "parameters", "lists within fewer than 32 lists", "more")
    if isinstance(value, list):
        return tuple(_tuples(each, depth + 1) for each in value)
    return value


def _fitted(fitted: Mapping[str, Any]) -> dict[str, Any]:
    """The learned attributes, checked against one another."""
    shape, n = fitted["input_shape"], fitted["n_features_in"]
    right = bool(shape) and min(shape) > 0 and math.prod(shape) == n and len(shape) < 16
    _expect(right, "fitted.input_shape", f"a shape of {n} numbers", shape)
    found = {"classes_": _classes(**fitted["classes"]), "input_shape_": tuple(shape)}
    found |= {f"{k}_": fitted[k] for k in ("n_features_in", "n_iter", "history") if k in fitted}
    if "feature_names_in" in fitted:
        names = fitted["feature_names_in"]
        _expect(len(names) == n, "fitted.feature_names_in", f"{n} names", len(names))
        found["feature_names_in_"] = np.array(names, dtype=object)
    return found


def _classes(dtype: str, values: list[Any]) -> NDArray[Any]:
    where = "fitted.classes"
    try:
        kind = np.dtype(dtype)
        small = kind.itemsize * len(values) <= MAX_CLASS_BYTES
        right = small and kind.kind in "biufUO" and kind.str == dtype
        _expect(right, where, "a dtype of numbers or short strings", dtype)
        classes = np.array(values, dtype=kind)
        # A dtype that cannot hold the values changes them.
        same = classes.tolist() == values and len(np.unique(classes)) == len(values) >= 2
    except SaveError:
        raise
    except (ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise SaveError(f"{MANIFEST} must have classes at {where}, got: {error}") from None
    _expect(same and list(np.unique(classes)) == list(classes), where, "sorted classes", values)
    return classes


def _builders(
    manifest: Mapping[str, Any], names: list[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """For each parameter that makes a network what the caller gave, else what was recorded."""
    recorded = manifest["builders"]
    _expect(sorted(recorded) == names, "builders", ", ".join(names), [*recorded])
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
    known = kind == "built-in" and name in networks.__all__
    _expect(known, f"builders.{parameter}", "a function of distillguard.networks", name)
    function = getattr(networks, str(name))
    keywords = {key: _tuples(value) for key, value in keywords.items()}
    return partial(function, **keywords) if keywords else function


def _built(parameter: str, builder: Any, estimator: Any, state: Mapping[str, Tensor]) -> nn.Module:
    """A network for the weights; stopped as soon as it gets larger than they are."""
    if isinstance(builder, NetworkClassifier):
        builder = getattr(builder, builder._predictor, builder)
    if isinstance(builder, nn.Module):
        return copied(builder)
    factory: Callable[..., Any] = networks.mlp if builder is None else builder
    if not callable(factory):
        raise TypeError(
            f"{parameter} must be an nn.Module or a callable, got {type(factory).__name__}"
        )
    shape, n_classes = estimator.input_shape_, len(estimator.classes_)
    try:
        with isolated_random_state([], None), _no_larger_than(state):
            network = called(parameter, factory, shape, n_classes)
    except Exception as error:
        raise SaveError(
            f"{parameter} must build the saved network for inputs of shape {shape} and "
            f"{n_classes} classes, got {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"{parameter} must return an nn.Module, got one that returns {type(network).__name__}"
        )
    return network


@contextmanager
def _no_larger_than(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop a construction that outgrows the saved network by far: its sizes were made up.

    A parameter is registered before its memory is written to, so that nothing large comes to
    be. Some room is left for functions that build a part and replace it.
    """
    saved = sum(tensor.numel() for tensor in state.values())
    left = [1000 + 8 * len(state), 2**26 + 4 * saved]
    builder = threading.get_ident()

    def count(owner: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != builder:
            return
        left[0] -= 1
        left[1] -= 0 if isinstance(parameter, nn.UninitializedParameter) else parameter.numel()
        if min(left) < 0:
            raise SaveError(
                f"{name} of {type(owner).__name__}, of shape {tuple(parameter.shape)}, is far "
                "more than the save holds"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _fill(network: nn.Module, parameter: str, name: str, state: Mapping[str, Tensor]) -> None:
    """Put the saved values into a network of the same architecture."""
    own = network.state_dict(keep_vars=True)
    for saved, ours in zip_longest(state.items(), own.items()):
        if saved and ours and saved[0] == ours[0] and is_lazy(ours[1]):
            continue  # it takes the saved shape
        if saved is None or ours is None or _kinds(*saved) != _kinds(*ours):
            theirs, found = (Described.of(*each) if each else "none" for each in (saved, ours))
            raise SaveError(
                f"{parameter} must have the saved architecture of {name}, whose first differing "
                f"tensor is {theirs}, got {found}"
            )
    for key, tensor in own.items():
        if is_lazy(tensor):
            continue
        tensor.data = tensor.data.to(state[key].dtype)
    network.load_state_dict(dict(state))


def _kinds(name: str, tensor: Tensor) -> tuple[Any, ...]:
    """What has to agree: training in another precision changes floating dtypes."""
    exact = None if tensor.is_floating_point() else tensor.dtype
    return name, tensor.shape, exact


def _check_width(network: nn.Module, parameter: str, estimator: Any) -> None:
    """Refuse a network with another number of logits than classes, without computing anything."""
    n_classes = len(estimator.classes_)
    # A copy whose tensors have shapes alone; those that are shared stay so.
    away: dict[int, Tensor] = {
        id(p): nn.Parameter(p.detach().to("meta"), False) for p in network.parameters()
    }
    away |= {id(b): b.detach().to("meta") for b in network.buffers()}
    dtype = dtype_of(network, torch.float32)
    inputs = torch.empty(2, *estimator.input_shape_, dtype=dtype, device="meta")
    try:
        with torch.no_grad():
            width = deepcopy(network, away)(inputs).shape[1]
    except Exception:
        return  # not every network can be run on shapes alone; predict looks again
    if width != n_classes:
        raise SaveError(
            f"{parameter} must return one logit for each of the {n_classes} saved classes, "
            f"got {width}"
        )
