"""The JSON form of a report: its schema (JSON Schema, draft 2020-12) and the way back."""

from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..._json import COUNT, SIZE, TEXT, Schema, mapping_to, object_with, or_null
from .._judge import nested
from .._records import Cost
from ..diagnosis._findings import Finding
from ..diagnosis._observations import Observations
from ._adaptation import Adaptation
from ._per_example import from_dict
from ._rejection import Rejection
from ._rows import AttackRow, ClassRow

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_INTERVAL = {"type": "array", "items": _SHARE, "minItems": 2, "maxItems": 2}
_NORM = {"enum": ["linf", "l2", "l1", "l0", "l0_pixels"]}
_CLASS = {"type": ["string", "integer"], "minimum": 0, "maximum": 2**53}
_PLAIN: dict[Any, dict[str, Any]] = {
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: COUNT,
    float: {"type": "number"},
    str: TEXT,
}


def _schema_of(kind: Any) -> dict[str, Any]:
    """Schema of a type: plain, of plain parts, or a dataclass of such."""
    inner = [_schema_of(part) for part in get_args(kind) if part is not ...]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, UnionType):
        return {"anyOf": inner}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": inner[0]}
    if get_origin(kind) is not None:
        return mapping_to(inner[1])
    # What has a default may be missing: reports of before there was such a field are read.
    defaults = {part.name for part in fields(kind) if _has_default(part)}
    parts = {name: _schema_of(part) for name, part in get_type_hints(kind).items()}
    return object_with(parts, optional=defaults)


def _has_default(part: "Field[Any]") -> bool:
    return part.default is not MISSING or part.default_factory is not MISSING


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
        "forwards": or_null(SIZE),
        "backwards": or_null(SIZE),
        "seconds": SIZE,
        "illegal": COUNT,
        "error": or_null(TEXT),
        "rejected": COUNT,
        "near": or_null(_SHARE),
    },
    optional={"rejected", "near"},
)
_REJECTION = object_with(
    {
        "clean": COUNT,
        "clean_interval": _INTERVAL,
        "adversarial": COUNT,
        "adversarial_interval": _INTERVAL,
    }
)
_ADAPTATION = object_with(
    {
        "findings": {"type": "array", "items": TEXT},
        "standing": COUNT,
        "attacked": COUNT,
        "fooled": COUNT,
        "remedies": {"type": "array", "items": TEXT},
        "attacks": {"type": "array", "items": _ATTACK},
        "failed": {"type": "array", "items": TEXT},
    }
)
_COST = object_with({"forwards": COUNT, "backwards": COUNT, "seconds": SIZE})
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


def _column(kind: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": kind}


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
            "per_example": object_with(
                {
                    "index": _column(COUNT),
                    "label": _column(_CLASS),
                    "predicted": _column(_CLASS),
                    "margin": _column({"type": "number"}),
                    "fooled_by": _column({"type": ["string", "null"]}),
                    "distance": _column({"type": ["number", "null"], "minimum": 0}),
                }
            ),
            "costs": mapping_to(_COST),
            "random_state": {**COUNT, "maximum": 2**63 - 1},
            "versions": mapping_to(TEXT),
            "date": {"type": "string", "pattern": r"^\d{4}(-\d\d){2}T\d\d(:\d\d){2}\+00:00$"},
            "classes": {"type": "array", "items": _schema_of(ClassRow), "minItems": 1},
            "title": or_null(TEXT),
            "dataset": or_null(TEXT),
            "class_names": or_null({"type": "array", "items": TEXT}),
            "adaptation": or_null(_ADAPTATION),
            "rejection": or_null(_REJECTION),
        },
        optional={"adaptation", "rejection"},
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
    parts["attacks"] = _rows(read["attacks"])
    if read.get("adaptation") is not None:
        told = {name: _tuple(value) for name, value in read["adaptation"].items()}
        parts["adaptation"] = Adaptation(**{**told, "attacks": _rows(told["attacks"])})
    if read.get("rejection") is not None:
        counts = {name: _tuple(value) for name, value in read["rejection"].items()}
        parts["rejection"] = Rejection(**counts)
    parts["findings"] = tuple(Finding(**entry) for entry in read["findings"])
    seen: dict[str, Any] = {name: _tuple(value) for name, value in read["observations"].items()}
    parts["observations"] = Observations(**seen)
    parts["per_example"] = from_dict(read["per_example"])
    parts["classes"] = tuple(ClassRow(**entry) for entry in read["classes"])
    parts["costs"] = {name: Cost(**entry) for name, entry in read["costs"].items()}
    return parts


def _rows(entries: Any) -> tuple[AttackRow, ...]:
    return tuple(
        AttackRow(**{name: _tuple(value) for name, value in entry.items()}) for entry in entries
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
