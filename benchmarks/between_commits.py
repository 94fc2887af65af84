"""Whether attacks return the same points as at another commit, and how far apart they are if not.

    python -m benchmarks.between_commits [COMMIT] [--examples 12] [--small FOLDER]

Tells which rows of ``benchmarks.attacks`` a change leaves as they are: those of attacks that give
the same points, bit for bit, and at what cost: images sent forwards, per image, with the checks of
the model that an attack begins with. COMMIT is that of the oldest rows, unless told. Both commits
attack the same networks (of ``benchmarks.papers``, on MNIST-5k, undefended and distilled at
T = 100) and the same images, each in a process of its own; the other commit's source comes out of
git into a temporary folder. An attack that the other commit does not have, or not with these
settings, is left out.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
OLDEST_ROWS = "085ec5b"
"""When the oldest rows of ``benchmarks.attacks`` were taken."""
LINF: dict[str, Any] = {"norm": "linf", "epsilon": 0.1, "random_state": 0}
ATTACKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fgsm": ("fgsm", "linf", {"norm": "linf", "epsilon": 0.1}),
    "pgd": ("pgd", "linf", LINF),
    "pgd, margin": ("pgd", "linf", {"loss": "margin", **LINF}),
    "apgd": ("apgd", "linf", LINF),
    "apgd, dlr": ("apgd", "linf", {"loss": "dlr", **LINF}),
    "apgd_targeted": ("apgd_targeted", "linf", LINF),
    "fab_targeted": ("fab_targeted", "linf", {"norm": "linf", "random_state": 0}),
    "square": ("square", "linf", {"queries": 500, **LINF}),
    "carlini_wagner_l2": ("carlini_wagner_l2", "l2", {}),
    "carlini_wagner_linf": ("carlini_wagner_linf", "linf", {}),
    "carlini_wagner_l0": ("carlini_wagner_l0", "l0", {}),
    "ddn": ("ddn", "l2", {}),
    "fmn": ("fmn", "l2", {}),
    "deepfool": ("deepfool", "l2", {"norm": "l2"}),
    "jsma": ("jsma", "l0", {"targeted": True, "max_features": 112}),
    "jsma, logits": (
        "jsma",
        "l0",
        {"targeted": True, "max_features": 112, "saliency": "logits"},
    ),
}


def counted(rows: list[int], module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Add to the first entry how many examples a module is asked about."""
    rows[0] += len(inputs[0])


def points(given: Path, found: Path) -> None:
    """Run every attack with whatever ``distillguard`` is on the path."""
    import distillguard
    from benchmarks._small import network
    from distillguard import attacks, evaluate, networks

    print(f"attacking with {Path(distillguard.__file__).parent}", flush=True)
    results: dict[str, Tensor] = {}
    for kind, (state, inputs, labels) in torch.load(given, weights_only=True).items():
        whole = networks.papernot_mnist(
            (1, 28, 28), 10, dropout=(0.5, 0.0), initial_weights="torch"
        )
        model = whole if state.keys() == whole.state_dict().keys() else network()
        model.load_state_dict(state)
        model.eval().requires_grad_(False)
        for name, (function, _, settings) in ATTACKS.items():
            asked, rows = (labels + 1) % 10 if settings.get("targeted") else labels, [0]
            hook, began = model.register_forward_pre_hook(partial(counted, rows)), process_time()
            try:
                attack = getattr(attacks, function)
                results[f"{kind}/{name}"] = attack(model, inputs, asked, **settings).detach()
                results[f"{kind}/{name}/passes"] = torch.tensor(rows[0] / len(inputs))
                results[f"{kind}/{name}/seconds"] = torch.tensor(process_time() - began)
            except (AttributeError, TypeError) as error:
                print(f"{name} is left out: {error}", flush=True)
            finally:
                hook.remove()
        report = evaluate(model, inputs, labels, epsilon=0.1, random_state=0)
        parts = {row.name: (row.forwards + row.backwards) * row.attacked for row in report.attacks}
        spent = {name: cost.forwards + cost.backwards for name, cost in report.costs.items()}
        print(
            f"{kind}: evaluate leaves {report.robust_accuracy:.3f}; passes per image: attacks "
            f"{sum(parts.values()) / len(inputs):.1f}, "
            + ", ".join(f"{name} {count / len(inputs):.1f}" for name, count in spent.items()),
            flush=True,
        )
    torch.save(results, found)


