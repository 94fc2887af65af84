"""Four slices of cheese on real digits: a defence in layers, attacked slice by slice and whole.

Distils a small network at T = 100 on the 5,000 digits of MNIST-5k, puts it behind two layers (two
grey levels, a median filter) and two detectors (an autoencoder's reconstruction error, feature
squeezing), and attacks the network alone, each slice alone and all of it. Prints who is fooled by
which attack, and what would pass if the holes were independent beside what really passes. Takes
minutes; ``--quick`` seconds, with figures that mean little.

    python examples/layers.py [--quick] [--epsilon 0.3] [--images 100] [--epochs 15]
        [--train 4000] [--calibration 600] [--attacks quick]
"""

import argparse
import time

from torch import nn

from distillguard import DefensiveDistiller, LayeredDefense, datasets
from distillguard.defenses import BitDepth, FeatureSqueezing, MedianFilter, ReconstructionError
from distillguard.evaluation import LayerReport, evaluate_layers

WHOLE = {"images": 100, "epochs": 15, "train": 4000, "calibration": 600}
QUICK = {"images": 20, "epochs": 3, "train": 1000, "calibration": 200}


def network(*_):
    """Two strided convolutions and two dense layers: a detector asks it several times."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def main() -> None:
    """Train, stack, calibrate, attack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--epsilon", type=float, default=0.3, help="linf")
    parser.add_argument("--images", type=int, help="test images attacked")
    parser.add_argument("--epochs", type=int, help="of teacher, student and autoencoder")
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--calibration", type=int, help="test images that set the thresholds")
    parser.add_argument("--attacks", choices=["quick", "standard"], default="quick")
    chosen = parser.parse_args()
    given = {name: value for name, value in vars(chosen).items() if value is not None}
    size = (QUICK if chosen.quick else WHOLE) | given
    began = time.perf_counter()

    X_train, y_train = (part[: size["train"]] for part in datasets.load_mnist5k("train"))
    X_test, y_test = datasets.load_mnist5k("test")
    held_out = X_test[-size["calibration"] :]
    common = {"max_epochs": size["epochs"], "random_state": 0}

    distiller = DefensiveDistiller(network, temperature=100.0, **common).fit(X_train, y_train)
    guard = LayeredDefense(
        distiller,
        layers=[BitDepth(2), MedianFilter()],
        detectors=[ReconstructionError(**common).fit(X_train), FeatureSqueezing()],
        false_positive_rate=0.05,
        random_state=0,
    ).calibrate(held_out)
    low, high = guard.false_positive_interval_
    print(
        f"clean digits rejected: {guard.false_positive_rate_:.1%}, 5 % wanted, "
        f"95 % interval [{low:.1%}, {high:.1%}]\n"
    )

    report = evaluate_layers(
        guard,
        *(X_test[: size["images"]], y_test[: size["images"]]),
        epsilon=chosen.epsilon,
        attacks=chosen.attacks,
        random_state=0,
    )
    print(report, explained(report), sep="\n\n")
    print(f"\n{time.perf_counter() - began:.0f} s")


def explained(report: LayerReport) -> str:
    """What the table says, slice by slice and of all together."""
    lines = ["Of the points that fool the network alone, each slice by itself stops:"]
    for part in report.parts:
        stopped = sum(count for group, count in report.stopped.items() if part in group)
        lines.append(f"  {part:<22}{stopped:>4} of {report.fooled['bare'].sum()}")
    lines += [
        "Attacked by who knows the slices, of what fools the network alone",
        f"  {report.product:>6.1%} would pass all of them if their holes were independent",
        f"  {report.truth:>6.1%} passes",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
