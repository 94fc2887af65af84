"""Carlini & Wagner 2017, figure 8: the temperature does not make adversarial examples more distant.

python -m benchmarks.papers.carlini_wagner_temperature [--data mnist5k] [--seeds 3] [--full]
"""

from typing import TYPE_CHECKING

from benchmarks.papers._claim import Claim, Row, Rows, check, comparison, main, networks_in, values
from benchmarks.papers._figures import axes, line
from benchmarks.papers._lab import UNDEFENDED, Lab, Size, mean_of, share, temperature_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = Size(32, 1000)


def units(lab: Lab) -> list[Row]:
    """Every network; the undefended one for comparison only."""
    return [{"network": kind} for kind in lab.kinds]


def measure(lab: Lab, seed: int, network: str) -> Row:
    """Mean L2 distance to a random wrong class."""
    found = lab.nearest(network, seed, lab.size(IMAGES))
    return {"success": share(found.isfinite()), "distance": mean_of(found)}


def points(rows: Rows) -> list[tuple[float, float]]:
    """Temperature and distance of every distilled network."""
    return [
        (temperature_of(row["network"]), row["distance"])
        for row in rows
        if row["network"] != UNDEFENDED and row["distance"] is not None
    ]


def correlation(rows: Rows) -> tuple[float | None, float | None, float | None]:
    """Pearson's, with its 95 % interval by Fisher's transformation."""
    found = points(rows)
    if len(found) < 4 or len({T for T, _ in found}) < 2:
        return None, None, None
    from scipy.stats import pearsonr

    result = pearsonr(*zip(*found, strict=True))
    low, high = result.confidence_interval(0.95)
    return float(result.statistic), float(low), float(high)


def checks(rows: Rows) -> list[Row]:
    """Little correlation, over enough temperatures and seeds."""
    rho, low, high = correlation(rows)
    interval = "" if low is None else f" (95 % interval {low:.2f} to {high:.2f})"
    size = None if rho is None else abs(rho)
    temperatures = {T for T, _ in points(rows)}
    return [
        check(f"|correlation| of temperature and mean L2 distance{interval}", size, "<", 0.5),
        check("temperatures", float(len(temperatures)), ">=", 9),
        check("seeds", float(len({row["seed"] for row in rows})), ">=", 3),
        check("lowest L2 success", min(values(rows, "success"), default=None), ">=", 1.0),
    ]


def comparisons(rows: Rows, column: str) -> list[Row]:
    """The correlation, then the distances."""
    rho, low, high = correlation(rows)
    interval = "" if low is None else f"95 % interval {low:.2f} to {high:.2f}"
    paper = -0.05 if column == "mnist" else None
    return [comparison("correlation of temperature and distance", paper, [rho], "", interval)] + [
        comparison(
            f"L2 distance to a random class, {kind.replace('=', ' = ')}",
            {UNDEFENDED: 1.76, "T=100": 2.2}.get(kind) if column == "mnist" else None,
            values(rows, "distance", network=kind),
        )
        for kind in networks_in(rows)
    ]


def draw(rows: Rows, column: str) -> "Figure":
    """Figure 8: distance over temperature, each network a dot."""
    figure, (ax,) = axes(1)
    dots = {"color": "C0", "alpha": 0.5, "label": "one network"}
    ax.plot([T for T, _ in points(rows)], [distance for _, distance in points(rows)], ".", **dots)
    names = [kind for kind in networks_in(rows) if kind != UNDEFENDED]
    places = [temperature_of(kind) for kind in names]
    found = [values(rows, "distance", network=kind) for kind in names]
    line(ax, places, found, color="C0", label="mean and spread over seeds")
    undefended = values(rows, "distance", network=UNDEFENDED)
    if undefended:
        level = sum(undefended) / len(undefended)
        ax.axhline(level, color="C0", linestyle="--", label="undefended")
    if column == "mnist":
        ax.plot([100], [2.2], "s", color="C7", markersize=5, label="Carlini & Wagner 2017, T = 100")
    rho, low, high = correlation(rows)
    if rho is not None:
        ax.set_title(f"correlation {rho:.2f} (95 % interval {low:.2f} to {high:.2f})")
    ax.set(xlabel="distillation temperature", ylabel="mean L2 distance (input units)")
    ax.set_ylim(0, 1.3 * max([2.2, *values(rows, "distance")]))
    ax.legend(loc="lower right")
    return figure


CLAIM = Claim(
    name="carlini_wagner_temperature",
    title="The temperature does not matter to an attack on the logits",
    text="""
Does a higher temperature make a network even slightly more robust? Carlini and Wagner 2017 (section
VIII-C, figure 8) distil at temperatures from 1 to 100 and measure the mean L2 distance to a random
wrong class. Its correlation with the temperature is -0.05, although the success of JSMA falls with
the temperature just as Papernot et al. report.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Mean L2 distance to a random wrong class by temperature (figure 8).",
    differences="""
The correlation here is over the networks of all seeds, each attacked on the images of its seed; the
paper has one network for each temperature. The last layer is trained in units of T, so that
training at a high temperature is not slower. With the same initial weights, T = 5, 10, 20 and 40
would then give the same network at four scales, equal to the last bit, so each network here starts
from its own weights. The undefended network and the network at T = 100 both need longer distances
than the paper's, as in [the tables](carlini_wagner_tables.md).
""",
    sizes={"attacked_images": IMAGES},
    passes=lambda lab: len(lab.kinds) * lab.size(IMAGES) * 200,
)

if __name__ == "__main__":
    main(CLAIM)
