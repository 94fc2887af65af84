"""From the defence that fails to training that holds, on Fashion-MNIST: four networks compared.

Trains a small CNN undefended and by defensive distillation (T = 100), then by TRADES, then half as
wide by RSLAD from the TRADES network, evaluates all four at linf 0.1, and writes one comparison.
Fashion-MNIST is read from files (see ``distillguard.datasets.load_fashion_mnist``); the digits of
``--data mnist5k`` need none.

    python examples/what_came_after.py [--out build/after] [--data fashion] [--epochs 4]
        [--train 20000] [--images 200] [--attacks standard]
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    RobustDistiller,
    UndefendedClassifier,
    datasets,
    evaluate,
    networks,
)
from distillguard.evaluation import compare

LOADERS = {"fashion": datasets.load_fashion_mnist, "mnist5k": datasets.load_mnist5k}


def half(shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """The layers of ``networks.papernot_mnist``, each half as wide."""
    channels, height, width = shape
    flat = 32 * ((height - 12) // 4) * ((width - 12) // 4)
    convolutions = [
        *(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
    ]
    head = [nn.Linear(flat, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), *head, nn.Linear(100, n_classes))


def main() -> None:
    """Train four networks, evaluate them, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/after"))
    parser.add_argument("--data", choices=sorted(LOADERS), default="fashion")
    parser.add_argument("--epsilon", type=float, default=0.1, help="linf")
    parser.add_argument("--epochs", type=int, default=4, help="of each network")
    parser.add_argument("--train", type=int, default=20_000, help="training images")
    parser.add_argument("--images", type=int, default=200, help="test images attacked")
    parser.add_argument("--attacks", choices=["quick", "standard"], default="standard")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    training = tuple(part[: chosen.train] for part in LOADERS[chosen.data]("train"))
    X, y = (part[: chosen.images] for part in LOADERS[chosen.data]("test"))
    # TRADES starts better from PyTorch's smaller initial weights than from He's.
    whole = partial(networks.papernot_mnist, dropout=0.0, initial_weights="torch")
    common: dict[str, Any] = {
        "max_epochs": chosen.epochs,
        "precision": "bf16-mixed",
        "learning_rate": 2e-3,
        "lr_scheduler": "cosine",
        "random_state": 0,
        "verbose": True,
    }
    attacked = common | {"epsilon": chosen.epsilon, "bounds": (0.0, 1.0)}
    trades = AdversarialTrainer(whole, objective="trades", beta=5.0, **attacked)
    line = {
        "undefended": UndefendedClassifier(whole, **common),
        "distilled, T = 100": DefensiveDistiller(whole, temperature=100.0, **common),
        "TRADES": trades,
        "RSLAD from TRADES, half as wide": RobustDistiller(half, teacher=trades, **attacked),
    }
    reports = {}
    for name, estimator in line.items():
        started = time.perf_counter()
        estimator.fit(*training)
        trained = time.perf_counter() - started
        reports[name] = evaluate(
            estimator, X, y, epsilon=chosen.epsilon, attacks=chosen.attacks, random_state=0
        )
        print(f"\n{name}, trained in {trained:.0f} s\n{reports[name]}\n", flush=True)

    comparison = compare(**reports)
    print(comparison)
    (chosen.out / "comparison.md").write_text(comparison.to_markdown() + "\n")
    for name, report in reports.items():
        report.to_html(chosen.out / f"{name.partition(',')[0].split()[0].lower()}.html")
    print(f"\n{time.perf_counter() - began:.0f} s; look at {chosen.out}")


if __name__ == "__main__":
    main()
