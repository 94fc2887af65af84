"""What an import costs beyond what it stands on, each in a fresh process.

    python -m benchmarks.importing [--repeats 11]

``import distillguard.attacks`` beside ``import torch``, and the estimators beside torch and the
parts of scikit-learn that any estimator needs. The two take turns, so that what else the machine
does meets both; the ratio is that of the medians. ``--tree`` prints what took longest instead,
by ``python -X importtime``.
"""

import argparse
import os
import subprocess
import sys
from statistics import median
from typing import Any

from benchmarks._common import circumstances, save, table

BESIDE = {
    "import distillguard.attacks": "import torch",
    "from distillguard import DefensiveDistiller": (
        "import torch, sklearn.base, sklearn.utils.validation"
    ),
    "from distillguard import evaluate": "import torch",
}
MEASURED = """
import sys, time
wall, processor = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - wall, time.process_time() - processor, len(sys.modules))
"""


ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
"""An installed package has its bytecode: without it, most of an import is compilation."""


def measured(statement: str) -> tuple[float, float, int]:
    """Seconds by the clock, processor seconds, and modules loaded, in a fresh process."""
    code = MEASURED.format(statement=statement)
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    wall, processor, modules = run.stdout.split()
    return float(wall), float(processor), int(modules)


def compared(statement: str, other: str, repeats: int) -> dict[str, Any]:
    """One row: medians of both statements and their ratios."""
    measured(statement), measured(other)  # fills the disk's cache, and writes bytecode
    pairs = [(measured(statement), measured(other)) for _ in range(repeats)]
    ours, theirs = zip(*pairs, strict=True)
    wall, processor, modules = map(median, zip(*ours, strict=True))
    other_wall, other_processor, other_modules = map(median, zip(*theirs, strict=True))
    return {
        "import": statement,
        "beside": other,
        "seconds": round(wall, 3),
        "seconds beside": round(other_wall, 3),
        "ratio": round(wall / other_wall, 3),
        "processor ratio": round(processor / other_processor, 3),
        "modules": int(modules),
        "modules beside": int(other_modules),
    }


def slowest(statement: str, count: int = 25) -> list[dict[str, Any]]:
    """The modules that took longest by themselves."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    lines = run.stderr.splitlines()
    rows = [line.removeprefix("import time:").split("|") for line in lines if "|" in line]
    timed = [(int(own), name.strip()) for own, _, name in rows if own.strip().isdigit()]
    return [{"module": name, "ms": own / 1000} for own, name in sorted(timed)[: -count - 1 : -1]]


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--tree", action="store_true", help="print the slowest modules instead")
    arguments = parser.parse_args()
    if arguments.tree:
        for statement in BESIDE:
            print(f"\n{statement}\n\n{table(slowest(statement), ['module', 'ms'])}")
        return
    rows = [compared(*pair, arguments.repeats) for pair in BESIDE.items()]
    setting = circumstances("lightning-fabric", "scipy")
    save("importing", {"circumstances": setting, "repeats": arguments.repeats, "rows": rows})
    print(table(rows, list(rows[0])))


if __name__ == "__main__":
    main()
