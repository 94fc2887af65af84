"""What robust training and robust distillation are worth, under ``evaluate("standard")``.

    python -m benchmarks.robust_training --data mnist5k [--seeds 3] [--examples 300]
    python -m benchmarks.robust_training --data fashion [--seeds 3] [--examples 300]

Trains, for each seed, a small CNN by TRADES, and two of half its width: one by TRADES alone, one
by RSLAD from the first. MNIST-5k at linf 0.3, 30 epochs; 20,000 images of Fashion-MNIST at linf
0.1, 8 epochs; bf16-mixed. Rows that the result file holds for the same settings are kept.
"""

import argparse
import time
from functools import partial
from typing import Any

import torch

from benchmarks._common import circumstances, load, save, table
from distillguard import AdversarialTrainer, RobustDistiller, datasets, evaluate, networks
from distillguard._layers import papernot

# The network of Carlini and Wagner 2017, Table I, without dropout; and half of it.
WHOLE = partial(networks.papernot_mnist, dropout=0.0)
HALF = partial(papernot, channels=(16, 32), hidden=100, dropout=0.0)
SETTINGS: dict[str, dict[str, Any]] = {
    "mnist5k": {"epsilon": 0.3, "max_epochs": 30},
    "fashion": {"epsilon": 0.1, "max_epochs": 8},
}


def examples(data: str) -> tuple[Any, Any]:
    """Training and test images."""
    if data == "mnist5k":
        return datasets.load_mnist5k("train"), datasets.load_mnist5k("test")
    X, y = datasets.load_fashion_mnist("train")
    return (X[:20_000], y[:20_000]), datasets.load_fashion_mnist("test")


def main() -> None:
    """Parse the command line, train and evaluate what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(SETTINGS), default="mnist5k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=300, help="test images attacked")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    name = f"robust-training-{chosen.data}"
    settings = {"examples": chosen.examples, **SETTINGS[chosen.data]}
    before = load(name)
    same = all(before.get(key) == value for key, value in settings.items())
    rows = before.get("rows", []) if same else []
    training, (Xt, yt) = examples(chosen.data)
    Xt, yt = Xt[: chosen.examples], yt[: chosen.examples]

    for seed in range(chosen.seeds):
        if seed in {row["seed"] for row in rows}:
            continue
        common = SETTINGS[chosen.data] | {
            "bounds": (0.0, 1.0),
            "precision": "bf16-mixed",
            "random_state": seed,
        }
        teacher = AdversarialTrainer(WHOLE, beta=5.0, **common)
        fitted = []
        for label, estimator in (
            ("TRADES", teacher),
            ("TRADES, half width", AdversarialTrainer(HALF, beta=5.0, **common)),
            ("RSLAD, half width", RobustDistiller(HALF, teacher=teacher, **common)),
        ):
            began = time.perf_counter()
            estimator.fit(*training)
            print(label, seed, estimator.history_[-1], flush=True)
            seconds = time.perf_counter() - began
            report = evaluate(
                estimator, Xt, yt, epsilon=common["epsilon"], attacks="standard", random_state=0
            )
            fitted.append(
                {
                    "seed": seed,
                    "network": label,
                    "clean": report.clean_accuracy,
                    "robust": report.robust_accuracy,
                    "interval": list(report.robust_interval),
                    "findings": [finding.code for finding in report.findings],
                    "training_seconds": seconds,
                    "evaluation_seconds": time.perf_counter() - began - seconds,
                }
            )
            print(fitted[-1], flush=True)
        rows += fitted
        save(name, {**circumstances(), **settings, "rows": rows})
    print(table(rows, ["seed", "network", "clean", "robust", "findings", "training_seconds"]))


if __name__ == "__main__":
    main()
