"""Carlini & Wagner 2017, figures 9 and 10: confident examples of a plain network transfer.

python -m benchmarks.papers.carlini_wagner_transfer [--data mnist5k] [--seeds 3] [--full]
"""

from typing import TYPE_CHECKING

from benchmarks.papers._claim import Claim, Row, Rows, check, comparison, main, mean, values
from benchmarks.papers._figures import axes, line
from benchmarks.papers._lab import HALVES, Lab, Size, answers, mean_of, random_class, share
from distillguard._geometry import lp_norm
from distillguard.attacks import carlini_wagner_l2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = Size(32, 1000)
CONFIDENCES = (0, 5, 10, 15, 20, 25, 30, 35, 40)
TARGETS = {"plain": HALVES[1], "distilled": "T=100"}


def units(lab: Lab) -> list[Row]:
    """Every confidence."""
    return [{"confidence": confidence} for confidence in CONFIDENCES]


def measure(lab: Lab, seed: int, confidence: int) -> Row:
    """Attack a plain network towards a random class, and ask two others."""
    source = lab.network(HALVES[0], seed)
    others = {name: lab.network(kind, seed) for name, kind in TARGETS.items()}
    inputs, labels = lab.chosen(seed, lab.size(IMAGES), source, *others.values())
    aims = random_class(labels, seed)[:, 0]
    adversarial = carlini_wagner_l2(
        source, inputs, aims, targeted=True, confidence=float(confidence)
    )
    made = answers(source, adversarial) == aims
    row = {"made": share(made), "distance": mean_of(lp_norm(adversarial - inputs, "l2")[made])}
    for name, model in others.items():
        said = answers(model, adversarial)[made]
        row[f"{name}_fooled"] = share(said != labels[made])
        row[f"{name}_reached"] = share(said == aims[made])
    return row


def checks(rows: Rows) -> list[Row]:
    """At the highest confidence nearly everything transfers, also to the distilled network."""
    return [
        check(
            f"transfer at confidence 40, plain to {name}",
            mean(values(rows, f"{name}_fooled", confidence=40)),
            ">=",
            0.95,
        )
        for name in TARGETS
    ]


def comparisons(rows: Rows, column: str) -> list[Row]:
    """Transfer by confidence; the paper's text has figures for the ends."""
    found = [
        comparison(
            f"examples that reach confidence {confidence} on the source",
            100.0 if column == "mnist" else None,
            [100 * v for v in values(rows, "made", confidence=confidence)],
            "%",
        )
        for confidence in (0, 20, 40)
    ]
    known = {("plain", 20): "nearly 100", ("distilled", 40): 100.0} if column == "mnist" else {}
    return found + [
        comparison(
            f"{words}, plain to {name}, confidence {confidence}",
            known.get((name, confidence)) if key == "fooled" else None,
            [100 * v for v in values(rows, f"{name}_{key}", confidence=confidence)],
            "%",
        )
        for name in TARGETS
        for key, words in (("fooled", "misclassified"), ("reached", "target class"))
        for confidence in CONFIDENCES[::2]
    ]


def draw(rows: Rows, column: str) -> "Figure":
    """Figure 9 above, figure 10 below."""
    figure, panels = axes(2)
    for ax, name in zip(panels, TARGETS, strict=True):
        for key, words in (("fooled", "untargeted: misclassified"), ("reached", "targeted")):
            found = [
                [100 * v for v in values(rows, f"{name}_{key}", confidence=confidence)]
                for confidence in CONFIDENCES
            ]
            line(ax, CONFIDENCES, found, label=words)
        ax.set(xlabel="confidence (logits)", ylabel="examples that transfer (%)", ylim=(0, 103))
        ax.set_title(f"plain to {name}")
        ax.legend(loc="lower right")
    return figure


CLAIM = Claim(
    name="carlini_wagner_transfer",
    title="Confident examples of a plain network transfer to a distilled one",
    text="""
A distilled network can be attacked without access to it. Carlini and Wagner 2017 (section VIII-D,
figures 9 and 10) make adversarial examples on an undefended network, which it misclassifies by a
logit margin of κ, and count how many another network misclassifies too. Between two plain networks,
each trained on half of the data, nearly all examples transfer at κ = 20. To a network distilled at
T = 100, all of them transfer at κ = 40.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Share of the examples made on a plain network that another network misclassifies, "
    "and share that it assigns to the target class, by confidence (figures 9 and 10).",
    differences="""
Each of the two plain networks is trained on one half of the training images, and they share neither
images nor initial weights. The distilled network is trained on all images, from its own initial
weights. What a given κ means depends on the size of the source network's logits, so the plain
networks are trained for a quarter more epochs than the other networks of the gallery, 50 by default
as in the paper. With fewer training images than in the paper, fewer examples transfer at κ = 20.
All transfer at κ = 40, but some targets cannot be reached with this margin within the pixel range.

Shares are relative to the examples that reach the margin on the source; the first rows of the table
say how many do. The target class is random. An example counts as transferred, as in the paper, if
the other network misclassifies it at all; the second curve counts those that it assigns to the
target class.
""",
    sizes={"attacked_images": IMAGES},
    passes=lambda lab: len(CONFIDENCES) * lab.size(IMAGES) * 200,
    kinds=lambda lab: (*HALVES, "T=100"),
)

if __name__ == "__main__":
    main(CLAIM)
