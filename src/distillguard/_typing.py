"""The types that signatures are written in."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor

Model: TypeAlias = Callable[[Tensor], Tensor]
"""From a batch of inputs of shape (n, ...) to logits of shape (n, n_classes)."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From logits (n, n_classes) and labels (n,) to one value per example (n,)."""

Attack: TypeAlias = Callable[[Model, Tensor, Tensor], Tensor]
"""From a model, inputs (n, ...) and labels (n,) to adversarial examples like the inputs."""

Norm: TypeAlias = Literal["linf", "l2", "l1"]
Distance: TypeAlias = Literal["linf", "l2", "l1", "l0"]
Bounds: TypeAlias = tuple[float, float]
