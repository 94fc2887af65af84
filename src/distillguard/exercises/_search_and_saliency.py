"""Chapter 5: the search over c, and the pair of features of JSMA."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._properties import agrees, depends, differ, points
from ._task import Function, Property, Task


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
    # Here it does as much wrong to the others as the other one does right: the pair is no gain.
    undone = torch.tensor([[0.1, 4.0, 0.2, 0.1], [-1.0, 4.0, -0.1, 0.0], [-1.0, 0.0, -0.1, 0.0]])
    # Both products positive: falls of the target and rises of the others are no gain.
    trap = torch.tensor([[-3.0, -2.0, 0.5, 0.25], [3.0, 2.0, -0.5, -0.25]])
    # The largest difference of alpha and beta is not the largest product.
    uneven = torch.tensor([[5.0, 4.75, 2.25, 2.0], [-0.5, -0.5, -2.0, -2.25]])
    wide = 2 * points(3, 12, seed=6) - 1
    return [(small, 0), (mixed, 0), (trap, 0), (uneven, 0), (wide, 2), (wide, 0), (undone, 0)]


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
