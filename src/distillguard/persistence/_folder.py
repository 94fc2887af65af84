"""A folder that holds networks: a manifest in JSON and a safetensors file for each network.

A weights file is named by its own hash and the manifest is replaced in one stroke. So a kill
at any moment leaves either the old save or the new one, and files that no manifest names are
swept up by the next save. Reading takes every byte for hostile: nothing is unpickled, no size
is believed before the bytes are there, no path comes from the manifest.
"""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from ._files import write_atomically
from ._json import json_from
from .exceptions import SaveError

FORMAT, VERSION = "distillguard estimator", 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 64 * 2**20
_WEIGHTS = re.compile(r"[a-z_]+-[0-9a-f]{16}\.safetensors")
_OURS = re.compile(rf"{_WEIGHTS.pattern}(\.[0-9a-f]{{8}})?|{re.escape(MANIFEST)}\.[0-9a-f]{{8}}")
"""Weights, and whatever a killed save left under another name."""


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
    _refuse_to_overwrite(folder / MANIFEST)
    described = {name: _write_weights(folder, name, held) for name, held in networks.items()}
    manifest = {"format": FORMAT, "version": VERSION, **content, "networks": described}
    manifest["digest"] = _digest(manifest)

    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False).encode())
    named = {each["file"] for each in described.values()}
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the manifest: of this format and version, and as it was written."""
    path = Path(folder) / MANIFEST
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
    digest = manifest.pop("digest", None)
    try:
        intact = digest == _digest(manifest)
    except RecursionError:
        intact = False
    if not intact:
        raise SaveError(f"{path} must be as it was written, got one damaged or edited since")
    return manifest


def read_weights(
    folder: str | os.PathLike[str], name: str, entry: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Read one network's tensors, which are those that its checked manifest entry lists."""
    sha256, listed = entry["sha256"], [Described(*each) for each in entry["tensors"]]
    if entry["file"] != _file_name(name, sha256) or not _WEIGHTS.fullmatch(entry["file"]):
        raise SaveError(f"{MANIFEST} must name {name}'s file by its hash, got {entry['file']!r}")
    path = Path(folder) / entry["file"]
    held = sum(_size(each) for each in listed)
    # A header has each name, of whose letters JSON makes six at most, and some numbers.
    header = 4096 + sum(256 + 6 * len(each.name) + 20 * len(each.shape) for each in listed)
    content = _bytes(path, 8 + header + held)
    if hashlib.sha256(content).hexdigest() != sha256:
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


def _write_weights(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    # Tied weights share memory and convolutions may lie channels last; a file has neither.
    plain = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in tensors.items()
    }
    content = bytes_of(plain)
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / _file_name(name, sha256)
    # A file of this name has these bytes, or is what a killed save left of them.
    if not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256):
        write_atomically(path, content)
    listed = [list(Described.of(key, tensor)) for key, tensor in tensors.items()]
    return {"file": path.name, "sha256": sha256, "tensors": listed}


def _file_name(name: str, sha256: str) -> str:
    return f"{name}-{sha256[:16]}.safetensors"


def _size(tensor: Described) -> int:
    dtype = getattr(torch, tensor.dtype, None)
    if not isinstance(dtype, torch.dtype) or min(tensor.shape, default=0) < 0:
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
    plain = json.dumps(manifest, sort_keys=True, allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def _refuse_to_overwrite(path: Path) -> None:
    """Replace our own manifests only: any folder may be named by mistake."""
    if path.exists() and FORMAT.encode() not in path.read_bytes()[:100]:
        raise SaveError(
            f"path must be a folder without a {MANIFEST} of something else, got {path.parent}"
        )
