"""The L-infinity attack of Carlini and Wagner (2017) as published: tau shrinks with success."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._geometry import lp_norm, per_example
from ..._typing import Distance
from .._examples import Examples
from ._published import SUCCESS, ConstrainedState, Judged

FIRST_TAU, LAST_TAU = 1.0, 1 / 256
"""In widths of the bounds."""
SHRINK = 0.9


@dataclass(frozen=True)
class LargestChange:
    """The limit of ``carlini_wagner_linf(algorithm="paper")``: tau, for every coordinate."""

    norm: Distance = "linf"
    rate: float = 5e-3
    first_c: float = 1e-5
    largest_c: float = 20.0

    def loosest(self, examples: Examples) -> Tensor:
        """Return the first tau."""
        return torch.full_like(examples.scale, FIRST_TAU)

    def gradient(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Of c f + the sum of what exceeds tau."""
        exceeding = judged.delta.abs() > per_example(state.limit, judged.delta)
        penalty = torch.where(exceeding, judged.delta.sign(), 0)
        return per_example(state.c, judged.delta) * judged.slope + penalty

    def is_satisfied(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Whether the objective is next to nothing."""
        tau = per_example(state.limit, judged.delta)
        excess = (judged.delta.abs() - tau).clamp(min=0).flatten(1).sum(dim=1)
        return state.c * judged.f + excess < SUCCESS * state.c

    def tightened(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Shrink tau, or the largest change if that is smaller."""
        return SHRINK * torch.minimum(state.limit, lp_norm(judged.delta, "linf"))

    def exhausted(self, limit: Tensor) -> Tensor:
        """Which are less than a step of grey."""
        return limit <= LAST_TAU

    def restart_point(self, point: Tensor, inputs: Tensor, limit: Tensor) -> Tensor:
        """Start from the success."""
        return point
