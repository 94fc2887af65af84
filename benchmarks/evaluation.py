"""``evaluate(attacks="standard")`` beside AutoAttack: robust accuracy and what it costs.

Four networks (undefended, distilled at T=20 and T=100, adversarially trained) on MNIST-5k and
Fashion-MNIST, in linf and l2. AutoAttack is torchattacks' "standard", run and judged by the
same code on the same images; evaluations are examples sent forwards and backwards, per image.
Ours are given twice: the attacks with the clean pass and the judging, and the diagnosis apart.
Writes ``results/evaluation-DATA.json`` after every row; one that is there for as many examples is
kept.

    python -m benchmarks.evaluation [--examples 250] [--cache FOLDER] [--only MNIST-5k]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from benchmarks._common import circumstances, load, save
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained
from distillguard import (
    RobustnessReport,
    evaluate,
)


def autoattack(norm: str, epsilon: float) -> Callable[..., Tensor]:
    """Torchattacks' standard AutoAttack as a function."""

    def attack(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        theirs = torchattacks.AutoAttack(
            model, norm=norm.capitalize(), eps=epsilon, n_classes=10, seed=0
        )
        return theirs(inputs, labels)

    return attack


def row(model: nn.Module, X: Tensor, y: Tensor, norm: str, epsilon: float) -> dict[str, Any]:
    """Evaluate by both and count."""
    settings: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "random_state": 0}
    ours = evaluate(model, X, y, **settings)
    theirs = evaluate(model, X, y, attacks={"AutoAttack": autoattack(norm, epsilon)}, **settings)
    spent, seconds = totals(ours)
    their_spent, their_seconds = totals(theirs)
    diagnosis = ours.costs["diagnosis"]
    return {
        "clean_accuracy": ours.clean_accuracy,
        "robust_accuracy": ours.robust_accuracy,
        "autoattack_robust_accuracy": theirs.robust_accuracy,
        "examples_above": round((ours.robust_accuracy - theirs.robust_accuracy) * len(X)),
        "evaluations": spent,
        "diagnosis_evaluations": (diagnosis.forwards + diagnosis.backwards) / len(X),
        "autoattack_evaluations": their_spent,
        "share_of_evaluations": spent / their_spent,
        "seconds": seconds,
        "diagnosis_seconds": diagnosis.seconds,
        "autoattack_seconds": their_seconds,
        "after_each_attack": {part.name: part.robust_accuracy for part in ours.attacks},
        "findings": [finding.code for finding in ours.findings],
    }


def totals(report: RobustnessReport) -> tuple[float, float]:
    """Evaluations per image and seconds of everything but the diagnosis."""
    parts = [cost for name, cost in report.costs.items() if name != "diagnosis"]
    evaluations = sum(cost.forwards + cost.backwards for cost in parts)
    evaluations += sum((row.forwards + row.backwards) * row.attacked for row in report.attacks)
    seconds = sum(cost.seconds for cost in parts) + sum(row.seconds for row in report.attacks)
    return evaluations / report.n_examples, seconds


def main() -> None:
    """Measure every network, data set and norm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=250)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--only", choices=list(RADII), nargs="*", default=list(RADII))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)

    for data in arguments.only:
        name = f"evaluation-{data.lower()}"
        before = load(name)
        same = before.get("examples") == arguments.examples
        rows: list[dict[str, Any]] = before.get("rows", []) if same else []
        X, y = (part[:TRAINED_ON] for part in LOADERS[data]("train"))
        tests = tuple(part[: arguments.examples] for part in LOADERS[data]("test"))
        for kind in ("adversarially trained", "T=100", "undefended", "T=20"):
            model = trained(kind, X, y, RADII[data]["linf"], arguments.cache / f"{data} {kind}.pt")
            for norm, epsilon in RADII[data].items():
                found = {"data": data, "network": kind, "norm": norm, "epsilon": epsilon}
                if any(found.items() <= known.items() for known in rows):
                    continue
                found |= row(model, *tests, norm, epsilon)
                rows.append(found)
                about = circumstances("torchattacks") | {"examples": arguments.examples}
                save(name, about | {"rows": rows})
                print(
                    f"{data} {kind} {norm}: {found['robust_accuracy']:.3f} against "
                    f"{found['autoattack_robust_accuracy']:.3f} at "
                    f"{found['share_of_evaluations']:.3f} of {found['autoattack_evaluations']:.0f}"
                    f" (diagnosis {found['diagnosis_evaluations']:.0f}) {found['findings']}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
