"""The JSON form of a report: its schema (JSON Schema, draft 2020-12) and the way back."""

from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..._json import COUNT, SIZE, TEXT, Schema, mapping_to, object_with, or_null
from .._judge import nested
from .._records import Cost
from ..diagnosis._findings import Finding
from ..diagnosis._observations import Observations
from ._rows import AttackRow, ClassRow

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_INTERVAL = {"type": "array", "items": _SHARE, "minItems": 2, "maxItems": 2}
_NORM = {"enum": ["linf", "l2", "l1", "l0"]}
_PLAIN: dict[Any, dict[str, Any]] = {
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: COUNT,
    float: {"type": "number"},
    str: TEXT,
}


def _schema_of(kind: Any) -> dict[str, Any]:
    """Schema of a type: plain, of plain parts, or a dataclass of such."""
    parts = [_schema_of(part) for part in get_args(kind) if part is not ...]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, UnionType):
        return {"anyOf": parts}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": parts[0]}
    if get_origin(kind) is not None:
        return mapping_to(parts[1])
    return object_with({name: _schema_of(part) for name, part in get_type_hints(kind).items()})


_ATTACK = object_with(
    {
        "name": TEXT,
        "robust_accuracy": _SHARE,
        "robust_interval": _INTERVAL,
        "attacked": COUNT,
        "fooled": COUNT,
        "success_rate": or_null(_SHARE),
        "median_distance": or_null(SIZE),
        "distance_norm": _NORM,
        "forwards": SIZE,
        "backwards": SIZE,
        "seconds": SIZE,
        "illegal": COUNT,
        "error": or_null(TEXT),
    }
)
_FINDING = object_with(
    {
        "code": {"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$"},
        "severity": {"enum": ["severe", "notice"]},
        "evidence": TEXT,
        "meaning": TEXT,
        "remedy": TEXT,
        "figures": mapping_to({"type": "number"}),
    }
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "distillguard robustness report",
    **object_with(
        {
            "schema_version": {"const": 1},
            "model": TEXT,
            "norm": _NORM,
            "epsilon": {"type": "number", "exclusiveMinimum": 0},
            "bounds": {
                "type": "array",
                "items": {"type": ["number", "array"]},
                "minItems": 2,
                "maxItems": 2,
            },
            "mask": {"type": ["array", "null"]},
            "n_examples": {**COUNT, "minimum": 1},
            "clean_accuracy": _SHARE,
            "clean_interval": _INTERVAL,
            "robust_accuracy": _SHARE,
            "robust_interval": _INTERVAL,
            "quoted_accuracy": _SHARE,
            "quoted_interval": _INTERVAL,
            "headline": TEXT,
            "attacks": {"type": "array", "items": _ATTACK, "minItems": 1},
            "survivors_only": {"type": "boolean"},
            "findings": {"type": "array", "items": _FINDING},
            "observations": _schema_of(Observations),
            "costs": mapping_to(_schema_of(Cost)),
            "random_state": {**COUNT, "maximum": 2**63 - 1},
            "versions": mapping_to(TEXT),
            "date": {"type": "string", "pattern": r"^\d{4}(-\d\d){2}T\d\d(:\d\d){2}\+00:00$"},
            "classes": {"type": "array", "items": _schema_of(ClassRow), "minItems": 1},
            "title": or_null(TEXT),
            "dataset": or_null(TEXT),
            "class_names": or_null({"type": "array", "items": TEXT}),
        }
    ),
}


_CHECKED = Schema(SCHEMA)


def parts_from(read: Any) -> dict[str, Any]:
    """Turn what was read from JSON into the arguments of a report.

    Raises
    ------
    ValueError
        If it does not follow the schema.
    """
    version = read.get("schema_version") if isinstance(read, dict) else None
    if version != 1:
        raise ValueError(f"source must be a report of schema version 1, got {version!r}")
    _CHECKED.check(read)
    parts = {name: _tuple(value) for name, value in read.items()}
    for derived in ("schema_version", "headline", "quoted_accuracy", "quoted_interval"):
        del parts[derived]
    parts["bounds"], parts["mask"] = nested(read["bounds"]), nested(read["mask"])
    parts["attacks"] = tuple(
        AttackRow(**{name: _tuple(value) for name, value in entry.items()})
        for entry in read["attacks"]
    )
    parts["findings"] = tuple(Finding(**entry) for entry in read["findings"])
    seen: dict[str, Any] = {name: _tuple(value) for name, value in read["observations"].items()}
    parts["observations"] = Observations(**seen)
    parts["classes"] = tuple(ClassRow(**entry) for entry in read["classes"])
    parts["costs"] = {name: Cost(**entry) for name, entry in read["costs"].items()}
    return parts


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
