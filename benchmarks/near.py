"""How near the boundary an example has to be for a costly attack to fool it.

    python -m benchmarks.near [--first 200] [--last 500] [--cache FOLDER] [--published FOLDER]
    python -m benchmarks.near --l1 ...

The networks of ``benchmarks.evaluation``, in linf and l2, on test images that it does not use; with
``--l1`` those of ``benchmarks.l1``, in l1. The attacks of ``"standard"`` run in turn on all that
stands. Kept for each image that Square fools, or an attack that far examples are spared: which
share of its clean lead the attacks before had left, and whether "standard" would have missed it;
and for those that stand in the end how that share is spread. Each attack has its own share above
which an image is far; those that are far for all of them count as far. Writes its part of
``results/near.json``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import l1
from benchmarks._common import circumstances, load, save, table
from benchmarks._robust import CACHE
from benchmarks.evaluation import subjects
from distillguard._geometry import lp_norm
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._presets import AttackSpec, preset
from distillguard.functional import margin_loss

FEWEST = 10
"""Images standing for which the others are worth a row."""


def lead(model: nn.Module, X: Tensor, y: Tensor) -> Tensor:
    """Lead of the true class."""
    with torch.no_grad():
        return -margin_loss(torch.cat([model(part) for part in X.split(256)]), y)


def standard(norm: str, epsilon: float) -> dict[str, AttackSpec]:
    """The attacks of "standard"."""
    threat = ThreatModel(norm, epsilon, (0.0, 1.0))
    return preset("standard", threat, batch_size=256, random_state=1)


def farthest(norm: str) -> float:
    """The share from which on no image meets an attack that spares far ones."""
    specs = standard(norm, 0.1).values()
    return max(spec.near for spec in specs if spec.near is not None)


def row(model: nn.Module, X: Tensor, y: Tensor, norm: str, epsilon: float) -> dict[str, Any]:
    """What the costly attacks fool, and how near it was before."""
    clean = lead(model, X, y)
    standing, least = (clean > 0).nonzero().squeeze(1), torch.full_like(clean, torch.inf)
    late: list[tuple[str, float]] = []
    missed = 0
    for name, spec in standard(norm, epsilon).items():
        points = spec.attack(model, X[standing], y[standing])
        left = lead(model, points, y[standing])
        within = lp_norm(points - X[standing], norm) <= epsilon * (1 + 1e-5)
        fooled = within & (left <= 0)
        if spec.near is not None or name == "Square":
            shares = (least / clean)[standing[fooled]]
            late += [(name, share) for share in shares.tolist()]
            missed += 0 if spec.near is None else int((shares >= spec.near).sum())
        least[standing[within]] = least[standing[within]].minimum(left[within])
        standing = standing[~fooled]
    shares = (least / clean)[standing]
    ends = torch.quantile(shares, torch.tensor([0.1, 0.5, 0.9])).tolist() if len(shares) else []
    return {
        "examples": len(X),
        "standing": len(standing),
        "late": late,
        "missed": missed,
        "share left, 10 %, 50 %, 90 %": ends,
        "far": (shares >= farthest(norm)).double().mean().item() if len(shares) else 0.0,
    }


Subject = tuple[str, str, nn.Module, Tensor, Tensor, float]


def in_l1(chosen: argparse.Namespace) -> Iterator[Subject]:
    """Name, norm, network, images, labels and radius of those of ``benchmarks.l1``."""
    for data, kind, build, X, y in l1.subjects(chosen.last, chosen.cache, chosen.published):
        yield f"{data} {kind}", "l1", build(), X, y, l1.RADII[data]


def in_linf_and_l2(chosen: argparse.Namespace) -> Iterator[Subject]:
    """Name, norm, network, images, labels and radius of those of ``benchmarks.evaluation``."""
    for name, build, X, y, radii in subjects(chosen.last, chosen.cache, chosen.published):
        model = build()
        for norm in ("linf", "l2"):
            yield name, norm, model, X, y, radii[norm]


def main() -> None:
    """Measure every network and norm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--last", type=int, default=500)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--l1", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    part, rows = "l1" if chosen.l1 else "linf and l2", []
    for name, norm, model, X, y, epsilon in (in_l1 if chosen.l1 else in_linf_and_l2)(chosen):
        model.eval().requires_grad_(False)
        found = row(model, X[chosen.first :], y[chosen.first :], norm, epsilon)
        if found["standing"] < FEWEST:
            continue
        rows.append({"network": name, "norm": norm, **found})
        told = {"first": chosen.first, "last": chosen.last, "near": farthest(norm), "rows": rows}
        save("near", load("near") | {part: circumstances() | told})
        print(rows[-1], flush=True)
    print(table(rows, ["network", "norm", "standing", "late", "missed", "far"]))


if __name__ == "__main__":
    main()
