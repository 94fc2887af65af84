"""The memory layout that a network is trained in: channels last where it stands it."""

import torch
from torch import Tensor, nn

from .._copies import copied
from .._modes import fitted_to, isolated_random_state
from .._ruled_out import magnitude
from .._validation import parts_of


def wants_channels_last(network: nn.Module) -> bool:
    """Whether it is built of 2-D convolutions, which are up to a third faster so."""
    axes = {parameter.dim() for parameter in network.parameters()}
    return 4 in axes and 5 not in axes


def stands_channels_last(network: nn.Module, inputs: Tensor) -> bool:
    """Whether a copy of the network computes the same with its convolutions in that layout.

    It is tried with two examples, forward and backward, in both modes: ``view``, ``as_strided``
    and ``is_contiguous`` inside a network ask how numbers lie in memory.
    """
    inputs = torch.cat([inputs, inputs])[:2]
    devices = {p.device for p in network.parameters() if p.is_cuda}
    found = []
    try:
        for layout in (torch.preserve_format, torch.channels_last):
            with isolated_random_state(devices, 0), torch.enable_grad():
                found.append(_logits(copied(network).to(memory_format=layout), inputs))
    except Exception:  # whatever a network raises: in its own layout it will raise it again
        return False
    expected, turned = found
    return bool((turned - expected).abs().max() <= 0.01 * magnitude(expected).max())


def _logits(network: nn.Module, inputs: Tensor) -> Tensor:
    """What the network says in eval mode, after it has been through training mode too."""
    logits = _there_and_back(network.eval(), inputs)
    _there_and_back(network.train(), inputs)
    return logits


def _there_and_back(network: nn.Module, inputs: Tensor) -> Tensor:
    asked = fitted_to(network, inputs).requires_grad_()
    output = network(asked.clone())
    parts = [output] if isinstance(output, Tensor) else parts_of(output).values()
    logits: Tensor = next(part for part in parts if isinstance(part, Tensor))
    logits.square().sum().backward()
    return logits.detach().clone().float()
