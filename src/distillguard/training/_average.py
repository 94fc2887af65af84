"""The average of the weights over training (Polyak; Izmailov 2018), by exponential decay."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Average:
    r"""An exponential moving average of a network's parameters; buffers are copied.

    The decay of update number :math:`d` is :math:`\min(\tau, (1 + d) / (10 + d))`, so that the
    first, bad weights are soon forgotten. BatchNorm statistics are those of the live network, as
    in Gowal et al. 2021 and Bartoldson et al. 2024.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay, self.updates = network, decay, 0
        self.weights = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the live weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.weights, list(self.network.parameters()), 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network compute with the average; afterwards it has its own weights again."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the values of the average and of the network."""
        for parameter, average in zip(self.network.parameters(), self.weights, strict=True):
            live = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(live)

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` puts back."""
        return {"updates": self.updates, "weights": self.weights}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a stored average."""
        stored, self.updates = state["weights"], state["updates"]
        for average, value in zip(self.weights, stored, strict=True):
            average.copy_(value)
