"""``fit`` beside a hand-written PyTorch loop, ART, skorch, bf16 and an ART TRADES trainer.

    python -m benchmarks.training [--examples 2560] [--rounds 5]
    python -m benchmarks.training --accuracy

Every contender trains Papernot's MNIST network on the same MNIST-5k digits with Adam in batches
of 128: teacher and student, or one network by TRADES. Rounds alternate between the contenders,
and ratios are taken within a round, so that a busy machine slows both; the table has the median.
``--accuracy`` trains with the defaults in float32 and in bf16-mixed instead, and compares the
students on the test images.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, save, table
from distillguard import AdversarialTrainer, DefensiveDistiller, datasets, networks
from distillguard.functional import kl_divergence

T, BATCH, EPSILON = 20.0, 128, 0.3
COMMON: dict[str, Any] = {"max_epochs": 1, "batch_size": BATCH, "random_state": 0}


def distil(X: Tensor, y: Tensor, **settings: Any) -> Any:
    """Ours."""
    return DefensiveDistiller(networks.papernot_mnist, temperature=T, **COMMON | settings).fit(X, y)


def bare(X: Tensor, y: Tensor, *, averaging: float | None = None) -> nn.Module:
    """What one would write by hand, in the memory format that is fastest here."""

    def train(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        network.train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        average = [p.detach().clone() for p in network.parameters()]
        for rows in torch.randperm(len(X)).split(BATCH):
            value = loss(network(X[rows]), rows)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if averaging is not None:
                with torch.no_grad():
                    live = [p.detach() for p in network.parameters()]
                    torch._foreach_lerp_(average, live, 1 - averaging)

    teacher = networks.papernot_mnist().to(memory_format=torch.channels_last)
    student = deepcopy(teacher)
    train(teacher, lambda z, rows: nn.functional.cross_entropy(z / T, y[rows]))
    teacher.eval()
    with torch.no_grad():
        soft = torch.cat([torch.softmax(teacher(part) / T, 1) for part in X.split(512)])
    train(student, lambda z, rows: nn.functional.cross_entropy(z / T, soft[rows]))
    return student


def bare_trades(X: Tensor, y: Tensor) -> nn.Module:
    """TRADES by hand."""
    network = networks.papernot_mnist(dropout=0.0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    average = [p.detach().clone() for p in network.parameters()]
    for rows in torch.randperm(len(X)).split(BATCH):
        x = X[rows]
        network.eval()
        with torch.no_grad():
            clean = network(x)
        points = (x + EPSILON * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(10):
            points.requires_grad_()
            (g,) = torch.autograd.grad(kl_divergence(network(points), clean).sum(), points)
            points = points.detach() + EPSILON / 4 * g.sign()
            points = torch.min(torch.max(points, x - EPSILON), x + EPSILON).clamp(0, 1)
        network.train()
        clean = network(x)
        loss = nn.functional.cross_entropy(clean, y[rows])
        loss = loss + 6 * kl_divergence(network(points), clean).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 0.005)
    return network


def trades(X: Tensor, y: Tensor, **settings: Any) -> Any:
    """Ours."""
    network = partial(networks.papernot_mnist, dropout=0.0)
    return AdversarialTrainer(network, epsilon=EPSILON, **COMMON | settings).fit(X, y)


def art_distil(X: Tensor, y: Tensor) -> Any:
    """ART's DefensiveDistillation, which knows no temperature and wants probabilities."""
    from art.defences.transformer.evasion import DefensiveDistillation

    hot = nn.functional.one_hot(y, 10).float().numpy()
    teacher, student = _art(nn.Softmax(dim=1)), _art(nn.Softmax(dim=1))
    teacher.fit(X.numpy(), hot, batch_size=BATCH, nb_epochs=1)
    DefensiveDistillation(teacher, batch_size=BATCH, nb_epochs=1)(X.numpy(), student)
    return student


