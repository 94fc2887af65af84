"""matplotlib, where it is installed."""

from typing import Any

from .exceptions import MissingPackageError


def pyplot() -> Any:
    """Import matplotlib.pyplot, or say what to install."""
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise MissingPackageError(
            "plots need matplotlib; install it with: pip install 'distillguard[plot]'"
        ) from error
    return matplotlib.pyplot
