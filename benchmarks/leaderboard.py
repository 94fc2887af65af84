r"""``evaluate`` on all official test digits, beside the figure that AutoAttack's authors published.

    python -m torch.distributed.run --standalone --nproc-per-node 2 \
        -m benchmarks.leaderboard FOLDER STATE     # resumes from STATE; or without torchrun
    python -m benchmarks.leaderboard FOLDER --beside-autoattack 500
    python -m benchmarks.leaderboard --page

The network is the TRADES one of Zhang et al. (2019) for MNIST, linf 0.3. On it Croce and Hein
(2020; the list at https://github.com/fra31/auto-attack) give 92.81 % for AutoAttack on all 10,000
digits. FOLDER holds what ``benchmarks._published`` names, and without one nothing is measured. The
second command runs pyautoattack's standard AutoAttack on the first digits, about 4 processor
seconds a digit. Each command writes its part of ``results/leaderboard.json``; the last one writes
the page.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import circumstances, load, save
from benchmarks._published import digits, published
from benchmarks.evaluation import autoattack, totals
from distillguard import attacks, evaluate
from distillguard._processes import joined

NETWORK, NORM, EPSILON = "trades", "linf", 0.3
QUERIES = 1000
"""Of a longer random search after "standard"."""

PUBLISHED = 0.9281
"""Robust accuracy that AutoAttack's authors give for this network."""


def evaluated(folder: Path, state: Path, n: int) -> dict[str, Any] | None:
    """Evaluate, alone or as one of several processes; the first one tells what was found."""
    processes = joined()
    X, y = digits(folder, n)
    began = time.process_time()
    report = evaluate(
        published(folder, NETWORK),
        X,
        y,
        norm=NORM,
        epsilon=EPSILON,
        attacks=["standard", partial(attacks.square, queries=QUERIES)],
        random_state=0,
        state_file=state,
        progress=processes.first,
    )
    spent = processes.all_gather(time.process_time() - began)
    if not processes.first:
        return None
    passes, seconds = totals(report)
    diagnosis = report.costs["diagnosis"]
    each = report.per_example
    stands = [
        int(place)
        for place, label, answer, by in zip(
            each.index, each.label, each.predicted, each.fooled_by, strict=True
        )
        if label == answer and by is None
    ]
    return {
        "examples": len(X),
        "clean_accuracy": report.clean_accuracy,
        "robust_accuracy": report.robust_accuracy,
        "quoted_accuracy": report.quoted_accuracy,
        "interval": list(report.quoted_interval),
        "passes": passes + (diagnosis.forwards + diagnosis.backwards) / len(X),
        "minutes": (seconds + diagnosis.seconds) / 60,
        "processor_minutes_of_this_run": sum(spent) / 60,
        "processes": processes.count,
        "after_each_attack": {part.name: part.robust_accuracy for part in report.attacks},
        "findings": [finding.code for finding in report.findings],
        "standing": stands,
    }


def beside_autoattack(folder: Path, n: int) -> dict[str, Any]:
    """Run AutoAttack on the first digits."""
    X, y = digits(folder, n)
    return {"examples": n, **autoattack(published(folder, NETWORK), X, y, NORM, EPSILON)}


def main() -> None:
    """Measure one part, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of the network and the digits")
    parser.add_argument("state", type=Path, nargs="?", help="file to resume from")
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--beside-autoattack", type=int, metavar="DIGITS")
    parser.add_argument("--page", action="store_true", help="write the page from the results")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.page:
        from benchmarks import _leaderboard_page

        return _leaderboard_page.write()
    if chosen.folder is None:
        return print("benchmarks.leaderboard measures nothing without a folder: see _published.py")
    torch.set_num_threads(chosen.threads)
    if chosen.beside_autoattack:
        part = {"autoattack": beside_autoattack(chosen.folder, chosen.beside_autoattack)}
    elif chosen.state is None:
        return parser.error("STATE must be a file to keep the evaluation in")
    else:
        found = evaluated(chosen.folder, chosen.state, chosen.examples)
        if found is None:
            return None
        part = {"evaluate": found}
    print({name: value for name, value in next(iter(part.values())).items() if name != "standing"})
    save("leaderboard", {**load("leaderboard"), **circumstances("pyautoattack"), **part})
    return None


if __name__ == "__main__":
    main()
