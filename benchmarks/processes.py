"""One process with one thread beside two: ``evaluate`` shares the examples, ``fit`` each batch.

    python -m benchmarks.processes [--examples 400] [--rounds 3]

Papernot's network on MNIST-5k digits. One and two processes take turns; a ratio is that of one
round, the table has the median. Needs two idle cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import circumstances, save, table
from distillguard import DefensiveDistiller, datasets, evaluate, networks
from distillguard._processes import joined


def work(folder: Path, examples: int) -> None:
    """What each process does: load the network, evaluate it, train another."""
    torch.set_num_threads(1)
    processes = joined()
    from distillguard import load

    guard = load(folder / "guard", module=networks.papernot_mnist)
    X, y = datasets.load_mnist5k("test")
    processes.wait()
    began = time.perf_counter()
    report = evaluate(guard, X[:examples], y[:examples], epsilon=0.1, random_state=0)
    evaluated = time.perf_counter() - began

    training = datasets.load_mnist5k("train")
    processes.wait()
    began = time.perf_counter()
    settings: dict[str, Any] = {"max_epochs": 2, "random_state": 0}
    fitted = DefensiveDistiller(networks.papernot_mnist, **settings).fit(*training)
    trained = time.perf_counter() - began
    if processes.first:
        told = {
            "evaluate": evaluated,
            "fit": trained,
            "robust_accuracy": report.robust_accuracy,
            "accuracy": fitted.score(X, y),
        }
        (folder / "told.json").write_text(json.dumps(told))


def timed(folder: Path, examples: int, count: int) -> dict[str, float]:
    """Run the work in some processes; what the first one measured."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    command += ["--standalone"] if count > 1 else []
    if count == 1:
        command = [sys.executable]
    command += ["-m", "benchmarks.processes"]
    command += ["--work", str(folder), "--examples", str(examples)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: dict[str, float] = json.loads((folder / "told.json").read_text())
    return found


def main() -> None:
    """Take turns and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        work(chosen.work, chosen.examples)
        return

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guard = DefensiveDistiller(
            networks.papernot_mnist, temperature=20.0, max_epochs=4, random_state=0
        )
        guard.fit(*datasets.load_mnist5k("train")).save(folder / "guard")
        for _ in range(chosen.rounds):
            one, two = (timed(folder, chosen.examples, count) for count in (1, 2))
            row: dict[str, Any] = {
                "robust accuracy, one | two": [one["robust_accuracy"], two["robust_accuracy"]],
                "accuracy, one | two": [one["accuracy"], two["accuracy"]],
            }
            for part in ("evaluate", "fit"):
                row |= {f"{part}, one s": one[part], f"{part}, two s": two[part]}
                row[f"{part}, times faster"] = one[part] / two[part]
            rows.append(row)
            print(row, flush=True)
    medians = {
        f"{part}, times faster": statistics.median(row[f"{part}, times faster"] for row in rows)
        for part in ("evaluate", "fit")
    }
    result = {"examples": chosen.examples, "rounds": chosen.rounds, "rows": rows}
    save("processes", {**circumstances(), **result, "medians": medians})
    print(table(rows, list(rows[0])))
    print(medians)


if __name__ == "__main__":
    main()
