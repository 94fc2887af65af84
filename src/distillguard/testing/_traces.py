"""What a borrower may change and must give back: models and random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def traces(model: nn.Module) -> dict[str, Any]:
    """All of a model that an attack must not change."""
    parameters = list(model.parameters())
    return {
        "modes (train, eval)": [part.training for part in model.modules()],
        "requires_grad": [p.requires_grad for p in parameters],
        "gradients of parameters": [
            None if p.grad is None else p.grad.tolist() for p in parameters
        ],
        "weights or statistics": {name: t.tolist() for name, t in model.state_dict().items()},
    }


def stirred() -> None:
    """Put the generators in a state that no seed leads to, so that a seeding shows."""
    torch.rand(3), np.random.random(3), random.random()  # noqa: NPY002


def generators() -> dict[str, Any]:
    """States of all of them."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        "random": random.getstate(),
    }


@contextmanager
def other_generators_kept() -> Iterator[None]:
    """Put NumPy's and Python's global generators back."""
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)
