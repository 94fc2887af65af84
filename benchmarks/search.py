"""What ``precision`` and ``compile`` of ``evaluate`` give: robust accuracy and processor seconds.

Adversarially trained networks: the small one on MNIST-5k, a residual network on Fashion-MNIST and,
where its folder is given, the published one by TRADES; "standard" in linf with the search in the
model's own precision, in bfloat16, and on what ``torch.compile`` made (its own time counted apart
by a second run). Writes ``results/search.json`` after every row; rows that are there are kept.

    python -m benchmarks.search [--examples 100] [--cache FOLDER] [--published FOLDER]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._common import circumstances, load, save, table
from benchmarks._robust import CACHE
from benchmarks.evaluation import subjects, totals
from distillguard import evaluate

NETWORKS = (
    "MNIST-5k adversarially trained",
    "Fashion-MNIST residual network, BatchNorm and SiLU",
    "MNIST TRADES (published)",
)
SEARCHES: dict[str, dict[str, Any]] = {
    "own precision": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "compile": {"compile": True},
    "compile, again": {"compile": True},
}


def measured(model: nn.Module, settings: dict[str, Any], **common: Any) -> dict[str, Any]:
    """Evaluate and count processor seconds and passes, the diagnosis not counted."""
    began = time.process_time()
    report = evaluate(model, **common, **settings, diagnosis=None)
    seconds = time.process_time() - began
    return {
        "robust, %": 100 * report.robust_accuracy,
        "passes": totals(report)[0],
        "seconds": seconds,
    }


def main() -> None:
    """Measure every network and search."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--published", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    before = load("search")
    rows = before.get("rows", []) if before.get("examples") == chosen.examples else []
    for name, build, X, y, radii in subjects(chosen.examples, chosen.cache, chosen.published):
        if name not in NETWORKS or any(row["network"] == name for row in rows):
            continue
        model, found = build(), []
        for search, settings in SEARCHES.items():
            common = {"X": X, "y": y, "epsilon": radii["linf"], "random_state": 0}
            row = {"network": name, "search": search, **measured(model, settings, **common)}
            found.append(row | {"share of seconds": 1.0})
            found[-1]["share of seconds"] = row["seconds"] / found[0]["seconds"]
            print(found[-1], flush=True)
        rows += found
        save("search", circumstances() | {"examples": chosen.examples, "rows": rows})
    if rows:
        print(table(rows, list(rows[0])))


if __name__ == "__main__":
    main()
