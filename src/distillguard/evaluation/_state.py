"""Resume file of an evaluation: all records so far, one file per process."""

import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from .._data import Chunk
from .._files import check_writable, hash_of, unfinished_writes
from .._identity import Describer, difference, without_bytecode
from .._modes import device_of, dtype_of
from .._processes import Processes
from .._typing import Model
from .._version import __version__
from ..attacks._checks import ModelFacts
from ..exceptions import SaveError
from . import _state_format
from ._answers import answers_of, same_answers
from ._presets import AttackSpec
from ._records import Cost, Records


class StateFile:
    """Where the records are written after each chunk; a kill at any moment loses one chunk.

    One without a path remembers nothing and refuses nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.held: dict[str, Any] = {}
        """What the file said when it was opened, but for its tensors."""
        self.tensors: dict[str, Tensor] = {}
        self.identity: dict[str, Any] = {}
        """What tells this evaluation from another."""
        self.answers: Tensor | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None, processes: Processes) -> "StateFile":
        """Read what is there; refuse a place that cannot be written to before work is lost."""
        if path is None:
            return cls()
        path = Path(path)
        if processes.count > 1:
            path = path.with_name(f"{path.name}.{processes.rank}")
        state = cls(path)
        state.identity["process"] = {"rank": processes.rank, "count": processes.count}
        if path.exists():
            state.held, state.tensors = _state_format.read(path)
        else:
            _claim(path)
        return state

    @property
    def seed(self) -> int | None:
        """The seed of the interrupted run, if there is one to resume."""
        return self.held.get("seed")

    def resume(
        self, model: Model, attacks: Mapping[str, AttackSpec], seed: int, settings: dict[str, Any]
    ) -> Records:
        """Return what is known so far, of this very evaluation; nothing where there is no file."""
        records = Records()
        if self.path is None:
            return records
        self.identity |= {"seed": seed, "environment": environment(model)}
        self.identity |= described(model, attacks, settings, records.notes)
        if self.held:
            self._compare_settings()
            fill(records, self.held, self.tensors)
            if not (records.complete and all(self._finished(name) for name in attacks)):
                _claim(self.path)
        return records

    def compare_model(self, model: Model, inputs: Tensor, records: Records) -> None:
        """Refuse a model that answers the first examples otherwise than it did.

        One that contradicts itself cannot be told by its answers; a note says so.
        """
        if self.path is None:
            return
        answers, again = (answers_of(model, inputs, self.identity["seed"]) for _ in range(2))
        dtype = dtype_of(model, inputs.dtype)
        repeatable = same_answers(again, answers, dtype, elsewhere=False)
        if not repeatable:
            records.notes["resumed model"] = (
                "its answers under one seed differ, so that a state_file compares its weights "
                "and code alone"
            )
        known = self.tensors.get("answers:logits")
        if known is not None:
            elsewhere = self.held["environment"] != self.identity["environment"]
            alike = repeatable == self.held["repeatable"] and known.shape == answers.shape
            if not alike or (
                repeatable and not same_answers(answers, known, dtype, elsewhere=elsewhere)
            ):
                self._refuse("one of a model that answers the first examples otherwise")
            _state_format.check_images(self.tensors, inputs)
        self.answers, self.identity["repeatable"] = answers, repeatable

    def compare_data(self, number: int, chunk: Chunk, records: Records) -> None:
        """Refuse other data than the records are of; note what comes after them."""
        if self.path is None:
            return
        mark = (
            len(chunk.inputs),
            hash_of({"inputs": chunk.inputs, "labels": chunk.labels}),
        )
        if number < len(records.chunks):
            known = records.chunks[number]
            if mark[0] != known[0]:
                self._refuse_data(f"{mark[0]} in chunk {number} rather than {known[0]}")
            if mark != known:
                self._refuse_data(f"others in chunk {number}")
        elif records.complete:
            self._refuse_data(f"more than {sum(n for n, _ in records.chunks)}")
        else:
            records.chunks.append(mark)

    def finish(self, n_chunks: int, records: Records) -> None:
        """Note that the data end here; refuse them if there were more before."""
        if self.path is None:
            return
        sizes = [size for size, _ in records.chunks]
        if n_chunks < len(sizes):
            self._refuse_data(f"{sum(sizes[:n_chunks])} rather than {sum(sizes)}")
        if not records.complete:
            records.complete = True
            self.write(records)

    def write(self, records: Records) -> None:
        """Replace the file in one stroke."""
        if self.path is None:
            return
        assert self.answers is not None
        content = self.identity | {
            "chunks": records.chunks,
            "known": {name: records.known.get(name, 0) for name in self.identity["attacks"]},
            "complete": records.complete,
            "costs": {name: asdict(cost) for name, cost in records.costs.items()},
            "errors": records.errors,
            "stand_ins": records.stand_ins,
            "probabilities": records.probabilities,
            "facts": records.facts and records.facts.to_plain(),
        }
        parts = {
            "answers": {"logits": self.answers},
            "columns": records.columns,
            "sample": records.sample.columns,
            "drawn": records.drawn.columns,
            "shown": records.shown.columns,
        }
        tensors = {
            f"{part}:{name}": tensor
            for part, columns in parts.items()
            for name, tensor in columns.items()
        }
        _state_format.write(self.path, content, tensors)

    def _finished(self, attack: str) -> bool:
        return self.held["known"].get(attack, 0) == len(self.held["chunks"])

    def _compare_settings(self) -> None:
        """Compare everything that was asked for; attacks that come after the known ones are new."""
        names = list(self.held["attacks"])
        first = list(self.identity["attacks"])[: len(names)]
        if first != names:
            held, wanted = (", ".join(map(repr, each)) for each in (names, first))
            self._refuse(f"one with the attacks {held} instead of {wanted}")
        theirs, ours = asked_for(self.held, names), asked_for(self.identity, names)
        there, here = self.held["environment"], self.identity["environment"]
        if there.get("Python", "").split(".")[:2] != here["Python"].split(".")[:2]:
            try:
                theirs, ours = without_bytecode(theirs), without_bytecode(ours)
            except RecursionError:
                self._refuse("one that is nested too deep")
        if found := difference(theirs, ours):
            place, held, wanted = found
            self._refuse(f"one with {place} {held} instead of {wanted}")
        for name in here:
            if there.get(name) != here[name]:
                warnings.warn(
                    f"state_file was begun with {name} {there.get(name)} and is continued with "
                    f"{here[name]}: its figures may differ by rounding from those of either alone",
                    UserWarning,
                    stacklevel=6,  # past the two wrappers of evaluate
                )

    def _refuse(self, what: str) -> NoReturn:
        raise SaveError(
            f"state_file must belong to the same evaluation, got {what}; remove {self.path} to "
            "start afresh"
        )

    def _refuse_data(self, what: str) -> NoReturn:
        raise SaveError(
            "X must yield the examples that state_file was written for, in the same order, got "
            f"{what}; remove {self.path} to start afresh"
        )


def _claim(path: Path) -> None:
    """Find out whether a place can be written to, and sweep up what killed runs left there."""
    check_writable(path)
    for unfinished in unfinished_writes(path):
        unfinished.unlink(missing_ok=True)


def described(
    model: Model,
    attacks: Mapping[str, AttackSpec],
    settings: dict[str, Any],
    notes: dict[str, str],
) -> dict[str, Any]:
    """Everything that was asked for, as JSON can hold it; ``notes`` gets what cannot be told."""
    describer = Describer(data=False)
    evaluation = {**settings, "distillguard": __version__}
    evaluation = {name: Describer()(value) for name, value in evaluation.items()}
    evaluation["model"] = describer(model)
    if describer.notes:
        notes["resumed model"] = "; ".join(describer.notes)
    run = {}
    for name, spec in attacks.items():
        describer = Describer()
        run[name] = {"run": describer(spec.attack), "norm": spec.norm, "near": spec.near}
        if describer.notes:
            notes[f"resumed attack {name}"] = "; ".join(describer.notes)
    return {"evaluation": evaluation, "attacks": run}


def asked_for(content: dict[str, Any], attacks: list[str]) -> dict[str, Any]:
    """The part of a state that has to be the same for some attacks to be the same."""
    return {
        "process": {name: str(number) for name, number in content["process"].items()},
        "seed": str(content["seed"]),
        **content["evaluation"],
        "attacks": {name: content["attacks"][name] for name in attacks},
    }


def environment(model: Model) -> dict[str, str]:
    """What may change the last digits of a figure."""
    device = device_of(model, torch.device("cpu"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "PyTorch": str(torch.__version__),
        "Python": platform.python_version(),
    }


def fill(records: Records, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put what a file holds into fresh records."""
    records.chunks = [(size, mark) for size, mark in content["chunks"]]
    records.known, records.complete = dict(content["known"]), content["complete"]
    records.costs = {name: Cost(**cost) for name, cost in content["costs"].items()}
    records.errors, records.probabilities = content["errors"], content["probabilities"]
    records.stand_ins = {name: tuple(told) for name, told in content["stand_ins"].items()}
    records.facts = content["facts"] and ModelFacts.from_plain(content["facts"])
    for key, tensor in tensors.items():
        part, _, name = key.partition(":")
        if part == "columns":
            records.add({name: tensor})
        elif part in ("sample", "drawn", "shown"):
            getattr(records, part).columns[name] = tensor
