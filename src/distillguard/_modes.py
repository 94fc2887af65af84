"""Borrowing a model: whatever is done to it inside, it comes back as it was."""

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ._typing import Model

_RECURRENT = ("RNN", "LSTM", "GRU")
_FABRIC = ("lightning_fabric.wrappers", "lightning.fabric.wrappers")

_lock = threading.RLock()


_forked = False


def _renew_lock() -> None:
    global _lock, _forked
    _lock, _forked = threading.RLock(), True


if hasattr(os, "register_at_fork"):
    # The thread that holds the lock does not exist in the child and would never let it go.
    os.register_at_fork(after_in_child=_renew_lock)


def one_at_a_time() -> AbstractContextManager[Any]:
    """Let one thread at a time use what the process has one of; a thread may do so within itself.

    Such are the global random generators, the modes of a model, cuDNN's switch and the filters
    of warnings.
    """
    return _lock


@contextmanager
def one_thread_after_fork() -> Iterator[None]:
    """Compute with one thread in a forked process: OpenMP's other threads stayed behind.

    A process that forks after it has used them leaves the child waiting for ever.
    """
    threads = torch.get_num_threads() if _forked else 1
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cpu_by_default() -> bool:
    """Whether tensors are made on the CPU where no device is named.

    ``torch.get_default_device`` of PyTorch 2.6 knows nothing of ``with torch.device(...)``, and
    fails after ``torch.set_default_device(None)``.
    """
    return torch.empty(0, device=None).device.type == "cpu"


def on_cpu() -> AbstractContextManager[Any]:
    """Make tensors on the CPU inside, where the caller has set another default device."""
    return nullcontext() if cpu_by_default() else torch.device("cpu")


@contextmanager
def borrowed(model: Model, seed: int | None = None, *, gradients: bool = True) -> Iterator[None]:
    """Put ``model`` in eval mode with frozen parameters, gradients on; restore everything.

    Modes are kept for every submodule and ``requires_grad`` for every parameter. The global
    random state is restored too, so a model that draws noise leaves no trace; with ``seed``
    it draws the same noise each time. Works under ``no_grad`` and ``inference_mode``. Without
    ``gradients`` there are none inside. Another thread waits until this one is through.
    """
    with isolated_random_state(_devices_of(model), seed), lent(model, gradients=gradients):
        yield


@contextmanager
def lent(model: Model, *, gradients: bool = True) -> Iterator[None]:
    """Borrow ``model`` for code that draws random numbers as ever: ``borrowed`` less those."""
    module = model if isinstance(model, nn.Module) else None
    with (
        one_at_a_time(),
        torch.inference_mode(False),
        torch.set_grad_enabled(gradients),
        nullcontext() if module is None else _still(module),
        differentiable(module) if gradients else nullcontext(),
    ):
        yield


@contextmanager
def for_training(device: torch.device) -> Iterator[None]:
    """Gradients on, and the precision one's own, whatever context the caller is in.

    Autocast remembers the weights that it has rounded until the outermost context ends: a network
    that is trained inside would be asked with those it began with.
    """
    within = torch.autocast_increment_nesting() > 1
    torch.autocast_decrement_nesting()
    rounding = torch.autocast(device.type, enabled=False, cache_enabled=False)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        rounding if within else nullcontext(),
    ):
        yield


@contextmanager
def isolated_random_state(devices: Iterable[torch.device], seed: int | None) -> Iterator[None]:
    """Seed the global generators of the CPU and of ``devices``, and put them back afterwards.

    There is one set of them in a process: another thread that wants them waits.
    """
    devices = list(devices)
    with one_at_a_time(), torch.random.fork_rng(devices=_indices(devices)):
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


def _devices_of(model: Model) -> set[torch.device]:
    """The devices besides the CPU on which a model may draw random numbers."""
    if isinstance(model, nn.Module):
        return {p.device for p in _known(model) if p.device.type == "cuda"}
    if torch.cuda.is_initialized():
        # What a function asks is not known: it may draw on any device that is in use.
        return {torch.device("cuda", index) for index in range(torch.cuda.device_count())}
    return set()


def _known(module: nn.Module) -> list[nn.Parameter]:
    """A lazy parameter takes its shape in the first forward pass, and no gradient before."""
    return [p for p in module.parameters() if not is_lazy(p)]


