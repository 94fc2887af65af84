"""Forms of a model that give attacks a gradient, found by trying its modules on a few examples."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._account import question
from .._modes import one_at_a_time
from .._typing import Model
from ..adaptive._straight_through import straight_through

LIVE = 0.5
"""Share of the examples that have to have a gradient for it to be there."""

TRIED = 32
"""Modules that are tried at most, in the order in which the model asks them."""


WIDEST = 4096
"""Numbers in the features of an example, at most."""


class Call(NamedTuple):
    """What a module was given when the model asked it first."""

    module: nn.Module
    given: tuple[Any, ...]
    keywords: dict[str, Any]
    returned: Any


def over_parts(model: Model, asked: Callable[[Tensor], Tensor], x: Tensor) -> Model | None:
    """Step over the innermost modules that return what they are given, without its gradient.

    ``asked`` is the model as it is to be asked about the few examples ``x``.
    """
    if not isinstance(model, nn.Module):
        return None
    calls = traced(dict(model.named_modules()), asked, x)
    calls.pop("", None)  # the whole
    blind = {name for name, call in calls.items() if has_no_gradient(call)}
    chosen = {widened(name, blind, calls) for name in innermost(blind)}
    if not chosen or None in chosen:
        return None
    found, depth = model, ""
    for name in sorted(part for part in chosen if part is not None):
        found = straight_through(found, part=depth + name)
        depth += "model."
    return found if is_live(found, x) else None


def over_front(model: Model, asked: Callable[[Tensor], Tensor], x: Tensor) -> Model | None:
    """Step over all that is done to the inputs before a module takes as many numbers."""
    calls = traced(modules_of(model), asked, x)
    calls.pop("", None)
    fronts = [call for call in calls.values() if is_changed(call, x)]
    for call in fronts[:TRIED]:
        found = straight_through(model, before=call.module)
        if is_live(found, x):
            return found
    return None


def before_head(model: Model, asked: Callable[[Tensor], Tensor], x: Tensor) -> Model | None:
    """Take the last output inside that says the model's class in other numbers, with a gradient."""
    calls = traced(modules_of(model), asked, x)
    with torch.no_grad():
        answers = asked(x.clone())
    for name, call in reversed(calls.items()):
        told = call.returned
        if not name or not isinstance(told, Tensor) or told.shape != answers.shape:
            continue
        same = torch.equal(told.argmax(dim=1), answers.argmax(dim=1))
        if same and not torch.allclose(told.to(answers), answers):
            found = BeforeHead(model, call.module)
            if is_live(found, x):
                return found
    return None


def live_features(
    model: Model, asked: Callable[[Tensor], Tensor], x: Tensor
) -> "BeforeHead | None":
    """Take the last output inside that has a gradient, where what is made of it has none."""
    if is_live(asked, x):
        return None
    calls = traced(modules_of(model), asked, x)
    calls.pop("", None)  # the whole
    for call in list(calls.values())[: -TRIED - 1 : -1]:
        told = call.returned
        if isinstance(told, Tensor) and len(told) == len(x) and told[0].numel() <= WIDEST:
            found = BeforeHead(model, call.module)
            if is_live(found, x):
                return found
    return None


class BeforeHead(nn.Module):
    """A model that answers with the output of a module inside, the last one if it is asked often.

    Only attacks are given it: what it answers is not the model's answer.
    """

    def __init__(self, model: Model, inside: nn.Module) -> None:
        super().__init__()
        self.model, self.inside = model, inside

    @property
    def adaptation(self) -> str:
        """What reports say of it."""
        return f"the output of its {type(self.inside).__name__} in place of its own"

    def forward(self, inputs: Tensor) -> Tensor:
        """Ask the model, and return what the module inside said."""
        told: list[Tensor] = []
        with question(len(inputs), self.adaptation, 1, 1) as watch, one_at_a_time():
            hook = self.inside.register_forward_hook(lambda _, __, output: told.append(output))
            try:
                self.model(inputs)
            except Exception:  # NumPy takes no tensor that wants a gradient
                if not told:
                    raise
            finally:
                hook.remove()
            return watch(told[-1])


