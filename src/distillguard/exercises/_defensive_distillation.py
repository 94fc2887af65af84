"""Chapter 4: defensive distillation."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from .. import functional
from ._properties import Line, agrees, depends, differ, network, points
from ._task import Function, Property, Task


def soft_labels(teacher: nn.Module, inputs: Tensor, temperature: float) -> Tensor:
    """Return the teacher's softmax at the temperature, without a graph."""
    teacher.eval()
    with torch.no_grad():
        return torch.softmax(teacher(inputs) / temperature, dim=1)


def distil_by_hand(
    teacher: nn.Module,
    student: nn.Module,
    inputs: Tensor,
    temperature: float,
    learning_rate: float,
    steps: int,
) -> nn.Module:
    """Train the student on the teacher's soft labels, both at the temperature, and return it."""
    with torch.no_grad():
        targets = torch.softmax(teacher(inputs) / temperature, dim=1)
    optimizer = torch.optim.SGD(student.parameters(), lr=learning_rate)
    for _ in range(steps):
        log_q = torch.log_softmax(student(inputs) / temperature, dim=1)
        loss = -(targets * log_q).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


def zero_gradient_share(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return the share of examples whose cross-entropy has an input gradient of exactly zero."""
    inputs = inputs.detach().requires_grad_()
    loss = nn.functional.cross_entropy(model(inputs), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    return (gradient.flatten(1) == 0).all(dim=1).double().mean().item()


def _dropped() -> nn.Module:
    return nn.Sequential(network(3.0), nn.Dropout(0.5)).train()


def _label_cases() -> list[tuple[nn.Module, Tensor, float]]:
    return [(network(9.0), points(1), t) for t in (1.0, 20.0)] + [(network(9.0), points(), 5.0)]


def _by_library(teacher: nn.Module, inputs: Tensor, temperature: float) -> Tensor:
    return functional.softmax(teacher.eval()(inputs), temperature).detach()


def _plain(function: Function, teacher: nn.Module, inputs: Tensor, temperature: float) -> str:
    found = function(teacher, inputs, temperature)
    return "got labels that carry the teacher's graph" if found.requires_grad else ""


def _repeats(function: Function, teacher: nn.Module, inputs: Tensor, temperature: float) -> str:
    first = function(teacher, inputs, temperature)
    return differ(function(teacher, inputs, temperature), first)


def _normal(function: Function, teacher: nn.Module, inputs: Tensor, temperature: float) -> str:
    found = function(teacher, inputs, temperature).sum(dim=1)
    return differ(found, torch.ones(len(inputs)))


def _lesson(
    temperature: float = 4.0, learning_rate: float = 2.0, steps: int = 5
) -> tuple[nn.Module, nn.Module, Tensor, float, float, int]:
    return network(9.0), network(1.0, seed=3), points(24), temperature, learning_rate, steps


def _weights(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters())


def _same_student(function: Function, temperature: float, learning_rate: float, steps: int) -> str:
    lesson, other = (_lesson(temperature, learning_rate, steps) for _ in range(2))
    function(*lesson)
    return differ(_weights(lesson[1]), _weights(distil_by_hand(*other)), 1e-4)


def _settings() -> list[tuple[float, float, int]]:
    return [(4.0, 2.0, 1), (4.0, 2.0, 5), (20.0, 40.0, 5)]


def _teacher_kept(function: Function, temperature: float, learning_rate: float, steps: int) -> str:
    lesson = _lesson(temperature, learning_rate, steps)
    before = _weights(lesson[0])
    function(*lesson)
    if any(weight.grad is not None for weight in lesson[0].parameters()):
        return "got gradients in the teacher"
    return differ(_weights(lesson[0]), before, 0)


def _nearer(function: Function, temperature: float, learning_rate: float, steps: int) -> str:
    lesson = _lesson(temperature, learning_rate, steps)
    teacher, student, inputs = lesson[:3]

    def loss() -> float:
        target = functional.softmax(teacher(inputs), temperature)
        return functional.soft_cross_entropy(student(inputs), target, temperature).mean().item()

    before = loss()
    function(*lesson)
    after = loss()
    return "" if after < before else f"got a loss of {after:.5f} after {before:.5f}"


def _returns_student(
    function: Function, temperature: float, learning_rate: float, steps: int
) -> str:
    lesson = _lesson(temperature, learning_rate, steps)
    return "" if function(*lesson) is lesson[1] else "got something else than the student"


def _settings_matter(function: Function, setting: str, value: float, other: float) -> str:
    first, second = _lesson(), _lesson(**{setting: other})  # type: ignore[arg-type]
    function(*first)
    function(*second)
    same = not differ(_weights(first[1]), _weights(second[1]), 1e-7)
    return "got the same student for both" if same else ""


def _steep(scale: float) -> nn.Module:
    return Line([scale, 0.0], [0.0, scale], [-scale, -scale])


def _share_cases() -> list[tuple[nn.Module, Tensor, Tensor]]:
    rows = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    right = torch.tensor([0, 0, 1, 1])
    return [
        (_steep(1e3), rows[:1], right[:1]),
        (_steep(1.0), rows[:1], right[:1]),
        (_steep(1e3), rows, right),
        (_steep(40.0), rows, right),
        (Line([1.0, 0.0], [-1.0, 0.0]), rows[:2], right[:2]),
        (network(400.0), points(24), torch.arange(24) % 3),
    ]


def _counts(expected: tuple[float, ...]) -> Function:
    def fault(function: Function, case: int) -> str:
        return differ(function(*_share_cases()[case]), expected[case])

    return fault


def _grows(function: Function) -> str:
    shares = [function(_steep(t), *_share_cases()[2][1:]) for t in (1.0, 1e4)]
    return "" if shares[0] < shares[1] else f"got {shares[0]} and {shares[1]}"


def _unused(function: Function, model: nn.Module, inputs: Tensor, labels: Tensor) -> str:
    function(model, inputs, labels)
    left = any(weight.grad is not None for weight in model.parameters())
    return "got gradients left in the model" if left else ""


TASKS = [
    Task(
        answer=soft_labels,
        chapter=4,
        difficulty="easy",
        minutes=10,
        statement="""Return the labels on which a student will learn: the teacher's softmax at the
        training temperature, for each input. The teacher answers in eval mode, and the labels are
        numbers: no gradient leads back to it. Papernot used the same images and the same T.""",
        hints=(
            "model.eval() turns dropout off; torch.no_grad() or .detach() drops the graph.",
            "T divides the logits before the softmax.",
            "torch.softmax(teacher(inputs) / temperature, dim=1), under torch.no_grad().",
        ),
        properties=[
            agrees(_by_library, _label_cases, "at T = 1 the labels of a good teacher are one-hot."),
            Property(
                "sums-to-one",
                "return rows that sum to 1",
                "the classes share the probability, not the examples.",
                _normal,
                _label_cases,
            ),
            Property(
                "no-graph",
                "return numbers without a graph",
                "the student's loss would train the teacher too.",
                _plain,
                _label_cases,
            ),
            Property(
                "eval-mode",
                "answer twice in the same way, though the teacher has dropout",
                "a teacher with dropout on teaches noise.",
                _repeats,
                lambda: [(_dropped(), points(), 5.0)],
            ),
            depends(
                lambda: (network(9.0), points(), 5.0),
                "soft labels come from the teacher, the image and T.",
                teacher=network(9.0, seed=3),
                inputs=points(seed=5),
                temperature=20.0,
            ),
        ],
    ),
    Task(
        answer=distil_by_hand,
        chapter=4,
        difficulty="hard",
        minutes=30,
        statement="""Be the library: train the student on all the inputs at once, for `steps` steps
        of plain torch.optim.SGD, on the mean soft cross-entropy with the teacher's soft labels,
        teacher and student both at the temperature. No hard labels, no T². Train the student in
        place and return it; the teacher stays as it is.""",
        hints=(
            "The soft labels are computed once, before the loop.",
            "In the loop: logits, loss, zero_grad, backward, step.",
            "The loss is -(targets * log_softmax(student(inputs) / T, dim=1)).sum(dim=1).mean().",
        ),
        properties=[
            Property(
                "descends",
                "bring the student's answers at T nearer to the teacher's",
                "this is all that distillation is.",
                _nearer,
                _settings,
            ),
            Property(
                "agrees",
                "end at the weights of the plain recipe",
                "gradients that are not cleared, a mean too few or a T too many all train, "
                "to something else.",
                _same_student,
                _settings,
            ),
            Property(
                "teacher-kept",
                "leave the teacher as it is",
                "its labels would change while the student learns them.",
                _teacher_kept,
                _settings,
            ),
            Property(
                "returns-student",
                "return the student itself",
                "the next line will use it.",
                _returns_student,
                lambda: _settings()[:1],
            ),
            Property(
                "depends",
                "depend on every setting",
                "a temperature that is left out is the defence that is left out.",
                _settings_matter,
                lambda: [
                    ("temperature", 4.0, 20.0),
                    ("learning_rate", 2.0, 1.0),
                    ("steps", 5, 2),
                ],
            ),
        ],
    ),
    Task(
        answer=zero_gradient_share,
        chapter=4,
        difficulty="medium",
        minutes=15,
        statement="""Where did the gradient go? Return the share, from 0 to 1, of examples whose
        cross-entropy at temperature 1 has a gradient by the input that is exactly zero in every
        coordinate, as a float. After distillation at T = 100 most examples are such.""",
        hints=(
            "One gradient for the whole batch will do: examples do not influence one another.",
            "Compare with 0 exactly; an example counts if all of its coordinates are 0.",
            "(gradient.flatten(1) == 0).all(dim=1).float().mean().item()",
        ),
        properties=[
            Property(
                "counts",
                "count the examples without a gradient, right or wrong ones",
                "wrong confident examples have a gradient, uncertain ones too; zeros in a few "
                "coordinates are no flat loss.",
                _counts((1.0, 0.0, 0.5, 0.0, 0.0)),
                lambda: [(0,), (1,), (2,), (3,), (4,)],
            ),
            Property(
                "grows-with-logits",
                "grow when the logits are multiplied",
                "this is what testing at 1 after training at T does.",
                _grows,
            ),
            Property(
                "borrowed-model",
                "leave the model without gradients",
                "gradients left behind are added to the next training step.",
                _unused,
                _share_cases,
            ),
            agrees(
                zero_gradient_share,
                _share_cases,
                "it is a share of examples, not of coordinates.",
            ),
        ],
    ),
]
