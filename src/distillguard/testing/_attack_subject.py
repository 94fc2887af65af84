"""An attack under test, and the examples that it is run on."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._geometry import COUNTS
from .._typing import Distance
from ._closed_forms import SHAPE, Halfspace, Lent
from ._subject import shares

ROWS = 8


class AttackSubject(NamedTuple):
    """An attack, and the keywords that it accepts."""

    attack: Callable[..., Tensor]
    norm: Distance
    epsilon: float | None
    """The budget; None for an attack that looks for the nearest point."""
    takes: Collection[str]
    """Its keywords."""

    def call(self, model: nn.Module, inputs: Tensor, labels: Tensor, **more: Any) -> Tensor:
        """Attack with a seed, and with those of the other arguments that it accepts."""
        given = {"random_state": 0, **more}
        kept = {name: value for name, value in given.items() if name in self.takes}
        return self.attack(model, inputs, labels, **kept)

    def halfspace(self) -> tuple[Halfspace, Tensor, Tensor]:
        """A linear model, and examples half of which it misclassifies well within the budget."""
        model, inputs = Halfspace().eval(), 0.35 + 0.3 * examples()
        if self.epsilon is not None and self.norm not in COUNTS:
            median = float(model.least(inputs, self.norm).median())
            inputs = 0.5 + (inputs - 0.5) * min(1.0, self.epsilon / median)
        return model, inputs, classes(model, inputs)


def examples() -> Tensor:
    """Grey images, with one black, one white, and one of black and white pixels only."""
    images = shares(ROWS + 1, torch.zeros(1, *SHAPE, device="cpu"))[1:].clone()
    images[1], images[2], images[3] = images[1].round(), 0, 1
    return images


def classes(model: nn.Module, inputs: Tensor) -> Tensor:
    """The classes that the model predicts."""
    with torch.no_grad():
        return model(inputs).argmax(dim=1)


def lent() -> tuple[Lent, Tensor, Tensor]:
    """A model that must be left unchanged, inputs, and the classes predicted in eval mode."""
    model, inputs = Lent(), examples()
    labels = classes(Lent().eval(), inputs)
    return model, inputs, labels
