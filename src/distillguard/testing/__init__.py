"""Checks of what networks, attacks, defences, estimators and losses must do.

Each ``check_*`` is a plain function that returns nothing or raises
:class:`~distillguard.exceptions.BrokenPromiseError`, so it can be used in any test.
"""

from ._attacks import check_attack
from ._classifiers import check_classifier
from ._defenses import check_defense
from ._functions import check_loss, check_softmax
from ._models import check_model
from ._promises import BrokenPromise
from ._pytest import parametrize_with_promises, promises

__all__ = [
    "BrokenPromise",
    "check_attack",
    "check_classifier",
    "check_defense",
    "check_loss",
    "check_model",
    "check_softmax",
    "parametrize_with_promises",
    "promises",
]


def __dir__() -> list[str]:
    return __all__
