"""Published settings of whole trainings, by name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def decayed_sgd(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.SGD:
    """SGD with Nesterov momentum 0.9 and weight decay 5e-4, not on biases and BatchNorm."""
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=lr, momentum=0.9, nesterov=True)


RECIPES: dict[str, dict[str, Any]] = {
    # The authors' SOTA.json: WideResNet-94-16, 500 million synthetic images of three generators.
    # Its epochs are 25 batches; the first 6,000 of them use synthetic images alone.
    "bartoldson2024": {
        "objective": "trades",
        "epsilon": 8 / 255,
        "norm": "linf",
        "beta": 5.0,
        "steps": 10,
        "step_size": 2 / 255,
        "bounds": (0.0, 1.0),
        "batch_statistics": True,
        "label_smoothing": 0.1,
        "extra_fraction": 0.875,
        "max_epochs": 10_000,
        "batch_size": 2048,
        "optimizer": decayed_sgd,
        "learning_rate": 0.1,
        "lr_scheduler": "warmup_cosine",
        "weight_averaging": 0.995,
    },
}
