"""Training that survives being killed: a folder with the state after every epoch.

``run.ckpt`` holds what a run begins with (its settings, its seed, the initial weights), and
``STAGE-EPOCH.ckpt`` everything that training changes. Each file appears under its name only when
it is complete, begins with a digest of what follows, says inside which file of which run it is,
and is read without running any code. What cannot be read so is not written.
"""

import hashlib
import io
import json
import os
import platform
import re
import secrets
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .._files import UNFINISHED, write_atomically
from .._identity import Description, difference, without_bytecode
from .._json import json_from
from .._processes import Processes
from ..exceptions import SaveError

State: TypeAlias = dict[str, Any]

_MAGIC = b"distillguard checkpoint 1\n"
_NAME = re.compile(r"(run|[a-z]+-\d{6,})\.ckpt")
_UNFINISHED = re.compile(_NAME.pattern + UNFINISHED)
_NUMPY = "distillguard: NumPy"
_RUN = {"run": str, "seed": int, "python": str, "settings": str, "later": str, "start": dict}
_EPOCH = {"run": str, "stage": str, "epoch": int, "state": dict}


class Checkpoints:
    """The checkpoints of one fit, in a folder of their own."""

    def __init__(self, folder: str | os.PathLike[str], processes: Processes) -> None:
        if not os.fspath(folder):
            raise ValueError("checkpoint_dir must name a folder, got an empty path")
        self.folder, self.processes = Path(folder), processes
        self.stored = processes.broadcast(self._begun() if processes.first else None)
        self._readable: set[type] = set()

    @property
    def seed(self) -> int | None:
        """The seed of the run that the folder holds."""
        return None if self.stored is None else int(self.stored["seed"])

    def begin(self, settings: dict[str, Description], start: State, seed: int) -> State:
        """Return what the run in the folder started from, or make it a run that starts so.

        ``settings`` tell the run by value, as :class:`~distillguard._identity.Describer` does.
        """
        if self.stored is None:
            self.stored = {"run": self.processes.broadcast(secrets.token_hex(8)), "seed": seed}
            self.stored |= {"python": _python(), "settings": json.dumps(settings), "later": "{}"}
            self.stored["start"] = start
            self._write("run.ckpt", self.stored)
        self._compare(self._known("settings"), settings)
        held: State = self.stored["start"]
        if _shapes(held) != _shapes(start):
            raise SaveError("run.ckpt must hold the initial weights of its run, got others")
        return held

    def also(self, name: str, description: Description) -> None:
        """Compare, or note, what a run has besides: it may be known only when a stage is over."""
        assert self.stored is not None
        known = self._known("later")
        if name not in known:
            known[name] = description
            self.stored["later"] = json.dumps(known)
            self._write("run.ckpt", self.stored)
        self._compare(known, {**known, name: description})

    def last(self, stage: str) -> State | None:
        """Return the newest good state of a stage; damaged files are named and passed over."""
        return self.processes.broadcast(self._last(stage) if self.processes.first else None)

    def save(self, stage: str, epoch: int, state: State) -> None:
        """Store the state after an epoch; the one before is kept in case this one is damaged."""
        assert self.stored is not None
        content = {"run": self.stored["run"], "stage": stage, "epoch": epoch, "state": state}
        self._write(f"{stage}-{epoch:06}.ckpt", content)
        if self.processes.first:
            for number, path in self._of(stage):
                if number < epoch - 1 and _is_ours(path):
                    path.unlink()

    def _begun(self) -> State | None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise SaveError(f"checkpoint_dir must be a folder, got {error.filename!r}") from None
        path = self.folder / "run.ckpt"
        names = sorted(each.name for each in self.folder.iterdir())
        for name in filter(_NAME.fullmatch, names):
            if not (self.folder / name).is_file():
                raise SaveError(
                    f"checkpoint_dir must hold files as checkpoints, got {name} in "
                    f"{str(self.folder)!r}, which is something else"
                )
        strays = [name for name in names if name.endswith(".ckpt")]
        if strays and "run.ckpt" not in strays:
            raise SaveError(
                f"checkpoint_dir must be empty or hold a run, got {strays[0]} without "
                f"run.ckpt in {str(self.folder)!r}"
            )
        for name in filter(_UNFINISHED.fullmatch, names):
            (self.folder / name).unlink(missing_ok=True)
        return read(path, _RUN) if "run.ckpt" in strays else None

    def _last(self, stage: str) -> State | None:
        assert self.stored is not None
        for number, path in self._of(stage):
            try:
                found = read(path, _EPOCH)
                if found["run"] != self.stored["run"]:
                    raise SaveError(f"{path.name} must belong to the run of run.ckpt")
                if (found["stage"], found["epoch"]) != (stage, number):
                    raise SaveError(
                        f"{path.name} must be what its name says, got the state of "
                        f"{found['stage']} after epoch {found['epoch']}"
                    )
            except SaveError as error:
                warnings.warn(f"a checkpoint is passed over: {error}", UserWarning, stacklevel=2)
                continue
            state: State = found["state"]
            return state
        return None

    def _of(self, stage: str) -> list[tuple[int, Path]]:
        """Return the epochs of a stage that there are files of, the newest first."""
        pattern = re.compile(rf"{re.escape(stage)}-(\d{{6,}})\.ckpt")
        named = ((pattern.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted(((int(found[1]), path) for found, path in named if found), reverse=True)

    def _known(self, part: str) -> dict[str, Any]:
        """Return what ``run.ckpt`` says that the run is told by."""
        assert self.stored is not None
        try:
            known = json_from(self.stored[part])
        except ValueError as error:
            raise SaveError(f"run.ckpt must hold the settings of a run, got: {error}") from None
        if not isinstance(known, dict):
            raise SaveError(f"run.ckpt must hold the settings of a run, got {known!r}")
        return known

    def _compare(self, theirs: Any, ours: Any) -> None:
        assert self.stored is not None
        try:
            if self.stored["python"] != _python():
                theirs, ours = without_bytecode(theirs), without_bytecode(ours)
            found = difference(theirs, ours)
        except RecursionError:
            raise SaveError("run.ckpt must hold settings that are not nested too deep") from None
        if found is not None:
            name, held, wanted = found
            raise SaveError(
                f"checkpoint_dir must hold a run with the same {name} ({held} in "
                f"{str(self.folder)!r}), got {wanted}; name another folder, or delete this one "
                "to start again"
            )

    def _write(self, name: str, state: State) -> None:
        if self.processes.first:
            plain = _encoded(state)
            self._check_readable(plain)
            write(self.folder / name, plain)
        self.processes.wait()

    def _check_readable(self, state: State) -> None:
        """Refuse a state that could not be read back, before work depends on it."""
        for place, part in _parts(state):
            kind = type(part)
            if kind not in self._readable and not _is_readable(part):
                raise SaveError(
                    "checkpoint_dir must be None for a run whose state is more than tensors, "
                    f"numbers and text, got {kind.__module__}.{kind.__qualname__} at {place}"
                )
            self._readable.add(kind)


def write(path: Path, state: State) -> None:
    """Write a file that is there whole or not at all, even if the machine loses power."""
    buffer = io.BytesIO()
    torch.save(_encoded(state), buffer)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).digest()
    write_atomically(path, _MAGIC + digest + payload, follow_links=False)


def read(path: Path, form: dict[str, type]) -> State:
    """Read what ``write`` wrote: a dict with these keys, of values of these types.

    Raises
    ------
    SaveError
        If the file is damaged, truncated or something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SaveError(f"{path.name} must be a file that can be read, got: {error}") from error
    digest, payload = content[len(_MAGIC) :][:32], content[len(_MAGIC) + 32 :]
    if not content.startswith(_MAGIC):
        raise SaveError(f"{path.name} must be a checkpoint of distillguard, got another file")
    if hashlib.sha256(payload).digest() != digest:
        raise SaveError(f"{path.name} must be undamaged, got bytes that its digest does not fit")
    try:
        state = _decoded(_loaded(payload))
    except Exception as error:  # what torch raises here is not documented
        raise SaveError(
            f"{path.name} must hold tensors, numbers and text alone, got what cannot be read "
            f"without running code: {error}"
        ) from error
    if not isinstance(state, dict):
        raise SaveError(f"{path.name} must hold a dict, got {type(state).__name__}")
    if state.keys() != form.keys() or any(type(state[key]) is not form[key] for key in form):
        raise SaveError(f"{path.name} must hold {', '.join(form)}, got another checkpoint")
    return state


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _loaded(payload: bytes) -> Any:
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def _is_readable(part: Any) -> bool:
    """Whether a part of a state comes back, of containers the bare container."""
    buffer = io.BytesIO()
    try:
        torch.save(type(part)() if isinstance(part, dict | list | tuple | set) else part, buffer)
        return type(_loaded(buffer.getvalue())) is type(part)
    except Exception:  # whatever pickle, torch or somebody's object raises
        return False


def _parts(state: Any, place: str = "the state") -> Iterator[tuple[str, Any]]:
    """Yield everything in a state with its place."""
    yield place, state
    if isinstance(state, dict):
        inside: list[tuple[Any, Any]] = [*state.items(), *((key, key) for key in state)]
    elif isinstance(state, list | tuple | set | frozenset):
        inside = [*enumerate(state)]
    else:
        return
    for key, part in inside:
        yield from _parts(part, f"{place}.{key}".removeprefix("the state."))


def _encoded(state: Any) -> Any:
    """Tell NumPy's values, which torch does not read, by their dtypes and torch's values."""

    def told(part: Any) -> Any:
        if not isinstance(part, np.generic | np.ndarray) or part.dtype.kind not in "biufc":
            return part.item() if isinstance(part, np.str_ | np.bytes_) else part
        value = part.item() if isinstance(part, np.generic) else torch.from_numpy(np.array(part))
        return {_NUMPY: part.dtype.str, "value": value}

    return _mapped(state, told)


def _decoded(state: Any) -> Any:
    """Undo ``_encoded``: schedules, say, compute on in the precision that they began in."""

    def untold(part: Any) -> Any:
        if not isinstance(part, dict) or part.keys() != {_NUMPY, "value"}:
            return part
        dtype, value = np.dtype(part[_NUMPY]), part["value"]
        if dtype.kind not in "biufc":
            raise ValueError(f"a number must not have the dtype {dtype}")
        return value.numpy() if isinstance(value, Tensor) else dtype.type(value)

    return _mapped(state, untold)


def _mapped(state: Any, change: Callable[[Any], Any]) -> Any:
    """A state whose parts are changed, in containers of the same kinds."""
    changed = change(state)
    if changed is not state:
        return changed
    if type(state) in (dict, OrderedDict, Counter):
        mapped = copy(state)  # a module's state_dict has attributes of its own
        mapped.clear()
        for key, part in state.items():
            mapped[key.item() if isinstance(key, np.generic) else key] = _mapped(part, change)
        return mapped
    if type(state) in (list, tuple):
        return type(state)(_mapped(part, change) for part in state)
    return state


def _shapes(start: State) -> dict[str, Any]:
    """Return all of the initial weights but their values."""
    return {
        name: {
            key: (value.dtype, value.shape) if isinstance(value, Tensor) else type(value)
            for key, value in state.items()
        }
        if isinstance(state, dict)
        else None
        for name, state in start.items()
    }


def _python() -> str:
    """The version of Python, which decides what bytecode is compared with."""
    return ".".join(platform.python_version_tuple()[:2])
