"""Where and in which precision networks are trained: Lightning Fabric, set up once a fit."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from .._validation import check_choice

# Importing Fabric sets this variable, which makes each optimiser step on a machine without a GPU
# look for its driver again (0.3 ms); the caller's environment stays the caller's.
_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
_before = os.environ.get(_NVML)
from lightning_fabric import Fabric  # noqa: E402

if _before is None:
    os.environ.pop(_NVML, None)

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true")


class Runtime:
    """A device and a precision; hides that Fabric wraps what it is given."""

    def __init__(self, device: str, precision: str, compile: bool = False) -> None:
        check_choice("precision", precision, PRECISIONS)
        accelerator, devices = _placed(device)
        with _quiet():
            self.fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)  # type: ignore[arg-type]
        self.device: torch.device = self.fabric.device
        self.compile = compile

    def set_up(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return network and optimiser as the loop uses them; the weights are shared."""
        network.to(self.device).to(memory_format=_layout(network))
        module = torch.compile(network) if self.compile else network
        wrapped, optimizer = self.fabric.setup(module, optimizer)  # type: ignore[arg-type]
        return wrapped, optimizer

    def for_looking(self, network: nn.Module) -> nn.Module:
        """Return the network as prediction uses it: same device and precision, no optimiser."""
        network.to(self.device)
        return self.fabric.setup(network)


@contextmanager
def _quiet() -> Iterator[None]:
    """Fabric remarks on idle accelerators and on the precision; the caller chose both."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _layout(network: nn.Module) -> torch.memory_format:
    """Channels last for networks of 2-D convolutions, which are up to a third faster so."""
    axes = {parameter.dim() for parameter in network.parameters()}
    return torch.channels_last if 4 in axes and 5 not in axes else torch.preserve_format


def _placed(device: str) -> tuple[str, int | list[int]]:
    """Fabric's words for a torch device: ``"auto"``, ``"cpu"``, ``"cuda:1"``, ``"mps"``."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto' or a torch device, got {device!r}") from error
    if parsed.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be available on this machine, got {device!r} without CUDA")
    return parsed.type, 1 if parsed.index is None or parsed.type == "cpu" else [parsed.index]
