"""Training, attacks and ``evaluate`` on a GPU, by precision and with compilation.

Throughput first, of a pre-activation ResNet-18 on 32x32 random images in three channels: what is
timed does not depend on the values. Fits leave out the first epoch, which compiles and warms up.

Then ``evaluate("standard")`` beside the published AutoAttack (pyautoattack, "standard") on a
ResNet-18 that TRADES trains on Fashion-MNIST in linf 0.1, on the same test images in one run: ours
in the network's own precision and searching in bfloat16, eager and compiled. Passes are examples
sent forwards and backwards, seconds are a wall clock's after the device has finished; of ours the
whole is counted: clean pass, attacks, judging, diagnosis. The model's own precision is float32 with
the convolutions in TF32, PyTorch's default; both sides are judged in it.

    python -m benchmarks.gpu [--epochs 3] [--robust-epochs 8] [--images 500]

Writes ``results/gpu.json`` after every row.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, save, table
from benchmarks.evaluation import autoattack, totals
from distillguard import AdversarialTrainer, UndefendedClassifier, attacks, evaluate, networks
from distillguard.datasets import load_fashion_mnist

SETTINGS: dict[str, dict[str, Any]] = {
    "32-true": {"precision": "32-true"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-mixed, compiled": {"precision": "bf16-mixed", "compile": True},
}
SEARCHES: dict[str, dict[str, Any]] = {
    "own precision": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-mixed, compiled": {"precision": "bf16-mixed", "compile": True},
}
EPSILON = 0.1
ROBUST_ON = 20_000
COLUMNS = ["what", "setting", "examples per second", "robust, %", "passes", "seconds"]


def seconds_of(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns and how long the device took for it."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    return result, time.perf_counter() - began


def rate(trainer: UndefendedClassifier | AdversarialTrainer, X: Tensor, y: Tensor) -> float:
    """Examples per second of a fit, without its first epoch."""
    seconds = [record["seconds"] for record in trainer.fit(X, y).history_][1:]
    return len(X) * len(seconds) / sum(seconds)


def robust(epochs: int) -> tuple[nn.Module, dict[str, Any]]:
    """A ResNet-18 trained by TRADES on Fashion-MNIST, and the row that says how fast."""
    X, y = (part[:ROBUST_ON] for part in load_fashion_mnist("train"))
    trainer = AdversarialTrainer(
        networks.preact_resnet18,
        epsilon=EPSILON,
        bounds=(0.0, 1.0),
        beta=5.0,
        max_epochs=epochs,
        batch_size=256,
        lr_scheduler="cosine",
        precision="bf16-mixed",
        random_state=0,
    )
    found = rate(trainer, X, y)
    row = {"what": "TRADES fit, Fashion-MNIST", "setting": "bf16-mixed"}
    return trainer.model_, row | {"examples per second": found}


def evaluated(model: nn.Module, X: Tensor, y: Tensor, setting: str) -> dict[str, Any]:
    """What ``evaluate("standard")`` finds and costs in one way to search."""
    report, seconds = seconds_of(
        lambda: evaluate(model, X, y, epsilon=EPSILON, random_state=0, **SEARCHES[setting])
    )
    diagnosis = report.costs["diagnosis"]
    return {
        "what": 'evaluate("standard")',
        "setting": setting,
        "robust, %": 100 * report.robust_accuracy,
        "quoted, %": 100 * report.quoted_accuracy,
        "passes": totals(report)[0] + (diagnosis.forwards + diagnosis.backwards) / len(X),
        "seconds": seconds,
        "diagnosis, seconds": diagnosis.seconds,
        "after each attack": {part.name: part.robust_accuracy for part in report.attacks},
        "findings": [finding.code for finding in report.findings],
    }


def main() -> None:
    """Time training, PGD and evaluations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3, help="of the throughput of training")
    parser.add_argument("--examples", type=int, default=10_240)
    parser.add_argument("--robust-epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=500)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device, and there is none")
    rows: list[dict[str, Any]] = []
    sizes = {"examples": chosen.examples, "images": chosen.images, "epsilon": EPSILON}

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        print(row, flush=True)
        save("gpu", {**circumstances("pyautoattack"), **sizes, "rows": rows})

    network, row = robust(chosen.robust_epochs)
    keep(row)
    X, y = (part[: chosen.images].cuda() for part in load_fashion_mnist("test"))
    for setting in ("own precision", "bf16-mixed"):
        keep(evaluated(network, X, y, setting))
    theirs, seconds = seconds_of(lambda: autoattack(network, X, y, "linf", EPSILON))
    theirs = {
        "robust, %": 100 * theirs["robust_accuracy"],
        "passes": theirs["passes"],
        "seconds": seconds,
    }
    keep({"what": "AutoAttack (pyautoattack)", "setting": "own precision"} | theirs)

    throughput(chosen.examples, chosen.epochs, keep)
    # The compiler takes minutes, so it comes last.
    keep(evaluated(network, X, y, "bf16-mixed, compiled"))
    print(table(rows, COLUMNS))


def throughput(examples: int, epochs: int, keep: Callable[[dict[str, Any]], None]) -> None:
    """Examples per second of training and of PGD, on random images."""
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(examples, 3, 32, 32, generator=generator)
    y = torch.randint(10, (examples,), generator=generator)
    for name, settings in SETTINGS.items():
        told: dict[str, Any] = {"max_epochs": epochs, "batch_size": 512, "random_state": 0}
        plain = UndefendedClassifier(networks.preact_resnet18, **told, **settings)
        keep({"what": "fit", "setting": name, "examples per second": rate(plain, X, y)})
        trades = AdversarialTrainer(networks.preact_resnet18, **told, **settings)
        keep({"what": "TRADES fit", "setting": name, "examples per second": rate(trades, X, y)})

    inputs, labels = X[:2048].cuda(), y[:2048].cuda()
    for _ in range(2):
        _, seconds = seconds_of(
            lambda: attacks.pgd(
                plain.model_,
                inputs,
                labels,
                epsilon=8 / 255,
                steps=40,
                early_stop=False,
                batch_size=1024,
                random_state=0,
            )
        )
    found = {"what": "PGD, 40 steps to the end", "setting": "32-true"}
    keep(found | {"examples per second": len(inputs) / seconds})


if __name__ == "__main__":
    main()
