"""Chapter 2: distillation after Hinton."""

from typing import Any

import torch
from torch import Tensor

from .. import functional
from ._properties import agrees, depends, differ, finite, gradient, labels, large, logits
from ._task import Function, Property, Task


def soft_target_gradient(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """Return the gradient of the soft cross-entropy at T by the student's logits."""
    q = torch.softmax(student_logits / temperature, dim=1)
    p = torch.softmax(teacher_logits / temperature, dim=1)
    return (q - p) / temperature


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    hard_label_weight: float,
) -> Tensor:
    """Return Hinton's loss, one value per example."""
    soft_targets = torch.softmax(teacher_logits / temperature, dim=1)
    log_q = torch.log_softmax(student_logits / temperature, dim=1)
    soft = -(soft_targets * log_q).sum(dim=1) * temperature**2
    hard = -torch.log_softmax(student_logits, dim=1).gather(1, labels[:, None]).squeeze(1)
    return (1 - hard_label_weight) * soft + hard_label_weight * hard


def training_step(
    weight: Tensor, inputs: Tensor, soft_targets: Tensor, temperature: float, learning_rate: float
) -> Tensor:
    """Return the weight after one step of gradient descent on the mean soft cross-entropy."""
    weight = weight.detach().requires_grad_()
    log_q = torch.log_softmax(inputs @ weight.T / temperature, dim=1)
    loss = -(soft_targets * log_q).sum(dim=1).mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    return (weight - learning_rate * gradient).detach()


def _teacher() -> Tensor:
    return logits().roll(1, 0)


