r"""``evaluate`` on all official test digits, beside the figure that AutoAttack's authors published.

    python -m torch.distributed.run --standalone --nproc-per-node 2 \
        -m benchmarks.leaderboard FOLDER STATE     # resumes from STATE; or without torchrun
    python -m benchmarks.leaderboard FOLDER --beside-autoattack 500
    python -m benchmarks.leaderboard --page

On a GPU, with ``--device cuda --batch-size 2048 --block 2048``, the first two take minutes.

The network is the TRADES one of Zhang et al. (2019) for MNIST, linf 0.3. On it Croce and Hein
(2020; the list at https://github.com/fra31/auto-attack) give 92.81 % for AutoAttack on all 10,000
digits. ``evaluate`` runs "standard", and longer searches on the digits that it brings near the
boundary. FOLDER holds what ``benchmarks._published`` names, and without one nothing is measured.
The second command runs pyautoattack's standard AutoAttack on the first digits, about 4 processor
seconds a digit. Each command writes its part of ``results/leaderboard.json``; the last one writes
the page.
"""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, load, save
from benchmarks._published import digits, published
from benchmarks.evaluation import stands_autoattack, totals
from distillguard import attacks, evaluate
from distillguard._processes import joined
from distillguard.evaluation import AttackSpec

NETWORK, NORM, EPSILON = "trades", "linf", 0.3
LONGER = [
    partial(
        attacks.pgd,
        loss="margin",
        steps=40,
        restarts=10,
        step_size=EPSILON,
        step_decay=True,
        random_start="blocks",
    ),
    partial(attacks.square, queries=5000),
]
"""After "standard", where its attacks came near the boundary."""

NEAR = 0.7

PUBLISHED = 0.9281
"""Robust accuracy that AutoAttack's authors give for this network."""


def evaluated(chosen: argparse.Namespace) -> dict[str, Any] | None:
    """Evaluate, alone or as one of several processes; the first one tells what was found."""
    processes = joined()
    network, X, y = placed(chosen, chosen.examples)
    began, wall = time.process_time(), time.perf_counter()
    report = evaluate(
        network,
        X,
        y,
        norm=NORM,
        epsilon=EPSILON,
        attacks=["standard", *(AttackSpec(attack, NORM, NEAR) for attack in LONGER)],
        batch_size=chosen.batch_size,
        chunk_size=max(1024, chosen.batch_size),
        random_state=0,
        state_file=chosen.state,
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
        "wall_minutes_of_this_run": (time.perf_counter() - wall) / 60,
        "processes": processes.count,
        "after_each_attack": {part.name: part.robust_accuracy for part in report.attacks},
        "findings": [finding.code for finding in report.findings],
        "standing": stands,
    }


def beside_autoattack(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run AutoAttack on the first digits, a block at a time, and tell of all blocks so far."""
    network, X, y = placed(chosen, chosen.beside_autoattack)
    standing: list[int] = []
    passes = processor = 0.0
    wall = time.perf_counter()
    for start in range(0, len(X), chosen.block):
        block = slice(start, start + chosen.block)
        stands, each, seconds = stands_autoattack(
            network, X[block], y[block], NORM, EPSILON, batch_size=chosen.batch_size
        )
        standing += [start + int(place) for place in stands.nonzero()]
        passes += each * len(stands)
        processor += seconds
        seen = start + len(stands)
        yield {
            "examples": seen,
            "robust_accuracy": len(standing) / seen,
            "passes": passes / seen,
            "processor_minutes": processor / 60,
            "wall_minutes": (time.perf_counter() - wall) / 60,
            "standing": standing,
        }


def placed(chosen: argparse.Namespace, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network and the first digits, on the device."""
    torch.backends.cudnn.allow_tf32 = False  # the published figure is one of float32
    X, y = digits(chosen.folder, n)
    network = published(chosen.folder, NETWORK)
    return network.to(chosen.device), X.to(chosen.device), y.to(chosen.device)


def main() -> None:
    """Measure one part, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of the network and the digits")
    parser.add_argument("state", type=Path, nargs="?", help="file to resume from")
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--beside-autoattack", type=int, metavar="DIGITS")
    parser.add_argument("--page", action="store_true", help="write the page from the results")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--block", type=int, default=500, help="digits kept at a time")
    chosen = parser.parse_args()
    if chosen.page:
        from benchmarks import _leaderboard_page

        return _leaderboard_page.write()
    if chosen.folder is None:
        return print("benchmarks.leaderboard measures nothing without a folder: see _published.py")
    torch.set_num_threads(chosen.threads)
    if chosen.beside_autoattack:
        for found in beside_autoattack(chosen):
            keep("autoattack", found, chosen.device)
    elif chosen.state is None:
        return parser.error("STATE must be a file to keep the evaluation in")
    elif (mine := evaluated(chosen)) is not None:
        keep("evaluate", mine, chosen.device)
    return None


def keep(part: str, found: dict[str, Any], device: str) -> None:
    """Print one part and put it into the file, with where it was measured."""
    print({name: value for name, value in found.items() if name != "standing"}, flush=True)
    where = circumstances("pyautoattack") | {"device": device}
    save("leaderboard", {**load("leaderboard"), part: found | where})


if __name__ == "__main__":
    main()
