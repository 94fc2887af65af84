"""An estimator's networks: which it has, and how a saved one is built, filled and checked."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from itertools import zip_longest
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from .._copies import copied
from .._modes import dtype_of, isolated_random_state, on_cpu
from .._rejection import rejects
from ..exceptions import SaveError
from ..networks._builders import called
from ._folder import Described, Tensors


def networks_of(kind: type) -> dict[str, str]:
    """The attributes that a class declares as ``nn.Module``, each with its parameter.

    ``teacher_`` comes from the parameter ``teacher`` where there is one; every other comes from
    ``module``.
    """
    declared = [name for name, hint in get_type_hints(kind).items() if hint is nn.Module]
    parameters = kind._get_param_names()  # type: ignore[attr-defined]
    return {
        name: name.rstrip("_") if name.rstrip("_") in parameters else "module"
        for name in declared
        if name.endswith("_")
    }


def state_of(network: nn.Module) -> Tensors:
    """Return what is saved of a network."""
    state = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise SaveError(
                f"module must have a state_dict of tensors, got {type(value).__name__} as {name}"
            )
    return state


def is_channels_last(network: nn.Module) -> bool:
    """Whether convolutions lie as training may have laid them, which decides how they round."""
    return any(
        tensor.dim() == 4
        and tensor.is_contiguous(memory_format=torch.channels_last)
        and not tensor.is_contiguous()
        for tensor in network.parameters()
    )


def built(
    parameter: str, builder: Any, estimator: Any, state: Mapping[str, Tensor], attribute: str
) -> nn.Module:
    """Build a network for the weights; stopped as soon as it gets larger than they are."""
    # A fitted estimator stands for the network that predicts.
    builder = getattr(builder, "model_", builder)
    if isinstance(builder, nn.Module):
        return copied(builder)
    factory: Callable[..., Any] = estimator._default_module if builder is None else builder
    if not callable(factory):
        raise TypeError(
            f"{parameter} must be an nn.Module or a callable, got {type(factory).__name__}"
        )
    shape = estimator.input_shape_
    n_classes = len(estimator.classes_) + estimator._EXTRA_COLUMNS.get(attribute, 0)
    try:
        with isolated_random_state([], None), no_larger_than(state), on_cpu():
            network = called(parameter, factory, shape, n_classes)
    except Exception as error:
        raise SaveError(
            f"{parameter} must build the saved network for inputs of shape {shape} and "
            f"{n_classes} classes, got {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"{parameter} must return an nn.Module, got one that returns {type(network).__name__}"
        )
    return network


@contextmanager
def no_larger_than(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop a construction that outgrows the saved network by far: its sizes were made up.

    A parameter is registered before its memory is written to, so that nothing large comes to
    be. Some room is left for functions that build a part and replace it. To build on the meta
    device first would not do: a made-up depth takes as long there, and a function that looks
    at the values of weights while it builds, as orthogonal weights need, fails.
    """
    saved = sum(tensor.numel() for tensor in state.values())
    left = [1000 + 8 * len(state), 2**26 + 4 * saved]
    builder = threading.get_ident()

    def count(owner: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != builder:
            return
        left[0] -= 1
        left[1] -= 0 if isinstance(parameter, nn.UninitializedParameter) else parameter.numel()
        if min(left) < 0:
            raise SaveError(
                f"{name} of {type(owner).__name__}, of shape {tuple(parameter.shape)}, is far "
                "more than the save holds"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def fill(network: nn.Module, parameter: str, name: str, state: Mapping[str, Tensor]) -> None:
    """Put the saved values into a network of the same architecture."""
    own = network.state_dict(keep_vars=True)
    for saved, ours in zip_longest(state.items(), own.items()):
        if saved and ours and saved[0] == ours[0] and is_lazy(ours[1]):
            continue  # it takes the saved shape
        if saved is None or ours is None or _kinds(*saved) != _kinds(*ours):
            theirs, found = (Described.of(*each) if each else "none" for each in (saved, ours))
            raise SaveError(
                f"{parameter} must have the saved architecture of {name}, whose first differing "
                f"tensor is {theirs}, got {found}"
            )
    for key, tensor in own.items():
        if is_lazy(tensor):
            continue
        tensor.data = tensor.data.to(state[key].dtype)
    network.load_state_dict(dict(state))


def _kinds(name: str, tensor: Tensor) -> tuple[Any, ...]:
    """What has to agree: training in another precision changes floating dtypes."""
    exact = None if tensor.is_floating_point() else tensor.dtype
    return name, tensor.shape, exact


def width(network: nn.Module, estimator: Any) -> int:
    """How many columns the answers of an estimator's network have."""
    return len(estimator.classes_) + rejects(network)


def check_width(network: nn.Module, parameter: str, estimator: Any) -> None:
    """Refuse a network with another number of logits than classes, without computing anything."""
    n_columns = width(network, estimator)
    # A copy whose tensors have shapes alone; those that are shared stay so.
    away: dict[int, Tensor] = {
        id(p): nn.Parameter(p.detach().to("meta"), False) for p in network.parameters()
    }
    away |= {id(b): b.detach().to("meta") for b in network.buffers()}
    dtype = dtype_of(network, torch.float32)
    inputs = torch.empty(2, *estimator.input_shape_, dtype=dtype, device="meta")
    try:
        with torch.no_grad():
            found = deepcopy(network, away)(inputs).shape[1]
    except Exception:
        return  # not every network can be run on shapes alone; predict looks again
    if found != n_columns:
        extra = n_columns - len(estimator.classes_)
        raise SaveError(
            f"{parameter} must return one logit for each of the {n_columns - extra} saved classes, "
            f"got {found - extra}"
        )
