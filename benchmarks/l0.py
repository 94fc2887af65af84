"""``evaluate(norm="l0")`` and our sigma-zero beside adv-lib's: who stands, and what it costs.

Three networks (undefended, distilled at T=100, adversarially trained in linf) on MNIST-5k. The
settings of our attacks were chosen on the first 50 test images; judged are those from index 200 on.
Attacks that look for the fewest changes run once, and a radius of k values asks who fell to at most
k. Of our sigma-zero and of PGD other constants run too: the paper's, and other steps. Passes are
images sent forwards and backwards, counted around the model. Writes ``results/l0.json`` after every
network. ``make bench`` installs adv-lib.

A row that is there is kept; with ``--ours``, ``evaluate`` is measured again beside it.

    python -m benchmarks.l0 [--examples 100] [--ours] [--cache FOLDER]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks._common import Counted, circumstances, load, save
from benchmarks._peers import adv_lib
from benchmarks._robust import CACHE
from benchmarks._small import TRAINED_ON, trained
from distillguard import attacks, evaluate
from distillguard.attacks import _sigma_zero
from distillguard.datasets import load_mnist5k
from distillguard.functional import margin_loss

NETWORKS = ("undefended", "T=100", "adversarially trained")
COUNTS = (4, 8, 16)
FIRST = 200
TRAINED_AT = 0.2

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]


def papers(model: nn.Module, inputs: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Our sigma-zero with the paper's constants."""
    with patch.object(_sigma_zero, "BETA1", 0.9):
        return attacks.sigma_zero(
            model, inputs, labels, steps=steps, step_size=1.0, threshold_change=0.01
        )


FEWEST: dict[str, Run] = {
    "sigma_zero, 100 steps": attacks.sigma_zero,
    "sigma_zero, 300 steps": partial(attacks.sigma_zero, steps=300),
    "sigma_zero, 1000 steps": partial(attacks.sigma_zero, steps=1000),
    "carlini_wagner_l0": attacks.carlini_wagner_l0,
    "adv-lib sigma_zero, 100 steps": adv_lib("sigma_zero", num_steps=100),
    "adv-lib sigma_zero, 300 steps": adv_lib("sigma_zero", num_steps=300),
    "adv-lib sigma_zero, 1000 steps": adv_lib("sigma_zero", num_steps=1000),
    "sigma_zero, the paper's constants, 100 steps": partial(papers, steps=100),
    "sigma_zero, the paper's constants, 1000 steps": partial(papers, steps=1000),
}
"""By name, what looks for the fewest changes."""


def run(attack: Run, network: nn.Module, X: Tensor, y: Tensor) -> tuple[Tensor, dict[str, float]]:
    """How many values had to change, infinity where nothing fooled; and passes and seconds."""
    torch.manual_seed(0)
    counted = Counted(network)
    started = time.process_time()
    points = attack(counted, X, y).detach().clamp(0, 1)
    seconds = time.process_time() - started
    changed = (points != X).flatten(1).sum(dim=1).double()
    with torch.no_grad():
        fooled = margin_loss(network(points), y) > 0
        wrong = margin_loss(network(X), y) > 0
    passes = (counted.forwards + counted.backwards) / len(X)
    changed = torch.where(fooled, changed, torch.inf).masked_fill(wrong, 0)
    return changed, {"passes": passes, "processor_seconds": seconds}


def standing(changed: Tensor, count: int) -> float:
    """Share of the images that ``count`` changes do not fool."""
    return (changed > count).double().mean().item()


def fewest(name: str, network: nn.Module, X: Tensor, y: Tensor) -> dict[str, Any]:
    """One attack that knows no radius."""
    changed, spent = run(FEWEST[name], network, X, y)
    median = changed[changed > 0].quantile(0.5, interpolation="lower").item()
    return {
        "robust_accuracy": {str(count): standing(changed, count) for count in COUNTS},
        "failed": int(changed.isinf().sum()),
        "median": median,
        "mean_at_most_50": changed[changed > 0].clamp(max=50).mean().item(),
        **spent,
    }


def within(network: nn.Module, X: Tensor, y: Tensor, count: int) -> dict[str, Any]:
    """What needs a radius: the preset, and PGD from one start by its first step."""
    counted = Counted(network)
    started = time.process_time()
    report = evaluate(counted, X, y, norm="l0", epsilon=count, diagnosis=None, random_state=0)
    preset = {
        "robust_accuracy": report.robust_accuracy,
        "after_each_attack": {part.name: part.robust_accuracy for part in report.attacks},
        "passes": (counted.forwards + counted.backwards) / len(X),
        "processor_seconds": time.process_time() - started,
    }
    pgd = partial(attacks.pgd, norm="l0", epsilon=count, loss="margin", steps=40, random_state=0)
    steps = {}
    for step_size in (1.0, 3.0, 10.0, 30.0):
        changed, spent = run(partial(pgd, step_size=step_size, step_decay=True), network, X, y)
        steps[str(step_size)] = {"robust_accuracy": standing(changed, count), **spent}
    return {"standard": preset, "pgd_by_first_step": steps}


def row(network: nn.Module, X: Tensor, y: Tensor) -> dict[str, Any]:
    """Everything on one network."""
    clean = (margin_loss(network(X), y) <= 0).double().mean().item()
    return {
        "clean_accuracy": clean,
        "by_count": {str(count): within(network, X, y, count) for count in COUNTS},
        "fewest": {name: fewest(name, network, X, y) for name in FEWEST},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table: a line for each network and attack."""
    titles = ["network", "attack", *(f"stand at {count}" for count in COUNTS)]
    titles += ["median", "mean, none above 50", "passes"]
    lines = ["| " + " | ".join(titles) + " |", "| --- | --- |" + " ---: |" * (len(titles) - 2)]
    for each in rows:
        preset = [each["by_count"][str(count)]["standard"] for count in COUNTS]
        shares = [f"{100 * part['robust_accuracy']:.0f} %" for part in preset]
        passes = ", ".join(f"{part['passes']:.0f}" for part in preset)
        cells = [each["network"], '`evaluate(norm="l0")`', *shares, "", "", passes]
        lines.append("| " + " | ".join(cells) + " |")
        for name, found in each["fewest"].items():
            shares = [f"{100 * share:.0f} %" for share in found["robust_accuracy"].values()]
            cells = ["", name, *shares, f"{found['median']:.0f}", f"{found['mean_at_most_50']:.2f}"]
            cells.append(f"{found['passes']:.0f}")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--ours", action="store_true", help="measure evaluate again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)

    about = circumstances("adv-lib") | {"first": FIRST, "examples": arguments.examples}
    before = load("l0")
    rows = before.get("rows", []) if before.get("examples") == arguments.examples else []
    train = tuple(part[:TRAINED_ON] for part in load_mnist5k("train"))
    X, y = (part[FIRST : FIRST + arguments.examples] for part in load_mnist5k("test"))
    for kind in NETWORKS:
        known = next((each for each in rows if each["network"] == kind), None)
        if known is not None and not arguments.ours:
            continue
        network = trained(kind, *train, TRAINED_AT, arguments.cache / f"MNIST-5k {kind}.pt")
        if known is None:
            rows.append({"data": "MNIST-5k", "network": kind} | row(network, X, y))
        else:
            known["by_count"] = {str(count): within(network, X, y, count) for count in COUNTS}
        save("l0", about | {"rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
