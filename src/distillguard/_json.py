"""JSON from strangers: read strictly, and held to a schema (JSON Schema, draft 2020-12)."""

import json
import math
from collections.abc import Container
from functools import cached_property
from typing import Any, NoReturn

COUNT: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 2**53}
SIZE: dict[str, Any] = {"type": "number", "minimum": 0}
TEXT: dict[str, Any] = {"type": "string"}


def object_with(properties: dict[str, Any], optional: Container[str] = ()) -> dict[str, Any]:
    """Schema of an object that has these keys, the optional ones perhaps, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def mapping_to(kind: dict[str, Any]) -> dict[str, Any]:
    """Schema of an object with any keys."""
    return {"type": "object", "additionalProperties": kind}


def or_null(kind: dict[str, Any]) -> dict[str, Any]:
    """Schema of what may be missing."""
    return {"anyOf": [kind, {"type": "null"}]}


class Schema:
    """A schema and what is in the way of it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema

    @cached_property
    def _validator(self) -> Any:
        from jsonschema import Draft202012Validator, validators

        # To JSON Schema 3.0 is an integer; to Python it is none.
        types = Draft202012Validator.TYPE_CHECKER.redefine(
            "integer", lambda _, value: type(value) is int
        )
        return validators.extend(Draft202012Validator, type_checker=types)(self.schema)

    def check(self, value: Any) -> None:
        """Raise ValueError with the place and the rule that ``value`` breaks, if it breaks one."""
        for error in self._validator.iter_errors(value):
            place = ".".join(map(str, error.absolute_path)) or "the whole"
            rule = dict.fromkeys((error.validator,), error.validator_value)
            raise ValueError(f"{place} must satisfy {_cut(rule)}, got {_cut(error.instance)}")


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def json_from(text: str) -> Any:
    """Read JSON that anybody may have written.

    Raises
    ------
    ValueError
        If it is no JSON, has a key twice, a number that is none, a character that is none, or
        is too deep.
    """
    try:
        read = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_duplicates,
        )
        # Half of a surrogate pair is read without complaint, and cannot be written.
        json.dumps(read, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("JSON must not be that deep") from None
    return read


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is beyond float64")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key appears twice")
    return found
