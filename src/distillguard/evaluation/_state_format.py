"""What is in a state file: JSON and tensors in one safetensors file, under a checksum.

Reading believes nothing. The checksum finds accidents; that every key, type, size and relation is
as an evaluation writes it finds the rest, so that no bytes lead to any error but SaveError.
"""

import hashlib
import json
import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._files import hash_of, write_atomically
from .._json import COUNT, SIZE, TEXT, Schema, json_from, mapping_to, object_with, or_null
from .._modes import on_cpu
from ..exceptions import SaveError
from ._entries import RESERVED
from ._judge import Verdict
from ._records import DRAWN, SAMPLED, SHOWN
from ._run import attack_columns, clean_columns

NAME = "distillguard evaluation state"
FORMAT = f"{NAME} 6"

_COST = object_with({"forwards": COUNT, "backwards": COUNT, "seconds": SIZE})
_FACTS = object_with(
    {"rounding": SIZE, "hair": {"enum": [None, "float16", "bfloat16", "float32", "float64"]}}
)
_CHUNK = {
    "type": "array",
    "prefixItems": [{**COUNT, "minimum": 1}, {"type": "string", "pattern": "^[0-9a-f]{64}$"}],
    "minItems": 2,
    "maxItems": 2,
}
SCHEMA = Schema(
    object_with(
        {
            "format": {"const": FORMAT},
            "seed": {**COUNT, "maximum": 2**63 - 1},
            "process": object_with({"rank": COUNT, "count": {**COUNT, "minimum": 1}}),
            "evaluation": mapping_to({"type": ["string", "array", "object"]}),
            "environment": mapping_to(TEXT),
            "attacks": mapping_to({"type": "object"}),
            "chunks": {"type": "array", "items": _CHUNK},
            "known": mapping_to(COUNT),
            "complete": {"type": "boolean"},
            "repeatable": {"type": "boolean"},
            "costs": mapping_to(_COST),
            "errors": mapping_to(TEXT),
            "stand_ins": mapping_to({"type": "array", "items": TEXT}),
            "probabilities": {"type": "boolean"},
            "facts": or_null(_FACTS),
        }
    )
)

_SHOWN = ("inputs", "adversarial", "labels", "predicted", "distance", "attack", "index")

Content = dict[str, Any]
Tensors = dict[str, Tensor]


def write(path: Path, content: Content, tensors: Tensors) -> None:
    """Replace the file in one stroke."""
    from safetensors.torch import save

    text = json.dumps({"format": FORMAT, **content}, allow_nan=False)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {"state": text, "checksum": _checksum(text, tensors)}
    write_atomically(path, save(tensors, metadata=metadata))


