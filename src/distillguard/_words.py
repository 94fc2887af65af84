"""How messages describe what a caller passed."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

SHOWN = 10
"""Keys or classes that a message lists."""


class Argument(str):
    """What the caller calls an argument, and how he writes code that changes it.

    ``code`` stands for the values, ``tensor`` for the same as a tensor; ``whole`` is the argument
    built from the changed values.
    """

    code: str
    tensor: str
    whole: str

    def __new__(cls, name: str, code: str = "", tensor: str = "", whole: str = "{}") -> "Argument":
        """Keep the code beside the name; plain names stand for themselves."""
        argument = super().__new__(cls, name)
        argument.code = code or name
        argument.tensor = tensor or argument.code
        argument.whole = whole
        return argument


def written(name: str, change: str) -> str:
    """The code of a change such as ``"{} / 255"`` or ``"{tensor}.flatten(1)"``."""
    argument = name if isinstance(name, Argument) else Argument(name)
    return argument.whole.format(change.format(argument.code, tensor=argument.tensor))


def described(value: Any) -> str:
    """What a value is, with what tells it from others of its kind."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool | int | float | complex):
        return repr(value)
    if isinstance(value, str):
        return f"the string {value!r}"
    if isinstance(value, Tensor | np.ndarray):
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{kind} with keys {listed(value)}"
    if isinstance(value, list | tuple):
        items = "1 item" if len(value) == 1 else f"{len(value)} items"
        shown = ", ".join(map(_short, value[:SHOWN]))
        return f"{kind} of {items}: {shown}" if value else f"an empty {kind}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return kind


def listed(values: Iterable[Any]) -> str:
    """The first few values, as Python writes them."""
    shown = [repr(value) for value in values]
    return ", ".join(shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")


def _short(value: Any) -> str:
    shape = f" {tuple(value.shape)}" if isinstance(value, Tensor | np.ndarray) else ""
    return type(value).__name__ + shape
