"""Write docs/explanation/trust.md from what deliberate faults in the code and around it showed.

python -m benchmarks._trust_page
"""

from collections import Counter
from typing import Any

from benchmarks._common import RESULTS, load, table
from benchmarks._survivors import SAMPLES, SETTLED
from benchmarks.suite import told_of_runs

PAGE = RESULTS.parents[1] / "docs" / "explanation" / "trust.md"
CONTRACT, MODELS = "tests/test_attacks_contract.py", "tests/test_any_model.py"
STATE, SAVES = "tests/test_state.py", "tests/test_persistence.py"
FAULTS = "python -m benchmarks.faults"
ATTACKS = {
    "Adversarial examples lie within `bounds` exactly, and within `epsilon` up to one rounding.": (
        CONTRACT, "tests/test_numerics.py",
    ),
    "The result of an example does not depend on the other examples, `batch_size` or order.": (
        CONTRACT, "tests/test_engine.py",
    ),
    "Every point that an attack reaches is judged, including the last; the best one is returned.": (
        "tests/test_pgd.py", CONTRACT,
    ),
    "Modes, gradients, statistics and global random generators are restored after an attack.": (
        "tests/test_modes.py", CONTRACT, "tests/test_threads.py",
    ),
    "Values at the bounds can move; one step, one example, two classes or no example all work.": (
        CONTRACT,
    ),
    "A zero gradient causes a step of zero, never NaN, and is counted.": (
        CONTRACT, "tests/test_geometry.py", "tests/test_masking.py",
    ),
    "The same `random_state` gives the same result on the same machine.": (
        CONTRACT, "tests/test_random.py",
    ),
    "A model that returns probabilities is refused, and the error names the remedy.": (CONTRACT,),
    "A function in front of the network that changes no value changes no result.": (
        MODELS, "python -m benchmarks.fronts",
    ),
    "Results do not depend on the units of the inputs.": (MODELS,),
    "A success is still one when the model is evaluated again, alone or in any batch.": (MODELS,),
    "A model is only called with batches of at least one example, in the caller's layout.": (
        MODELS, "tests/test_any_network.py",
    ),
}  # fmt: skip
REST = {
    "`softmax` sums to 1, keeps the order, ignores shifts and does not overflow.": (
        "tests/test_functional.py", "tests/test_properties.py",
    ),
    "Refused or interrupted fits, clones, pickles and saves in between do not change what a "
    "fit learns.": ("tests/test_stateful.py", "tests/test_refit.py"),
    "A killed fit that resumes ends with the same bits as an uninterrupted one.": (
        "tests/test_long_runs.py", f"{FAULTS} --only kills",
    ),
    "A killed evaluation that resumes gives the same report; it refuses other data, settings, "
    "models or attacks.": (STATE, "tests/test_stateful.py", f"{FAULTS} --only kills"),
    "A damaged save, checkpoint, state file or report is read correctly or refused.": (
        SAVES, "tests/test_long_runs.py", STATE, f"{FAULTS} --only damage",
    ),
    "Loading a file never runs code from it.": (SAVES, "tests/test_long_runs.py"),
    "Nothing is written outside the given folders, and no socket is opened.": (
        "tests/test_surface.py",
    ),
    "Public names, signatures, defaults and schemas do not change by accident.": (
        "tests/test_surface.py",
    ),
    "Another process comes to the same bits in fits, attacks and reports: same seed, same machine, "
    "same number of threads.": ("tests/test_reproducible.py",),
    "Two processes train the same network as one.": ("tests/test_processes.py",),
    "Errors say what to pass instead.": (
        "tests/test_usual_mistakes.py", "tests/test_validation.py",
    ),
}  # fmt: skip
TEXT = """\
# Trust: what is promised and how it is tested

A robustness figure is only as good as the code that computed it. This page lists what distillguard
promises, the test or command that would show a broken promise, and the latest results of these
commands. `python -m benchmarks._trust_page` writes it.

## Promises of the attacks

{attacks}

{{func}}`~distillguard.testing.check_attack` tests your own attack for these promises, and
{{func}}`~distillguard.testing.check_model` tests a network for what they presuppose; see
[Test your own](../howto/testing.md).

## Promises of training, saves and evaluation

{rest}

On another processor or GPU, with another number of threads (`torch.set_num_threads`) or another
version of PyTorch, sums are split differently and the last bits may differ.

`HYPOTHESIS_PROFILE=many` runs the property tests and state machines for longer,
`make test-oldest` runs the tests with the oldest supported versions of the dependencies, and
`make audit` looks up known vulnerabilities of the pinned versions.

## Deliberate faults in the code

`python -m benchmarks.mutants` changes one piece of the source at a time, each chosen by hand, and
runs the test files that are most likely to notice. {by_hand}

`python -m benchmarks.mutants_by_rule` makes changes that nobody chose: to an operator, a sign, a
constant, a condition, a reduction, a bound, a keyword, a call or an early exit. It samples from all
changes that its rules allow in `src`, some from every folder, and runs the tests that execute the
changed line, the shortest first, for at most {seconds:g} seconds. The survivors were looked at by
hand, after the run: so many are *detected since*, by a test that the limit of seconds had left out
or that was written since, so many *change nothing* that anybody could observe or was promised, and
so many are *no longer possible* in code that was simplified. `benchmarks/_survivors.py` names each
with its test or its reason, `benchmarks/_equivalent_faults.py` those known before the run. Another
sample would find other survivors.

{by_rule}

## Deliberate faults in the environment

`python -m benchmarks.faults` kills processes, fills the disk, damages files and works in several
threads at once. *Right* means the same bits as in an undisturbed run (for a report, the same
figures to quote), *refused* means the documented error with everything else unchanged, and *lost*
means neither. They are those of a long run: `--kills 1000 --files 10000 --minutes 60`.

{faults}

{load}

These figures were measured on {date}, with PyTorch {torch} on {cores} cores.

## The suite itself

Each test and fixture draws random numbers from a seed of its own name, so that it does not matter
which tests ran before it (`tests/test_reproducible.py`).

{suite}
"""


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    found, samples = load("faults"), [load(name) for name in SAMPLES.values()]
    names = ("kills", "disks", "givens", "damage", "threads")
    rows = [row for name in names for row in found["parts"].get(name, [])]
    return TEXT.format(
        attacks=promises(ATTACKS),
        rest=promises(REST),
        by_hand=told_of_faults(load("mutants")["faults"]),
        by_rule=told_of_samples(samples),
        seconds=samples[0]["limit"],
        faults=table(rows, ["fault", "trials", "right", "refused", "lost"]),
        load=told_of_load(found["load"]),
        suite=told_of_runs(load("suite")["runs"]),
        date=found["date"],
        torch=found["versions"]["torch"],
        cores=found["cores"],
    )


