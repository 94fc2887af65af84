"""docs/benchmarks/leaderboard.md: generated from ``results/leaderboard.json``."""

from pathlib import Path
from typing import Any

from benchmarks._common import load, table
from benchmarks.leaderboard import EPSILON, NEAR, PUBLISHED

NAME = "leaderboard"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / f"{NAME}.md"
TEXT = """\
% Written by: python -m benchmarks.leaderboard --page. Edit benchmarks/_leaderboard_page.py instead.

# A published figure, measured again

The MNIST network of TRADES (Zhang et al. 2019) on the official test digits, linf {epsilon:g}: the
figure that AutoAttack's authors published for all 10,000 (Croce and Hein 2020, and the
[list](https://github.com/fra31/auto-attack) of their package), the same attack measured again
(package pyautoattack, version "standard"), and `evaluate`.

{compared}

*Passes* are images sent forwards and backwards, per digit; of `evaluate` with everything that it
does, its diagnosis included. *Minutes* are those of the GPU or, on a processor, of one core.
{verdict}
{digits}

What stands after each attack of `evaluate`:

{after}

`evaluate` ran `attacks="standard"` and then, on the digits whose lead an attack had brought below
{near} % of the clean one, two longer searches: PGD on the margin from ten starts of stripes, and
Square with 5,000 queries. It was measured before "standard" left most of its own attacks to near
digits ([record 24](../adr/0024-far-examples-are-left-to-the-cheap-attacks.md)), and not since.

```
python -m torch.distributed.run --standalone --nproc-per-node 2 \\
    -m benchmarks.leaderboard FOLDER STATE
python -m benchmarks.leaderboard FOLDER --beside-autoattack 10000 --device cuda \\
    --batch-size 2500 --block 2500
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
    compared = [published(), measured_again(theirs), measured(ours)]
    after = [
        {"attack": f"`{name}`" if "(" in name else name, "robust accuracy, %": percent(share)}
        for name, share in ours["after_each_attack"].items()
    ]
    return TEXT.format(
        epsilon=EPSILON,
        near=round(100 * NEAR),
        compared=table(compared, list(compared[0])),
        verdict=verdict(ours),
        digits=digit_by_digit(ours, theirs),
        after=table(after, list(after[0])),
    )


def percent(share: float) -> str:
    """Two decimals, as the published figure has."""
    return f"{100 * share:.2f}"


def published() -> dict[str, str]:
    """The row of the authors' own figure."""
    return {
        "measured by": "AutoAttack, as published",
        "digits": "10,000",
        "robust accuracy, %": percent(PUBLISHED),
        "95 % interval": "",
        "passes": "",
        "minutes": "",
        "on": "",
    }


def measured_again(theirs: dict[str, Any]) -> dict[str, str]:
    """The row of pyautoattack."""
    return {
        "measured by": "AutoAttack (pyautoattack)",
        "digits": f"{theirs['examples']:,}",
        "robust accuracy, %": percent(theirs["robust_accuracy"]),
        "95 % interval": "",
        "passes": f"{theirs['passes']:.0f}",
        "minutes": minutes(theirs, "wall_minutes", "processor_minutes"),
        "on": theirs["gpu"] or theirs["processor"],
    }


def measured(ours: dict[str, Any]) -> dict[str, str]:
    """The row of ``evaluate``."""
    low, high = ours["interval"]
    return {
        "measured by": "`evaluate`",
        "digits": f"{ours['examples']:,}",
        "robust accuracy, %": percent(ours["quoted_accuracy"]),
        "95 % interval": f"[{percent(low)}, {percent(high)}]",
        "passes": f"{ours['passes']:.0f}",
        "minutes": minutes(ours, "wall_minutes_of_this_run", "processor_minutes_of_this_run"),
        "on": ours["gpu"] or ours["processor"],
    }


def minutes(part: dict[str, Any], wall: str, processor: str) -> str:
    """Of a GPU's clock, or of one processor core."""
    return f"{part[wall]:.1f}" if part["gpu"] else f"{part[processor]:.0f}"


def verdict(ours: dict[str, Any]) -> str:
    """Whether the published figure is reached."""
    more = round(ours["examples"] * (ours["quoted_accuracy"] - PUBLISHED))
    if more <= 0:
        return f"`evaluate` leaves {-more} digits fewer than the published figure."
    return f"**`evaluate` leaves {more} digits more than the published figure.**"


def digit_by_digit(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Which of the two fools what the other leaves, on the digits that both saw."""
    both = range(min(ours["examples"], theirs["examples"]))
    mine, other = (set(part["standing"]) & set(both) for part in (ours, theirs))
    return (
        f"Of the {len(both):,} digits that both attacked, it leaves {len(mine - other)} that\n"
        f"pyautoattack fools, and fools {len(other - mine)} that pyautoattack leaves."
    )
