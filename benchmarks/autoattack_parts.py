"""The four parts of AutoAttack beside torchattacks' at the same budget: robust accuracy and cost.

For Papernot's network and a small perceptron on MNIST-5k, each undefended, defensively
distilled at T=100 and adversarially trained, in linf and l2: robust accuracy, model evaluations
per example counted by a wrapper around the model, and seconds. Rows are added to
``results/autoattack_parts.json`` one by one, those of an earlier run with the same budget
replaced.

    python -m benchmarks.autoattack_parts [--examples 200] [--cache FOLDER] [--only undefended]
"""

import argparse
import copy
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._common import Counted
from distillguard import attacks
from distillguard.datasets import load_mnist5k
from distillguard.functional import margin_loss, soft_cross_entropy
from distillguard.networks import mlp, papernot_mnist

RESULTS = Path(__file__).parent / "results" / "autoattack_parts.json"
BUDGETS = {
    "undefended": [("linf", 0.13), ("l2", 1.5)],
    "distilled T=100": [("linf", 0.13), ("l2", 1.5)],
    "adversarially trained": [("linf", 0.3), ("l2", 2.5)],
    "mlp, undefended": [("linf", 0.04), ("l2", 0.6)],
    "mlp, distilled T=100": [("linf", 0.04), ("l2", 0.6)],
    "mlp, adversarially trained": [("linf", 0.1), ("l2", 1.0)],
}
"""Radii that leave each network some robust examples."""


LABELS = ("examples", "steps", "targets", "queries", "network", "norm", "epsilon", "part")
"""What makes two rows the same."""


class Budget(NamedTuple):
    """What both libraries may spend."""

    steps: int
    targets: int
    queries: int


def parts(
    norm: str, epsilon: float, spend: Budget
) -> dict[str, tuple[Callable[..., Tensor], Callable[[nn.Module], Any]]]:
    """Each part in both libraries: ours, and a function from the model to theirs."""
    shared = {"norm": norm.capitalize(), "eps": epsilon, "seed": 0}
    budget = {"norm": norm, "epsilon": epsilon, "random_state": 0}
    steps = {"steps": spend.steps}
    # Theirs try all classes but one, ours are told how many to try.
    targets, classes = {"n_targets": spend.targets}, {"n_classes": spend.targets + 1}
    return {
        "apgd cross-entropy": (
            partial(attacks.apgd, **budget, **steps),
            partial(torchattacks.APGD, **shared, **steps),
        ),
        "apgd dlr": (
            partial(attacks.apgd, **budget, **steps, loss="dlr"),
            partial(torchattacks.APGD, **shared, **steps, loss="dlr"),
        ),
        "apgd targeted": (
            partial(attacks.apgd_targeted, **budget, **steps, **targets),
            partial(torchattacks.APGDT, **shared, **steps, **classes),
        ),
        "fab targeted": (
            partial(
                attacks.fab_targeted,
                norm=norm,
                stop_within=epsilon,
                random_state=0,
                **steps,
                **targets,
            ),
            partial(torchattacks.FAB, **shared, **steps, **classes, multi_targeted=True),
        ),
        "square": (
            partial(attacks.square, **budget, queries=spend.queries),
            partial(torchattacks.Square, **shared, n_queries=spend.queries),
        ),
    }


def measured(
    model: nn.Module,
    run: Callable[[nn.Module], Tensor],
    X: Tensor,
    y: Tensor,
    norm: str,
    eps: float,
) -> dict[str, float]:
    """Robust accuracy and cost of one attack; what left the ball or the bounds did not fool."""
    counted = Counted(model)
    begin = time.perf_counter()
    adversarial = run(counted).detach()
    seconds = time.perf_counter() - begin

    with torch.no_grad():
        wrong_before, wrong = margin_loss(model(X), y) > 0, margin_loss(model(adversarial), y) > 0
    order = {"linf": torch.inf, "l2": 2}[norm]
    distance = torch.linalg.vector_norm((adversarial - X).flatten(1), ord=order, dim=1)
    allowed = (distance <= eps * (1 + 1e-5)) & ((adversarial >= 0) & (adversarial <= 1)).flatten(
        1
    ).all(1)
    robust = ~(wrong_before | (wrong & allowed))
    return {
        "robust_accuracy": robust.double().mean().item(),
        "forwards_per_example": counted.forwards / len(X),
        "backwards_per_example": counted.backwards / len(X),
        "seconds": seconds,
    }


