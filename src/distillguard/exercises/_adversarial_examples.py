"""Chapter 3: adversarial examples."""

import torch
from torch import Tensor, nn

from .. import attacks
from .._geometry import ball
from ._properties import Line, agrees, depends, differ, network, points
from ._task import Function, Property, Task


def fgsm_step(model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Return the inputs moved by epsilon along the sign of the loss's gradient, within [0, 1]."""
    inputs = inputs.detach().requires_grad_()
    loss = nn.functional.cross_entropy(model(inputs), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    return (inputs + epsilon * gradient.sign()).clamp(0, 1).detach()


def project_linf(points: Tensor, inputs: Tensor, epsilon: float) -> Tensor:
    """Return the nearest points within epsilon of the inputs, coordinate by coordinate."""
    near = torch.minimum(torch.maximum(points, inputs - epsilon), inputs + epsilon)
    return near.clamp(0, 1)


def project_l2(points: Tensor, inputs: Tensor, epsilon: float) -> Tensor:
    """Return the nearest points within a Euclidean distance epsilon of the inputs."""
    delta = points - inputs
    length = delta.flatten(1).norm(dim=1).clamp(min=1e-12)
    factor = (epsilon / length).clamp(max=1)
    return inputs + delta * factor.view(-1, *[1] * (delta.ndim - 1))


def pgd_attack(
    model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, step_size: float, steps: int
) -> Tensor:
    """Return what `steps` projected steps along the sign of the gradient lead to."""
    current = inputs
    for _ in range(steps):
        current = current.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(current), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, current)
        moved = current + step_size * gradient.sign()
        current = torch.minimum(torch.maximum(moved, inputs - epsilon), inputs + epsilon)
        current = current.clamp(0, 1)
    return current.detach()


def _line() -> nn.Module:
    return Line([1.0, -0.5, 0.25, 0.0], [-1.0, 0.5, 0.5, 0.0], [0.0, 0.0, -1.0, 0.0])


def _attacked(n: int = 6, epsilon: float = 0.125) -> tuple[nn.Module, Tensor, Tensor, float]:
    return network(), points(n), network()(points(n)).argmax(dim=1), epsilon


def _fgsm_cases() -> list[tuple[nn.Module, Tensor, Tensor, float]]:
    middle = torch.full((1, 4), 0.5)
    corner = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    label = torch.tensor([0])
    return [
        (_line(), middle, label, 0.125),
        (_line(), corner, label, 0.125),
        (_line(), middle, label, 0.25),
        _attacked(),
    ]


def _in_bounds(
    function: Function, model: nn.Module, inputs: Tensor, labels: Tensor, *rest: float
) -> str:
    found = function(model, inputs, labels, *rest)
    low, high = found.min().item(), found.max().item()
    return "" if low >= 0 and high <= 1 else f"got values from {low:.4g} to {high:.4g}"


def _within(
    function: Function, model: nn.Module, inputs: Tensor, labels: Tensor, *rest: float
) -> str:
    far = (function(model, inputs, labels, *rest) - inputs).abs().max().item()
    return "" if far <= rest[0] + 1e-6 else f"got a point {far:.4g} away"


def _climbs(
    function: Function, model: nn.Module, inputs: Tensor, labels: Tensor, *rest: float
) -> str:
    loss = nn.CrossEntropyLoss()
    before = loss(model(inputs), labels).item()
    after = loss(model(function(model, inputs, labels, *rest)), labels).item()
    return "" if after > before else f"got a loss of {after:.4f} after {before:.4f}"


def _borrows(
    function: Function, model: nn.Module, inputs: Tensor, labels: Tensor, *rest: float
) -> str:
    found = function(model, inputs, labels, *rest)
    if any(weight.grad is not None for weight in model.parameters()):
        return "got gradients left in the model's parameters"
    return "got a result that carries a graph" if found.requires_grad else ""


def _alone(
    function: Function, model: nn.Module, inputs: Tensor, labels: Tensor, *rest: float
) -> str:
    alone = function(model, inputs[:1], labels[:1], *rest)
    return differ(function(model, inputs, labels, *rest)[:1], alone)


def _library_fgsm(model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    return attacks.fgsm(model, inputs, labels, epsilon=epsilon)


_BOUNDS_WHY = "a pixel of 1.1 is no image, and no camera could hand it to the model."
_BUDGET_WHY = "success outside the budget says nothing about the model."
_BORROWS_WHY = "gradients left behind are added to the next training step."
_FGSM_MORE = [
    Property("bounds", "stay within 0 and 1", _BOUNDS_WHY, _in_bounds, _fgsm_cases),
    Property("budget", "stay within epsilon", _BUDGET_WHY, _within, _fgsm_cases),
    Property(
        "loss-rises",
        "raise the cross-entropy",
        "an attack climbs the loss; training descends it.",
        _climbs,
        lambda: _fgsm_cases()[2:],
    ),
    Property(
        "borrowed-model", "leave the model without gradients", _BORROWS_WHY, _borrows, _fgsm_cases
    ),
    Property(
        "one-by-one",
        "give an example alone what it gives it in a batch",
        "examples are attacked together for speed alone.",
        _alone,
        lambda: [_attacked()],
    ),
]


def _linf(points: Tensor, inputs: Tensor, epsilon: float) -> Tensor:
    return (inputs + ball("linf").project(points - inputs, epsilon)).clamp(0, 1)


def _l2(points: Tensor, inputs: Tensor, epsilon: float) -> Tensor:
    return inputs + ball("l2").project(points - inputs, epsilon)


def _projected(n: int = 4) -> tuple[Tensor, Tensor, float]:
    far = points(n, 3, seed=2) * torch.tensor([0.5, 2.0, 4.0, 1.0])[:n, None] - 0.5
    return far, points(n, 3), 0.25


def _images() -> tuple[Tensor, Tensor, float]:
    return 2 * points(3, 8).view(3, 2, 2, 2) - 0.5, points(3, 8, seed=4).view(3, 2, 2, 2), 0.25


def _ball_cases() -> list[tuple[Tensor, Tensor, float]]:
    near = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[0.5, 0.5, 0.375]]), 0.25
    return [_projected(1), near, _projected(), _images()]


