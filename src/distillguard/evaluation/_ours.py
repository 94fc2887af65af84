"""The attacks of this package, bare or in partials: what they were given, what they still take."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, get_args

from torch import Tensor

from .. import attacks
from .._typing import Attack, Distance, Mask
from ._hidden import hidden_boundary_l2
from ._towards import towards


class Ours(NamedTuple):
    """An attack of this package and the keywords that partials gave it."""

    name: str
    given: Mapping[str, Any]
    parameters: Mapping[str, inspect.Parameter]

    def lacks(self, argument: str) -> bool:
        """Whether it takes the argument and was given none."""
        return argument in self.parameters and self.given.get(argument) is None

    @property
    def settings(self) -> dict[str, Any]:
        """Every argument: the defaults, and what it was given."""
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        return {**defaults, **self.given}

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that it can be asked for; none if it has only the one."""
        parameter = self.parameters.get("norm")
        return () if parameter is None else get_args(parameter.annotation)

    @property
    def norm(self) -> Distance | None:
        """The norm that it works in, by its arguments, its default or its nature."""
        if "norm" in self.parameters:
            return self.given.get("norm") or self.parameters["norm"].default
        return _ONLY.get(self.name)


_ONLY: dict[str, Distance] = {
    "carlini_wagner_l0": "l0",
    "carlini_wagner_l2": "l2",
    "carlini_wagner_linf": "linf",
    "ddn": "l2",
    "hidden_boundary_l2": "l2",
    "jsma": "l0",
    "rays": "linf",
}
"""The norm of those that know only one."""


def unwrapped(attack: Any) -> tuple[Any, dict[str, Any]]:
    """What is inside partials, and the keywords that they hold."""
    given: dict[str, Any] = {}
    while isinstance(attack, partial):
        given = {**attack.keywords, **given}
        attack = attack.func
    return attack, given


def ours(attack: Any) -> Ours | None:
    """Look at an attack of this package; None for anybody else's."""
    function, given = unwrapped(attack)
    name = getattr(function, "__name__", "")
    public = name in attacks.__all__ and getattr(attacks, name) is function
    if not public and function not in (hidden_boundary_l2, towards):
        return None
    return Ours(name, given, inspect.signature(function).parameters)


def completed(attack: Callable[..., Tensor], **offered: Any) -> Attack:
    """Give an attack of this package what it takes and was not given; leave others alone."""
    known = ours(attack)
    if known is None:
        return attack
    missing = {name: value for name, value in offered.items() if known.lacks(name)}
    return partial(attack, **missing) if missing else attack


def masked(attack: Attack, mask: Mask | None) -> Attack:
    """Tell an attack of this package which coordinates may change; others are judged by it."""
    return attack if mask is None else completed(attack, mask=mask)
