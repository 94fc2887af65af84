"""Chapter 5: Carlini and Wagner's answer."""

import math
from collections.abc import Callable
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


def next_constant(c: float, low: float, high: float, success: bool) -> tuple[float, float, float]:
    """Return the next c to try, and the bounds low and high after the result for c."""
    low, high = (low, min(high, c)) if success else (max(low, c), high)
    return (10 * c if high == math.inf else (low + high) / 2), low, high


def search_over_c(succeeds: Callable[[float], bool], start: float, steps: int) -> float:
    """Return the smallest of the `steps` constants tried that succeeded, or infinity."""
    low, high, c, best = 0.0, math.inf, start, math.inf
    for _ in range(steps):
        if succeeds(c):
            high = best = min(best, c)
        else:
            low = max(low, c)
        c = 10 * c if high == math.inf else (low + high) / 2
    return best


def saliency_pair(jacobian: Tensor, target: int) -> tuple[int, int]:
    """Return the two features that raise the target most and lower the others, smaller first."""
    rise = jacobian[target]
    fall = jacobian.sum(dim=0) - rise
    alpha = rise[:, None] + rise[None, :]
    beta = fall[:, None] + fall[None, :]
    score = torch.where((alpha > 0) & (beta < 0), -alpha * beta, -torch.inf)
    score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).tril(), -torch.inf)
    first, second = divmod(int(score.argmax()), len(rise))
    return first, second


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


def _constants() -> list[tuple[float, float, float, bool]]:
    inf = math.inf
    return [
        (0.001, 0.0, inf, False),
        (0.001, 0.0, inf, True),
        (1.0, 0.1, inf, False),
        (1.0, 0.1, 10.0, True),
        (1.0, 0.1, 10.0, False),
        (10.0, 0.1, 1.0, True),
        (0.1, 1.0, 10.0, False),
    ]


def _reference_constant(
    c: float, low: float, high: float, success: bool
) -> tuple[float, float, float]:
    if success:
        high = c if c < high else high
    else:
        low = c if c > low else low
    middle = low + (high - low) / 2 if math.isfinite(high) else 10.0 * c
    return middle, low, high


def _brackets(function: Function, c: float, low: float, high: float, success: bool) -> str:
    found, lowest, highest = function(c, low, high, success)
    good = lowest <= highest and lowest <= found <= highest
    return "" if good else f"got c = {found} with bounds {lowest} and {highest}"


def _converges(function: Function, threshold: float) -> str:
    c, low, high = 0.001, 0.0, math.inf
    for _ in range(40):
        c, low, high = function(c, low, high, c >= threshold)
    return differ(high, threshold, 1e-4)


def _converges_to(function: Function, threshold: float, steps: int) -> str:
    return differ(function(lambda c: c >= threshold, 0.001, steps), threshold, 1e-3)


def _calls(function: Function, threshold: float, start: float, steps: int) -> str:
    asked: list[float] = []

    def succeeds(c: float) -> bool:
        asked.append(c)
        return c >= threshold

    found = function(succeeds, start, steps)
    if len(asked) != steps:
        return f"it asked {len(asked)} times"
    if asked[0] != start:
        return f"it began at {asked[0]}"
    won = [c for c in asked if c >= threshold]
    return differ(found, min(won, default=math.inf))


def _hopeless(function: Function, steps: int) -> str:
    found = function(lambda c: False, 1.0, steps)
    return "" if found == math.inf else f"got {found}"


def _searches() -> list[tuple[float, float, int]]:
    return [(0.5, 1.0, 1), (5.0, 1.0, 1), (5.0, 1.0, 4), (0.02, 1.0, 6), (300.0, 0.001, 9)]


def _jacobians() -> list[tuple[Tensor, int]]:
    small = torch.tensor([[0.5, 1.0, -0.5], [-1.0, -0.5, 0.25], [0.0, -0.25, 0.5]])
    # One feature of the best pair alone does the wrong thing to the others.
    mixed = torch.tensor([[0.1, 4.0, 0.2, 0.1], [-2.0, 1.0, -0.1, 0.0], [-1.0, 0.0, -0.1, 0.0]])
    # Both products positive: falls of the target and rises of the others are no gain.
    trap = torch.tensor([[-3.0, -2.0, 0.5, 0.25], [3.0, 2.0, -0.5, -0.25]])
    # The largest difference of alpha and beta is not the largest product.
    uneven = torch.tensor([[5.0, 4.75, 2.25, 2.0], [-0.5, -0.5, -2.0, -2.25]])
    wide = 2 * points(3, 12, seed=6) - 1
    return [(small, 0), (mixed, 0), (trap, 0), (uneven, 0), (wide, 2), (wide, 0)]


