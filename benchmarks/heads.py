"""Every temperature trains whatever a network ends in: eleven kinds of head on MNIST-5k.

    python -m benchmarks.heads [--epochs 10] [--seeds 1] [--threads 1]

A perceptron, or two convolutions, is distilled at T = 1, 5, 20 and 100 with the defaults; all
that differs is the head. The table has the student's accuracy on the test images at T = 1, its
difference from that at the other temperatures in points, and where the factor T went: into the
weights of a layer, or into ``networks.Scaled`` around the network. The last line says whether
all differences are within 1.5 points.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import circumstances, save, table
from distillguard import DefensiveDistiller, datasets, networks
from distillguard.training._scaled_head import find_head

TEMPERATURES = (1.0, 5.0, 20.0, 100.0)
POINTS = 1.5
WIDTH = 64


def body() -> nn.Sequential:
    """The perceptron before the head."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 2 * WIDTH), nn.ReLU(), _dense(), nn.ReLU())


def _dense() -> nn.Linear:
    return nn.Linear(2 * WIDTH, WIDTH)


class Ended(nn.Module):
    """The perceptron with a layer at its end, and a function of what that returns."""

    def __init__(self, last: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.last, self.function = body(), last, function

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        return self.function(self.last(self.body(inputs)))


class OwnWeights(nn.Module):
    """Weights of the network's own, without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, like = body(), nn.Linear(WIDTH, 10)
        self.w, self.b = nn.Parameter(like.weight.detach()), nn.Parameter(like.bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        return nn.functional.linear(self.body(inputs), self.w, self.b)


class Cosine(nn.Module):
    """Cosines of the features and of a direction for each class, times a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = body(), nn.Linear(WIDTH, 10, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        features = nn.functional.normalize(self.body(inputs))
        return 16 * nn.functional.linear(features, nn.functional.normalize(self.last.weight))


class Tied(nn.Module):
    """Class vectors that features are compared with and that are added to the features."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = body(), nn.Linear(WIDTH, 10)
        self.embedding = nn.Embedding(10, WIDTH)
        self.embedding.weight = self.last.weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        features = self.body(inputs)
        likely = self.last(features).softmax(dim=1) @ self.embedding.weight
        return self.last(features + likely)


def pooled() -> nn.Module:
    """A convolution to ten maps, and their means."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 10, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def last(bias: bool = True) -> nn.Module:
    """The layer that most networks end in."""
    return nn.Linear(WIDTH, 10, bias=bias)


HEADS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(body(), last()),
    "linear without a bias": lambda: nn.Sequential(body(), last(bias=False)),
    "log-softmax": lambda: nn.Sequential(body(), last(), nn.LogSoftmax(dim=1)),
    "weight_norm": lambda: nn.Sequential(body(), nn.utils.parametrizations.weight_norm(last())),
    "weight_norm, the old one": lambda: nn.Sequential(body(), nn.utils.weight_norm(last())),
    "spectral_norm": lambda: nn.Sequential(body(), nn.utils.parametrizations.spectral_norm(last())),
    "half of the logits": lambda: Ended(last(), lambda logits: logits * 0.5),
    "cosines": Cosine,
    "convolution and pooling": pooled,
    "tied embedding": Tied,
    "weights without a layer": OwnWeights,
}


def place(fitted: DefensiveDistiller, inputs: Tensor) -> str:
    """Where the factor T went."""
    network = fitted.student_
    if isinstance(network, networks.Scaled):
        return "networks.Scaled"
    head = find_head(network, inputs)
    path = next(path for path, module in network.named_modules() if module is head)
    return path or "the network's own weights"


def compare(name: str, epochs: int, seeds: int) -> dict[str, Any]:
    """One head at every temperature."""
    training, test = datasets.load_mnist5k("train"), datasets.load_mnist5k("test")
    began, row = time.perf_counter(), {"head": name}
    for T in TEMPERATURES:
        scores = []
        for seed in range(seeds):
            distiller = DefensiveDistiller(
                lambda *_: HEADS[name](), temperature=T, max_epochs=epochs, random_state=seed
            ).fit(*training)
            scores.append(distiller.score(*test))
        row[f"T={T:g}"] = sum(scores) / seeds
    row["factor in"] = place(distiller, training[0][:2])
    return row | {"seconds": time.perf_counter() - began}


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row with differences in points."""
    first = f"T={TEMPERATURES[0]:g}"
    others = {key: f"{100 * (row[key] - row[first]):+.2f}" for key in names()[1:]}
    return row | {first: f"{100 * row[first]:.2f} %"} | others


def names() -> list[str]:
    """The columns of the temperatures."""
    return [f"T={T:g}" for T in TEMPERATURES]


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore", message="temperature=")
    warnings.filterwarnings("ignore", message=".*weight_norm.* is deprecated")

    rows = []
    for name in HEADS:
        rows.append(compare(name, chosen.epochs, chosen.seeds))
        print(rows[-1], flush=True)
    save("heads", {**circumstances(), "epochs": chosen.epochs, "seeds": chosen.seeds, "rows": rows})
    worst = max(abs(row[key] - row[names()[0]]) for row in rows for key in names())
    print(table(list(map(shown, rows)), ["head", *names(), "factor in"]))
    print(
        f"largest difference from T=1: {100 * worst:.2f} points; all within {POINTS}: "
        f"{'yes' if 100 * worst <= POINTS else 'NO'}"
    )


if __name__ == "__main__":
    main()
