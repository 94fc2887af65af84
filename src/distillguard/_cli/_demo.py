"""Distil a network on real digits, attack it, and see a defence that looks unbreakable fall.

Trains Papernot's MNIST network on 4,000 handwritten digits twice, undefended and by defensive
distillation at T = 100, attacks both, and prints what each attack leaves of their accuracy, with
what distillguard finds out about those figures. Writes a report (HTML and JSON) and a picture.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._values import count

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation import RobustnessReport

EPSILON = 0.3
L2_EPSILON = 3.0


WHOLE = {"epochs": 10, "images": 500, "train": 4000, "nearest": 50}
QUICK = {"epochs": 5, "images": 100, "train": 1500, "nearest": 10}
"""Carlini-Wagner, ``nearest``, asks the model some hundred times per image: fewer images for it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the report goes, and how much is done."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("distillguard-demo"),
        help="folder (default: distillguard-demo)",
    )
    parser.add_argument("--quick", action="store_true", help="less of all: 50 s of processor time")
    parser.add_argument("--epochs", type=count, help="of each network (default: 10)")
    parser.add_argument("--images", type=count, help="attacked, of the test digits (default: 500)")
    parser.add_argument("--train", type=count, help="training digits (default: 4000)")


def run(chosen: argparse.Namespace) -> int:
    """Train, attack, report."""
    from .. import attacks, datasets, networks
    from .._plot import pyplot
    from ..estimators import DefensiveDistiller, UndefendedClassifier
    from ..evaluation import evaluate

    pyplot()  # missing it is said before the training
    given = {name: value for name, value in vars(chosen).items() if value is not None}
    size = (QUICK if chosen.quick else WHOLE) | given
    chosen.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    training = tuple(part[: size["train"]] for part in datasets.load_mnist5k("train"))
    X, y = (part[: size["images"]] for part in datasets.load_mnist5k("test"))

    # The same network, examples, optimiser, epochs and seed: only the defence differs.
    common: dict[str, Any] = {
        "max_epochs": size["epochs"],
        "random_state": 0,
        "verbose": True,
    }
    undefended = UndefendedClassifier(networks.papernot_mnist, **common).fit(*training)
    distilled = DefensiveDistiller(networks.papernot_mnist, temperature=100.0, **common)
    distilled.fit(*training)

    budget: dict[str, Any] = {"epsilon": EPSILON, "random_state": 0}
    within_budget = {
        "FGSM on cross-entropy": partial(attacks.fgsm, **budget),
        "PGD on cross-entropy": partial(attacks.pgd, **budget),
        "PGD on the margin": partial(attacks.pgd, loss="margin", **budget),
    }
    nearest = {"Carlini-Wagner L2": partial(attacks.carlini_wagner_l2, random_state=0)}
    first, few = {}, {}
    for name, model in {"undefended": undefended, "distilled": distilled}.items():
        ask = partial(evaluate, model, survivors_only=False, random_state=0)
        first[name] = ask(X, y, epsilon=EPSILON, attacks=within_budget)
        part = (each[: size["nearest"]] for each in (X, y))
        few[name] = ask(*part, norm="l2", epsilon=L2_EPSILON, attacks=nearest)

    print(table(first, few))
    for name, report in first.items():
        print(f"\nFindings about the {name} network: {len(report.findings) or 'none'}")
        for finding in report.findings:
            print(f"  {finding.code}: {finding.evidence}\n    {finding.meaning}")

    first["distilled"].to_html(chosen.out / "report.html")
    write_json(chosen.out / "report.json", first, few)
    draw(chosen.out / "figure.png", {"undefended": undefended, "distilled": distilled}, X, y)
    print(f"\n{time.perf_counter() - began:.0f} s; look at {chosen.out}/report.html and figure.png")
    return 0


def table(first: dict[str, "RobustnessReport"], few: dict[str, "RobustnessReport"]) -> str:
    """One line per attack, one column per network: accuracy that is left, in per cent."""
    names = list(first)
    lines = [f"{'accuracy left, %':<34}" + "".join(f"{name:>14}" for name in names)]

    def line(title: str, shares: list[float]) -> None:
        lines.append(f"{title:<34}" + "".join(f"{100 * share:>14.1f}" for share in shares))

    line("no attack", [first[name].clean_accuracy for name in names])
    for rows in zip(*(first[name].attacks for name in names), strict=True):
        line(f"{rows[0].name}, linf {EPSILON}", [row.robust_accuracy for row in rows])
    line("worst case of these", [first[name].robust_accuracy for name in names])
    last = [few[name].attacks[0] for name in names]
    line(f"{last[0].name}, any distance", [1 - (row.success_rate or 0) for row in last])
    medians = "".join(f"{row.median_distance or float('nan'):>14.2f}" for row in last)
    lines.append(f"{'  its median L2 distance':<34}{medians}")
    return "\n".join(lines)


def write_json(
    path: Path, first: dict[str, "RobustnessReport"], few: dict[str, "RobustnessReport"]
) -> None:
    """Both networks' reports in one file."""
    reports = {
        name: {"within_budget": first[name].to_dict(), "carlini_wagner": few[name].to_dict()}
        for name in first
    }
    path.write_text(json.dumps(reports, indent=2) + "\n")


def draw(path: Path, models: dict[str, Any], X: "Tensor", y: "Tensor") -> None:
    """One digit of each class, clean and as Carlini-Wagner changes it for each network."""
    from matplotlib.figure import Figure

    from ..attacks import carlini_wagner_l2

    chosen = [int((y == digit).nonzero()[0]) for digit in range(10)]
    inputs, labels = X[chosen], y[chosen]
    figure = Figure(figsize=(11, 1.9 + 1.75 * len(models)))
    axes = figure.subplots(1 + len(models), 10)
    for axis, image, label in zip(axes[0], inputs, labels, strict=True):
        _show(axis, image, f"{label}")
    axes[0, 0].set_ylabel("clean, true class")
    for line, (name, model) in zip(axes[1:], models.items(), strict=True):
        network = model.model_
        adversarial = carlini_wagner_l2(network, inputs, labels, random_state=0)
        distances = (adversarial - inputs).flatten(1).norm(dim=1)
        seen = model.predict(adversarial)
        for axis, image, prediction, distance in zip(
            line, adversarial, seen, distances, strict=True
        ):
            _show(axis, image, f"{prediction}\nL2 {distance:.2f}")
        line[0].set_ylabel(name)
    figure.suptitle("Carlini-Wagner L2: what the network sees is written above each digit")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _show(axis: Any, image: "Tensor", title: str) -> None:
    axis.imshow(image.squeeze(0).numpy(), cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
