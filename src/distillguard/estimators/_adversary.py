"""What attacks a network while it is trained: shared by all robust training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._boxes import check_bounds
from .._data._batch import Source
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
from ..training import Ascent, Runtime, attacked
from ._base import NetworkClassifier
from ._fitting import Fitting

Value = Callable[[Tensor], Tensor]


class Adversary:
    """Finds adversarial inputs for a batch, by the estimator's ascent or by its own attack."""

    def __init__(
        self, ascent: Ascent, attack: Any, batch_statistics: bool, runtime: Runtime
    ) -> None:
        self.ascent, self.attack = ascent, attack
        self.batch_statistics, self.runtime = batch_statistics, runtime

    def __call__(
        self,
        inputs: Tensor,
        labels: Tensor,
        value: Callable[[nn.Module, Tensor], Value],
    ) -> Tensor:
        """Adversarial inputs; ``value(network, inputs)`` is what the ascent ascends."""
        network = self.runtime.direct
        with attacked(network, self.batch_statistics):
            if self.attack is not None:
                found: Tensor = self.attack(network, inputs, labels)
                return found.detach()
            return self.ascent(inputs, value(network, inputs))


def diverging(network: nn.Module, inputs: Tensor) -> Value:
    """TRADES' value: the divergence from what the network says of the clean inputs."""
    with torch.no_grad():
        clean = network(inputs)
    return lambda points: functional.kl_divergence(network(points), clean)


def misled(labels: Tensor) -> Callable[[nn.Module, Tensor], Value]:
    """Madry's value: the cross-entropy with the true labels."""
    return lambda network, _: lambda points: functional.cross_entropy(network(points), labels)


class RobustClassifier(NetworkClassifier):
    """A classifier whose training attacks it."""

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

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_norm(self.norm)
        check_positive("epsilon", self.epsilon)
        check_at_least("steps", self.steps, 1)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        if self.bounds is not None:
            check_bounds(self.bounds)
        if self.attack is not None and not callable(self.attack):
            raise TypeError(f"attack must be None or callable, got {type(self.attack).__name__}")
        check_not_negative("weight_perturbation", self.weight_perturbation)
        check_in_unit_interval("label_smoothing", self.label_smoothing)
        check_in_unit_interval("extra_fraction", self.extra_fraction)
        if self.extra_fraction in (0, 1):
            raise ValueError(
                f"extra_fraction must be above 0 and below 1, got {self.extra_fraction!r}"
            )

    def _adversary(self, fitting: Fitting) -> Adversary:
        size = self.epsilon / 4 if self.step_size is None else self.step_size
        bounds = self._bounds_of(fitting.source, fitting.validation)
        one = torch.empty(1, *self.input_shape_)
        low, high = one.new_tensor(bounds)
        check_reach(self.epsilon, self.norm, low, high, one)
        fitting.source = fitting.source.within("X", bounds)
        if fitting.validation is not None:
            fitting.validation = fitting.validation.within("validation", bounds)
        ascent = Ascent(self.norm, float(self.epsilon), self.steps, float(size), bounds)
        return Adversary(ascent, self.attack, self.batch_statistics, fitting.runtime)

    def _bounds_of(self, source: Source, *others: Source | None) -> Range:
        """The bounds given; else the extremes of data in memory, and [0, 1] for a loader's."""
        if self.bounds is not None:
            return float(self.bounds[0]), float(self.bounds[1])
        if not isinstance(source, TensorSource):
            return 0.0, 1.0
        held = [each.inputs for each in (source, *others) if isinstance(each, TensorSource)]
        extremes = [extreme.item() for inputs in held for extreme in inputs.aminmax()]
        return min(extremes), max(extremes)
