"""Errors and warnings that are distillguard's own; everything else is ValueError or TypeError."""

__all__ = [
    "DivergenceError",
    "MissingDataError",
    "MissingPackageError",
    "NoGradientError",
    "SaveError",
]


class NoGradientError(RuntimeError):
    """A gradient attack met a model whose output does not depend on its input through autograd."""


class DivergenceError(RuntimeError):
    """Training left the finite numbers; the last good weights are kept."""


class MissingDataError(FileNotFoundError):
    """A data set is not on this machine; the message says where its files belong."""


class MissingPackageError(ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class SaveError(ValueError):
    """A save is damaged, truncated, foreign or does not fit the module it is loaded into."""
