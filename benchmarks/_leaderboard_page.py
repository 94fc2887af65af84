"""docs/benchmarks/leaderboard.md: generated from ``results/leaderboard.json``."""

from pathlib import Path
from typing import Any

from benchmarks._common import load, table
from benchmarks.leaderboard import EPSILON, PUBLISHED

NAME = "leaderboard"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / f"{NAME}.md"
TEXT = """\
% Written by: python -m benchmarks.leaderboard --page. Edit benchmarks/_leaderboard_page.py instead.

# A published figure, measured again

The MNIST network of TRADES (Zhang et al. 2019) on the official test digits, linf {epsilon:g}: the
figure that AutoAttack's authors published for all 10,000 (Croce and Hein 2020, and the
[list](https://github.com/fra31/auto-attack) of their package), beside `evaluate` with its defaults,
that is `attacks="standard"`. {processor}, torch {torch}, {date}.

{whole}

*Passes* are images sent forwards and backwards, per digit, with everything that `evaluate` does,
its diagnosis included. It ran in {processes} processes of one thread each and took {minutes:.0f}
processor minutes. {verdict}

On the first {n} digits the published AutoAttack (package pyautoattack, version "standard") ran on
the same machine, so that the two can be compared digit by digit:

{first}

{digits}

```
python -m torch.distributed.run --standalone --nproc-per-node 2 \\
    -m benchmarks.leaderboard FOLDER STATE
python -m benchmarks.leaderboard FOLDER --beside-autoattack {n}
python -m benchmarks.leaderboard --page
```

FOLDER holds the weights and the digits, which are not ours to ship: `benchmarks/_published.py` says
where they come from. A run that was interrupted goes on from STATE.
"""


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    result = load(NAME)
    ours, theirs = result["evaluate"], result["autoattack"]
    left = sum(place < theirs["examples"] for place in ours["standing"]) / theirs["examples"]
    return TEXT.format(
        epsilon=EPSILON,
        processor=result["processor"],
        torch=result["versions"]["torch"],
        date=result["date"],
        whole=table(whole(ours), list(whole(ours)[0])),
        processes={1: "one", 2: "two"}.get(ours["processes"], ours["processes"]),
        minutes=ours["minutes"],
        verdict=verdict(ours),
        n=theirs["examples"],
        first=table(first(ours, theirs, left), list(first(ours, theirs, left)[0])),
        digits=digit_by_digit(round(theirs["examples"] * (left - theirs["robust_accuracy"]))),
    )


def percent(share: float) -> str:
    """Two decimals, as the published figure has."""
    return f"{100 * share:.2f}"


def whole(ours: dict[str, Any]) -> list[dict[str, str]]:
    """The published figure above ours."""
    low, high = ours["interval"]
    return [
        {
            "on": "10,000 digits",
            "measured by": "AutoAttack, as published",
            "robust accuracy, %": percent(PUBLISHED),
            "95 % interval": "",
            "passes": "",
        },
        {
            "on": f"{ours['examples']:,} digits",
            "measured by": "`evaluate`",
            "robust accuracy, %": percent(ours["quoted_accuracy"]),
            "95 % interval": f"[{percent(low)}, {percent(high)}]",
            "passes": f"{ours['passes']:.0f}",
        },
    ]


def first(ours: dict[str, Any], theirs: dict[str, Any], left: float) -> list[dict[str, str]]:
    """Both on the first digits; the passes of ours are those of the whole."""
    return [
        {
            "measured by": "AutoAttack (pyautoattack)",
            "robust accuracy, %": percent(theirs["robust_accuracy"]),
            "passes": f"{theirs['passes']:.0f}",
        },
        {
            "measured by": f"`evaluate`, its passes over all {ours['examples']:,}",
            "robust accuracy, %": percent(left),
            "passes": f"{ours['passes']:.0f}",
        },
    ]


def verdict(ours: dict[str, Any]) -> str:
    """Whether the published figure is reached."""
    more = round(ours["examples"] * (ours["quoted_accuracy"] - PUBLISHED))
    if more <= 0:
        return f"It leaves {-more} digits fewer than the published figure."
    return f"**It leaves {more} digits more than the published figure.**"


def digit_by_digit(more: int) -> str:
    """How many of the first digits `evaluate` leaves more than AutoAttack."""
    if more == 0:
        return "Both leave the same number."
    return f"`evaluate` leaves {abs(more)} {'more' if more > 0 else 'fewer'}."
