"""What a model or an attack is, told by value: another process can tell whether it is the same.

A description is a tree of dicts, lists and strings that JSON can hold. Functions are told by name,
bytecode, defaults, and the values that they close over or find in their module; modules by classes
and weights; tensors by hash. What a library defines is told by name, as its version is known.
"""

import hashlib
import inspect
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ._files import hash_of

Description: TypeAlias = "str | list[Any] | dict[str, Any]"

BYTECODE = "bytecode"
"""The key of what differs between versions of Python."""

_OURS = "distillguard"
_LIBRARIES = sys.stdlib_module_names - {"__main__"} | {
    "lightning_fabric", "numpy", "scipy", "sklearn", "torch", "torchvision",
}  # fmt: skip
_DATA = (list, tuple, set, frozenset, dict, Tensor, np.ndarray)
_SCALARS = (type(None), bool, int, float, complex, str, bytes)
_TOLD_BY_REPR = (torch.dtype, torch.device, PurePath, Enum, range, slice, type(...))
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_WITHOUT_EFFECT = ("batch_size", "progress", "callback")
"""Settings of our own attacks that change no result."""

_LONGEST = 2000
"""Letters of data that are kept as they are; of more, a hash."""
_DEEPEST = 40


class Describer:
    """Describes values; ``notes`` says what could be told by its type alone.

    Parameters
    ----------
    data : bool
        Whether the plain data that functions and objects refer to belongs to the description,
        rather than their code and tensors alone.
    """

    def __init__(self, data: bool = True) -> None:
        self.data = data
        self.notes: list[str] = []
        self._known: dict[int, tuple[Any, Description]] = {}
        self._depth = 0

    def __call__(self, value: Any) -> Description:
        """Describe anything."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (*_SCALARS, *_TOLD_BY_REPR)):
            return _short(repr(value))
        if id(value) in self._known:
            return self._known[id(value)][1]
        # Whatever leads back to itself, or is used in many places, is described once. The value is
        # held with its name, so that no other gets its address.
        name = getattr(value, "__qualname__", type(value).__qualname__)
        self._known[id(value)] = value, f"the same {name}"
        self._depth += 1
        found = self._by_kind(value) if self._depth < _DEEPEST else self._by_type(value)
        self._depth -= 1
        if isinstance(found, str):
            self._known[id(value)] = value, found
        return found

    def _by_kind(self, value: Any) -> Description:
        kinds: tuple[tuple[Any, Callable[[Any], Description]], ...] = (
            (Tensor, _tensor),
            (np.ndarray, self._array),
            (nn.Module, self._module),
            (partial, self._partial),
            (FunctionType, self._function),
            (MethodType, self._method),
            (type, self._class),
            (ModuleType, lambda module: module.__name__),
            (_GENERATORS, self._by_type),
            (Mapping, self._mapping),
            ((list, tuple, set, frozenset), self._collection),
        )
        for kind, describe in kinds:
            if isinstance(value, kind):
                return describe(value)
        return self._object(value)

    def _array(self, array: np.ndarray) -> Description:
        if array.dtype.kind not in "biufc" or not array.dtype.isnative:
            return self(array.tolist())
        return _tensor(torch.from_numpy(np.array(array)))

    def _mapping(self, mapping: Mapping[Any, Any]) -> Description:
        items = {_text(self(key)): self(value) for key, value in mapping.items()}
        return _compact(dict(sorted(items.items())))

    def _collection(self, values: Iterable[Any]) -> Description:
        items = [self(value) for value in values]
        return _compact(sorted(items, key=_text) if isinstance(values, set | frozenset) else items)

    def _partial(self, value: partial[Any]) -> Description:
        settings: dict[Any, Any] = {**dict(enumerate(value.args)), **value.keywords}
        if isinstance(value.func, FunctionType) and _is(value.func, _OURS):
            return self._ours(value.func, settings)
        return {"function": self(value.func), "settings": self._named(settings)}

    def _function(self, function: FunctionType) -> Description:
        if _is(function, *_LIBRARIES):
            return _name(function)
        if _is(function, _OURS) and (hasattr(function, "__wrapped__") or not function.__closure__):
            return self._ours(function, {})
        parts = {
            "defaults": self._referred(_defaults(function)),
            "closure": self._referred(_closure(function)),
            "globals": {} if _is(function, _OURS) else self._referred(_globals(function)),
        }
        described: dict[str, Any] = {"function": _name(function), BYTECODE: _hash(function)}
        return described | {name: part for name, part in parts.items() if part}

    def _ours(self, function: FunctionType, settings: dict[Any, Any]) -> Description:
        """One of our own: whether a setting was left at its default or named is no difference."""
        settings = {**_defaults(function), **settings}
        kept = {key: value for key, value in settings.items() if key not in _WITHOUT_EFFECT}
        return {
            "function": _name(function), BYTECODE: _hash(function), "settings": self._named(kept),
        }  # fmt: skip

    def _method(self, method: MethodType) -> Description:
        return {"method": self(method.__func__), "object": self(method.__self__)}

    def _module(self, module: nn.Module) -> Description:
        classes = dict.fromkeys(type(part) for part in module.modules())
        described: dict[str, Any] = {"class": _name(type(module))}
        described["classes"] = {_name(each): self._class(each) for each in classes}
        described["weights"] = hash_of_weights(module)
        if self.data:
            described["attributes"] = {
                place: attributes
                for place, part in module.named_modules()
                if (attributes := self._named(_public(part)))
            }
        return described

    def _class(self, cls: type) -> Description:
        """The class by its name and by everything that no library defines of it."""
        methods: dict[str, Any] = {}
        for base in cls.__mro__:
            if not _is(base, _OURS, *_LIBRARIES):
                held = {f"{base.__name__}.{name}": _unbound(v) for name, v in vars(base).items()}
                methods |= self._referred(
                    {name: v for name, v in held.items() if _is_written(name, v)}
                )
        return {"class": _name(cls), "members": methods} if methods else _name(cls)

    def _object(self, value: Any) -> Description:
        attributes = _attributes(value)
        if attributes:
            described = {"object": self(type(value)), "attributes": self._referred(attributes)}
            return {name: part for name, part in described.items() if part}
        if callable(value) and hasattr(value, "__qualname__"):
            return _name(value)
        try:
            text = repr(value)
        except Exception:  # anybody's __repr__
            return self._by_type(value)
        return self._by_type(value) if _ADDRESS.search(text) else _short(text)

    def _by_type(self, value: Any) -> Description:
        name = _name(type(value))
        self.notes.append(f"a {name} is told by its type alone")
        return name

    def _named(self, values: Mapping[Any, Any]) -> dict[str, Description]:
        return {str(name): self(value) for name, value in values.items()}

    def _referred(self, values: Mapping[str, Any]) -> dict[str, Description]:
        return self._named(
            {n: value for n, value in values.items() if self.data or _is_code_or_tensor(value)}
        )


def hash_of_weights(module: nn.Module) -> str:
    """Hash what a module keeps as tensors, by name; ``"none"`` where there are none."""
    held = {
        name: value
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor) and not (is_lazy(value) or value.is_meta)
    }
    return hash_of(held) if held else "none"


def without_bytecode(tree: Any) -> Any:
    """Return a description that holds for every version of Python."""
    if isinstance(tree, dict):
        return {key: without_bytecode(part) for key, part in tree.items() if key != BYTECODE}
    return [without_bytecode(part) for part in tree] if isinstance(tree, list) else tree


def difference(theirs: Any, ours: Any, path: str = "") -> tuple[str, str, str] | None:
    """Return the path of the first entry in which two descriptions differ, and both entries."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        pairs = [(str(key), theirs.get(key), ours.get(key)) for key in {**theirs, **ours}]
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = [(str(n), *pair) for n, pair in enumerate(zip(theirs, ours, strict=True))]
    else:
        return None if theirs == ours else (path, _shown(theirs), _shown(ours))
    # The key of a mapping is the text of a string, in quotes.
    places = (f"{path}.{key}".strip(".").replace("'", "") for key, _, _ in pairs)
    found = (difference(a, b, at) for at, (_, a, b) in zip(places, pairs, strict=True))
    return next((each for each in found if each), None)


