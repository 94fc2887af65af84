"""Keywords of a factory as parameters of their own: ``module__hidden``."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from torch import nn

from .. import networks
from ..training import OPTIMIZERS, SCHEDULERS

_NAMED: dict[str, dict[str, Any]] = {"optimizer": OPTIMIZERS, "lr_scheduler": SCHEDULERS}
"""Parameters that may be names, with the functions behind them."""


class NestedParameters:
    """``name__keyword`` for every parameter ``name`` that is a function or a partial of one."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Include the keywords of partial functions, such as ``module__hidden``.

        Returns
        -------
        dict
            Names and values.
        """
        found: dict[str, Any] = super().get_params(deep=deep)  # type: ignore[misc]
        if deep:
            for name, value in list(found.items()):
                if isinstance(value, partial):
                    found |= {f"{name}__{key}": each for key, each in value.keywords.items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters, or keywords of those that are functions.

        ``set_params(module__hidden=(32,))`` makes ``module`` a partial function with that
        keyword; where ``module`` is None, one of :func:`distillguard.networks.mlp`.
        ``set_params(optimizer__weight_decay=5e-4)`` does the same to the optimiser of a name.

        Parameters
        ----------
        **params : dict
            New values by name.

        Returns
        -------
        estimator
            The estimator itself.

        Raises
        ------
        ValueError
            If a name is not a parameter, or a keyword is not one of the function.
        """
        own = self.get_params(deep=False)
        plain, keywords = {}, dict[str, dict[str, Any]]()
        for name, value in params.items():
            parameter, nested, keyword = name.partition("__")
            if nested and parameter in own:
                keywords.setdefault(parameter, {})[keyword] = value
            else:
                plain[name] = value
        super().set_params(**plain)  # type: ignore[misc]

        for parameter, values in keywords.items():
            factory = getattr(self, parameter)
            if hasattr(factory, "set_params"):
                factory.set_params(**values)
                continue
            if parameter == "module" and factory is None:
                factory = networks.mlp
            if isinstance(factory, str) and factory in _NAMED.get(parameter, ()):
                factory = _NAMED[parameter][factory]
            _check_keywords(parameter, factory, values)
            setattr(self, parameter, partial(factory, **values))
        return self


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
