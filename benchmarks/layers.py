"""Two layers and two detectors around a network, attacked part by part and as a whole.

MNIST-5k, linf 0.3, 200 test images: a network distilled at T=100 and one trained by TRADES, each
inside a bit depth of 2 and a median filter, with an autoencoder's reconstruction error and feature
squeezing as detectors at 5 % false alarms together, calibrated on 600 other test images. What the
attack finds that knows nothing of the layers, each part's alone, the staged and the joint attack,
the product of the parts beside the truth, and whether the targets hold.

    python -m benchmarks.layers [--examples 200] [--attacks standard] [--cache FOLDER]

Writes ``results/layers.json`` after every network.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, save, table
from benchmarks._robust import CACHE
from benchmarks._small import RADII, TRAINED_ON, trained
from distillguard import LayeredDefense, datasets
from distillguard.defenses import BitDepth, FeatureSqueezing, MedianFilter, ReconstructionError
from distillguard.evaluation import LayerReport, evaluate_layers

KINDS = ("T=100", "adversarially trained")
EPSILON, FALSE_ALARMS = 0.3, 0.05
CALIBRATED_ON = 600


def guarded(network: nn.Module, X: Tensor) -> LayeredDefense:
    """The network inside the layers, not calibrated; the autoencoder learns the training images."""
    return LayeredDefense(
        network,
        [BitDepth(2), MedianFilter()],
        [ReconstructionError(random_state=0).fit(X), FeatureSqueezing()],
        false_positive_rate=FALSE_ALARMS,
        random_state=0,
    )


def row(name: str, guard: LayeredDefense, report: LayerReport) -> dict[str, Any]:
    """What a report says."""
    whole = report.passes["staged"] + report.passes["joint"]
    return {
        "network": name,
        "counted": report.n_counted,
        "clean_accuracy": report.clean_accuracy,
        "clean_rejected": report.clean_rejected,
        "false_positive_rate": guard.false_positive_rate_,
        "false_positive_interval": guard.false_positive_interval_,
        "robust_accuracy": report.robust_accuracy,
        "fooled": {attack: float(each.mean()) for attack, each in report.fooled.items()},
        "passes": dict(report.passes),
        "staged_and_joint_over_bare": whole / report.passes["bare"],
        "product": report.product,
        "truth": report.truth,
        "ratio": report.ratio,
        "ratio_interval": report.ratio_interval,
        "stopped": {" + ".join(group) or "nothing": n for group, n in report.stopped.items()},
    }


def main() -> None:
    """Measure both networks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--attacks", choices=("quick", "standard"), default="standard")
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    train = tuple(part[:TRAINED_ON] for part in datasets.load_mnist5k("train"))
    X, y = datasets.load_mnist5k("test")
    held = X[-CALIBRATED_ON:]
    rows = []
    for kind in KINDS:
        cache = chosen.cache / f"MNIST-5k {kind}.pt"
        network = trained(kind, *train, RADII["MNIST-5k"]["linf"], cache)
        guard = guarded(network, train[0]).calibrate(held)
        report = evaluate_layers(
            guard,
            X[: chosen.examples],
            y[: chosen.examples],
            epsilon=EPSILON,
            attacks=chosen.attacks,
            random_state=0,
        )
        print(report, report.stopped, "", sep="\n", flush=True)
        rows.append(row(kind, guard, report))
        about = circumstances() | {"epsilon": EPSILON, "examples": chosen.examples}
        save("layers", about | {"attacks": chosen.attacks, "rows": rows})
    shown = [{**each, **each["fooled"]} for each in rows]
    names = ["network", "clean_accuracy", "robust_accuracy", "oblivious", "staged", "joint"]
    print(table(shown, [*names, "all together", "product", "truth", "ratio"]))
    broken = rows[0]["fooled"]
    print("oblivious stopped for most:", broken["oblivious"] < 0.5)
    print("staged or joint passes for more than 90 %:", broken["all together"] > 0.9)


if __name__ == "__main__":
    main()
