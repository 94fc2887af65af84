"""What a network says of a batch, checked."""

import torch
from torch import Tensor, nn

from .._modes import borrowed, fitted_to
from .._validation import check_logits


def logits_of(network: nn.Module, inputs: Tensor, name: str = "module") -> Tensor:
    """Logits of one batch on the CPU, in float32 at least; the network is as it was."""
    with borrowed(network, gradients=False):
        return batch_logits(network, inputs, name)


def batch_logits(network: nn.Module, inputs: Tensor, name: str = "module") -> Tensor:
    """The same of a network that is borrowed already, in memory that it has no hold of."""
    logits = network(fitted_to(network, inputs))
    check_logits(logits, len(inputs), name)
    return logits.to("cpu", torch.promote_types(logits.dtype, torch.float32), copy=True)


def filled(inputs: Tensor, size: int) -> Tensor:
    """Inputs with zeros below, up to ``size`` rows."""
    missing = max(0, size - len(inputs))
    return torch.cat([inputs, inputs.new_zeros(missing, *inputs.shape[1:])]) if missing else inputs
