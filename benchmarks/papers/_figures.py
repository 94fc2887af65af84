"""Drawing: panels, means with their spread, networks along an axis."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def axes(n: int, height: float = 3.0) -> tuple["Figure", list[Any]]:
    """Return a figure of n panels below one another, legible on a telephone's width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height * n), layout="constrained")
    return figure, list(figure.subplots(n, squeeze=False).flat)


def spread_of(found: Sequence[float]) -> float:
    """Sample standard deviation; 0 of a single value, so that it can be drawn."""
    return statistics.stdev(found) if len(found) > 1 else 0.0


def line(ax: Any, places: Sequence[float], found: Sequence[Sequence[float]], **style: Any) -> None:
    """Draw means with the spread over the seeds; places without values are left out."""
    pairs = [(place, each) for place, each in zip(places, found, strict=True) if each]
    ax.errorbar(
        [place for place, _ in pairs],
        [statistics.fmean(each) for _, each in pairs],
        yerr=[spread_of(each) for _, each in pairs],
        **{"marker": "o", "markersize": 4, "capsize": 3} | style,
    )


def by_network(ax: Any, names: Sequence[str]) -> None:
    """Name the places 0, 1, ... of an axis by networks."""
    labels = ["none" if not name.startswith("T=") else name[2:] for name in names]
    ax.set_xticks(range(len(names)), labels)
    ax.set_xlabel("distillation temperature")
