"""Classifiers in scikit-learn's manner, trained by distillation."""

from ._defensive import DefensiveDistiller

__all__ = ["DefensiveDistiller"]