def _by_autograd(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    z = student_logits.detach().requires_grad_()
    target = functional.softmax(teacher_logits, temperature)
    loss = functional.soft_cross_entropy(z, target, temperature).sum()
    return torch.autograd.grad(loss, z)[0]


def _pairs() -> list[tuple[Tensor, Tensor, float]]:
    return [(logits()[:1], _teacher()[:1], t) for t in (1.0, 4.0, 20.0)]


def _balanced(function: Function, student_logits: Tensor, teacher_logits: Tensor, t: float) -> str:
    found = function(student_logits, teacher_logits, t).sum(dim=1)
    return differ(found, torch.zeros(len(student_logits)).to(found))


def _still(function: Function, logits: Tensor, temperature: float) -> str:
    return differ(function(logits, logits, temperature), torch.zeros_like(logits))


def _matches_logits(function: Function, student_logits: Tensor, teacher_logits: Tensor) -> str:
    t = 1e4
    z, v = (x - x.mean(dim=1, keepdim=True) for x in (student_logits, teacher_logits))
    found = function(student_logits, teacher_logits, t) * t**2
    return differ(found, (z - v) / z.shape[1], 1e-2)


_LABELS = labels()


def _loss_cases() -> list[tuple[Tensor, Tensor, Tensor, float, float]]:
    row = (logits()[:1], _teacher()[:1], labels()[:1])
    grid = [(1.0, 0.0), (4.0, 0.0), (4.0, 1.0), (4.0, 0.3)]
    return [*((*row, t, w) for t, w in grid), (logits(), _teacher(), labels(), 20.0, 0.1)]


def _of_one_size(function: Function, temperature: float) -> str:
    sizes = []
    for t in (temperature, 2 * temperature):
        z = logits().requires_grad_()
        loss = function(z, _teacher(), labels(), t, 0.0).sum()
        sizes.append(torch.autograd.grad(loss, z)[0].norm().item())
    ratio = sizes[1] / sizes[0] if sizes[0] else 0.0
    return "" if 0.8 < ratio < 1.25 else f"got a gradient {ratio:.2f} times as long at twice T"


def _hard_at_one(function: Function, temperature: float) -> str:
    found = function(logits()[:1], _teacher()[:1], labels()[:1], temperature, 1.0)
    return differ(found, functional.cross_entropy(logits()[:1], labels()[:1]))


def _step_case(t: float = 2.0, rate: float = 0.5, n: int = 6) -> tuple[Any, ...]:
    weight = torch.tensor([[0.5, -0.25], [0.0, 1.0], [-0.5, 0.25]])
    inputs = torch.tensor(
        [[1.0, 0.5], [0.25, 0.75], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    )
    targets = torch.eye(3).repeat(2, 1) * 0.7 + 0.1
    return weight, inputs[:n], targets[:n], t, rate


def _step_by_hand(
    weight: Tensor, inputs: Tensor, soft_targets: Tensor, temperature: float, learning_rate: float
) -> Tensor:
    q = functional.softmax(inputs @ weight.T, temperature)
    slope = (q - soft_targets).T @ inputs / (temperature * len(inputs))
    return weight - learning_rate * slope


def _falls(
    function: Function, weight: Tensor, inputs: Tensor, soft_targets: Tensor, t: float, rate: float
) -> str:
    def loss(w: Tensor) -> float:
        return functional.soft_cross_entropy(inputs @ w.T, soft_targets, t).mean().item()

    before, after = loss(weight), loss(function(weight, inputs, soft_targets, t, rate).detach())
    return "" if after < before else f"got a loss of {after:.6f} after {before:.6f}"


def _leaves(function: Function, weight: Tensor, *rest: object) -> str:
    found = function(weight, *rest)
    return "got a result that carries the graph of the step" if found.requires_grad else ""


TASKS = [
    Task(
        answer=soft_target_gradient,
        chapter=2,
        difficulty="medium",
        minutes=15,
        statement="""Differentiate the soft cross-entropy by hand. The targets are the softmax of
        the teacher's logits at T, the loss is -sum p log q with q the softmax of the student's
        logits at T. Return its gradient by the student's logits, of the same shape. The gradient
        tells why Hinton multiplies the soft term by T squared.""",
        hints=(
            "Without T, the gradient of cross-entropy by the logits is q - p.",
            "T stands inside the softmax, so the chain rule gives one factor more.",
            "(q - p) / T. The difference itself shrinks as 1 / T for a large T: together 1 / T².",
        ),
        properties=[
            agrees(
                _by_autograd,
                lambda: [*_pairs(), (logits(), _teacher(), 3.0)],
                "the gradient is what the student learns; autograd computes the same one.",
            ),
            Property(
                "zero-sum",
                "sum to 0 over the classes",
                "a number added to all logits changes nothing, so no gradient points there.",
                _balanced,
                _pairs,
            ),
            Property(
                "zero-at-teacher",
                "be 0 where the student says what the teacher says",
                "a student that agrees has nothing to learn.",
                _still,
                lambda: [(logits()[:1], 4.0)],
            ),
            Property(
                "logit-matching",
                "tend to (z - v) / (n T²) for centred logits as T grows",
                "this is the 1 / T² that the factor T² undoes.",
                _matches_logits,
                lambda: [(logits()[:1], _teacher()[:1])],
            ),
            depends(
                lambda: (logits(), _teacher(), 2.0),
                "the teacher and T decide what is learned.",
                student_logits=logits().roll(1, 1),
                teacher_logits=logits().roll(2, 1),
                temperature=8.0,
            ),
        ],
    ),
    Task(
        answer=distillation_loss,
        chapter=2,
        difficulty="medium",
        minutes=15,
        statement="""Write Hinton's loss, one value per example: (1 - w) T² times the cross-entropy
        of the student with the teacher's soft labels, both at T, plus w times the cross-entropy
        with the hard labels, at temperature 1.""",
        hints=(
            "Two terms. Which temperature has each?",
            "The hard term asks the student as it will be used: at temperature 1, without T².",
            "(1 - w) * T**2 * soft + w * hard, with soft from two softmaxes at T.",
        ),
        properties=[
            agrees(
                functional.distillation_loss,
                _loss_cases,
                "the two weights are w and 1 - w, and T² belongs to the soft term.",
            ),
            Property(
                "hard-term-at-one",
                "be the plain cross-entropy when the hard weight is 1",
                "the student answers at temperature 1 once it is trained.",
                _hard_at_one,
                lambda: [(1.0,), (20.0,)],
            ),
            Property(
                "gradient-size",
                "have a gradient of about the same size at 20 and at 40",
                "soft gradients shrink as 1 / T²; without T² the hard term drowns them.",
                _of_one_size,
                lambda: [(20.0,)],
            ),
            finite(
                lambda: [(large(), large().flip(1), torch.tensor([1, 0, 2]), 1.0, 0.5)],
                "log of a softmax that rounded to zero is minus infinity.",
            ),
            depends(
                lambda: (logits(), _teacher(), labels(), 2.0, 0.5),
                "a loss that ignores an argument trains, and teaches nothing of it.",
                student_logits=logits().roll(1, 1),
                teacher_logits=logits().roll(2, 1),
                labels=(_LABELS + 1) % 5,
                temperature=8.0,
                hard_label_weight=0.1,
            ),
            gradient(lambda: (_teacher(), labels(), 3.0, 0.5)),
        ],
    ),
    Task(
        answer=training_step,
        chapter=2,
        difficulty="medium",
        minutes=15,
        statement="""Teach a linear student by hand. Its logits are inputs @ weight.T. Return the
        weight after one step of gradient descent on the mean, over the examples, of the soft
        cross-entropy at T. Return a plain tensor, and leave the old weight alone.""",
        hints=(
            "Make a copy that requires a gradient: weight.detach().requires_grad_().",
            "torch.autograd.grad(loss, weight) returns a tuple with one gradient.",
            "weight minus learning_rate times that gradient, detached. Mind the mean.",
        ),
        properties=[
            agrees(
                _step_by_hand,
                lambda: [_step_case(n=1), _step_case(), _step_case(t=10.0)],
                "a step that is n times too long diverges as the batch grows.",
            ),
            Property(
                "descends",
                "lower the loss",
                "a sign is easily lost, and gradient ascent trains, too, for a while.",
                _falls,
                lambda: [_step_case(n=1), _step_case()],
            ),
            Property(
                "no-graph",
                "return a tensor without a graph",
                "each step would keep all earlier ones in memory.",
                _leaves,
                lambda: [_step_case(n=1)],
            ),
            depends(
                _step_case,
                "the targets, T and the rate decide where the step leads.",
                weight=torch.zeros(3, 2),
                inputs=torch.ones(6, 2),
                soft_targets=torch.full((6, 3), 1 / 3),
                temperature=10.0,
                learning_rate=0.1,
            ),
        ],
    ),
]
