"""What is found out about a model before it is attacked, on at most sixteen examples.

Models come as people have them. Some answer by an example's place in the batch, some differently
each time, some lose the gradient of every value at a bound. An attack that did not know would
fail in silence.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._geometry import inside
from .._random import split_mix
from .._ruled_out import magnitude
from .._typing import Model
from .._validation import check_differentiable, check_gradient
from ._examples import Examples

ROUNDINGS = 32
"""Roundings by which the logits of one example may differ between batches, as sums are split."""
HALF_ROUNDINGS = 2
"""In half precision, where sums are taken in single and rounded once."""
KERNELS = 0.01
"""By what share of the largest logit answers may differ: more than half precision loses."""
SAMPLE = 16
"""Examples that are asked about."""
DIFFERENT = 1 / 3
"""Two slopes differ by more than this share of one; at a kink that averages both sides, by half."""
VISIBLE = 1e-3
"""Slopes below this share of an example's largest tell nothing."""
WITNESSES = 2
"""Examples that have to agree on a coordinate."""


@dataclass(frozen=True)
class ModelFacts:
    """What attacks have to know of a model."""

    rounding: float = 0.0
    """Relative error of its logits: they are trusted to this share of the largest."""
    hair: torch.dtype | None = None
    """Gradients are asked for inside the bounds, by a step that this dtype represents.

    None where they are the same at the bounds.
    """

    def to_plain(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        hair = None if self.hair is None else str(self.hair).removeprefix("torch.")
        return {"rounding": self.rounding, "hair": hair}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "ModelFacts":
        """Return what :meth:`to_plain` was given."""
        hair = None if plain["hair"] is None else getattr(torch, plain["hair"])
        return cls(plain["rounding"], hair)


def examine(model: Model, examples: Examples, dtype: torch.dtype, gradients: bool) -> ModelFacts:
    """Ask the model about a few examples, some of them twice.

    ``model`` takes the points of the examples to raw logits; ``dtype`` is the narrowest in which
    points reach it.

    Raises
    ------
    ValueError
        If an answer depends on the example's place in the batch.
    NoGradientError
        If gradients are wanted and the model's output does not lead back to its input.
    """
    with torch.no_grad():
        logits = model(examples.inputs)
        check_places(model, examples.inputs, logits)
    narrowest = max(dtype, logits.dtype, key=lambda kind: torch.finfo(kind).eps)
    count = HALF_ROUNDINGS if narrowest in (torch.float16, torch.bfloat16) else ROUNDINGS
    hair = needed_hair(model, examples, dtype) if gradients else None
    return ModelFacts(count * torch.finfo(narrowest).eps, hair)


def check_places(model: Model, inputs: Tensor, logits: Tensor) -> None:
    """Refuse a model whose answer for an example depends on its place in the batch."""
    if len(inputs) < 2 or not torch.equal(model(inputs), logits):
        return  # One place is like any other, and so is every answer of a randomised model.
    if close(model(inputs.flip(0)).flip(0), logits):
        return
    raise ValueError(
        "model must answer each example by its own values, got other logits for the same "
        "examples in another order; attacks change the order and size of batches as examples "
        "fall, so what belongs to an example has to travel with it: append it to the inputs as "
        "coordinates that the model splits off, and exclude them from the attack with mask="
    )


def close(answers: Tensor, logits: Tensor) -> bool:
    """Whether two answers are equal up to the rounding of other kernels."""
    return bool(((answers - logits).abs() <= KERNELS * magnitude(logits).amax()).all())


def needed_hair(model: Model, examples: Examples, dtype: torch.dtype) -> torch.dtype | None:
    """Return the dtype of the step inwards after which a lost gradient is there; None if none is.

    Gradients are compared at and inside the bounds: at the examples, and at examples of which
    every coordinate is set to its lowest value, to its highest, and left inside in turn. A
    coordinate counts whose gradient differs in all that show one. Many layers flip a unit here or
    there on so small a step; only a function of the input by itself does so every time.
    """
    points, low, high = sounded(examples)
    at_bound = slopes(model, points)
    near = slopes(model, inside(points, low, high, dtype))
    other = ~at_bound.isfinite() | ((at_bound - near).abs() > DIFFERENT * near.abs())
    found = dtype if hidden(points, low, high, near, other) else None
    # Where a dtype inside the model swallows the step, its gradient is as dead as at the bound.
    dead = (at_bound == 0) & (near == 0)
    if dtype == torch.bfloat16 or not bool(dead[len(dead) // 2 :].any()):
        return found
    wider = slopes(model, inside(points, low, high, torch.bfloat16))
    return torch.bfloat16 if hidden(points, low, high, wider, dead) else found


def sounded(examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    """Points to compare gradients at, with their bounds: half of them as the examples are."""
    inputs = examples.inputs[: SAMPLE // 2]
    low, high = (bound[: SAMPLE // 2].expand_as(inputs) for bound in (examples.low, examples.high))
    turn = torch.arange(SAMPLE // 2, device=inputs.device)[:, None]
    drawn = split_mix(turn.new_zeros(1), inputs[0].numel())
    state = ((drawn + turn) % 3).view(-1, *inputs.shape[1:])
    rows = turn[:, 0] % len(inputs)
    x, lowest, highest = inputs[rows], low[rows], high[rows]
    # Not the middle, where a symmetric input may have a kink of its own.
    x = x.clamp(lowest + 0.2 * (highest - lowest), highest - 0.1 * (highest - lowest))
    x = torch.where(state == 0, lowest, torch.where(state == 1, highest, x))
    return torch.cat([inputs, x]), torch.cat([low, lowest]), torch.cat([high, highest])


def slopes(model: Model, points: Tensor) -> Tensor:
    """Gradient of a mixture of all logits, as autograd gives it."""
    points = points.detach().requires_grad_()
    logits = model(points)
    check_differentiable(logits)
    mixture = torch.arange(1, logits.shape[1] + 1, device=logits.device).to(logits).cos()
    (gradient,) = torch.autograd.grad((logits * mixture).sum(), points, allow_unused=True)
    return check_gradient(gradient)


def hidden(points: Tensor, low: Tensor, high: Tensor, inner: Tensor, other: Tensor) -> bool:
    """Whether some coordinate's gradient is another inside the bound in all that show one.

    ``inner`` is the gradient inside, ``other`` says where that at the bound is another.
    """
    size = inner.abs()
    largest = size.nan_to_num(posinf=0).flatten(1).amax(dim=1).view(-1, *(1,) * (inner.ndim - 1))
    visible = inner.isfinite() & (size > VISIBLE * largest) & (low < high)
    for at_bound in (points <= low, points >= high):
        shown = (visible & at_bound).sum(dim=0)
        lost = (visible & at_bound & other).sum(dim=0)
        if bool(((shown >= WITNESSES) & (lost == shown)).any()):
            return True
    return False
