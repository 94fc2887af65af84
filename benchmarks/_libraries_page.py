"""The figures of docs/howto/libraries.md, from the result files of other benchmarks.

    python -m benchmarks._libraries_page

writes them between the page's marks.
"""

from pathlib import Path
from typing import Any

from benchmarks._attacks_page import HOT, ROBUST, UNDEFENDED, figures, matching, weakness
from benchmarks._common import load, table
from benchmarks._evaluation_page import judged
from benchmarks.front_page import between

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "libraries.md"
LIBRARIES = ("distillguard", "adv-lib", "foolbox", "torchattacks", "ART")
TASKS = {
    "FGSM, cross-entropy": ("fgsm", "cross-entropy", HOT),
    "PGD, cross-entropy": ("pgd", "cross-entropy", HOT),
    "PGD, margin": ("pgd", "margin", HOT),
    "smallest l2": ("l2", "least distance", HOT),
    "smallest linf": ("linf", "least distance", HOT),
    "fewest values": ("l0", "least distance", UNDEFENDED),
    "FAB, linf 0.3": ("fab", None, ROBUST),
}
"""What the page compares: group, kind and network of the rows of ``benchmarks.attacks``."""

Row = dict[str, Any]


def filled(text: str) -> str:
    """The page's text with the figures of the committed results."""
    lines = [
        "Each library's strongest setting, with forward + backward passes per image;",
        "`python -m benchmarks.attacks --data mnist5k`:",
        "",
        table(attacks(), ["task", "network", *LIBRARIES]),
        "",
        "`evaluate` and AutoAttack, robust accuracy and passes per image; `python -m",
        "benchmarks.evaluation`:",
        "",
        table(evaluations(), ["network", "radius", "evaluate", "AutoAttack"]),
    ]
    return between(text, "comparison", "\n".join(lines))


def attacks() -> list[Row]:
    """A row for each task, a cell for each library that has it."""
    rows = [row for row in load("attacks-mnist5k")["rows"] if "error" not in row]
    return [
        {"task": task, "network": network, **cells(rows, group, kind, network)}
        for task, (group, kind, network) in TASKS.items()
    ]


def cells(rows: list[Row], group: str, kind: str | None, network: str) -> dict[str, str]:
    """The best result of each library on one task, on the weights that ours attacked."""
    wanted = {"group": group, "network": network} | ({"kind": kind} if kind else {})
    (weights,) = {row["weights"] for row in matching(rows, library="distillguard", **wanted)}
    found = {}
    for library in LIBRARIES:
        if same := matching(rows, library=library, weights=weights, **wanted):
            result, passes, _ = figures(min(same, key=weakness))
            found[library] = f"{result}, {passes}"
    return found


def evaluations() -> list[Row]:
    """`evaluate` beside AutoAttack on an undefended, a distilled and a robust network."""
    report = load("evaluation")
    shown = []
    for network in (UNDEFENDED, HOT, ROBUST):
        for row in matching(report["rows"], network=f"MNIST-5k {network}"):
            one = judged(row, report["examples"])
            ours = f"{one['robust, %']:.1f} %, {one['passes']}"
            passes = one["AutoAttack's"]
            theirs = f"{one['AutoAttack']:.1f} %, {passes}"
            shown.append(
                {key: one[key] for key in ("network", "radius")}
                | {"evaluate": ours, "AutoAttack": theirs}
            )
    return shown


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
