"""Files that are there whole or not at all, and a hash of tensors."""

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

UNFINISHED = r"\.distillguard-[0-9a-f]{8}"
"""How the name of a file ends that is being written, or was when its writer was killed."""


def write_atomically(
    path: str | os.PathLike[str], content: bytes, *, follow_links: bool = True
) -> None:
    """Replace a file in one stroke: a kill or a power cut leaves the old one or the new one.

    With ``follow_links`` a symbolic link stays one, and what it points to is replaced; else
    the link is. A device or a pipe is written to.

    Raises
    ------
    OSError
        If there is no room or no permission; it names ``path``.
    """
    target = Path(os.path.realpath(path)) if follow_links else Path(path)
    with _naming(path):
        if follow_links and target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        unfinished = begin_write(target, content)
        try:
            end_write(unfinished, target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def begin_write(target: Path, content: bytes) -> Path:
    """Write a file, to the disk, under a name that says it is unfinished; return that name."""
    unfinished = _unfinished(target)
    with _naming(target):
        try:
            with unfinished.open("xb") as file:
                _copy_mode(target, unfinished)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return unfinished


def end_write(unfinished: Path, target: Path) -> None:
    """Give a finished file its name, to the disk."""
    with _naming(target):
        unfinished.replace(target)
        _sync(target.parent)


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
    with _naming(path):
        probe.touch(exist_ok=False)
        probe.unlink()


def unfinished_writes(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield what killed calls of :func:`write_atomically` left beside a file."""
    target = Path(os.path.realpath(path))
    name = re.compile(re.escape(target.name) + UNFINISHED)
    yield from (found for found in target.parent.iterdir() if name.fullmatch(found.name))


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors name the file that somebody asked for."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _unfinished(target: Path) -> Path:
    return target.with_name(f"{target.name}.distillguard-{secrets.token_hex(4)}")


def _copy_mode(target: Path, unfinished: Path) -> None:
    """Keep a file private that was."""
    with suppress(OSError):
        mode = target.lstat().st_mode
        if stat.S_ISREG(mode):
            unfinished.chmod(stat.S_IMODE(mode))


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
