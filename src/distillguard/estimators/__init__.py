"""Classifiers in scikit-learn's manner, trained by distillation, and their baseline."""

from ._defensive import DefensiveDistiller
from ._undefended import UndefendedClassifier

__all__ = ["DefensiveDistiller", "UndefendedClassifier"]
