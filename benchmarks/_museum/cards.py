"""The museum's page: one card for each row, generated from the results, never edited."""

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "museum.md"
GENERATED = "% Written by: python -m benchmarks.museum --pages. Edit benchmarks/_museum instead.\n"
POINTS = 0.05
"""How far an accuracy may exceed that under the best adaptive attack, and the twin's."""

BROKEN_BY = {
    "Athalye et al. 2018": "https://arxiv.org/abs/1802.00420",
    "Carlini and Wagner 2017": "https://arxiv.org/abs/1711.08478",
    "He et al. 2017": "https://arxiv.org/abs/1706.04701",
    "Mosbach et al. 2018": "https://arxiv.org/abs/1810.12042",
    "Tramer et al. 2020": "https://arxiv.org/abs/2002.08347",
}
"""The papers that broke the defences, by the name that cards give them."""

Row = dict[str, Any]


def verdict(row: Row) -> str:
    """Whether the accuracy that ``evaluate`` quotes agrees with the best adaptive attack."""
    said, left = row["evaluate"], row["adaptive"]["robust_accuracy"]
    severe = [code for code, severity in said["findings"] if severity == "severe"]
    if row["control"]:
        return "a severe finding on a control" if severe else "honest"
    if left > row["twin"]["robust_accuracy"] + POINTS + 1e-9:
        than = "no less than" if said["quoted_accuracy"] <= left else "less than"
        state = (
            "open: our attack leaves more accuracy than without the defence, and "
            f"{than} `evaluate` quotes"
        )
    elif said["quoted_accuracy"] <= left + POINTS + 1e-9:
        return "not fooled"
    else:
        state = f"fooled by {100 * (said['quoted_accuracy'] - left):.0f} points"
    named = [code for code in severe if code in row["causes"]]
    if named:
        return f"{state}; named: {', '.join(named)}"
    return f"{state}; warned: {', '.join(severe)}" if severe else state


def summary(row: Row) -> Row:
    """A row at a glance, in per cent."""
    return {
        "defence": row["title"],
        "clean": percent(row["clean_accuracy"]),
        "without": percent(row["twin"]["robust_accuracy"]),
        "unadapted PGD": percent(row["unadapted"]["robust_accuracy"]),
        "evaluate": percent(row["evaluate"]["robust_accuracy"]),
        "quoted": percent(row["evaluate"]["quoted_accuracy"]),
        "adaptive": percent(row["adaptive"]["robust_accuracy"]),
        "verdict": verdict(row),
    }


def percent(share: float) -> str:
    """A share in per cent with one digit."""
    return f"{100 * share:.1f}"


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    cards = [card(row) for row in result["rows"]]
    about = (
        f"{result['examples']} test images each, linf; {result['processor']}, "
        f"torch {result['versions']['torch']}, {result['date']}. `python -m benchmarks.museum` "
        "reproduces all figures."
    )
    return "\n".join(
        [GENERATED, TITLE, about + "\n", "::::{grid} 1 1 2 2\n:gutter: 3\n", *cards, "::::\n"]
    )


TITLE = """\
# The museum of broken defences

Most of these defences were published with a figure that a better attack later refuted; a few
robust models are included as controls. Each is rebuilt here in miniature. A card shows the
accuracy that remains after a plain PGD that ignores the defence (cross-entropy, 40 steps), the
accuracy that `evaluate` reports with default options, and the accuracy that remains after the best
attack that we could write for this defence. The last is the figure to rely on, and even that is
only an upper bound.

The accuracy of a randomised defence is the mean over 100 draws, at the attacked point where it is
lowest. A model that may reject inputs is judged as its authors judge it, also by `evaluate`: a
rejected adversarial example counts as withstood, a rejected clean one as an error.

The last line of each card compares the two. `evaluate` is "not fooled" if the accuracy that it
quotes is at most five points above the one under the best adaptive attack. "Open" means that even
that attack leaves over five points more than on the network without the defence, so part of the
robustness may be real.
"""


def linked(hole: str) -> str:
    """The words about a hole, with links to who found it."""
    for name, address in BROKEN_BY.items():
        hole = hole.replace(name, f"[{name}]({address})")
    return hole


def card(row: Row) -> str:
    """One defence."""
    shown = summary(row)
    findings = ", ".join(
        f"[{code}](findings/{code}.md)" for code, severity in row["evaluate"]["findings"]
    )
    lines = [
        f":::{{grid-item-card}} {row['title']}",
        "",
        f"[{row['paper']}]({row['link']}). {row['data']}, radius {row['epsilon']:g}.",
        "",
        f"*Claim.* {row['claim']}",
        "",
        f"*Weakness.* {linked(row['hole'])}",
        "",
        "| accuracy (%) under | |",
        "| --- | ---: |",
        f"| no attack | {shown['clean']} |",
        f"| unadapted PGD | {shown['unadapted PGD']} |",
        f"| `evaluate`, measured | {shown['evaluate']} |",
        f"| `evaluate`, quoted | {shown['quoted']} |",
        f"| best adaptive attack | {shown['adaptive']} |",
        f"| best attack, without the defence ({row['twin']['network']}) | {shown['without']} |",
        "",
        f"Findings: {findings or 'none'}.",
        "",
        f"**{shown['verdict'][0].upper()}{shown['verdict'][1:]}.**",
        ":::",
        "",
    ]
    return "\n".join(lines)
