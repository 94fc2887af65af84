"""The training loop: epochs of batches, a loss of (model, batch), an optimiser."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .._bar import progress_bar
from .._data._batch import Batch, Source
from .._modes import dtype_of, on_cpu, reseed
from ..exceptions import DivergenceError, SaveError
from ._average import Average
from ._callbacks import Callback, Epoch
from ._checkpoints import Checkpoints, State
from ._runtime import Runtime


class BatchLosses(NamedTuple):
    """What an objective makes of a batch."""

    losses: Tensor
    """One value per example, (n,)."""

    logits: Tensor | None
    """The network's, (n, n_classes); None where only attacked inputs were looked at."""

    adversarial_logits: Tensor | None = None
    """The network's on attacked inputs, where the objective attacks."""


Objective: TypeAlias = Callable[[nn.Module, Batch], BatchLosses]


@dataclass
class Stopping:
    """Early stopping by a figure of the validation examples; the best weights are kept."""

    patience: int
    by: Literal["loss", "accuracy"] = "loss"
    best: float = float("inf")
    waited: int = 0
    weights: dict[str, Tensor] | None = None

    def should_stop(self, record: Epoch, network: nn.Module) -> bool:
        """Note the epoch; say whether ``patience`` have gone by without a better one."""
        value = record[f"validation_{self.by}"] * (1 if self.by == "loss" else -1)
        if value < self.best:
            self.best, self.waited, self.weights = value, 0, deepcopy(network.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience

    def state_dict(self) -> State:
        """What ``load_state_dict`` puts back."""
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: State) -> None:
        """Resume from a stored state."""
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]


@dataclass
class Plan:
    """How long and on what a network is trained."""

    stage: str
    source: Source
    objective: Objective
    max_epochs: int
    parameter: str = "module"
    """What the caller gave the network as, for messages."""
    inputs: Tensor | None = None
    """Some to try the network with before training; the source's first ones if not given."""
    seed: int = 0
    validation: Source | None = None
    stopping: Stopping | None = None
    gradient_clip: float | None = None
    weight_averaging: float | None = None
    callbacks: Sequence[Callback] = field(default_factory=tuple)
    checkpoints: Checkpoints | None = None
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
    stage = _Stage(network, optimizer, scheduler, plan, runtime)
    stage.resume()
    for callback in plan.callbacks:
        if hasattr(callback, "on_start"):
            callback.on_start(plan.stage, network, list(stage.history))

    while not stage.finished:
        stage.one_epoch(len(stage.history) + 1)

    network.eval()
    for callback in plan.callbacks:
        if hasattr(callback, "on_end"):
            callback.on_end(plan.stage, network, list(stage.history))
    return stage.history


