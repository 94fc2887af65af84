"""Chapter 5: Carlini and Wagner's objective."""

from typing import Any

import torch
from torch import Tensor

from .. import functional
from ..testing._functions import LOSS
from ._properties import agrees, depends, differ, finite, labels, large, logits, points
from ._task import Function, Promise, Property, Task


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest logit of another class minus the label's, one value per example."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(dim=1) - logits.gather(1, labels[:, None]).squeeze(1)


def carlini_wagner_objective(
    adversarial: Tensor, inputs: Tensor, logits: Tensor, target: Tensor, c: float, confidence: float
) -> Tensor:
    """Return the squared distance plus c times the clamped margin, one value per example."""
    distance = (adversarial - inputs).flatten(1).square().sum(dim=1)
    others = logits.scatter(1, target[:, None], -torch.inf).amax(dim=1)
    behind = others - logits.gather(1, target[:, None]).squeeze(1)
    return distance + c * behind.clamp(min=-confidence)


def to_tanh_space(inputs: Tensor) -> Tensor:
    """Return w with (tanh(w) + 1) / 2 equal to the inputs, finite at 0 and at 1."""
    return torch.atanh((2 * inputs - 1) * 0.999999)


_LOSS_WHY = {
    "one-value-each": "an example's attack must not depend on its neighbours.",
    "shift": "only differences of logits mean anything.",
    "overflow": "distilled networks have logits of hundreds and more; the margin needs no exp.",
    "depends": "a loss without the label attacks whatever class stands there.",
    "gradient": "the attack follows this gradient, and it never rounds to zero.",
}


def _sign(function: Function, logits: Tensor, labels: Tensor) -> str:
    wrong = bool(logits.argmax(dim=1) != labels)
    found = function(logits, labels)
    return "" if bool(found > 0) == wrong else f"got {found.tolist()}"


def _signed() -> list[tuple[Tensor, Tensor]]:
    rows = torch.tensor([[2.0, 1.0, 0.0], [-3.0, -1.0, -2.0], [-1.0, -5.0, -2.0]])
    return [(row[None], torch.tensor([label])) for row in rows for label in (0, 1)]


def _doubles(function: Function, logits: Tensor, labels: Tensor) -> str:
    return differ(function(2 * logits, labels), 2 * function(logits, labels))


def _objective_case(c: float = 0.5, confidence: float = 0.0, n: int = 6) -> tuple[Any, ...]:
    moved, clean = points(n, seed=2), points(n)
    return moved, clean, logits(torch.float32)[:n], labels()[:n], c, confidence


def _objective(
    adversarial: Tensor, inputs: Tensor, logits: Tensor, target: Tensor, c: float, confidence: float
) -> Tensor:
    length = torch.linalg.vector_norm((adversarial - inputs).flatten(1), dim=1)
    return length**2 + c * functional.margin_loss(logits, target).clamp(min=-confidence)


def _objectives() -> list[tuple[Any, ...]]:
    images = points(2, 8).view(2, 2, 2, 2), points(2, 8, seed=2).view(2, 2, 2, 2)
    far = (*images, logits(torch.float32)[:2], labels()[:2], 2.0, 40.0)
    grid = [(0.5, 0.0), (0.5, 5.0), (4.0, 40.0)]
    return [*(_objective_case(c, k, n) for n in (1, 6) for c, k in grid), far]


def _pure_distance(function: Function, adversarial: Tensor, inputs: Tensor) -> str:
    sure = torch.tensor([[50.0, 0.0, 0.0]])
    found = function(adversarial, inputs, sure, torch.tensor([0]), 3.0, 0.0)
    return differ(found, (adversarial - inputs).square().sum(dim=1))


def _margin_left(function: Function, confidence: float) -> str:
    x, sure = torch.zeros(1, 2), torch.tensor([[50.0, 0.0, 0.0]])
    return differ(function(x, x, sure, torch.tensor([0]), 1.0, confidence), [-confidence])


def _returns(function: Function, inputs: Tensor) -> str:
    return differ((function(inputs).tanh() + 1) / 2, inputs, 1e-4)


def _finite(function: Function, inputs: Tensor) -> str:
    found = function(inputs)
    return "" if bool(found.isfinite().all()) else f"got {found.tolist()}"


def _moves(function: Function, inputs: Tensor) -> str:
    w = function(inputs).detach().requires_grad_()
    (slope,) = torch.autograd.grad(((w.tanh() + 1) / 2).sum(), w)
    return "" if bool((slope > 0).all()) else f"got slopes {slope.tolist()}"


def _order(function: Function, inputs: Tensor) -> str:
    found = function(inputs)
    return "" if bool((found.diff() > 0).all()) else f"got {found.tolist()}"