def _idempotent(function: Function, points: Tensor, inputs: Tensor, epsilon: float) -> str:
    once = function(points, inputs, epsilon)
    return differ(function(once, inputs, epsilon), once)


def _fixed(function: Function, points: Tensor, epsilon: float) -> str:
    return differ(function(points, points, epsilon), points)


def _inside(order: float) -> Function:
    def fault(function: Function, points: Tensor, inputs: Tensor, epsilon: float) -> str:
        delta = (function(points, inputs, epsilon) - inputs).flatten(1)
        far = delta.norm(p=order, dim=1).max().item()
        return "" if far <= epsilon + 1e-6 else f"got a point {far:.4g} away"

    return fault


_PROJECTION_MORE = [
    Property(
        "idempotent",
        "change nothing the second time",
        "a projection of a point in the ball is that point.",
        _idempotent,
        _ball_cases,
    ),
    Property(
        "centre",
        "leave the inputs themselves, without a NaN",
        "an attack starts there, with a perturbation of length 0.",
        _fixed,
        lambda: [(torch.tensor([[0.5, 0.0, 1.0]]), 0.25)],
    ),
    depends(
        _projected,
        "the ball is around the input and as large as epsilon.",
        points=_projected()[0] + 0.125,
        inputs=_projected()[1].flip(0),
        epsilon=0.125,
    ),
]


def _pgd_cases() -> list[tuple[nn.Module, Tensor, Tensor, float, float, int]]:
    single = (_line(), torch.full((1, 4), 0.5), torch.tensor([0]), 0.25)
    edge = (_line(), torch.tensor([[0.0, 1.0, 0.0, 1.0]]), torch.tensor([0]), 0.25)
    return [(*single, 0.125, 1), (*single, 0.125, 4), (*edge, 0.125, 4), (*_attacked(), 0.0625, 5)]


def _reaches(
    function: Function,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
) -> str:
    found = (function(model, inputs, labels, epsilon, step_size, steps) - inputs).abs().max()
    return differ(found, torch.tensor(min(epsilon, step_size * steps)))


