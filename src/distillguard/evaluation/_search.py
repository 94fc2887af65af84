"""The model that attacks search on: the model itself, or a faster form of it."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._rejection import rejects
from .._typing import Model
from .._validation import check_choice

Precision = Literal["bf16-mixed"]
PRECISIONS: tuple[Precision | None, ...] = (None, "bf16-mixed")


class Autocast(nn.Module):
    """A model whose matrix products and convolutions run in bfloat16."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection, as in the model inside."""
        return rejects(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, in the dtype in which they came out."""
        with torch.autocast(inputs.device.type, torch.bfloat16):
            logits: Tensor = self.model(inputs)
        return logits


def check_search(precision: Any, compiled: Any) -> None:
    """Refuse a precision or a ``compile`` that mean nothing."""
    check_choice("precision", precision, PRECISIONS)
    if not isinstance(compiled, bool):
        raise TypeError(f"compile must be True or False, got {compiled!r}")


def searched(model: Model, precision: Precision | None, compiled: bool) -> Model:
    """Return the form of the model that attacks search on, with the same parameters."""
    if compiled:
        # Examples leave as they fall, so that batches come in every size.
        model = torch.compile(model, dynamic=True)
    return model if precision is None else Autocast(model)
