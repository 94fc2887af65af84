"""What a cheaper evaluation leaves where AutoAttack leaves few: less than a fifth of the images.

The rows of ``benchmarks.evaluation`` in which "standard" takes more passes than its target, again
with less: with a brief diagnosis, with a third of the steps and a brief diagnosis, and as "quick".
Passes and networks are those of ``benchmarks.evaluation``, whose results are read and not repeated.

    python -m benchmarks.cheaper [--published FOLDER] [--cache FOLDER]

Writes ``results/cheaper.json``; ``python -m benchmarks.evaluation --page`` shows it.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, load, save, table
from benchmarks._evaluation_page import FEW, STANDING
from benchmarks._robust import CACHE
from benchmarks.evaluation import ours, subjects
from distillguard import attacks


def third(norm: str, epsilon: float) -> dict[str, Any]:
    """About a third of the steps of "standard", without its attacks that find few more."""
    budget: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "random_state": 0}
    starts: dict[str, Any] = {"restarts": 3, "random_start": "blocks"}
    steps: dict[str, Any] = {"steps": 15, "step_size": 2 * epsilon, "step_decay": True}
    targets: dict[str, Any] = {"steps": 15, "n_targets": 2, "target_order": "nearest"}
    return {
        "FGSM margin": partial(attacks.fgsm, loss="margin", **budget),
        "PGD margin": partial(attacks.pgd, loss="margin", **steps, **starts, **budget),
        "APGD targeted": partial(attacks.apgd_targeted, **targets, **budget),
    }


def row(model: nn.Module, X: Tensor, y: Tensor, norm: str, epsilon: float) -> dict[str, Any]:
    """Evaluate in every cheaper way."""
    ways: dict[str, dict[str, Any]] = {
        "brief": {"diagnosis": "brief"},
        "third": {"attacks": third(norm, epsilon), "diagnosis": "brief"},
        "quick": {"attacks": "quick"},
    }
    return {name: ours(model, X, y, norm, epsilon, **way) for name, way in ways.items()}


def main() -> None:
    """Measure every row that is above its target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--published", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    whole = load("evaluation")
    costly = {
        (each["network"], each["norm"]): each
        for each in whole["rows"]
        if each["AutoAttack"]["robust_accuracy"] < STANDING and each["distillguard"]["passes"] > FEW
    }
    rows: list[dict[str, Any]] = []
    for name, build, X, y, radii in subjects(whole["examples"], chosen.cache, chosen.published):
        for norm in radii:
            if (name, norm) not in costly:
                continue
            found = {"network": name, "norm": norm, "epsilon": radii[norm]}
            rows.append(found | row(build(), X, y, norm, radii[norm]))
            save("cheaper", circumstances() | {"examples": whole["examples"], "rows": rows})
    lines = [
        {"network": each["network"], "norm": each["norm"]}
        | {
            f"{way}, {what}": each[way][what]
            for way in ("brief", "third", "quick")
            for what in ("robust_accuracy", "passes")
        }
        for each in rows
    ]
    if lines:
        print(table(lines, list(lines[0])))


if __name__ == "__main__":
    main()
