"""matplotlib, where it is installed."""

from typing import TYPE_CHECKING, Any

from .exceptions import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pyplot() -> Any:
    """Import matplotlib.pyplot, or say what to install."""
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise MissingPackageError(
            "plots need matplotlib; install it with: pip install 'distillguard[plot]'"
        ) from error
    return matplotlib.pyplot


def canvas(ax: "Axes | None", **settings: Any) -> tuple[Any, "Axes"]:
    """The figure and the axes to draw on, made where there are none."""
    if ax is None:
        figure, ax = pyplot().subplots(layout="constrained", **settings)
        return figure, ax
    return ax.get_figure(), ax


def drawn(text: Any, longest: int = 60) -> str:
    """Text that matplotlib draws as it is: on one line, cut where it is long, no formulas.

    matplotlib leaves labels that begin with "_" out of legends.
    """
    line = " ".join(str(text).split())
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    line = line.replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
