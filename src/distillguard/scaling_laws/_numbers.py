"""Checks of numbers and arrays at the public interface."""

from numbers import Real
from typing import Any

import numpy as np


def positive(name: str, value: Any) -> np.ndarray:
    """As float64; refuses values that are not finite and above 0."""
    return _checked(name, value, "finite and above 0", lambda each: each > 0)


def not_negative(name: str, value: Any) -> np.ndarray:
    """As float64; refuses values that are not finite and at least 0."""
    return _checked(name, value, "finite and at least 0", lambda each: each >= 0)


def share(name: str, value: Any) -> np.ndarray:
    """As float64; refuses values outside [0, 1]."""
    return _checked(name, value, "in [0, 1]", lambda each: (each >= 0) & (each <= 1))


def like(values: np.ndarray, *arguments: Any) -> Any:
    """A float if every argument was a number, else an array."""
    scalar = all(np.ndim(each) == 0 for each in arguments if each is not None)
    return float(values) if scalar else np.asarray(values)


def _checked(name: str, value: Any, rule: str, holds: Any) -> np.ndarray:
    try:
        values = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be numbers, got {value!r}") from error
    wrong = values[~(np.isfinite(values) & holds(values))]
    if wrong.size:
        raise ValueError(f"{name} must be {rule}, got {wrong.flat[0]:g}")
    return values


def confidence_level(value: Any) -> float:
    """Refuse a level outside the open unit interval."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"confidence must be a number, got {value!r}")
    if not 0 < float(value) < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {value!r}")
    return float(value)