def promises(kept: dict[str, tuple[str, ...]]) -> str:
    """Each promise with what tests it."""
    rows = [
        {"promise": promise, "tested by": ", ".join(f"`{place}`" for place in places)}
        for promise, places in kept.items()
    ]
    return table(rows, ["promise", "tested by"])


def told_of_faults(faults: list[dict[str, Any]]) -> str:
    """How many were killed, and how many survived."""
    verdicts = Counter(fault["verdict"] for fault in faults)
    told = f"The tests detected {verdicts['killed']} of {len(faults)} faults"
    if verdicts["SURVIVED"]:
        told += f"; {verdicts['SURVIVED']} survived the tests asked; the result file names them"
    return f"{told}."


def told_of_samples(samples: list[dict[str, Any]]) -> str:
    """The verdicts of each run, and how its survivors were settled since, by hand."""
    rows = []
    for each in samples:
        verdicts = Counter(fault["verdict"] for fault in each["faults"])
        names = [fault["fault"] for fault in each["faults"] if fault["verdict"] == "SURVIVED"]
        settled = Counter(SETTLED[name][0] if name in SETTLED else "open" for name in names)
        rows.append(
            {
                "sample of seed": each["seed"],
                "faults": len(each["faults"]),
                "detected": verdicts["killed"],
                "known to change nothing": verdicts["equivalent"],
                "survived": len(names),
                "detected since": settled["test"],
                "change nothing": settled["equivalent"],
                "no longer possible": settled["gone"],
                "open": settled["open"],
            }
        )
    return table(rows, list(rows[0]))


def told_of_load(found: dict[str, Any]) -> str:
    """What the memory did under mixed load."""
    return (
        f"Under {found['minutes']:g} minutes of mixed load (`--only load --minutes "
        f"{found['minutes']:g}`: {found['rounds']} rounds of fit, save, load, evaluate and resume) "
        f"the process used {found['MiB after a quarter']} MiB after a quarter of the time and "
        f"{found['MiB at the end']} MiB at the end; a straight line fitted to all rounds rises by "
        f"{found['KiB for each round']} KiB per round."
    )


if __name__ == "__main__":
    main()