def read(path: Path) -> tuple[Content, Tensors]:
    """Read a file that anybody may have written.

    Raises
    ------
    OSError
        If it may not be read.
    SaveError
        If it is not what :func:`write` wrote.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "folder" if path.is_dir() else "device"
        raise SaveError(f"state_file must be the path of a file, got the {kind} {path}")
    path.open("rb").close()
    try:
        return _read(path)
    except SaveError:
        raise
    except Exception as error:  # what safetensors raises is not documented
        why = str(error)
        raise SaveError(
            f"state_file must be a state written by evaluate, got {path} "
            f"({why if len(why) < 300 else why[:300] + '...'}); remove it to start afresh"
        ) from error


def _read(path: Path) -> tuple[Content, Tensors]:
    from safetensors import safe_open

    with on_cpu(), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        content = json_from(metadata["state"])
        _check_format(content, path)
        # Cloned, so that the file is not held open.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    if metadata.get("checksum") != _checksum(metadata["state"], tensors):
        raise ValueError("its checksum fits other bytes: it was damaged or edited")
    SCHEMA.check(content)
    check_progress(content)
    check_tensors(content, tensors)
    return content, tensors


def _check_format(content: Any, path: Path) -> None:
    found = content["format"]
    if found != FORMAT and str(found).startswith(NAME):
        raise SaveError(
            f"state_file must have the format {FORMAT!r}, got {found!r}, which another version of "
            f"distillguard wrote; remove {path} to start afresh"
        )


def _checksum(text: str, tensors: Tensors) -> str:
    held = {name: tensors[name] for name in sorted(tensors)}
    return hashlib.sha256(f"{hash_of(held)} {text}".encode()).hexdigest()


def check_progress(content: Content) -> None:
    """Whether the attacks, their accounts and the chunks fit each other."""
    attacks, sizes = list(content["attacks"]), [size for size, _ in content["chunks"]]
    _demand(attacks, "at least one attack")
    _demand(list(content["known"]) == attacks, "how many chunks each attack has seen")
    seen = list(content["known"].values())
    _demand(seen[0] == len(sizes), "as many chunks as the first attack has seen")
    _demand(all(a >= b for a, b in pairwise(seen)), "attacks in the order in which they ran")
    _demand(set(content["errors"]) <= set(attacks), "errors of its attacks")
    _demand(set(content["stand_ins"]) <= set(attacks), "what its attacks asked besides")
    _demand(set(content["costs"]) <= {*attacks, *RESERVED}, "costs of its attacks")
    _demand(all(size == sizes[0] for size in sizes[:-1]), "chunks of one size")
    _demand(not sizes or sizes[-1] <= sizes[0], "a last chunk no larger than the others")
    process = content["process"]
    _demand(process["rank"] < process["count"], "a rank below the number of processes")


def check_tensors(content: Content, tensors: Tensors) -> None:
    """Whether there is every column of every example, and nothing impossible in it."""
    parts: dict[str, Tensors] = {
        "answers": {},
        "columns": {},
        "sample": {},
        "drawn": {},
        "shown": {},
    }
    for key, tensor in tensors.items():
        part, _, name = key.partition(":")
        parts[part][name] = tensor
    answers, columns = parts["answers"], parts["columns"]
    n_classes = 0
    if content["chunks"]:
        _demand(list(answers) == ["logits"] and answers["logits"].ndim == 2, "the model's answers")
        n_classes = answers["logits"].shape[1]
        _demand(n_classes > 1 and answers["logits"].is_floating_point(), "logits of the model")

    places = own_places(content)
    verdict = _verdict()
    no, whole = verdict.legal, verdict.predicted
    kinds = _dtypes(clean_columns(torch.zeros(0, 2, device="cpu"), whole, whole, no))
    n_rows = dict.fromkeys(kinds, len(places))
    for name, known in content["known"].items():
        own = _dtypes(attack_columns(name, verdict, no, whole, 0))
        kinds |= own
        n_rows |= dict.fromkeys(own, len(own_places(content, known)))
    n_rows = {name: n for name, n in n_rows.items() if n}
    _demand(columns.keys() == n_rows.keys(), f"the columns {', '.join(sorted(n_rows))}")
    for name, column in columns.items():
        fits = column.shape == (n_rows[name],) and column.dtype == kinds[name]
        _demand(fits, f"{n_rows[name]} values of {kinds[name]} in {name}")
    if columns:
        _demand(torch.equal(columns["index"], places), "the examples of its process in order")
        _demand(content["facts"] is not None, "what was found out about the model")
        for name in ("label", "predicted"):
            _demand(_within(columns[name], n_classes), f"classes in {name}")
        for name in content["attacks"]:
            _check_verdicts(name, columns)
    for part, names, most in (
        ("sample", ("inputs", "labels", "index"), SAMPLED),
        ("drawn", ("inputs", "labels", "index"), DRAWN),
        ("shown", _SHOWN, max(SHOWN, len(places))),
    ):
        _check_kept(parts[part], part, names, most)
    for part, name, most in (
        ("sample", "labels", n_classes),
        ("drawn", "labels", n_classes),
        ("shown", "labels", n_classes),
        ("shown", "predicted", n_classes),
        ("shown", "attack", len(content["attacks"]) + 1),
    ):
        held = parts[part].get(name)
        _demand(held is None or _within(held, most), f"what there is in {part}:{name}")
    for part in ("sample", "drawn", "shown"):
        if parts[part]:
            known = torch.isin(parts[part]["index"], places)
            _demand(bool(known.all()), f"examples that were evaluated in {part}")


def check_images(tensors: Tensors, inputs: Tensor) -> None:
    """Whether the examples that a file keeps are like those of the data."""
    for part in ("sample:inputs", "drawn:inputs", "shown:inputs"):
        held = tensors.get(part)
        if held is not None and (held.shape[1:], held.dtype) != (inputs.shape[1:], inputs.dtype):
            raise SaveError(f"state_file must keep examples of the data, got others as {part}")


def own_places(content: Content, n_chunks: int | None = None) -> Tensor:
    """Places of the examples that this process has seen in the first chunks."""
    rank, count = content["process"]["rank"], content["process"]["count"]
    parts, start = [torch.arange(0, device="cpu")], 0
    for size, _ in content["chunks"][:n_chunks]:
        parts.append(torch.arange(start + rank, start + size, count, device="cpu"))
        start += size
    return torch.cat(parts)


def _check_verdicts(name: str, columns: Tensors) -> None:
    """What fools succeeds, what succeeds or is rejected is legal, and what is attacked correct."""
    if f"{name}/fooled" not in columns:
        return
    attacked, fooled, success, legal, rejected = (
        columns[f"{name}/{part}"] for part in ("attacked", "fooled", "success", "legal", "rejected")
    )
    correct = (columns["predicted"] == columns["label"])[: len(attacked)]
    seen = attacked & legal
    order = (fooled <= success) & (success <= seen) & (rejected <= seen) & (attacked <= correct)
    order &= ~(rejected & success) & ~columns[f"{name}/lead"].isnan()
    _demand(bool(order.all()), f"verdicts on {name} that can be")


def _check_kept(part: Tensors, name: str, columns: tuple[str, ...], most: int) -> None:
    """A few examples: as many of each column, in the order of their keys."""
    if not part:
        return
    _demand(part.keys() == {"key", *columns}, f"the columns {', '.join(columns)} of {name}")
    n = len(part["key"]) if part["key"].ndim else -1
    _demand(0 <= n <= most, f"at most {most} examples in {name}")
    for column, held in part.items():
        images = column in ("inputs", "adversarial")
        kind = torch.float64 if column == "distance" else torch.int64
        fits = held.is_floating_point() if images else held.dtype == kind and held.ndim == 1
        _demand(fits and held.ndim > 0 and len(held) == n, f"{n} examples in {name}:{column}")
        _demand(held.shape == part["inputs"].shape or not images, f"images of one shape in {name}")
    # Differences of two keys overflow: they are hashes of 64 bits.
    key = part["key"]
    _demand(bool((key[:-1] <= key[1:]).all()), f"keys in order in {name}")


def _within(values: Tensor, most: int) -> bool:
    return bool(((values >= 0) & (values < most)).all())


def _demand(fulfilled: Any, what: str) -> None:
    if not fulfilled:
        raise ValueError(f"it does not hold {what}")


def _dtypes(columns: Tensors) -> dict[str, torch.dtype]:
    return {name: column.dtype for name, column in columns.items()}


def _verdict() -> Verdict:
    """A verdict on no examples, to learn the dtypes of its columns from."""
    kinds = (torch.bool, torch.int64, torch.float64)
    no, whole, real = (torch.zeros(0, dtype=kind, device="cpu") for kind in kinds)
    return Verdict(whole, no, no, no, no, real, real, real)
