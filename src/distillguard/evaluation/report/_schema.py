"""The JSON form of a report: its schema (JSON Schema, draft 2020-12) and the way back."""

from typing import Any

from .._judge import nested
from .._records import Cost
from ..diagnosis._findings import Finding
from ..diagnosis._observations import Observations
from ._rows import AttackRow

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_INTERVAL = {"type": "array", "items": _SHARE, "minItems": 2, "maxItems": 2}
_COUNT = {"type": "integer", "minimum": 0}
_SIZE = {"type": "number", "minimum": 0}
_TEXT = {"type": "string"}
_NORM = {"enum": ["linf", "l2", "l1", "l0"]}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "null"}]}


_ATTACK = _object(
    {
        "name": _TEXT,
        "robust_accuracy": _SHARE,
        "robust_interval": _INTERVAL,
        "attacked": _COUNT,
        "fooled": _COUNT,
        "success_rate": _or_null(_SHARE),
        "median_distance": _or_null(_SIZE),
        "distance_norm": _NORM,
        "forwards": _SIZE,
        "backwards": _SIZE,
        "seconds": _SIZE,
        "illegal": _COUNT,
        "error": _or_null(_TEXT),
    }
)
_FINDING = _object(
    {
        "code": {"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$"},
        "severity": {"enum": ["severe", "notice"]},
        "evidence": _TEXT,
        "meaning": _TEXT,
        "remedy": _TEXT,
        "figures": {"type": "object", "additionalProperties": {"type": "number"}},
    }
)
_COST = _object({"forwards": _COUNT, "backwards": _COUNT, "seconds": _SIZE})

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "distillguard robustness report",
    **_object(
        {
            "schema_version": {"const": 1},
            "model": _TEXT,
            "norm": _NORM,
            "epsilon": {"type": "number", "exclusiveMinimum": 0},
            "bounds": {
                "type": "array",
                "items": {"type": ["number", "array"]},
                "minItems": 2,
                "maxItems": 2,
            },
            "mask": {"type": ["array", "null"]},
            "n_examples": {"type": "integer", "minimum": 1},
            "clean_accuracy": _SHARE,
            "clean_interval": _INTERVAL,
            "robust_accuracy": _SHARE,
            "robust_interval": _INTERVAL,
            "quoted_accuracy": _SHARE,
            "quoted_interval": _INTERVAL,
            "headline": _TEXT,
            "attacks": {"type": "array", "items": _ATTACK, "minItems": 1},
            "survivors_only": {"type": "boolean"},
            "findings": {"type": "array", "items": _FINDING},
            "observations": {
                "type": "object",
                "required": ["correct", "saturated", "silent", "sampled"],
            },
            "costs": {"type": "object", "additionalProperties": _COST},
            "random_state": _COUNT,
            "versions": {"type": "object", "additionalProperties": _TEXT},
        }
    ),
}


def parts_from(read: dict[str, Any]) -> dict[str, Any]:
    """Turn what was read from JSON into the arguments of a report."""
    version = read.get("schema_version")
    if version != 1:
        raise ValueError(f"text must be a report of schema version 1, got {version!r}")
    parts = {
        name: tuple(value) if isinstance(value, list) else value for name, value in read.items()
    }
    for derived in ("schema_version", "headline", "quoted_accuracy", "quoted_interval"):
        del parts[derived]
    parts["bounds"], parts["mask"] = nested(read["bounds"]), nested(read["mask"])
    parts["attacks"] = tuple(
        AttackRow(**{**entry, "robust_interval": tuple(entry["robust_interval"])})
        for entry in read["attacks"]
    )
    parts["findings"] = tuple(Finding(**entry) for entry in read["findings"])
    seen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in read["observations"].items()
    }
    parts["observations"] = Observations(**seen)
    parts["costs"] = {name: Cost(**entry) for name, entry in read["costs"].items()}
    return parts
