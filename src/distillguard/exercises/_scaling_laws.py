"""Chapter 8: scaling laws."""

import math

import torch
from torch import Tensor

from ..scaling_laws import BARTOLDSON2024_PARAMETRIC, ParametricLaw
from ._properties import agrees, depends, differ
from ._task import Function, Property, Task


def power_law(compute: Tensor, loss: Tensor) -> tuple[float, float]:
    """Return coefficient and exponent (a, b) of loss = a / compute**b, fitted in logarithms."""
    x, y = compute.double().log(), loss.double().log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return math.exp(y.mean() - slope * x.mean()), -slope.item()


def compute_optimal_size(
    flops: float, A: float, B: float, alpha: float, beta: float, flops_factor: float
) -> float:
    """Return the N that minimises A / N**alpha + B / D**beta with flops = flops_factor * N * D."""
    balance = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return balance * (flops / flops_factor) ** (beta / (alpha + beta))


def _compute() -> Tensor:
    return torch.tensor([1e15, 1e16, 1e18, 1e19], dtype=torch.float64)


def _exact_line(function: Function, a: float, b: float) -> str:
    return differ(function(_compute(), a / _compute() ** b), (a, b))


def _lines() -> list[tuple[float, float]]:
    return [(2.0, 0.5), (3.79, 0.035), (1.0, 1.0)]


def _noisy() -> list[tuple[Tensor, Tensor]]:
    bent = torch.tensor([1.1, 0.9, 1.05, 0.98], dtype=torch.float64)
    return [(_compute(), 3.0 / _compute() ** 0.1 * bent)]


def _by_polynomial(compute: Tensor, loss: Tensor) -> tuple[float, float]:
    import numpy as np

    slope, level = np.polyfit(np.log(compute.numpy()), np.log(loss.numpy()), 1)
    return float(np.exp(level)), -float(slope)


def _units(function: Function, factor: float) -> str:
    loss = _noisy()[0][1]
    a, b = function(_compute(), loss)
    return differ(function(_compute() * factor, loss), (a * factor**b, b))


def _scales(function: Function, factor: float) -> str:
    compute, loss = _noisy()[0]
    a, b = function(compute, loss)
    return differ(function(compute, loss * factor), (a * factor, b))


_LAW = BARTOLDSON2024_PARAMETRIC
_PUBLISHED = (_LAW.A, _LAW.B, _LAW.alpha, _LAW.beta, _LAW.flops_factor)


def _budgets() -> list[tuple[float, float, float, float, float, float]]:
    return [
        (100.0, 1.0, 1.0, 0.5, 0.5, 1.0),
        (100.0, 4.0, 1.0, 0.5, 0.5, 4.0),
        (1e6, 3.0, 2.0, 0.5, 0.25, 6.0),
        (1e20, *_PUBLISHED),
    ]


def _by_law(
    flops: float, A: float, B: float, alpha: float, beta: float, flops_factor: float
) -> float:
    law = ParametricLaw(A=A, B=B, E=1.0, alpha=alpha, beta=beta, flops_factor=flops_factor)
    return float(law.compute_optimal(flops).parameters)


def _relative(function: Function, flops: float, *rest: float) -> str:
    ratio = function(flops, *rest) / _by_law(flops, *rest)
    return differ(ratio, 1.0) and f"got {ratio:.5g} times the library's"


def _stationary(function: Function, flops: float, *rest: float) -> str:
    A, B, alpha, beta, factor = rest
    size = function(flops, *rest)

    def loss(n: float) -> float:
        return A / n**alpha + B / (flops / factor / n) ** beta

    here = loss(size)
    better = [f for f in (0.5, 0.99, 1.01, 2.0) if loss(f * size) < here]
    return f"got {size:.5g}; {better[0]} times as many parameters lose less" if better else ""


def _exponent(function: Function, flops: float, *rest: float) -> str:
    _, _, alpha, beta, _ = rest
    growth = math.log10(function(10 * flops, *rest) / function(flops, *rest))
    return differ(growth, beta / (alpha + beta))


TASKS = [
    Task(
        answer=power_law,
        chapter=8,
        difficulty="medium",
        minutes=15,
        statement="""Losses of the best runs fall as a power of the compute: loss = a / compute**b.
        Given the two columns as tensors, return (a, b) as floats, by the least squares of the
        logarithms. Bartoldson and others found a = 3.79 and b = 0.035.""",
        hints=(
            "Take logarithms: log loss = log a - b log compute, a straight line.",
            "The slope is the sum of products of deviations over the sum of squared deviations.",
            "b is minus the slope; a is exp(mean of y - slope * mean of x). Compute in float64.",
        ),
        properties=[
            Property(
                "exact",
                "find the law that made the losses",
                "runs on the line leave no doubt.",
                _exact_line,
                _lines,
            ),
            agrees(
                _by_polynomial,
                _noisy,
                "all runs count, not the first and the last alone; errors of log-losses, not of "
                "losses.",
            ),
            Property(
                "units",
                "find the same exponent when compute is measured in another unit",
                "an exponent has no unit; the coefficient takes it up.",
                _units,
                lambda: [(1e-3,), (27.0,)],
            ),
            Property(
                "scale",
                "multiply the coefficient when the losses are multiplied",
                "a factor of all losses is no matter of the exponent.",
                _scales,
                lambda: [(2.0,)],
            ),
        ],
    ),
    Task(
        answer=compute_optimal_size,
        chapter=8,
        difficulty="hard",
        minutes=25,
        statement="""How large a network for a budget? The loss is A / N**alpha + B / D**beta + E
        for N parameters and D examples, and training costs flops = flops_factor * N * D. Return the
        N with the lowest loss.""",
        hints=(
            "Replace D by flops / (flops_factor * N): one variable is left.",
            "At the optimum the derivative is zero: alpha A / N**alpha = beta B / D**beta.",
            "N = (alpha A / (beta B))**(1/s) * (flops / flops_factor)**(beta/s), s = alpha + beta.",
        ),
        properties=[
            Property(
                "optimal",
                "lose no more than half, twice and 1 % beside it",
                "this is what optimal means, and it can be checked without a formula.",
                _stationary,
                _budgets,
            ),
            Property(
                "exponent",
                "grow as flops to the beta / (alpha + beta)",
                "of ten times the compute, so much goes into the network.",
                _exponent,
                _budgets,
            ),
            Property(
                "agrees",
                "agree with the library's law",
                "at 1e20 FLOPs Bartoldson's law asks for 54 million parameters.",
                _relative,
                _budgets,
            ),
            depends(
                lambda: (1e6, 3.0, 2.0, 0.5, 0.25, 6.0),
                "each coefficient moves the balance of size and data.",
                flops=1e7,
                A=4.0,
                B=4.0,
                alpha=0.25,
                beta=0.5,
                flops_factor=12.0,
            ),
        ],
    ),
]
