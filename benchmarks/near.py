"""How near the boundary an example has to be for a costly attack to fool it.

    python -m benchmarks.near [--first 200] [--last 500] [--cache FOLDER] [--published FOLDER]

The networks of ``benchmarks.evaluation``, in linf and l2, on test images that it does not use. The
attacks of ``"standard"`` run in turn on all that stands. Kept for each that APGD with targets, FAB
or Square fools: which share of its clean lead the cheaper attacks before had left; and for those
that stand in the end how that share is spread. Writes ``results/near.json``.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, save, table
from benchmarks._robust import CACHE
from benchmarks.evaluation import subjects
from distillguard._geometry import lp_norm
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._presets import NEAR, preset
from distillguard.functional import margin_loss

COSTLY = ("APGD targeted", "FAB targeted", "Square")
FEWEST = 10
"""Images standing for which the others are worth a row."""


def lead(model: nn.Module, X: Tensor, y: Tensor) -> Tensor:
    """Lead of the true class."""
    with torch.no_grad():
        return -margin_loss(torch.cat([model(part) for part in X.split(256)]), y)


def row(model: nn.Module, X: Tensor, y: Tensor, norm: str, epsilon: float) -> dict[str, Any]:
    """What the costly attacks fool, and how near it was before."""
    threat = ThreatModel(norm, epsilon, (0.0, 1.0))
    clean = lead(model, X, y)
    standing, least = (clean > 0).nonzero().squeeze(1), torch.full_like(clean, torch.inf)
    late: list[tuple[str, float]] = []
    for name, spec in preset("standard", threat, batch_size=256, random_state=1).items():
        points = spec.attack(model, X[standing], y[standing])
        left = lead(model, points, y[standing])
        within = lp_norm(points - X[standing], norm) <= epsilon * (1 + 1e-5)
        fooled = within & (left <= 0)
        if name in COSTLY:
            late += [(name, share) for share in (least / clean)[standing[fooled]].tolist()]
        least[standing[within]] = least[standing[within]].minimum(left[within])
        standing = standing[~fooled]
    shares = (least / clean)[standing]
    ends = torch.quantile(shares, torch.tensor([0.1, 0.5, 0.9])).tolist() if len(shares) else []
    return {
        "examples": len(X),
        "standing": len(standing),
        "late": late,
        "share left, 10 %, 50 %, 90 %": ends,
        "far": (shares >= NEAR).double().mean().item() if len(shares) else 0.0,
    }


def main() -> None:
    """Measure every network and norm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--last", type=int, default=500)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--published", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, build, X, y, radii in subjects(chosen.last, chosen.cache, chosen.published):
        model = build().eval().requires_grad_(False)
        for norm in ("linf", "l2"):
            X_, y_ = X[chosen.first :], y[chosen.first :]
            found = row(model, X_, y_, norm, radii[norm])
            if found["standing"] < FEWEST:
                continue
            rows.append({"network": name, "norm": norm, **found})
            told = {"first": chosen.first, "last": chosen.last, "near": NEAR, "rows": rows}
            save("near", {**circumstances(), **told})
            print(rows[-1], flush=True)
    print(table(rows, ["network", "norm", "standing", "late", "far"]))


if __name__ == "__main__":
    main()
