"""Files that are there whole or not at all, JSON from strangers, and a hash of tensors."""

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace a file in one stroke: a kill or a power cut leaves the old one or the new one.

    A symbolic link stays one, and what it points to is replaced.

    Raises
    ------
    OSError
        If there is no room or no permission; it names ``path``.
    """
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync(target.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def unfinished_writes(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield what killed calls of :func:`write_atomically` left beside a file."""
    target = Path(os.path.realpath(path))
    name = re.compile(re.escape(target.name) + r"\.[0-9a-f]{8}")
    yield from (found for found in target.parent.iterdir() if name.fullmatch(found.name))


def _sync(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and values of tensors, whatever their device and layout."""
    total = hashlib.sha256()
    for name, tensor in tensors.items():
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(_plain(tensor).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _plain(tensor: Tensor) -> Tensor:
    """The values in a row, on the CPU."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.cpu().resolve_conj().resolve_neg().contiguous().flatten()


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
