"""The last layer, trained in units of the temperature.

Softmax at temperature T needs logits T times larger than at 1, and plain training from the
usual initial weights has to walk that far with gradients 1/T the size. If the last layer is
written as T times the weights that are trained, then z / T starts and moves just as z does at
T = 1, whatever the optimiser; see docs/adr/0009.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._modes import borrowed, fitted_to

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Times(nn.Module):
    """A weight as a constant times what is trained."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, trained: Tensor) -> Tensor:
        return self.factor * trained

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.factor


def multiply_head(network: nn.Module, inputs: Tensor, factor: float) -> None:
    """Multiply the last layer's weights, and with them the logits; nothing if there is none."""
    head = last_layer(network, inputs)
    if head is not None:
        with torch.no_grad():
            for name in _weights(head):
                getattr(head, name).mul_(factor)


@contextmanager
def head_in_units(network: nn.Module, inputs: Tensor, unit: float) -> Iterator[None]:
    """Train the last layer's weights divided by ``unit``; afterwards it is a plain layer again.

    The network computes the same before, inside and after; only what an optimiser's step means
    to the last layer changes. Nothing happens where no last layer is found.
    """
    head = last_layer(network, inputs)
    if head is None or unit == 1:
        yield
        return
    for name in _weights(head):
        parametrize.register_parametrization(head, name, _Times(unit))
    try:
        yield
    finally:
        for name in _weights(head):
            parametrize.remove_parametrizations(head, name, leave_parametrized=True)


def last_layer(network: nn.Module, inputs: Tensor) -> nn.Module | None:
    """Find the linear module whose output is the network's, by watching one forward pass."""
    outputs: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[module] = output

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, _LINEAR)]
    try:
        with borrowed(network, gradients=False):
            logits = network(fitted_to(network, inputs))
    finally:
        for hook in hooks:
            hook.remove()

    found = [
        module
        for module, output in outputs.items()
        if output.numel() == logits.numel()
        and bool((output.reshape(logits.shape) == logits).all())
        and isinstance(module._parameters.get("weight"), nn.Parameter)  # not a computed one
        and not _shared(network, module)
    ]
    return found[-1] if found else None


def _weights(layer: nn.Module) -> list[str]:
    return [name for name in ("weight", "bias") if getattr(layer, name) is not None]


def _shared(network: nn.Module, layer: nn.Module) -> bool:
    """Whether another module uses one of the layer's parameters (tied weights)."""
    own = {id(p) for p in layer.parameters()}
    others = (m for m in network.modules() if m is not layer)
    return any(id(p) in own for m in others for p in m.parameters(recurse=False))
