"""docs/benchmarks/optimum.md: generated from ``results/optimum.json``."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import load, table

NAME = "optimum"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / f"{NAME}.md"
TEXT = """\
% Written by: python -m benchmarks.optimum --page. Edit benchmarks/_optimum_page.py instead.

# The attacks compared with the exact optimum

On small networks a mixed-integer solver can prove how near the closest misclassified point is.
This shows by how much the attacks overestimate that distance, and how much of `evaluate`'s robust
accuracy is true. Measured with {processor}, SciPy {scipy}, {date}.

The networks are dense ReLU networks with two hidden layers: of 20 units on MNIST-5k for linf, and
of 24 on the 64-pixel digits for l0. The search around an image ends at the distance that the
closest attack found, which keeps the programs small. The solver, HiGHS, had {seconds:g} seconds
for each class of an image.

```
python -m benchmarks.optimum --images {images}
python -m benchmarks.optimum --page
```

## Distance over the least distance

The ratios are over the images whose least distance is proved. In linf, proved means that no
misclassified point is more than a thousandth closer than the closest known one, so a ratio can be a
thousandth too small.

```{{rst-class}} compact
```

{ratios}

## How much of robust accuracy is true

The radii are the hardest ones, among the least distances themselves. The table counts the images
that `evaluate(attacks="standard")` does not fool: those that are proved to have no misclassified
point within the radius, those that have one which the attacks missed, and those for which the time
ran out.

```{{rst-class}} compact
```

{truth}

On these networks {verdict}
"""


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    result = load(NAME)
    rows = [row for row in result["rows"] if row["truth"]]
    judged = [each for row in rows for each in row["truth"]]
    return TEXT.format(
        processor=result["processor"],
        scipy=result["versions"]["scipy"],
        date=result["date"],
        seconds=max(each["limit"] for row in rows for each in row["images"]),
        images=max(len(row["images"]) for row in rows),
        ratios=table([line for row in rows for line in ratios(row)], list(ratios(rows[0])[0])),
        truth=table([line for row in rows for line in truth(row)], list(truth(rows[0])[0])),
        verdict=verdict(judged),
    )


def proved(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The images whose least distance is known."""
    return [each for each in row["images"] if each["proved"]]


def ratios(row: dict[str, Any]) -> list[dict[str, str]]:
    """A line for each attack on a network."""
    some, lines = proved(row), []
    least = np.array([each["high"] for each in some])
    for name in row["images"][0]["attacks"]:
        mine = np.array([each["attacks"][name] for each in some])
        found = np.isfinite(mine)
        ratio = mine[found] / least[found]
        lines.append({
            "norm": row["norm"],
            "network": f"{row['data']} {row['network']}",
            "proved": f"{len(some)} of {len(row['images'])}",
            "attack": name,
            "success, %": f"{100 * found.mean():.0f}",
            "mean ratio": f"{ratio.mean():.4f}",
            "largest": f"{ratio.max():.4f}",
            "median distance": f"{np.median(mine):.4g}",
            "least": f"{np.median(least):.4g}",
        })  # fmt: skip
    return lines


def truth(row: dict[str, Any]) -> list[dict[str, str]]:
    """A line for each radius on a network."""
    return [
        {
            "norm": row["norm"],
            "network": f"{row['data']} {row['network']}",
            "radius": f"{each['radius']:g}",
            "robust accuracy, %": f"{100 * each['standing'] / each['images']:.0f}",
            "standing": str(each["standing"]),
            "proved robust": str(each["proved robust"]),
            "missed": str(each["refuted"]),
            "unknown": str(each["unknown"]),
        }
        for each in row["truth"]
    ]


def verdict(judged: list[dict[str, Any]]) -> str:
    """The sum over all radii, in words."""
    standing, true, missed, unknown = (
        sum(each[name] for each in judged)
        for name in ("standing", "proved robust", "refuted", "unknown")
    )
    text = f"{true} of the {standing} that stand are proved robust, and {missed} are not robust"
    return text + (f"; {unknown} are unknown." if unknown else ".")
