"""The small networks that several benchmarks evaluate, trained once on a part of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillguard import AdversarialTrainer, DefensiveDistiller, UndefendedClassifier
from distillguard.datasets import load_fashion_mnist, load_mnist5k

RADII = {"MNIST-5k": {"linf": 0.2, "l2": 1.5}, "Fashion-MNIST": {"linf": 0.1, "l2": 1.0}}
LOADERS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "MNIST-5k": load_mnist5k,
    "Fashion-MNIST": load_fashion_mnist,
}
TRAINED_ON = 4000


def network(*_: Any) -> nn.Module:
    """Two strided convolutions and two dense layers: small, so that AutoAttack ends."""
    return convolutional()


def convolutional(
    channels: int = 1, activation: Callable[[int], nn.Module] | None = None
) -> nn.Module:
    """Return the small network for inputs of other channels, with another activation.

    ``activation`` is given the number of channels, or of features, that it follows.
    """
    activation = activation or (lambda width: nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        activation(16),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        activation(32),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        activation(64),
        nn.Linear(64, 10),
    )


def trained(kind: str, X: Tensor, y: Tensor, epsilon: float, cache: Path) -> nn.Module:
    """Train one of the four networks, or take it from the cache."""
    if cache.is_file():
        return stored(cache)
    if kind == "adversarially trained":
        settings: dict[str, Any] = {
            "learning_rate": 2e-3,
            "lr_scheduler": "cosine",
            "random_state": 0,
        }
        trainer = AdversarialTrainer(
            network, epsilon=epsilon, bounds=(0.0, 1.0), beta=5.0, max_epochs=15, **settings
        )
        model = trainer.fit(X, y).model_
    elif kind == "undefended":
        model = UndefendedClassifier(network, max_epochs=15, random_state=0).fit(X, y).model_
    else:
        temperature = float(kind.removeprefix("T="))
        distiller = DefensiveDistiller(
            network, temperature=temperature, max_epochs=15, random_state=0
        )
        model = distiller.fit(X, y).student_
    # A GPU trains on itself, where there is one.
    torch.save(model.cpu().state_dict(), cache)
    return model.eval()


def stored(cache: Path) -> nn.Module:
    """Read a network that was trained before, onto the CPU."""
    model = network()
    model.load_state_dict(torch.load(cache, weights_only=True, map_location="cpu"))
    return model.eval()
