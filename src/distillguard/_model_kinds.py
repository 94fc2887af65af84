"""What a model may be, and what to write for what people pass instead."""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ._words import described

NETWORKS = ("model_",)
"""Attributes that hold the predicting network, in every estimator here."""


def check_model(model: Any, name: str = "model") -> None:
    """Refuse what cannot be called, and classes and functions that only build a model."""
    if not callable(model) or isinstance(model, type) or _builds_a_module(model):
        raise TypeError(
            f"{name} must be a module or a callable from inputs to logits, got "
            f"{described(model)}{_remedy(model)}"
        )


def _builds_a_module(function: Any) -> bool:
    """Whether a function says that it returns a module rather than logits."""
    try:
        returned = typing.get_type_hints(function).get("return")
    except Exception:  # It has no annotations, or names in those of foreign code do not resolve.
        return False
    return isinstance(returned, type) and issubclass(returned, nn.Module)


def _remedy(model: Any) -> str:
    inside = [name for name in NETWORKS if hasattr(model, name)]
    if inside:
        return f"; pass its {inside[0]}"
    if isinstance(model, type):
        fit = ".fit(X, y)" if hasattr(model, "fit") and not issubclass(model, nn.Module) else ""
        return f"; write {model.__name__}{_arguments(model)}{fit}"
    if inspect.isroutine(model):
        return f"; write {model.__name__}{_arguments(model)}"
    if isinstance(model, Mapping):
        return "; build the network and call its load_state_dict"
    if hasattr(model, "__array__"):
        return "; the model comes first, then X and y"
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        return "; load the file first"
    if isinstance(model, list | tuple) and model and all(map(callable, model)):
        return "; evaluate one after another"
    return ""


def _arguments(maker: Callable[..., Any]) -> str:
    """How a call that makes a model looks, with dots for what it cannot do without."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except ValueError:
        return "(...)"
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one for one in parameters if one.default is one.empty and one.kind not in kinds]
    return "(...)" if needed else "()"
