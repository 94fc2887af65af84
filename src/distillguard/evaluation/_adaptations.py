"""What a model under evaluation says of how it was adapted for attacks.

Any module may take part: one with an attribute ``adaptation`` is named in the report, one with
``draws`` answers with the mean over so many.
"""

from math import prod
from typing import Any

from torch import nn

from .._typing import Model


def adaptations(model: Model) -> tuple[str, ...]:
    """What its modules say, the outermost first."""
    told = (getattr(part, "adaptation", None) for part in _modules(model))
    return tuple(dict.fromkeys(text for text in told if isinstance(text, str)))


def draws(model: Model) -> int | None:
    """Over how many draws its answers are means; None where they are not."""
    adapted = (part for part in _modules(model) if hasattr(part, "adaptation"))
    found: list[Any] = [getattr(part, "draws", None) for part in adapted]
    counts = [count for count in found if isinstance(count, int)]
    return prod(counts) if counts else None


def _modules(model: Model) -> list[nn.Module]:
    return list(model.modules()) if isinstance(model, nn.Module) else []
