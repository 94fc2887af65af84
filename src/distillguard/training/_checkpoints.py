"""Training that survives being killed: a folder with the state after every epoch.

``run.ckpt`` holds what a run begins with (its settings, its seed, the initial weights), and
``STAGE-EPOCH.ckpt`` everything that training changes. Each file appears under its name only when
it is complete, begins with a digest of what follows, and is read without running any code.
"""

import hashlib
import io
import os
import re
import secrets
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import torch

from .._files import write_atomically
from .._processes import Processes
from ..exceptions import SaveError

State: TypeAlias = dict[str, Any]

_MAGIC = b"distillguard checkpoint 1\n"
_KEPT = 2
_UNFINISHED = re.compile(r"(run|[a-z]+-\d{6,})\.ckpt\.[0-9a-f]{8}")


class Checkpoints:
    """The checkpoints of one fit, in a folder of their own."""

    def __init__(self, folder: str | os.PathLike[str], processes: Processes) -> None:
        if not os.fspath(folder):
            raise ValueError("checkpoint_dir must name a folder, got an empty path")
        self.folder, self.processes = Path(folder), processes
        self.stored = processes.broadcast(self._begun() if processes.first else None)

    @property
    def seed(self) -> int | None:
        """The seed of the run that the folder holds."""
        return None if self.stored is None else int(self.stored["seed"])

    def begin(self, settings: State, start: State, seed: int) -> State:
        """Return what the run in the folder started from, or make it a run that starts so."""
        if self.stored is None:
            self.stored = {"run": self.processes.broadcast(secrets.token_hex(8)), "seed": seed}
            self.stored |= {"settings": settings, "start": start}
            self._write("run.ckpt", self.stored)
        for name in settings | self.stored["settings"]:
            ours = settings.get(name, "nothing of the kind")
            theirs = self.stored["settings"].get(name, "nothing of the kind")
            if ours != theirs:
                raise SaveError(
                    f"checkpoint_dir must hold a run with the same {name} ({theirs} in "
                    f"{str(self.folder)!r}), got {ours}; name another folder, or delete this one "
                    "to start again"
                )
        found: State = self.stored["start"]
        return found

    def last(self, stage: str) -> State | None:
        """Return the newest good state of a stage; damaged files are named and passed over."""
        return self.processes.broadcast(self._last(stage) if self.processes.first else None)

    def save(self, stage: str, epoch: int, state: State) -> None:
        """Store the state after an epoch; the one before is kept in case this one is damaged."""
        assert self.stored is not None
        self._write(f"{stage}-{epoch:06}.ckpt", {"run": self.stored["run"], "state": state})
        if self.processes.first:
            for path in self._of(stage)[_KEPT:]:
                path.unlink()

    def _begun(self) -> State | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "run.ckpt"
        if not path.exists() and (strays := sorted(self.folder.glob("*.ckpt"))):
            raise SaveError(
                f"checkpoint_dir must be empty or hold a run, got {strays[0].name} without "
                f"run.ckpt in {str(self.folder)!r}"
            )
        for unfinished in self.folder.iterdir():
            if _UNFINISHED.fullmatch(unfinished.name):
                unfinished.unlink()
        return read(path) if path.exists() else None

    def _last(self, stage: str) -> State | None:
        assert self.stored is not None
        for path in self._of(stage):
            try:
                found = read(path)
                if found.get("run") != self.stored["run"]:
                    raise SaveError(f"{path.name} must belong to the run of run.ckpt")
            except SaveError as error:
                warnings.warn(f"a checkpoint is passed over: {error}", UserWarning, stacklevel=2)
                continue
            state: State = found["state"]
            return state
        return None

    def _of(self, stage: str) -> list[Path]:
        """Return the files of a stage, the newest first."""
        pattern = re.compile(rf"{re.escape(stage)}-\d+\.ckpt")
        return sorted((p for p in self.folder.iterdir() if pattern.fullmatch(p.name)), reverse=True)

    def _write(self, name: str, state: State) -> None:
        if self.processes.first:
            write(self.folder / name, state)
        self.processes.wait()


def write(path: Path, state: State) -> None:
    """Write a file that is there whole or not at all, even if the machine loses power."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, _MAGIC + hashlib.sha256(payload).digest() + payload)


def read(path: Path) -> State:
    """Read what ``write`` wrote.

    Raises
    ------
    SaveError
        If the file is damaged, truncated or something else.
    """
    content = path.read_bytes()
    digest, payload = content[len(_MAGIC) :][:32], content[len(_MAGIC) + 32 :]
    if not content.startswith(_MAGIC):
        raise SaveError(f"{path.name} must be a checkpoint of distillguard, got another file")
    if hashlib.sha256(payload).digest() != digest:
        raise SaveError(f"{path.name} must be undamaged, got bytes that its digest does not fit")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises here is not documented
        raise SaveError(
            f"{path.name} must hold tensors, numbers and text alone, got what cannot be read "
            f"without running code: {error}"
        ) from error
    if not isinstance(state, dict):
        raise SaveError(f"{path.name} must hold a dict, got {type(state).__name__}")
    return state
