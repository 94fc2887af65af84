"""Our attacks beside adv-lib, foolbox, torchattacks and ART, on the same networks and images.

    python -m benchmarks.attacks --data mnist5k [--examples 64] [--only pgd l0] [--networks T=100]
    python -m benchmarks.attacks --data fashion
    python -m benchmarks.attacks --table --data mnist5k
    python -m benchmarks.attacks --checks
    python -m benchmarks.attacks --page

Attacks the networks of benchmarks.papers undefended, distilled at T = 20 and at T = 100, and one
trained by TRADES, at the first test images that each classifies correctly. A row for each contender
is written into ``results/attacks-DATA.json`` as soon as it is done: success, median and mean
distance, forward and backward passes per example counted by a wrapper around the model, seconds of
the clock and of the processor (which other programs do not lengthen). Whoever is compared by
seconds closely takes turns: three runs each, one after the other. A row that the file holds
for the same settings is not computed again, a network that the cache holds is not trained again,
and a library that is not installed is left out. Training gives other weights on another machine:
each row names them, and only rows of the same weights and machine are compared. The last three
lines print all rows, judge them, and write docs/benchmarks/attacks.md.
"""

import argparse
import hashlib
import random
import time
import warnings
from itertools import groupby
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import _attacks_checks, _attacks_page
from benchmarks._common import Counted, circumstances, load, quick_precision, save, table
from benchmarks._peers import BARE, MODULES, OURS, PACKAGES, imported, next_class
from benchmarks._robust import CACHE, trades
from benchmarks._robust import SETTINGS as ROBUST
from benchmarks._roster import Contender, roster
from benchmarks.papers._lab import DATA, Lab
from distillguard._geometry import lp_norm

EPSILON = {"mnist5k": 0.3, "fashion": 0.1}
"""What the robust network is trained for, and the budget of FGSM and PGD on every network."""

CLOSE = {"mnist5k": 0.13, "fashion": 0.03}
"""A radius that leaves networks without that training some robust examples."""

TEMPERATURES = {"undefended": 1.0, "T=20": 20.0, "T=100": 100.0, "adversarially trained": 1.0}
LIBRARIES = (OURS, BARE, *MODULES)
GROUPS = ("fgsm", "pgd", "l2", "linf", "l0", "apgd", "fab", "square", "jsma")
IDENTITY = ("network", "group", "kind", "library", "attack", "setting")
SETTINGS = ("examples", "turns", "weights", "training", "epochs", "norm", "epsilon")
SETTINGS += ("threads", "processor")

TURNS = {"pgd": 3}
"""How often a group of contenders is run in turns, each time from other random numbers: a machine
that slows down slows all of them. Seconds are the median of the turns, all else the mean."""

Examples = tuple[Tensor, Tensor]


def network(name: str, data: str, epochs: int, cache: Path) -> nn.Module:
    """Read a network from the cache; one that is missing is trained and put there."""
    if name == "adversarially trained":
        return trades(data, cache, epochs).model_.eval().requires_grad_(False)
    lab = Lab(data, cache, epochs=epochs)
    if not lab.has(name, 0):
        print(f"training the {name} network for {epochs} epochs", flush=True)
    return lab.network(name, 0).cpu()


def training(name: str, data: str) -> str:
    """Say how a network is made, so that no row outlives a change of that."""
    about = DATA[data]
    robust = name == "adversarially trained"
    made = "TRADES" if robust else f"{about.made_by}, {about.recipe}"
    return f"{made}, {quick_precision()}"


def fingerprint(model: nn.Module) -> str:
    """Name the weights: equal for equal ones only."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def chosen_examples(model: nn.Module, test: Examples, n: int) -> Examples:
    """The first ``n`` that the network classifies correctly."""
    X, y = (part[: 2 * n + 50] for part in test)
    with torch.no_grad():
        right = model(X).argmax(dim=1) == y
    return X[right][:n].contiguous(), y[right][:n].contiguous()


def each_class(X: Tensor, y: Tensor, n_classes: int = 10) -> Examples:
    """Repeat the examples with each label whose next class is another than their own."""
    times = n_classes - 1
    labels = torch.cat([(y + k) % n_classes for k in range(times)])
    return X.repeat(times, *(1,) * (X.ndim - 1)), labels


def measured(
    contender: Contender, model: nn.Module, X: Tensor, y: Tensor, seed: int = 0
) -> dict[str, Any]:
    """Run one contender; what left the budget or the bounds is no success."""
    counted = Counted(model, contender.divisor).eval()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the peers draw from the global generator
    torch.manual_seed(seed)
    began = time.perf_counter(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            points = contender.run(counted, X, y).detach()
    except Exception as error:
        if contender.library == OURS:
            raise
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    seconds = time.perf_counter() - began[0], time.process_time() - began[1]

    model.eval().requires_grad_(False)
    distance = lp_norm(points - X, contender.norm)
    with torch.no_grad():
        answers = model(points).argmax(dim=1)
    fooled = answers == next_class(y) if contender.targeted else answers != y
    fooled &= ((points >= -1e-6) & (points <= 1 + 1e-6)).flatten(1).all(dim=1)
    if contender.epsilon is not None:
        fooled &= distance <= contender.epsilon * (1 + 1e-5)
    reach = torch.where(fooled, distance, torch.inf).double().quantile(0.5).item()
    return {
        "success": fooled.double().mean().item(),
        "median": reach if np.isfinite(reach) else None,
        "mean": distance[fooled].double().mean().item() if fooled.any() else None,
        "forwards": counted.forwards / len(X),
        "backwards": counted.backwards / len(X),
        "seconds": seconds[0],
        "processor_seconds": seconds[1],
    }


def together(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the turns of one contender; one that broke in any of them broke."""
    for turn in turns:
        if "error" in turn:
            return turn
    figures = {}
    for measure in turns[0]:
        values = [turn[measure] for turn in turns]
        middle = median if measure in ("seconds", "processor_seconds") else fmean
        figures[measure] = None if None in values else middle(values)
    return figures


