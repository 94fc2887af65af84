"""The minimum-distance attacks on published robust networks for MNIST, where slopes mislead.

    python -m benchmarks.published FOLDER [--digits 500] [--networks trades ddn]
        [--attacks NAME ...]

Attacks the digits that each network classifies correctly, of the first official test digits:
carlini_wagner_l2 and carlini_wagner_linf with their defaults, ddn with 1,000 steps, and
fab_targeted in l2 with 9 targets of 100 steps. FOLDER holds what ``benchmarks._published`` names;
without one nothing is measured. For each attack: the share of digits with a result, their mean
distance, the median over all digits, passes and seconds an example, and how many results lose
their success when they are asked about alone, or in float64. For the l2 attacks besides, at how
many digits each is the closest by more than 1 %, and how many only others succeed at.

On one core 500 digits of both networks take about 40 minutes, of which ddn takes a third and
fab_targeted half; --digits 100 a fifth of that. Writes ``results/published.json`` after each
network.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import Counted, circumstances, save, table
from benchmarks._published import NAMES, digits, published
from distillguard import attacks
from distillguard._geometry import lp_norm
from distillguard._typing import Distance

ATTACKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "carlini_wagner_l2": (attacks.carlini_wagner_l2, {}),
    "ddn": (attacks.ddn, {"steps": 1000}),
    "fab_targeted": (
        attacks.fab_targeted,
        {"norm": "l2", "n_targets": 9, "steps": 100, "random_state": 0},
    ),
    "carlini_wagner_linf": (attacks.carlini_wagner_linf, {}),
}
CLEARLY = 1.01


def decided(network: nn.Module, points: Tensor, batch_size: int = 256) -> Tensor:
    """Classes, a batch at a time."""
    with torch.no_grad():
        return torch.cat([network(part).argmax(dim=1) for part in points.split(batch_size)])


def measured(
    name: str, network: nn.Module, inputs: Tensor, labels: Tensor
) -> tuple[dict[str, Any], Tensor]:
    """Run one attack; its figures, and every distance, infinite where nothing was found."""
    attack, settings = ATTACKS[name]
    counted = Counted(network)
    began = time.perf_counter()
    adversarial = attack(counted, inputs, labels, **settings)
    seconds = time.perf_counter() - began

    found = decided(network, adversarial) != labels
    alone = decided(network, adversarial, batch_size=1) != labels
    exactly = decided(network.double(), adversarial.double()) != labels
    network.float()
    norm: Distance = "linf" if name == "carlini_wagner_linf" else "l2"
    distances = lp_norm(adversarial - inputs, norm).masked_fill(~found, math.inf)
    median = distances.sort().values[(len(distances) - 1) // 2].item()
    row = {
        "attack": name,
        "success": found.double().mean().item(),
        "median": median if math.isfinite(median) else None,
        "mean": distances[found].mean().item() if found.any() else None,
        "forwards": counted.forwards / len(inputs),
        "backwards": counted.backwards / len(inputs),
        "seconds": seconds / len(inputs),
        "lost alone": int((found & ~alone).sum()),
        "lost in float64": int((found & ~exactly).sum()),
    }
    return row, distances


def compared(rows: list[dict[str, Any]], distances: dict[str, Tensor]) -> None:
    """Add to the rows of the l2 attacks how they fare beside each other."""
    for row in rows:
        own = distances[row["attack"]]
        others = [each for name, each in distances.items() if name != row["attack"]]
        best = torch.stack(others).amin(dim=0)
        row["closest"] = int((own * CLEARLY < best).sum())
        row["only others"] = int((own.isinf() & best.isfinite()).sum())


def attacked(folder: Path, name: str, n: int, chosen: list[str]) -> dict[str, Any]:
    """Run the attacks on one network."""
    network = published(folder, name)
    inputs, labels = digits(folder, n)
    correct = decided(network, inputs) == labels
    inputs, labels = inputs[correct], labels[correct]
    rows, distances = [], {}
    for attack in chosen:
        row, distances[attack] = measured(attack, network, inputs, labels)
        rows.append(row)
        print(name, row, flush=True)
    in_l2 = [row for row in rows if row["attack"] != "carlini_wagner_linf"]
    if len(in_l2) > 1:
        compared(in_l2, {row["attack"]: distances[row["attack"]] for row in in_l2})
    return {"network": name, "attacked": len(inputs), "rows": rows}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of the networks and the digits")
    parser.add_argument("--digits", type=int, default=500)
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, help="another folder to write to")
    chosen = parser.parse_args()
    if chosen.folder is None:
        print(
            "benchmarks.published measures nothing without a folder: see benchmarks/_published.py"
        )
        return
    torch.set_num_threads(chosen.threads)
    found = []
    for name in chosen.networks:
        found.append(attacked(chosen.folder, name, chosen.digits, chosen.attacks))
        about = {"digits": chosen.digits, "networks": found}
        save("published", {**circumstances(), **about}, chosen.results)
    for each in found:
        print(f"\n{each['network']}, {each['attacked']} digits\n")
        print(table(each["rows"], list(each["rows"][0])))


if __name__ == "__main__":
    main()
