"""Ten years in one figure: the same networks under every attack, by temperature.

python -m benchmarks.papers.story [--data mnist5k] [--seeds 3] [--full]
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

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
    HALVES,
    SALIENCIES,
    UNDEFENDED,
    Lab,
    Size,
    answers,
    random_class,
    share,
)
from benchmarks.papers.carlini_wagner_jsma import FEW
from benchmarks.papers.carlini_wagner_temperature import IMAGES as NEAREST
from benchmarks.papers.papernot_success import IMAGES as SALIENT
from benchmarks.papers.papernot_success import name_of
from distillguard.attacks import carlini_wagner_l2, fgsm, pgd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = Size(32, 1000)
CONFIDENCE = 40.0
AS_PUBLISHED = partial(pgd, step_decay=False, redraw=False)
"""Equal steps, and none where there is no gradient."""
BUDGETS: dict[str, Callable[..., Tensor]] = {
    "fgsm": fgsm,
    "pgd": AS_PUBLISHED,
    "pgd_margin": partial(AS_PUBLISHED, loss="margin"),
}
ATTACKS = {
    "fgsm": ("FGSM", 2014, "finds nothing: the softmax is saturated"),
    "jsma": ("JSMA on the softmax", 2016, "the defence seems to work"),
    "jsma_undone": (
        "JSMA, temperature undone",
        2016,
        "the defence fails: the attack had been numerically stuck",
    ),
    "cw": ("Carlini–Wagner L2", 2017, "no network is robust, whatever its temperature"),
    "transfer": ("transfer, confidence 40", 2017, "broken without access to the network"),
    "pgd": ("PGD on the cross-entropy", 2018, "looks robust to anyone who runs only this attack"),
    "pgd_margin": ("PGD on the margin", 2018, "the same attack on the logits: no accuracy is left"),
}
"""Name, year and what one would have concluded from it at T = 100."""


def units(lab: Lab) -> list[Row]:
    """Every network."""
    return [{"network": kind} for kind in lab.kinds]


def measure(lab: Lab, seed: int, network: str) -> Row:
    """Success of every attack."""
    model = lab.network(network, seed)
    inputs, labels = lab.chosen(seed, lab.size(IMAGES), model)
    row = {
        name: share(
            answers(
                model, attack(model, inputs, labels, epsilon=lab.about.epsilon, **_seeded(name))
            )
            != labels
        )
        for name, attack in BUDGETS.items()
    }
    undone = SALIENCIES[1]
    row["jsma"] = share(lab.saliency(network, seed, lab.size(SALIENT)).isfinite())
    if network == UNDEFENDED:
        row["jsma_undone"] = row["jsma"]
    else:
        found = lab.saliency(network, seed, lab.size(FEW), undone)
        row["jsma_undone"] = share(found.isfinite())
    row["cw"] = share(lab.nearest(network, seed, lab.size(NEAREST)).isfinite())

    made, truth = _confident(lab, seed)
    originals, _ = lab.chosen(seed, lab.size(NEAREST), lab.network(HALVES[0], seed))
    # What the attack did not reach comes back unchanged.
    counted = (answers(model, originals) == truth) & (made != originals).flatten(1).any(dim=1)
    row["transfer"] = share((answers(model, made) != truth)[counted])
    return row


def _seeded(name: str) -> dict[str, int]:
    return {} if name == "fgsm" else {"random_state": 0}


def _confident(lab: Lab, seed: int) -> tuple[Tensor, Tensor]:
    """Confident examples of a plain network, and their true classes."""
    source = lab.network(HALVES[0], seed)
    inputs, labels = lab.chosen(seed, lab.size(NEAREST), source)

    def compute() -> Tensor:
        aims = random_class(labels, seed)[:, 0]
        settings = {"targeted": True, "confidence": CONFIDENCE}
        return carlini_wagner_l2(source, inputs, aims, **settings).cpu()

    made: Tensor = lab.remembered(f"confident-{seed}-{len(inputs)}", compute)
    return made.to(labels.device), labels


def checks(rows: Rows) -> list[Row]:
    """The same network looks robust or broken, depending on the attack."""

    def at_hundred(key: str) -> float | None:
        return mean(values(rows, key, network="T=100"))

    lowest = [mean(values(rows, "cw", network=kind)) or 0.0 for kind in networks_in(rows)]
    return [
        check("PGD on the cross-entropy at T = 100", at_hundred("pgd"), "<", 0.5),
        check("PGD on the margin at T = 100", at_hundred("pgd_margin"), ">=", 0.95),
        check("lowest Carlini–Wagner success at any T", min(lowest, default=None), ">=", 1.0),
    ]


def comparisons(rows: Rows, column: str) -> list[Row]:
    """Each attack on the undefended network and at T = 100."""
    published = {("jsma", UNDEFENDED): 95.89, ("jsma", "T=100"): 0.45, ("cw", UNDEFENDED): 100.0}
    published |= {("cw", "T=100"): 100.0, ("jsma_undone", "T=100"): 95.0}
    published["transfer", "T=100"] = 100.0
    return [
        comparison(
            f"{title} ({year}), {name_of(kind)}",
            published.get((key, kind)) if column == "mnist" else None,
            [100 * v for v in values(rows, key, network=kind)],
            "%",
            remark if kind != UNDEFENDED else "",
        )
        for key, (title, year, remark) in ATTACKS.items()
        for kind in (UNDEFENDED, "T=100")
    ]


def draw(rows: Rows, column: str) -> "Figure":
    """One line for each attack."""
    figure, (ax,) = axes(1, height=5.4)
    names = networks_in(rows)
    for place, (key, (title, year, _)) in enumerate(ATTACKS.items()):
        found = [[100 * v for v in values(rows, key, network=kind)] for kind in names]
        blind = key in ("fgsm", "jsma", "pgd")
        style = {"linestyle": "--" if blind else "-", "marker": "osD^vPX"[place]}
        # Side by side, or those that reach everything would hide each other.
        places = [i + 0.09 * (place - (len(ATTACKS) - 1) / 2) for i in range(len(names))]
        line(ax, places, found, label=f"{year}  {title}", linewidth=1, **style)
    ax.set(ylabel="examples or targets reached (%)", ylim=(0, 103))
    title = "dashed: follows the softmax"
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, title=title)
    by_network(ax, names)
    return figure


CLAIM = Claim(
    name="story",
    title="The whole story in one figure",
    text="""
