"""Our attacks and every peer's on AttackBench's measure, local optimality, by budget of passes.

    python -m benchmarks.attackbench [--budgets 50 100 200 400 1000 2000] [--images 100]
        [--norms l0 l1 l2 linf] [--networks TEXT] [--published FOLDER] [--cache FOLDER]
        [--results FOLDER] [--jobs N] [--device cuda] [--minutes M] [--page]

Networks: undefended and distilled at T=100 on MNIST-5k, trained by TRADES on Fashion-MNIST and,
where their folder is given (see ``benchmarks._published``), two published robust networks for
MNIST. A clamp with a straight-through gradient stands before each. An attack's distance is the
least of all misclassified points that it asked about, as AttackBench has it; it is stopped once it
has made as many passes, forwards and backwards together, as its budget allows an image on average.

A pilot on the first 20 test images at a budget of 200 keeps the three best peers of a norm and a
network. The images that count follow from number 200 on. A row, that is an attack
on a network at a budget, is written to ``results/attackbench.json`` when it is there, and kept: run
it again, with more budgets, to go on. --jobs measures as many rows at a time, each in a process
with one thread. After --minutes no row is begun. An attack that raises keeps what it had found, and
its row says so; one that raises before it asks anything is reported at the end, when the others are
there. --page writes ``docs/benchmarks/attackbench.md`` and its pictures from what is
there. ``make bench`` installs the peers.
"""

import argparse
import multiprocessing
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._attackbench_page import envelope, parsed, summaries, write
from benchmarks._common import circumstances, load, save
from benchmarks._contenders import ORDER, Contender, contenders
from benchmarks._optimality import local_optimality
from benchmarks._peers import Run, imported
from benchmarks._published import NAMES, digits, published
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, RADII, TRAINED_ON, stored, trained

SMALL = (
    ("MNIST-5k", "undefended"),
    ("MNIST-5k", "T=100"),
    ("Fashion-MNIST", "adversarially trained"),
)
PUBLISHED = tuple(("MNIST", f"{name.upper()} (published)") for name in NAMES)
NETWORKS = SMALL + PUBLISHED
BUDGETS = (50, 100, 200, 400, 1000, 2000)
PILOT, PILOT_BUDGET, KEPT = 20, 200, 3
FIRST, BATCH = 200, 100
NAME = "attackbench"


