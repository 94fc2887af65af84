"""A claim of a paper: its rows, taken one after the other and kept, and what they must show."""

import argparse
import math
import operator
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks._common import circumstances, load, save, table
from benchmarks._robust import CACHE
from benchmarks.papers._lab import (
    DATA,
    EPOCHS,
    PUBLISHED_EPOCHS,
    TEMPERATURES,
    Lab,
    Size,
    seconds_per_pass,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
Rows = list[Row]
RELATIONS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class Claim:
    """What a paper claims, how it is measured here, and how the two compare."""

    name: str
    """Of the module and of its files."""
    title: str
    text: str
    """What the paper claims and what is done here."""
    units: Callable[[Lab], list[Row]]
    """What is measured for every seed, in parts between which a run can be interrupted."""
    measure: Callable[..., Row]
    """``(lab, seed, **unit)`` gives the rest of the row."""
    checks: Callable[[Rows], list[Row]]
    comparisons: Callable[[Rows, str], list[Row]]
    """From rows and the column of the paper."""
    draw: Callable[[Rows, str], "Figure"]
    caption: str
    differences: str
    """What differs from the paper, and why."""
    sizes: Mapping[str, Size]
    """How many images, for each of the ways in which images are used."""
    passes: Callable[[Lab], float]
    """Forward and backward passes of an image that a seed costs, about."""
    kinds: Callable[[Lab], Sequence[str]] = lambda lab: lab.kinds
    """The networks that it needs."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it does otherwise than the lab's settings say."""


class Places(NamedTuple):
    """Where results and pages are."""

    results: Path = ROOT / "benchmarks" / "results" / "papers"
    docs: Path = ROOT / "docs" / "papers"


def check(name: str, value: float | None, relation: str, bound: float) -> Row:
    """Say whether a figure is where the paper has it; nobody knows where it was not measured."""
    known = value is not None and math.isfinite(value)
    return {
        "name": name,
        "value": value if known else None,
        "bound": f"{relation} {bound:g}",
        "holds": bool(RELATIONS[relation](value, bound)) if known else None,
    }


def comparison(
    quantity: str,
    paper: float | str | None,
    ours: Iterable[float | None],
    unit: str = "",
    why: str = "",
) -> Row:
    """Set the paper's figure beside the mean and the spread of ours over the seeds."""
    values = [value for value in ours if value is not None]
    return {
        "quantity": quantity,
        "paper": paper,
        "ours": statistics.fmean(values) if values else None,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "unit": unit,
        "why": why,
    }


def values(rows: Rows, key: str, **wanted: Any) -> list[float]:
    """What the rows with certain entries say, in the order of the seeds."""
    chosen = [row for row in rows if wanted.items() <= row.items()]
    return [row[key] for row in sorted(chosen, key=lambda row: row["seed"]) if row[key] is not None]


def mean(found: Sequence[float]) -> float | None:
    """Mean, or None of nothing."""
    return statistics.fmean(found) if found else None


def networks_in(rows: Rows) -> list[str]:
    """The undefended network, then the distilled ones by temperature."""
    names = {row["network"] for row in rows}
    return sorted(names, key=lambda name: float(name[2:]) if name.startswith("T=") else 0.0)


def run(claim: Claim, lab: Lab, seeds: int, places: Places) -> Row:
    """Measure what is missing, then judge and draw; each row is written as soon as it is there."""
    name = f"{claim.name}-{lab.data}"
    sizes = {key: lab.size(pair) for key, pair in claim.sizes.items()}
    settings = {**lab.settings, **claim.settings, **sizes}
    result = load(name, places.results)
    if result.get("settings") != settings:
        result |= {"settings": settings, "rows": [], "shared_seconds": {}, "unjudged": True}
    lab.spent.clear()
    for seed, unit in product(range(seeds), claim.units(lab)):
        wanted = {"seed": seed} | unit
        if any(wanted.items() <= row.items() for row in result["rows"]):
            continue
        began, others = time.process_time(), lab.computed
        measured = claim.measure(lab, seed, **unit)
        seconds = time.process_time() - began - (lab.computed - others)
        result["rows"].append(wanted | measured | {"seconds": seconds})
        result["shared_seconds"] |= lab.spent
        result["unjudged"] = True
        save(name, result, places.results)
        print(f"{claim.name}: {described(wanted | measured)}", flush=True)
    if "unjudged" in result:
        return judged(claim, result | circumstances(), places)
    return result


def judged(claim: Claim, result: Row, places: Places) -> Row:
    """Say what the rows show, and draw it."""
    result.pop("unjudged", None)
    rows, data = result["rows"], result["settings"]["data"]
    column = DATA[data].published
    result |= {
        "seeds": len({row["seed"] for row in rows}),
        "processor_minutes": spent([result]) / 60,
        "checks": claim.checks(rows),
        "comparisons": claim.comparisons(rows, column),
    }
    name = f"{claim.name}-{data}"
    save(name, result, places.results)
    draw(claim, rows, column, places.docs / f"{name}.svg")
    return result


def draw(claim: Claim, rows: Rows, column: str, path: Path) -> None:
    """Write the figure; the same rows give the same file."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": claim.name, "svg.fonttype": "path"}):
        claim.draw(rows, column).savefig(path, metadata={"Date": None})


def described(row: Row) -> str:
    """The short entries of a row, for the terminal."""
    short = {key: value for key, value in row.items() if not isinstance(value, list | dict)}
    return "  ".join(f"{key} {shown(value)}" for key, value in short.items())


def shown(value: Any) -> str:
    """A figure as a reader wants it."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def report(claim: Claim, result: Row) -> None:
    """Print the comparison and every check."""
    print(f"\n{claim.title}\n")
    rows = [
        {**row, "ours": f"{shown(row['ours'])} ± {shown(row['spread'])} {row['unit']}"}
        for row in result["comparisons"]
    ]
    print(table(rows, ["quantity", "paper", "ours"]))
    for found in result["checks"]:
        print(f"{verdict(found)}  {found['name']}: {shown(found['value'])}, {found['bound']}")


def verdict(found: Row) -> str:
    """Write a check's outcome."""
    return {True: "true ", False: "FALSE", None: "?    "}[found["holds"]]


def estimate(claims: Sequence[Claim], lab: Lab, seeds: int) -> float:
    """Processor minutes of everything, as if nothing were there, from a few measured passes."""
    kinds = {kind for claim in claims for kind in claim.kinds(lab)}
    # Two networks for a temperature; half the images, but longer, for a half.
    stages = sum(
        2.0 if kind.startswith("T=") else 0.625 if "half" in kind else 1.0 for kind in kinds
    )
    # In bf16 and in full batches a pass of training takes less than half the time.
    trained = 0.4 * stages * lab.epochs * len(lab.train[0])
    passes = trained + sum(claim.passes(lab) for claim in claims)
    return seeds * passes * seconds_per_pass(lab) / 60


def parser(description: str) -> argparse.ArgumentParser:
    """What every command understands."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--data", choices=DATA, default="mnist5k")
    options.add_argument("--root", help="folder of the original files of --data")
    options.add_argument("--seeds", type=at_least_one, default=3)
    options.add_argument("--full", action="store_true", help="the papers' sizes and 50 epochs")
    options.add_argument("--epochs", type=at_least_one)
    options.add_argument("--temperatures", type=at_least_one, nargs="*", default=TEMPERATURES)
    options.add_argument("--most", type=at_least_one, help="no more images: for trying out")
    options.add_argument("--threads", type=at_least_one, default=torch.get_num_threads())
    options.add_argument(
        "--processes",
        type=at_least_one,
        default=os.cpu_count(),
        help="that train and attack side by side",
    )
    options.add_argument("--cache", type=Path, default=CACHE)
    options.add_argument("--results", type=Path, default=Places().results)
    options.add_argument("--docs", type=Path, default=Places().docs)
    return options


def at_least_one(text: str) -> int:
    """Parse a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def lab_of(chosen: argparse.Namespace) -> Lab:
    """Set up what the command line says."""
    torch.set_num_threads(chosen.threads)
    return Lab(
        chosen.data,
        chosen.cache,
        root=chosen.root,
        full=chosen.full,
        epochs=chosen.epochs or (PUBLISHED_EPOCHS if chosen.full else EPOCHS),
        temperatures=chosen.temperatures,
        most=chosen.most,
    )


def main(claim: Claim, arguments: Sequence[str] | None = None) -> None:
    """Run one claim."""
    chosen = parser(claim.title).parse_args(arguments)
    places = Places(chosen.results, chosen.docs)
    work_through([claim], lab_of(chosen), chosen.seeds, places, chosen.processes)


def work_through(
    claims: Sequence[Claim], lab: Lab, seeds: int, places: Places, processes: int = 1
) -> list[Row]:
    """Run claims, print what they show and what they cost, write their pages."""
    from benchmarks.papers import _pages

    began = time.perf_counter()
    print(
        f"{lab.about.title}, {seeds} seeds: about {estimate(claims, lab, seeds):.0f} processor "
        f"minutes where nothing is there yet; {torch.get_num_threads()} threads, "
        f"{os.cpu_count()} cores",
        flush=True,
    )
    if processes > 1:
        train_ahead(sorted({kind for c in claims for kind in c.kinds(lab)}), lab, seeds, processes)
    results = []
    for claim, result in side_by_side(claims, lab, seeds, places, processes):
        results.append(result)
        report(claim, result)
        _pages.write(places)
    print(f"\n{spent(results) / 60:.1f} processor minutes stand behind these figures")
    print(f"elapsed this time: {(time.perf_counter() - began) / 60:.1f} minutes")
    return results


def train_ahead(kinds: Sequence[str], lab: Lab, seeds: int, processes: int) -> None:
    """Train networks side by side, one thread each; the claims then find them there."""
    wanted = [(kind, seed) for seed in range(seeds) for kind in kinds if not lab.has(kind, seed)]
    if not wanted:
        return
    with workers(processes) as pool:
        asked = {pool.submit(lab.bare().network, *each): each for each in wanted}
        for done in as_completed(asked):
            done.result()
            print("trained: {}, seed {}".format(*asked[done]), flush=True)


def side_by_side(
    claims: Sequence[Claim], lab: Lab, seeds: int, places: Places, processes: int
) -> Iterator[tuple[Claim, Row]]:
    """Run claims in several processes, one thread each, and give each as it is ready."""
    if processes < 2 or len(claims) < 2:
        for claim in claims:
            yield claim, run(claim, lab, seeds, places)
        return
    with workers(processes) as pool:
        # A claim holds functions that do not travel: the process looks it up by its name.
        asked = {
            pool.submit(run_by_name, claim.name, lab.bare(), seeds, places): claim
            for claim in claims
        }
        for done in as_completed(asked):
            yield asked[done], done.result()


def run_by_name(name: str, lab: Lab, seeds: int, places: Places) -> Row:
    """Run the claim of a script."""
    return run(import_module(f"benchmarks.papers.{name}").CLAIM, lab, seeds, places)


def workers(processes: int) -> ProcessPoolExecutor:
    """Fresh processes with one thread each."""
    return ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


def spent(results: Iterable[Row]) -> float:
    """Processor seconds behind results; what several share counts once."""
    shared: dict[str, float] = {}
    own = 0.0
    for result in results:
        shared |= result["shared_seconds"]
        own += sum(row["seconds"] for row in result["rows"])
    return own + sum(shared.values())
