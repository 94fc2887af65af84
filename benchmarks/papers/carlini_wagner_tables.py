"""Carlini & Wagner 2017, section VIII-A and tables IV and VI: every distilled network is broken.

python -m benchmarks.papers.carlini_wagner_tables [--data mnist5k] [--seeds 3] [--full]
"""

from typing import TYPE_CHECKING, Any

from benchmarks.papers._claim import Claim, Row, Rows, check, comparison, main, mean, values
from benchmarks.papers._figures import axes, spread_of
from benchmarks.papers._lab import CLASSES, UNDEFENDED, Lab, Size, logits_of, mean_of, share
from benchmarks.papers.papernot_success import name_of
from distillguard.attacks import carlini_wagner_l0, carlini_wagner_l2, carlini_wagner_linf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = Size(10, 1000)
KINDS = (UNDEFENDED, "T=100")
ATTACKS = {"l0": carlini_wagner_l0, "l2": carlini_wagner_l2, "linf": carlini_wagner_linf}
UNITS = {"l0": "features", "l2": "", "linf": ""}
CASES = ("best", "average", "worst")
LOGITS = {UNDEFENDED: 5.8, "T=100": 482.0}
"""Mean |logit| on MNIST, section VIII-A."""
PUBLISHED: dict[str, dict[str, dict[str, tuple[float | None, ...]]]] = {
    "mnist": {
        UNDEFENDED: {"l0": (8.5, 16, 33), "l2": (1.36, 1.76, 2.60), "linf": (0.13, 0.16, 0.23)},
        "T=100": {"l0": (10, 19, 36), "l2": (1.7, 2.2, 2.9), "linf": (0.14, 0.18, 0.25)},
    },
    "cifar10": {
        UNDEFENDED: {
            "l0": (5.9, 13, 24),
            "l2": (0.17, 0.33, 0.51),
            "linf": (0.0092, 0.013, 0.019),
        },
        # The best case in the maximum norm is printed as 0.002, below the undefended network's.
        "T=100": {"l0": (7.4, 15, 29), "l2": (0.36, 0.60, 0.92), "linf": (None, 0.023, 0.038)},
    },
}
"""Mean distances of tables IV and VI: best, average and worst case."""


def units(lab: Lab) -> list[Row]:
    """The size of the logits, then three attacks, on two networks."""
    logits: list[Row] = [{"network": kind, "norm": "logits"} for kind in KINDS]
    return logits + [{"network": kind, "norm": norm} for norm in ATTACKS for kind in KINDS]


def measure(lab: Lab, seed: int, network: str, norm: str) -> Row:
    """Mean |logit| over the test images, or the distances to the nine wrong classes."""
    if norm == "logits":
        sizes = logits_of(lab.network(network, seed), lab.test[0]).abs().double()
        return {"mean_logit": sizes.mean().item(), "logit_spread": sizes.std().item()}
    found = lab.distances(ATTACKS[norm], norm, network, seed, lab.size(IMAGES))
    return {
        "success": share(found.isfinite()),
        "best": mean_of(found.amin(dim=1)),
        "average": mean_of(found),
        "worst": mean_of(found.amax(dim=1)),
    }


def checks(rows: Rows) -> list[Row]:
    """Logits grow with the temperature; every target is reached at little more distance."""

    def of(key: str, **wanted: Any) -> float | None:
        return mean(values(rows, key, **wanted))

    def ratio(key: str, norm: str) -> float | None:
        above, below = (of(key, network=kind, norm=norm) for kind in ("T=100", UNDEFENDED))
        return above / below if above is not None and below else None

    found = [
        check("mean |logit|, T = 100 divided by undefended", ratio("mean_logit", "logits"), ">", 30)
    ]
    for norm in ATTACKS:
        found += [
            check(f"{norm} success, {name_of(k)}", of("success", network=k, norm=norm), ">=", 1.0)
            for k in KINDS
        ]
        ours = ratio("average", norm)
        found.append(
            check(f"average {norm} distance, T = 100 divided by undefended", ours, "<=", 2)
        )
    return found


