"""Properties that many tasks share, and the small inputs on which they are tested."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..testing._functions import by_differences, labels, large, logits
from ..testing._promises import shown
from ._task import Function, Property

Cases = Callable[[], Iterable[tuple[Any, ...]]]

__all__ = [
    "Cases",
    "agrees",
    "depends",
    "differ",
    "finite",
    "gradient",
    "labels",
    "large",
    "logits",
]


def differ(found: Any, expected: Any, tolerance: float = 1e-5) -> str:
    """Say how an answer differs from what it should be; an empty string if it does not."""
    if found is None:
        return "got None: is there a return?"
    if isinstance(expected, tuple):
        if not isinstance(found, tuple | list) or len(found) != len(expected):
            return f"got {_short(found)}, expected {len(expected)} values"
        pairs = zip(found, expected, strict=True)
        return next((text for one, other in pairs if (text := differ(one, other, tolerance))), "")
    if isinstance(expected, Tensor) and isinstance(found, Tensor) and found.shape != expected.shape:
        return f"got shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    one = torch.as_tensor(found).detach().double()
    other = torch.as_tensor(expected).detach().double()
    if one.shape != other.shape:
        return f"got {_short(found)}, expected {_short(expected)}"
    if torch.allclose(one, other, rtol=tolerance, atol=tolerance):
        return ""
    return f"got {_short(found)}, expected {_short(expected)}"


def agrees(
    reference: Function, cases: Cases, why: str, *, name: str = "agrees", rule: str = ""
) -> Property:
    """Answers are those of another implementation."""

    def fault(function: Function, *case: Any) -> str:
        return differ(function(*case), reference(*case))

    rule = rule or "agree with another implementation"
    return Property(name, rule, why, _named(fault, reference), cases)


def depends(base: Callable[[], tuple[Any, ...]], why: str, **others: Any) -> Property:
    """Every argument has a say: ``others`` are other values of them."""

    def fault(function: Function, argument: str, value: Any, other: Any) -> str:
        place = list(others).index(argument)
        case = list(base())
        changed = [*case[:place], other, *case[place + 1 :]]
        first, second = function(*case), function(*changed)
        return f"got {_short(first)} for both" if not differ(first, second, 1e-9) else ""

    def cases() -> Iterable[tuple[Any, ...]]:
        pairs = zip(others.items(), base(), strict=True)
        return ((name, value, other) for (name, other), value in pairs)

    return Property("depends", "depend on every argument", why, fault, cases)


def gradient(case: Callable[[], tuple[Any, ...]]) -> Property:
    """The gradient by the first argument is that of finite differences."""

    def fault(function: Function, *rest: Any) -> str:
        broken = next(by_differences(lambda first: function(first, *rest)), None)
        return broken.message.partition("differences, ")[2] if broken else ""

    why = "training follows this gradient: a detach or a step in it changes what is learned."
    rule = "have the gradient of finite differences"
    return Property("gradient", rule, why, fault, lambda: [case()])


def finite(cases: Cases, why: str) -> Property:
    """No overflow, no NaN."""

    def fault(function: Function, *case: Any) -> str:
        found = function(*case)
        good = isinstance(found, Tensor) and bool(found.isfinite().all())
        return "" if good else f"got {_short(found)}"

    return Property("overflow", "be finite for logits up to 1e4 in float32", why, fault, cases)


class Line(nn.Module):
    """Logits that are linear in the inputs, with weights that can be written down."""

    def __init__(self, *rows: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(rows))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs times the transposed weights."""
        return inputs.flatten(1) @ self.weight.to(inputs).T


def network(scale: float = 1.0, seed: int = 0, n_inputs: int = 4, n_classes: int = 3) -> nn.Module:
    """A small network that bends, with weights of its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bends = (nn.Flatten(), nn.Linear(n_inputs, 8), nn.Tanh())
        last = nn.Linear(8, n_classes)
    with torch.no_grad():
        for weight in last.parameters():
            weight.mul_(scale)
    return nn.Sequential(*bends, last)


def points(n: int = 6, n_inputs: int = 4, seed: int = 1) -> Tensor:
    """Inputs within 0 and 1."""
    return torch.rand(n, n_inputs, generator=torch.Generator().manual_seed(seed))


def _named(fault: Function, like: Function) -> Function:
    """Give a fault the parameters of the function that it compares with, for the message."""
    own = inspect.Parameter("function", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [own, *inspect.signature(like).parameters.values()]
    plain = [each.replace(kind=own.kind, default=own.empty) for each in parameters]
    fault.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]
    return fault


def _short(value: Any) -> str:
    return shown(value) if isinstance(value, Tensor) else repr(value)[:80]
