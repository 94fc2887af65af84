"""docs/benchmarks/optimum.md: generated from ``results/optimum.json``."""

from typing import Any

import numpy as np


def write() -> None:
    """Write the page anew."""


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """A row's figures over the images whose least distance is proved."""
    proved = [each for each in row["images"] if each["proved"]]
    names = list(row["images"][0]["attacks"])
    found = {"norm": row["norm"], "network": row["network"], "images": len(row["images"])}
    found |= {"proved": len(proved), "seconds": sum(each["seconds"] for each in row["images"])}
    least = np.array([each["high"] for each in proved])
    for name in names:
        mine = np.array([each["attacks"][name] for each in proved])
        found[name] = {
            "mean ratio": float((mine / least).mean()),
            "largest ratio": float((mine / least).max()),
            "median": float(np.median(mine)),
            "least median": float(np.median(least)),
        }
    return found