def art_trades(X: Tensor, y: Tensor) -> Any:
    """ART's TRADES trainer with its own PGD of ten steps."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainerTRADESPyTorch

    classifier = _art()
    attack = ProjectedGradientDescent(
        classifier, eps=EPSILON, eps_step=EPSILON / 4, max_iter=10, num_random_init=1,
        batch_size=BATCH, verbose=False,
    )  # fmt: skip
    hot = nn.functional.one_hot(y, 10).float().numpy()
    trainer = AdversarialTrainerTRADESPyTorch(classifier, attack, beta=6.0)
    trainer.fit(X.numpy(), hot, nb_epochs=1, batch_size=BATCH)
    return classifier


def skorch_pair(X: Tensor, y: Tensor) -> Any:
    """Two skorch classifiers, the second on the first one's soft labels."""
    skorch = importlib.import_module("skorch")

    class Soft(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits / T, target)

    common = {
        "criterion": Soft, "optimizer": torch.optim.Adam, "lr": 1e-3, "batch_size": BATCH,
        "max_epochs": 1, "train_split": None, "verbose": 0, "iterator_train__shuffle": True,
    }  # fmt: skip
    teacher = skorch.NeuralNet(networks.papernot_mnist(), **common).fit(X, y)
    soft = torch.softmax(torch.from_numpy(np.asarray(teacher.predict(X))) / T, 1)
    return skorch.NeuralNet(networks.papernot_mnist(), **common).fit(X, soft)


def _art(*after: nn.Module) -> Any:
    from art.estimators.classification import PyTorchClassifier

    network = nn.Sequential(networks.papernot_mnist(), *after)
    return PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 28, 28), 10,
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3), clip_values=(0.0, 1.0),
        device_type="cpu",
    )  # fmt: skip


def accuracy() -> None:
    """The student's accuracy on MNIST-5k by precision, all else at the defaults."""
    training, test = datasets.load_mnist5k("train"), datasets.load_mnist5k("test")
    rows = []
    for precision in ("32-true", "bf16-mixed"):
        distiller = DefensiveDistiller(
            networks.papernot_mnist, temperature=T, precision=precision, random_state=0
        )
        rows.append({"precision": precision, "accuracy": distiller.fit(*training).score(*test)})
        print(rows[-1], flush=True)
    save("training-precision", {**circumstances(), "T": T, "rows": rows})


def main() -> None:
    """Time the contenders in alternating rounds and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--accuracy", action="store_true", help="by precision, instead")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.accuracy:
        accuracy()
        return
    X, y = (part[: chosen.examples] for part in datasets.load_mnist5k("train"))
    few = X[:512], y[:512]

    groups: dict[str, dict[str, Callable[[], Any]]] = {
        "fit": {
            "distillguard": lambda: distil(X, y),
            "bare loop": lambda: bare(X, y, averaging=0.995),
            "distillguard, no averaging": lambda: distil(X, y, weight_averaging=None),
            "bare loop, no averaging": lambda: bare(X, y),
            "distillguard, bf16-mixed": lambda: distil(X, y, precision="bf16-mixed"),
            "ART DefensiveDistillation": lambda: art_distil(X, y),
            "skorch pair": lambda: skorch_pair(X, y),
        },
        "TRADES": {
            "distillguard": lambda: trades(*few),
            "bare loop": lambda: bare_trades(*few),
            "distillguard, bf16-mixed": lambda: trades(*few, precision="bf16-mixed"),
            "ART": lambda: art_trades(*few),
        },
    }
    rows = []
    for group, contenders in groups.items():
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(chosen.rounds + 1):
            for name, call in contenders.items():
                try:
                    began = time.perf_counter()
                    call()
                except ImportError as error:
                    print(f"{name}: {error}")
                    continue
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
        for name, times in seconds.items():
            if times:
                ratios = [
                    ours / each for ours, each in zip(seconds["distillguard"], times, strict=True)
                ]
                row = {
                    "group": group,
                    "contender": name,
                    "seconds": statistics.median(times),
                    "distillguard / contender": statistics.median(ratios),
                    "ratios": ratios,
                }
                rows.append(row)
                print({k: v for k, v in row.items() if k != "ratios"}, flush=True)
    settings = {"examples": chosen.examples, "rounds": chosen.rounds}
    versions = circumstances("adversarial-robustness-toolbox", "skorch")
    save("training", {**versions, **settings, "rows": rows})
    print(table(rows, ["group", "contender", "seconds", "distillguard / contender"]))


if __name__ == "__main__":
    main()
