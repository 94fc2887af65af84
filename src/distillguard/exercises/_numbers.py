"""Chapter 6: the figures of an evaluation."""

import math

import torch
from torch import Tensor

from .. import functional
from ..evaluation._statistics import wilson
from ..testing._functions import LOSS
from ._properties import agrees, differ, labels, logits
from ._task import Function, Promise, Property, Task


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio, one value per example."""
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    ordered = logits.sort(dim=1, descending=True).values
    spread = ordered[:, 0] - ordered[:, 2] + 1e-12
    return (others - logits.gather(1, labels[:, None]).squeeze(1)) / spread


def worst_case_accuracy(correct: Tensor) -> float:
    """Return the share of examples that every attack left correct; correct is (n_attacks, n)."""
    return correct.bool().all(dim=0).double().mean().item()


def wilson_interval(count: int, n: int, z: float) -> tuple[float, float]:
    """Return the lower and upper end of Wilson's interval of the share count / n."""
    share, weight = count / n, z**2 / n
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


_LOSS_WHY = {
    "one-value-each": "an example's attack must not depend on its neighbours.",
    "shift": "only differences of logits mean anything.",
    "overflow": "logits of any size must do; that is what the ratio is for.",
    "depends": "a loss without the label attacks whatever class stands there.",
    "gradient": "the attack follows this gradient.",
}


def _scales(function: Function, logits: Tensor, labels: Tensor, factor: float) -> str:
    return differ(function(factor * logits, labels), function(logits, labels))


def _rows() -> tuple[Tensor, Tensor]:
    rows = torch.tensor([[4.0, 2.0, 1.0, 0.0], [-1.0, -2.0, -4.0, -8.0]], dtype=torch.float64)
    return rows, torch.tensor([0, 2])


def _scaled() -> list[tuple[Tensor, Tensor, float]]:
    rows, y = _rows()
    return [(rows[:1], y[:1], 20.0), (rows[:1], y[:1], 0.125), (logits(), labels(), 100.0)]


def _dlr_bound(function: Function, logits: Tensor, labels: Tensor) -> str:
    found = function(logits, labels)
    right = logits.argmax(dim=1) == labels
    good = bool(((found >= -1) & (found <= 0))[right].all() and (found > 0)[~right].all())
    return "" if good else f"got {found.tolist()}"


def _tables() -> list[tuple[Tensor]]:
    rows = [[[True, False]], [[True, False], [False, True]], [[True, True, False]] * 2]
    mixed = [[True, True, False, True], [True, False, False, True], [False, True, False, True]]
    return [(torch.tensor(each),) for each in (*rows, mixed)]


def _not_above(function: Function, correct: Tensor) -> str:
    found, best = function(correct), correct.double().mean(dim=1).min().item()
    return "" if found <= best + 1e-9 else f"got {found}, above the strongest attack's {best}"


def _order(function: Function, correct: Tensor) -> str:
    return differ(function(correct.flip(0)), function(correct))


def _another(function: Function, correct: Tensor) -> str:
    more = torch.cat([correct, torch.zeros_like(correct[:1])])
    return differ(function(more), 0.0)


def _by_hand(correct: Tensor) -> float:
    columns = list(zip(*correct.tolist(), strict=True))
    return sum(all(column) for column in columns) / len(columns)


_Z = 1.959963984540054


