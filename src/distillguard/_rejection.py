"""Models that may refuse to answer: which do, and what fools them.

A model with a true attribute ``rejects`` says that its last column is no class but the refusal to
name one. Attacks and verdicts see its answers with that column folded into the true class, and
know of nothing else: what is answered rightly or refused withstands, and only another class fools.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .functional import merge_rejection


def rejects(model: Any) -> bool:
    """Whether the last column of a model's answers is rejection.

    A Sequential is what its last module is; other wrappers have to say.
    """
    declared = getattr(model, "rejects", None)
    if isinstance(declared, bool):
        return declared
    return isinstance(model, nn.Sequential) and len(model) > 0 and rejects(model[-1])


def n_classes_of(model: Any, logits: Tensor) -> int:
    """How many classes the columns of a model's answer stand for."""
    return logits.shape[1] - rejects(model)


def refused(model: Any, logits: Tensor) -> Tensor:
    """Which answers are refusals to name a class: (n,) bool."""
    winners = logits.argmax(dim=1)
    return winners == logits.shape[1] - 1 if rejects(model) else torch.zeros_like(winners).bool()


def opposed(model: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """Answers as an adversary sees them: with rejection, if there is one, in the true class."""
    return merge_rejection(logits, labels) if rejects(model) else logits
