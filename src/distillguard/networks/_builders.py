"""Networks built from the parameters ``module`` and ``teacher`` of an estimator."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from .._copies import copied
from .._modes import on_cpu, unwrapped
from ._papers import mlp

# How the functions and classes of other libraries call the number of classes.
_CLASSES = ("num_classes", "n_classes")
_RULE = "must be an nn.Module, a callable (input_shape, n_classes) -> nn.Module or None"

Parameters = Mapping[str, inspect.Parameter]


def built(parameter: str, module: Any, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Return the estimator's own network: a copy, the result of a call, or sized from the data.

    Raises
    ------
    TypeError
        If ``module`` is nothing of the kind, cannot be called for a network, or returns none;
        the message calls it ``parameter``.
    """
    if module is None:
        with on_cpu():
            return mlp(input_shape, n_classes)
    if isinstance(module, nn.Module):
        return copied(unwrapped(module))
    if not callable(module):
        raise TypeError(f"{parameter} {_RULE}, got {type(module).__name__}")
    with on_cpu():  # where the generator is that was seeded; training moves it to its own device
        network = called(parameter, module, input_shape, n_classes)
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"{parameter} must be an nn.Module or a callable (input_shape, n_classes) -> "
            f"nn.Module, got one that returns {type(network).__name__}"
        )
    return unwrapped(network)


def called(parameter: str, factory: Callable[..., Any], shape: tuple[int, ...], n: int) -> Any:
    """Call a factory with shape and classes, or with the number of classes by keyword alone."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some built-in callables have no signature to look at
        return factory(shape, n)
    if _takes_shape(signature):
        return factory(shape, n)
    for name in _CLASSES:
        if _takes(signature.parameters, name) and _binds(signature, **{name: n}):
            return factory(**{name: n})
    name = getattr(factory, "__name__", type(factory).__name__)
    kind = "class" if isinstance(factory, type) else "function"
    raise TypeError(
        f"{parameter} {_RULE}, got the {kind} {name}, "
        f"{_other_arguments(signature.parameters)}; pass a network that is built already, or write "
        f"lambda shape, n_classes: {name}(...)"
    )


def _takes_shape(signature: inspect.Signature) -> bool:
    """Whether the first two arguments by position are the shape and the number of classes."""
    if not _binds(signature, (), 0):
        return False
    names = list(signature.parameters)
    first = signature.parameters[names[0]]
    if first.kind is first.VAR_POSITIONAL or "shape" in first.name:
        return True
    # Elsewhere the classes come late, after `weights`, `block` or `in_channels`.
    if any(name in names[2:] for name in _CLASSES):
        return False
    return first.default is first.empty or isinstance(first.default, tuple)


def _takes(parameters: Parameters, keyword: str) -> bool:
    if keyword in parameters:
        return parameters[keyword].kind is not inspect.Parameter.POSITIONAL_ONLY
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return anything and keyword == _CLASSES[0]


def _binds(signature: inspect.Signature, *args: Any, **keywords: Any) -> bool:
    try:
        signature.bind(*args, **keywords)
    except TypeError:
        return False
    return True


def _other_arguments(parameters: Parameters) -> str:
    """The arguments that a callable takes instead, in words."""
    needed = [name for name, each in parameters.items() if each.default is each.empty]
    listed = ", ".join(needed or parameters)
    return f"which takes {listed}" if listed else "which takes no arguments"