def _counts() -> list[tuple[int, int, float]]:
    return [(c, n, _Z) for n in (1, 10, 200) for c in sorted({0, n // 2, n})] + [(190, 200, 1.0)]


def _by_roots(count: int, n: int, z: float) -> tuple[float, float]:
    """Where the test of a share p by its own standard error just rejects: a quadratic in p."""
    a, b, c = 1 + z * z / n, -2 * count / n - z * z / n, (count / n) ** 2
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _in_unit(function: Function, count: int, n: int, z: float) -> str:
    low, high = function(count, n, z)
    good = -1e-12 <= low < high <= 1 + 1e-12 and low - 1e-9 <= count / n <= high + 1e-9
    return "" if good else f"got ({low}, {high})"


def _mirrors(function: Function, count: int, n: int, z: float) -> str:
    low, high = function(n - count, n, z)
    return differ(function(count, n, z), (1 - high, 1 - low))


def _shrinks(function: Function, share: float, n: int) -> str:
    def width(size: int) -> float:
        low, high = function(round(share * size), size, _Z)
        return high - low

    ratio = width(n) / width(100 * n)
    return "" if 8 < ratio < 12 else f"got an interval {ratio:.3g} times as wide"


def _as_library(function: Function, count: int, n: int) -> str:
    return differ(function(count, n, _Z), wilson(count, n))


TASKS = [
    Task(
        answer=dlr_loss,
        chapter=6,
        difficulty="medium",
        minutes=15,
        statement="""Write AutoAttack's difference of logits ratio: the margin (largest other logit
        minus the label's) divided by the largest logit minus the third largest. Add 1e-12 to the
        divisor. One value per example, for three classes or more.""",
        hints=(
            "The numerator is the margin that you have written.",
            "logits.sort(dim=1, descending=True).values has the three largest in front.",
            "The divisor is of the largest logits of all, whether or not the label is among them.",
        ),
        properties=[
            *(Promise(each, _LOSS_WHY[each.promise]) for each in LOSS),
            Property(
                "scale",
                "not see a positive factor of the logits",
                "distillation multiplies logits by T; a loss that does not see it is not fooled.",
                _scales,
                _scaled,
            ),
            Property(
                "range",
                "lie within -1 and 0 where the label is right, and above 0 where it is wrong",
                "the sign tells success, and the ratio has no unit.",
                _dlr_bound,
                lambda: [_rows(), (logits(), labels())],
            ),
            agrees(
                functional.dlr_loss,
                lambda: [(_rows()[0][:1], _rows()[1][:1]), _rows(), (logits(), labels())],
                "with the second largest logit in the divisor the loss is -1 wherever it is right.",
            ),
        ],
    ),
    Task(
        answer=worst_case_accuracy,
        chapter=6,
        difficulty="easy",
        minutes=5,
        statement="""Several attacks were run. `correct` is a bool tensor of shape (n_attacks, n):
        whether the model was still right. Return the robust accuracy as a float: the share of
        examples that no attack fooled.""",
        hints=(
            "The attacker may choose the attack anew for every example.",
            "First over the attacks, then the mean over the examples.",
            "correct.all(dim=0).double().mean().item()",
        ),
        properties=[
            agrees(
                _by_hand,
                _tables,
                "an example is robust if nothing fooled it; the minimum of means is too kind.",
            ),
            Property(
                "strongest",
                "be no larger than what the strongest attack leaves",
                "a mean over attacks lets a failed attack improve the figure.",
                _not_above,
                _tables,
            ),
            Property(
                "order",
                "not see the order of the attacks",
                "it is a set of attacks.",
                _order,
                _tables,
            ),
            Property(
                "another",
                "be 0 when one more attack fools everything",
                "one attack is enough.",
                _another,
                _tables,
            ),
        ],
    ),
    Task(
        answer=wilson_interval,
        chapter=6,
        difficulty="medium",
        minutes=15,
        statement="""Robust accuracy on 200 images is a count, and a count has an interval. With
        p = count / n, return (low, high) of Wilson's: the centre is (p + z²/2n) / (1 + z²/n), and
        half the width z sqrt(p (1 - p) / n + z²/4n²) / (1 + z²/n). For 95 %, z is 1.96.""",
        hints=(
            "Compute p and w = z² / n first; the formulas are short in them.",
            "Under the root stands w / (4 n): z² / 4n² is that.",
            "At 0 and at n rounding can lead a hair outside of 0 and 1.",
        ),
        properties=[
            agrees(_by_roots, _counts, "the simple interval has no width at 0 of n and at n of n."),
            Property(
                "range",
                "lie within 0 and 1, hold count / n and have a width",
                "0 of 10 is no proof of 0.",
                _in_unit,
                _counts,
            ),
            Property(
                "mirror",
                "mirror when right and wrong change places",
                "accuracy and error are the same count.",
                _mirrors,
                _counts,
            ),
            Property(
                "width",
                "be ten times as narrow with a hundred times as many examples",
                "half the interval costs four times the images.",
                _shrinks,
                lambda: [(0.5, 100), (0.25, 400)],
            ),
            Property(
                "library",
                "be the interval that a report prints",
                "the two can be compared.",
                _as_library,
                lambda: [(0, 10), (95, 200), (200, 200)],
            ),
        ],
    ),
]
