"""Which wrong classes to try: the likeliest, or those of the nearest boundaries (MALT).

    python -m benchmarks.targets [--first 200] [--last 700] [--cache FOLDER] [--networks NAME]

The networks of ``benchmarks.evaluation``, in l2, on test images that it does not use. Of the images
that a margin PGD from nine starts leaves standing, how many each targeted attack fools, how many
any of them does, and at how many passes an image. Beside them APGD on the plain and the rescaled
cross-entropy. Writes ``results/targets.json``.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import Counted, circumstances, save, table
from benchmarks._robust import CACHE
from benchmarks.evaluation import LOADERS, subjects
from distillguard import attacks
from distillguard._geometry import lp_norm

NORM = "l2"
TARGETED = {
    "4 likeliest, 40 steps": {"target_order": "likeliest", "n_targets": 4, "steps": 40},
    "2 nearest, 40 steps": {"target_order": "nearest", "n_targets": 2, "steps": 40},
    "3 nearest, 30 steps": {"target_order": "nearest", "n_targets": 3, "steps": 30},
    "3 nearest, 40 steps": {"target_order": "nearest", "n_targets": 3, "steps": 40},
}
MINIMUM = {
    "2 likeliest, 15 steps": {"target_order": "likeliest", "n_targets": 2, "steps": 15},
    "nearest, 15 steps": {"target_order": "nearest", "n_targets": 1, "steps": 15},
}


def contenders(epsilon: float) -> dict[str, Any]:
    """Every attack by name."""
    budget = {"norm": NORM, "epsilon": epsilon, "random_state": 1}
    minimum = {"norm": NORM, "stop_within": epsilon, "random_state": 1}
    ascent = partial(attacks.apgd, steps=20, **budget)
    return {
        **{f"APGD, {name}": partial(attacks.apgd_targeted, **told, **budget)
           for name, told in TARGETED.items()},
        **{f"FAB, {name}": partial(attacks.fab_targeted, **told, **minimum)
           for name, told in MINIMUM.items()},
        "APGD, cross-entropy": ascent,
        "APGD, rescaled cross-entropy": partial(ascent, loss="rescaled_cross_entropy"),
    }  # fmt: skip


def standing(model: nn.Module, X: Tensor, y: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """What is classified correctly and withstands PGD on the margin from nine starts."""
    correct = decided(model, X) == y
    X, y = X[correct], y[correct]
    points = attacks.pgd(
        model,
        X,
        y,
        norm=NORM,
        epsilon=epsilon,
        loss="margin",
        steps=20,
        step_size=2 * epsilon,
        step_decay=True,
        restarts=9,
        random_start="blocks",
        random_state=1,
    )
    left = decided(model, points) == y
    return X[left], y[left]


def decided(model: nn.Module, X: Tensor) -> Tensor:
    """Classes."""
    with torch.no_grad():
        return model(X).argmax(dim=1)


def row(model: nn.Module, X: Tensor, y: Tensor, epsilon: float) -> dict[str, Any]:
    """What each attack fools of the images that stand."""
    X, y = standing(model, X, y, epsilon)
    found, passes = {}, {}
    for name, attack in contenders(epsilon).items():
        counted = Counted(model)
        points = attack(counted, X, y)
        inside = lp_norm((points - X).double(), NORM) <= epsilon * (1 + 1e-5)
        found[name] = ((decided(model, points) != y) & inside).nonzero().squeeze(1).tolist()
        passes[name] = (counted.forwards + counted.backwards) / max(1, len(X))
    union = sorted(set().union(*found.values()))
    return {"standing": len(X), "union": union, "found": found, "passes": passes}


def main() -> None:
    """Measure every network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--last", type=int, default=700)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--networks", nargs="*", default=[""], help="those with one in the name")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, build, _, _, radii in subjects(1, chosen.cache, None):
        if not any(part in name for part in chosen.networks):
            continue
        data = next(data for data in LOADERS if name.startswith(data))
        X, y = (part[chosen.first : chosen.last] for part in LOADERS[data]("test"))
        rows.append({"network": name, **row(build(), X, y, radii[NORM])})
        print(name, {key: len(value) for key, value in rows[-1]["found"].items()}, flush=True)
        about = {"first": chosen.first, "last": chosen.last, "norm": NORM, "rows": rows}
        save("targets", {**circumstances(), **about})
    print(table(totals(rows), ["attack", "fools", "of", "passes"]))


def totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each attack, over all networks."""
    every = sum(len(each["union"]) for each in rows)
    images = sum(each["standing"] for each in rows)
    return [
        {
            "attack": name,
            "fools": sum(len(each["found"][name]) for each in rows),
            "of": every,
            "passes": sum(each["passes"][name] * each["standing"] for each in rows) / images,
        }
        for name in rows[0]["found"]
    ]


if __name__ == "__main__":
    main()
