"""Chapter 1: soft labels and temperature."""

import math

import torch
from torch import Tensor

from .. import functional
from ..testing._functions import SOFTMAX, TEMPERATURES
from ._properties import agrees, depends, differ, finite, gradient, large, logits
from ._task import Function, Promise, Property, Task


def softmax_at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return the softmax of logits / temperature, row by row."""
    shifted = logits - logits.amax(dim=1, keepdim=True)
    powers = (shifted / temperature).exp()
    return powers / powers.sum(dim=1, keepdim=True)


def stable_log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Return the logarithm of the softmax of logits / temperature, row by row."""
    scaled = logits / temperature
    return scaled - scaled.logsumexp(dim=1, keepdim=True)


def entropy_at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return the entropy of each row's softmax at the temperature, in nats."""
    log_p = torch.log_softmax(logits / temperature, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def soft_cross_entropy(logits: Tensor, soft_targets: Tensor, temperature: float) -> Tensor:
    """Return each row's cross-entropy of its softmax at the temperature with soft targets."""
    log_q = torch.log_softmax(logits / temperature, dim=1)
    return -(soft_targets * log_q).sum(dim=1)


_SOFTMAX_WHY = {
    "sums-to-one": "soft labels are probabilities: a loss on anything else has another minimum.",
    "shift": "only differences of logits mean anything, and the stable form rests on it.",
    "temperature": "without T there are no soft labels: at T = 1 they are nearly one-hot.",
    "limits": "T tells how much of the ranking of the wrong classes a label keeps.",
    "order": "softening must not change the answer.",
    "overflow": "a network distilled at T = 100 has logits of hundreds; exp(89) is infinite.",
    "gradient": "training follows this gradient: a detach in it changes what is learned.",
}


def _normalises(function: Function, logits: Tensor, temperature: float) -> str:
    found = function(logits, temperature).exp().sum(dim=1)
    return differ(found, torch.ones(len(logits)).to(found))


def _divides(function: Function, logits: Tensor, temperature: float) -> str:
    return differ(function(logits, temperature), function(logits / temperature, 1.0))


def _shifts(function: Function, logits: Tensor, temperature: float) -> str:
    return differ(function(logits + 7, temperature), function(logits, temperature))


def _at_temperatures() -> list[tuple[Tensor, float]]:
    return [(logits()[:1], t) for t in TEMPERATURES]


def _far() -> list[tuple[Tensor, float]]:
    return [(row[None], t) for t in (1.0, 20.0) for row in large()]


def _grows(function: Function, logits: Tensor, temperature: float) -> str:
    cool, hot = function(logits, temperature), function(logits, 2 * temperature)
    return "" if bool((cool < hot).all()) else f"got {cool.tolist()} and {hot.tolist()} at twice T"


def _bounds(function: Function, logits: Tensor, temperature: float) -> str:
    most = math.log(logits.shape[1]) if temperature > 1 else 0.0
    return differ(function(logits, temperature), torch.full((len(logits),), most), 1e-3)


def _targets(temperature: float = 1.0) -> Tensor:
    return functional.softmax(logits().roll(1, 0), temperature)


def _soft_cases() -> list[tuple[Tensor, Tensor, float]]:
    one = [(logits()[:1], _targets(t)[:1], t) for t in TEMPERATURES[1:]]
    return [*one, (logits(), _targets(), 5.0)]


def _lowest_at_target(function: Function, logits: Tensor, temperature: float) -> str:
    target = functional.softmax(logits, temperature)
    here = function(logits, target, temperature)
    beside = function(logits + torch.eye(5)[:1], target, temperature)
    return "" if bool((here < beside).all()) else f"got {here.tolist()}, and less beside it"


TASKS = [
    Task(
        answer=softmax_at_temperature,
        chapter=1,
        difficulty="easy",
        minutes=10,
        statement="""Write the softmax at temperature T: exp(z_i / T) over the sum of exp(z_j / T),
        for each row of a tensor of shape (n, n_classes). It must survive logits of 10,000 in
        float32. Do without torch.softmax.""",
        hints=(
            "First write it as the formula stands, with dim=1 and keepdim=True in the sum.",
            "exp overflows above 88 in float32. A number added to a whole row changes nothing: "
            "which number makes every exponent at most 0?",
            "Subtract logits.amax(dim=1, keepdim=True), then divide by T, then exp, then divide "
            "by the sum.",
        ),
        properties=[Promise(each, _SOFTMAX_WHY[each.promise]) for each in SOFTMAX],
    ),
    Task(
        answer=stable_log_softmax,
        chapter=1,
        difficulty="medium",
        minutes=10,
        statement="""Write the logarithm of the softmax at temperature T, for each row of logits.
        The softmax of a confident network contains zeros, whose logarithm is minus infinity: get
        there without taking the logarithm of a softmax. Do without torch.log_softmax.""",
        hints=(
            "log(a / b) = log a - log b, and the logarithm undoes the exp of the numerator.",
            "What remains is z_i / T minus log of the sum of exp(z_j / T).",
            "torch.logsumexp does the second term stably; keepdim=True lets it broadcast.",
        ),
        properties=[
            Property(
                "normalised",
                "have exponentials that sum to 1",
                "it is the logarithm of probabilities.",
                _normalises,
                _at_temperatures,
            ),
            Property(
                "temperature",
                "return for logits / T at T = 1 what it returns at T",
                "T divides the logits, not their exponentials or their logarithms.",
                _divides,
                _at_temperatures,
            ),
            Property(
                "shift",
                "not see a number added to all logits",
                "only differences of logits mean anything.",
                _shifts,
                _at_temperatures,
            ),
            finite(_far, "log(0) is minus infinity, and one such example makes a loss NaN."),
            agrees(
                functional.log_softmax,
                lambda: [*_at_temperatures(), (logits(), 3.0)],
                "far from the largest logit the values are large and negative, never cut off.",
            ),
            gradient(lambda: (3.0,)),
        ],
    ),
    Task(
        answer=entropy_at_temperature,
        chapter=1,
        difficulty="easy",
        minutes=10,
        statement="""How soft are soft labels? Return, for each row of logits, the entropy
        -sum p log p of its softmax at temperature T, in nats: 0 for a one-hot row, log n for a
        uniform one.""",
        hints=(
            "You need p and log p: the two functions that you have just written.",
            "0 times log 0 is NaN in floating point; with the log-softmax it is 0 times -1000.",
            "log_p = torch.log_softmax(logits / temperature, dim=1), and p is its exp.",
        ),
        properties=[
            Property(
                "limits",
                "tend to 0 as T falls and to log n as T grows",
                "this is the curve of the chapter: what T does to a label.",
                _bounds,
                lambda: [(logits()[:1], 1e6), (logits()[:1], 1e-3)],
            ),
            Property(
                "monotone",
                "grow with T",
                "a higher temperature never tells less about the other classes.",
                _grows,
                lambda: [*((logits()[:1], t) for t in (0.5, 1.0, 4.0, 20.0)), (logits(), 4.0)],
            ),
            Property(
                "shift",
                "not see a number added to all logits",
                "the entropy is that of the probabilities, not of the logits.",
                _shifts,
                _at_temperatures,
            ),
            finite(_far, "0 times log 0 is NaN, and a confident network has such rows."),
            agrees(
                lambda logits, temperature: torch.distributions.Categorical(
                    logits=logits / temperature
                ).entropy(),
                lambda: [*_at_temperatures(), (logits(), 3.0)],
                "nats, and a sum over classes rather than a mean.",
            ),
        ],
    ),
    Task(
        answer=soft_cross_entropy,
        chapter=1,
        difficulty="easy",
        minutes=10,
        statement="""Write the loss of distillation: for each row, -sum_i F_i log q_i, where F are
        the soft targets, rows of probabilities, and q is the softmax of the logits at temperature
        T. One value per example, no mean, no factor.""",
        hints=(
            "The targets are probabilities already: no softmax for them.",
            "Use the stable log-softmax, at T.",
            "-(soft_targets * torch.log_softmax(logits / temperature, dim=1)).sum(dim=1)",
        ),
        properties=[
            agrees(
                functional.soft_cross_entropy,
                _soft_cases,
                "one value per example: a mean hides which example costs what.",
            ),
            Property(
                "minimum",
                "be lowest where the softmax at T is the target",
                "otherwise the student learns something else than the teacher's answer.",
                _lowest_at_target,
                lambda: [*((logits()[:1], t) for t in (1.0, 20.0)), (logits(), 4.0)],
            ),
            finite(
                lambda: [(row[None], torch.full((1, 3), 1 / 3), 1.0) for row in large()],
                "the student's softmax rounds to zero long before its logits are unusual.",
            ),
            depends(
                lambda: (logits(), _targets(), 1.0),
                "a loss that ignores an argument trains, and teaches nothing of it.",
                logits=logits().roll(1, 1),
                soft_targets=_targets(20.0),
                temperature=20.0,
            ),
            gradient(lambda: (_targets(), 3.0)),
        ],
    ),
]
