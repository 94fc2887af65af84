"""Counting input gradients that are exactly zero, and finding out why they are."""

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from .._modes import dtype_of
from .._typing import Model
from .._validation import check_differentiable
from ..exceptions import NoGradientError
from ..functional import cross_entropy
from ._asking import CountedModel


def vanished_gradients(
    model: CountedModel, inputs: Tensor, labels: Tensor, batch_size: int
) -> tuple[Tensor | None, dict[str, Any]]:
    """Where the gradient is 0 (None: there is no gradient), and three counts that tell why."""

    def zero(model: Model, dtype: torch.dtype, scale: Callable[[Tensor], Tensor]) -> Tensor:
        pairs = zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([vanished(model, x.to(dtype), y, scale) for x, y in pairs])

    dtype = dtype_of(model, inputs.dtype)
    try:
        plain = zero(model, dtype, unchanged)
        scaled = zero(model, dtype, by_range)
    except NoGradientError:
        return None, {}
    exact = None
    if isinstance(model.model, nn.Module):
        # Foreign code never promised another dtype, and may raise anything in it.
        with suppress(Exception):
            exact = zero(in_double(model, model.model), torch.float64, unchanged)
    return plain, {
        "zero_gradients": int(plain.sum()),
        "zero_gradients_scaled": int(scaled.sum()),
        "zero_gradients_double": None if exact is None else int(exact.sum()),
    }


def vanished(
    model: Model, inputs: Tensor, labels: Tensor, scale: Callable[[Tensor], Tensor]
) -> Tensor:
    """Which examples have an input gradient of exactly 0."""
    inputs = inputs.detach().requires_grad_()
    logits = model(inputs)
    check_differentiable(logits)
    loss = cross_entropy(scale(logits), labels).sum()
    (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
    if gradient is None:
        raise NoGradientError
    return (gradient.flatten(1) == 0).all(dim=1)


def unchanged(logits: Tensor) -> Tensor:
    """Return the logits as they are."""
    return logits


def by_range(logits: Tensor) -> Tensor:
    """Logits divided by their range, which no softmax can saturate."""
    reach = (logits.amax(dim=1, keepdim=True) - logits.amin(dim=1, keepdim=True)).detach()
    return logits / torch.where(reach > 0, reach, 1)


def in_double(model: CountedModel, inner: nn.Module) -> CountedModel:
    """Copy the module inside into float64, still counted as the original."""
    return model.around(copy.deepcopy(inner).double())
