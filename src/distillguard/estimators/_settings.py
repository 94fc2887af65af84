"""The parameters that all estimators share, checked once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from torch import nn

from .._random import draw_seed
from .._validation import check_at_least, check_in_unit_interval, check_positive, check_share
from ..training import Callback, Stopping


@dataclass(frozen=True)
class TrainingSettings:
    """How networks are trained, whatever the objective."""

    max_epochs: int
    batch_size: int
    optimizer: Any
    learning_rate: float
    lr_scheduler: Any
    early_stopping: bool | str
    validation_fraction: float
    patience: int
    gradient_clip: float | None
    weight_averaging: float | None
    class_weight: Any
    callbacks: tuple[Callback, ...]
    checkpoint_dir: Any
    device: str
    precision: str
    compile: bool
    warm_start: bool
    random_state: Any
    verbose: bool

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "TrainingSettings":
        """Take them from an estimator's parameters, NumPy's scalars as Python's."""
        own = {field.name: plain(parameters[field.name]) for field in fields(cls)}
        given = own["callbacks"]
        if given is not None and not isinstance(given, Iterable):
            raise TypeError(
                f"callbacks must be a list of objects with a method on_epoch, got {given!r}"
            )
        return cls(**own | {"callbacks": tuple(given or ())})

    def __post_init__(self) -> None:
        """Refuse what training could not use."""
        check_at_least("max_epochs", self.max_epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("patience", self.patience, 1)
        check_positive("learning_rate", self.learning_rate)
        check_share("validation_fraction", self.validation_fraction)
        if self.early_stopping not in (True, False, "loss", "accuracy"):
            raise ValueError(
                "early_stopping must be True, False, 'loss' or 'accuracy', got "
                f"{self.early_stopping!r}"
            )
        for callback in self.callbacks:
            if isinstance(callback, type) or not callable(getattr(callback, "on_epoch", None)):
                raise TypeError(
                    f"callbacks must hold objects with a method on_epoch, got {callback!r}"
                )
        if self.gradient_clip is not None:
            check_positive("gradient_clip", self.gradient_clip)
        if self.weight_averaging is not None:
            check_in_unit_interval("weight_averaging", self.weight_averaging)
        if not (
            self.class_weight is None
            or self.class_weight == "balanced"
            or isinstance(self.class_weight, Mapping)
        ):
            raise ValueError(
                "class_weight must be None, 'balanced' or a mapping of classes to weights, got "
                f"{self.class_weight!r}"
            )
        if self.warm_start and self.checkpoint_dir is not None:
            raise ValueError("warm_start must be False with checkpoint_dir, got True")

    def seed(self) -> int:
        """Draw the fit's seed; the global generator is not touched."""
        if self.random_state is None:
            return draw_seed(None)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def stopping(self) -> Stopping | None:
        """Early stopping for one stage, if it is wanted."""
        if not self.early_stopping:
            return None
        return Stopping(self.patience, "accuracy" if self.early_stopping == "accuracy" else "loss")


def plain(value: Any) -> Any:
    """A NumPy scalar as a number of Python's, which libraries can be relied on to know."""
    return value.item() if isinstance(value, np.generic) else value


def check_prefit(teacher: Any) -> None:
    """Refuse a teacher that is no trained network."""
    if not isinstance(teacher, nn.Module):
        remedy = "; pass its model_" if hasattr(teacher, "model_") else ""
        raise TypeError(
            "teacher must be a trained nn.Module with prefit_teacher=True, "
            f"got {type(teacher).__name__}{remedy}"
        )