class _Stage:
    """A network in training, with everything that its epochs change."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        plan: Plan,
        runtime: Runtime,
    ) -> None:
        self.network, self.plan, self.runtime = network, plan, runtime
        self.optimizer, self.scheduler = optimizer, scheduler
        inputs = plan.source.first().inputs if plan.inputs is None else plan.inputs
        self.wrapped, self.stepper = runtime.set_up(network, optimizer, inputs[:2], plan.parameter)
        self.average = None
        if plan.weight_averaging is not None:
            self.average = Average(network, plan.weight_averaging)
        self.history: list[Epoch] = []
        self.finished = False

    def one_epoch(self, number: int) -> None:
        """Train, validate, call the callbacks, decide whether to stop, and store the state."""
        plan, network = self.plan, self.network
        reseed(self.runtime.cuda, _seed(plan.seed, plan.stage, number))
        with self.averaged():
            good = deepcopy(network.state_dict())
        record = self.trained(number)
        self.runtime.same_buffers(network)
        if not _finite(record["loss"], network):
            network.load_state_dict(good)
            network.eval()
            raise DivergenceError(
                f"training of the {plan.stage} diverged in epoch {number}: the loss or a weight "
                "is not finite. The last good weights are kept. Try a smaller learning_rate, "
                "gradient_clip=1.0, precision='32-true', or look for extreme values in the inputs",
                [*self.history, record],
            )
        self.history.append(record)
        stop = number == plan.max_epochs
        with self.averaged():
            self.wrapped.eval()
            if plan.validation is not None:
                record |= self.validated(plan.validation, number)
            if plan.stopping is not None:
                stop = plan.stopping.should_stop(record, network) or stop
            # All callbacks see every epoch, also the one at which one of them says stop.
            wishes = [callback.on_epoch(record, network) for callback in plan.callbacks]
        wish = torch.tensor(stop or any(wishes), device="cpu").long()
        if self.runtime.processes.all_reduce_sum(wish) > 0:
            self.finish()
        if plan.checkpoints is not None:
            plan.checkpoints.save(plan.stage, number, self.state_dict())

    def trained(self, number: int) -> Epoch:
        """One pass over the training examples."""
        began = time.perf_counter()
        plan, runtime, network = self.plan, self.runtime, self.wrapped
        network.train()
        totals = _Totals(runtime)
        name = f"{plan.stage} {number}/{plan.max_epochs}"
        shown = plan.verbose and runtime.processes.first
        with progress_bar(shown, total=plan.source.n_batches, unit="batch", desc=name) as bar:
            for batch, weight in self.shares(plan.source, plan.source.epoch(number), number):
                with _told_of_single_examples(batch):
                    scored = self.scored(batch)

                self.stepper.zero_grad()
                runtime.fabric.backward(scored.losses.sum() * weight)
                if plan.gradient_clip is not None:
                    runtime.clip(network, self.stepper, plan.gradient_clip)
                with _counting(self.optimizer):
                    self.stepper.step()
                if self.scheduler is not None:
                    self.scheduler.step()
                if self.average is not None:
                    self.average.update()

                totals.add(scored, batch.labels, weight)
                bar.update()
            means = totals.means()
            bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
        rate = float(self.optimizer.param_groups[0]["lr"])
        seconds = time.perf_counter() - began
        return {
            "stage": plan.stage,
            "epoch": number,
            **means,
            "learning_rate": rate,
            "seconds": seconds,
        }

    def validated(self, source: Source, number: int) -> Epoch:
        """Loss and accuracy on the validation examples."""
        totals = _Totals(self.runtime)
        with torch.no_grad():
            for batch, weight in self.shares(source, source.in_order(), number):
                # Indices say which of the training examples these are: none of them.
                scored = self.scored(batch._replace(indices=None))
                totals.add(scored, batch.labels, weight)
        return {f"validation_{name}": value for name, value in totals.means().items()}

    def scored(self, batch: Batch) -> BatchLosses:
        """What the objective makes of a batch, each loss times its example's weight."""
        scored = BatchLosses(*self.plan.objective(self.wrapped, batch))
        if batch.weights is None:
            return scored
        return scored._replace(losses=scored.losses * batch.weights.to(scored.losses.dtype))

    def shares(
        self, source: Source, batches: Iterator[Batch], number: int
    ) -> Iterator[tuple[Batch, float]]:
        """Each batch's part for this process, on the device, with the weight of an example."""
        divided, device = source.divided, self.runtime.device
        progress = number / self.plan.max_epochs
        dtype = dtype_of(self.network, torch.float32)
        for whole in batches:
            batch, weight = self.runtime.shard(whole, divided)
            inputs = batch.inputs.to(device, dtype, non_blocking=True)
            labels = batch.labels.to(device, non_blocking=True)
            weights = batch.weights
            if weights is not None:
                weights = weights.to(device, non_blocking=True)
            yield Batch(inputs, labels, batch.indices, weights, progress), weight

    def averaged(self) -> Any:
        """Inside, the network has the averaged weights, if there is an average."""
        return nullcontext() if self.average is None or self.finished else self.average.applied()

    def finish(self) -> None:
        """Give the network the weights that training was for."""
        if self.average is not None:
            self.average.exchange()
        if self.plan.stopping is not None and self.plan.stopping.weights is not None:
            self.network.load_state_dict(self.plan.stopping.weights)
        self.finished = True

    def resume(self) -> None:
        """Resume from the last checkpoint, if there is one."""
        checkpoints = self.plan.checkpoints
        state = None if checkpoints is None else checkpoints.last(self.plan.stage)
        if state is None:
            return
        try:
            self.put_back(state)
        except Exception as error:  # a foreign state can raise anything
            raise SaveError(
                f"checkpoint_dir must hold states of this run, got one of the {self.plan.stage} "
                f"that cannot be put back: {type(error).__name__}: {error}"
            ) from error

    def put_back(self, state: State) -> None:
        """Be where ``state_dict`` was taken."""
        self.history, self.finished = state["history"], state["finished"]
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        for generator, stored in zip(
            self.plan.source.generators(), state["generators"], strict=True
        ):
            generator.set_state(stored)

    def state_dict(self) -> State:
        """Everything that ``put_back`` needs."""
        return {
            "history": self.history,
            "finished": self.finished,
            "generators": [each.get_state() for each in self.plan.source.generators()],
            **{name: part.state_dict() for name, part in self.parts().items()},
        }

    def parts(self) -> dict[str, Any]:
        """What has a state of its own."""
        parts = {
            "network": self.network,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "average": self.average,
            "stopping": self.plan.stopping,
            "precision": self.runtime.scaling,
        }
        return {name: part for name, part in parts.items() if part is not None}


