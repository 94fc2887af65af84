"""The public surface as data: names, signatures, defaults, options and schemas.

    python -m tests.surface      # writes tests/data/surface.json; or: make surface

What is written is what a caller can rely on, and nothing that Python, PyTorch or scikit-learn
decide: members inherited from them are left out, and so are annotations, whose form differs
between versions of Python.
"""

import argparse
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import field, fields, is_dataclass, make_dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from numpydoc.docscrape import NumpyDocString

import distillguard
from distillguard import _cli

FILE = Path(__file__).parent / "data" / "surface.json"
REMEDY = (
    "the public surface is another one. If that is meant, write it anew with `make surface` "
    "(python -m tests.surface), commit tests/data/surface.json, and tell users in CHANGELOG.md."
)
PLAIN = (str, int, float, bool, type(None))
MADE_ANEW = make_dataclass("MadeAnew", [("part", dict, field(default_factory=dict))])
FACTORY = inspect.signature(MADE_ANEW).parameters["part"].default


def surface() -> dict[str, Any]:
    """All that a caller can rely on, ready for JSON."""
    first: dict[int, str] = {}
    names = {}
    for name, value in public():
        known = first.setdefault(id(value), name)
        names[name] = described(value) if known == name else f"is {known}"
    return {"names": names, "command line": command_line()}


def public() -> Iterator[tuple[str, Any]]:
    """Every public name with what it stands for, the shortest path first."""
    spaces = [name for name in distillguard.__all__ if isinstance(of(name), ModuleType)]
    yield from ((f"distillguard.{name}", of(name)) for name in distillguard.__all__)
    for space in (*spaces, "testing.strategies"):
        module = importlib.import_module(f"distillguard.{space}")
        yield from (
            (f"distillguard.{space}.{name}", getattr(module, name)) for name in exported(module)
        )


def of(name: str) -> Any:
    return getattr(distillguard, name)


def exported(module: ModuleType) -> list[str]:
    return sorted(module.__all__)


def described(value: Any) -> Any:
    """A value as data: a signature, a class of them, a constant, or the kind of a thing."""
    if isinstance(value, ModuleType):
        return "module"
    if inspect.isclass(value):
        return class_of(value)
    if callable(value):
        return signature_of(value)
    if isinstance(value, (dict, list, tuple, *PLAIN)):
        return json.loads(json.dumps(value, default=shown))
    return shown(value)


def class_of(cls: type) -> dict[str, Any]:
    """What a class is, takes, can do and has."""
    ours = [part for part in cls.__mro__ if is_ours(part)]
    members = {name: member for part in reversed(ours) for name, member in vars(part).items()}
    told = {
        "is": sorted(
            {named(base) for part in ours for base in (part, *part.__bases__)} - {"", "object"}
        ),
        "takes": "" if issubclass(cls, BaseException) else signature_of(cls),
        "can": {
            name: signature_of(getattr(cls, name))
            for name, member in sorted(members.items())
            if not name.startswith("_") and is_method(member)
        },
        "has": sorted(attributes_of(cls, members)),
    }
    return {name: value for name, value in told.items() if value}


def is_ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "distillguard"


def named(cls: type) -> str:
    """The name of a class that is public, with the package that it is from if that is not ours."""
    if cls.__name__.startswith("_") or cls.__name__ in ("Generic", "Protocol", "NamedTuple"):
        return ""
    home = cls.__module__.split(".")[0]
    if is_ours(cls):
        return cls.__name__ if cls in PUBLIC_CLASSES else ""
    return cls.__name__ if home == "builtins" else f"{home}.{cls.__name__}"


def is_method(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, classmethod | staticmethod)


def attributes_of(cls: type, members: dict[str, Any]) -> set[str]:
    """Properties, fields, and what the docstring lists as attributes."""
    properties = {
        name
        for name, member in members.items()
        if isinstance(member, property) or is_cached(member)
    }
    listed = NumpyDocString(inspect.getdoc(cls) or "")["Attributes"]
    documented = {name.strip() for entry in listed for name in entry.name.split(",")}
    held = {part.name for part in fields(cls)} if is_dataclass(cls) else set()
    found = properties | documented | held | set(getattr(cls, "_fields", ()))
    return {name for name in found if not name.startswith("_")}


def is_cached(member: Any) -> bool:
    return type(member).__name__ == "cached_property"


def signature_of(function: Callable[..., Any]) -> str:
    """Parameters and defaults, without annotations."""
    signature = inspect.signature(function)
    kept = [
        parameter.replace(annotation=inspect.Parameter.empty, default=default_of(parameter.default))
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(kept))


class Shown(str):
    """A text that is its own repr."""

    def __repr__(self) -> str:
        return str(self)


def default_of(value: Any) -> Any:
    return value if value is inspect.Parameter.empty else Shown(shown(value))


def shown(value: Any) -> str:
    """A value in words that no version of Python or PyTorch changes."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, PurePath):
        return repr(value.as_posix())
    if value is FACTORY:
        return "<fresh>"
    if isinstance(value, tuple | list):
        inside = ", ".join(map(shown, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if is_dataclass(value) and not isinstance(value, type):
        held = ", ".join(f"{p.name}={shown(getattr(value, p.name))}" for p in fields(value))
        return f"{type(value).__name__}({held})"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return f"<{type(value).__name__}>"


def command_line() -> dict[str, Any]:
    """Commands with their options and defaults."""
    commands = next(
        action.choices
        for action in _cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return {
        name: {
            " ".join(action.option_strings) or action.dest: shown(action.default)
            for action in command._actions
            if not isinstance(action, argparse._HelpAction)
        }
        for name, command in commands.items()
    }


PUBLIC_CLASSES = {value for _, value in public() if inspect.isclass(value)}


def text() -> str:
    """The surface as the file holds it."""
    return json.dumps(surface(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"wrote {FILE}")
