"""Files that are there whole or not at all, and a hash of tensors."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    unfinished = _unfinished(target)
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


def check_writable(path: str | os.PathLike[str]) -> None:
    """Make the folder of a file, and find out whether it can be written, before work is lost.

    Raises
    ------
    OSError
        If it cannot; it names ``path``.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    probe = _unfinished(target)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _unfinished(target: Path) -> Path:
    return target.with_name(f"{target.name}.{secrets.token_hex(4)}")


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
