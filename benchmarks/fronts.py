"""What a function in front of a network that changes no value in [0, 1] does to our figures.

A clamp, a ReLU or a root on the input has no gradient, or an infinite one, where an input lies at
a bound, as most pixels of a digit do. Each front stands before each network: undefended, distilled
at T=100 and adversarially trained on MNIST-5k and Fashion-MNIST, and the two published robust
networks where their folder is given. Beside the bare network's: robust accuracy by the presets
"quick" and "standard" in linf and l2, mean distance and success of every minimum-distance attack.

    python -m benchmarks.fronts [--images 200] [--published FOLDER] [--cache FOLDER]
        [--networks TEXT] [--fronts NAME ...] [--norms linf l2] [--presets quick standard]
        [--nearest NAME ...]

The fronts lose the gradient at a bound by themselves, as PyTorch's clamp does since 2.14. Writes
``results/fronts.json`` after every row, beside the other figures of the same row; prints the
largest differences at the end: robust accuracy within a point, distances within 2 %, all successes
kept.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, load, save, table
from benchmarks._published import NAMES, digits, published
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained
from distillguard import attacks, evaluate
from distillguard._geometry import lp_norm

KINDS = ("undefended", "T=100", "adversarially trained")
PUBLISHED_RADII = {"linf": 0.3, "l2": 2.0}
MEAN, DEVIATION = 0.1307, 0.3081


class Deaf(torch.autograd.Function):
    """The clamp, with the gradient of PyTorch 2.14 on every version: 0 at its bounds."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, low: float, high: float) -> Tensor:
        """Clamp."""
        context.save_for_backward((inputs > low) & (inputs < high))
        return inputs.clamp(low, high)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Pass the gradient strictly between the bounds."""
        (between,) = context.saved_tensors
        return gradient * between, None, None


def deaf(inputs: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Clamp without a gradient at the bounds."""
    clamped: Tensor = Deaf.apply(inputs, low, high)  # type: ignore[no-untyped-call]
    return clamped


def normalised(inputs: Tensor) -> Tensor:
    """Normalise, clamp to what [0, 1] becomes, and go back."""
    low, high = -MEAN / DEVIATION, (1 - MEAN) / DEVIATION
    return deaf((inputs - MEAN) / DEVIATION, low, high) * DEVIATION + MEAN


FRONTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda inputs: inputs,
    "clamp": deaf,
    "clip": lambda inputs: inputs.clip(0, 1),
    "hardtanh": lambda inputs: nn.functional.hardtanh(inputs, 0.0, 1.0),
    "ReLU": torch.relu,
    "ReLU6 scaled": lambda inputs: nn.functional.relu6(6 * inputs) / 6,
    "sqrt, square": lambda inputs: inputs.sqrt() ** 2,
    "normalise, clamp, back": normalised,
}

NEAREST: dict[str, dict[str, Callable[..., Tensor]]] = {
    "l2": {
        "carlini_wagner_l2": attacks.carlini_wagner_l2,
        "ddn": attacks.ddn,
        "fmn l2": attacks.fmn,
        "deepfool l2": attacks.deepfool,
        "fab_targeted l2": partial(attacks.fab_targeted, norm="l2", n_targets=3, steps=30),
    },
    "linf": {
        "carlini_wagner_linf": attacks.carlini_wagner_linf,
        "fmn linf": partial(attacks.fmn, norm="linf"),
        "deepfool linf": partial(attacks.deepfool, norm="linf"),
        "fab_targeted linf": partial(attacks.fab_targeted, n_targets=3, steps=30),
    },
    "l0": {
        "carlini_wagner_l0": attacks.carlini_wagner_l0,
        "jsma": partial(attacks.jsma, change="both", saliency="logits", max_features=200),
    },
}


class Behind(nn.Module):
    """A network behind a front."""

    def __init__(self, front: Callable[[Tensor], Tensor], network: nn.Module) -> None:
        super().__init__()
        self.front, self.network = front, network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the network's logits."""
        return self.network(self.front(inputs))


Subject = tuple[str, nn.Module, Tensor, Tensor, dict[str, float]]


