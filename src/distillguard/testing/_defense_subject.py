"""A layer or detector under test, wrapped as a model so that the promises of models apply."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, Self

import torch
from torch import Tensor, nn

from .._boxes import box
from .._copies import copied
from .._typing import Range
from ..defenses import Detector
from ._subject import ModelSubject, shares

SHAPE = (3, 8, 8)
"""Shape of one default example."""
CLASSES = 3


class Classifier(nn.Module):
    """The classifier that a detector watches: a smooth network without parameters."""

    def __init__(self, bounds: Range) -> None:
        super().__init__()
        self.bounds = bounds

    def forward(self, inputs: Tensor) -> Tensor:
        """Three logits, (n, 3), in the dtype of the inputs."""
        low, high = self.bounds
        flat = ((inputs - low) / (high - low)).flatten(1) - 0.5
        weight = shares(CLASSES, flat[:1].new_zeros(1, flat.shape[1])) - 0.5
        return 9 * torch.tanh(flat @ weight.T)


class Whole(nn.Module):
    """A layer in front of a classifier, or the score of a detector, as a network of logits."""

    def __init__(self, part: nn.Module, bounds: Range) -> None:
        super().__init__()
        self.part, self.classifier = part, Classifier(bounds)

    def apart(self, inputs: Tensor) -> Tensor:
        """The output of the part itself."""
        if isinstance(self.part, Detector):
            return self.part.score(self.classifier, inputs)
        changed: Tensor = self.part(inputs)
        return changed

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, (n, n_classes)."""
        found = self.apart(inputs)
        if isinstance(self.part, Detector):
            return torch.stack([found, -found], dim=1)
        logits: Tensor = self.classifier(found)
        return logits


@dataclass
class DefenseSubject(ModelSubject):
    """A part, the model that contains it, and examples with some values on the bounds."""

    model: Whole

    @classmethod
    def of_part(cls, part: nn.Module, examples: Tensor | None, bounds: Range | None) -> Self:
        """Test a copy of the part, fitted if necessary."""
        bounds = getattr(part, "bounds", (0.0, 1.0)) if bounds is None else bounds
        low, high = bounds
        if examples is None:
            drawn = shares(6, torch.zeros(1, *SHAPE, device="cpu"))
            examples = low + (high - low) * (1.5 * drawn - 0.25).clamp(0, 1)
        part = copied(part).eval()
        if isinstance(part, Detector) and not part.fitted:
            part.fit(examples)
        lowest, highest = (b.expand(examples.shape[1:]) for b in box(bounds, examples))
        return cls(Whole(part, bounds).eval(), examples, lowest, highest)

    @property
    def part(self) -> nn.Module:
        """The copy under test."""
        return self.model.part

    @property
    def detects(self) -> bool:
        """Whether it is a detector."""
        return isinstance(self.part, Detector)

    @property
    def random(self) -> bool:
        """Whether it declares itself random."""
        return any(getattr(each, "random", False) for each in self.part.modules())

    @property
    def lends_gradient(self) -> bool:
        """Whether it declares a gradient other than that of its values."""
        return any(getattr(each, "gradient", "") == "identity" for each in self.part.modules())

    def ask(self, inputs: Tensor) -> Tensor:
        """Logits; a random part always draws the same for a batch of the same size."""
        return self.seeded(lambda: super(DefenseSubject, self).ask(inputs))

    def answer_apart(self, inputs: Tensor) -> Tensor:
        """The output of the part itself, without a graph."""
        with torch.no_grad():
            return self.seeded(lambda: self.model.apart(inputs.clone()))

    def seeded(self, question: Callable[[], Tensor]) -> Tensor:
        """Call from a fixed state of the global generator if the part declares itself random."""
        if not self.random:
            return question()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return question()

    def with_part(self, part: nn.Module) -> Self:
        """The same subject with another part."""
        return type(self)(Whole(part, self.model.classifier.bounds), *self.asked_of())

    def asked_of(self) -> tuple[Tensor, Tensor, Tensor]:
        """Examples and bounds."""
        return self.examples, self.low, self.high


def arguments(part: nn.Module) -> list[str]:
    """Names of the constructor's arguments, without ``*args`` and ``**kwargs``."""
    named = signature(type(part)).parameters.values()
    return [each.name for each in named if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]


def rebuilt(part: nn.Module, shape: torch.Size, **changed: Any) -> nn.Module:
    """A part made anew from the same arguments, except those changed, with what it has learned."""
    given = {name: getattr(part, name) for name in arguments(part)}
    other: nn.Module = type(part)(**{**given, **changed})
    if isinstance(other, Detector):
        other.build(tuple(shape))
    other.load_state_dict(part.state_dict())
    return other.eval()
