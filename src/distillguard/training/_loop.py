"""The training loop: epochs of batches, a loss of (model, batch), an optimiser."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from .._data import Batch, Source
from .._modes import dtype_of
from ..exceptions import DivergenceError
from ._runtime import Runtime

Objective: TypeAlias = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""From a network and a batch to one loss per example (n,) and the logits (n, n_classes)."""

Epoch: TypeAlias = dict[str, Any]
"""One record of the history: stage, epoch, loss, accuracy, learning_rate, seconds, ..."""


class Callback(Protocol):
    """Something that watches training; return True from ``on_epoch`` to stop the stage."""

    def on_epoch(self, record: Epoch, network: nn.Module) -> bool | None:
        """Called after every epoch with its record and the network."""


@dataclass
class Stopping:
    """Early stopping on a validation source: the best weights by loss are put back at the end."""

    source: Source
    patience: int
    best: float = float("inf")
    waited: int = 0
    weights: dict[str, Tensor] | None = None

    def should_stop(self, loss: float, network: nn.Module) -> bool:
        """Note the loss; say whether ``patience`` epochs have gone by without a better one."""
        if loss < self.best:
            self.best, self.waited, self.weights = loss, 0, deepcopy(network.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience


@dataclass
class Plan:
    """How long and on what a network is trained."""

    stage: str
    source: Source
    objective: Objective
    max_epochs: int
    stopping: Stopping | None = None
    callbacks: Sequence[Callback] = field(default_factory=tuple)
    verbose: bool = False


def train(
    network: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    plan: Plan,
    runtime: Runtime,
) -> list[Epoch]:
    """Train ``network`` in place and return one record per epoch.

    Raises
    ------
    DivergenceError
        If a loss or a weight is no longer finite. The weights of the last good epoch (the
        initial ones, if there was none) are put back first.
    """
    wrapped, optimizer = runtime.set_up(network, optimizer)
    history: list[Epoch] = []

    for number in range(1, plan.max_epochs + 1):
        good = deepcopy(network.state_dict())
        record = _one_epoch(wrapped, optimizer, scheduler, plan, runtime, number)
        if not _finite(record["loss"], network):
            network.load_state_dict(good)
            raise DivergenceError(
                f"training of the {plan.stage} diverged in epoch {number}: the loss or a weight "
                "is not finite. The last good weights are kept. Try a smaller learning_rate, "
                "precision='32-true', or look for extreme values in the inputs"
            )
        stop = False
        if plan.stopping is not None:
            record |= _validated(wrapped, plan, runtime)
            stop = plan.stopping.should_stop(record["validation_loss"], network)
        history.append(record)
        # All callbacks see every epoch, also the one at which one of them says stop.
        wishes = [callback.on_epoch(record, network) for callback in plan.callbacks]
        if stop or any(wishes):
            break

    if plan.stopping is not None and plan.stopping.weights is not None:
        network.load_state_dict(plan.stopping.weights)
    network.eval()
    return history


def _one_epoch(
    network: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    plan: Plan,
    runtime: Runtime,
    number: int,
) -> Epoch:
    began = time.perf_counter()
    network.train()
    totals, dtype = _Totals(runtime.device), dtype_of(network, torch.float32)
    name, quiet = f"{plan.stage} {number}/{plan.max_epochs}", not plan.verbose
    with tqdm(total=plan.source.n_batches, desc=name, disable=quiet, unit="batch") as bar:
        for batch in plan.source.epoch(number):
            batch = _on_device(batch, runtime.device, dtype)
            losses, logits = plan.objective(network, batch)

            optimizer.zero_grad(set_to_none=True)
            runtime.fabric.backward(losses.mean())
            optimizer.step()
            if scheduler is not None:
                scheduler.step()

            totals.add(losses, logits, batch.labels)
            bar.update()
        loss, accuracy = totals.means()
        bar.set_postfix(loss=f"{loss:.4g}", accuracy=f"{accuracy:.4f}")
    return {
        "stage": plan.stage,
        "epoch": number,
        "loss": loss,
        "accuracy": accuracy,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "seconds": time.perf_counter() - began,
    }


def _validated(network: nn.Module, plan: Plan, runtime: Runtime) -> Epoch:
    """Loss and accuracy on the held-out examples."""
    assert plan.stopping is not None
    network.eval()
    totals, dtype = _Totals(runtime.device), dtype_of(network, torch.float32)
    with torch.no_grad():
        for batch in plan.stopping.source.in_order():
            batch = _on_device(batch, runtime.device, dtype)
            totals.add(*plan.objective(network, batch), batch.labels)
    loss, accuracy = totals.means()
    return {"validation_loss": loss, "validation_accuracy": accuracy}


class _Totals:
    """Sums kept on the device: reading them in every step would make a GPU wait."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device, dtype=torch.float32)
        self.right = torch.zeros((), device=device, dtype=torch.int64)
        self.seen = 0

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss += losses.detach().sum()
        self.right += (logits.detach().argmax(dim=1) == labels).sum()
        self.seen += len(labels)

    def means(self) -> tuple[float, float]:
        if not self.seen:
            raise ValueError("X must hold at least one example, got an empty loader or data set")
        return self.loss.item() / self.seen, self.right.item() / self.seen


def _on_device(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    inputs = batch.inputs.to(device, dtype, non_blocking=True)
    return Batch(inputs, batch.labels.to(device, non_blocking=True), batch.indices)


def _finite(loss: float, network: nn.Module) -> bool:
    weights = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    return torch.tensor(loss).isfinite().item() is True and all(
        bool(tensor.isfinite().all()) for tensor in weights
    )