def attacked(kind: str, small: Path | None) -> tuple[torch.nn.Module, tuple[Tensor, Tensor]]:
    """A network and all test images: of ``benchmarks.papers``, or a small one from a folder."""
    if small is not None:
        from benchmarks._small import LOADERS, RADII, TRAINED_ON, trained

        X, y = (part[:TRAINED_ON] for part in LOADERS["MNIST-5k"]("train"))
        path, radius = small / f"MNIST-5k {kind}.pt", RADII["MNIST-5k"]["linf"]
        return trained(kind, X, y, radius, path), LOADERS["MNIST-5k"]("test")
    from benchmarks.attacks import CACHE
    from benchmarks.papers._lab import Lab

    lab = Lab("mnist5k", CACHE)
    return lab.network(kind, 0), lab.test


def correct(model: torch.nn.Module, test: tuple[Tensor, Tensor], n: int) -> tuple[Tensor, Tensor]:
    """The first ``n`` that the network classifies correctly."""
    X, y = (part[: 2 * n + 50] for part in test)
    with torch.no_grad():
        right = model(X).argmax(dim=1) == y
    return X[right][:n].contiguous(), y[right][:n].contiguous()


def compared(commit: str, examples: int, small: Path | None) -> list[dict[str, Any]]:
    """A row for each network and attack that both commits have."""
    from distillguard._geometry import lp_norm

    asked = {}
    for kind in ("undefended", "T=100"):
        model, test = attacked(kind, small)
        asked[kind] = (model.state_dict(), *correct(model, test, examples))
    with tempfile.TemporaryDirectory() as folder:
        home, given = Path(folder), Path(folder) / "given.pt"
        torch.save(asked, given)
        archive = subprocess.run(
            ["git", "archive", commit, "src"], cwd=ROOT, check=True, capture_output=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(home, filter="data")
        found = []
        for source in (home / "src", ROOT / "src"):
            place = home / f"{len(found)}.pt"
            subprocess.run(
                [sys.executable, __file__, "--points", given, place],
                env=os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}"},
                check=True,
            )
            found.append(torch.load(place, weights_only=True))
    before, after = found

    rows = []
    for key in before.keys() & after.keys():
        kind, name, *passes = key.split("/")
        if passes:
            continue
        norm: Any = ATTACKS[name][1]
        row = {"network": kind, "attack": name, "equal": torch.equal(before[key], after[key])}
        for when, there in (("before", before[key]), ("now", after[key])):
            row[f"mean {norm} {when}"] = (
                lp_norm(there - asked[kind][1], norm).double().mean().item()
            )
        for when, there in (("before", before), ("now", after)):
            row[f"passes {when}"] = there[f"{key}/passes"].item()
            row[f"seconds {when}"] = there[f"{key}/seconds"].item()
        rows.append(row | {"largest difference": (before[key] - after[key]).abs().max().item()})
    order = [f"{kind}/{name}" for kind in asked for name in ATTACKS]
    return sorted(rows, key=lambda row: order.index(f"{row['network']}/{row['attack']}"))


def main() -> None:
    """Compare, print the table, write the results."""
    from benchmarks._common import circumstances, save, table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", nargs="?", default=OLDEST_ROWS)
    parser.add_argument("--examples", type=int, default=12)
    parser.add_argument("--small", type=Path, help="folder of small networks, trained if need be")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = compared(chosen.commit, chosen.examples, chosen.small)
    save(
        "attacks-between-commits",
        {**circumstances(), "commit": chosen.commit, "examples": chosen.examples, "rows": rows},
    )
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print(table(rows, columns))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--points"]:
        torch.set_num_threads(1)
        points(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
