"""The head of a network, trained in units of the temperature.

Softmax at temperature T needs logits T times larger than at 1, and plain training from the
usual initial weights has to walk that far with gradients 1/T the size. If the logits are
written as T times what is trained, then z / T starts and moves just as z does at T = 1,
whatever the optimiser. The factor goes into the weights of the head where they can carry it,
and around the network otherwise; see docs/adr/0021.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from .._modes import borrowed, fitted_to
from ..networks import Scaled

# Factors that a head is tried with. The large one finds out what only looks linear near 0.
_TRIED = (1.5, 1024.0)
# How many layers with weights, counted from the end, are searched for the head.
_DEPTH = 16


class _Times(nn.Module):
    """A weight as a constant times what is trained."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, trained: Tensor) -> Tensor:
        return self.factor * trained

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.factor


def multiply_logits(
    network: nn.Module, inputs: Tensor, factor: float, name: str = "module"
) -> nn.Module:
    """Multiply the logits, up to a shift of all of an example; return the network that does so.

    That is the network itself with other weights in its head, or else one around it, with a
    warning.
    """
    if factor == 1:
        return network
    head = find_head(network, inputs)
    if head is None:
        warnings.warn(
            f"temperature={factor:g} has no place in the weights of {name}: scaling those of its "
            f"last layer, {_last_layer(network, inputs)}, does not scale the logits; what is "
            f"trained is networks.Scaled({name}, {factor:g}), with the network inside",
            UserWarning,
            stacklevel=2,
        )
        return Scaled(network, factor)
    with torch.no_grad():
        for owner, weight in _weights(head):
            getattr(owner, weight).mul_(factor)
    return network


@contextmanager
def scaled_head(network: nn.Module, inputs: Tensor, unit: float) -> Iterator[None]:
    """Train the head's weights divided by ``unit``; afterwards it is a plain layer again.

    The network computes the same before, inside and after; only what an optimiser's step means
    to the head changes. Nothing happens without a head: the factor is around the network then.
    """
    if unit == 1:
        yield
        return
    head = find_head(network, inputs)
    weights = [] if head is None else _weights(head)
    for owner, name in weights:
        parametrize.register_parametrization(owner, name, _Times(unit))
    try:
        yield
    finally:
        for owner, name in weights:
            parametrize.remove_parametrizations(owner, name, leave_parametrized=True)


def find_head(network: nn.Module, inputs: Tensor) -> nn.Module | None:
    """Find the last module with weights that multiply the logits when they are multiplied.

    It is found by trying, so that it does not matter what kind of layer it is, nor what follows:
    pooling, a constant factor, a logarithm of the softmax. The network comes back as it was.
    """
    with _no_zeros(network):
        logits = _ask(network, inputs)
        for head in _candidates(network, inputs)[:_DEPTH]:
            if not _shared(network, head) and all(
                _multiplies(network, inputs, head, logits, factor) for factor in _TRIED
            ):
                return head
    return None


def _multiplies(
    network: nn.Module, inputs: Tensor, head: nn.Module, logits: Tensor, factor: float
) -> bool:
    """Whether the weights times a factor give the logits times that factor, but for a shift."""
    weights = [getattr(owner, name) for owner, name in _weights(head)]
    before = [weight.detach().clone() for weight in weights]
    try:
        for weight in weights:
            weight.mul_(factor)
        found = _ask(network, inputs)
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
    wanted = factor * logits
    slack = max(1e-3, 8 * torch.finfo(logits.dtype).eps)
    return bool(0 < wanted.abs().max() < torch.inf) and bool(
        (found - wanted).abs().max() <= slack * wanted.abs().max()
    )


def _ask(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits less their mean, with the same noise each time."""
    with borrowed(network, seed=0, gradients=False):
        logits: Tensor = network(fitted_to(network, inputs)).clone()
    return logits - logits.mean(dim=1, keepdim=True)


def _candidates(network: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """Modules with weights of their own, the one used last first."""
    called: list[nn.Module] = []

    def note(module: nn.Module, *_: object) -> None:
        called.append(module)

    inside = {
        part
        for module in network.modules()
        if parametrize.is_parametrized(module)
        for part in module.parametrizations.modules()  # type: ignore[union-attr]
    }
    layers = [
        module
        for module in network.modules()
        if module not in inside
        and not isinstance(module, torch.jit.ScriptModule)
        and _weights(module)
    ]
    hooks = [module.register_forward_hook(note) for module in layers]
    try:
        _ask(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    # Functions use some without calling them; those that follow the last one called come last.
    later = layers[layers.index(called[-1]) + 1 :] if called else []
    unused = [layer for layer in later if layer not in called]
    return list(dict.fromkeys([*reversed(unused), *reversed(called), *reversed(layers)]))


def _weights(layer: nn.Module) -> list[tuple[nn.Module, str]]:
    """A layer's own parameters, with those that a parametrization computes its weights from."""
    owners = [layer]
    if parametrize.is_parametrized(layer):
        owners += layer.parametrizations.modules()  # type: ignore[union-attr]
    return [
        (owner, name)
        for owner in owners
        for name, parameter in owner._parameters.items()
        if parameter is not None and _known(parameter)
    ]


def _shared(network: nn.Module, layer: nn.Module) -> bool:
    """Whether another module uses one of the layer's parameters (tied weights)."""
    own = {id(owner._parameters[name]) for owner, name in _weights(layer)}
    owners = {owner for owner, _ in _weights(layer)}
    others = (module for module in network.modules() if module not in owners)
    return any(id(p) in own for m in others for p in m.parameters(recurse=False))


@contextmanager
def _no_zeros(network: nn.Module) -> Iterator[None]:
    """Fill what begins as zeros, such as biases and BatchNorm's means, to see what it does.

    No gradients are recorded meanwhile.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = filter(_known, chain(network.parameters(), network.buffers()))
    zeros = [tensor for tensor in tensors if not tensor.detach().any()]
    before = [tensor.detach().clone() for tensor in zeros]
    with torch.no_grad():
        try:
            for tensor in zeros:
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator, device="cpu"))
            yield
        finally:
            for tensor, value in zip(zeros, before, strict=True):
                tensor.copy_(value)


def _known(tensor: Tensor) -> bool:
    return not is_lazy(tensor) and tensor.is_floating_point()


def _last_layer(network: nn.Module, inputs: Tensor) -> str:
    """The path and the kind of the last layer with weights."""
    names = {module: path for path, module in network.named_modules()}
    layer = next(iter(_candidates(network, inputs)), network)
    return f"{names[layer] or 'the network itself'} ({type(layer).__name__})"