def installed() -> set[str]:
    """Name the libraries that can be imported, and say which cannot."""
    found = set()
    for library in MODULES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                imported(library)
            found.add(library)
        except ImportError as error:
            print(f"{library} is left out: {error}", flush=True)
    return found


def holds(rows: list[dict[str, Any]], row: dict[str, Any]) -> bool:
    """Whether a row with this identity and these settings is there."""
    parts = IDENTITY + SETTINGS
    return any(all(each.get(p) == row.get(p) for p in parts) for each in rows)


def replaced(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with this one in the place of its predecessor, or at the end."""
    same = [all(each[part] == row[part] for part in IDENTITY) for each in rows]
    if not any(same):
        return [*rows, row]
    return [row if match else each for each, match in zip(rows, same, strict=True)]


def wanted(chosen: argparse.Namespace, kind: str, present: set[str]) -> list[list[Contender]]:
    """List the contenders that are asked for and can be run, those of a group together."""
    close = (EPSILON if kind == "adversarially trained" else CLOSE)[chosen.data]
    contenders = [
        contender
        for contender in roster(EPSILON[chosen.data], close, TEMPERATURES[kind])
        if contender.group in chosen.only
        and contender.library in present
        and contender.library in chosen.libraries
        and (chosen.hours or not contender.hours)
    ]
    return [list(group) for _, group in groupby(contenders, lambda each: each.group)]


def run(chosen: argparse.Namespace) -> None:
    """Compute what is missing."""
    name = f"attacks-{chosen.data}"
    about = circumstances(*PACKAGES)
    present = {OURS, BARE} | installed()
    test = DATA[chosen.data].load("test")
    for kind in chosen.networks:
        robust = kind == "adversarially trained"
        epochs = ROBUST[chosen.data]["max_epochs"] if robust else chosen.epochs
        model = network(kind, chosen.data, epochs, chosen.cache)
        X, y = chosen_examples(model, test, chosen.examples)
        shared = {"examples": len(X), "epochs": epochs, "training": training(kind, chosen.data)}
        shared |= {"weights": fingerprint(model)}
        shared |= {part: about[part] for part in ("threads", "processor", "date")}
        for group in wanted(chosen, kind, present):
            examples = each_class(X, y) if group[0].targeted else (X, y)
            count = TURNS.get(group[0].group, 1)
            missing = []
            for contender in group:
                row = {"network": kind} | contender._asdict()
                row = {part: row[part] for part in (*IDENTITY, "norm", "epsilon", "targeted")}
                row |= shared | {"turns": count}
                rows = load(name, chosen.results).get("rows", [])
                if contender.library in chosen.again or not holds(rows, row):
                    missing.append((contender, row, []))
            for seed in range(count):
                for contender, row, turns in missing:
                    turns.append(measured(contender, model, *examples, seed))
                    row |= together(turns) | {"turns": len(turns)}
                    rows = load(name, chosen.results).get("rows", [])
                    save(name, {**about, "rows": replaced(rows, row)}, chosen.results)
                    print(_attacks_page.line(row), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=list(EPSILON), default="mnist5k")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--networks", nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES))
    parser.add_argument("--again", nargs="+", default=[], metavar="LIBRARY", help="compute anew")
    parser.add_argument("--hours", action="store_true", help="also what takes hours")
    parser.add_argument("--epochs", type=int, default=Lab.epochs)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--results", type=Path, default=None, help="another folder for the rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the rows, run nothing")
    parser.add_argument("--checks", action="store_true", help="judge the rows, run nothing")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)

    if chosen.page:
        _attacks_page.write()
    elif chosen.checks:
        _attacks_checks.report()
    elif chosen.table:
        rows = load(f"attacks-{chosen.data}", chosen.results).get("rows", [])
        measures = ("success", "median", "mean", "forwards", "backwards")
        measures += ("seconds", "processor_seconds", "error")
        print(table(rows, [*IDENTITY, "epsilon", *measures]))
    else:
        run(chosen)


if __name__ == "__main__":
    main()
