"""Keywords of a factory as parameters of their own: ``module__hidden``."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ..training import OPTIMIZERS, SCHEDULERS

_NAMED: dict[str, dict[str, Any]] = {"optimizer": OPTIMIZERS, "lr_scheduler": SCHEDULERS}
"""Parameters that may be names, with the functions behind them."""


def keywords_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of partial functions, as parameters of their own."""
    return {
        f"{name}__{key}": value
        for name, function in parameters.items()
        if isinstance(function, partial)
        for key, value in function.keywords.items()
    }


def split(
    given: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Tell parameters from keywords of those parameters that are the estimator's own."""
    plain, nested = dict[str, Any](), dict[str, dict[str, Any]]()
    for name, value in given.items():
        parameter, double, keyword = name.partition("__")
        if double and parameter in own:
            nested.setdefault(parameter, {})[keyword] = value
        else:
            plain[name] = value
    return plain, nested


def with_keywords(parameter: str, factory: Any, keywords: dict[str, Any]) -> Any:
    """Return the factory with keywords; an estimator's own parameters are set in place."""
    if hasattr(factory, "set_params"):
        return factory.set_params(**keywords)
    if isinstance(factory, str) and factory in _NAMED.get(parameter, ()):
        factory = _NAMED[parameter][factory]
    _check_keywords(parameter, factory, keywords)
    return partial(factory, **keywords)


def _check_keywords(parameter: str, factory: Any, values: dict[str, Any]) -> None:
    if not callable(factory) or isinstance(factory, nn.Module):
        raise ValueError(
            f"{parameter} must be a function for {parameter}__{next(iter(values))} to be set, "
            f"got {type(factory).__name__}"
        )
    known = _keywords(factory)
    for keyword in values:
        if known is not None and keyword not in known:
            name = getattr(getattr(factory, "func", factory), "__name__", repr(factory))
            raise ValueError(
                f"{parameter}__... must name a keyword of {name} "
                f"({', '.join(known) or 'it has none'}), got {keyword!r}"
            )


def _keywords(factory: Callable[..., Any]) -> list[str] | None:
    """The keywords that a factory takes; None where any will do."""
    try:
        signature = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some built-in callables have no signature to look at
        return None
    if any(each.kind is each.VAR_KEYWORD for each in signature):
        return None
    named = [each for each in signature if each.kind is each.KEYWORD_ONLY]
    positional = [each for each in signature if each.kind is each.POSITIONAL_OR_KEYWORD]
    # The first two are given by position: the input's shape and the number of classes.
    return [each.name for each in (*positional[2:], *named)]
