"""What a manifest holds, as JSON Schema (draft 2020-12)."""

from typing import Any

from .._json import COUNT, TEXT, Schema, mapping_to, object_with

FORMAT, VERSION = "distillguard estimator", 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 64 * 2**20
WEIGHTS = r"^[a-z_]+-[0-9a-f]{16}\.safetensors$"
MOST_REPLACED = 64
ASKED = 4
"""Inputs of each kind that a network is asked about, at most."""


def _list_of(items: dict[str, Any], most: int = 2**20) -> dict[str, Any]:
    # The length comes first: what is far too long is not looked at in every part.
    return {"type": "array", "maxItems": most, "items": items}


_ANYTHING: dict[str, Any] = {}
_BUILDER = object_with(
    {
        "kind": {"enum": ["none", "built-in", "given"]},
        "name": TEXT,
        "keywords": mapping_to(_ANYTHING),
    },
    optional=("name", "keywords"),
)
_FITTED = object_with(
    {
        "classes": object_with(
            {"dtype": TEXT, "values": _list_of({"type": ["boolean", "number", "string"]})}
        ),
        "input_shape": _list_of({**COUNT, "minimum": 1}, 15) | {"minItems": 1},
        "n_features_in": COUNT,
        "feature_names_in": _list_of(TEXT),
        "n_iter": COUNT,
        "history": _list_of({"type": "object"}),
        "false_alarms": _list_of(COUNT, 2) | {"minItems": 2},
    },
    optional=("feature_names_in", "n_iter", "history", "false_alarms"),
)
_LOGITS = _list_of(_list_of({"type": "number"}), ASKED)
_ANSWERS = object_with(
    {
        "dtype": {"enum": ["float64", "float32", "bfloat16", "float16"]},
        "logits": mapping_to(_LOGITS),
    }
)
_TENSOR = {
    "type": "array",
    "prefixItems": [TEXT, TEXT, _list_of(COUNT, 64)],
    "minItems": 3,
    "items": False,
}
_FILE = {"type": "string", "pattern": WEIGHTS}
_NETWORK = object_with(
    {
        "file": _FILE,
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "tensors": _list_of(_TENSOR, 2**17),
    }
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "manifest of a save by distillguard",
    **object_with(
        {
            "format": {"const": FORMAT},
            "version": {"const": VERSION},
            "estimator": TEXT,
            "libraries": mapping_to(TEXT),
            "parameters": mapping_to(_ANYTHING),
            "omitted": _list_of(TEXT),
            "builders": mapping_to(_BUILDER),
            "fitted": _FITTED,
            "channels_last": _list_of(TEXT),
            "answers": mapping_to(_ANSWERS),
            "networks": mapping_to(_NETWORK),
            "replaced": _list_of(_FILE, MOST_REPLACED),
            "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        }
    ),
}

CHECKED = Schema(SCHEMA)
