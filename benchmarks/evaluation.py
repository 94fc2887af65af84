"""``evaluate(attacks="standard")`` beside the published AutoAttack: what both find, at what cost.

Four networks (undefended, distilled at T=20 and T=100, adversarially trained) on MNIST-5k and
Fashion-MNIST, four further architectures adversarially trained on Fashion-MNIST and, where their
folder is given, two published robust networks for MNIST; in linf and l2, each on the same test
images. AutoAttack is pyautoattack's "standard" (100 steps, 9 targets, 5,000 queries), judged by
the same code. Passes are examples sent forwards and backwards, seconds are the processor's; of ours
the whole is counted: clean pass, attacks, judging, diagnosis.

    python -m benchmarks.evaluation [--examples 200] [--networks TEXT] [--norms linf l2]
        [--published FOLDER] [--cache FOLDER] [--ours] [--held-out] [--page]

Writes ``results/evaluation.json`` after every row; a row that is there is kept. ``--ours`` measures
ours again beside AutoAttack's figures of an earlier run, whose date the row keeps. ``--held-out``
takes the test images from 500 on, which nobody looked at when the attacks of "standard" were
chosen, and writes ``results/evaluation-held-out.json``. Prints the rows
and whether each target holds: no robust accuracy above AutoAttack's, and on every row where it
leaves 20 % at most an eighth of its passes and a sixth of its seconds; elsewhere at most 60 passes
per image. ``--page`` writes docs/benchmarks/evaluation.md. ``make bench`` installs pyautoattack.
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

from benchmarks import _evaluation_page
from benchmarks._architectures import ARCHITECTURES, robust
from benchmarks._common import Counted, circumstances, load, save, table
from benchmarks._evaluation_page import judged
from benchmarks._published import NAMES, digits, published
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained
from distillguard import RobustnessReport, evaluate
from distillguard._geometry import lp_norm

HELD_OUT = 500
"""The first of the images that the attacks were not chosen by."""

KINDS = ("undefended", "T=20", "T=100", "adversarially trained")
PUBLISHED_RADII = {"linf": 0.3, "l2": 2.0}

EvaluatedModel = tuple[str, Callable[[], nn.Module], Tensor, Tensor, dict[str, float]]


def subjects(examples: int, cache: Path, folder: Path | None) -> Iterator[EvaluatedModel]:
    """Every network by name: how to get it, its test images, their labels, the radii."""
    for data, radii in RADII.items():
        train = tuple(part[:TRAINED_ON] for part in LOADERS[data]("train"))
        X, y = (part[:examples] for part in LOADERS[data]("test"))
        kinds: dict[str, Callable[..., nn.Module]] = dict.fromkeys(KINDS, trained)
        if data == "Fashion-MNIST":
            kinds |= dict.fromkeys(ARCHITECTURES, robust)
        for kind, train_one in kinds.items():
            name = f"{data} {kind}"
            build = partial(train_one, kind, *train, radii["linf"], cache / f"{name}.pt")
            yield name, build, X, y, radii
    if folder is not None:
        X, y = digits(folder, examples)
        for name in NAMES:
            build = partial(published, folder, name)
            yield f"MNIST {name.upper()} (published)", build, X, y, PUBLISHED_RADII


def ours(
    model: nn.Module, X: Tensor, y: Tensor, norm: str, epsilon: float, **settings: Any
) -> dict[str, Any]:
    """Evaluate by distillguard and count everything."""
    began = time.process_time()
    report = evaluate(model, X, y, norm=norm, epsilon=epsilon, random_state=0, **settings)
    seconds = time.process_time() - began
    passes, _ = totals(report)
    diagnosis = report.costs["diagnosis"]
    return {
        "clean_accuracy": report.clean_accuracy,
        "robust_accuracy": report.robust_accuracy,
        "quoted_accuracy": report.quoted_accuracy,
        "passes": passes + (diagnosis.forwards + diagnosis.backwards) / len(X),
        "diagnosis_passes": (diagnosis.forwards + diagnosis.backwards) / len(X),
        "seconds": seconds,
        "diagnosis_seconds": diagnosis.seconds,
        "after_each_attack": {part.name: part.robust_accuracy for part in report.attacks},
        "findings": [finding.code for finding in report.findings],
        "active_test": {
            name: getattr(report.observations, f"active_{name}")
            for name in ("tested", "left_out", "found")
        },
    }


def totals(report: RobustnessReport) -> tuple[float, float]:
    """Passes per image and seconds of everything but the diagnosis."""
    parts = [cost for name, cost in report.costs.items() if name != "diagnosis"]
    passes = sum(cost.forwards + cost.backwards for cost in parts)
    passes += sum((row.forwards + row.backwards) * row.attacked for row in report.attacks)
    seconds = sum(cost.seconds for cost in parts) + sum(row.seconds for row in report.attacks)
    return passes / report.n_examples, seconds


def autoattack(model: nn.Module, X: Tensor, y: Tensor, norm: str, epsilon: float) -> dict[str, Any]:
    """Attack by pyautoattack's standard AutoAttack and judge what it returns."""
    stands, passes, seconds = stands_autoattack(model, X, y, norm, epsilon)
    return {
        "robust_accuracy": stands.double().mean().item(),
        "passes": passes,
        "seconds": seconds,
    }


