"""What robust training and robust distillation are worth, under ``evaluate("standard")``.

    python -m benchmarks.robust_training --data mnist5k [--seeds 3] [--examples 300]
    python -m benchmarks.robust_training --data fashion [--seeds 3] [--examples 300]
    python -m benchmarks.robust_training --data mnist5k --gentle
    python -m benchmarks.robust_training --data fashion --igdm
    python -m benchmarks.robust_training --timing
    python -m benchmarks.robust_training --starts

Trains a small CNN by TRADES, and for each seed two of half its width: one by TRADES too, one by
RSLAD from the first. MNIST-5k at linf 0.3, 30 epochs; 20,000 images of Fashion-MNIST at linf 0.1,
8 epochs; bf16-mixed. Rows that the result file holds for the same settings are kept. The third line
adds students by RSLAD that are attacked within a third of the radius for a sixth of the epochs,
and within all of it for the rest. The fourth adds students by RSLAD with indirect gradient
matching; all students are attacked alike. The fifth times epochs of the whole network by TRADES,
which needs an otherwise idle machine. The last trains by TRADES on MNIST-5k for 8 epochs from He's
initial weights and from PyTorch's own.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import circumstances, load, save, table
from benchmarks._robust import CACHE, COMMON, SETTINGS, WHOLE, examples, settings, trades
from distillguard import AdversarialTrainer, RobustDistiller, evaluate, networks
from distillguard.networks._layers import papernot

HALF = partial(papernot, channels=(16, 32), hidden=100, dropout=0.0, initial_weights="torch")
STUDENTS = ("TRADES, half width", "RSLAD, half width")
IGDM = "IGDM on RSLAD, half width"
GENTLE = "RSLAD, half width, small radius first"


def fitted(network: str, seed: int, data: str, cache: Path) -> tuple[Any, float | None]:
    """Train one of the networks; the estimator, and its seconds if it was not in the cache."""
    known = (cache / f"{data}-trades-{SETTINGS[data]['max_epochs']}").exists()
    began = time.perf_counter()
    if network == "TRADES":
        return trades(data, cache), None if known else time.perf_counter() - began
    told, training = settings(data, seed), examples(data)[0]
    student: AdversarialTrainer | RobustDistiller
    if network == "TRADES, half width":
        student = AdversarialTrainer(HALF, beta=5.0, **told)
    else:
        objective = "igdm_rslad" if network == IGDM else "rslad"
        teacher = trades(data, cache).model_
        student = RobustDistiller(HALF, teacher=teacher, objective=objective, **told)
    began = time.perf_counter()
    if network == GENTLE:
        first = told["max_epochs"] // 6
        gentle = {"epsilon": told["epsilon"] / 3, "max_epochs": first, "lr_scheduler": None}
        student.set_params(**gentle).fit(*training)
        rest = {"epsilon": told["epsilon"], "max_epochs": told["max_epochs"] - first}
        student.set_params(**rest, lr_scheduler=told["lr_scheduler"], warm_start=True)
    return student.fit(*training), time.perf_counter() - began


def spread(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds, for each network."""
    means = []
    for network in dict.fromkeys(row["network"] for row in rows):
        robust = [row["robust"] for row in rows if row["network"] == network]
        clean = [row["clean"] for row in rows if row["network"] == network]
        means.append(
            {
                "network": network,
                "seeds": len(robust),
                "clean": statistics.mean(clean),
                "robust": statistics.mean(robust),
                "deviation": statistics.stdev(robust) if len(robust) > 1 else None,
            }
        )
    return means


def starts(n: int) -> None:
    """Compare initial weights; robust accuracy under ``"quick"``, an upper bound."""
    training, test = examples("mnist5k")
    rows = []
    for weights in ("torch", "he"):
        network = partial(networks.papernot_mnist, dropout=0.0, initial_weights=weights)
        told = settings("mnist5k", 0) | {"max_epochs": 8}
        trainer = AdversarialTrainer(network, beta=5.0, **told).fit(*training)
        X, y = (part[:n] for part in test)
        report = evaluate(trainer, X, y, epsilon=0.3, attacks="quick", random_state=0)
        found = {"clean": report.clean_accuracy, "robust": report.robust_accuracy}
        rows.append({"initial weights": weights, **found})
        print(rows[-1], flush=True)
    common = {key: value for key, value in COMMON.items() if key != "bounds"}
    about = {"examples": n, **common, "epsilon": 0.3, "max_epochs": 8}
    save("robust-training-starts", {**circumstances(), **about, "rows": rows})


def timing(epochs: int = 3) -> None:
    """Time some epochs of each training by TRADES; the median stands for all of them."""
    rows = []
    for data in SETTINGS:
        told = settings(data, 0)
        whole = told["max_epochs"]
        trainer = AdversarialTrainer(WHOLE, beta=5.0, **(told | {"max_epochs": epochs}))
        history = trainer.fit(*examples(data)[0]).history_
        seconds = statistics.median(record["seconds"] for record in history)
        found = {"epochs": whole, "seconds an epoch": seconds, "minutes": whole * seconds / 60}
        rows.append({"data": data, **found})
        print(rows[-1], flush=True)
    save("robust-training-timing", {**circumstances(), "timed epochs": epochs, "rows": rows})


def main() -> None:
    """Parse the command line, train and evaluate what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(SETTINGS), default="mnist5k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=300, help="test images attacked")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--gentle", action="store_true", help="RSLAD from a small radius too")
    parser.add_argument("--igdm", action="store_true", help="RSLAD with gradient matching too")
    parser.add_argument("--timing", action="store_true", help="time epochs by TRADES instead")
    parser.add_argument("--starts", action="store_true", help="compare initial weights instead")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.starts:
        starts(chosen.examples)
        return
    if chosen.timing:
        timing()
        return

    name = f"robust-training-{chosen.data}"
    common = {key: value for key, value in COMMON.items() if key != "bounds"}
    told = {"examples": chosen.examples, **common, **SETTINGS[chosen.data]}
    before = load(name)
    same = all(before.get(key) == value for key, value in told.items())
    rows = before.get("rows", []) if same else []
    Xt, yt = (part[: chosen.examples] for part in examples(chosen.data)[1])

    wanted = [("TRADES", 0)]
    wanted += [(student, seed) for seed in range(chosen.seeds) for student in STUDENTS]
    if chosen.igdm:
        wanted += [(IGDM, seed) for seed in range(chosen.seeds)]
    if chosen.gentle:
        wanted += [(GENTLE, seed) for seed in range(chosen.seeds)]
    for network, seed in wanted:
        if (network, seed) in {(row["network"], row["seed"]) for row in rows}:
            continue
        estimator, seconds = fitted(network, seed, chosen.data, chosen.cache)
        began = time.perf_counter()
        report = evaluate(
            estimator, Xt, yt, epsilon=SETTINGS[chosen.data]["epsilon"], random_state=0
        )
        rows.append(
            {
                "network": network,
                "seed": seed,
                "clean": report.clean_accuracy,
                "robust": report.robust_accuracy,
                "interval": list(report.robust_interval),
                "findings": [finding.code for finding in report.findings],
                "training robust accuracy": estimator.history_[-1]["robust_accuracy"],
                "training seconds": seconds,
                "evaluation seconds": time.perf_counter() - began,
            }
        )
        print(rows[-1], flush=True)
        means = spread(rows)
        save(name, {**circumstances(), **told, "rows": rows, "means": means})
    columns = ["network", "seed", "clean", "robust", "interval", "findings", "training seconds"]
    print(table(rows, columns))
    means = spread(rows)
    print(table(means, list(means[0])))


if __name__ == "__main__":
    main()