class _Totals:
    """Sums kept on the device: reading them in every step would make a GPU wait."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.seen = runtime, 0
        self.sums: dict[str, Tensor] = {}

    def add(self, scored: BatchLosses, labels: Tensor, weight: float) -> None:
        n = len(labels) if weight else 0
        self.seen += n
        self._add("loss", scored.losses[:n].detach())
        if scored.logits is not None:
            self._add("accuracy", _right(scored.logits, labels)[:n])
        if scored.adversarial_logits is not None:
            self._add("robust_accuracy", _right(scored.adversarial_logits, labels)[:n])

    def means(self) -> dict[str, float]:
        sums = [self.seen, *(total.item() for total in self.sums.values())]
        seen, *totals = self.runtime.processes.all_reduce_sum(
            torch.tensor(sums, dtype=torch.float64, device="cpu")
        ).tolist()
        if not seen:
            raise ValueError("X must hold at least one example, got an empty loader or data set")
        return {name: total / seen for name, total in zip(self.sums, totals, strict=True)}

    def _add(self, name: str, values: Tensor) -> None:
        total = values.sum()
        self.sums[name] = self.sums[name] + total if name in self.sums else total


@contextmanager
def _told_of_single_examples(batch: Batch) -> Iterator[None]:
    """Say what to do where BatchNorm is given one example to train on."""
    try:
        yield
    except ValueError as error:
        if len(batch.labels) > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "batch_size must be at least 2 for a network with BatchNorm, got a batch of one "
            "example; where a DataLoader cuts the batches, set drop_last=True in it"
        ) from error


def _counting(optimizer: Optimizer) -> AbstractContextManager[Any]:
    """Let PyTorch's optimisers count their steps on the CPU: elsewhere they wait for the count."""
    return on_cpu() if type(optimizer).__module__.startswith("torch.optim") else nullcontext()


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.detach().argmax(dim=1) == labels


def _seed(seed: int, stage: str, number: int) -> int:
    """A fresh seed for each epoch of each stage, so that no generator has to be stored.

    Its low half differs too: all that PyTorch's generator on the CPU makes use of.
    """
    digest = hashlib.sha256(f"{seed} {stage} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**63


def _finite(loss: float, network: nn.Module) -> bool:
    state = [value for value in network.state_dict().values() if isinstance(value, Tensor)]
    weights = [tensor for tensor in state if tensor.is_floating_point()]
    return math.isfinite(loss) and all(bool(tensor.isfinite().all()) for tensor in weights)