def _is_fgsm(
    function: Function, model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float
) -> str:
    found = function(model, inputs, labels, epsilon, epsilon, 1)
    return differ(found, _library_fgsm(model, inputs, labels, epsilon))


TASKS = [
    Task(
        answer=fgsm_step,
        chapter=3,
        difficulty="easy",
        minutes=15,
        statement="""Write the fast gradient sign method: move every value of the inputs by epsilon
        in the direction that raises the cross-entropy with the true labels, and keep the result
        within 0 and 1. Leave no gradients in the model.""",
        hints=(
            "The gradient is taken by the inputs, not by the weights.",
            "torch.autograd.grad(loss, inputs) leaves the model's parameters alone; "
            "loss.backward() does not.",
            "(inputs + epsilon * gradient.sign()).clamp(0, 1).detach()",
        ),
        properties=[
            agrees(
                _library_fgsm,
                _fgsm_cases,
                "the sign of the gradient is the steepest direction of the linf ball.",
            ),
            *_FGSM_MORE,
        ],
    ),
    Task(
        answer=project_linf,
        chapter=3,
        difficulty="easy",
        minutes=5,
        statement="""Return, for points that an attack has reached, the nearest points that lie
        within epsilon of the inputs in every coordinate and within 0 and 1.""",
        hints=(
            "Both conditions are a lowest and a highest value for each coordinate.",
            "torch.clamp takes tensors as min and max.",
            "points.clamp(inputs - epsilon, inputs + epsilon).clamp(0, 1)",
        ),
        properties=[
            Property(
                "budget", "stay within epsilon", _BUDGET_WHY, _inside(float("inf")), _ball_cases
            ),
            agrees(_linf, _ball_cases, "the nearest point of the set is the least change."),
            *_PROJECTION_MORE,
        ],
    ),
    Task(
        answer=project_l2,
        chapter=3,
        difficulty="medium",
        minutes=15,
        statement="""Return, for points of shape (n, ...), the nearest points whose Euclidean
        distance from the inputs is at most epsilon, each example by itself. A point inside stays
        where it is, and the centre is no exception. (There are no bounds here.)""",
        hints=(
            "Work with delta = points - inputs, and one length per example: flatten(1).",
            "Shorten what is too long: multiply by min(1, epsilon / length).",
            "A length of 0 gives 0 / 0: clamp the length from below, or take torch.where.",
        ),
        properties=[
            Property("budget", "stay within epsilon", _BUDGET_WHY, _inside(2.0), _ball_cases),
            agrees(_l2, _ball_cases, "the nearest point lies on the line to the centre."),
            *_PROJECTION_MORE,
        ],
    ),
    Task(
        answer=pgd_attack,
        chapter=3,
        difficulty="medium",
        minutes=20,
        statement="""Write projected gradient descent: from the inputs, take `steps` steps of
        `step_size` along the sign of the cross-entropy's gradient, and after each one return to
        within epsilon of the inputs and within 0 and 1. No random start.""",
        hints=(
            "You have the parts: one step is FGSM with another length, then project_linf.",
            "The ball stays around the clean inputs, not around the current point.",
            "Detach the current point before each step, or the graph grows with every one.",
        ),
        properties=[
            Property("bounds", "stay within 0 and 1", _BOUNDS_WHY, _in_bounds, _pgd_cases),
            Property("budget", "stay within epsilon", _BUDGET_WHY, _within, _pgd_cases),
            Property(
                "reach",
                "go as far as its steps and the budget allow on a linear model",
                "steps that end early, or start over each time, look like robustness.",
                _reaches,
                lambda: _pgd_cases()[:2],
            ),
            Property(
                "one-step",
                "be FGSM with one step of length epsilon",
                "PGD is FGSM repeated.",
                _is_fgsm,
                _fgsm_cases,
            ),
            agrees(
                pgd_attack,
                _pgd_cases,
                "the gradient is taken anew at every point, where the loss has bent.",
            ),
            Property(
                "borrowed-model",
                "leave the model without gradients",
                _BORROWS_WHY,
                _borrows,
                _pgd_cases,
            ),
        ],
    ),
]