def _corners() -> list[tuple[Tensor]]:
    return [(torch.tensor([[0.0]]),), (torch.tensor([[1.0]]),), (torch.tensor([[0.0, 0.5, 1.0]]),)]


def _grid() -> list[tuple[Tensor]]:
    return [(torch.tensor([[0.5]]),), (torch.tensor([[0.125, 0.25, 0.75]]),), *_corners()]


TASKS = [
    Task(
        answer=margin,
        chapter=5,
        difficulty="easy",
        minutes=10,
        statement="""Write the margin: the largest logit among the other classes minus the label's
        logit, one value per example. It is positive exactly when the example is misclassified, and
        no temperature takes its gradient away. Mind rows in which all logits are negative.""",
        hints=(
            "Hide the label, then take the largest of what is left.",
            "Hidden by a multiplication with 0, the label becomes a logit of 0, which may be the "
            "largest.",
            "logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1), and gather for the label.",
        ),
        properties=[
            *(Promise(each, _LOSS_WHY[each.promise]) for each in LOSS),
            Property(
                "sign",
                "be positive exactly when another class is the largest",
                "the attack stops when the margin is positive.",
                _sign,
                _signed,
            ),
            Property(
                "scale",
                "double when the logits are doubled",
                "it is a difference of logits, not of probabilities or logarithms.",
                _doubles,
                lambda: [(logits()[:1], labels()[:1])],
            ),
            agrees(
                functional.margin_loss,
                lambda: [*_signed(), (logits(), labels())],
                "the other sign, or another class, attacks something else.",
            ),
        ],
    ),
    Task(
        answer=carlini_wagner_objective,
        chapter=5,
        difficulty="medium",
        minutes=15,
        statement="""Write what the l2 attack minimises: the squared Euclidean distance of the
        adversarial inputs from the inputs, plus c times f, where f is the largest logit of the
        other classes minus the target's, but no less than minus the confidence. One value per
        example; inputs have any shape (n, ...).""",
        hints=(
            "Three pieces: a sum of squares over all but the first axis, the margin, a clamp.",
            "(sum of squares) ** 1 / 2 is half the sum: ** comes before /. No root here.",
            "distance + c * behind.clamp(min=-confidence)",
        ),
        properties=[
            agrees(
                _objective,
                _objectives,
                "the balance of the two terms is what the search over c adjusts.",
            ),
            Property(
                "distance-alone",
                "be the squared distance once the target wins by the confidence",
                "from there on only the distance should fall.",
                _pure_distance,
                lambda: [
                    (torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]])),
                    (torch.tensor([[1.0, 0.5]]), torch.tensor([[0.5, 0.25]])),
                ],
            ),
            Property(
                "confidence",
                "let the margin fall to minus the confidence, and no further",
                "confidence 40 is what made examples transfer to distilled networks.",
                _margin_left,
                lambda: [(0.0,), (5.0,), (40.0,)],
            ),
            depends(
                lambda: _objective_case(4.0, 5.0),
                "an objective without an argument optimises something else.",
                adversarial=points(seed=7),
                inputs=points(seed=8),
                logits=logits(torch.float32).roll(1, 1),
                target=(labels() + 1) % 5,
                c=1.0,
                confidence=0.0,
            ),
            finite(
                lambda: [(points(3), points(3), large(), torch.tensor([1, 0, 2]), 1.0, 0.0)],
                "distilled networks have logits of hundreds and more.",
            ),
        ],
    ),
    Task(
        answer=to_tanh_space,
        chapter=5,
        difficulty="easy",
        minutes=10,
        statement="""The attack searches over w, with x = (tanh(w) + 1) / 2, so that x never leaves
        0 and 1. Write the inverse, from x to w. Black and white pixels are 0 and 1 exactly: w must
        be finite there, and the pixel must be able to move again.""",
        hints=(
            "Solve x = (tanh(w) + 1) / 2 for w: tanh(w) = 2 x - 1.",
            "atanh(1) is infinite: keep its argument a little inside (-1, 1).",
            "torch.atanh((2 * inputs - 1) * 0.999999), as Carlini's own code has it.",
        ),
        properties=[
            Property(
                "finite",
                "be finite at 0 and at 1",
                "most pixels of a digit are exactly black; an infinite w never moves.",
                _finite,
                _corners,
            ),
            Property(
                "round-trip",
                "lead back to the inputs within 0.0001",
                "the attack starts at the image.",
                _returns,
                _grid,
            ),
            Property(
                "can-move",
                "leave x a slope that is not zero",
                "where tanh has saturated, the gradient is zero in float32.",
                _moves,
                _grid,
            ),
            Property(
                "order",
                "grow with the input",
                "brighter stays brighter.",
                _order,
                lambda: [(torch.tensor([[0.0, 0.125, 0.5, 0.75, 1.0]]),)],
            ),
        ],
    ),
]
