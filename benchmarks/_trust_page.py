"""Write docs/explanation/trust.md from what deliberate faults in the code and around it showed.

python -m benchmarks._trust_page
"""

from collections import Counter
from typing import Any

from benchmarks._common import RESULTS, load, table

PAGE = RESULTS.parents[1] / "docs" / "explanation" / "trust.md"
CONTRACT, MODELS = "tests/test_attacks_contract.py", "tests/test_any_model.py"
STATE, SAVES = "tests/test_state.py", "tests/test_persistence.py"
FAULTS = "python -m benchmarks.faults"
ATTACKS = {
    "Adversarial examples lie within `bounds` exactly and within `epsilon` up to one rounding.": (
        CONTRACT, "tests/test_numerics.py",
    ),
    "The result of an example depends neither on its neighbours, nor on `batch_size` or order.": (
        CONTRACT, "tests/test_engine.py",
    ),
    "Every point that an attack reaches is judged, the last too; the best by margin is kept.": (
        "tests/test_pgd.py", CONTRACT,
    ),
    "A model is borrowed: modes, gradients, statistics and global random numbers come back.": (
        "tests/test_modes.py", CONTRACT, "tests/test_threads.py",
    ),
    "Values at the bounds can move; one step, one example, two classes and no example work.": (
        CONTRACT,
    ),
    "A gradient of zero gives a step of zero, never NaN, and is counted.": (
        CONTRACT, "tests/test_geometry.py", "tests/test_masking.py",
    ),
    "The same `random_state` gives the same result on the same machine.": (
        CONTRACT, "tests/test_random.py",
    ),
    "A model that returns probabilities is refused, with the remedy.": (CONTRACT,),
    "A function in front of the network that changes no value changes no verdict.": (
        MODELS, "python -m benchmarks.fronts",
    ),
    "Results do not depend on the units of the inputs.": (MODELS,),
    "A success holds when the model is asked again, alone or in any batch.": (MODELS,),
    "A model is asked only for batches of at least one example, in the caller's layout.": (
        MODELS, "tests/test_any_network.py",
    ),
}  # fmt: skip
REST = {
    "`softmax` sums to 1, keeps the order, ignores shifts and does not overflow.": (
        "tests/test_functional.py", "tests/test_properties.py",
    ),
    "Whatever happens between them (refused or interrupted fits, clones, pickles, saves), fits "
    "teach what they teach alone.": ("tests/test_stateful.py", "tests/test_refit.py"),
    "A killed fit, resumed, ends with the bits of an unbroken one.": (
        "tests/test_long_runs.py", f"{FAULTS} --only kills",
    ),
    "A killed evaluation, resumed, gives the same report; other data, settings, models or "
    "attacks are refused.": (STATE, "tests/test_stateful.py", f"{FAULTS} --only kills"),
    "A damaged save, checkpoint, state file or report is read right or refused.": (
        SAVES, "tests/test_long_runs.py", STATE, f"{FAULTS} --only damage",
    ),
    "No file runs code.": (SAVES, "tests/test_long_runs.py"),
    "Nothing is written outside the folders given, and no socket is opened.": (
        "tests/test_surface.py",
    ),
    "Public names, signatures, defaults and schemas change only knowingly.": (
        "tests/test_surface.py",
    ),
    "Two processes train the network that one trains.": ("tests/test_processes.py",),
    "Errors say what must be given instead.": (
        "tests/test_usual_mistakes.py", "tests/test_validation.py",
    ),
}  # fmt: skip
TEXT = """\
# Trust: what is promised and how it is tested

A figure of robustness is worth what the code behind it is worth. This page lists what distillguard
promises, with the test or the command that would tell if it were not so, and what the commands gave
last. `python -m benchmarks._trust_page` writes it.

## Promises of the attacks

{attacks}

{{func}}`~distillguard.testing.check_attack` tests an attack of your own for these promises, and
{{func}}`~distillguard.testing.check_model` a network for what they presuppose: see
[Test your own](../howto/testing.md).

## Promises of training, saves and evaluation

{rest}

`HYPOTHESIS_PROFILE=many` runs the properties and the state machines at greater length,
`make test-oldest` runs the suite on the oldest versions allowed, and `make audit` looks up known
vulnerabilities of the pinned ones.

## Deliberate faults in the code

`python -m benchmarks.mutants` exchanges one piece of the source at a time, as somebody wrote down
who knew what it is for, and runs the test files most likely to notice. {by_hand}

`python -m benchmarks.mutants_by_rule` makes exchanges that nobody chose: an operator, a sign, a
constant, a condition, a reduction, a bound, a keyword, a call, an early end. Of all that its rules
allow in `src` it takes a sample from every folder and runs the tests that execute the line, the
short ones first, up to {seconds:g} seconds of them. {by_rule}

## Deliberate faults around it

`python -m benchmarks.faults` kills, fills the disk, damages files and works in several threads at
once. *Right* is bit for bit what an undisturbed run gives (of a report, the figures to quote),
*refused* the documented error with everything else as it was, and *lost* neither of them. These are
short runs; `--kills 1000 --files 10000 --minutes 60` makes long ones.

{faults}

{load}

The figures are of {date}, with PyTorch {torch} on {cores} cores.
"""


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    found, ruled = load("faults"), load("mutants-by-rule")
    names = ("kills", "disks", "givens", "damage", "threads")
    rows = [row for name in names for row in found["parts"].get(name, [])]
    return TEXT.format(
        attacks=promises(ATTACKS),
        rest=promises(REST),
        by_hand=told_of_faults(load("mutants")["faults"]),
        by_rule=told_of_faults(ruled["faults"]),
        seconds=ruled["limit"],
        faults=table(rows, ["fault", "trials", "right", "refused", "lost"]),
        load=told_of_load(found["load"]),
        date=found["date"],
        torch=found["versions"]["torch"],
        cores=found["cores"],
    )


def promises(kept: dict[str, tuple[str, ...]]) -> str:
    """Promises beside what tests them."""
    rows = [
        {"promise": promise, "tested by": ", ".join(f"`{place}`" for place in places)}
        for promise, places in kept.items()
    ]
    return table(rows, ["promise", "tested by"])


def told_of_faults(faults: list[dict[str, Any]]) -> str:
    """How many were killed, how many nobody can tell, and how many survived."""
    verdicts = Counter(fault["verdict"] for fault in faults)
    told = f"Of {len(faults)} faults the tests killed {verdicts['killed']}"
    if verdicts["equivalent"]:
        told += (
            f"; {verdicts['equivalent']} change nothing that a test could tell, for the reasons in "
            "`benchmarks/_equivalent_faults.py`"
        )
    if verdicts["SURVIVED"]:
        told += f"; {verdicts['SURVIVED']} survived the tests asked; the result file names them"
    return f"{told}."


def told_of_load(found: dict[str, Any]) -> str:
    """What the memory did under mixed load."""
    return (
        f"Under {found['minutes']:g} minutes of mixed load (`--only load --minutes "
        f"{found['minutes']:g}`: {found['rounds']} rounds of fit, save, load, evaluate and resume) "
        f"the process held {found['MiB after a quarter']} MiB after a quarter of the time and "
        f"{found['MiB at the end']} MiB at the end, {found['KiB for each round']} KiB more for "
        "each round by a line through all."
    )


if __name__ == "__main__":
    main()
