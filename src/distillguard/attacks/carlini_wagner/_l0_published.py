"""The L0 attack of Carlini and Wagner (2017) as published: success freezes coordinates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._geometry import per_example
from ..._typing import Distance
from .._examples import Examples
from ._published import SUCCESS, ConstrainedState, Judged, in_tanh_space

EXTRA_MARGIN = 0.01
"""Margin that f asks for beyond the confidence."""
UNCHANGED = 1e-4
"""Smaller changes do not count, in widths of the bounds."""
SHARE = 0.3
"""How many coordinates are frozen at once, relative to the square root of those changed."""
WEIGHTY = 0.01
"""No more are frozen after one whose score is higher."""


@dataclass(frozen=True)
class AllowedSet:
    """The limit of ``carlini_wagner_l0(algorithm="paper")``: the coordinates that may change."""

    norm: Distance = "l0"
    rate: float = 1e-2
    first_c: float = 1e-3
    largest_c: float = 2e6

    def loosest(self, examples: Examples) -> Tensor:
        """Allow every coordinate that may change."""
        return examples.free.expand_as(examples.inputs).contiguous()

    def gradient(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Of the L2 attack's objective, by the coordinates that may change."""
        whole = 2 * judged.delta + per_example(state.c, judged.delta) * judged.slope
        return torch.where(state.limit, whole, 0)

    def is_satisfied(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Whether f is next to nothing."""
        return judged.f < SUCCESS

    def tightened(self, judged: Judged, state: ConstrainedState) -> Tensor:
        """Freeze the coordinates whose change matters least."""
        delta, allowed = judged.delta.flatten(1), state.limit.flatten(1)
        gradient = in_tanh_space(self.gradient(judged, state), state.w, state.examples).flatten(1)
        score = (delta * gradient).abs().masked_fill(~allowed, torch.inf)
        ordered, order = score.sort(dim=1, stable=True)

        changed = (delta.abs() >= UNCHANGED).sum(dim=1, keepdim=True)
        rank = torch.arange(delta.shape[1], device=delta.device)
        frozen = (rank < SHARE * changed.sqrt()) & (ordered.roll(1, dims=1) <= WEIGHTY)
        frozen |= rank == 0
        return (allowed & ~torch.zeros_like(allowed).scatter(1, order, frozen)).view_as(state.limit)

    def exhausted(self, limit: Tensor) -> Tensor:
        """Which allow nothing."""
        return ~limit.flatten(1).any(dim=1)

    def restart_point(self, point: Tensor, inputs: Tensor, limit: Tensor) -> Tensor:
        """Start from the success, without the changes that are no longer allowed."""
        return torch.where(limit, point, inputs)
