"""Deliberate faults written by hand, and which test catches each one.

    python -m benchmarks.mutants                        # every fault
    python -m benchmarks.mutants --only temperature     # those with this in the name

Each fault exchanges one piece of a source file in a temporary copy of ``src``, and the test files
most likely to notice are run against that copy until one fails. A survivor is a missing test.
To add a fault, append a row to ``FAULTS`` in ``benchmarks/_faults_by_hand.py``: file, the text to
exchange (it must occur exactly once), its replacement, and where to look. ``--unharmed`` first
runs those tests on an unharmed copy, which must pass. Faults whose row is in the result file, with
the same exchange, are taken over from there under ``--keep``. ``benchmarks.mutants_by_rule``
plants faults that nobody chose.
"""

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import circumstances, load, save, table
from benchmarks._faults_by_hand import FAULTS, Fault
from benchmarks._mutation import ENDLESS, outcome


def exchanged(fault: Fault, sources: Path) -> None:
    """Apply the fault to the copy of the package."""
    path = sources / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        raise ValueError(
            f"old must occur once in {fault.file} for {fault.name!r}, got {text.count(fault.old)}"
        )
    path.write_text(text.replace(fault.old, fault.new))


def options(tests: tuple[str, ...], only: str = "") -> list[str]:
    """Pytest's options for some test files."""
    return [*(["-k", only] if only else []), *(f"tests/{test}" for test in tests)]


def judged(fault: Fault) -> dict[str, Any]:
    """Run the tests against one fault: a row of the table."""
    begun = time.perf_counter()
    status, output = outcome(
        lambda sources: exchanged(fault, sources), options(fault.tests, fault.only)
    )
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", output, flags=re.MULTILINE)
    caught = found.group(1) if found else None
    if status in ENDLESS:
        caught = "the time limit"
    if status != 0 and not caught:
        raise RuntimeError(f"{fault.name!r} was not judged:\n{output[-2000:]}")
    return {
        "fault": fault.name,
        "file": fault.file,
        "verdict": "killed" if caught else "SURVIVED",
        "by": caught,
        "exchange": [fault.old, fault.new],
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main() -> None:
    """Judge the faults, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="faults whose name or file contains this")
    parser.add_argument("--keep", action="store_true", help="do not repeat faults already killed")
    parser.add_argument("--unharmed", action="store_true", help="first see the tests pass")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    chosen = [f for f in FAULTS if arguments.only in f.name or arguments.only in f.file]
    if arguments.unharmed:
        tests = tuple(sorted({t for f in chosen for t in f.tests}))
        status, output = outcome(None, options(tests))
        if status:
            sys.exit(f"the tests must pass on an unharmed copy:\n{output[-2000:]}")

    before = {row["fault"]: row for row in load("mutants").get("faults", [])}
    rows = dict(before)
    setting = circumstances("pytest", "hypothesis")
    for fault in chosen:
        old = before.get(fault.name)
        same = old is not None and old["exchange"] == [fault.old, fault.new]
        if not (arguments.keep and same and old["by"]):
            rows[fault.name] = judged(fault)
        row = rows[fault.name]
        ordered = [rows[each.name] for each in FAULTS if each.name in rows]
        save("mutants", {"circumstances": setting, "faults": ordered})
        print(f"{row['verdict']:9}{fault.name:45}{row['by'] or ''}", flush=True)
    survivors = [row["fault"] for row in ordered if not row["by"]]

    print()
    print(table(ordered, ["fault", "verdict", "by"]))
    if survivors:
        sys.exit(f"survived: {', '.join(survivors)}")


if __name__ == "__main__":
    main()
