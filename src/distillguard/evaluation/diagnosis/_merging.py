"""How measurements of several groups of examples become one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field
from typing import Any

Merge = Callable[[Sequence[Any]], Any]


def merged(how: Merge, default: Any = None) -> Any:
    """Make a field of a dataclass that says how values of several groups are merged."""
    factory: dict[str, Any] = {"default_factory": dict} if how is union else {"default": default}
    return field(**factory, metadata={"merged": how})


def merge(entry: Field[Any], values: Sequence[Any]) -> Any:
    """Merge the values of a field; what one group could not measure is not known of the whole."""
    how: Merge = entry.metadata["merged"]
    if how in (total, largest, every):
        for value in values:
            if value is None or value == ():
                return value
    return how(values)


def total(values: Sequence[Any]) -> Any:
    """Add counts up, or tuples of them entry by entry."""
    if isinstance(values[0], tuple):
        return tuple(sum(entries) for entries in zip(*values, strict=True))
    return sum(values)


def largest(values: Sequence[Any]) -> Any:
    """Take the largest."""
    return max(values)


def every(values: Sequence[Any]) -> bool:
    """Whether all of them are true."""
    return all(values)


def first(values: Sequence[Any]) -> Any:
    """Take the first that tells anything: for what is the same in all groups."""
    return next((value for value in values if value not in (None, ())), values[0])


def union(values: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Put mappings together."""
    return {name: text for value in values for name, text in value.items()}
