"""What is kept of the examples once their images are gone: small columns, added up by chunks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

SAMPLED = 256
"""Examples kept for the diagnosis: shares are then known to within 6 points."""

SHOWN = 10
"""Fooled examples kept to be looked at."""


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
            offered = {name: torch.cat([held[name], part]) for name, part in offered.items()}
        kept = offered["key"].argsort(stable=True)[: self.size]
        self.columns = {name: part[kept] for name, part in offered.items()}

    def __len__(self) -> int:
        return len(self.columns["key"]) if self.columns else 0

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]


@dataclass
class Cost:
    """What a part of the evaluation spent."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def add(self, forwards: int, backwards: int, seconds: float) -> None:
        """Account for another chunk."""
        self.forwards += forwards
        self.backwards += backwards
        self.seconds += seconds


@dataclass
class Records:
    """All that a report is made of."""

    columns: dict[str, Tensor] = field(default_factory=dict)
    """One entry per example; an attack's columns are called ``"<attack>/<what>"``."""

    costs: dict[str, Cost] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """Why an attack could not run, by attack."""

    probabilities: bool = False
    """Whether the model's first answers were probabilities."""

    digests: list[int] = field(default_factory=list)
    """A hash of each chunk measured so far."""

    sample: Sample = field(default_factory=lambda: Sample(SAMPLED))
    shown: Sample = field(default_factory=lambda: Sample(SHOWN))

    def add(self, columns: Mapping[str, Tensor]) -> None:
        """Append the entries of another chunk."""
        held = self.columns
        fresh = {name: part.cpu() for name, part in columns.items()}
        self.columns = (
            {name: torch.cat([held[name], part]) for name, part in fresh.items()} if held else fresh
        )

    def cost(self, part: str) -> Cost:
        """Return the account of a part, opened where there is none."""
        return self.costs.setdefault(part, Cost())

    def of(self, attack: str, what: str) -> Tensor:
        """Return a column of an attack."""
        return self.columns[f"{attack}/{what}"]

    def __len__(self) -> int:
        return len(self.columns["label"]) if self.columns else 0