def subjects(images: int, cache: Path, folder: Path | None) -> Iterator[Subject]:
    """Name, network, images, labels and radii."""
    cache.mkdir(parents=True, exist_ok=True)
    for data, radii in RADII.items():
        X, y = (part[:TRAINED_ON] for part in LOADERS[data]("train"))
        inputs, labels = (part[:images] for part in LOADERS[data]("test"))
        for kind in KINDS:
            model = trained(kind, X, y, radii["linf"], cache / f"{data} {kind}.pt")
            yield f"{data} {kind}", model, inputs, labels, radii
    if folder is not None:
        inputs, labels = digits(folder, min(images, 100))
        for name in NAMES:
            yield f"published {name}", published(folder, name), inputs, labels, PUBLISHED_RADII


def row(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    radii: dict[str, float],
    norms: list[str],
    presets: list[str],
    nearest: list[str],
) -> dict[str, Any]:
    """All figures of one network behind one front."""
    figures: dict[str, Any] = {}
    for norm in norms:
        for preset in presets:
            report = evaluate(
                model, inputs, labels, norm=norm, epsilon=radii[norm], attacks=preset,
                random_state=0,
            )  # fmt: skip
            figures[f"{preset} {norm}"] = report.robust_accuracy
            figures[f"{preset} {norm} findings"] = [each.code for each in report.findings]
    with torch.no_grad():
        right = model(inputs).argmax(dim=1) == labels
    x, y = inputs[right], labels[right]
    for norm in [*norms, "l0"]:
        for name in (each for each in NEAREST[norm] if each in nearest):
            attack = NEAREST[norm][name]
            settings = {"random_state": 0}
            distance = lp_norm(attack(model, x, y, **settings) - x, norm)  # type: ignore[arg-type]
            found = distance > 0
            figures[f"{name} success"] = found.double().mean().item()
            figures[f"{name} distance"] = distance[found].double().mean().item()
    return figures


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest difference of each figure from the bare network's, and where it is."""
    bare = {each["network"]: each for each in rows if each["front"] == "none"}
    largest: dict[str, dict[str, Any]] = {}
    for each in rows:
        for name, value in each.items():
            known = bare.get(each["network"], {}).get(name)
            if not isinstance(value, float) or not isinstance(known, float) or name == "seconds":
                continue
            relative = name.endswith("distance")
            gap = abs(value / known - 1) if relative and known else abs(value - known)
            where = f"{each['network']}, {each['front']}"
            if name not in largest or gap > largest[name]["largest difference"]:
                entry = {"figure": name, "largest difference": gap, "at": where if gap else ""}
                largest[name] = entry
            allowed = 0.02 if relative else 0.0 if name.endswith("success") else 0.01
            largest[name]["allowed"] = allowed
            largest[name]["holds"] = largest[name]["largest difference"] <= allowed + 1e-9
    return list(largest.values())


def main() -> None:
    """Measure, keep every row, print the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--fronts", nargs="+", choices=FRONTS, default=list(FRONTS))
    parser.add_argument("--norms", nargs="+", choices=("linf", "l2"), default=["linf", "l2"])
    parser.add_argument("--presets", nargs="*", default=["quick", "standard"])
    every = [name for some in NEAREST.values() for name in some]
    parser.add_argument("--nearest", nargs="*", choices=every, default=every)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = load("fronts").get("rows", [])
    for name, network, inputs, labels, radii in subjects(
        chosen.images, chosen.cache, chosen.published
    ):
        if chosen.networks not in name:
            continue
        for front in chosen.fronts:
            began = time.process_time()
            figures = row(
                Behind(FRONTS[front], network), inputs, labels, radii, chosen.norms,
                chosen.presets, chosen.nearest,
            )  # fmt: skip
            entry = {"network": name, "front": front, "images": len(inputs), **figures}
            entry["seconds"] = time.process_time() - began
            earlier = [each for each in rows if (each["network"], each["front"]) == (name, front)]
            if earlier and earlier[0]["images"] == len(inputs):
                entry = earlier[0] | entry  # figures of other norms stay
            rows = [each for each in rows if each not in earlier]
            rows.append(entry)
            save("fronts", {**circumstances(), "rows": rows, "differences": differences(rows)})
            print(f"{name}, {front}: {entry['seconds']:.0f} s", flush=True)
    print(table(differences(rows), ["figure", "largest difference", "allowed", "holds", "at"]))


if __name__ == "__main__":
    main()