@contextmanager
def _still(module: nn.Module) -> Iterator[None]:
    """Eval mode, and no gradients of parameters; those of inputs pass."""
    # A module's own eval() and train() may change what wants a gradient. Weights made under
    # inference_mode are left alone: PyTorch would not let the flag be put back.
    weights = [weight for weight in _known(module) if not weight.is_inference()]
    wanted = [(weight, weight.requires_grad) for weight in weights]
    try:
        with _evaluating(module):
            for parameter, _ in wanted:
                parameter.requires_grad_(False)
            yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part that is in training mode into eval mode; afterwards it is as it was."""
    modes = [(part, _mode(part)) for part in module.modules()]
    attributes = [(part, dict(vars(part))) for part, _ in modes if hasattr(part, "__dict__")]
    statistics: list[tuple[Tensor, Tensor]] = []
    try:
        to_eval(module)
        attributes = [(part, _changed(part, values)) for part, values in attributes]
        if any(map(_mode, module.modules())):
            # It means to stay in training mode, where BatchNorm keeps what it sees.
            statistics = [(buffer, buffer.clone()) for buffer in module.buffers()]
        yield
    finally:
        for buffer, before in statistics:
            buffer.detach().copy_(before)
        # A module's own train() comes first: it may do more than set flags and attributes.
        for part, mode in modes:
            if mode is not None and mode != _mode(part):
                with suppress(Exception):
                    part.train(mode)
        for part, values in attributes:
            vars(part).update(values)
        for part, mode in modes:
            _set_mode(part, mode)


def _changed(part: nn.Module, before: dict[str, Any]) -> dict[str, Any]:
    """The attributes that are other objects by now, as they were."""
    now = vars(part)
    return {name: value for name, value in before.items() if now.get(name) is not value}


def to_eval(module: nn.Module) -> None:
    """Ask for eval mode where some part is not in it; one that refuses is set part by part.

    Programs of torch.export refuse: theirs is the mode that they were exported in.
    """
    if not any(map(_mode, module.modules())):
        return
    try:
        module.eval()
    except Exception:
        _set_mode(module, False)
        for child in module.children():
            to_eval(child)


def _mode(part: nn.Module) -> bool | None:
    """Whether a part is in training mode; None for one that has no mode: frozen TorchScript."""
    return getattr(part, "training", None)


def _set_mode(part: nn.Module, mode: bool | None) -> None:
    if mode is None:
        getattr(part, "__dict__", {}).pop("training", None)
    elif mode != _mode(part):
        with suppress(Exception):
            part.training = mode


@contextmanager
def differentiable(module: nn.Module | None) -> Iterator[None]:
    """Let gradients pass through modules in eval mode whose owners see to their own otherwise.

    cuDNN takes recurrent networks back in training mode only, and PyTorch's own kernels in
    both. What ``Fabric.setup`` returns insists on Fabric's backward, which is for training.
    """
    slow = module is not None and any(map(_refused_by_cudnn, module.modules()))
    with torch.backends.cudnn.flags(enabled=False) if slow else nullcontext(), _any_backward():
        yield


def _refused_by_cudnn(part: nn.Module) -> bool:
    # TorchScript's modules remember the name of their class.
    named = getattr(part, "original_name", None) in _RECURRENT
    if not (named or isinstance(part, nn.RNNBase)) or _mode(part):
        return False
    return any(parameter.is_cuda for parameter in part.parameters())


@contextmanager
def _any_backward() -> Iterator[None]:
    """Switch off Fabric's reminder to call its own backward, where Fabric has been imported."""
    found = [module for name in _FABRIC if (module := sys.modules.get(name)) is not None]
    known: list[Any] = [module for module in found if hasattr(module, "_in_fabric_backward")]
    before = [module._in_fabric_backward for module in known]
    try:
        for module in known:
            module._in_fabric_backward = True
        yield
    finally:
        for module, inside in zip(known, before, strict=True):
            module._in_fabric_backward = inside


def unwrapped(module: nn.Module) -> nn.Module:
    """What ``Fabric.setup`` was given, where ``module`` is what it returned."""
    wrappers = [sys.modules[name] for name in _FABRIC if name in sys.modules]
    if any(each.is_wrapped(module) for each in wrappers):
        inner: nn.Module = module.module  # type: ignore[assignment]
        return inner
    return module


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
    """Inputs on the model's device and in its dtype: a copy, which the model may write to."""
    device, dtype = device_of(model, inputs.device), dtype_of(model, inputs.dtype)
    return inputs.to(device, dtype, copy=True)


def _tensors(model: Model) -> Iterator[torch.Tensor]:
    if isinstance(model, nn.Module):
        yield from model.parameters()
        yield from model.buffers()
