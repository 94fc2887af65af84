"""What an attack could change and must not: models and random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def traces(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that an attack must not change."""
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
    """Advance the generators to a state that no seed gives, so that seeding them shows."""
    torch.rand(3, device="cpu"), np.random.random(3), random.random()  # noqa: NPY002


def generators() -> dict[str, Any]:
    """States of all global generators."""
    _, keys, *place = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [np.asarray(keys).tolist(), *place],
        "random": random.getstate(),
    }


@contextmanager
def other_generators_kept() -> Iterator[None]:
    """Restore NumPy's and Python's global generators."""
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)
