"""What is kept of the examples once their images are gone: small columns, added up by chunks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attacks._checks import ModelFacts

SAMPLED = 256
"""Examples kept for the diagnosis: shares are then known to within 6 points."""

DRAWN = 128
"""Examples kept of all, correct or not, to be tried on another scale."""

SHOWN = 10
"""Fooled examples kept to be looked at."""

KEPT = ("few", "fooled", "all")
"""Whose points may be kept: a few of the fooled examples, all fooled ones, everybody's."""


@dataclass
class Sample:
    """The examples of smallest key: a uniform sample that order and chunks do not change."""

    size: int
    columns: dict[str, Tensor] = field(default_factory=dict)

    def add(self, keys: Tensor, **columns: Tensor) -> None:
        """Offer some examples; ``keys`` (n,) int64 decide who stays."""
        offered = {"key": keys.cpu(), **{name: part.cpu() for name, part in columns.items()}}
        if self.columns:
            held = self.columns
            if len(self) == self.size:
                near = offered["key"] < held["key"][-1]
                offered = {name: part[near] for name, part in offered.items()}
            offered = {name: torch.cat([held[name], part]) for name, part in offered.items()}
        kept = offered["key"].argsort(stable=True)[: self.size]
        self.columns = {name: part[kept] for name, part in offered.items()}

    def put(self, keys: Tensor, **columns: Tensor) -> None:
        """Offer some examples in place of those of the same keys."""
        if self.columns:
            others = ~torch.isin(self.columns["key"], keys.cpu())
            self.columns = {name: part[others] for name, part in self.columns.items()}
        self.add(keys, **columns)

    def __len__(self) -> int:
        return len(self.columns["key"]) if self.columns else 0

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]


@dataclass
class Cost:
    """What a part of the evaluation spent.

    Attributes
    ----------
    forwards, backwards : int
        Examples sent through the model and back.
    seconds : float
        Wall clock; of several processes, of the slowest.
    """

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def add(self, forwards: int, backwards: int, seconds: float) -> None:
        """Account for more of the same part.

        Parameters
        ----------
        forwards : int
            Examples sent through the model.
        backwards : int
            Examples whose gradient was asked for.
        seconds : float
            Wall clock.
        """
        self.forwards += forwards
        self.backwards += backwards
        self.seconds += seconds


@dataclass
class Column:
    """A tensor that grows at its end, into room that doubles when it is used up.

    A new tensor for every chunk would leave holes of every size in the memory of the process.
    """

    room: Tensor
    filled: int = 0

    def add(self, entries: Tensor) -> None:
        """Append some entries."""
        needed = self.filled + len(entries)
        if needed > len(self.room):
            room = self.room.new_empty(max(needed, 2 * len(self.room)))
            room[: self.filled] = self.tensor
            self.room = room
        self.room[self.filled : needed] = entries
        self.filled = needed

    @property
    def tensor(self) -> Tensor:
        """All entries so far."""
        return self.room[: self.filled]


@dataclass
class Records:
    """All that a report is made of."""

    parts: dict[str, Column] = field(default_factory=dict)
    """One entry per example; an attack's columns are called ``"<attack>/<what>"``."""

    costs: dict[str, Cost] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """Why an attack could not run, by attack."""

    stand_ins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The adaptive modules outside the model that an attack asked, in words, by attack."""

    probabilities: bool = False
    """Whether the model's first answers were probabilities."""

    facts: ModelFacts | None = None
    """What attacks have to know of the model."""

    chunks: list[tuple[int, str]] = field(default_factory=list)
    """Size and hash of each chunk measured so far, where a state file remembers them."""

    complete: bool = False
    """Whether the data end after these chunks."""

    known: dict[str, int] = field(default_factory=dict)
    """How many chunks each attack has seen."""

    notes: dict[str, str] = field(default_factory=dict)
    """What a state file cannot be held to, and why."""

    sample: Sample = field(default_factory=lambda: Sample(SAMPLED))
    drawn: Sample = field(default_factory=lambda: Sample(DRAWN))
    shown: Sample = field(default_factory=lambda: Sample(SHOWN))

    @property
    def columns(self) -> dict[str, Tensor]:
        """The columns by name."""
        return {name: part.tensor for name, part in self.parts.items()}

    @columns.setter
    def columns(self, columns: Mapping[str, Tensor]) -> None:
        self.parts = {}
        self.add(columns)

    def add(self, columns: Mapping[str, Tensor]) -> None:
        """Append the entries of another chunk."""
        for name, entries in columns.items():
            fresh = Column(entries.new_empty(0, device="cpu"))
            self.parts.setdefault(name, fresh).add(entries.cpu())

    def cost(self, part: str) -> Cost:
        """Return the account of a part, opened where there is none."""
        return self.costs.setdefault(part, Cost())

    def of(self, attack: str, what: str) -> Tensor:
        """Return a column of an attack."""
        return self.parts[f"{attack}/{what}"].tensor

    def __len__(self) -> int:
        return self.parts["label"].filled if self.parts else 0


def asked_nothing(records: Records, attack: str) -> bool:
    """Whether an attack returned points without a question that was seen.

    It may have asked another model; what it spent is then not known.
    """
    attacked = bool(records.of(attack, "attacked").any())
    return attacked and not records.cost(attack).forwards
