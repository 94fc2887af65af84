"""Drawings of a report, with matplotlib where it is installed."""

from typing import TYPE_CHECKING

from ..._plot import drawn, pyplot
from ._table import bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ._report import RobustnessReport


def accuracy_bars(report: "RobustnessReport") -> "Figure":
    """Clean accuracy, then the accuracy left by each attack, with 95 % intervals."""
    plt = pyplot()
    rows = bars(report)

    figure, axes = plt.subplots(figsize=(7, 1 + 0.4 * len(rows)), layout="constrained")
    for place, (_, accuracy, (low, high)) in enumerate(rows):
        error = [[100 * max(accuracy - low, 0)], [100 * max(high - accuracy, 0)]]
        axes.barh(place, 100 * accuracy, xerr=error, color="C0" if place else "C7", capsize=3)
    axes.set_yticks(range(len(rows)), [drawn(name) for name, *_ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="accuracy (%)", ylabel="attack")
    axes.set_title(f"{drawn(report.title or report.model)}, {report.norm} {report.epsilon:.6g}")
    return figure
