"""Carlini & Wagner 2016: JSMA works again once the temperature is undone.

python -m benchmarks.papers.carlini_wagner_jsma [--data mnist5k] [--seeds 3] [--full]
"""

from typing import TYPE_CHECKING

from benchmarks.papers._claim import (
    Claim,
    Row,
    Rows,
    check,
    comparison,
    main,
    mean,
    networks_in,
    values,
)
from benchmarks.papers._figures import axes, by_network, line
from benchmarks.papers._lab import (
    CLASSES,
    SALIENCIES,
    UNDEFENDED,
    Lab,
    Size,
    mean_of,
    share,
    temperature_of,
)
from benchmarks.papers.papernot_success import IMAGES, PUBLISHED, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOFTMAX, UNDONE, LOGITS = SALIENCIES
FEW = Size(20, 100)


def units(lab: Lab) -> list[Row]:
    """The softmax everywhere; the repairs where there is something to repair."""
    kinds = [UNDEFENDED, *(f"T={T}" for T in lab.temperatures if T in (1, 5, 20, 100))]
    return [{"network": kind, "saliency": saliency} for kind in kinds for saliency in SALIENCIES]


def measure(lab: Lab, seed: int, network: str, saliency: str) -> Row:
    """Share of the targets reached, and the features that a success takes."""
    if saliency == SOFTMAX or (network == UNDEFENDED and saliency == UNDONE):
        # There are more of these; the first are the same images.
        found = lab.saliency(network, seed, lab.size(IMAGES))[: lab.size(FEW)]
    else:
        found = lab.saliency(network, seed, lab.size(FEW), saliency)
    return {"success": share(found.isfinite()), "features": mean_of(found)}


def checks(rows: Rows) -> list[Row]:
    """The attack works again once the temperature is undone."""
    undone = mean(values(rows, "success", network="T=100", saliency=UNDONE))
    plain = mean(values(rows, "success", network=UNDEFENDED, saliency=SOFTMAX))
    lost = None if undone is None or plain is None else 100 * (plain - undone)
    return [
        check("JSMA success at T = 100, softmax of logits / T", undone, ">", 0.85),
        check("points of success lost against the undefended network", lost, "<=", 10),
    ]


def comparisons(rows: Rows, column: str) -> list[Row]:
    """Success by saliency and temperature, features by saliency."""
    paper = {(kind, SOFTMAX): figure for kind, figure in PUBLISHED[column].items()}
    if column == "mnist":
        paper["T=100", UNDONE] = 95.0
    found = [
        comparison(
            f"success, chosen by {saliency}, {name_of(kind)}",
            paper.get((kind, saliency)),
            [100 * v for v in values(rows, "success", network=kind, saliency=saliency)],
            "%",
        )
        for saliency in SALIENCIES
        for kind in networks_in(rows)
    ]
    return found + [
        comparison(
            f"features, chosen by {saliency}, {name_of(kind)}",
            35.0 if column == "mnist" and (kind, saliency) == ("T=100", UNDONE) else None,
            values(rows, "features", network=kind, saliency=saliency),
            "features",
        )
        for saliency in SALIENCIES
        for kind in networks_in(rows)
    ]


def draw(rows: Rows, column: str) -> "Figure":
    """Success to the above, features to the below."""
    figure, (above, below) = axes(2)
    names = sorted(networks_in(rows), key=lambda name: (name != UNDEFENDED, temperature_of(name)))
    for saliency in SALIENCIES:
        for ax, key, scale in ((above, "success", 100), (below, "features", 1)):
            found = [
                [scale * v for v in values(rows, key, network=kind, saliency=saliency)]
                for kind in names
            ]
            line(ax, range(len(names)), found, label=saliency)
    above.set(ylabel="targets that JSMA reaches (%)", ylim=(0, 103))
    below.set(ylabel="features changed in a success", ylim=(0, None))
    above.legend(title="pixels chosen by")
    for ax in (above, below):
        by_network(ax, names)
    return figure


CLAIM = Claim(
    name="carlini_wagner_jsma",
    title="JSMA works again once the temperature is undone",
    text="""
This is the same attack on the same networks with one change: the logits are divided by the
temperature before the softmax whose Jacobian chooses the pixels. With it, Carlini and Wagner 2016
reach about 95 % of the targets on a network distilled at T = 100 and change about 35 pixels, as
many as on an undefended network. Choosing pixels by the logits themselves does not saturate either,
but it gives all other classes the same weight and succeeds less often.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Share of targets that JSMA reaches, and number of features changed, by the function "
    "whose Jacobian chooses the pixels.",
    differences="""
Carlini and Wagner's repaired attack changes one pixel at a time, up or down, towards a random
class. Ours is Papernot's attack, which brightens pairs of pixels and is run towards all nine
classes, so that the division is the only difference. (`change="both"` lets pixels change either
way.) The paper's 95 % and 35 pixels come from the description of its code.
""",
    sizes={"attacked_images": FEW},
    passes=lambda lab: (2 * 4 + 1) * lab.size(FEW) * (CLASSES - 1) * 20,
    kinds=lambda lab: [kind for kind in lab.kinds if kind in (UNDEFENDED, "T=1", "T=20", "T=100")],
)

if __name__ == "__main__":
    main(CLAIM)
