"""Counting input gradients that nothing can follow, and finding out why they are so."""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._copies import copied
from ..._geometry import inside, per_example
from ..._modes import dtype_of, unwrapped
from ..._ruled_out import spread
from ..._typing import Model
from ..._validation import check_differentiable
from ...attacks._checks import VISIBLE, slopes
from ...exceptions import NoGradientError
from ...functional import cross_entropy
from .._query import QueryCounter
from ._observations import Observations
from ._probe import Probe, count


def gradients(probe: Probe, chosen: Tensor) -> Observations:
    """Where there is no gradient of the cross-entropy, and what would bring it back."""
    model, dtype = probe.run.model, dtype_of(probe.run.model, probe.inputs.dtype)
    # A hair inside the bounds, where a clamp inside the model hides nothing.
    points = inside(probe.inputs, *probe.threat.box(probe.inputs), dtype)[chosen]
    labels, batch_size = probe.labels[chosen], probe.run.batch_size

    def lost(
        model: Model, rows: Tensor, dtype: torch.dtype, scale: Callable[[Tensor], Tensor]
    ) -> Lost:
        pairs = zip(points[rows].split(batch_size), labels[rows].split(batch_size), strict=True)
        parts = [lost_gradients(model, x.to(dtype), y, scale) for x, y in pairs]
        return Lost(*map(torch.cat, zip(*parts, strict=True)))

    try:
        plain = lost(model, torch.ones_like(labels, dtype=torch.bool), dtype, unchanged)
    except NoGradientError:
        return Observations(differentiable=False)
    flat = plain.zero
    probe.flat[chosen] = flat
    scaled: int | None = 0
    exact: int | None = 0
    if bool(flat.any()):
        scaled, exact = count(lost(model, flat, dtype, by_range).zero), None
        if isinstance(model.model, nn.Module):
            # Foreign code never promised another dtype, and may raise anything in it.
            with suppress(Exception):
                double = in_double(model, model.model)
                exact = count(lost(double, flat, torch.float64, unchanged).zero)
    return Observations(
        differentiable=True,
        zero_gradients=count(flat),
        zero_gradients_scaled=scaled,
        zero_gradients_double=exact,
        nan_gradients=count(plain.nan),
    )


def at_bounds(probe: Probe, chosen: Tensor) -> Observations:
    """Which coordinates' gradients are lost at a bound, where attacks found that some are."""
    facts = probe.run.model.facts
    if facts is None or facts.hair is None:
        return Observations(at_bounds=0, lost_at_bounds=0)
    points = probe.inputs[chosen]
    low, high = (bound[chosen] for bound in probe.threat.box(probe.inputs))
    dtype = dtype_of(probe.run.model, points.dtype)
    inner = slopes(probe.run.model, inside(points, low, high, facts.hair).to(dtype))
    outer = slopes(probe.run.model, points.to(dtype))
    size = inner.nan_to_num(0, 0, 0).abs()
    visible = size > VISIBLE * per_example(size.flatten(1).amax(dim=1), size)
    shown = visible & (low < high) & ((points <= low) | (points >= high))
    return Observations(
        at_bounds=count(shown),
        lost_at_bounds=count(shown & ((outer == 0) | ~outer.isfinite())),
    )


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
    reach = spread(logits)
    return logits / torch.where(reach > 0, reach, 1)


def in_double(model: QueryCounter, inner: nn.Module) -> QueryCounter:
    """Copy the module inside into float64, still counted as the original."""
    return model.around(copied(unwrapped(inner)).double())
