"""A folder that holds networks: a manifest in JSON and a safetensors file for each network.

Every save gives its weights files names that no other save has, and replaces the manifest in one
stroke. So a kill at any moment, or another save at the same time, leaves one whole save. What is
removed is what the replaced manifest named; a save that was killed left a manifest, finished or
not, which tells the next one what to sweep up. Nobody else's file is removed, and no link is
written through.

Reading takes every byte for hostile: nothing is unpickled, no size is believed before the bytes
are there, no path comes from the manifest.
"""

import hashlib
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from .._files import UNFINISHED, begin_write, end_write
from .._json import json_from
from ..exceptions import SaveError
from ._schema import CHECKED, FORMAT, MANIFEST, MAX_MANIFEST, MOST_REPLACED, VERSION, WEIGHTS

Tensors = dict[str, Tensor]

_PATIENCE = 30.0
"""Seconds to wait for another save; after them nothing is at stake but what is left to sweep."""

_ATTEMPTS = 10


class Described(NamedTuple):
    """A tensor without its values, as a manifest lists it."""

    name: str
    dtype: str
    shape: list[int]

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "Described":
        """Describe one entry of a state dict."""
        return cls(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape))

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype}, {'x'.join(map(str, self.shape)) or 'scalar'})"


def write(
    folder: str | os.PathLike[str],
    content: dict[str, Any],
    networks: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Write a save, or replace the one that is there; ``content`` is what JSON can carry."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as alone:
        replaced = _files_of_ours(folder / MANIFEST)
        unfinished: dict[Path, Path] = {}
        try:
            described = {}
            for name, tensors in networks.items():
                target = folder / f"{name}-{secrets.token_hex(8)}.safetensors"
                described[name], weights = _weights(target, tensors)
                unfinished[target] = begin_write(target, weights)
            content = {**content, "replaced": sorted(replaced)[:MOST_REPLACED]}
            manifest = _sealed(content, described)
            # Before weights get their names: it tells the next save what a kill has left.
            unfinished[folder / MANIFEST] = begin_write(folder / MANIFEST, manifest)
            for target, temporary in unfinished.items():
                end_write(temporary, target)
        except BaseException:
            _undo(unfinished, folder / MANIFEST)
            raise
        _remove(folder, replaced)
        if alone:
            _sweep(folder, {entry["file"] for entry in described.values()})


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensors]]:
    """Read a save: the manifest, of the right form, and the tensors of each network."""
    for _ in range(_ATTEMPTS):
        manifest = _read_manifest(Path(folder) / MANIFEST)
        try:
            return manifest, {
                name: _read_weights(Path(folder), entry)
                for name, entry in manifest["networks"].items()
            }
        except SaveError as error:
            failure = error
            # Somebody may have saved in between: then there is another manifest.
            if _read_manifest(Path(folder) / MANIFEST) == manifest:
                break
    raise failure


def _undo(unfinished: Mapping[Path, Path], manifest: Path) -> None:
    """Remove what a failed save has written, unless its manifest is in place already."""
    if manifest not in unfinished or unfinished[manifest].exists():
        for target in unfinished.keys() - {manifest}:
            target.unlink(missing_ok=True)
    for temporary in unfinished.values():
        temporary.unlink(missing_ok=True)


def _weights(target: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], bytes]:
    """Return the manifest's entry for a network, and the content of its file."""
    # Tied weights share memory and convolutions may lie channels last; a file has neither.
    plain = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in tensors.items()
    }
    content = bytes_of(plain)
    listed = [list(Described.of(key, tensor)) for key, tensor in tensors.items()]
    sha256 = hashlib.sha256(content).hexdigest()
    return {"file": target.name, "sha256": sha256, "tensors": listed}, content


