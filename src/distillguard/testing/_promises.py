"""Promises: a table of checks that run in order, and one error that names all broken ones."""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from .._validation import check_choice
from ..exceptions import BrokenPromiseError

SHOWN = 12
"""Values of an example that a message shows."""

Subject = TypeVar("Subject")


class BrokenPromise(NamedTuple):
    """One promise that was not kept."""

    promise: str
    """Its name."""

    message: str
    """What was promised and what was found."""

    example: Tensor | None = None
    """The smallest batch that shows it, of shape (n, ...); None if no input is involved."""

    def __str__(self) -> str:
        """Name, finding and example."""
        example = "" if self.example is None else f"\n    example: {shown(self.example)}"
        return f"{self.promise}: {self.message}{example}"


class Check(NamedTuple, Generic[Subject]):
    """How a promise is tested."""

    promise: str
    find: Callable[[Subject], Iterable[BrokenPromise]]
    needs: Collection[str] = ()
    """Promises that must hold before this one can be judged."""


def run(checks: Sequence[Check[Subject]], subject: Subject, name: str, skip: Any) -> None:
    """Test each promise, and raise one error for all broken ones.

    Raises
    ------
    BrokenPromiseError
        If one is broken.
    ValueError
        If ``skip`` has a name that is not a promise.
    """
    skip = {skip} if isinstance(skip, str) else set(skip)
    promises = [check.promise for check in checks]
    for each in skip:
        check_choice("skip", each, promises)
    broken: list[BrokenPromise] = []
    unjudged: list[str] = []
    for check in checks:
        if check.promise in skip:
            continue
        if {one.promise for one in broken} & set(check.needs) or set(unjudged) & set(check.needs):
            unjudged.append(check.promise)
            continue
        found = found_by(check, subject)
        broken += [found] if found else []
    if broken:
        raise BrokenPromiseError(_message(name, broken, unjudged, len(checks)), broken, unjudged)


def found_by(check: Check[Subject], subject: Subject) -> BrokenPromise | None:
    """What a check finds first, if anything; an exception counts too."""
    try:
        return next(iter(check.find(subject)), None)
    except Exception as error:
        return BrokenPromise(check.promise, f"it raised {type(error).__name__}: {error}")


def _message(
    name: str, broken: Sequence[BrokenPromise], unjudged: Sequence[str], count: int
) -> str:
    lines = [f"{name} must keep its promises, got {len(broken)} of {count} broken"]
    lines += [f"  {one}" for one in broken]
    if unjudged:
        lines.append(f"  not judged, because of these: {', '.join(unjudged)}")
    return "\n".join(lines)


def shown(example: Tensor) -> str:
    """The values of a small tensor, the shape and the range of a large one."""
    values = example.detach().flatten()
    if example.numel() <= SHOWN:
        return f"{example.tolist()} in {example.dtype}"
    ends = values.double().aminmax() if values.isfinite().all() else None
    span = "" if ends is None else f" in [{ends[0].item():.4g}, {ends[1].item():.4g}]"
    if bool((values == values[0]).all()):
        span = f", every value {values[0].item():.4g}"
    return f"shape {tuple(example.shape)}, {example.dtype}{span}"


def smallest(points: Tensor, broken: Callable[[Tensor], bool]) -> Tensor:
    """The first row, else the first two, for which ``broken`` holds; else all."""
    for size in (1, 2):
        for rows in itertools.combinations(range(len(points)), size):
            if broken(points[list(rows)]):
                return points[list(rows)]
    return points


def first(bad: Tensor) -> int:
    """The index of the first True of a bool tensor of shape (n,)."""
    return int(torch.nonzero(bad)[0, 0])
