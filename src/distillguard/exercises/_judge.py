"""Judging an answer: every property of a task, and what is said of those that fail."""

import html
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._modes import on_cpu
from .._validation import check_choice
from .._words import described
from ._chapters import TASKS
from ._task import CHAPTERS, Failure, Task

_KEPT = "arguments-kept"


@dataclass(frozen=True)
class Result:
    """Which properties of a task an answer has; true if it has all.

    Examples
    --------
    >>> from distillguard import exercises
    >>> from distillguard.functional import margin_loss
    >>> result = exercises.check("margin", margin_loss)
    >>> bool(result), result.failures
    (True, ())
    """

    task: str
    """The task's name."""

    passed: tuple[str, ...]
    """Names of the properties that hold."""

    failures: tuple[Failure, ...]
    """Those that do not, each with an input that shows it."""

    def __bool__(self) -> bool:
        """Whether all hold."""
        return not self.failures

    @property
    def share(self) -> str:
        """How many of how many hold, as text."""
        return f"{len(self.passed)} of {len(self.passed) + len(self.failures)}"

    def __str__(self) -> str:
        """One line for each property, and for a failed one why it matters."""
        lines = [f"{self.task}: {self.share} properties hold"]
        lines += [f"  passed  {name}" for name in self.passed]
        for failure in self.failures:
            lines += [f"  FAILED  {failure.name}: {failure.rule}"]
            lines += [f"          {label}: {text}" for label, text in _told(failure)]
        if self.failures:
            lines.append(f'A hint: exercises.hint("{self.task}")')
        return "\n".join(lines)

    def __repr__(self) -> str:
        """The same, as an interpreter shows a value."""
        return str(self)

    def _repr_html_(self) -> str:
        rows = [f"<tr><td>passed</td><td><code>{name}</code></td></tr>" for name in self.passed]
        for failure in self.failures:
            told = "".join(
                f"<br><em>{label}:</em> {html.escape(text)}" for label, text in _told(failure)
            )
            rows.append(
                f"<tr><td><strong>FAILED</strong></td><td style='text-align: left'>"
                f"<code>{failure.name}</code> {html.escape(failure.rule)}{told}</td></tr>"
            )
        head = f"<caption>{html.escape(self.task)}: {self.share} properties hold</caption>"
        return f"<table>{head}{''.join(rows)}</table>"