def _sealed(content: dict[str, Any], networks: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest, which ``read`` takes back."""
    manifest = {"format": FORMAT, "version": VERSION, **content, "networks": networks}
    try:
        manifest["digest"] = _digest(manifest)
        CHECKED.check(manifest)
    except (ValueError, TypeError, RecursionError) as error:
        raise SaveError(
            f"the estimator must hold what a manifest can carry, got: {error}"
        ) from error
    written = json.dumps(manifest, indent=1, allow_nan=False).encode()
    if len(written) > MAX_MANIFEST:
        raise SaveError(
            f"the estimator's parameters, classes and history must take at most {MAX_MANIFEST} "
            f"bytes, got {len(written)}"
        )
    return written


def _files_of_ours(path: Path) -> set[str]:
    """Return the weights files of the save that is there; any folder may be named by mistake."""
    if not os.path.lexists(path):
        return set()
    with suppress(SaveError):
        return _weights_files(_read_manifest(path), path.parent)
    with suppress(SaveError):
        if FORMAT.encode() in _bytes(path, MAX_MANIFEST)[:100]:
            return set()  # ours, but damaged
    raise SaveError(
        f"path must be a folder without a {MANIFEST} of something else, got {path.parent}"
    )


def _weights_files(manifest: Mapping[str, Any], folder: Path) -> set[str]:
    """Return the files of a save, and those that it replaced but was killed before removing."""
    left = {name for name in manifest["replaced"] if os.path.lexists(folder / name)}
    return left | {each["file"] for each in manifest["networks"].values()}


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        with suppress(OSError):  # what may not be removed does no harm
            (folder / name).unlink()


def _sweep(folder: Path, kept: set[str]) -> None:
    """Remove what killed saves left."""
    for path in folder.iterdir():
        if re.fullmatch(re.escape(MANIFEST) + UNFINISHED, path.name):
            named: set[str] = set()
            with suppress(SaveError):
                named = {each["file"] for each in _read_manifest(path)["networks"].values()}
            # Whoever takes the manifest away may remove its files: they will be in no save.
            with suppress(OSError):
                path.unlink()
                _remove(folder, named - kept)
        elif re.fullmatch(WEIGHTS.strip("^$") + UNFINISHED, path.name):
            with suppress(OSError):
                path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keep other saves out; False where that cannot be had, as on some network drives."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        yield _waited_for(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB))
    finally:
        # Not by closing it alone: a process forked meanwhile has the lock too.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _waited_for(take: Callable[[], None]) -> bool:
    """Whether a lock was had, in the end."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            take()
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        except OSError:
            return False


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest: of this format and version, as it was written, and of the right form."""
    try:
        manifest = json_from(_bytes(path, MAX_MANIFEST).decode())
    except SaveError:
        raise
    except ValueError as error:
        raise SaveError(f"{path} must be a manifest in JSON, got a damaged file: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise SaveError(f"{path} must be the manifest of a save by distillguard, got another file")
    version = manifest.get("version")
    if type(version) is not int or version < 1:
        raise SaveError(f"{path} must have a version from 1 on, got {version!r}")
    if version > VERSION:
        raise SaveError(
            f"{path} must have at most version {VERSION}, got {version}, which a newer "
            "distillguard wrote; upgrade to read it"
        )
    try:
        intact = manifest.get("digest") == _digest(manifest)
    except RecursionError:
        intact = False
    if not intact:
        raise SaveError(f"{path} must be as it was written, got one damaged or edited since")
    try:
        CHECKED.check(manifest)
    except (ValueError, RecursionError) as error:
        raise SaveError(f"{path} must follow persistence.SCHEMA, got: {error}") from None
    return manifest


def _read_weights(folder: Path, entry: Mapping[str, Any]) -> Tensors:
    """Read one network's tensors, which are those that its checked manifest entry lists."""
    listed = [Described(*each) for each in entry["tensors"]]
    path = folder / entry["file"]
    held = sum(_size(each) for each in listed)
    # A header has each name, of whose letters JSON makes six at most, and some numbers.
    header = 4096 + sum(256 + 6 * len(each.name) + 20 * len(each.shape) for each in listed)
    content = _bytes(path, 8 + header + held)
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise SaveError(f"{path} must be as it was written, got one damaged since")
    if len(content) != 8 + int.from_bytes(content[:8], "little") + held:
        raise SaveError(f"{path} must hold the tensors of its manifest, got another size")
    try:
        tensors = tensors_of(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise SaveError(f"{path} must be a safetensors file, got a damaged one: {error}") from None
    found = {key: Described.of(key, tensor) for key, tensor in tensors.items()}
    for each in listed:
        if found.get(each.name) != each:
            raise SaveError(f"{path} must hold {each}, got {found.get(each.name) or 'none'}")
    if len(found) != len(listed):
        raise SaveError(f"{path} must hold {len(listed)} tensors, got {len(found)}")
    return {each.name: tensors[each.name] for each in listed}


def _size(tensor: Described) -> int:
    dtype = getattr(torch, tensor.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise SaveError(f"{MANIFEST} must list tensors that torch has, got {tensor}")
    return math.prod(tensor.shape) * dtype.itemsize


def _bytes(path: Path, most: int) -> bytes:
    """The content of a regular file that is no larger than it may be."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SaveError(f"{path} must be a file, got something else")
        if status.st_size > most:
            raise SaveError(f"{path} must have at most {most} bytes, got {status.st_size}")
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise SaveError(f"{path} must be a file that can be read, got: {error}") from error


def _digest(manifest: Mapping[str, Any]) -> str:
    """Hash all of a manifest but its digest."""
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    plain = json.dumps(rest, sort_keys=True, allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()
