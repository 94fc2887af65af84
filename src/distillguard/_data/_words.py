"""How messages describe what a caller passed."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

SHOWN = 10
"""Keys or classes that a message lists."""


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
        return f"{kind} of {len(value)} items: {', '.join(map(_short, value[:SHOWN]))}"
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
