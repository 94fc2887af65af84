"""Tables of pandas, where it is installed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .exceptions import MissingPackageError

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(content: Any, numbers: Iterable[str] = ()) -> "DataFrame":
    """A table of columns or records; columns of ``numbers`` are float64 though nothing be in them.

    Raises
    ------
    MissingPackageError
        If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError(
            "to_frame needs pandas; install it with: pip install 'distillguard[pandas]'"
        ) from error
    return pandas.DataFrame(content).astype(dict.fromkeys(numbers, "float64"))
