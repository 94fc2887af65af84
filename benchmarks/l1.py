"""``evaluate(norm="l1")`` beside AutoAttack's and adv-lib's l1: robust accuracy and what it costs.

Three networks (undefended, distilled at T=100, adversarially trained in linf) on MNIST-5k and on
Fashion-MNIST and, where their folder is given, two published robust networks for MNIST, each at a
radius that leaves a part of the images standing. AutoAttack is pyautoattack's "standard" in L1,
adv-lib's attack is its targeted l1-APGD through larger radii; both are judged by the same code on
the same images. Evaluations are images sent forwards and backwards, per image, ours with the clean
pass and the judging but without the diagnosis. Writes ``results/l1.json`` after every network; a
row that is there is kept, and with ``--ours`` the peers' half of it. ``make bench`` installs both
peers.

    python -m benchmarks.l1 [--examples 200] [--networks TEXT] [--published FOLDER] [--cache FOLDER]
    python -m benchmarks.l1 --ours ...
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import Counted, circumstances, load, save
from benchmarks._peers import imported
from benchmarks._published import NAMES, digits, published
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, TRAINED_ON, trained
from benchmarks._small import RADII as TRAINED_AT
from benchmarks.evaluation import totals
from distillguard import evaluate
from distillguard.functional import margin_loss

KINDS = ("undefended", "T=100", "adversarially trained")
RADII = {"MNIST-5k": 8.0, "Fashion-MNIST": 5.0, "MNIST": 12.0}
"""The last is that of the published networks."""

Subject = tuple[str, str, Callable[[], nn.Module], Tensor, Tensor]
Run = Callable[[nn.Module, Tensor, Tensor], Tensor]


def autoattack(epsilon: float) -> Run:
    """Make a function of pyautoattack's standard AutoAttack."""
    from pyautoattack import AutoAttack

    def attack(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        theirs = AutoAttack(model, norm="L1", eps=epsilon, seed=0, version="standard")
        made: Tensor = theirs.run_standard_evaluation(inputs, labels)[0]
        return made

    return attack


def targeted_apgd(epsilon: float) -> Run:
    """Make a function of adv-lib's targeted l1-APGD."""
    library = imported("adv-lib")

    def attack(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        made: Tensor = library.apgd_targeted(
            model, inputs, labels, eps=epsilon, norm=1, n_iter=100, use_large_reps=True
        )
        return made

    return attack


def judged(attack: Run, network: nn.Module, X: Tensor, y: Tensor, epsilon: float) -> dict[str, Any]:
    """Attack the images and say how many stand within the radius, and at what cost."""
    torch.manual_seed(0)
    counted = Counted(network)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points = attack(counted, X, y).detach().clamp(0, 1)
    seconds = time.perf_counter() - started
    size = (points.double() - X.double()).flatten(1).abs().sum(dim=1)
    fooled = (margin_loss(network(points), y) > 0) & (size <= epsilon * (1 + 1e-4))
    wrong = margin_loss(network(X), y) > 0
    return {
        "robust_accuracy": 1 - (fooled | wrong).float().mean().item(),
        "evaluations": (counted.forwards + counted.backwards) / len(X),
        "seconds": seconds,
    }


def row(
    network: nn.Module, X: Tensor, y: Tensor, epsilon: float, theirs: dict[str, Any] | None
) -> dict[str, Any]:
    """Evaluate by ours and both peers, whose results may be known."""
    report = evaluate(network, X, y, norm="l1", epsilon=epsilon, random_state=0)
    evaluations, seconds = totals(report)
    if theirs is None:
        peers = {"AutoAttack": autoattack(epsilon), "adv-lib APGD-T": targeted_apgd(epsilon)}
        theirs = {name: judged(attack, network, X, y, epsilon) for name, attack in peers.items()}
    return {
        "clean_accuracy": report.clean_accuracy,
        "robust_accuracy": report.robust_accuracy,
        "evaluations": evaluations,
        "seconds": seconds,
        "after_each_attack": {part.name: part.robust_accuracy for part in report.attacks},
        "findings": [finding.code for finding in report.findings],
        "peers": theirs,
        "share_of_autoattacks_evaluations": evaluations / theirs["AutoAttack"]["evaluations"],
    }


def subjects(examples: int, cache: Path, folder: Path | None) -> Iterator[Subject]:
    """Every network: its data, its name, how to get it, the test images and their labels."""
    for data in LOADERS:
        train = tuple(part[:TRAINED_ON] for part in LOADERS[data]("train"))
        X, y = (part[:examples] for part in LOADERS[data]("test"))
        for kind in KINDS:
            place = cache / f"{data} {kind}.pt"
            yield data, kind, partial(trained, kind, *train, TRAINED_AT[data]["linf"], place), X, y
    if folder is not None:
        X, y = digits(folder, examples)
        for name in NAMES:
            build = partial(published, folder, name)
            yield "MNIST", f"{name.upper()} (published)", build, X, y


def main() -> None:
    """Measure every network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--ours", action="store_true", help="keep what the peers found")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    about = circumstances("adv-lib", "pyautoattack") | {"examples": chosen.examples}
    before = load("l1")
    rows = before.get("rows", []) if before.get("examples") == chosen.examples else []
    for data, kind, build, X, y in subjects(chosen.examples, chosen.cache, chosen.published):
        found: dict[str, Any] = {"data": data, "network": kind, "epsilon": RADII[data]}
        known = next((row for row in rows if found.items() <= row.items()), None)
        if (known and not chosen.ours) or chosen.networks not in f"{data} {kind}":
            continue
        found |= row(build(), X, y, RADII[data], known and known["peers"])
        rows = [found if row is known else row for row in rows] + ([] if known else [found])
        save("l1", about | {"rows": rows})
        theirs = ", ".join(
            f"{name} {peer['robust_accuracy']:.3f} at {peer['evaluations']:.0f}"
            for name, peer in found["peers"].items()
        )
        print(
            f"{data} {kind}: {found['robust_accuracy']:.3f} at {found['evaluations']:.0f}, "
            f"{theirs}; {found['share_of_autoattacks_evaluations']:.3f} of AutoAttack's "
            f"{found['findings']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
