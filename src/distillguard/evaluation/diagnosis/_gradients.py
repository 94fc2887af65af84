"""Counting input gradients that nothing can follow, and finding out why they are so."""

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..._modes import dtype_of, unwrapped
from ..._typing import Model
from ..._validation import check_differentiable
from ...exceptions import NoGradientError
from ...functional import cross_entropy
from .._query import QueryCounter


def vanished_gradients(
    model: QueryCounter, inputs: Tensor, labels: Tensor, batch_size: int
) -> tuple[Tensor | None, dict[str, Any]]:
    """Where the gradient is 0 (None: there is no gradient), and four counts that tell why."""

    def lost(model: Model, dtype: torch.dtype, scale: Callable[[Tensor], Tensor]) -> Lost:
        pairs = zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
        parts = [lost_gradients(model, x.to(dtype), y, scale) for x, y in pairs]
        return Lost(*map(torch.cat, zip(*parts, strict=True)))

    dtype = dtype_of(model, inputs.dtype)
    try:
        plain = lost(model, dtype, unchanged)
        scaled = lost(model, dtype, by_range)
    except NoGradientError:
        return None, {}
    exact = None
    if isinstance(model.model, nn.Module):
        # Foreign code never promised another dtype, and may raise anything in it.
        with suppress(Exception):
            exact = lost(in_double(model, model.model), torch.float64, unchanged)
    return plain.zero, {
        "zero_gradients": int(plain.zero.sum()),
        "zero_gradients_scaled": int(scaled.zero.sum()),
        "zero_gradients_double": None if exact is None else int(exact.zero.sum()),
        "nan_gradients": int(plain.nan.sum()),
    }


class Lost(NamedTuple):
    """Which examples have nothing to follow, (n,) each."""

    zero: Tensor
    """Nothing but zeros, and NaN, which attacks take for zeros."""

    nan: Tensor
    """A NaN somewhere."""


def lost_gradients(
    model: Model, inputs: Tensor, labels: Tensor, scale: Callable[[Tensor], Tensor]
) -> Lost:
    """Look at the input gradients of a batch."""
    inputs = inputs.detach().requires_grad_()
    # A leaf of the graph may not be written into; some models do so.
    logits = model(inputs.clone())
    check_differentiable(logits)
    loss = cross_entropy(scale(logits), labels).sum()
    (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
    if gradient is None:
        raise NoGradientError
    flat = gradient.flatten(1)
    return Lost(((flat == 0) | flat.isnan()).all(dim=1), flat.isnan().any(dim=1))


def unchanged(logits: Tensor) -> Tensor:
    """Return the logits as they are."""
    return logits


def by_range(logits: Tensor) -> Tensor:
    """Logits divided by their range, which no softmax can saturate."""
    reach = (logits.amax(dim=1, keepdim=True) - logits.amin(dim=1, keepdim=True)).detach()
    return logits / torch.where(reach > 0, reach, 1)


def in_double(model: QueryCounter, inner: nn.Module) -> QueryCounter:
    """Copy the module inside into float64, still counted as the original."""
    return model.around(copy.deepcopy(unwrapped(inner)).double())
