"""``evaluate`` beside the published AutoAttack on real photographs: figures, memory, seconds.

A ResNet-18 for CIFAR-10 on 100 of its test images and an EfficientNet-Lite0 for ImageNet on 20
photographs, in linf at 4/255 and 8/255; none of the networks is defended. Both stand inside
installed packages, as the images do (``benchmarks/_photographs.py``); what is not installed is left
out. "standard" and "quick" with their diagnosis beside pyautoattack's "standard" on the same
images. Passes are examples sent forwards and backwards, seconds are the processor's, memory is the
most that the process held. Writes ``results/photographs.json`` after every row; rows that are
there are kept.

    python -m benchmarks.photographs [--networks TEXT] [--examples N]
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import _photographs as photographs
from benchmarks._common import circumstances, load, save, table
from benchmarks.evaluation import autoattack, totals
from distillguard import evaluate

Images = Callable[[], tuple[Tensor, Tensor]]
SUBJECTS: dict[str, tuple[Callable[[], nn.Module], Images]] = {
    "ResNet-18, CIFAR-10": (photographs.resnet18, photographs.cifar10),
    "EfficientNet-Lite0, ImageNet": (photographs.efficientnet_lite0, photographs.imagenet),
}
RADII = {"4/255": 4 / 255, "8/255": 8 / 255}


def megabytes() -> float:
    """The most memory that the process has held so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(model: nn.Module, X: Tensor, y: Tensor, epsilon: float, attacks: str) -> dict[str, Any]:
    """Evaluate by a preset and count everything."""
    began = time.process_time()
    report = evaluate(model, X, y, epsilon=epsilon, attacks=attacks, random_state=0, batch_size=32)
    seconds = time.process_time() - began
    diagnosis = report.costs["diagnosis"]
    return {
        "clean_accuracy": report.clean_accuracy,
        "robust_accuracy": report.robust_accuracy,
        "quoted_accuracy": report.quoted_accuracy,
        "passes": totals(report)[0] + (diagnosis.forwards + diagnosis.backwards) / len(X),
        "seconds": seconds,
        "megabytes": megabytes(),
        "findings": [finding.code for finding in report.findings],
    }


def main() -> None:
    """Measure every network and radius."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="", help="those with this in the name")
    parser.add_argument("--examples", type=int, default=100)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = load("photographs").get("rows", [])
    for name, (build, images) in SUBJECTS.items():
        if chosen.networks not in name:
            continue
        try:
            model, (X, y) = build(), images()
        except ModuleNotFoundError as error:
            print(f"{name} left out: {error}")
            continue
        X, y = X[: chosen.examples], y[: chosen.examples]
        for radius, epsilon in RADII.items():
            key = {"network": name, "radius": radius, "images": len(X)}
            if any(key.items() <= row.items() for row in rows):
                continue
            found = {preset: ours(model, X, y, epsilon, preset) for preset in ("quick", "standard")}
            found["AutoAttack"] = autoattack(model, X, y, "linf", epsilon)
            found["AutoAttack"]["megabytes"] = megabytes()
            rows = [row for row in rows if (row["network"], row["radius"]) != (name, radius)]
            rows.append(key | found)
            about = circumstances(*photographs.PACKAGES)
            save("photographs", about | {"rows": rows})
    shown = [
        {
            "network": row["network"],
            "radius": row["radius"],
            "images": row["images"],
            "by": by,
            "robust, %": 100 * row[by]["robust_accuracy"],
            "passes": round(row[by]["passes"]),
            "seconds": round(row[by]["seconds"], 1),
            "megabytes": round(row[by]["megabytes"]),
        }
        for row in rows
        for by in ("quick", "standard", "AutoAttack")
    ]
    if shown:
        print(table(shown, list(shown[0])))


if __name__ == "__main__":
    main()
