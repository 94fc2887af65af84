"""Copies of networks, also of those that ``copy.deepcopy`` refuses."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode


class _ComputedTensors(TorchFunctionMode):
    """Copies a tensor that was computed by its values, which is all that PyTorch can copy of it.

    Pruned, weight-normed and spectral-normed layers hold such a tensor as their weight and
    compute it anew in every forward pass.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return function(*args, **(kwargs or {}))


@contextmanager
def computed_tensors_copied() -> Iterator[None]:
    """Let ``copy.deepcopy`` take networks that hold tensors with a history."""
    # TorchScript's copies of parameters would have a history otherwise.
    with torch.no_grad(), _ComputedTensors():
        yield


def copied(module: nn.Module) -> nn.Module:
    """Return a network with the same values and parts that shares nothing with ``module``."""
    with computed_tensors_copied():
        twin = copy.deepcopy(module)
    want_gradients_alike(module, twin)
    return twin


def want_gradients_alike(module: nn.Module, twin: nn.Module) -> None:
    """Set ``requires_grad`` in a copy as in the original: copies of TorchScript forget it."""
    theirs = dict(twin.named_parameters(remove_duplicate=False))
    for name, ours in module.named_parameters(remove_duplicate=False):
        if not is_lazy(ours):
            theirs[name].requires_grad_(ours.requires_grad)
