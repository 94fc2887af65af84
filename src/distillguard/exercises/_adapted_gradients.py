"""Chapter 6: gradients for models that hide or randomise theirs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._properties import differ
from ._task import Function, Property, Task


def straight_through(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return the function's values with the gradient of the identity."""
    return inputs + (function(inputs) - inputs).detach()


def averaged_gradient(loss: Callable[[Tensor], Tensor], inputs: Tensor, draws: int) -> Tensor:
    """Return the mean of a random loss's gradients by the inputs over so many draws."""
    inputs = inputs.detach().requires_grad_()
    mean = torch.stack([loss(inputs).sum() for _ in range(draws)]).mean()
    (gradient,) = torch.autograd.grad(mean, inputs)
    return gradient


def _quantised(inputs: Tensor) -> Tensor:
    return (inputs * 4).round() / 4


def _bpda_cases() -> list[tuple[Callable[[Tensor], Tensor], Tensor]]:
    rows = torch.tensor([[0.3, 0.6], [0.9, 0.1]])
    return [(_quantised, rows[:1]), (_quantised, rows), (torch.square, rows)]


def _values(function: Function, layer: Function, inputs: Tensor) -> str:
    return differ(function(layer, inputs), layer(inputs))


def _identity_slope(function: Function, layer: Function, inputs: Tensor) -> str:
    x = inputs.clone().requires_grad_()
    found = function(layer, x)
    if not found.requires_grad:
        return "got a result without a gradient"
    weights = torch.arange(1.0, 1 + x.numel()).view_as(x)
    (slope,) = torch.autograd.grad((weights * found).sum(), x)
    return differ(slope, weights)


def _asked_once(function: Function, layer: Function, inputs: Tensor) -> str:
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x)
        return layer(x)

    function(watched, inputs)
    return "" if len(seen) == 1 else f"it called the function {len(seen)} times"


class _Noisy:
    """A loss whose slopes are 1 to n and noise, and which counts its calls."""

    def __init__(self, noise: float) -> None:
        self.noise, self.calls = noise, 0
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        slopes = torch.arange(1.0, 1 + inputs[0].numel())
        noise = self.noise * torch.randn(slopes.shape, generator=self.generator)
        return inputs.flatten(1) @ (slopes + noise)


def _expected(function: Function, noise: float, draws: int) -> str:
    found = function(_Noisy(noise), torch.zeros(2, 3), draws)
    slopes = torch.tensor([[1.0, 2.0, 3.0]] * 2)
    if found.shape != slopes.shape:
        return f"got shape {tuple(found.shape)}"
    far = (found - slopes).abs().max().item()
    allowed = 1e-5 + 5 * noise / math.sqrt(draws)
    return "" if far < allowed else f"got a gradient {far:.3g} away from the mean's"


def _draws(function: Function, draws: int) -> str:
    loss = _Noisy(1.0)
    function(loss, torch.zeros(1, 3), draws)
    return "" if loss.calls == draws else f"it drew {loss.calls} times"


def _exact(function: Function, draws: int) -> str:
    """The mean over the very draws that were made, by a generator of the same seed."""
    loss = _Noisy(1.0)
    seen = [torch.randn(3, generator=loss.generator) for _ in range(draws)]
    slopes = torch.arange(1.0, 4.0) + torch.stack(seen).mean(dim=0)
    return differ(function(_Noisy(1.0), torch.zeros(1, 3), draws), slopes[None])


def _plain(function: Function, draws: int) -> str:
    found = function(_Noisy(0.0), torch.zeros(1, 3, requires_grad=True), draws)
    return "got a result that carries a graph" if found.requires_grad else ""


TASKS = [
    Task(
        answer=straight_through,
        chapter=6,
        difficulty="medium",
        minutes=15,
        statement="""A defence rounds the image before the network, and every gradient through it is
        zero. Return function(inputs), but with the gradient of the identity: the backward pass
        differentiable approximation (BPDA) in one line.""",
        hints=(
            "The value and the gradient may come from different terms of a sum.",
            "detach() keeps a value and drops its gradient.",
            "inputs + (function(inputs) - inputs).detach()",
        ),
        properties=[
            Property(
                "values",
                "return the function's values",
                "the attack is judged on the defended model, not on one without the defence.",
                _values,
                _bpda_cases,
            ),
            Property(
                "identity-gradient",
                "have the gradient of the identity",
                "a gradient of zero leaves the attack standing where it started.",
                _identity_slope,
                _bpda_cases,
            ),
            Property(
                "asked-once",
                "call the function once",
                "a random defence would answer differently the second time.",
                _asked_once,
                _bpda_cases,
            ),
        ],
    ),
    Task(
        answer=averaged_gradient,
        chapter=6,
        difficulty="medium",
        minutes=15,
        statement="""A defence adds noise, and every gradient is another one. `loss(inputs)` returns
        one random value per example. Return the gradient by the inputs of its mean over `draws`
        draws: the expectation over transformation (EOT).""",
        hints=(
            "The gradient of a mean is the mean of the gradients.",
            "Each draw is a new call of loss; one call times ten is still one draw.",
            "Sum loss(inputs).sum() over the draws, divide by draws, then torch.autograd.grad.",
        ),
        properties=[
            Property(
                "draws",
                "draw exactly so many times",
                "one draw repeated has the noise of one draw.",
                _draws,
                lambda: [(1,), (10,)],
            ),
            Property(
                "mean",
                "be the mean over the draws",
                "a sum is `draws` times too long, and changes the step of any l2 attack.",
                _exact,
                lambda: [(1,), (5,)],
            ),
            Property(
                "expectation",
                "come near to the gradient of the expectation",
                "the attacker wants what holds on average, for each example of the batch.",
                _expected,
                lambda: [(0.0, 3), (1.0, 400)],
            ),
            Property(
                "no-graph",
                "return a tensor without a graph",
                "it is a direction to go, not something to be differentiated again.",
                _plain,
                lambda: [(2,)],
            ),
        ],
    ),
]
