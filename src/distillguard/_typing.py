"""The types that signatures are written in."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor, nn

Model: TypeAlias = Callable[[Tensor], Tensor]
"""From a batch of inputs of shape (n, ...) to logits of shape (n, n_classes)."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From logits (n, n_classes) and labels (n,) to one value per example (n,)."""

Attack: TypeAlias = Callable[[Model, Tensor, Tensor], Tensor]
"""From a model, inputs (n, ...) and labels (n,) to adversarial examples like the inputs."""

NetworkFactory: TypeAlias = Callable[[tuple[int, ...], int], nn.Module]
"""From the shape of one input and the number of classes to a network."""

Norm: TypeAlias = Literal["linf", "l2", "l1"]
Distance: TypeAlias = Literal["linf", "l2", "l1", "l0", "l0_pixels"]
"""A norm, or a count: of the coordinates that move, or of the pixels with all their channels."""

Count: TypeAlias = Literal["l0", "l0_pixels"]
Range: TypeAlias = tuple[float, float]
"""Lowest and highest value, the same for all coordinates."""

Bounds: TypeAlias = tuple[float | Tensor, float | Tensor]
"""Lowest and highest value: two numbers, or two tensors broadcastable to one example."""

Mask: TypeAlias = Tensor
"""Bool: the coordinates that may change, in the shape of one example or of all."""

Callback: TypeAlias = Callable[[Tensor, Tensor, Tensor], object]
"""Told the places (m,), points (m, ...) and logits (m, n_classes) of a question to the model."""
