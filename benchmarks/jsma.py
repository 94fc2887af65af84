"""How often the saliency map attack reaches its target, by the temperature of the defence.

    python -m benchmarks.jsma --cache FOLDER

Trains Papernot's MNIST network undefended and distilled at each temperature on MNIST-5k, and
attacks correctly classified test images towards a random other class with at most 112 features:
with the softmax, as Papernot did; with the softmax of the logits divided by the temperature; with
the logits. Beside each success rate stands the one that Papernot et al. 2016 (figure 7) report for
the first. Networks are kept in the cache and rows in the result file, neither is made again.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, load, save, table
from distillguard import DefensiveDistiller, UndefendedClassifier
from distillguard._geometry import size
from distillguard.attacks import jsma
from distillguard.datasets import load_mnist5k
from distillguard.networks import papernot_mnist

PUBLISHED = {None: 95.89, 1: 91.0, 2: 82.23, 5: 24.67, 10: 6.78, 20: 1.34, 30: 1.44, 50: 1.45}
PUBLISHED[100] = 0.45
"""Success rates in percent by temperature; None is the undefended network."""

MAX_FEATURES = 112


def network(temperature: int | None, epochs: int, cache: Path) -> nn.Module:
    """Read a network from the cache or train it."""
    path = cache / f"jsma-{temperature}-{epochs}.pt"
    module = papernot_mnist()
    if not path.exists():
        settings: dict[str, Any] = {
            "max_epochs": epochs,
            "precision": "bf16-mixed",
            "random_state": 0,
        }
        if temperature is None:
            trained = UndefendedClassifier(papernot_mnist, **settings).fit(*load_mnist5k("train"))
        else:
            trained = DefensiveDistiller(papernot_mnist, temperature=temperature, **settings)
            trained.fit(*load_mnist5k("train"))
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(getattr(trained, trained._predictor).state_dict(), path)
    module.load_state_dict(torch.load(path))
    return module.eval().requires_grad_(False)


def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """Predicted classes, in batches."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(dim=1) for part in inputs.split(500)])


def attacked(
    model: nn.Module, inputs: Tensor, targets: Tensor, **settings: Any
) -> dict[str, float | None]:
    """Success rate, and the features that a success takes."""
    adversarial = jsma(model, inputs, targets, targeted=True, max_features=MAX_FEATURES, **settings)
    reached = answers(model, adversarial) == targets
    features = size(adversarial - inputs, "l0")[reached]
    return {
        "success": reached.double().mean().item(),
        "mean_features": features.mean().item() if len(features) else None,
    }


def rows(
    model: nn.Module, temperature: int | None, inputs: Tensor, labels: Tensor, n: int
) -> Iterator[dict[str, Any]]:
    """Yield one row per saliency."""
    right = answers(model, inputs) == labels
    shift = torch.randint(1, 10, (n,), generator=torch.Generator().manual_seed(0))
    chosen, targets = inputs[right][:n], (labels[right][:n] + shift) % 10
    ways: dict[str, dict[str, Any]] = {"softmax": {}, "logits": {"saliency": "logits"}}
    if temperature not in (None, 1):
        ways["softmax of logits / T"] = {"temperature": temperature}
    for way, settings in ways.items():
        published = PUBLISHED[temperature] / 100 if way == "softmax" else None
        yield {
            "T": "undefended" if temperature is None else temperature,
            "accuracy": right.double().mean().item(),
            "saliency": way,
            **attacked(model, chosen, targets, **settings),
            "published": published,
        }


def main() -> None:
    """Run what is not in the result file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--temperatures", type=int, nargs="*", default=list(PUBLISHED)[1:])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    settings = {"examples": chosen.examples, "epochs": chosen.epochs, "max_features": MAX_FEATURES}
    before = load("jsma")
    known = before.get("rows", []) if before.get("settings") == settings else []
    inputs, labels = load_mnist5k("test")
    for temperature in (None, *chosen.temperatures):
        name = "undefended" if temperature is None else temperature
        if name in {row["T"] for row in known}:
            continue
        model = network(temperature, chosen.epochs, chosen.cache)
        known = known + list(rows(model, temperature, inputs, labels, chosen.examples))
        known.sort(key=lambda row: 0 if row["T"] == "undefended" else row["T"])
        save("jsma", {**circumstances(), "settings": settings, "rows": known})
        print(table(known, list(known[0])), flush=True)


if __name__ == "__main__":
    main()
