"""Every temperature from 1 to 100 trains with the defaults; what the alternatives give.

    python -m benchmarks.temperatures --data mnist5k [--epochs 20] [--precision 32-true]
    python -m benchmarks.temperatures --data fashion [--epochs 20] [--precision 32-true]
    python -m benchmarks.temperatures --recipes [--precision 32-true]
    python -m benchmarks.temperatures --endings [--precision bf16-mixed]
    python -m benchmarks.temperatures --page

The first two train Papernot's MNIST network undefended and distilled at nine temperatures, as
long each, and write student accuracy, mean |logit| and the share of zero cross-entropy gradients
on the test images. The third trains two networks at T = 100 by the recipes that the decision
record 0009 compares; the fourth trains at T = 1 on Fashion-MNIST with the three ways to end a
training that record 0011 compares; the last writes
docs/benchmarks/temperatures.md. Without options everything is at its defaults. Rows
that the result file holds already for the same settings are not computed again.
"""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import _temperatures_page
from benchmarks._common import circumstances, load, save, table
from distillguard import DefensiveDistiller, UndefendedClassifier, datasets, functional, networks
from distillguard._data._batch import Batch
from distillguard._data._sources import TensorSource
from distillguard._modes import borrowed, fitted_to, isolated_random_state
from distillguard.exceptions import DivergenceError
from distillguard.training import BatchLosses, Plan, Runtime, multiply_logits, scaled_head, train

TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 100.0)
Examples = tuple[Tensor, Tensor]


def examples(data: str) -> tuple[Examples, Examples]:
    """Training and test images."""
    if data == "mnist5k":
        return datasets.load_mnist5k("train"), datasets.load_mnist5k("test")
    X, y = datasets.load_fashion_mnist("train")
    Xt, yt = datasets.load_fashion_mnist("test")
    return (X[:10_000], y[:10_000]), (Xt, yt)


