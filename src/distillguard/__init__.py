"""distillguard: defensive distillation, its descendants, attacks, and honest reports."""

from typing import TYPE_CHECKING

from ._lazy import lazily
from ._version import __version__ as __version__

# Loaded on first use: `import distillguard` costs little more than `import torch`.
_HOMES = {
    "adaptive": "",
    "attacks": "",
    "callbacks": "",
    "datasets": "",
    "defenses": "",
    "evaluation": "",
    "exceptions": "",
    "exercises": "",
    "functional": "",
    "interop": "",
    "networks": "",
    "persistence": "",
    "scaling_laws": "",
    "testing": "",
    "estimators": "",
    "AdversarialTrainer": "estimators",
    "DefensiveDistiller": "estimators",
    "ExtendedDistiller": "estimators",
    "LayeredDefense": "defenses",
    "RobustDistiller": "estimators",
    "UndefendedClassifier": "estimators",
    "RobustnessReport": "evaluation",
    "evaluate": "evaluation",
    "load": "persistence",
}

__all__ = [
    "AdversarialTrainer",
    "DefensiveDistiller",
    "ExtendedDistiller",
    "LayeredDefense",
    "RobustDistiller",
    "RobustnessReport",
    "UndefendedClassifier",
    "adaptive",
    "attacks",
    "callbacks",
    "datasets",
    "defenses",
    "estimators",
    "evaluate",
    "evaluation",
    "exceptions",
    "exercises",
    "functional",
    "interop",
    "load",
    "networks",
    "persistence",
    "scaling_laws",
    "testing",
]

if TYPE_CHECKING:
    from . import (
        adaptive,
        attacks,
        callbacks,
        datasets,
        defenses,
        estimators,
        evaluation,
        exceptions,
        exercises,
        functional,
        interop,
        networks,
        persistence,
        scaling_laws,
        testing,
    )
    from .defenses import LayeredDefense
    from .estimators import (
        AdversarialTrainer,
        DefensiveDistiller,
        ExtendedDistiller,
        RobustDistiller,
        UndefendedClassifier,
    )
    from .evaluation import RobustnessReport, evaluate
    from .persistence import load


__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
