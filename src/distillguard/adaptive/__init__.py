"""Adaptive attacks: modules around a defended model that give attacks a gradient to follow.

Each is an ``nn.Module`` that answers as the model does, or as its mean over many draws does, and
that any attack or :func:`~distillguard.evaluate` takes in the model's place. A report names the
ones that were used, and counts the questions that they ask.
"""

from ._averaged import Averaged, averaged
from ._before import StraightThroughBefore
from ._gradient_from import GradientFrom, gradient_from
from ._straight_through import StraightThrough, StraightThroughPart, straight_through
from ._surrogate import Surrogate, distil_surrogate

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