@dataclass(frozen=True)
class Progress:
    """How far a set of answers is, as a table; nothing is kept between calls.

    Examples
    --------
    >>> from distillguard import exercises
    >>> from distillguard.functional import margin_loss
    >>> exercises.progress({"margin": margin_loss}).solved
    ['margin']
    """

    results: Mapping[str, Result | None]
    """The result of each task in the order of the course; None where there is no answer."""

    @property
    def solved(self) -> list[str]:
        """Names of the tasks that are solved."""
        return [name for name, result in self.results.items() if result]

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for name, result in self.results.items():
            state = "-" if result is None else "solved" if result else result.share
            yield str(TASKS[name].chapter), name, state

    def __str__(self) -> str:
        """A line for each task."""
        lines = [f"{len(self.solved)} of {len(self.results)} tasks solved"]
        lines += [f"  {chapter}  {name:26}  {state}" for chapter, name, state in self._rows()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """The same, as an interpreter shows a value."""
        return str(self)

    def _repr_html_(self) -> str:
        head = "<tr><th>chapter</th><th>task</th><th>properties</th></tr>"
        rows = "".join(
            f"<tr><td>{chapter}</td><td><code>{name}</code></td><td>{state}</td></tr>"
            for chapter, name, state in self._rows()
        )
        caption = f"<caption>{len(self.solved)} of {len(self.results)} tasks solved</caption>"
        return f"<table>{caption}{head}{rows}</table>"


def tasks(chapter: int | None = None) -> dict[str, Task]:
    """Return the tasks by name, in the order of the course.

    Parameters
    ----------
    chapter : int, optional
        From 1 to 9: the tasks of one chapter.

    Returns
    -------
    dict of str to Task
        The tasks.

    Raises
    ------
    ValueError
        If there is no such chapter.

    Examples
    --------
    >>> from distillguard import exercises
    >>> list(exercises.tasks(chapter=8))
    ['power_law', 'compute_optimal_size']
    """
    if chapter is not None:
        check_choice("chapter", chapter, CHAPTERS)
    return {name: task for name, task in TASKS.items() if chapter in (None, task.chapter)}


def hint(task: str | Task, n: int = 1) -> str:
    """Return one hint of a task.

    Parameters
    ----------
    task : str or Task
        The task, or its name.
    n : int, default=1
        Which hint, from 1 to 3; each tells more than the one before.

    Returns
    -------
    str
        The hint.

    Raises
    ------
    ValueError
        If there is no such task or hint.

    Examples
    --------
    >>> from distillguard import exercises
    >>> exercises.hint("margin")
    'Hide the label, then take the largest of what is left.'
    """
    hints = _task(task).hints
    check_choice("n", n, range(1, len(hints) + 1))
    return hints[n - 1]


def check(task: str | Task, function: Callable[..., Any]) -> Result:
    """Test an answer to a task.

    No example is compared with a stored number: the properties are what all right answers have in
    common. An error in the answer is a failed property, and is never raised.

    Parameters
    ----------
    task : str or Task
        The task, or its name.
    function : callable
        The answer, with the arguments of the task's stub.

    Returns
    -------
    Result
        True if every property holds; printed, it says what failed, on which input, and why that
        matters.

    Raises
    ------
    ValueError
        If there is no such task.

    Examples
    --------
    >>> import torch
    >>> from distillguard import exercises
    >>> def softmax_at_temperature(logits, temperature):
    ...     return torch.softmax(logits, dim=1)
    >>> result = exercises.check("softmax_at_temperature", softmax_at_temperature)
    >>> bool(result)
    False
    >>> [failure.name for failure in result.failures]
    ['temperature', 'limits']
    """
    task = _task(task)
    if not callable(function):
        found = f"got {described(function)}"
        rule = "pass the function itself, without calling it"
        why = "the checker calls it on inputs of its own."
        return Result(task.name, (), (Failure("function", rule, found, "", why),))
    careful = _Careful(function)
    names = list(inspect.signature(task.answer).parameters)
    passed: list[str] = []
    failures: list[Failure] = []
    state = torch.get_rng_state()
    try:
        for each in task.properties:
            with on_cpu():  # also what the answer makes: it is asked about tensors there
                found_here = list(each.failures(careful, names))
            failures += found_here
            passed += [] if found_here else [each.name]
            if careful.unwritten:
                rule = "write the function, then check it again"
                why = f"a stub has no properties yet; {task.minutes} minutes should do."
                stub = Failure("written", rule, careful.unwritten, "", why)
                return Result(task.name, (), (stub,))
    finally:
        torch.set_rng_state(state)
    if careful.written:
        rule = "leave the arguments as they are"
        why = "whoever calls it still needs them: write x = x + 1, not x += 1."
        failures.append(Failure(_KEPT, rule, "an argument was overwritten", careful.written, why))
    else:
        passed.append(_KEPT)
    return Result(task.name, tuple(passed), tuple(failures))


def progress(answers: Mapping[str, Any]) -> Progress:
    """Test all answers that there are, and say how far they go.

    Parameters
    ----------
    answers : mapping of str to callable
        Functions by the names of their tasks. Other names are passed over, so that a notebook
        can hand over its ``globals()``.

    Returns
    -------
    Progress
        A table with one row for each task.

    Examples
    --------
    >>> from distillguard import exercises
    >>> from distillguard.functional import dlr_loss, trades_loss
    >>> exercises.progress({"dlr_loss": dlr_loss, "trades_loss": trades_loss}).solved
    ['dlr_loss', 'trades_loss']
    """
    return Progress(
        {
            name: check(task, answers[name]) if name in answers else None
            for name, task in TASKS.items()
        }
    )


class _Careful:
    """Hands copies of tensors to an answer, and notices when it writes into them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.written = ""
        self.unwritten = ""

    def __call__(self, *arguments: Any) -> Any:
        copies = [each.clone() if isinstance(each, Tensor) else each for each in arguments]
        try:
            answer = self.function(*copies)
        except NotImplementedError as error:
            self.unwritten = str(error) or "nothing yet"
            raise
        for place, (copy, original) in enumerate(zip(copies, arguments, strict=True)):
            if isinstance(copy, Tensor) and not torch.equal(copy, original):
                self.written = self.written or _nth(self.function, place)
        return answer


def _nth(function: Callable[..., Any], place: int) -> str:
    try:
        return list(inspect.signature(function).parameters)[place]
    except (TypeError, ValueError, IndexError):
        return f"argument {place + 1}"


def _told(failure: Failure) -> Iterator[tuple[str, str]]:
    if failure.given:
        yield "on", failure.given
    yield "found", failure.found
    yield "why it matters", failure.why


def _task(task: str | Task) -> Task:
    name = task.name if isinstance(task, Task) else task
    check_choice("task", name, TASKS)
    return TASKS[name]
