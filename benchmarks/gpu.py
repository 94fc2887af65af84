"""Throughput of training and of attacks on a GPU, by precision and with compilation.

    python -m benchmarks.gpu [--epochs 3]

A pre-activation ResNet-18 on 32x32 random images in three channels: what is timed does not depend
on the values. Each row is the second of two runs, so that compilation and warm-up are not counted.
"""

import argparse
import time
from typing import Any

import torch

from benchmarks._common import circumstances, save, table
from distillguard import AdversarialTrainer, UndefendedClassifier, attacks, networks

SETTINGS: dict[str, dict[str, Any]] = {
    "32-true": {"precision": "32-true"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-mixed, compiled": {"precision": "bf16-mixed", "compile": True},
}


def main() -> None:
    """Time training, TRADES and PGD."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--examples", type=int, default=10_240)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device, and there is none")

    generator = torch.Generator().manual_seed(0)
    X = torch.rand(chosen.examples, 3, 32, 32, generator=generator)
    y = torch.randint(10, (chosen.examples,), generator=generator)
    rows = []
    common: dict[str, Any] = {"batch_size": 512, "random_state": 0}
    for name, settings in SETTINGS.items():
        plain = UndefendedClassifier(
            networks.preact_resnet18, max_epochs=chosen.epochs, **common, **settings
        )
        trades = AdversarialTrainer(
            networks.preact_resnet18, max_epochs=chosen.epochs, **common, **settings
        )
        for what, estimator in (("fit", plain), ("TRADES fit", trades)):
            # The first epoch compiles and warms up.
            seconds = [record["seconds"] for record in estimator.fit(X, y).history_][1:]
            rate = len(X) * len(seconds) / sum(seconds)
            rows.append({"what": what, "setting": name, "examples per second": rate})
            print(rows[-1], flush=True)

    network = plain.model_
    inputs, labels = X[:2048].cuda(), y[:2048].cuda()
    for what, steps in (("pgd, 40 steps to the end", 40),):
        for _ in range(2):
            torch.cuda.synchronize()
            began = time.perf_counter()
            attacks.pgd(
                network, inputs, labels, epsilon=8 / 255, steps=steps, early_stop=False,
                batch_size=1024, random_state=0,
            )  # fmt: skip
            torch.cuda.synchronize()
            rate = len(inputs) / (time.perf_counter() - began)
        rows.append({"what": what, "setting": "32-true", "examples per second": rate})
    save("gpu", {**circumstances(), "examples": chosen.examples, "rows": rows})
    print(table(rows, ["what", "setting", "examples per second"]))


if __name__ == "__main__":
    main()
