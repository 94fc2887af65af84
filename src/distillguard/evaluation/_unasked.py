"""Models as they were before they were asked anything: some remember what they are asked."""

import copy
from collections import deque
from contextlib import suppress
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._account import question
from .._boxes import tensor_of
from .._copies import computed_tensors_copied
from .._rejection import rejects
from .._typing import Model

DEPTH = 8
"""How deep what a model holds is looked into."""

FORWARD_HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
"""Where a module holds functions that take part in its answers."""


class Unasked(nn.Module):
    """A model of which every question is the first: each goes to a copy of its own."""

    adaptation = "a copy of the model for each query, which remembers no other"

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection, as in the model inside."""
        return rejects(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of a copy."""
        with question(len(inputs), self.adaptation, 1, 1) as watch:
            return watch(twin(self.model)(inputs))


def unasked(model: Model) -> Unasked | None:
    """Keep a copy of a model as it is now; None of one that cannot be copied."""
    # Foreign code never promised that it can be, and may raise anything.
    with suppress(Exception):
        model = getattr(model, "_orig_mod", model)  # a copy would be compiled anew
        kept = twin(model)
        return None if kept is model else Unasked(kept)
    return None


def twin(model: Model) -> Any:
    """Copy all but the parameters, which stay as they are while a model is borrowed."""
    with computed_tensors_copied():
        return copy_of(model, {})


def copy_of(thing: Any, known: dict[int, Any]) -> Any:
    """Copy what a module holds, or a function around which something is remembered.

    What is shared inside is shared by the copies: variables of functions, also of those that hooks
    call, and what methods belong to.
    """
    if id(thing) in known:
        return known[id(thing)]
    if isinstance(thing, FunctionType):
        return function_copied(thing, known) if held(thing) else thing
    if isinstance(thing, MethodType):
        return MethodType(copy_of(thing.__func__, known), copy_of(thing.__self__, known))
    if isinstance(thing, partial):
        arguments = [copy_of(each, known) for each in thing.args]
        keywords = {name: copy_of(each, known) for name, each in thing.keywords.items()}
        return partial(copy_of(thing.func, known), *arguments, **keywords)
    if isinstance(thing, nn.Module):
        known |= {id(parameter): parameter for parameter in thing.parameters()}
    before = set(known)
    copied = copy.deepcopy(thing, known)
    for place in known.keys() - before:
        if isinstance(known[place], nn.Module):
            functions_renewed(known[place], known)
    return copied


def function_copied(thing: FunctionType, known: dict[int, Any]) -> FunctionType:
    """Copy a function with the variables around it, which others may share."""
    cells = thing.__closure__ or ()
    met = [cell for cell in cells if id(cell) not in known]
    known |= {id(cell): CellType() for cell in met}
    told = (thing.__code__, thing.__globals__, thing.__name__, None)
    function = FunctionType(*told, tuple(known[id(cell)] for cell in cells))
    known[id(thing)] = function  # it may be a variable of its own
    for cell in met:
        with suppress(ValueError):  # the variable may have no value yet
            known[id(cell)].cell_contents = copy_of(cell.cell_contents, known)
    function.__defaults__, function.__kwdefaults__ = copy.deepcopy(
        (thing.__defaults__, thing.__kwdefaults__), known
    )
    vars(function).update({name: copy_of(each, known) for name, each in vars(thing).items()})
    return function


def functions_renewed(module: nn.Module, known: dict[int, Any]) -> None:
    """Let a copy of a module hold copies of its functions; ``copy.deepcopy`` keeps them."""
    own = vars(module)
    for holder in (own, *(each for each in own.values() if isinstance(each, dict))):
        for name, each in holder.items():
            if isinstance(each, FunctionType):
                holder[name] = copy_of(each, known)


def has_changed(before: Unasked, model: Model) -> bool:
    """Whether a model holds anything else than it did before: numbers, tensors, or more of them."""
    with suppress(Exception):  # what is compared is foreign as well
        return differs(before.model, getattr(model, "_orig_mod", model), DEPTH, set())
    return False


def differs(old: Any, new: Any, depth: int, seen: set[int]) -> bool:
    """Compare what two objects hold; of what cannot be looked into nothing is said."""
    if old is new or id(new) in seen or not depth:
        return False
    if type(old) is not type(new):
        return True
    if isinstance(new, bool | int | float | str | bytes):
        return bool(old != new)
    seen.add(id(new))
    if isinstance(new, Tensor | np.ndarray):
        return not same_values(old, new)
    if isinstance(new, set | frozenset):
        return len(old) != len(new)
    if isinstance(new, nn.Module):
        parts = zip(old.modules(), new.modules(), strict=False)
        return any(entries_differ(held(a), held(b), depth, seen) for a, b in parts)
    if isinstance(new, dict):
        return entries_differ(old, new, depth, seen)
    if isinstance(new, list | tuple | deque):
        pairs = zip(old, new, strict=False)
        return len(old) != len(new) or any(differs(a, b, depth - 1, seen) for a, b in pairs)
    return entries_differ(held(old), held(new), depth, seen)


def entries_differ(old: dict[Any, Any], new: dict[Any, Any], depth: int, seen: set[int]) -> bool:
    """Compare two dictionaries."""
    return old.keys() != new.keys() or any(
        differs(old[key], new[key], depth - 1, seen) for key in new
    )


def held(thing: Any) -> dict[str, Any]:
    """What an object holds, but for the parts and the mode of a module, and hooks of no answer.

    A function holds what is around it and its defaults, a method what it belongs to.
    """
    own = dict(getattr(thing, "__dict__", {}))
    if isinstance(thing, FunctionType):
        around = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        for name, cell in around:
            with suppress(ValueError):  # the variable may have no value yet
                own[name] = cell.cell_contents
        defaults = {"defaults": thing.__defaults__, "keywords": thing.__kwdefaults__}
        return own | {name: each for name, each in defaults.items() if each is not None}
    if isinstance(thing, MethodType):
        return {"self": thing.__self__, "function": thing.__func__}
    if isinstance(thing, partial):
        return own | {"function": thing.func, "args": thing.args, "keywords": thing.keywords}
    if isinstance(thing, nn.Module):
        aside = {"training", "_modules", "_parameters"}
        aside |= {name for name in own if "_hooks" in name} - FORWARD_HOOKS
        return {name: own[name] for name in own if name not in aside}
    slots = [getattr(kind, "__slots__", ()) for kind in type(thing).__mro__]
    names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
    return {name: getattr(thing, name) for name in names if hasattr(thing, name)} | own


def same_values(old: Any, new: Any) -> bool:
    """Whether two tensors or arrays are equal, bit for bit or both NaN.

    Of what cannot be compared, such as arrays of objects, nothing is said.
    """
    if old.shape != new.shape or old.dtype != new.dtype:
        return False
    with suppress(Exception):
        old, new = tensor_of(old), tensor_of(new)
        if old.layout != torch.strided:
            old, new = old.to_dense(), new.to_dense()
        same = torch.equal(old, new)
        return same or bool(((old == new) | ((old != old) & (new != new))).all())
    return True
