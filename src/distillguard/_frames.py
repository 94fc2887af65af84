"""pandas, where it is installed."""

from typing import Any

from .exceptions import MissingPackageError


def pandas() -> Any:
    """Import pandas, or say what to install."""
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError(
            "to_frame needs pandas; install it with: pip install 'distillguard[pandas]'"
        ) from error
    return pandas
