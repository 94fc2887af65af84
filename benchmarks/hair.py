"""How far inside the bounds a lost gradient is found again: by hair, dtype, units and quantiser.

Behind a clamp that loses the gradient at its bounds, digits are moved inside by a share of the
width, rounded to a dtype, and the coordinates whose gradient is that of the bare network are
counted. Then: what ``attacks._checks`` decides for each model, and how many coordinates it saw.

    python -m benchmarks.hair [--cache FOLDER]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, save, table
from benchmarks._robust import CACHE
from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained
from benchmarks.fronts import KINDS, deaf
from distillguard._boxes import boxes
from distillguard._geometry import inside
from distillguard.attacks._checks import DIFFERENT, VISIBLE, needed_hair, slopes, sounded
from distillguard.attacks._examples import Examples

HAIRS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
UNITS = {"[0, 1]": (0.0, 1.0), "[0, 255]": (0.0, 255.0), "[-1000, 1000]": (-1000.0, 2000.0)}


def examples_of(inputs: Tensor, labels: Tensor, low: float, high: float) -> Examples:
    """What attacks are given."""
    places = torch.arange(len(inputs))
    box = boxes(inputs, (low, high), None)
    return Examples(places, inputs, labels, places, *box, inputs.new_zeros(len(inputs)))


def by_hair(network: nn.Module, inputs: Tensor) -> list[dict[str, Any]]:
    """Share of the visible gradient at the bounds that a step inside brings back."""
    rows = []
    for units, (low, width) in UNITS.items():
        for dtype in DTYPES:
            row: dict[str, Any] = {"units": units, "dtype": str(dtype).removeprefix("torch.")}
            x = (inputs.double() * width + low).to(dtype)
            bounds = torch.tensor([low, low + width], dtype=dtype).double()
            at_bound = (x.double() == bounds[0]) | (x.double() == bounds[1])

            def clamped(z: Tensor, low: float = low, width: float = width) -> Tensor:
                return network(deaf((z.float() - low) / width))

            bare = slopes(lambda z: network(z), inputs).abs()
            seen = at_bound & (bare > VISIBLE * bare.flatten(1).amax(dim=1).view(-1, 1, 1, 1))
            for hair in HAIRS:
                step = hair * width
                moved = torch.where(x.double() == bounds[0], bounds[0] + step, x.double())
                moved = torch.where(x.double() == bounds[1], bounds[1] - step, moved).to(dtype)
                found = slopes(clamped, moved.float()) != 0
                row[f"{hair:g}"] = (found & seen).sum().item() / seen.sum().item()
            rows.append(row)
    return rows


def quantised(bits: int) -> Callable[[Tensor], Tensor]:
    """Round to so many bits: flat wherever it does not jump."""
    return lambda x: (x * (2**bits - 1)).round() / (2**bits - 1)


def decided(network: nn.Module, inputs: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """What the check finds of models with and without a front."""
    fronts: dict[str, Callable[[Tensor], Tensor]] = {
        "none": lambda x: x,
        "clamp": deaf,
        "clamp below": lambda x: deaf(x, 0.0, 2.0),
        "sqrt, square": lambda x: x.sqrt() ** 2,
        "bfloat16, clamp": lambda x: deaf(x.bfloat16()).float(),
        "8 bits": quantised(8),
        "2 bits": quantised(2),
    }
    rows = []
    for name, front in fronts.items():

        def model(x: Tensor, front: Callable[[Tensor], Tensor] = front) -> Tensor:
            return network(front(x))

        examples = examples_of(inputs, labels, 0.0, 1.0)
        points, low, high = sounded(examples)
        outer = slopes(model, points)
        inner = slopes(model, inside(points, low, high, torch.float32))
        size = inner.abs()
        visible = inner.isfinite() & (
            size > VISIBLE * size.flatten(1).amax(dim=1).view(-1, 1, 1, 1)
        )
        visible &= (points <= low) | (points >= high)
        other = ~outer.isfinite() | ((outer - inner).abs() > DIFFERENT * size)
        hair = needed_hair(model, examples, torch.float32)
        rows.append(
            {
                "front": name,
                "asked inside by": "no" if hair is None else str(hair).removeprefix("torch."),
                "slopes at a bound": int(visible.sum()),
                "of these another inside": int((visible & other).sum()),
            }
        )
    return rows


def main() -> None:
    """Print and keep both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    for data, radii in RADII.items():
        X, y = (part[:TRAINED_ON] for part in LOADERS[data]("train"))
        inputs, labels = (part[:16] for part in LOADERS[data]("test"))
        for kind in KINDS:
            path = chosen.cache / f"{data} {kind}.pt"
            network = trained(kind, X, y, radii["linf"], path)
            rows = decided(network, inputs, labels)
            result[f"{data} {kind}"] = {"decided": rows}
            print(f"\n{data}, {kind}\n\n{table(rows, list(rows[0]))}", flush=True)
            if kind == "undefended":
                hairs = by_hair(network, inputs)
                result[f"{data} {kind}"]["by hair"] = hairs
                print(f"\n{table(hairs, list(hairs[0]))}", flush=True)
    save("hair", {**circumstances(), **result})


if __name__ == "__main__":
    main()