def _all_pairs(jacobian: Tensor, target: int) -> tuple[int, int]:
    rows, best = jacobian.tolist(), (-math.inf, 0, 0)
    width = len(rows[0])
    for p in range(width):
        for q in range(p + 1, width):
            alpha = rows[target][p] + rows[target][q]
            beta = sum(row[p] + row[q] for k, row in enumerate(rows) if k != target)
            if alpha > 0 and beta < 0:
                best = max(best, (-alpha * beta, p, q))
    return best[1], best[2]


def _two(function: Function, jacobian: Tensor, target: int) -> str:
    first, second = function(jacobian, target)
    return "" if 0 <= first < second < jacobian.shape[1] else f"got {(first, second)}"


def _useful(function: Function, jacobian: Tensor, target: int) -> str:
    pair = list(function(jacobian, target))
    alpha = jacobian[target, pair].sum().item()
    beta = jacobian[:, pair].sum().item() - alpha
    return "" if alpha > 0 > beta else f"got {tuple(pair)} with alpha {alpha:.3g}, beta {beta:.3g}"


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
    Task(
        answer=next_constant,
        chapter=5,
        difficulty="medium",
        minutes=15,
        statement="""One step of the search for the smallest c at which the attack succeeds. Given
        the c that was tried, the bounds low and high (infinity at first) and whether it succeeded,
        return the next c and the new bounds, (c, low, high). A success lowers high, a failure
        raises low; the next c is halfway, or ten times c while no c has succeeded.""",
        hints=(
            "math.inf is the float infinity; halfway to it is infinity.",
            "Bounds only close in: high = min(high, c) and low = max(low, c).",
            "Update one bound, then c = 10 * c if high is still infinite, else (low + high) / 2.",
        ),
        properties=[
            agrees(
                _reference_constant,
                _constants,
                "too small a c never fools, too large a c forgets the distance.",
            ),
            Property(
                "brackets",
                "return a c between the bounds",
                "outside them the answer is known already.",
                _brackets,
                lambda: _constants()[:5],
            ),
            Property(
                "converges",
                "close in on the smallest c that succeeds",
                "this is what the search is for.",
                _converges,
                lambda: [(0.5,), (70.0,), (0.0002,)],
            ),
        ],
    ),
    Task(
        answer=search_over_c,
        chapter=5,
        difficulty="medium",
        minutes=20,
        statement="""Now the whole search: `succeeds(c)` runs an attack and tells whether it fooled
        the model. Start at `start`, ask exactly `steps` times, and return the smallest c that
        succeeded, or math.inf if none did. An attack can fail at a larger c than one that
        succeeded: never forget the best.""",
        hints=(
            "Keep low, high, c and the best so far; low is 0 and the others infinite at first.",
            "The loop body is next_constant, and a line for the best.",
            "best = min(best, c) after a success; return best, not high, not the last c.",
        ),
        properties=[
            Property(
                "asks",
                "ask `steps` times from `start` on, and return the smallest success",
                "each question is a whole attack: the search is the price of the method.",
                _calls,
                _searches,
            ),
            Property(
                "failure",
                "return infinity where nothing succeeded",
                "a c that failed, reported as a success, is a wrong figure.",
                _hopeless,
                lambda: [(1,), (9,)],
            ),
            Property(
                "converges",
                "come near to the smallest c that succeeds",
                "c decides how small the perturbation can be.",
                _converges_to,
                lambda: [(0.5, 30), (70.0, 30), (0.0002, 30)],
            ),
        ],
    ),
    Task(
        answer=saliency_pair,
        chapter=5,
        difficulty="hard",
        minutes=25,
        statement="""Find the pair of features that JSMA changes. The Jacobian has shape (n_classes,
        n_features). For a pair, alpha is the sum of the target's two slopes, and beta the sum of
        the two slopes of all other classes. Return, as (p, q) with p < q, the pair with the largest
        -alpha * beta among those with alpha > 0 and beta < 0.""",
        hints=(
            "Two vectors suffice: the target's row, and the sum of the other rows.",
            "rise[:, None] + rise[None, :] is alpha for all pairs at once.",
            "Set wrong signs and the diagonal to -inf; argmax and divmod give p and q.",
        ),
        properties=[
            Property(
                "pair",
                "return two different places, the smaller first",
                "a feature that is at its bound cannot be raised twice.",
                _two,
                _jacobians,
            ),
            Property(
                "signs",
                "return a pair that raises the target and lowers the others",
                "the product of two wrong signs is positive too.",
                _useful,
                _jacobians,
            ),
            agrees(
                _all_pairs,
                _jacobians,
                "the pair is judged by its sums, where one feature makes up for the other.",
            ),
            depends(
                lambda: _jacobians()[4],
                "the pair serves one target.",
                jacobian=_jacobians()[4][0].flip(1),
                target=0,
            ),
        ],
    ),
]
