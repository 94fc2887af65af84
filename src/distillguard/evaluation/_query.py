"""Asking a model for logits, with every question counted."""

import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from .._batches import batches
from .._typing import Model
from ..attacks._checks import ModelFacts

P = ParamSpec("P")
R = TypeVar("R")


class QueryCounter(nn.Module):
    """A model that counts the examples sent through it, forwards and backwards.

    The count is taken at the model's output, so it is exact for anybody's attack.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.counts = [0, 0]
        self.takes_logarithm = False
        """Whether the model's outputs are probabilities, whose logarithms serve as logits."""
        self.facts: ModelFacts | None = None
        """What attacks have to know of the model, found out once for all of them."""
        self.observer: Callable[[Tensor, Tensor], None] | None = None
        """Told every question and its answer."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's logits."""
        self.counts[0] += len(inputs)
        logits = self.model(inputs)
        if not isinstance(logits, Tensor):
            kind = type(logits).__name__
            raise TypeError(f"model must return a torch.Tensor of logits, got {kind}")
        if self.takes_logarithm:
            # A probability of 0 becomes a logit whose softmax is 0 again.
            zero = 2 * math.log(torch.finfo(logits.dtype).tiny)
            kept = logits.clamp(min=torch.finfo(logits.dtype).tiny).log()
            logits = torch.where(logits > 0, kept, zero)
        if logits.requires_grad:
            logits.register_hook(self._went_back)
        if self.observer is not None:
            self.observer(inputs.detach(), logits.detach())
        return logits

    def _went_back(self, gradient: Tensor) -> None:
        self.counts[1] += len(gradient)

    def around(self, model: Model) -> "QueryCounter":
        """Treat another model in the same way, on the same account."""
        other = QueryCounter(model)
        other.counts, other.takes_logarithm = self.counts, self.takes_logarithm
        return other

    def spent(self) -> tuple[int, int]:
        """Return forwards and backwards since the last call, and start again at zero."""
        forwards, backwards = self.counts
        self.counts[:] = [0, 0]
        return forwards, backwards


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function ask for gradients, whatever grad mode its caller is in."""
    return torch.inference_mode(False)(torch.enable_grad()(function))


def logits_of(model: Model, inputs: Tensor, dtype: torch.dtype, batch_size: int) -> Tensor:
    """Logits of all examples, in batches, without a graph, in at least single precision."""
    # Copied, so that a model that writes into its input harms nobody.
    with torch.no_grad():
        parts = [model(batch.to(dtype, copy=True)) for batch in batches(inputs, batch_size)]
    logits = torch.cat(parts)
    return logits.float() if logits.element_size() < 4 else logits
