"""The gradient of what is inside a model, where what is made of it has none.

Neighbours, trees and votes on the features of a network are such models.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .._modes import fitted_to
from .._typing import Model
from ..adaptive._gradient_from import GradientFrom
from ._stand_ins import BeforeHead

ASKED = 512
"""Points that are asked about at once."""

RIDGE = 1e-3
"""Weight of the layer's size, as a share of the features' mean square."""


class ReadOut(GradientFrom):
    """A model with the gradient of features inside, through a linear layer of our own.

    ``asked`` is the model as it is to be asked about the points that the layer learns from.
    """

    def __init__(
        self, model: Model, asked: Callable[[Tensor], Tensor], features: BeforeHead, points: Tensor
    ) -> None:
        weight, offset = fitted(features, asked, points)

        def told(inputs: Tensor) -> Tensor:
            said = features(inputs).flatten(1)
            return said @ weight.to(said) + offset.to(said)

        super().__init__(model, told)
        self.read, self.learned = type(features.inside).__name__, len(points)

    @property
    def adaptation(self) -> str:
        """What reports say of it."""
        return (
            f"the gradient of its {self.read}, through a linear layer that learned "
            f"{self.learned} of its answers"
        )


def fitted(
    features: Callable[[Tensor], Tensor], asked: Callable[[Tensor], Tensor], points: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and offset from features to the softmax of the answers, by least squares."""
    said, answers = [], []
    with torch.no_grad():
        for part in points.split(ASKED):
            said.append(features(fitted_to(features, part)).flatten(1).cpu().double())
            answers.append(asked(fitted_to(asked, part)).cpu().double().softmax(dim=1))
    seen, told = torch.cat(said), torch.cat(answers)
    mean, level = seen.mean(dim=0), told.mean(dim=0)
    gram = (seen - mean).T @ (seen - mean)
    ridge = (RIDGE * gram.diagonal().mean()).clamp(min=torch.finfo(gram.dtype).tiny)
    against = (seen - mean).T @ (told - level)
    weight = torch.linalg.solve(
        gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), against
    )
    return weight, level - mean @ weight