def rows(
    name: str, model: nn.Module, X: Tensor, y: Tensor, spend: Budget
) -> Iterator[dict[str, Any]]:
    """Every budget and part, in both libraries."""
    with torch.no_grad():
        clean = (margin_loss(model(X), y) <= 0).double().mean().item()
    for norm, epsilon in BUDGETS[name]:
        for part, (ours, theirs) in parts(norm, epsilon, spend).items():
            yield {
                "network": name,
                "clean_accuracy": clean,
                "norm": norm,
                "epsilon": epsilon,
                "part": part,
                "distillguard": measured(
                    model, partial(ours, inputs=X, labels=y), X, y, norm, epsilon
                ),
                "torchattacks": measured(
                    model, lambda counted, make=theirs: make(counted)(X, y), X, y, norm, epsilon
                ),
            }


def trained(
    model: nn.Module,
    X: Tensor,
    targets: Tensor,
    temperature: float,
    epochs: int,
    attack: Any = None,
) -> nn.Module:
    """Adam on the soft cross-entropy at a temperature, on attacked inputs where asked for."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for batch in torch.randperm(len(X)).split(128):
            inputs = X[batch]
            if attack is not None:
                inputs = attack(model, inputs, targets[batch].argmax(dim=1), share=epoch / epochs)
            model.train()
            loss = soft_cross_entropy(model(inputs), targets[batch], temperature).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"  epoch {epoch}: loss {loss.item():.4f}", flush=True)
    return model.eval()


def hardening(
    model: nn.Module, inputs: Tensor, labels: Tensor, share: float, epsilon: float
) -> Tensor:
    """Points to train on: the radius grows over the first two thirds of the epochs."""
    grown = epsilon * min(1.0, 0.2 + 1.2 * share)
    return attacks.pgd(
        model, inputs, labels, epsilon=grown, steps=5, early_stop=False, random_state=0
    )


def network(name: str, cache: Path) -> nn.Module:
    """Return a network from the cache; one that is missing is trained and put there."""
    *family, kind = name.split(", ")
    fresh, hard = (partial(mlp, hidden=(100,)), 0.12) if family else (papernot_mnist, 0.25)
    path = cache / f"{name}.pt"
    if path.is_file():
        model = fresh((1, 28, 28), 10).eval()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    X, y = load_mnist5k("train")
    one_hot = F.one_hot(y, 10).float()
    print(f"training the {name} network", flush=True)
    torch.manual_seed(0)
    first = fresh((1, 28, 28), 10)
    if kind == "undefended":
        model = trained(first, X, one_hot, 1.0, 10)
    elif kind == "adversarially trained":
        begun = network(", ".join([*family, "undefended"]), cache)
        model = trained(begun, X, one_hot, 1.0, 9, partial(hardening, epsilon=hard))
    else:
        # A first epoch at T=1: divided by 100, the gradients of fresh logits teach nothing. The
        # student starts from the same weights as its teacher.
        first = trained(first, X, one_hot, 1.0, 1)
        teacher = trained(copy.deepcopy(first), X, one_hot, 100.0, 8)
        with torch.no_grad():
            soft = torch.cat([F.softmax(teacher(part) / 100, dim=1) for part in X.split(500)])
        model = trained(first, X, soft, 100.0, 8)
    torch.save(model.state_dict(), path)
    return model


def main() -> None:
    """Train or load the networks, measure, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--targets", type=int, default=9)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "distillguard")
    parser.add_argument("--only", choices=list(BUDGETS), nargs="*", default=list(BUDGETS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)

    spend = Budget(arguments.steps, arguments.targets, arguments.queries)

    X, y = (part[: arguments.examples] for part in load_mnist5k("test"))
    key = {"examples": len(X), **spend._asdict()}
    report = {"torch": torch.__version__, "python": platform.python_version(), "rows": []}
    if arguments.output.is_file():
        report["rows"] = json.loads(arguments.output.read_text())["rows"]
    for name in arguments.only:
        model = network(name, arguments.cache)
        for row in rows(name, model, X, y, spend):
            row = key | row
            same = [row[part] for part in LABELS]
            others = [r for r in report["rows"] if [r[part] for part in LABELS] != same]
            report["rows"] = [*others, row]
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")
            print(line(row), flush=True)


def line(row: dict[str, Any]) -> str:
    """One row in words."""
    sides = (row["distillguard"], row["torchattacks"])
    return (
        f"{row['network']:26s} {row['norm']:4s} {row['epsilon']:<4} {row['part']:18s} "
        + " | ".join(
            f"robust {side['robust_accuracy']:.3f} fw {side['forwards_per_example']:7.1f} "
            f"bw {side['backwards_per_example']:6.1f} {side['seconds']:6.1f} s"
            for side in sides
        )
    )


if __name__ == "__main__":
    main()