class Subject(NamedTuple):
    """A network and the data it is attacked on: names, which travel to another process."""

    data: str
    network: str
    folder: Path
    """Of the file of the trained network, or of the published networks and digits."""

    @property
    def file(self) -> Path:
        """Where a network that is trained here is kept."""
        return self.folder / f"{self.data} {self.network}.pt"

    def prepare(self) -> None:
        """Train the network if it is neither published nor there."""
        if (self.data, self.network) in SMALL and not self.file.is_file():
            X, y = (part[:TRAINED_ON] for part in LOADERS[self.data]("train"))
            trained(self.network, X, y, RADII[self.data]["linf"], self.file)

    def build(self) -> nn.Module:
        """Read the network."""
        known = (self.data, self.network)
        if known in PUBLISHED:
            return published(self.folder, NAMES[PUBLISHED.index(known)])
        return stored(self.file)

    def images(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the test images from one number to before another, and their labels."""
        if (self.data, self.network) in PUBLISHED:
            X, y = digits(self.folder, end)
        else:
            X, y = LOADERS[self.data]("test")
        return X[first:end].clone(), y[first:end].clone()


class BudgetSpent(Exception):  # noqa: N818
    """An attack asked for one pass more than it may make."""


class Observed(nn.Module):
    """A model that clamps, counts and keeps each image's least distance of a wrong answer.

    A point belongs to the original that is nearest in the norm. Whatever it belongs to, its
    distance is that of a point which is misclassified, so no distance is ever too small.
    """

    def __init__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, norm: str, budget: float
    ) -> None:
        super().__init__()
        self.model, self.inputs, self.labels = model, inputs, labels
        self.order, self.budget = ORDER[norm], budget
        self.passes = 0
        self.least = torch.full((len(inputs),), torch.inf, device=inputs.device)
        with torch.no_grad():
            self.least[model(inputs).argmax(dim=1) != labels] = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits at the point in the box that is nearest to the input."""
        if self.passes >= self.budget * len(self.inputs):
            raise BudgetSpent
        self.passes += len(inputs)
        inputs = inputs + (inputs.clamp(0, 1) - inputs).detach()
        logits: Tensor = self.model(inputs)
        if logits.requires_grad:
            logits.register_hook(self.went_back)
        self.judge(inputs.detach(), logits.detach())
        return logits

    def went_back(self, gradient: Tensor) -> None:
        """Count a backward pass."""
        self.passes += len(gradient)

    def judge(self, points: Tensor, logits: Tensor) -> None:
        """Keep the least distances."""
        apart = torch.cdist(
            points.flatten(1),
            self.inputs.flatten(1),
            p=self.order,
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        distance, own = apart.min(dim=1)
        wrong = logits.argmax(dim=1) != self.labels[own]
        self.least.scatter_reduce_(0, own[wrong], distance[wrong], "amin")


def attacked(
    run: Run, network: nn.Module, X: Tensor, y: Tensor, norm: str, budget: int
) -> dict[str, Any]:
    """Distances that an attack finds within a budget, its passes and its time.

    One that raises on the way keeps what it has found until then.
    """
    passes, least, raised = 0, [], set()
    started = time.process_time()
    for inputs, labels in zip(X.split(BATCH), y.split(BATCH), strict=True):
        torch.manual_seed(0)
        observed = Observed(network, inputs, labels, norm, budget).eval()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = run(observed, inputs.clone(), labels.clone())
            with torch.no_grad():
                observed.judge(found.clamp(0, 1), network(found.clamp(0, 1)))
        except BudgetSpent:
            pass
        except Exception as error:
            if not observed.passes:
                raise
            raised.add(repr(error))
        passes += observed.passes
        least.append(observed.least.cpu())
    return {
        "distances": " ".join(f"{value:.5g}" for value in torch.cat(least).tolist()),
        "passes": passes / len(X),
        "processor_seconds": time.process_time() - started,
    } | ({"raised": sorted(raised)} if raised else {})


def measured(
    contender: Contender, network: nn.Module, X: Tensor, y: Tensor, norm: str, budget: int
) -> dict[str, Any]:
    """What a contender finds; RuntimeError with its name where it fails."""
    try:
        found = attacked(contender.build(budget), network, X, y, norm, budget)
    except Exception as error:
        who = f"{contender.name} of {contender.library}, in {norm} with {budget} passes"
        raise RuntimeError(f"{who}: {error!r}") from error
    return {"library": contender.library, "attack": contender.name, **found}


@lru_cache
def built(subject: Subject, device: str) -> nn.Module:
    """The network on a device, once in a process."""
    return subject.build().to(device)


@lru_cache
def shown(subject: Subject, device: str, first: int, end: int) -> tuple[Tensor, Tensor]:
    """Its images and labels there, likewise."""
    X, y = subject.images(first, end)
    return X.to(device), y.to(device)


def pilot(subject: Subject, norm: str, device: str) -> dict[str, Any]:
    """Every contender on a few images at one budget; the three best peers."""
    network, (X, y) = built(subject, device), shown(subject, device, 0, PILOT)
    rows = [measured(each, network, X, y, norm, PILOT_BUDGET) for each in contenders(norm)]
    least = envelope(rows)
    for row in rows:
        row["local_optimality"] = float(local_optimality(parsed(row), least))
    peers = [row for row in rows if row["library"] != "distillguard"]
    best = sorted(peers, key=lambda row: row["local_optimality"], reverse=True)[:KEPT]
    kept = [[row["library"], row["attack"]] for row in best]
    return {"data": subject.data, "network": subject.network, "norm": norm, "kept": kept,
            "rows": rows}  # fmt: skip


def row(
    subject: Subject, norm: str, device: str, budget: int, library: str, attack: str, images: int
) -> dict[str, Any]:
    """An attack on a network at a budget."""
    (contender,) = [
        each for each in contenders(norm) if (each.library, each.name) == (library, attack)
    ]
    X, y = shown(subject, device, FIRST, FIRST + images)
    found = measured(contender, built(subject, device), X, y, norm, budget)
    about = {"data": subject.data, "network": subject.network, "norm": norm, "budget": budget}
    return about | {"device": device_name(device)} | found


def device_name(device: str) -> str:
    """The processor or the GPU, and the version of PyTorch."""
    about = circumstances()
    return (
        f"{about['gpu' if device == 'cuda' else 'processor']}, torch {about['versions']['torch']}"
    )


def place(found: dict[str, Any]) -> tuple[Any, ...]:
    """Where a row or a pilot stands in the file: by network, norm, budget and contender."""
    network, norm = (found["data"], found["network"]), found["norm"]
    names = [(each.library, each.name) for each in contenders(norm)]
    own = rival(found) if "attack" in found else names[0]
    return (
        NETWORKS.index(network),
        list(ORDER).index(norm),
        found.get("budget", 0),
        names.index(own) if own in names else len(names),
        own,
    )


class Record:
    """What is measured so far, in ``attackbench.json``.

    ValueError where that was measured with other settings: it would be lost.
    """

    def __init__(self, images: int, device: str, folder: Path | None = None) -> None:
        before = load(NAME, folder)
        settings = {"images": images, "batch": BATCH}
        other = {key: before.get(key) for key in settings if before.get(key) != settings[key]}
        if before and other:
            raise ValueError(
                f"{NAME}.json was measured with {other}, not {settings}: "
                "name another folder with --results"
            )
        self.folder, self.device = folder, device
        self.rows: list[dict[str, Any]] = before.get("rows", [])
        self.pilots: list[dict[str, Any]] = before.get("pilots", [])
        self.about = circumstances("adv-lib", "foolbox", "attackbenchlib")
        self.about |= settings | {"pilot_budget": PILOT_BUDGET}

    def keep(self, kind: list[dict[str, Any]], found: dict[str, Any]) -> None:
        """Put a row or a pilot in its place and write everything."""
        kind.append(found)
        kind.sort(key=place)
        save(NAME, self.about | {"pilots": self.pilots, "rows": self.rows}, self.folder)

    def rows_of(self, subject: Subject, norm: str) -> list[dict[str, Any]]:
        """The rows of a network in a norm."""
        return [each for each in self.rows if concerns(each, subject, norm)]

    def missing_pilots(
        self, cells: Iterable[tuple[Subject, str]]
    ) -> Iterator[Callable[[], dict[str, Any]]]:
        """The pilots that are not there."""
        for subject, norm in cells:
            if not any(concerns(each, subject, norm) for each in self.pilots):
                yield partial(pilot, subject, norm, self.device)

    def missing_rows(
        self, cells: Iterable[tuple[Subject, str]], budget: int
    ) -> Iterator[Callable[[], dict[str, Any]]]:
        """The rows that are not there, where there is a pilot; what took long in it comes first."""
        todo, settings = [], self.about
        for subject, norm in cells:
            there = {
                rival(each) for each in self.rows_of(subject, norm) if each["budget"] == budget
            }
            for pilots in (each for each in self.pilots if concerns(each, subject, norm)):
                seconds = {rival(each): each["processor_seconds"] for each in pilots["rows"]}
                for name in chosen_contenders(pilots):
                    if name not in there:
                        about = (subject, norm, self.device, budget)
                        task = partial(row, *about, *name, settings["images"])
                        todo.append((seconds.get(name, 0.0), task))
        todo.sort(key=lambda each: -each[0])
        return (task for _, task in todo)


def concerns(found: dict[str, Any], subject: Subject, norm: str) -> bool:
    """Whether a row or a pilot is of a network in a norm."""
    return (found["data"], found["network"], found["norm"]) == (*subject[:2], norm)


def rival(found: dict[str, Any]) -> tuple[str, str]:
    """Whose row it is."""
    return found["library"], found["attack"]


def chosen_contenders(pilots: dict[str, Any]) -> list[tuple[str, str]]:
    """Library and name of all of ours and of the peers that the pilot kept."""
    return [
        (each.library, each.name)
        for each in contenders(pilots["norm"])
        if each.library == "distillguard" or [each.library, each.name] in pilots["kept"]
    ]


def gather(
    pool: Executor,
    jobs: int,
    tasks: Iterable[Callable[[], dict[str, Any]]],
    keep: Callable[[dict[str, Any]], None],
    deadline: float,
) -> list[BaseException]:
    """Keep what each task returns as it comes, and return what the others raised.

    As many run at a time as there are jobs; none is begun after the deadline.
    """
    waiting, failures = deque(tasks), list[BaseException]()
    running: dict[Future[dict[str, Any]], Callable[[], dict[str, Any]]] = {}
    while True:
        while waiting and len(running) < jobs and time.monotonic() < deadline:
            try:
                future = pool.submit(waiting[0])
            except BrokenExecutor:
                # A process was killed: the task that it had is among the failures.
                waiting.clear()
            else:
                running[future] = waiting.popleft()
        if not running:
            return failures
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task, error = running.pop(future), future.exception()
            if error is None:
                keep(future.result())
            else:
                error.add_note(f"Failed: {task}")
                failures.append(error)


def compare(rows: list[dict[str, Any]]) -> None:
    """Compare our measure with attackbenchlib's; AssertionError where they differ."""
    imported("attackbench")
    from attackbench.metrics.distances import eval_optimality

    least = envelope(rows)
    for row in rows:
        found = parsed(row)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = eval_optimality(found, least, float((found > 0).mean()))
        np.testing.assert_allclose(local_optimality(found, least), theirs, atol=1e-9)


def processes(jobs: int) -> Executor:
    """Processes with a thread each, which know nothing of this one."""
    return ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=alone_in_float32
    )


def alone_in_float32() -> None:
    """Compute with one thread and, on a GPU, in float32 proper: distances are small."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False


def subjects(cache: Path, folder: Path | None) -> list[Subject]:
    """Every network; the published ones where their folder is given."""
    found = [Subject(*names, cache) for names in SMALL]
    return found + ([Subject(*names, folder) for names in PUBLISHED] if folder else [])


def measure(
    record: Record, cells: list[tuple[Subject, str]], budgets: list[int], jobs: int, minutes: float
) -> list[BaseException]:
    """Measure what is not there, budget by budget; return what was raised."""
    deadline = time.monotonic() + 60 * minutes

    def keep(kind: list[dict[str, Any]], found: dict[str, Any]) -> None:
        record.keep(kind, found)
        names = ("norm", "data", "network", "budget", "library", "attack")
        print(*(found[name] for name in names if name in found), flush=True)

    with processes(jobs) as pool:
        tasks = record.missing_pilots(cells)
        failures = gather(pool, jobs, tasks, partial(keep, record.pilots), deadline)
        for budget in budgets:
            tasks = record.missing_rows(cells, budget)
            failures += gather(pool, jobs, tasks, partial(keep, record.rows), deadline)
    return failures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not there; print the summary or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--norms", nargs="+", choices=list(ORDER), default=list(ORDER))
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--results", type=Path, help="folder of attackbench.json")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--page", action="store_true", help="only write the page")
    chosen = parser.parse_args(arguments)
    if chosen.page:
        write(chosen.results)
        return
    alone_in_float32()
    try:
        record = Record(chosen.images, chosen.device, chosen.results)
    except ValueError as error:
        parser.error(str(error))
    some = [
        subject
        for subject in subjects(chosen.cache, chosen.published)
        if chosen.networks in f"{subject.data} {subject.network}"
    ]
    chosen.cache.mkdir(parents=True, exist_ok=True)
    for subject in some:
        subject.prepare()  # here, so that no two processes train the same network
    cells = [(subject, norm) for subject in some for norm in chosen.norms]
    failures = measure(record, cells, chosen.budgets, chosen.jobs, chosen.minutes)
    for subject, norm in cells:
        if rows := record.rows_of(subject, norm):
            compare(rows)
            for each in summaries(rows):
                if each["budget"] in chosen.budgets:
                    print(each)
    if failures:
        raise BaseExceptionGroup("Some rows failed; the others are kept", failures)


if __name__ == "__main__":
    main()
