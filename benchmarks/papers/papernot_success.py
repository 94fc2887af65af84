"""Papernot 2016, figures 7 and 8: JSMA's success and the accuracy, by temperature.

python -m benchmarks.papers.papernot_success [--data mnist5k] [--seeds 3] [--full]
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
from benchmarks.papers._lab import CLASSES, UNDEFENDED, Lab, Size, answers, share, temperature_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = Size(100, 100)
PUBLISHED = {
    "mnist": {UNDEFENDED: 95.89, "T=1": 91.0, "T=2": 82.23, "T=5": 24.67, "T=10": 6.78}
    | {"T=20": 1.34, "T=30": 1.44, "T=40": 0.45, "T=50": 1.45, "T=100": 0.45},
    "cifar10": {UNDEFENDED: 87.89, "T=1": 92.78, "T=2": 87.67, "T=5": 67.0, "T=10": 47.56}
    | {"T=20": 18.23, "T=30": 13.23, "T=40": 9.34, "T=50": 6.23, "T=100": 5.11},
}
"""Success of JSMA in percent: the table in figure 7."""
CHANGES = {
    "mnist": {"T=1": -0.6, "T=2": -1.28, "T=5": -0.45, "T=10": -0.4, "T=20": -0.46}
    | {"T=30": -0.5, "T=40": -0.43, "T=50": -0.6, "T=100": -0.68},
    "cifar10": {"T=1": -0.05, "T=2": 1.27, "T=5": 1.25, "T=10": 0.95, "T=20": 0.55}
    | {"T=30": -0.25, "T=40": 0.18, "T=50": 0.08, "T=100": -1.37},
}
"""Change of accuracy in points: bars of figure 8, read by eye."""


def units(lab: Lab) -> list[Row]:
    """Every network."""
    return [{"network": kind} for kind in lab.kinds]


def measure(lab: Lab, seed: int, network: str) -> Row:
    """Accuracy on all test images, and the share of targets that JSMA reaches."""
    model = lab.network(network, seed)
    X, y = lab.test
    return {
        "accuracy": share(answers(model, X) == y),
        "success": share(lab.saliency(network, seed, lab.size(IMAGES)).isfinite()),
    }


def change(rows: Rows, network: str) -> list[float]:
    """Points of accuracy that the defence adds, seed by seed."""
    before = {row["seed"]: row["accuracy"] for row in rows if row["network"] == UNDEFENDED}
    return [
        100 * (row["accuracy"] - before[row["seed"]])
        for row in rows
        if row["network"] == network and row["seed"] in before
    ]


def checks(rows: Rows) -> list[Row]:
    """JSMA beats cold networks and fails on hot ones, and accuracy hardly changes."""
    hot = [kind for kind in networks_in(rows) if temperature_of(kind) >= 20]
    hardest = [mean(values(rows, "success", network=kind)) or 0.0 for kind in hot]
    distilled = [kind for kind in networks_in(rows) if kind != UNDEFENDED]
    moved = [abs(mean(change(rows, kind)) or 0.0) for kind in distilled]
    return [
        check("JSMA success at T = 1", mean(values(rows, "success", network="T=1")), ">", 0.9),
        check("largest JSMA success at any T >= 20", max(hardest, default=None), "<", 0.1),
        check("largest change of accuracy, points", max(moved, default=None), "<=", 1.5),
    ]


def comparisons(rows: Rows, column: str) -> list[Row]:
    """Success by temperature, then the change of accuracy."""
    found = [
        comparison(
            f"JSMA success, {name_of(kind)}",
            PUBLISHED[column].get(kind),
            [100 * value for value in values(rows, "success", network=kind)],
            "%",
            "the softmax is exactly 0 and 1" if temperature_of(kind) >= 20 else "",
        )
        for kind in networks_in(rows)
    ]
    accuracy = [100 * value for value in values(rows, "accuracy", network=UNDEFENDED)]
    paper = {"mnist": 99.51, "cifar10": 80.95}[column]
    found.append(comparison("accuracy, undefended", paper, accuracy, "%", "fewer training images"))
    return found + [
        comparison(
            f"change of accuracy, {name_of(kind)}",
            CHANGES[column].get(kind),
            change(rows, kind),
            "points",
        )
        for kind in networks_in(rows)
        if kind != UNDEFENDED
    ]


def name_of(kind: str) -> str:
    """Network in words."""
    return kind.replace("=", " = ")


def draw(rows: Rows, column: str) -> "Figure":
    """Figure 7 to the above, figure 8 to the below."""
    figure, (above, below) = axes(2)
    names = networks_in(rows)
    places = range(len(names))
    found = [[100 * v for v in values(rows, "success", network=kind)] for kind in names]
    line(above, places, found, label="ours, mean and spread over seeds")
    paper = [PUBLISHED[column].get(kind) for kind in names]
    above.plot(places, paper, "s--", color="C7", markersize=4, label="Papernot 2016")
    above.set(ylabel="targets that JSMA reaches (%)", ylim=(0, 100))
    above.legend()
    by_network(above, names)

    distilled = [kind for kind in names if kind != UNDEFENDED]
    places = range(len(distilled))
    ours = [mean(change(rows, kind)) or 0.0 for kind in distilled]
    theirs = [CHANGES[column].get(kind, 0.0) for kind in distilled]
    below.bar([p - 0.2 for p in places], ours, 0.4, label="ours")
    below.bar([p + 0.2 for p in places], theirs, 0.4, color="C7", label="Papernot 2016, by eye")
    below.axhline(0, color="black", linewidth=0.8)
    below.set(ylabel="change of accuracy (points)")
    below.legend()
    by_network(below, distilled)
    return figure


CLAIM = Claim(
    name="papernot_success",
    title="Distillation stops JSMA and keeps the accuracy",
    text="""
Papernot et al. 2016 report that defensive distillation brings the success of their saliency map
attack (JSMA) on MNIST from 95.89 % down to 0.45 %, at a cost of at most 1.28 points of accuracy
(figures 7 and 8). The attack here is the one they use. It chooses pairs of pixels by the Jacobian
of the *softmax*, sets both to 1, changes at most 112 of 784 pixels, and is run towards each of the
nine wrong classes.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Success of JSMA (figure 7 of the paper) and change of accuracy (figure 8), by "
    "temperature.",
    differences="""
MNIST-5k has 4,000 training images and MNIST 60,000, which costs accuracy. Only images that the
network classifies correctly are attacked. The paper attacks any image, and on a misclassified one
the attack reaches one of the nine targets without changing anything.

How often the attack succeeds on an ordinary network depends on how long the network was trained.
Shorter training leaves more targets out of reach, above all the digit 1, which cannot be made by
brightening pixels (`--epochs 20` shows this). The recipe matters too. It is that of the paper's
table II, with 40 instead of 50 epochs, and therefore without distillguard's averaged weights. Two
choices that the paper leaves open also matter: the initial weights are PyTorch's, and dropout
follows only the first hidden layer, as in Carlini and Wagner's code.

The temperature at which the attack begins to fail depends on the size of the logits, because the
temperature multiplies them. As soon as the softmax rounds to exactly 0 and 1, the derivative is
zero for every pair of pixels and the attack stops. Nothing else has changed, as
[the same attack with the temperature undone](carlini_wagner_jsma.md) shows.
""",
    sizes={"attacked_images": IMAGES},
    passes=lambda lab: lab.size(IMAGES) * (CLASSES - 1) * 60,
)

if __name__ == "__main__":
    main(CLAIM)