def rows_of(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier run, if it had the same settings and trained on the same device."""
    before = load(name)
    settings = settings | {"gpu": circumstances()["gpu"]}
    same = all(before.get(key) == value for key, value in settings.items())
    return before.get("rows", []) if same else []


def facts(network: nn.Module, test: Examples) -> dict[str, float]:
    """What distillation does to a network: accuracy, logits, gradients that are exactly zero."""
    X, y = test
    with borrowed(network):
        with torch.no_grad():
            parts = [network(fitted_to(network, part)).cpu() for part in X.split(500)]
        logits = torch.cat(parts)
        zero = 0
        for inputs, labels in zip(X[:500].split(100), y[:500].split(100), strict=True):
            points = fitted_to(network, inputs).requires_grad_()
            loss = functional.cross_entropy(network(points), labels.to(points.device)).sum()
            (gradient,) = torch.autograd.grad(loss, points)
            zero += int((gradient.flatten(1) == 0).all(dim=1).sum())
    return {
        "accuracy": (logits.argmax(dim=1) == y).double().mean().item(),
        "mean_abs_logit": logits.abs().mean().item(),
        "zero_gradients": zero / len(X[:500]),
    }


def sweep(data: str, epochs: int, precision: str, seed: int) -> None:
    """Train undefended and at every temperature; write after each."""
    name = f"temperatures-{data}"
    averaging = DefensiveDistiller().weight_averaging
    settings = {"data": data, "seed": seed, "epochs": epochs, "precision": precision}
    settings["weight_averaging"] = averaging
    done = {row["network"]: row for row in rows_of(name, settings)}
    training, test = examples(data)
    common = {"max_epochs": epochs, "precision": precision, "random_state": seed}
    wanted: dict[str, Callable[[], Any]] = {
        "undefended": lambda: UndefendedClassifier(networks.papernot_mnist, **common)
    }
    for T in TEMPERATURES:
        wanted[f"T={T:g}"] = partial(
            DefensiveDistiller, networks.papernot_mnist, temperature=T, **common
        )
    for label, make in wanted.items():
        if label not in done:
            began = time.perf_counter()
            fitted = make().fit(*training)
            seconds = time.perf_counter() - began
            network = fitted.model_
            done[label] = {"network": label, **facts(network, test), "seconds": seconds}
            if hasattr(fitted, "teacher_"):
                done[label]["teacher_accuracy"] = facts(fitted.teacher_, test)["accuracy"]
            print(done[label], flush=True)
        rows = [done[key] for key in wanted if key in done]
        save(name, {**circumstances(), **settings, "rows": rows})

    baseline = done["undefended"]["accuracy"]
    worst = max(baseline - row["accuracy"] for row in rows)
    columns = ["network", "accuracy", "teacher_accuracy", "mean_abs_logit", "zero_gradients"]
    print(table(rows, columns))
    print(f"largest loss of accuracy against the undefended network: {100 * worst:.2f} points")


def endings(precision: str, seed: int) -> None:
    """Compare the last iterate with a falling step and with averaged weights."""
    training, test = examples("fashion")
    ways: dict[str, dict[str, Any]] = {
        "the last iterate": {"weight_averaging": None},
        "the last iterate of a cosine": {"weight_averaging": None, "lr_scheduler": "cosine"},
        "averaged weights": {},
    }
    name = "temperatures-endings"
    settings = {"seed": seed, "precision": precision, "T": 1.0}
    done = {row["ending"]: row for row in rows_of(name, settings)}
    for label, way in ways.items():
        if label not in done:
            distiller = DefensiveDistiller(
                networks.papernot_mnist,
                temperature=1.0,
                precision=precision,
                random_state=seed,
                **way,
            ).fit(*training)
            done[label] = {
                "ending": label,
                "teacher": facts(distiller.teacher_, test)["accuracy"],
                "student": facts(distiller.student_, test)["accuracy"],
            }
            print(done[label], flush=True)
        save(name, {**circumstances(), **settings, "rows": list(done.values())})
    print(table(list(done.values()), ["ending", "teacher", "student"]))


def recipes(precision: str, seed: int) -> None:
    """Compare ways to train at a high temperature."""
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.5)
    adam = partial(torch.optim.Adam, lr=1e-3)
    ways: dict[str, dict[str, Any]] = {
        "SGD 0.1 (Papernot's constants)": {"optimizer": sgd},
        "SGD 0.1, loss times T": {"optimizer": sgd, "scale": True},
        "SGD 0.1, one epoch at T=1 first": {"optimizer": sgd, "start": 1},
        "SGD 0.1, one epoch at T=1, loss times T": {"optimizer": sgd, "start": 1, "scale": True},
        "Adam 0.001": {"optimizer": adam},
        "Adam 0.001, one epoch at T=1 first": {"optimizer": adam, "start": 1},
        "SGD 0.1, last layer in units of T": {"optimizer": sgd, "units": True},
        "Adam 0.001, last layer in units of T": {"optimizer": adam, "units": True},
    }
    digits = datasets.load_digits("train"), datasets.load_digits("test")
    mnist = datasets.load_mnist5k("train"), datasets.load_mnist5k("test")
    perceptron = partial(networks.mlp, (1, 8, 8), 10)
    settings = {"seed": seed, "epochs": 10, "T": 100.0, "precision": precision}
    name = "temperatures-recipes"
    done = {(row["network"], row["recipe"]): row for row in rows_of(name, settings)}
    for title, network, (training, test) in (
        ("perceptron, digits", perceptron, digits),
        ("Papernot's, MNIST-5k", networks.papernot_mnist, mnist),
    ):
        for label, way in ways.items():
            key = title, label
            if key not in done:
                done[key] = {"network": title, "recipe": label}
                try:
                    student = _taught(network, training, settings, **way)
                    done[key] |= facts(student, test)
                except DivergenceError:
                    done[key]["accuracy"] = "diverged"
                print(done[key], flush=True)
            rows = list(done.values())
            save(name, {**circumstances(), **settings, "rows": rows})
    print(table(rows, ["network", "recipe", "accuracy", "mean_abs_logit", "zero_gradients"]))


def _taught(
    build: Callable[[], nn.Module],
    training: Examples,
    settings: dict[str, Any],
    *,
    optimizer: Callable[..., torch.optim.Optimizer],
    scale: bool = False,
    start: int = 0,
    units: bool = False,
) -> nn.Module:
    """Teacher and student by one recipe; returns the student."""
    T, epochs, seed = settings["T"], settings["epochs"], settings["seed"]
    runtime = Runtime("cpu", settings["precision"])
    source = TensorSource(*training, 128, seed)
    inputs, unit = training[0][:2], T if units else 1.0

    def stage(network: nn.Module, targets: Tensor, temperature: float, n: int) -> None:
        factor = temperature if scale else 1.0

        def objective(asked: nn.Module, batch: Batch) -> BatchLosses:
            logits = asked(batch.inputs)
            soft = targets[batch.indices]
            losses = factor * functional.soft_cross_entropy(logits, soft, temperature)
            return BatchLosses(losses, logits)

        with scaled_head(network, inputs, unit):
            plan = Plan("stage", source, objective, n)
            train(network, optimizer(network.parameters()), None, plan, runtime)

    with isolated_random_state([], seed):
        student = multiply_logits(build(), inputs, unit)
        hot = nn.functional.one_hot(training[1]).float()
        if start:
            stage(student, hot, 1.0, start)
        teacher = deepcopy(student)
        stage(teacher, hot, T, epochs)
        with torch.no_grad():
            logits = torch.cat([teacher(part) for part in training[0].split(500)])
        stage(student, functional.softmax(logits, T), T, epochs)
    return student


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["mnist5k", "fashion"], default="mnist5k")
    parser.add_argument("--recipes", action="store_true", help="compare ways to train instead")
    parser.add_argument("--endings", action="store_true", help="compare ways to end instead")
    parser.add_argument("--epochs", type=int, default=DefensiveDistiller().max_epochs)
    parser.add_argument("--precision", default=DefensiveDistiller().precision)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.page:
        _temperatures_page.write()
    elif chosen.recipes:
        recipes(chosen.precision, chosen.seed)
    elif chosen.endings:
        endings(chosen.precision, chosen.seed)
    else:
        sweep(chosen.data, chosen.epochs, chosen.precision, chosen.seed)


if __name__ == "__main__":
    main()
