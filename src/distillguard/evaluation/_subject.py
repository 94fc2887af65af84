"""What is evaluated: the logits of a model or of an estimator's student, every call counted."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._typing import Model


class Subject(NamedTuple):
    """A model under evaluation."""

    model: Model
    classes: Any | None
    name: str


def subject_of(model: Any) -> Subject:
    """Take the logits out of a fitted estimator; a model or callable is taken as it is."""
    for attribute in ("student_", "network_"):
        if hasattr(model, attribute):
            network = getattr(model, attribute)
            return Subject(network, getattr(model, "classes_", None), type(model).__name__)
    if hasattr(model, "fit") and not isinstance(model, nn.Module):
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(f"model must be fitted before it is evaluated, got {model!r}")
    if not callable(model):
        raise TypeError(
            "model must be a module, a callable from inputs to logits or a fitted estimator, "
            f"got {type(model).__name__}"
        )
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "")
    return Subject(model, None, name or type(model).__name__)


class CountedModel(nn.Module):
    """A model that counts the examples sent through it, forwards and backwards.

    The count is taken at the model's output, so it is exact for anybody's attack.
    """

    def __init__(self, model: Model, counts: list[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.counts = [0, 0] if counts is None else counts

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's logits."""
        self.counts[0] += len(inputs)
        logits = self.model(inputs)
        if isinstance(logits, Tensor) and logits.requires_grad:
            logits.register_hook(self._went_back)
        return logits

    def _went_back(self, gradient: Tensor) -> None:
        self.counts[1] += len(gradient)

    def spent(self) -> tuple[int, int]:
        """Return forwards and backwards since the last call, and start again at zero."""
        forwards, backwards = self.counts
        self.counts[:] = [0, 0]
        return forwards, backwards


def logits_of(model: Model, inputs: Tensor, dtype: torch.dtype, batch_size: int) -> Tensor:
    """Logits of all examples, in batches, without a graph, in at least single precision."""
    with torch.no_grad():
        parts = [model(batch.to(dtype)) for batch in inputs.split(batch_size)]
    logits = torch.cat(parts)
    return logits.float() if logits.element_size() < 4 else logits
