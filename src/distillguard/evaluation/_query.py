"""Asking a model for logits, with every question counted."""

import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from .._account import Account, charged
from .._batches import batches
from .._rejection import rejects
from .._typing import Model
from .._validation import check_output
from ..attacks._checks import ModelFacts

P = ParamSpec("P")
R = TypeVar("R")


class QueryCounter(nn.Module):
    """A model that counts the examples sent through it, forwards and backwards.

    The count is taken at the model's output, so it is exact for anybody's attack. Adaptive modules
    inside it that ask more often than they are asked add what they ask.
    """

    answers_logits = True
    """Whatever a few of its answers look like: the first chunk of examples has settled it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.account = Account()
        self.n_classes = 0
        """Logits of an answer, once there was one: no batch without examples is passed on then."""
        self.takes_logarithm = False
        """Whether the model's outputs are probabilities, whose logarithms serve as logits."""
        self.facts: ModelFacts | None = None
        """What attacks have to know of the model, found out once for all of them."""
        self.observer: Callable[[Tensor, Tensor], None] | None = None
        """Told every question and its answer."""

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection."""
        return rejects(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's logits."""
        if not len(inputs) and self.n_classes:
            return inputs.new_zeros(0, self.n_classes) + inputs.sum()
        self.account.forwards += len(inputs)
        with charged(self.account, counted=True):
            logits = self.model(inputs)
        check_output(logits, len(inputs))
        self.n_classes = logits.shape[1]
        if self.takes_logarithm:
            logits = logarithm(logits)
        if logits.requires_grad:
            logits.register_hook(self._went_back)
        if self.observer is not None:
            self.observer(inputs.detach(), logits.detach())
        return logits

    def _went_back(self, gradient: Tensor) -> None:
        self.account.backwards += len(gradient)

    def around(self, model: Model) -> "QueryCounter":
        """Treat another model in the same way, on the same account."""
        other = QueryCounter(model)
        other.account, other.takes_logarithm = self.account, self.takes_logarithm
        return other


def logarithm(probabilities: Tensor) -> Tensor:
    """Logits whose softmax the probabilities are; one of 0 is 0 again."""
    tiny = torch.finfo(probabilities.dtype).tiny
    kept = probabilities.clamp(min=tiny).log()
    return torch.where(probabilities > 0, kept, 2 * math.log(tiny))


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function ask for gradients, whatever grad mode its caller is in."""
    return torch.inference_mode(False)(torch.enable_grad()(function))


def logits_of(model: Model, inputs: Tensor, dtype: torch.dtype, batch_size: int) -> Tensor:
    """Logits of all examples, in batches, without a graph, in at least single precision.

    The model is never asked about no examples: the answer is then of shape (0, 1).
    """
    if not len(inputs):
        return inputs.new_zeros(0, 1, dtype=torch.promote_types(dtype, torch.float32))
    asked = list(batches(inputs, batch_size))
    # Copied, so that a model that writes into its input harms nobody.
    with torch.no_grad():
        parts = [model(batch.to(dtype, copy=True)) for batch in asked]
    for batch, part in zip(asked, parts, strict=True):
        check_output(part, len(batch))
    logits = torch.cat(parts).detach()  # of models that turn gradients on
    return logits.float() if logits.element_size() < 4 else logits
