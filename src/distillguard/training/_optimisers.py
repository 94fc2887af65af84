"""Optimisers and schedules by name or by the caller's own factory."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from .._validation import check_choice

OptimizerFactory: TypeAlias = Callable[..., Optimizer]
SchedulerFactory: TypeAlias = Callable[[Optimizer, int], LRScheduler]

OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def make_optimizer(
    optimizer: str | OptimizerFactory, parameters: Iterable[nn.Parameter], learning_rate: float
) -> Optimizer:
    """Build the named optimiser, or ``optimizer(parameters, lr=learning_rate)``."""
    # The optimiser's state holds the rate, and checkpoints hold Python's numbers only.
    learning_rate = float(learning_rate)
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, OPTIMIZERS)
        factory = OPTIMIZERS[optimizer]
    elif callable(optimizer):
        factory = optimizer
    else:
        raise TypeError(f"optimizer must be a name or a callable, got {optimizer!r}")
    made = factory(parameters, lr=_plain(learning_rate))
    for group in made.param_groups:
        group |= {name: _plain(value) for name, value in group.items()}
    return made


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, whose arithmetic is the same on every way through a run."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def make_scheduler(
    scheduler: str | SchedulerFactory | None, optimizer: Optimizer, total_steps: int
) -> LRScheduler | None:
    """Build the schedule, stepped after every batch, for ``total_steps`` batches."""
    if scheduler is None:
        return None
    if isinstance(scheduler, str):
        check_choice("lr_scheduler", scheduler, SCHEDULERS)
        return SCHEDULERS[scheduler](optimizer, total_steps)
    if not callable(scheduler):
        raise TypeError(f"lr_scheduler must be None, a name or a callable, got {scheduler!r}")
    return scheduler(optimizer, total_steps)


def _cosine(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    return CosineAnnealingLR(optimizer, total_steps)


def _one_cycle(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    highest: Any = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=total_steps)


def _warmup_cosine(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """A fortieth of the steps up, the rest down, as in Gowal 2021 and Bartoldson 2024."""
    if total_steps < 3:
        return ConstantLR(optimizer, factor=1.0)
    highest: Any = [group["lr"] for group in optimizer.param_groups]
    up = max(0.025, 1.5 / total_steps)  # torch divides by this many steps, less one
    return OneCycleLR(
        optimizer, highest, total_steps=total_steps, pct_start=up, cycle_momentum=False
    )


SCHEDULERS: dict[str, SchedulerFactory] = {
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "warmup_cosine": _warmup_cosine,
}