def _shown(part: Any) -> str:
    text = part if isinstance(part, str) else "nothing" if part is None else _text(part)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _is(value: Any, *packages: str) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] in packages


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None) or ''}.{value.__qualname__}".lstrip(".")


def _tensor(tensor: Tensor) -> str:
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if is_lazy(tensor) or tensor.is_meta:
        return "tensor without values"
    return f"tensor {dtype} {shape} {hash_of({'': tensor})[:16]}"


def _hash(function: FunctionType) -> str:
    return hashlib.sha256(repr(_code(function.__code__)).encode()).hexdigest()[:16]


def _code(code: CodeType) -> tuple[Any, ...]:
    """Everything that a function does, less where it stands in its file."""
    return (
        code.co_code, tuple(_constant(each) for each in code.co_consts), code.co_names,
        code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags,
        code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
    )  # fmt: skip


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, frozenset):
        return "set", sorted(repr(_constant(each)) for each in value)
    return tuple(map(_constant, value)) if isinstance(value, tuple) else value


def _names(code: CodeType) -> set[str]:
    nested = (_names(each) for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*nested)


def _defaults(function: FunctionType) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.items()
    return {name: each.default for name, each in parameters if each.default is not each.empty}


def _closure(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            found[name] = None
    return found


def _globals(function: FunctionType) -> dict[str, Any]:
    """What the function finds in its module, and in the caller's other modules through it."""
    names = _names(function.__code__)
    found: dict[str, Any] = {}
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        if not isinstance(value, ModuleType):
            found[name] = value
        elif value.__name__.partition(".")[0] not in {_OURS, *_LIBRARIES}:
            held = vars(value)
            found |= {f"{name}.{each}": held[each] for each in sorted(names & held.keys())}
    return {name: value for name, value in found.items() if "__" not in name}


def _unbound(member: Any) -> Any:
    """Return the function inside a static or class method or a property."""
    for inside in ("__func__", "fget", "func"):
        member = getattr(member, inside, member)
    return member


def _is_written(name: str, member: Any) -> bool:
    """Whether a member of a class was written by its author, not by Python."""
    own = not name.rpartition(".")[2].startswith("__")
    return isinstance(member, FunctionType) or (own and isinstance(member, (*_SCALARS, *_DATA)))


def _public(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that PyTorch does not keep there for itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training"
    }


def _attributes(value: Any) -> dict[str, Any]:
    slots = [name for cls in type(value).__mro__ for name in _slots(cls)]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return held | getattr(value, "__dict__", {})


def _slots(cls: type) -> list[str]:
    names = vars(cls).get("__slots__", ())
    names = [names] if isinstance(names, str) else list(names)
    return [name for name in names if not name.startswith("__")]


def _is_code_or_tensor(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list | tuple):
        return any(map(_is_code_or_tensor, parts))
    return callable(value) or isinstance(value, Tensor | np.ndarray)


def _text(description: Description) -> str:
    return description if isinstance(description, str) else json.dumps(description)


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{len(text)} letters {hashlib.sha256(text.encode(errors='replace')).hexdigest()[:16]}"


def _compact(data: list[Any] | dict[str, Any]) -> Description:
    text = _text(data)
    if len(text) <= _LONGEST:
        return data
    return f"{len(data)} entries {hashlib.sha256(text.encode()).hexdigest()[:16]}"
