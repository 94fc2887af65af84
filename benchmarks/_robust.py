"""The adversarially trained network that several benchmarks attack, trained once."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks._common import quick_precision
from distillguard import AdversarialTrainer, datasets, load, networks

CACHE = Path(__file__).parent / ".cache"

# The network of Carlini and Wagner 2017, Table I, without dropout.
WHOLE = partial(networks.papernot_mnist, dropout=0.0, initial_weights="torch")

SETTINGS: dict[str, dict[str, Any]] = {
    "mnist5k": {"epsilon": 0.3, "max_epochs": 30},
    "fashion": {"epsilon": 0.1, "max_epochs": 8},
}
"""Radius in linf, and the training that two cores do in a quarter of an hour."""

COMMON: dict[str, Any] = {
    "learning_rate": 2e-3,
    "lr_scheduler": "cosine",
    "bounds": (0.0, 1.0),
    "precision": quick_precision(),
}

Examples = tuple[Tensor, Tensor]


def examples(data: str) -> tuple[Examples, Examples]:
    """Training and test images."""
    if data == "mnist5k":
        return datasets.load_mnist5k("train"), datasets.load_mnist5k("test")
    X, y = datasets.load_fashion_mnist("train")
    return (X[:20_000], y[:20_000]), datasets.load_fashion_mnist("test")


def settings(data: str, seed: int) -> dict[str, Any]:
    """What a robust training on some data is told, whatever its objective."""
    return COMMON | SETTINGS[data] | {"random_state": seed}


def trades(data: str, cache: Path = CACHE, epochs: int | None = None) -> AdversarialTrainer:
    """The network of Carlini and Wagner trained by TRADES, read from the cache if it is there."""
    told = settings(data, 0) | ({} if epochs is None else {"max_epochs": epochs})
    folder = cache / f"{data}-trades-{told['max_epochs']}-{told['precision']}"
    if not folder.exists():
        print(f"training by TRADES for {told['max_epochs']} epochs", flush=True)
        trainer = AdversarialTrainer(WHOLE, beta=5.0, **told)
        trainer.fit(*examples(data)[0]).save(folder)
    fitted = load(folder)
    assert isinstance(fitted, AdversarialTrainer)
    return fitted
