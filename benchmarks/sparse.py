"""``evaluate`` in l0 and l1 beside single attacks with as many passes, on AttackBench's networks.

The five networks of ``benchmarks.attackbench``, 100 test images each. After ``evaluate`` with its
attacks of "standard", without a diagnosis, every other attack has the passes that it took: in l0
sigma-zero (adv-lib's), Sparse-RS (ours, one pass a query) and Sparse-RS along slopes (ours, half as
many steps), in l1 FMN and PDPGD (adv-lib's). What looks for the least distance knows no radius; who
is fooled within it counts. Passes are images sent forwards and backwards, counted around the model.
Writes ``results/sparse.json`` after every row; a row that is there is kept. ``make bench`` installs
adv-lib.

    python -m benchmarks.sparse [--networks TEXT] [--published FOLDER] [--cache FOLDER]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import l1
from benchmarks._common import Counted, circumstances, load, save
from benchmarks._peers import Run, adv_lib, ours
from benchmarks._robust import CACHE
from distillguard import evaluate
from distillguard._geometry import lp_norm
from distillguard.functional import margin_loss

NETWORKS = (
    "MNIST-5k undefended",
    "MNIST-5k T=100",
    "Fashion-MNIST adversarially trained",
    "MNIST TRADES (published)",
    "MNIST DDN (published)",
)
COUNTS = (4, 8, 16)
FIRST, EXAMPLES = 200, 100


def rivals(norm: str, epsilon: float, passes: float) -> dict[str, Run]:
    """Single attacks that take as many passes."""
    steps = round(passes / 2)
    if norm == "l0":
        sparse = {"norm": norm, "epsilon": int(epsilon)}
        return {
            "adv-lib sigma-zero": adv_lib("sigma_zero", num_steps=steps),
            "Sparse-RS": ours("sparse_rs", queries=round(passes), **sparse),
            "Guided Sparse-RS": ours("guided_sparse_rs", steps=steps, **sparse),
        }
    return {
        "adv-lib FMN": adv_lib("fmn", norm=1, steps=steps),
        "adv-lib PDPGD": adv_lib("pdpgd", norm=1, num_steps=steps),
    }


def left(network: nn.Module, X: Tensor, y: Tensor, attack: Run, norm: Any, epsilon: float) -> Any:
    """Robust accuracy against one attack, and its passes."""
    torch.manual_seed(0)
    counted = Counted(network)
    points = attack(counted, X, y).detach().clamp(0, 1)
    with torch.no_grad():
        fooled = margin_loss(network(points), y) > 0
        wrong = margin_loss(network(X), y) > 0
    within = lp_norm(points.double() - X.double(), norm) <= epsilon * (1 + 1e-4)
    return {
        "robust_accuracy": 1 - (wrong | (fooled & within)).double().mean().item(),
        "passes": (counted.forwards + counted.backwards) / len(X),
    }


def row(network: nn.Module, X: Tensor, y: Tensor, norm: Any, epsilon: float) -> dict[str, Any]:
    """``evaluate``, and the others with as many passes."""
    counted = Counted(network)
    settings: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "random_state": 0}
    report = evaluate(counted, X, y, diagnosis=None, **settings)
    passes = (counted.forwards + counted.backwards) / len(X)
    found: dict[str, Any] = {
        "evaluate": {"robust_accuracy": report.robust_accuracy, "passes": passes}
    }
    for name, attack in rivals(norm, epsilon, passes).items():
        found[name] = left(network, X, y, attack, norm, epsilon)
    return found


def table(rows: list[dict[str, Any]], norm: str) -> str:
    """The rows of a norm as a Markdown table."""
    chosen = [each for each in rows if each["norm"] == norm]
    names = list(chosen[0]["found"])
    titles = ["network", "radius", *(f"`{n}`" if n == "evaluate" else n for n in names), "passes"]
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for each in chosen:
        shares = [f"{100 * each['found'][name]['robust_accuracy']:.0f} %" for name in names]
        passes = f"{each['found']['evaluate']['passes']:,.0f}"
        cells = [each["network"], f"{each['epsilon']:g}", *shares, passes]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every network, norm and radius."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--norms", nargs="+", choices=("l0", "l1"), default=["l0", "l1"])
    parser.add_argument("--published", type=Path)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    about = circumstances("adv-lib") | {"first": FIRST, "examples": EXAMPLES}
    rows: list[dict[str, Any]] = load("sparse").get("rows", [])
    build: Callable[[], nn.Module]
    for data, kind, build, X, y in l1.subjects(FIRST + EXAMPLES, chosen.cache, chosen.published):
        name = f"{data} {kind}"
        if name not in NETWORKS or chosen.networks not in name:
            continue
        for norm in chosen.norms:
            for epsilon in COUNTS if norm == "l0" else (l1.RADII[data],):
                key = {"network": name, "norm": norm, "epsilon": epsilon}
                if any(key.items() <= each.items() for each in rows):
                    continue
                found = row(build(), X[FIRST:], y[FIRST:], norm, epsilon)
                rows.append(key | {"found": found})
                rows.sort(key=lambda each: (each["norm"], NETWORKS.index(each["network"])))
                save("sparse", about | {"rows": rows})
                print(key, found, flush=True)
    for norm in chosen.norms:
        print(table(rows, norm))


if __name__ == "__main__":
    main()
