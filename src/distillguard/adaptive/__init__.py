"""Adaptive attacks: modules around a defended model that give attacks a gradient to follow.

Each is an ``nn.Module`` that answers as the model does, or as its mean over many draws does, and
that any attack or :func:`~distillguard.evaluate` takes in the model's place. A report names the
ones that were used, and counts the questions that they ask.
"""

from typing import TYPE_CHECKING

from .._lazy import lazily

# Loaded on first use: only a surrogate needs what trains networks.
_HOMES = {
    "Averaged": "_averaged",
    "GradientFrom": "_gradient_from",
    "StraightThrough": "_straight_through",
    "StraightThroughBefore": "_before",
    "StraightThroughPart": "_straight_through",
    "Surrogate": "_surrogate",
    "averaged": "_averaged",
    "distil_surrogate": "_surrogate",
    "gradient_from": "_gradient_from",
    "straight_through": "_straight_through",
}

__all__ = [
    "Averaged",
    "GradientFrom",
    "StraightThrough",
    "StraightThroughBefore",
    "StraightThroughPart",
    "Surrogate",
    "averaged",
    "distil_surrogate",
    "gradient_from",
    "straight_through",
]

if TYPE_CHECKING:
    from ._averaged import Averaged, averaged
    from ._before import StraightThroughBefore
    from ._gradient_from import GradientFrom, gradient_from
    from ._straight_through import StraightThrough, StraightThroughPart, straight_through
    from ._surrogate import Surrogate, distil_surrogate


__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
