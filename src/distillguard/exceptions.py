"""Errors and warnings that are distillguard's own; everything else is ValueError or TypeError."""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AttackError",
    "BrokenPromiseError",
    "DivergenceError",
    "MissingDataError",
    "MissingPackageError",
    "NoGradientError",
    "SaveError",
]


def __dir__() -> list[str]:
    return __all__


class AttackError(RuntimeError):
    """Not one attack of an evaluation ran; the message names each with what it raised."""


class BrokenPromiseError(AssertionError):
    """A check of :mod:`distillguard.testing` found promises that were not kept.

    Attributes
    ----------
    broken : tuple of distillguard.testing.BrokenPromise
        Each promise with what was found and the smallest example that shows it.
    unjudged : tuple of str
        Promises that could not be judged because of those.
    """

    def __init__(
        self, message: str, broken: Sequence[Any] = (), unjudged: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.broken, self.unjudged = tuple(broken), tuple(unjudged)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with what broke: errors travel between processes."""
        return type(self), (str(self), self.broken, self.unjudged)


class NoGradientError(RuntimeError):
    """A gradient attack met a model whose output does not depend on its input through autograd."""


class DivergenceError(RuntimeError):
    """The loss or a weight became NaN or infinite in training; the last good weights are kept.

    Attributes
    ----------
    history : list of dict
        The records of the network's epochs up to the one that failed, which is the last: its
        loss tells how. The estimator's ``history_`` holds those before it.
    """

    def __init__(self, message: str, history: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.history = list(history)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the history: errors travel between processes."""
        return type(self), (str(self), self.history)


class MissingDataError(FileNotFoundError):
    """A data set is not on this machine; the message says where its files belong."""


class MissingPackageError(ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class SaveError(ValueError):
    """A save is damaged, truncated, foreign or does not fit the module it is loaded into."""
