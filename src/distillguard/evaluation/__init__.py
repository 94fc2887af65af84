"""Honest evaluation: attack, judge the attacks, and say what may be believed."""

from ._evaluate import evaluate
from ._findings import Finding
from ._presets import AttackSpec
from ._report import Example, RobustnessReport
from ._rows import AttackRow

__all__ = ["AttackRow", "AttackSpec", "Example", "Finding", "RobustnessReport", "evaluate"]
