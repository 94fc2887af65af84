"""How far the attacks, and ``evaluate``, are from the truth that a mixed-integer solver proves.

    python -m benchmarks.optimum [--images 20] [--seconds 300] [--norms linf l0] [--networks TEXT]
        [--cache FOLDER] [--page]

Three dense ReLU networks (undefended, distilled at T=100, adversarially trained), small enough for
HiGHS: two hidden layers of 20 units for linf on MNIST-5k, of 24 for l0 on the 64-pixel digits. For
each test image that a network classifies correctly, the least distance at which it errs, starting
from the closest point that any of the attacks found; --seconds limits the search for one class. In
linf nothing closer by less than a thousandth is looked for. Then, at radii between which the least
distances lie, how many of the images that ``evaluate`` leaves standing are proved robust.

Writes ``results/optimum.json`` after every image, and goes on from there: to more images, and with
more --seconds to those not proved. The seconds are of the wall, so that a busy machine proves less.
--page writes ``docs/benchmarks/optimum.md``.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, load, save, table
from benchmarks._exact import layers, least_distance, robust
from benchmarks._optimum_page import ratios, write
from benchmarks._robust import CACHE
from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    UndefendedClassifier,
    attacks,
    evaluate,
)
from distillguard._geometry import lp_norm
from distillguard.datasets import load_digits, load_mnist5k

NAME = "optimum"
NETWORKS = ("undefended", "T=100", "adversarially trained")
LOADERS = {"MNIST-5k": load_mnist5k, "digits": load_digits}
DATA = {"linf": "MNIST-5k", "l0": "digits"}
WIDTHS = {"MNIST-5k": 20, "digits": 24}
FIRST = {"MNIST-5k": 200, "digits": 100}
TRAINED_AT, EPOCHS = 0.1, 30
Run = Callable[[nn.Module, Tensor, Tensor], Tensor]
ATTACKS: dict[str, dict[str, Run]] = {
    "linf": {
        "carlini_wagner_linf": attacks.carlini_wagner_linf,
        "fab_targeted": partial(attacks.fab_targeted, norm="linf", random_state=0),
        "deepfool": partial(attacks.deepfool, norm="linf"),
    },
    "l0": {
        "carlini_wagner_l0": attacks.carlini_wagner_l0,
        "sigma_zero": attacks.sigma_zero,
        "sigma_zero, 1000 steps": partial(attacks.sigma_zero, steps=1000),
    },
}


def dense(data: str, *_: Any) -> nn.Module:
    """Two hidden layers: as many units as HiGHS can decide about."""
    width, pixels = WIDTHS[data], {"MNIST-5k": 784, "digits": 64}[data]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


def trained(data: str, kind: str, cache: Path) -> nn.Module:
    """Train one of the networks, or take it from the cache."""
    build, place = partial(dense, data), cache / f"{data} dense {kind}.pt"
    if place.is_file():
        network = build()
        network.load_state_dict(torch.load(place, weights_only=True))
        return network.eval()
    settings: dict[str, Any] = {"max_epochs": EPOCHS, "random_state": 0}
    X, y = LOADERS[data]("train")
    if kind == "undefended":
        network = UndefendedClassifier(build, **settings).fit(X, y).model_
    elif kind == "adversarially trained":
        settings |= {"learning_rate": 2e-3, "lr_scheduler": "cosine", "beta": 5.0}
        trainer = AdversarialTrainer(build, epsilon=TRAINED_AT, bounds=(0.0, 1.0), **settings)
        network = trainer.fit(X, y).model_
    else:
        temperature = float(kind.removeprefix("T="))
        network = DefensiveDistiller(build, temperature=temperature, **settings).fit(X, y).student_
    torch.save(network.state_dict(), place)
    return network.eval()


def correct_images(network: nn.Module, data: str, n: int) -> tuple[Tensor, Tensor]:
    """The first ``n`` test images that the network classifies correctly, and their labels."""
    X, y = (part[FIRST[data] :] for part in LOADERS[data]("test"))
    with torch.no_grad():
        right = torch.nonzero(network(X).argmax(dim=1) == y).squeeze(1)[:n]
    return X[right], y[right]


def distances(run: Run, network: nn.Module, X: Tensor, y: Tensor, norm: str) -> list[float]:
    """Distance of what an attack found for each image, infinity where that does not err."""
    torch.manual_seed(0)
    found = run(network, X, y).detach()
    with torch.no_grad():
        wrong = network(found).argmax(dim=1) != y
    far = lp_norm(found.double() - X.double(), norm)  # type: ignore[arg-type]
    return far.masked_fill(~wrong, torch.inf).tolist()


def images(
    network: nn.Module, X: Tensor, y: Tensor, norm: str, row: dict[str, Any], seconds: float
) -> Iterator[None]:
    """Find the least distances that the row lacks, or lacked the time for; yield after each."""
    found = {name: distances(run, network, X, y, norm) for name, run in ATTACKS[norm].items()}
    dense_layers = layers(network)
    for i in range(len(X)):
        before = row["images"][i] if i < len(row["images"]) else None
        if before is not None and (before["proved"] or before["limit"] >= seconds):
            continue
        mine = {name: each[i] for name, each in found.items()}
        x = X[i].flatten().double().numpy()
        known = min(mine.values())
        least = least_distance(dense_layers, x, int(y[i]), norm, known, seconds)
        row["images"][i : i + 1] = [{"attacks": mine, **least._asdict(), "limit": seconds}]
        yield


def quartiles(row: dict[str, Any]) -> list[float]:
    """Quartiles of the least distances: the radii at which robustness is hard to tell."""
    far = np.array([each["high"] for each in row["images"]])
    if row["norm"] == "l0":
        return sorted({float(max(1, round(value))) for value in np.percentile(far, (25, 50, 75))})
    return [float(f"{value:.2g}") for value in np.percentile(far, (25, 50, 75))]


def truth(
    network: nn.Module,
    X: Tensor,
    y: Tensor,
    norm: str,
    radius: float,
    row: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Of the images that ``evaluate`` leaves standing, how many are proved robust."""
    report = evaluate(network, X, y, norm=norm, epsilon=radius, diagnosis=None, random_state=0)
    dense_layers = layers(network)
    judged: list[bool | None] = []
    for i in np.flatnonzero(report.per_example.robust):
        least = row["images"][i]
        if least["low"] >= radius or least["high"] <= radius:
            judged.append(least["low"] >= radius)
            continue
        x = X[i].flatten().double().numpy()
        judged.append(robust(dense_layers, x, int(y[i]), norm, radius, seconds))
    return {
        "radius": radius,
        "images": len(X),
        "standing": len(judged),
        "proved robust": judged.count(True),
        "refuted": judged.count(False),
        "unknown": judged.count(None),
    }


def main() -> None:
    """Measure what is not there; print the summary or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--norms", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--cache", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--page", action="store_true")
    chosen = parser.parse_args()
    if chosen.page:
        write()
        return
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    about, rows = circumstances("scipy"), load(NAME).get("rows", [])
    for norm in chosen.norms:
        for kind in NETWORKS:
            if chosen.networks not in kind:
                continue
            wanted = {"norm": norm, "data": DATA[norm], "network": kind}
            row = next((each for each in rows if wanted.items() <= each.items()), None)
            if row is None:
                row = wanted | {"images": [], "truth": []}
                rows.append(row)
            network = trained(DATA[norm], kind, chosen.cache)
            X, y = correct_images(network, DATA[norm], max(chosen.images, len(row["images"])))
            for _ in images(network, X, y, norm, row, chosen.seconds):
                row["truth"] = []
                save(NAME, about | {"rows": rows})
            if not row["truth"]:
                at = quartiles(row)
                row["truth"] = [
                    truth(network, X, y, norm, radius, row, chosen.seconds) for radius in at
                ]
                save(NAME, about | {"rows": rows})
            print(table(ratios(row), list(ratios(row)[0])), row["truth"], sep="\n", flush=True)


if __name__ == "__main__":
    main()
