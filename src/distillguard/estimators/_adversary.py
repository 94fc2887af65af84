"""What attacks a network while it is trained: shared by all robust training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._boxes import check_bounds
from .._data._batch import Batch, Source
from .._data._sources import TensorSource
from .._geometry import check_reach
from .._typing import Norm, Range
from .._validation import (
    check_at_least,
    check_in_unit_interval,
    check_norm,
    check_not_negative,
    check_positive,
)
from .._words import described
from ..training import Ascent, Runtime, attack_mode
from ._run import TrainingRun
from ._settings import plain

SMALLEST_SHARE = 1e-4
"""Of the range of the data: a smaller radius, with bounds that nobody gave, is a mistake."""


@dataclass(frozen=True)
class AttackSettings:
    """The parameters that all robust training shares, checked once."""

    epsilon: float
    norm: Norm
    steps: int
    step_size: float | None
    bounds: Range | None
    attack: Any
    batch_statistics: bool
    weight_perturbation: float
    label_smoothing: float
    extra_fraction: float

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "AttackSettings":
        """Take them from an estimator's parameters, NumPy's scalars as Python's."""
        return cls(**{field.name: plain(parameters[field.name]) for field in fields(cls)})

    def __post_init__(self) -> None:
        """Refuse what no attack could use."""
        check_norm(self.norm)
        check_positive("epsilon", self.epsilon)
        check_at_least("steps", self.steps, 1)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        if self.bounds is not None:
            check_bounds(self.bounds)
            for bound in self.bounds:
                if isinstance(bound, Tensor | np.ndarray) and math.prod(bound.shape) != 1:
                    raise TypeError(
                        f"bounds must be two numbers for training, got {described(bound)}"
                    )
        if self.attack is not None and not callable(self.attack):
            raise TypeError(f"attack must be None or callable, got {type(self.attack).__name__}")
        check_not_negative("weight_perturbation", self.weight_perturbation)
        check_in_unit_interval("label_smoothing", self.label_smoothing)
        check_in_unit_interval("extra_fraction", self.extra_fraction)
        if self.extra_fraction in (0, 1):
            raise ValueError(
                f"extra_fraction must be above 0 and below 1, got {self.extra_fraction!r}"
            )

    def adversary(self, run: TrainingRun) -> "Adversary":
        """What attacks the networks of a run; the run's data is held to the bounds."""
        size = self.epsilon / 4 if self.step_size is None else self.step_size
        bounds = self._bounds_of(run.source, run.validation)
        one = torch.empty(1, *run.input_shape, device="cpu")
        low, high = one.new_tensor(bounds)
        self._check_reach(low, high, one)
        run.source = run.source.within("X", bounds)
        if run.validation is not None:
            run.validation = run.validation.within("validation", bounds)
        ascent = Ascent(self.norm, float(self.epsilon), self.steps, float(size), bounds)
        return Adversary(ascent, self.attack, self.batch_statistics, run.runtime)

    def _bounds_of(self, source: Source, *others: Source | None) -> Range:
        """The bounds given; else the extremes of data in memory, and [0, 1] for a loader's."""
        if self.bounds is not None:
            return float(self.bounds[0]), float(self.bounds[1])
        if not isinstance(source, TensorSource):
            return 0.0, 1.0
        held = [each.inputs for each in (source, *others) if isinstance(each, TensorSource)]
        extremes = [extreme.item() for inputs in held for extreme in inputs.aminmax()]
        return min(extremes), max(extremes)

    def _check_reach(self, low: Tensor, high: Tensor, one: Tensor) -> None:
        """Refuse a radius that nobody can mean, and say what range was taken from the data."""
        bounds = low.item(), high.item()
        if self.bounds is not None:
            check_reach(self.epsilon, self.norm, low, high, one)
            return
        inferred = f"({bounds[0]:g}, {bounds[1]:g}), the range of X"
        try:
            check_reach(self.epsilon, self.norm, low, high, one)
        except ValueError as error:
            raise ValueError(f"{error}; bounds were not given and are {inferred}") from None
        width = bounds[1] - bounds[0]
        counts = bounds[0] == 0 and bounds[1] >= 100  # such as pixels up to 255
        smallest = 0.5 if counts else width * SMALLEST_SHARE
        if self.norm == "linf" and self.epsilon < smallest:
            raise ValueError(
                f"epsilon must be in the units of X, got {self.epsilon:g} with values in "
                f"{inferred}; divide X by {bounds[1]:g}, or give bounds={bounds} and an epsilon "
                "that is meant for them"
            )


class Adversary:
    """Finds adversarial inputs for a batch, by the estimator's ascent or by its own attack."""

    def __init__(
        self, ascent: Ascent, attack: Any, batch_statistics: bool, runtime: Runtime
    ) -> None:
        self.ascent, self.attack = ascent, attack
        self.batch_statistics, self.runtime = batch_statistics, runtime

    def __call__(
        self, batch: Batch, inner_loss: Callable[[nn.Module], Callable[[Tensor], Tensor]]
    ) -> Tensor:
        """Adversarial inputs; ``inner_loss(network)`` is what the ascent ascends."""
        network = self.runtime.unwrapped
        with attack_mode(network, self.batch_statistics):
            if self.attack is not None:
                found: Tensor = self.attack(network, batch.inputs, batch.labels)
                return found.detach()
            return self.ascent(batch.inputs, inner_loss(network))
