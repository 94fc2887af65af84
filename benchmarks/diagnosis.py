"""What the diagnosis of ``evaluate`` costs beside the attacks, and what it finds.

Three networks on MNIST-5k (undefended, distilled at T=100, adversarially trained), the presets
"quick" and "standard", each with its own diagnosis and with the other one. Passes are examples
sent forwards and backwards, per image evaluated; the clean pass, the checks of the model and the
judging of points are given apart. Writes ``results/diagnosis.json`` after every row.

    python -m benchmarks.diagnosis [--examples 200] [--cache FOLDER]
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, save
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained
from distillguard import evaluate

DATA = "MNIST-5k"
KINDS = ("undefended", "T=100", "adversarially trained")


def row(model: nn.Module, X: Tensor, y: Tensor, preset: str, diagnosis: str) -> dict[str, Any]:
    """Evaluate and count."""
    epsilon = RADII[DATA]["linf"]
    settings: dict[str, Any] = {"attacks": preset, "diagnosis": diagnosis, "random_state": 0}
    report = evaluate(model, X, y, epsilon=epsilon, **settings)
    costs = {name: cost.forwards + cost.backwards for name, cost in report.costs.items()}
    attacks = sum((part.forwards + part.backwards) * part.attacked for part in report.attacks)
    own, seen = costs.pop("diagnosis"), report.observations
    return {
        "attacks": preset,
        "diagnosis": diagnosis,
        "attack_passes": attacks / len(X),
        "diagnosis_passes": own / len(X),
        "other_passes": sum(costs.values()) / len(X),
        "diagnosis_share_of_attacks": own / attacks,
        "attack_seconds": sum(part.seconds for part in report.attacks),
        "diagnosis_seconds": report.costs["diagnosis"].seconds,
        "robust_accuracy": report.robust_accuracy,
        "quoted_accuracy": report.quoted_accuracy,
        "sampled": seen.sampled,
        "compared": seen.compared,
        "active_tested": seen.active_tested,
        "active_left_out": seen.active_left_out,
        "active_found": seen.active_found,
        "findings": [finding.code for finding in report.findings],
    }


def main() -> None:
    """Measure every network, preset and diagnosis."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)

    X, y = (part[:TRAINED_ON] for part in LOADERS[DATA]("train"))
    tests = tuple(part[: arguments.examples] for part in LOADERS[DATA]("test"))
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        model = trained(kind, X, y, RADII[DATA]["linf"], arguments.cache / f"{DATA} {kind}.pt")
        for preset in ("quick", "standard"):
            for diagnosis in ("brief", "full"):
                found = {"network": kind, **row(model, *tests, preset, diagnosis)}
                rows.append(found)
                save("diagnosis", circumstances() | {"examples": arguments.examples, "rows": rows})
                print(
                    f"{kind} {preset} {diagnosis}: attacks {found['attack_passes']:.1f}, diagnosis "
                    f"{found['diagnosis_passes']:.1f}, others {found['other_passes']:.1f}; active "
                    f"{found['active_found']} of {found['active_tested']} {found['findings']}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
