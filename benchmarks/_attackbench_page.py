"""docs/benchmarks/attackbench.md: generated from the rows of ``benchmarks.attackbench``."""

from typing import Any

import numpy as np

from benchmarks._optimality import Distances, interval, local_optimality

OURS = "distillguard"


def write() -> None:
    """Write the page anew."""


def parsed(row: dict[str, Any]) -> Distances:
    """The distances of a row."""
    return np.array([float(value) for value in row["distances"].split()])


def envelope(rows: list[dict[str, Any]]) -> Distances:
    """Each image's least distance over all rows."""
    least: Distances = np.minimum.reduce([parsed(row) for row in rows])
    return least


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By budget: the best of ours and of the peers, and the interval of their difference.

    The rows are those of one network and norm; the envelope is that of all of them.
    """
    least = envelope(rows)
    found = []
    for budget in sorted({row["budget"] for row in rows}):
        at = [row for row in rows if row["budget"] == budget]
        ours, theirs = (
            max(
                (row for row in at if (row["library"] == OURS) == mine),
                key=lambda row: local_optimality(parsed(row), least),
                default=None,
            )
            for mine in (True, False)
        )
        if ours is None or theirs is None:
            continue
        low, high = interval(parsed(ours), parsed(theirs), least)
        found.append({
            "budget": budget,
            "ours": ours["attack"],
            "our optimality": float(local_optimality(parsed(ours), least)),
            "peer": f"{theirs['library']} {theirs['attack']}",
            "its optimality": float(local_optimality(parsed(theirs), least)),
            "low": low,
            "high": high,
        })  # fmt: skip
    return found
