"""Where, in which precision and in how many processes networks are trained: Lightning Fabric."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from .._data._batch import Batch
from .._modes import borrowed, fitted_to
from .._processes import Processes, joined
from .._validation import check_choice
from ._asked import Asked
from ._layout import stands_channels_last, wants_channels_last

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# What processors multiply bfloat16 with: x86's AVX-512, AMX and AVX10.2, and ARM's.
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true")


class Runtime:
    """A device, a precision and the processes; hides that Fabric wraps what it is given."""

    def __init__(self, device: str, precision: str, compile: bool = False) -> None:
        check_choice("precision", precision, PRECISIONS)
        self.processes = joined()
        accelerator, devices = _placed(device, self.processes)
        from ._fabric import launched  # here: Fabric and torch._dynamo take a second to import

        with _quiet():
            # Fabric would round what float64 networks return to float32.
            passed = "32-true" if precision == "64-true" else precision
            self.fabric = launched(accelerator, devices, passed, self.processes)
        self.device: torch.device = self.fabric.device
        self.compile, self.double = compile, precision == "64-true"
        if precision.startswith("bf16") and self.device.type == "cpu" and not native_bfloat16():
            warnings.warn(
                "this processor has no bfloat16 instructions and emulates them: "
                f"precision={precision!r} trains more slowly than '32-true'",
                UserWarning,
                stacklevel=2,
            )

    @property
    def cuda(self) -> list[torch.device]:
        """The devices whose random generators training uses."""
        return [self.device] if self.device.type == "cuda" else []

    def set_up(
        self, network: nn.Module, optimizer: Optimizer, inputs: Tensor, name: str = "module"
    ) -> tuple[nn.Module, Optimizer]:
        """Return network and optimiser as the loop uses them; the weights are shared.

        ``inputs`` are some to try the network with, and ``name`` is what messages call it.
        """
        network.to(self.device)
        if self.double:
            network.double()
        if wants_channels_last(network):
            trouble = torch.tensor(not stands_channels_last(network, inputs), device="cpu").long()
            if self.processes.all_reduce_sum(trouble) == 0:
                network.to(memory_format=torch.channels_last)
        n_classes = self.infer(network, inputs).shape[1]
        module: Any = torch.compile(network) if self.compile else network
        asked = Asked(module, n_classes, name)
        self.unwrapped: nn.Module = _Unwrapped(asked, self.fabric)
        with _quiet():
            wrapped, optimizer = self.fabric.setup(asked, optimizer)
        return wrapped, optimizer

    def infer(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Logits of an unwrapped network in this precision, without gradients, float32 at least."""
        with borrowed(network, gradients=False):
            return self.forward(network, inputs)

    def forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Logits of an unwrapped network in this precision, with gradients to the inputs."""
        with self.fabric.autocast():
            logits: Tensor = network(fitted_to(network, inputs))
        # A copy: where the network writes its answers is its own affair.
        return logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)

    def shard(self, batch: Batch, divided: bool) -> tuple[Batch, float]:
        """Return this process's part of a batch and the weight of its examples in the loss.

        Gradients are averaged over the processes: with these weights the average is the gradient
        of the mean over the whole batch, whatever the sizes of the parts. ``divided`` says that
        the processes read different batches already.
        """
        rank, count = self.processes.rank, self.processes.count
        n = len(batch.labels)
        if count == 1 or divided:
            return batch, 1 / n
        if rank >= n:  # nothing left for this process: it looks at one example without weight
            return _rows(batch, torch.zeros(1, dtype=torch.int64, device="cpu")), 0.0
        return _rows(batch, torch.arange(rank, n, count, device="cpu")), count / n

    def clip(self, network: nn.Module, optimizer: Optimizer, norm: float) -> None:
        """Scale the gradients down to a global l2 norm, where they are larger."""
        self.fabric.clip_gradients(network, optimizer, max_norm=norm, error_if_nonfinite=False)

    @property
    def scaling(self) -> Any:
        """What scales the loss in 16-bit floats and remembers how; None in other precisions."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def same_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers, such as BatchNorm's statistics."""
        if self.processes.count > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)


def native_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, as far as PyTorch knows."""
    ask = getattr(torch.cpu, "get_capabilities", dict)  # PyTorch 2.12 and later
    known = [bool(value) for name, value in ask().items() if name in _BFLOAT16]
    return any(known) or not known


def _rows(batch: Batch, rows: Tensor) -> Batch:
    indices = None if batch.indices is None else batch.indices[rows]
    weights = None if batch.weights is None else batch.weights[rows]
    return Batch(batch.inputs[rows], batch.labels[rows], indices, weights, batch.progress)


class _Unwrapped(nn.Module):
    """A network in training without its wrappers: gradients of it are nobody else's business.

    Fabric counts backward passes and DDP exchanges gradients in each; an attack's passes, which
    only the inputs take part in, are not theirs to see.
    """

    def __init__(self, module: nn.Module, fabric: "Fabric") -> None:
        super().__init__()
        self.module, self.fabric = module, fabric

    def forward(self, inputs: Tensor) -> Tensor:
        with self.fabric.autocast():
            logits: Tensor = self.module(inputs)
        return logits if logits.element_size() >= 4 else logits.float()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Fabric's log and warnings on devices, precision and renamed functions."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _placed(device: str, processes: Processes) -> tuple[str, int | list[int]]:
    """Fabric's words for a torch device: ``"auto"``, ``"cpu"``, ``"cuda:1"``, ``"mps"``."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto' or a torch device, got {device!r}") from error
    if parsed.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be available on this machine, got {device!r} without CUDA")
    if processes.count > 1:
        if parsed.index is not None:
            raise ValueError(f"device must have no number in several processes, got {device!r}")
        return parsed.type, int(os.environ.get("LOCAL_WORLD_SIZE", processes.count))
    return parsed.type, 1 if parsed.index is None or parsed.type == "cpu" else [parsed.index]