def comparisons(rows: Rows, column: str) -> list[Row]:
    """Logits, then table IV above table VI."""
    found = [
        comparison(
            f"mean absolute logit, {name_of(kind)}",
            LOGITS[kind] if column == "mnist" else None,
            values(rows, "mean_logit", network=kind, norm="logits"),
        )
        for kind in KINDS
    ]
    for kind in KINDS:
        for norm in ATTACKS:
            paper = PUBLISHED[column][kind][norm]
            found += [
                comparison(
                    f"{norm}, {case} case, {name_of(kind)}",
                    figure,
                    values(rows, case, network=kind, norm=norm),
                    UNITS[norm],
                )
                for case, figure in zip(CASES, paper, strict=True)
            ]
            success = [100 * v for v in values(rows, "success", network=kind, norm=norm)]
            found.append(comparison(f"{norm}, success, {name_of(kind)}", 100, success, "%"))
    return found


def draw(rows: Rows, column: str) -> "Figure":
    """One panel for each norm."""
    figure, panels = axes(3)
    for ax, norm in zip(panels, ATTACKS, strict=True):
        for shift, kind, colour in ((-0.2, UNDEFENDED, "C0"), (0.2, "T=100", "C1")):
            places = [place + shift for place in range(3)]
            found = [values(rows, case, network=kind, norm=norm) for case in CASES]
            heights = [mean(each) or 0.0 for each in found]
            errors = [spread_of(each) for each in found]
            ax.bar(places, heights, 0.38, yerr=errors, capsize=3, color=colour, label=name_of(kind))
            paper = PUBLISHED[column][kind][norm]
            ax.plot(places, [v if v else float("nan") for v in paper], "s", color="C7", ms=5)
        ax.plot([], [], "s", color="C7", ms=5, label="Carlini & Wagner 2017")
        ax.set_xticks(range(3), CASES)
        unit = (
            "features changed"
            if norm == "l0"
            else f"{norm.replace('l', 'L', 1)} distance (input units)"
        )
        ax.set(xlabel="of nine targets", ylabel=unit)
    panels[0].legend()
    return figure


CLAIM = Claim(
    name="carlini_wagner_tables",
    title="Every distilled network falls, at hardly more distance",
    text="""
Carlini and Wagner 2017 explain why the defence seemed to work. Training at temperature T makes the
logits about T times larger (5.8 on average on an undefended MNIST network, 482 at T = 100), and
that alone stops attacks that follow the softmax. Their three attacks on the logits, in L0, L2 and
L-infinity, reach every target on both networks (tables IV and VI). On MNIST, the distilled network
needs 1.1 to 1.3 times the average distance. Best, average and worst case are over the nine wrong
classes of an image.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Mean distance to the nearest of nine wrong classes, to all of them, and to the "
    "farthest; squares are the values of the paper's tables IV and VI.",
    differences="""
The attacks run distillguard's default algorithms, at 200 passes per image; the paper's cost up to
90,000 (`algorithm="paper"` runs those). The few targets that the default attacks miss are attacked
again with 1,000 steps. Distances are not rounded to 8 bits, and only images that the network
classifies correctly are attacked. L2 and L-infinity distances are up to a third longer than the
paper's. The likeliest reason is that MNIST-5k has 4,000 training images and the paper's MNIST
55,000.

Carlini and Wagner trained both networks for 50 epochs by SGD with momentum 0.9. Here, as in the
whole gallery, the recipe is Papernot's, and the last layer of the distilled network is trained in
units of T, so that its steps are as large as those of the undefended network. The difference in
distance that remains is due to the soft labels and the different initial weights, not to an
optimiser that works with gradients a hundred times smaller.
""",
    sizes={"attacked_images": IMAGES},
    passes=lambda lab: 2 * 3 * lab.size(IMAGES) * (CLASSES - 1) * 200,
    kinds=lambda lab: KINDS,
)

if __name__ == "__main__":
    main(CLAIM)
