"""Chapter 7: robust training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from .. import functional
from ._properties import (
    Line,
    agrees,
    depends,
    differ,
    finite,
    gradient,
    labels,
    large,
    logits,
    network,
)
from ._task import Function, Property, Task


def trades_loss(
    clean_logits: Tensor, adversarial_logits: Tensor, labels: Tensor, beta: float
) -> Tensor:
    """Return the cross-entropy on clean inputs plus beta times KL(clean || adversarial)."""
    log_p = torch.log_softmax(clean_logits, dim=1)
    log_q = torch.log_softmax(adversarial_logits, dim=1)
    natural = -log_p.gather(1, labels[:, None]).squeeze(1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return natural + beta * divergence


def adversarial_training_step(
    model: nn.Module,
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    learning_rate: float,
) -> None:
    """Take one step of gradient descent on the mean cross-entropy of the attacked inputs."""
    adversarial = attack(model, inputs, labels).detach()
    loss = nn.functional.cross_entropy(model(adversarial), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for weight, gradient in zip(model.parameters(), gradients, strict=True):
            weight.sub_(learning_rate * gradient)


def _adversarial() -> Tensor:
    return logits().roll(1, 1)


def _trades_cases() -> list[tuple[Tensor, Tensor, Tensor, float]]:
    first = [(logits()[:1], _adversarial()[:1], labels()[:1], beta) for beta in (0.0, 1.0, 6.0)]
    return [*first, (logits(), _adversarial(), labels(), 6.0)]


def _calm(function: Function, logits: Tensor, labels: Tensor) -> str:
    found = function(logits, logits, labels, 6.0)
    return differ(found, functional.cross_entropy(logits, labels))


def _never_below(function: Function, clean_logits: Tensor, adversarial_logits: Tensor) -> str:
    y = clean_logits.argmax(dim=1)
    found = function(clean_logits, adversarial_logits, y, 6.0)
    least = functional.cross_entropy(clean_logits, y)
    return "" if bool((found >= least - 1e-6).all()) else "got a negative divergence"


def _model() -> nn.Module:
    return Line([1.0, -0.5], [-0.25, 0.5])


def _shifted(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    signs = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    return inputs + 0.25 * signs[labels]


def _batch() -> tuple[Tensor, Tensor]:
    return torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25]]), torch.tensor([0, 1, 0])


def _weights(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters())


def _steps(function: Function, learning_rate: float, steps: int) -> str:
    model, twin = (network(n_inputs=2, n_classes=2) for _ in range(2))
    optimizer = torch.optim.SGD(twin.parameters(), lr=learning_rate)
    for _ in range(steps):
        function(model, _shifted, *_batch(), learning_rate)
        optimizer.zero_grad()
        inputs, y = _batch()
        nn.functional.cross_entropy(twin(_shifted(twin, inputs, y)), y).backward()
        optimizer.step()
    return differ(_weights(model), _weights(twin))


def _attacks_model(function: Function) -> str:
    model = _model()
    asked: list[object] = []

    def attack(subject: nn.Module, inputs: Tensor, y: Tensor) -> Tensor:
        asked.append(subject is model and torch.equal(y, _batch()[1]))
        return _shifted(subject, inputs, y)

    function(model, attack, *_batch(), 0.5)
    return "" if asked == [True] else f"the attack was called so: {asked}"


def _through(function: Function, learning_rate: float) -> str:
    """An attack whose result still hangs on the model's graph."""
    model, twin = _model(), _model()

    def hanging(subject: nn.Module, inputs: Tensor, y: Tensor) -> Tensor:
        return inputs - 0.25 * subject.weight[y]  # type: ignore[index]

    function(model, hanging, *_batch(), learning_rate)
    adversarial_training_step(twin, hanging, *_batch(), learning_rate)
    return differ(_weights(model), _weights(twin))


def _falls(function: Function, learning_rate: float) -> str:
    model = _model()
    inputs, y = _batch()

    def loss() -> float:
        return nn.functional.cross_entropy(model(_shifted(model, inputs, y)), y).item()

    before = loss()
    function(model, _shifted, inputs, y, learning_rate)
    after = loss()
    return "" if after < before else f"got a loss of {after:.4f} after {before:.4f}"


def _far() -> list[tuple[Tensor, Tensor, Tensor, float]]:
    return [(large(), large().flip(1), torch.tensor([1, 0, 2]), 6.0)]


TASKS = [
    Task(
        answer=trades_loss,
        chapter=7,
        difficulty="medium",
        minutes=15,
        statement="""Write TRADES, one value per example: the cross-entropy of the clean logits with
        the labels, plus beta times the Kullback-Leibler divergence KL(p || p'), where p is the
        softmax of the clean logits and p' that of the adversarial ones. Gradients flow through
        both.""",
        hints=(
            "KL(p || p') is the sum over classes of p (log p - log p').",
            "torch's kl_div takes log p' first and p second, and averages unless told not to.",
            "Use log_softmax for both; p is the exp of the first.",
        ),
        properties=[
            agrees(
                functional.trades_loss,
                _trades_cases,
                "the two directions of KL differ, and a mean over classes divides beta by n.",
            ),
            Property(
                "no-attack",
                "be the cross-entropy where both logits are the same",
                "a model that an attack does not move pays for accuracy alone.",
                _calm,
                lambda: [(logits()[:1], labels()[:1]), (logits(), labels())],
            ),
            Property(
                "not-negative",
                "never reward a difference",
                "a divergence is at least 0.",
                _never_below,
                lambda: [(logits()[:1], _adversarial()[:1]), (logits(), _adversarial())],
            ),
            finite(_far, "log of a softmax that rounded to zero is minus infinity."),
            depends(
                lambda: (logits(), _adversarial(), labels(), 1.0),
                "without one of them it is another loss.",
                clean_logits=logits().roll(2, 1),
                adversarial_logits=logits().roll(3, 1),
                labels=(labels() + 1) % 5,
                beta=6.0,
            ),
            gradient(lambda: (_adversarial(), labels(), 6.0)),
        ],
    ),
    Task(
        answer=adversarial_training_step,
        chapter=7,
        difficulty="hard",
        minutes=25,
        statement="""Madry's adversarial training, one step: attack the inputs with
        attack(model, inputs, labels), then move every parameter of the model by minus
        learning_rate times the gradient of the mean cross-entropy on what the attack returned.
        Change the model in place; do not differentiate through the attack.""",
        hints=(
            "Attack first, detach the result, then compute the loss on it.",
            "Gradients of an earlier step may still lie in .grad: clear them, or use "
            "torch.autograd.grad, which returns new ones.",
            "Change the parameters under torch.no_grad(), or let torch.optim.SGD do it.",
        ),
        properties=[
            Property(
                "attacks",
                "attack the model itself, once, with the true labels",
                "examples made for another model, or an older one, are weaker.",
                _attacks_model,
            ),
            Property(
                "descends",
                "lower the loss on attacked inputs",
                "this is the inner maximum that the outer minimum is about.",
                _falls,
                lambda: [(0.5,)],
            ),
            Property(
                "agrees",
                "be SGD's step on the attacked inputs, the second time too",
                "gradients that are not cleared are added to those of the next step.",
                _steps,
                lambda: [(0.5, 1), (0.5, 3), (0.0625, 2)],
            ),
            Property(
                "attack-detached",
                "not differentiate through the attack",
                "the attack's result is a training example, a constant.",
                _through,
                lambda: [(0.5,)],
            ),
        ],
    ),
]
