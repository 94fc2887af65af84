"""A task: what is asked, how it is judged, and a solution that is real code."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from .._words import described
from ..testing._promises import Check, found_by, shown

Function: TypeAlias = Callable[..., Any]
Difficulty = Literal["easy", "medium", "hard"]

CHAPTERS = {
    1: "Soft labels and temperature",
    2: "Distillation",
    3: "Adversarial examples",
    4: "Defensive distillation",
    5: "Carlini and Wagner's answer",
    6: "Seeing through a number",
    7: "Robust training",
    8: "Scaling laws",
    9: "The Swiss cheese",
}
"""The chapters of the course, by number."""

_IMPORTS = {
    "math": "import math",
    "Callable": "from collections.abc import Callable",
    "torch": "import torch",
    "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
}
"""What the text of a solution needs, by the name that it uses."""


class Failure(NamedTuple):
    """A property that does not hold, with the smallest input that shows it."""

    name: str
    """The property's name."""

    rule: str
    """What should hold."""

    found: str
    """What was found instead."""

    given: str
    """The input that shows it, as text; empty where no input matters."""

    why: str
    """Why the property matters."""


class Property(NamedTuple):
    """What every right answer has in common, tested on a few inputs, the smallest first."""

    name: str
    rule: str
    why: str
    fault: Callable[..., str]
    """Takes the function and a case; returns what is wrong, or an empty string."""
    cases: Callable[[], Iterable[tuple[Any, ...]]] = lambda: [()]

    def failures(self, function: Function, names: Sequence[str]) -> Iterator[Failure]:
        """The first case that shows a fault; ``names`` are those of the answer's arguments."""
        own = list(inspect.signature(self.fault).parameters.values())[1:]
        single = [each.name for each in own if each.kind is not each.VAR_POSITIONAL]
        for case in self.cases():
            labels = [*single, *names[len(names) - len(case) + len(single) :]]
            pairs = zip(labels, case, strict=False)
            given = ", ".join(f"{label} = {_text(value)}" for label, value in pairs)
            try:
                fault = self.fault(function, *case)
            except Exception as error:
                fault = f"it raised {type(error).__name__}: {_last_line(error)}"
            if fault:
                yield Failure(self.name, self.rule, fault, given, self.why)
                return


class Promise(NamedTuple):
    """A property that :mod:`distillguard.testing` knows."""

    check: Check[Any]
    why: str

    @property
    def name(self) -> str:
        """The promise's."""
        return self.check.promise

    @property
    def rule(self) -> str:
        """The check's own words."""
        return (self.check.find.__doc__ or "").strip().rstrip(".")

    def failures(self, function: Function, names: Sequence[str]) -> Iterator[Failure]:
        """What the check finds; it names the input itself."""
        broken = found_by(self.check, function)
        if broken is not None:
            given = "" if broken.example is None else shown(broken.example)
            yield Failure(self.name, self.rule, broken.message, given, self.why)


@dataclass(frozen=True, kw_only=True, repr=False)
class Task:
    """An exercise of the course.

    Attributes
    ----------
    answer : callable
        The solution as a function.
    chapter : int
        Its chapter of the course, from 1.
    difficulty : {"easy", "medium", "hard"}
        How much thought it takes.
    minutes : int
        How long it takes, roughly.
    statement : str
        What to write.
    hints : tuple of str
        Three, each of which tells more than the one before.
    properties : sequence
        What the checker tests.

    Examples
    --------
    >>> from distillguard import exercises
    >>> task = exercises.tasks()["margin"]
    >>> task.chapter, task.difficulty, task.minutes
    (5, 'easy', 10)
    >>> print(task.stub)
    import torch
    from torch import Tensor
    <BLANKLINE>
    <BLANKLINE>
    def margin(logits: Tensor, labels: Tensor) -> Tensor:
        '''Return the largest logit of another class minus the label's, one value per example.'''
        raise NotImplementedError("margin is yours to write")
    """

    answer: Function
    chapter: int
    difficulty: Difficulty
    minutes: int
    statement: str
    hints: tuple[str, str, str]
    properties: Sequence[Property | Promise]

    def __post_init__(self) -> None:
        object.__setattr__(self, "statement", " ".join(self.statement.split()))

    @property
    def name(self) -> str:
        """The solution's name, by which :func:`distillguard.exercises.check` finds the task."""
        return self.answer.__name__

    @property
    def stub(self) -> str:
        """The function's head, as a cell to begin with."""
        source = textwrap.dedent(inspect.getsource(self.answer))
        function = ast.parse(source).body[0]
        assert isinstance(function, ast.FunctionDef)
        lines = [
            *source.splitlines()[function.lineno - 1 : function.body[0].lineno - 1],
            f"    '''{inspect.getdoc(self.answer)}'''",
            f'    raise NotImplementedError("{self.name} is yours to write")',
        ]
        return _with_imports("\n".join(lines) + "\n", always=("torch",))

    @property
    def solution(self) -> str:
        """The source of one right answer; there are others."""
        return _with_imports(inspect.getsource(self.answer))

    def __repr__(self) -> str:
        """The name alone: hints and solution are not to be seen unasked."""
        return f"<Task {self.name}>"

    def __str__(self) -> str:
        """What to do and where to begin."""
        about = f"{self.name} (chapter {self.chapter}, {self.difficulty}, {self.minutes} minutes)"
        return f"{about}\n\n{textwrap.fill(self.statement, 90)}\n\n{self.stub}"


def _with_imports(source: str, always: Sequence[str] = ()) -> str:
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    lines = [line for name, line in _IMPORTS.items() if name in used or name in always]
    return "\n".join(lines) + "\n\n\n" + source if lines else source


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return shown(value)
    return repr(value) if isinstance(value, int | float | str | list | tuple) else described(value)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[-1]
