"""Tests for networks, attacks and losses: whether they keep the promises that others rely on.

Each ``check_*`` is a plain function that returns nothing or raises
:class:`~distillguard.exceptions.BrokenPromiseError`, so that it serves in any test.
"""

from ._attacks import check_attack
from ._classifiers import check_classifier
from ._defenses import check_defense
from ._functions import check_loss, check_softmax
from ._models import check_model
from ._promises import BrokenPromise

__all__ = [
    "BrokenPromise",
    "check_attack",
    "check_classifier",
    "check_defense",
    "check_loss",
    "check_model",
    "check_softmax",
]