def stands_autoattack(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    norm: str,
    epsilon: float,
    *,
    batch_size: int = 250,
) -> tuple[Tensor, float, float]:
    """Which examples stand against AutoAttack, its passes per example and processor seconds."""
    from pyautoattack import AutoAttack

    counted = Counted(model)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoAttack(
            counted,
            norm=norm.capitalize(),
            eps=epsilon,
            seed=0,
            version="standard",
            device=X.device,
        )
        found = theirs.run_standard_evaluation(X, y, batch_size=batch_size)[0]
        points = found.detach().clamp(0, 1)
    seconds = time.process_time() - began
    with torch.no_grad():
        correct = model(X).argmax(dim=1) == y
        wrong = model(points).argmax(dim=1) != y
    inside = lp_norm(points.double() - X.double(), norm) <= epsilon * (1 + 1e-4)
    passes = (counted.forwards + counted.backwards) / len(X)
    return correct & ~(wrong & inside), passes, seconds


def main() -> None:
    """Measure every network and norm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--norms", nargs="+", choices=("linf", "l2"), default=["linf", "l2"])
    parser.add_argument("--published", type=Path)
    parser.add_argument("--ours", action="store_true", help="measure ours again")
    parser.add_argument("--held-out", action="store_true", help="on images from 500 on")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    chosen = parser.parse_args()
    if chosen.page:
        _evaluation_page.write()
        return
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    first, kept = (HELD_OUT, "evaluation-held-out") if chosen.held_out else (0, "evaluation")
    before = load(kept)
    rows: list[dict[str, Any]] = (
        before.get("rows", []) if before.get("examples") == chosen.examples else []
    )
    last = first + chosen.examples
    for name, build, X, y, radii in subjects(last, chosen.cache, chosen.published):
        X, y = X[first:], y[first:]
        if chosen.networks not in name:
            continue
        for norm in chosen.norms:
            key = {"network": name, "norm": norm, "epsilon": radii[norm]}
            known = next((row for row in rows if key.items() <= row.items()), None)
            if known is not None and not chosen.ours:
                continue
            model = build()
            found = known if known is not None else dict(key)
            about = circumstances("pyautoattack")
            found["distillguard"] = ours(model, X, y, norm, radii[norm])
            if "AutoAttack" not in found:
                found["AutoAttack"] = autoattack(model, X, y, norm, radii[norm])
                found["AutoAttack"]["date"] = about["date"]
            found["distillguard"]["date"] = about["date"]
            if known is None:
                rows.append(found)
            save(kept, about | {"examples": chosen.examples, "rows": rows})
            print(judged(found, chosen.examples), found["distillguard"]["findings"], flush=True)
    results = [judged(row, chosen.examples) for row in rows]
    if results:
        print(table(results, list(results[0])))
        above = sum(max(row["images above"], 0) for row in results)
        print(f"images above AutoAttack: {above} of {chosen.examples * len(results)}")


if __name__ == "__main__":
    main()
