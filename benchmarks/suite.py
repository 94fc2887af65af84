"""The whole test suite, run again and again: what fails now and then, and what a run costs.

    python -m benchmarks.suite [--runs 1]

Every run is added to the results: when and of which commit it was, the tests that failed, and the
processor time of all processes together, with the tests that took longest. A run takes 7 to 8
minutes with two processes on two idle cores; beside other jobs, processor time is more than it need
be.
``python -m benchmarks._trust_page`` then writes the page that tells of it.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._common import circumstances, load, save, table
from benchmarks._suite_log import PLACE

ROOT = Path(__file__).parents[1]
NAME = "suite"
SLOWEST = 15

REASONS = {
    "test_two_processes_train_the_network_that_one_trains": "three processes train ten networks",
    "test_a_group_that_the_user_started_without_torchrun": "three processes train a network",
    "test_two_processes_adapt_as_one_does": "two processes and this one evaluate and adapt",
    "test_all_of_it_runs_writes_pages_and_does_nothing_twice": "all the papers' claims, in small",
    "test_processes_that_save_to_one_folder": "two processes load, and save at once",
    "test_a_forked_process_saves": "a new process trains, forks and saves",
    "test_nothing_heavy_is_imported_unasked": "a new process",
    "test_examples_on_documentation_pages_run": "the pages' own code, at its own size",
    "test_code_on_how_to_pages_runs": "the pages' own code, at its own size",
    "test_the_code_of_a_page": "the pages' own code, at its own size",
    "test_the_study_of_four_networks": "an example of the documentation, as it is",
    "test_the_quickstart": "an example of the documentation, as it is",
    "test_the_layers_print": "an example of the documentation, as it is",
    "test_slices_of_a_plain_network": "forty evaluations with their diagnosis",
    "test_no_socket_is_opened": "a whole fit, evaluation and save under an audit hook",
    "test_three_networks_give_torchs_logits": "the export to ONNX",
    "test_a_million_rows": "a million rows",
    "test_any_network_fits": "a ResNet-18",
    "test_in_half_precision": "FAB on half-precision tensors, as a processor computes them",
    "test_in_l1_a_linear_model": "sixteen thousand values, four whole evaluations",
    "test_a_saturated_softmax_is_attacked_again": "an evaluation with adapted attacks",
    "test_whatever_became_of_its_state_file": "a Hypothesis state machine of evaluations",
    "test_whatever": "a Hypothesis state machine of fits",
    "test_standard_leaves_far": "a whole evaluation",
    "test_side_information": "a search for each image alone",
    "test_the_import_of_the_exercises": "two new processes",
    "test_draws_make_of_a_random_model": "evaluations of a random network, twenty draws a question",
    "test_nearest_neighbours_fall": "an evaluation that searches towards other examples",
    "test_evaluations_come_to_the_same": "two whole evaluations",
    "test_another_process_comes_to": "a new process fits, attacks and evaluates as this one does",
}
"""Why a slow test is slow, by the beginning of its name; the first that fits."""


def run(folder: Path) -> dict[str, Any]:
    """Run the suite once; what became of it."""
    log = folder / "log.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "-n", "2"]
    command += ["--dist", "worksteal", "-p", "no:cacheprovider", "-p", "benchmarks._suite_log"]
    environment = {**os.environ, PLACE: str(log), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process compiles every file anew
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(log.read_text(encoding="utf-8"))
    slowest = sorted(told["seconds"].items(), key=lambda each: -each[1])[:SLOWEST]
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        **Counter(told["outcomes"].values()),
        "failing": told["failed"],
        "processor_minutes": round(spent / 60, 1),
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "slowest": [{"test": name, "seconds": seconds} for name, seconds in slowest],
    }


def _commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return said.stdout.strip()


def reason(test: str) -> str:
    """Why a test takes long."""
    name = test.split("::")[-1]
    return next((why for start, why in REASONS.items() if name.startswith(start)), "")


def told_of_runs(runs: list[dict[str, Any]]) -> str:
    """All runs in words, and the slow tail of the last."""
    last = runs[-1]
    failing = sorted({name for each in runs for name in each["failing"]})
    costs = [each["processor_minutes"] for each in runs]
    rows = [
        {
            "test": f"`{re.sub(r'^.*?::', '', each['test'])}`",
            "seconds": f"{each['seconds']:.0f}",
            "because of": reason(each["test"]),
        }
        for each in last["slowest"]
    ]
    none = "none failed in any of them" if len(runs) > 1 else "none failed"
    some = f"{len(failing)} failed in one of them or more: " + ", ".join(
        map("`{}`".format, failing)
    )
    times = "once" if len(runs) == 1 else f"{len(runs)} times"
    cost = f"{last['processor_minutes']:g} processor minutes"
    if len(runs) > 1:
        cost += f" (all runs: {min(costs):g} to {max(costs):g})"
    return (
        f"`python -m benchmarks.suite` has run the whole suite {times}; "
        f"{some if failing else none}. The last run, on {last['date']}, passed "
        f"{last['passed']} tests in {cost}. Its slowest tests, in processor seconds:\n\n"
        f"{table(rows, list(rows[0]))}"
    )


def main() -> None:
    """Run it, and add what became of it to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1)
    chosen = parser.parse_args()
    runs = load(NAME).get("runs", [])
    try:
        for _ in range(chosen.runs):
            with tempfile.TemporaryDirectory() as folder:
                runs = [*runs, run(Path(folder))]
            last = {name: value for name, value in runs[-1].items() if name != "slowest"}
            print(json.dumps(last), flush=True)
    finally:
        # Not before: the suite itself compares the results with the page.
        save(NAME, {**circumstances("pytest", "pytest-xdist", "hypothesis"), "runs": runs})
    print(told_of_runs(runs))


if __name__ == "__main__":
    main()
