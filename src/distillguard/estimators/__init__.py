"""Classifiers in scikit-learn's manner, trained by distillation, and their baseline."""

from ._adversarial import AdversarialTrainer
from ._defensive import DefensiveDistiller
from ._extended import ExtendedDistiller
from ._robust import RobustDistiller
from ._undefended import UndefendedClassifier

__all__ = [
    "AdversarialTrainer",
    "DefensiveDistiller",
    "ExtendedDistiller",
    "RobustDistiller",
    "UndefendedClassifier",
]
