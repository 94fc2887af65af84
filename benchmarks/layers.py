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
from distillguard import LayeredDefense, datasets, evaluate
from distillguard.defenses import BitDepth, FeatureSqueezing, MedianFilter, ReconstructionError
from distillguard.evaluation import LayerReport, evaluate_layers
from distillguard.evaluation._layer_by_layer import counting
from distillguard.evaluation._statistics import paired_interval

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


def standard(network: nn.Module, X: Tensor, y: Tensor) -> float:
    """Passes per image of ``evaluate("standard")``, diagnosis included, on the bare classifier."""
    spent: dict[str, int] = {}
    with counting(network, spent, "standard"):
        evaluate(network, X, y, epsilon=EPSILON, random_state=0)
    return spent["standard"] / len(X)


def added(report: LayerReport) -> dict[str, dict[str, Any]]:
    """What each part adds to the bare classifier's robust accuracy, and takes from the clean one.

    With the paired 95 % interval of the first. A part may take no more of it than of the clean
    accuracy, plus half the width of the interval.
    """
    bare = ~report.fooled["bare"]
    found = {}
    for part in (*report.parts, "all together"):
        own = ~report.fooled[part]
        counts = [int((a & b).sum()) for a, b in ((own, bare), (own, ~bare), (~own, bare))]
        low, high = paired_interval(*counts, int((~own & ~bare).sum()))
        share = float(own.mean() - bare.mean())
        costs = report.clean["bare"] - report.clean.get(part, report.clean_accuracy)
        found[part] = {
            "robust": share,
            "interval": [low, high],
            "clean": -costs,
            "holds": -share <= max(costs, 0.0) + (high - low) / 2,
        }
    return found


def row(name: str, guard: LayeredDefense, report: LayerReport, bare: float) -> dict[str, Any]:
    """What a report says; ``bare`` is what the classifier alone costs to evaluate, per image."""
    whole = report.passes["staged"] + report.passes["joint"]
    whole *= report.n_counted / report.n_examples
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
        "standard_on_bare": bare,
        "staged_and_joint": whole,
        "staged_and_joint_over_standard": whole / bare,
        "added": added(report),
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
    n = chosen.examples
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
            X[:n],
            y[:n],
            epsilon=EPSILON,
            attacks=chosen.attacks,
            random_state=0,
        )
        print(report, report.stopped, "", sep="\n", flush=True)
        rows.append(row(kind, guard, report, standard(network, X[:n], y[:n])))
        about = circumstances() | {"epsilon": EPSILON, "examples": chosen.examples}
        save("layers", about | {"attacks": chosen.attacks, "rows": rows})
    shown = [{**each, **each["fooled"]} for each in rows]
    names = ["network", "clean_accuracy", "robust_accuracy", "oblivious", "staged", "joint"]
    print(table(shown, [*names, "all together", "product", "truth", "ratio"]))
    for each in rows:
        ratio = each["staged_and_joint_over_standard"]
        print(f"{each['network']}: staged and joint cost {ratio:.2f} times standard on the bare")
        for part, told in each["added"].items():
            print(f"  {part}: {told}")
    broken = rows[0]["fooled"]
    print("oblivious stopped for most:", broken["oblivious"] < 0.5)
    print("staged or joint passes for more than 90 %:", broken["all together"] > 0.9)


if __name__ == "__main__":
    main()