This figure shows the same networks under every attack of the story. Attacks that follow the softmax
at T = 1 (dashed) succeed less often the higher the temperature of training, and anyone who ran only
one of them would have reported a working defence. Attacks that use the logits, divide them by the
temperature, or transfer from another network succeed at every temperature.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Success of seven attacks by temperature: the share of images misclassified, or, for "
    "JSMA and Carlini–Wagner, of targets reached. FGSM and PGD have the usual l-infinity budget "
    "of the data set, JSMA may change 112 features, and the others have no budget.",
    differences="""
No paper contains this figure. Where a paper gives one of its values, the table quotes it, and the
page of that claim explains the differences. FGSM and PGD have an l-infinity budget of 0.3 for
digits, 0.1 for clothing and 8/255 for CIFAR-10; PGD takes 40 steps from a random start. The
transferred examples are made on an undefended network trained on half of the training images. Only
those that reach the confidence on that network are counted.
""",
    sizes={"attacked_images": IMAGES, "images_for_jsma": SALIENT, "images_for_l2": NEAREST},
    passes=lambda lab: (
        len(lab.kinds) * (lab.size(IMAGES) * 60 + lab.size(FEW) * (CLASSES - 1) * 20)
        + lab.size(NEAREST) * 200
    ),
    kinds=lambda lab: (*lab.kinds, HALVES[0]),
)

if __name__ == "__main__":
    main(CLAIM)
