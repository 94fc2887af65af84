"""Where and in which precision networks are trained: Lightning Fabric, set up once a fit."""

import os
import warnings

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
        with warnings.catch_warnings():
            # Fabric remarks on idle accelerators; the device was chosen by the caller.
            warnings.simplefilter("ignore")
            self.fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)  # type: ignore[arg-type]
        self.device: torch.device = self.fabric.device
        self.compile = compile

    def set_up(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Return network and optimiser as the loop uses them; the weights are shared."""
        network.to(self.device)
        module = torch.compile(network) if self.compile else network
        wrapped, optimizer = self.fabric.setup(module, optimizer)  # type: ignore[arg-type]
        return wrapped, optimizer

    def for_looking(self, network: nn.Module) -> nn.Module:
        """Return the network as prediction uses it: same device and precision, no optimiser."""
        network.to(self.device)
        return self.fabric.setup(network)


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