def traced(
    modules: dict[str, nn.Module], asked: Callable[[Tensor], Tensor], x: Tensor
) -> dict[str, Call]:
    """Ask about ``x``; what each module was given first, in the order in which they were asked."""
    calls: dict[str, Call] = {}
    order: list[str] = []
    handles = []

    def entered(name: str, *_: Any) -> None:
        order.append(name)

    def called(
        name: str, module: nn.Module, given: Any, keywords: dict[str, Any], returned: Any
    ) -> None:
        calls.setdefault(name, Call(module, given, keywords, returned))

    for name, module in modules.items():
        with suppress(Exception):  # a frozen program takes no hooks
            handles.append(module.register_forward_pre_hook(partial(entered, name)))
            hook = partial(called, name)
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad():
            asked(x.clone())
    finally:
        for handle in handles:
            handle.remove()
    return {name: calls[name] for name in dict.fromkeys(order) if name in calls}


def has_no_gradient(call: Call) -> bool:
    """Whether nothing goes back through a module, though there is something that could."""
    first = call.given[0] if call.given else None
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return False
    entered = first.detach().clone().requires_grad_()
    try:
        returned = call.module(entered.clone(), *call.given[1:], **call.keywords)
        return isinstance(returned, Tensor) and not goes_back(returned, entered)
    except Exception:  # NumPy takes no tensor that wants a gradient
        return isinstance(call.returned, Tensor)


def goes_back(outputs: Tensor, inputs: Tensor) -> bool:
    """Whether most examples' inputs have a gradient that can be followed."""
    if not outputs.requires_grad or not outputs.is_floating_point():
        return False
    weights = torch.arange(outputs.numel(), device=outputs.device).cos().view_as(outputs)
    score = (outputs * weights.to(outputs)).sum()
    (slope,) = torch.autograd.grad(score, inputs, allow_unused=True)
    if slope is None:
        return False
    alive = ((slope != 0) & slope.isfinite()).flatten(1).any(dim=1)
    return bool(alive.double().mean() >= LIVE)


def is_live(model: Model, x: Tensor) -> bool:
    """Whether the model answers the examples, with a gradient."""
    entered = x.detach().clone().requires_grad_()
    try:
        return goes_back(model(entered), entered)
    except Exception:  # foreign code, in a form that it was not written for
        return False


def innermost(names: set[str]) -> list[str]:
    """Names of modules that hold none of the others."""
    return [name for name in names if not any(each.startswith(f"{name}.") for each in names)]


def widened(name: str, blind: set[str], calls: dict[str, Call]) -> str | None:
    """The module, or the nearest blind one around it, that returns the shape it is given."""
    while name:
        call = calls.get(name)
        if call is not None and name in blind and call.returned.shape == call.given[0].shape:
            return name
        name = name.rpartition(".")[0]
    return None


def is_changed(call: Call, x: Tensor) -> bool:
    """Whether a module is given as many numbers as the model, and others."""
    first = call.given[0] if call.given else None
    if not isinstance(first, Tensor) or first.numel() != x.numel():
        return False
    return not torch.equal(first.reshape(x.shape).to(x), x)


def modules_of(model: Model) -> dict[str, nn.Module]:
    """The modules inside a model, or that a function finds around it, by names."""
    if isinstance(model, nn.Module):
        return dict(model.named_modules())
    found: dict[int, nn.Module] = {}
    for outer in held_by(model):
        found |= {id(module): module for module in outer.modules()}
    return {str(key): module for key, module in found.items()}


def held_by(function: Any) -> Iterator[nn.Module]:
    """Modules in the closure, the globals, the arguments and the attributes of a callable."""
    while isinstance(function, partial):
        yield from only_modules([*function.args, *function.keywords.values()])
        function = function.func
    yield from only_modules(getattr(function, "__dict__", {}).values())
    owner = getattr(function, "__self__", None)
    if owner is not None and hasattr(owner, "__dict__"):
        yield from only_modules(vars(owner).values())
    code = function if inspect.isfunction(function) else getattr(function, "__func__", None)
    if code is None:
        code = vars(type(function)).get("__call__")
    if inspect.isfunction(code):
        names = inspect.getclosurevars(code)
        yield from only_modules([*names.nonlocals.values(), *names.globals.values()])


def only_modules(values: Any) -> Iterator[nn.Module]:
    """Those of the values that are modules, or models that hold one."""
    for value in values:
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(network := getattr(value, "model_", None), nn.Module):
            yield network
