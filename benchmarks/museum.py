"""The museum: defences that were published and broken, and what ``evaluate`` reports on each.

Each is a small faithful implementation on MNIST-5k or Fashion-MNIST, at a radius in linf where the
network without it keeps 5 % or less. Measured are the accuracy under PGD on the cross-entropy with
40 steps that ignores the defence, the accuracy that ``evaluate`` reports with default options, and
the accuracy under the best adaptive attack that we could write (``_museum/adaptive.py``).

    python -m benchmarks.museum [--defences TEXT] [--examples 100] [--cache FOLDER]
        [--again] [--ours] [--pages]

Writes ``results/museum.json`` after every row; existing rows are kept, unless ``--again``.
``--ours`` measures ``evaluate`` again beside the other figures of an earlier run. ``--defences``
selects those with TEXT in the name. ``--pages`` measures nothing: it writes ``docs/museum.md`` from
the rows, with the descriptions in ``_museum/exhibits.py``.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, load, save, table
from benchmarks._museum.adaptive import Threat, best, right, unadapted
from benchmarks._museum.cards import PAGE, page, summary
from benchmarks._museum.exhibits import EXHIBITS, Exhibit, Studio
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS
from distillguard import evaluate

Row = dict[str, Any]


def ours(model: nn.Module, X: Tensor, y: Tensor, epsilon: float) -> Row:
    """What ``evaluate`` reports with default options."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = evaluate(model, X, y, epsilon=epsilon, random_state=0)
    return {
        "clean_accuracy": report.clean_accuracy,
        "robust_accuracy": report.robust_accuracy,
        "quoted_accuracy": report.quoted_accuracy,
        "findings": [[finding.code, finding.severity] for finding in report.findings],
        "seconds": time.process_time() - began,
        "date": circumstances()["date"],
    }


def attacked(exhibit: Exhibit, threat: Threat, studio: Studio) -> Row:
    """Accuracy under the unadapted and the best adaptive attack, and without the defence."""
    twin = threat._replace(model=studio.small(exhibit.twin), randomised=False, rejects=False)
    oblivious = exhibit.oblivious(threat.model) if exhibit.oblivious else None
    accuracy, said = unadapted(threat, oblivious)
    began = time.process_time()
    left, found = best(threat, exhibit.stand_ins(threat.model), queries=exhibit.queries)
    return {
        "clean_accuracy": right(threat, threat.X, clean=True).mean().item(),
        "twin": {
            "network": exhibit.twin,
            "robust_accuracy": best(twin, {"the twin": twin.model})[0],
        },
        "unadapted": {"robust_accuracy": accuracy, "attack": said},
        "adaptive": {
            "robust_accuracy": left,
            "attacks": [one._asdict() for one in found],
            "seconds": time.process_time() - began,
        },
    }


def measured(exhibit: Exhibit, examples: int, cache: Path, known: Row | None) -> Row:
    """Measure a row, or only ``evaluate`` where the rest is known."""
    studio = Studio(exhibit.data, cache)
    began = time.process_time()
    model = exhibit.model(studio)
    seconds = time.process_time() - began
    X, y = (part[:examples] for part in LOADERS[exhibit.data]("test"))
    row = exhibit.published()
    torch.manual_seed(0)
    if known is None:
        threat = Threat(model, X, y, exhibit.epsilon, exhibit.randomised, exhibit.rejects)
        row |= attacked(exhibit, threat, studio) | {"training_seconds": seconds}
    else:
        row = known | row
    return row | {"evaluate": ours(model, X, y, exhibit.epsilon)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--defences", default="", help="those with this in the name")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--results", type=Path, help="folder of museum.json")
    parser.add_argument("--again", action="store_true", help="measure rows that are there again")
    parser.add_argument("--ours", action="store_true", help="measure evaluate again")
    parser.add_argument("--pages", action="store_true", help="only write the page")
    chosen = parser.parse_args(arguments)
    before = load("museum", chosen.results)
    if chosen.pages:
        described = {one.name: one.published() for one in EXHIBITS}
        before["rows"] = [row | described[row["name"]] for row in before["rows"]]
        save("museum", before, chosen.results)
        PAGE.write_text(page(before), encoding="utf-8")
        return
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)

    fits = before.get("examples") == chosen.examples
    rows: dict[str, Row] = {row["name"]: row for row in before["rows"]} if fits else {}
    for exhibit in EXHIBITS:
        known = None if chosen.again else rows.get(exhibit.name)
        if chosen.defences not in exhibit.name or (known is not None and not chosen.ours):
            continue
        rows[exhibit.name] = measured(exhibit, chosen.examples, chosen.cache, known)
        ordered = [rows[one.name] for one in EXHIBITS if one.name in rows]
        save(
            "museum",
            circumstances() | {"examples": chosen.examples, "rows": ordered},
            chosen.results,
        )
        print(summary(rows[exhibit.name]), flush=True)
    print(table([summary(rows[one.name]) for one in EXHIBITS if one.name in rows], SUMMARY))


SUMMARY = [
    "defence",
    "clean",
    "without",
    "unadapted PGD",
    "evaluate",
    "quoted",
    "adaptive",
    "verdict",
]


if __name__ == "__main__":
    main()
