"""Other architectures for the benchmark of ``evaluate``, each adversarially trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks._small import network
from distillguard import AdversarialTrainer
from distillguard.networks import mlp


class Residual(nn.Module):
    """Two convolutions with BatchNorm and SiLU beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.SiLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activations."""
        activations: Tensor = nn.functional.silu(self.branch(inputs) + self.shortcut(inputs))
        return activations


class VisionTransformer(nn.Module):
    """Sixteen patches of seven pixels a side, three layers of four heads, their mean read out."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, stride=7)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        layers = [
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True
            )
            for _ in range(3)
        ]
        self.layers = nn.Sequential(*layers)
        self.readout = nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        tokens = self.patches(inputs).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.readout(self.layers(tokens).mean(dim=1))
        return logits


def residual(*_: Any) -> nn.Module:
    """A residual network of three blocks."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1),
        Residual(16, 16, 1),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def multilayer_perceptron(*_: Any) -> nn.Module:
    """Two hidden layers."""
    return mlp((1, 28, 28), hidden=(256, 128))


class Architecture(NamedTuple):
    """How a network is made, and the multiple of the radius that it is trained at."""

    build: Callable[..., nn.Module]
    radii: float = 1.0


ARCHITECTURES = {
    "MLP": Architecture(multilayer_perceptron),
    "residual network, BatchNorm and SiLU": Architecture(residual),
    "vision transformer": Architecture(lambda *_: VisionTransformer()),
    "CNN at twice the radius": Architecture(network, 2.0),
}


def robust(name: str, X: Tensor, y: Tensor, epsilon: float, cache: Path) -> nn.Module:
    """Train one of the networks by TRADES in linf, or take it from the cache."""
    architecture = ARCHITECTURES[name]
    if cache.is_file():
        model = architecture.build()
        model.load_state_dict(torch.load(cache, weights_only=True))
        return model.eval()
    trainer = AdversarialTrainer(
        architecture.build,
        epsilon=architecture.radii * epsilon,
        bounds=(0.0, 1.0),
        beta=5.0,
        max_epochs=15,
        learning_rate=2e-3,
        lr_scheduler="cosine",
        random_state=0,
    )
    model = trainer.fit(X, y).model_
    torch.save(model.state_dict(), cache)
    return model.eval()
