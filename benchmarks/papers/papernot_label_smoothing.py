"""Papernot 2016, section VI: soft labels made by hand do not stop JSMA.

python -m benchmarks.papers.papernot_label_smoothing [--data mnist5k] [--seeds 3] [--full]
"""

from typing import TYPE_CHECKING

from benchmarks.papers._claim import Claim, Row, Rows, check, comparison, main, mean, values
from benchmarks.papers._figures import axes, line
from benchmarks.papers._lab import CLASSES, SMOOTHED, UNDEFENDED, Lab
from benchmarks.papers.papernot_success import IMAGES, PUBLISHED, measure, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (UNDEFENDED, SMOOTHED, "T=100")


def units(lab: Lab) -> list[Row]:
    """Without soft labels, with labels softened by hand, with those of a teacher."""
    return [{"network": kind} for kind in KINDS]


def published(column: str) -> dict[str, float]:
    """Percent of the targets reached."""
    known = PUBLISHED[column] | ({SMOOTHED: 86.0} if column == "mnist" else {})
    return {kind: known[kind] for kind in KINDS if kind in known}


def checks(rows: Rows) -> list[Row]:
    """The attack beats the control."""
    smoothed = mean(values(rows, "success", network=SMOOTHED))
    return [check("JSMA success with labels smoothed by hand", smoothed, ">=", 0.75)]


def comparisons(rows: Rows, column: str) -> list[Row]:
    """Success and accuracy of the three."""
    found = []
    for key, words in (("success", "JSMA success"), ("accuracy", "accuracy")):
        paper = published(column) if key == "success" else {}
        found += [
            comparison(
                f"{words}, {name_of(kind)}",
                paper.get(kind),
                [100 * value for value in values(rows, key, network=kind)],
                "%",
            )
            for kind in KINDS
        ]
    return found


def draw(rows: Rows, column: str) -> "Figure":
    """Success of the three beside the paper's."""
    figure, (ax,) = axes(1)
    found = [[100 * v for v in values(rows, "success", network=kind)] for kind in KINDS]
    line(ax, range(3), found, linestyle="", label="ours, mean and spread over seeds")
    paper = published(column)
    places = [KINDS.index(kind) for kind in paper]
    ax.plot(places, list(paper.values()), "s", color="C7", markersize=5, label="Papernot 2016")
    ax.set_xticks(range(3), [name_of(kind) for kind in KINDS])
    ax.set(ylabel="targets that JSMA reaches (%)", ylim=(0, 100), xlim=(-0.5, 2.5))
    ax.set_xlabel("training")
    ax.legend()
    return figure


CLAIM = Claim(
    name="papernot_label_smoothing",
    title="Labels softened by hand do not defend",
    text="""
Do soft labels in themselves defend a network? As a control, Papernot et al. 2016 (section VI) train
without a teacher, on labels of 0.9 for the true class and 0.01 for each of the others. JSMA
succeeds on 86 % of its targets, but on less than 1 % on a distilled network. It is the temperature
that stops the attack.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Success of JSMA on a network trained on hard labels, on one trained on labels "
    "smoothed by hand, and on a distilled one.",
    differences="""
The paper gives this figure only for MNIST and for a single network. Smoothed labels limit the gaps
between logits, so the softmax of such a network saturates less than that of an ordinary one.
Distillation does the opposite.
""",
    sizes={"attacked_images": IMAGES},
    passes=lambda lab: lab.size(IMAGES) * (CLASSES - 1) * 20,
    kinds=lambda lab: KINDS,
)

if __name__ == "__main__":
    main(CLAIM)
