"""Borrowing a model: whatever is done to it inside, it comes back as it was."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ._typing import Model


@contextmanager
def borrowed(model: Model, seed: int | None = None) -> Iterator[None]:
    """Put ``model`` in eval mode with frozen parameters, gradients on; restore everything.

    Modes are kept for every submodule and ``requires_grad`` for every parameter. The global
    random state is restored too, so a model that draws noise leaves no trace; with ``seed``
    it draws the same noise each time. Works under ``no_grad`` and ``inference_mode``.
    """
    module = model if isinstance(model, nn.Module) else None
    modes = [(part, part.training) for part in module.modules()] if module else []
    # A lazy parameter that has no shape yet takes one in the first forward pass, and no gradient.
    known = [p for p in module.parameters() if not is_lazy(p)] if module else []
    wanted = [(p, p.requires_grad) for p in known]
    devices = {p.device for p, _ in wanted if p.device.type == "cuda"}
    if module is None and torch.cuda.is_initialized():
        # What a function asks is not known: it may draw on any device that is in use.
        devices = {torch.device("cuda", index) for index in range(torch.cuda.device_count())}

    with isolated_random_state(devices, seed), torch.inference_mode(False), torch.enable_grad():
        try:
            if module:
                module.eval()
                for parameter, _ in wanted:
                    parameter.requires_grad_(False)
            yield
        finally:
            for part, training in modes:
                part.training = training
            for parameter, requires_grad in wanted:
                parameter.requires_grad_(requires_grad)


@contextmanager
def isolated_random_state(devices: Iterable[torch.device], seed: int | None) -> Iterator[None]:
    """Seed the global generators of the CPU and of ``devices``, and put them back afterwards."""
    devices = list(devices)
    with torch.random.fork_rng(devices=_indices(devices)):
        if seed is not None:
            reseed(devices, seed)
        yield


def reseed(devices: Iterable[torch.device], seed: int) -> None:
    """Seed the global generators of the CPU and of ``devices``, inside an isolated state."""
    torch.default_generator.manual_seed(seed)
    for index in _indices(devices):
        torch.cuda.default_generators[index].manual_seed(seed)


def _indices(devices: Iterable[torch.device]) -> list[int]:
    return [torch.cuda.current_device() if d.index is None else d.index for d in devices]


def device_of(model: Model, default: torch.device) -> torch.device:
    """Where the model's first parameter or buffer lives; ``default`` for one without any."""
    for tensor in _tensors(model):
        return tensor.device
    return default


def dtype_of(model: Model, default: torch.dtype) -> torch.dtype:
    """The floating dtype that the model computes in; ``default`` for one without parameters."""
    for tensor in _tensors(model):
        if tensor.is_floating_point():
            return tensor.dtype
    return default


def fitted_to(model: Model, inputs: Tensor) -> Tensor:
    """Inputs on the model's device and in its dtype."""
    return inputs.to(device_of(model, inputs.device), dtype_of(model, inputs.dtype))


def _tensors(model: Model) -> Iterator[torch.Tensor]:
    if isinstance(model, nn.Module):
        yield from model.parameters()
        yield from model.buffers()
