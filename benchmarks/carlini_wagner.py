"""The two algorithms of our Carlini-Wagner attacks: distances, passes and seconds of both.

The default, and the published one with its constants, on the small networks of MNIST-5k
(undefended and distilled at T=100). Writes ``results/carlini-wagner.json`` after every row.

    python -m benchmarks.carlini_wagner [--images 8] [--cache FOLDER] [--norms l2 linf l0]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import Counted, circumstances, load, save, table
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained
from distillguard import attacks
from distillguard._geometry import lp_norm

DATA = "MNIST-5k"
KINDS = ("undefended", "T=100")


def main() -> None:
    """Run both, count, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--norms", nargs="+", default=["l2", "linf", "l0"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    X, y = (part[:TRAINED_ON] for part in LOADERS[DATA]("train"))
    rows: list[dict[str, Any]] = load("carlini-wagner").get("rows", [])
    for kind in KINDS:
        model = trained(kind, X, y, RADII[DATA]["linf"], chosen.cache / f"{DATA} {kind}.pt")
        inputs, labels = LOADERS[DATA]("test")
        with torch.no_grad():
            right = model(inputs).argmax(dim=1) == labels
        inputs, labels = inputs[right][: chosen.images], labels[right][: chosen.images]
        for norm in chosen.norms:
            for algorithm in ("fast", "paper"):
                counted, began = Counted(model).eval(), time.process_time()
                attack = getattr(attacks, f"carlini_wagner_{norm}")
                found = attack(counted, inputs, labels, algorithm=algorithm)
                distance = lp_norm(found - inputs, norm)
                row = {
                    "network": kind,
                    "norm": norm,
                    "algorithm": algorithm,
                    "images": len(inputs),
                    "success": (distance > 0).double().mean().item(),
                    "median distance": distance[distance > 0].median().item(),
                    "passes an image": counted.backwards / len(inputs),
                    "seconds": time.process_time() - began,
                }
                key = (kind, norm, algorithm)
                rows = [r for r in rows if (r["network"], r["norm"], r["algorithm"]) != key]
                rows.append(row)
                save("carlini-wagner", {**circumstances(), "data": DATA, "rows": rows})
                print(table([row], list(row)), flush=True)
    print(table(rows, list(rows[0])))


if __name__ == "__main__":
    main()
