"""Our attacks and every peer's on AttackBench's measure, local optimality, by budget of passes.

    python -m benchmarks.attackbench [--budgets 50 100 200 400 1000 2000] [--images 100]
        [--norms l0 l1 l2 linf] [--networks TEXT] [--published FOLDER] [--cache FOLDER]
        [--minutes M] [--page]

Networks: undefended and distilled at T=100 on MNIST-5k, trained by TRADES on Fashion-MNIST and,
where their folder is given (see ``benchmarks._published``), two published robust networks for
MNIST. A clamp with a straight-through gradient stands before each. An attack's distance is the
least of all misclassified points that it asked about, as AttackBench has it; it is stopped once it
has made as many passes, forwards and backwards together, as its budget allows an image on average.

A pilot on the first 20 test images at a budget of 200 keeps the three best peers of a norm and a
network. The images that count follow from number 200 on. A row, that is an attack
on a network at a budget, is written to ``results/attackbench.json`` when it is there, and kept: run
it again, with more budgets, to go on. --minutes stops after the row that exceeds it; --page writes
``docs/benchmarks/attackbench.md`` and its pictures from what is there. ``make bench`` installs
the peers.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
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
from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained

SMALL = (
    ("MNIST-5k", "undefended"),
    ("MNIST-5k", "T=100"),
    ("Fashion-MNIST", "adversarially trained"),
)
BUDGETS = (50, 100, 200, 400, 1000, 2000)
PILOT, PILOT_BUDGET, KEPT = 20, 200, 3
FIRST, BATCH = 200, 50
NAME = "attackbench"


class Subject(NamedTuple):
    """A network and the data it is attacked on."""

    data: str
    network: str
    build: Callable[[], nn.Module]
    images: Callable[[int, int], tuple[Tensor, Tensor]]
    """The test images from one number to before another, and their labels."""


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
        self.least = torch.full((len(inputs),), torch.inf)
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
    """Distances that an attack finds within a budget, its passes and its time."""
    passes, least = 0, []
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
        passes += observed.passes
        least.append(observed.least)
    return {
        "distances": " ".join(f"{value:.5g}" for value in torch.cat(least).tolist()),
        "passes": passes / len(X),
        "processor_seconds": time.process_time() - started,
    }


def subjects(cache: Path, folder: Path | None) -> Iterator[Subject]:
    """Every network."""

    def of_small(data: str, first: int, end: int) -> tuple[Tensor, Tensor]:
        X, y = LOADERS[data]("test")
        return X[first:end], y[first:end]

    def of_published(first: int, end: int) -> tuple[Tensor, Tensor]:
        assert folder is not None
        X, y = digits(folder, end)
        return X[first:], y[first:]

    def build(data: str, kind: str) -> nn.Module:
        X, y = (part[:TRAINED_ON] for part in LOADERS[data]("train"))
        return trained(kind, X, y, RADII[data]["linf"], cache / f"{data} {kind}.pt")

    for data, kind in SMALL:
        yield Subject(data, kind, partial(build, data, kind), partial(of_small, data))
    if folder is not None:
        for name in NAMES:
            shown = f"{name.upper()} (published)"
            yield Subject("MNIST", shown, partial(published, folder, name), of_published)


def pilot(subject: Subject, network: nn.Module, norm: str) -> dict[str, Any]:
    """Every contender on a few images at one budget; the three best peers."""
    X, y = subject.images(0, PILOT)
    rows = []
    for contender in contenders(norm):
        found = attacked(contender.build(PILOT_BUDGET), network, X, y, norm, PILOT_BUDGET)
        rows.append({"library": contender.library, "attack": contender.name, **found})
    least = envelope(rows)
    for row in rows:
        row["local_optimality"] = float(local_optimality(parsed(row), least))
    peers = [row for row in rows if row["library"] != "distillguard"]
    best = sorted(peers, key=lambda row: row["local_optimality"], reverse=True)[:KEPT]
    kept = [[row["library"], row["attack"]] for row in best]
    return {"data": subject.data, "network": subject.network, "norm": norm, "kept": kept,
            "rows": rows}  # fmt: skip


def chosen_contenders(pilots: dict[str, Any]) -> list[Contender]:
    """All of ours and the peers that the pilot kept."""
    return [
        each
        for each in contenders(pilots["norm"])
        if each.library == "distillguard" or [each.library, each.name] in pilots["kept"]
    ]


class Record:
    """What is measured so far, in ``results/attackbench.json``."""

    def __init__(self, images: int) -> None:
        before = load(NAME)
        same = before.get("images") == images
        self.rows: list[dict[str, Any]] = before.get("rows", []) if same else []
        self.pilots: list[dict[str, Any]] = before.get("pilots", [])
        self.about = circumstances("adv-lib", "foolbox", "attackbenchlib")
        self.about |= {"images": images, "pilot_budget": PILOT_BUDGET}

    def save(self) -> None:
        """Write everything."""
        save(NAME, self.about | {"pilots": self.pilots, "rows": self.rows})

    def pilot(self, subject: Subject, network: nn.Module, norm: str) -> dict[str, Any]:
        """The pilot of a network in a norm, made if it is not there."""
        about = {"data": subject.data, "network": subject.network, "norm": norm}
        for known in self.pilots:
            if about.items() <= known.items():
                return known
        self.pilots.append(pilot(subject, network, norm))
        self.save()
        return self.pilots[-1]

    def row(
        self, subject: Subject, network: nn.Module, norm: str, budget: int, contender: Contender
    ) -> None:
        """Measure a row if it is not there."""
        about = {"data": subject.data, "network": subject.network, "norm": norm}
        about |= {"budget": budget, "library": contender.library, "attack": contender.name}
        if any(about.items() <= known.items() for known in self.rows):
            return
        X, y = subject.images(FIRST, FIRST + self.about["images"])
        self.rows.append(about | attacked(contender.build(budget), network, X, y, norm, budget))
        self.save()


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


def main() -> None:
    """Measure what is not there, budget by budget; print the summary or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--norms", nargs="+", choices=list(ORDER), default=list(ORDER))
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--page", action="store_true")
    chosen = parser.parse_args()
    if chosen.page:
        write()
        return
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    started, record = time.monotonic(), Record(chosen.images)
    for budget in chosen.budgets:
        for subject in subjects(chosen.cache, chosen.published):
            if chosen.networks not in f"{subject.data} {subject.network}":
                continue
            network = subject.build()
            for norm in chosen.norms:
                began = time.monotonic()
                pilots = record.pilot(subject, network, norm)
                for contender in chosen_contenders(pilots):
                    record.row(subject, network, norm, budget, contender)
                about = {"data": subject.data, "network": subject.network, "norm": norm}
                rows = [row for row in record.rows if about.items() <= row.items()]
                compare(rows)
                mine = [each for each in summaries(rows) if each["budget"] == budget]
                print(f"{(time.monotonic() - began) / 60:.1f} min", mine, flush=True)
                if time.monotonic() - started > 60 * chosen.minutes:
                    return


if __name__ == "__main__":
    main()
