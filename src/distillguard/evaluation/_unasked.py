"""Models as they were before they were asked anything: some remember what they are asked."""

import copy
from collections import deque
from contextlib import suppress
from types import CellType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._account import question
from .._copies import computed_tensors_copied
from .._rejection import rejects
from .._typing import Model

DEPTH = 8
"""How deep what a model holds is looked into."""


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
    """Copy what a module holds, or a function around which something is remembered."""
    if isinstance(thing, FunctionType) and held(thing):
        cells = [CellType(copy_of(cell.cell_contents, known)) for cell in thing.__closure__ or ()]
        defaults, keywords = copy.deepcopy((thing.__defaults__, thing.__kwdefaults__), known)
        told = (thing.__code__, thing.__globals__, thing.__name__, defaults, tuple(cells))
        function = FunctionType(*told)
        function.__kwdefaults__ = keywords
        return function
    if isinstance(thing, nn.Module):
        known |= {id(parameter): parameter for parameter in thing.parameters()}
    return copy.deepcopy(thing, known)


def has_changed(before: Unasked, model: Model) -> bool:
    """Whether a model holds anything else than it did before: numbers, tensors, or more of them."""
    return differs(before.model, getattr(model, "_orig_mod", model), DEPTH, set())


def differs(old: Any, new: Any, depth: int, seen: set[int]) -> bool:
    """Compare what two objects hold; of what cannot be looked into nothing is said."""
    if old is new or id(new) in seen or not depth:
        return False
    if isinstance(new, bool | int | float | str | bytes | None):
        return bool(old != new)
    seen.add(id(new))
    if type(old) is not type(new):
        return True
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
    """What an object holds, but for the parts, the hooks and the mode of a module.

    A function holds what is around it and its defaults.
    """
    if isinstance(thing, FunctionType):
        around = [cell.cell_contents for cell in thing.__closure__ or ()]
        values = [*around, thing.__defaults__, thing.__kwdefaults__]
        return {str(place): value for place, value in enumerate(values) if value is not None}
    own = getattr(thing, "__dict__", {})
    if not isinstance(thing, nn.Module):
        return dict(own)
    aside = {"training", "_modules", "_parameters"}
    return {name: own[name] for name in own if name not in aside and "_hooks" not in name}


def same_values(old: Any, new: Any) -> bool:
    """Whether two tensors or arrays are equal, bit for bit or both NaN."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return False
    old, new = torch.as_tensor(old), torch.as_tensor(new)
    return bool(((old == new) | ((old != old) & (new != new))).all())
