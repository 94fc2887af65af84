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


def drawn(text: Any, longest: int = 60) -> str:
    """Text that matplotlib draws as it is: on one line, cut where it is long, no formulas.

    matplotlib leaves labels that begin with "_" out of legends.
    """
    line = " ".join(str(text).split())
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    line = line.replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
