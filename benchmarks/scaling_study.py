"""A scaling study of our own: three sizes of network, three sizes of data, one law.

    python -m benchmarks.scaling_study [--seeds 2] [--threads 1]

Trains Carlini and Wagner's network, half and a quarter of its width, by TRADES at linf 0.1 on
15,000, 30,000 and 60,000 images of Fashion-MNIST, each image seen once, in bf16-mixed. The loss of
a run is the paper's: cross-entropy plus five times the divergence, on test images attacked by 40
steps of PGD on the margin. Fits the parametric law of Bartoldson et al. 2024 to the runs, and
predicts the largest ones from a fit to the others. Runs that the result file holds are kept.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._common import circumstances, load, quick_precision, save, table
from distillguard import AdversarialTrainer, attacks, datasets, functional
from distillguard.networks._layers import papernot
from distillguard.scaling_laws import Fit, LossDisplay, ParametricLaw

WIDTHS = {"quarter": (8, 16, 50), "half": (16, 32, 100), "whole": (32, 64, 200)}
EXAMPLES = (15_000, 30_000, 60_000)
SETTINGS: dict[str, Any] = {
    "epsilon": 0.1,
    "beta": 5.0,
    "max_epochs": 1,
    "learning_rate": 2e-3,
    "lr_scheduler": "cosine",
    "precision": quick_precision(),
}
PASSES = 10 * 3 + 2 * 3
"""Forward passes' worth of work per example: ten attack steps, then clean and adversarial."""


def network(width: str) -> Any:
    """A factory of the network of a width."""
    first, second, hidden = WIDTHS[width]
    sizes: dict[str, Any] = {"channels": (first, second), "hidden": hidden}
    return partial(papernot, **sizes, dropout=0.0, initial_weights="torch")


def flops_per_parameter(model: nn.Module) -> float:
    """Training FLOPs per parameter and example."""
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 28, 28))
    return PASSES * counter.get_total_flops() / sum(each.numel() for each in model.parameters())


def measured(model: nn.Module, X: Tensor, y: Tensor) -> dict[str, float]:
    """The paper's test loss, and the accuracy on the same attacked images."""
    epsilon = SETTINGS["epsilon"]
    points = attacks.pgd(
        model,
        X,
        y,
        epsilon=epsilon,
        loss="margin",
        steps=40,
        step_size=epsilon / 4,
        early_stop=False,
        random_state=0,
    )
    with torch.no_grad():
        clean, attacked = model(X), model(points)
        losses = functional.trades_loss(clean, attacked, y, SETTINGS["beta"])
    return {
        "loss": losses.mean().item(),
        "accuracy": (attacked.argmax(1) == y).double().mean().item(),
        "clean accuracy": (clean.argmax(1) == y).double().mean().item(),
    }


def runs(seeds: int, tests: int) -> list[dict[str, Any]]:
    """Train and measure what the result file does not hold."""
    settings = {"settings": SETTINGS, "test images": tests}
    before = load("scaling-study")
    same = all(before.get(key) == value for key, value in settings.items())
    rows: list[dict[str, Any]] = before.get("rows", []) if same else []
    X, y = datasets.load_fashion_mnist("train")
    Xt, yt = (part[:tests] for part in datasets.load_fashion_mnist("test"))
    for seed in range(seeds):
        for width in WIDTHS:
            for data in EXAMPLES:
                if (seed, width, data) in {(r["seed"], r["width"], r["data"]) for r in rows}:
                    continue
                began = time.perf_counter()
                trainer = AdversarialTrainer(
                    network(width), bounds=(0.0, 1.0), random_state=seed, **SETTINGS
                ).fit(X[:data], y[:data])
                seconds = time.perf_counter() - began
                model = trainer.model_
                rows.append(
                    {
                        "seed": seed,
                        "width": width,
                        "parameters": sum(each.numel() for each in model.parameters()),
                        "data": data,
                        "flops per parameter": flops_per_parameter(model),
                        **measured(model, Xt, yt),
                        "training seconds": seconds,
                    }
                )
                print(rows[-1], flush=True)
                save("scaling-study", {**circumstances("scipy"), **settings, "rows": rows})
    return rows


def fitted(rows: list[dict[str, Any]]) -> Fit:
    """The parametric law, with the FLOPs of these networks."""
    factor = float(np.median([row["flops per parameter"] for row in rows]))
    return ParametricLaw.fit(rows, flops_factor=factor, random_state=0)


def held_out(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The largest network on the most data, predicted from all the other runs."""
    last = (rows[-1]["width"], rows[-1]["data"])
    largest = [row for row in rows if (row["width"], row["data"]) == last]
    others = [row for row in rows if (row["width"], row["data"]) != last]
    where = largest[0]["parameters"], largest[0]["data"]
    fit = fitted(others)
    low, high = fit.interval(lambda law: law.loss(*where))
    return {
        "measured": float(np.mean([row["loss"] for row in largest])),
        "predicted": float(fit.law.loss(*where)),
        "low": low,
        "high": high,
    }


def main() -> None:
    """Run, fit, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tests", type=int, default=1000, help="test images attacked")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--figure", type=Path, default=Path("docs/_static/scaling-study.svg"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    rows = runs(chosen.seeds, chosen.tests)
    fit, prediction = fitted(rows), held_out(rows)
    described = [
        {**row, "law": float(fit.law.loss(row["parameters"], row["data"]))} for row in rows
    ]
    print(table(described, ["seed", "width", "parameters", "data", "loss", "law", "accuracy"]))
    print(fit)
    print("largest network and data, from the others:", prediction)
    intervals = {k: v for k, v in fit.intervals.items() if k not in fit.undetermined}
    found = {
        "coefficients": fit.law.coefficients,
        "intervals": intervals,
        "unidentified": fit.unidentified,
        "accuracy line": fit.law.accuracy_line and fit.law.accuracy_line._asdict(),
        "flops per parameter": fit.law.flops_factor,
        "largest, predicted from the others": prediction,
    }
    save("scaling-study", load("scaling-study") | {"fit": found})
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "scaling-study"}):
        display = LossDisplay.from_fit(fit, name="compute-optimal")
        display.ax_.figure.savefig(chosen.figure, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
