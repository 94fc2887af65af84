"""One row of the report per attack."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..._typing import Distance
from .._captions import ClassNames
from .._presets import AttackSpec
from .._records import Cost, Records, asked_nothing
from .._statistics import median, wilson


@dataclass(frozen=True)
class AttackRow:
    """What one attack achieved and what it spent.

    Attributes
    ----------
    name : str
        The attack's name in the mapping.
    robust_accuracy : float
        Share of all examples that are classified correctly and that this attack did not fool
        within the threat model. Where attacks run on survivors only, examples that an earlier
        attack fooled count as errors here too. After an ``error``, examples that the attack did
        not see count as not fooled: it is an upper bound.
    robust_interval : (float, float)
        Its 95 % Wilson interval.
    attacked : int
        Examples that the attack was run on; after an ``error``, those before it.
    fooled : int
        Of those, the ones fooled within the threat model.
    success_rate : float or None
        Share of the attacked examples that are misclassified at whatever distance, within bounds.
    median_distance : float or None
        Median over the examples that it fooled at whatever distance, in ``distance_norm``.
    distance_norm : {"linf", "l2", "l1", "l0", "l0_pixels"}
        The norm that the attack itself works in.
    forwards, backwards : float or None
        Examples sent through the model and back, for each attacked example; passes through a
        surrogate from :mod:`distillguard.adaptive` count too. None if the attack queried
        something else, whose passes are unknown.
    seconds : float
        Wall clock of the attack alone, for all examples.
    illegal : int
        Attacked examples for which it returned a point outside the bounds or the mask, or not
        finite.
    error : str or None
        Why the attack could not run, or stopped after ``attacked`` examples.
    rejected : int
        Attacked examples whose point, within the threat model, the model refused to classify.
    near : float or None
        It ran only on examples whose lead the attacks before it had brought below this share of the
        clean lead, or had not brought down: see :class:`AttackSpec`.
    """

    name: str
    robust_accuracy: float
    robust_interval: tuple[float, float]
    attacked: int
    fooled: int
    success_rate: float | None
    median_distance: float | None
    distance_norm: Distance
    forwards: float | None
    backwards: float | None
    seconds: float
    illegal: int = 0
    error: str | None = None
    rejected: int = 0
    near: float | None = None


def attack_records(rows: Iterable[AttackRow]) -> list[dict[str, Any]]:
    """Each row as plain entries, the ends of its interval apart."""
    records = []
    for row in rows:
        record = asdict(row)
        low, high = record.pop("robust_interval")
        records.append({**record, "robust_low": low, "robust_high": high})
    return records


def rows(
    records: Records, attacks: Mapping[str, AttackSpec], survivors_only: bool
) -> tuple[AttackRow, ...]:
    """Sum up each attack's columns."""
    correct = records.columns["predicted"] == records.columns["label"]
    standing, found = correct, []
    for name, spec in attacks.items():
        meant = standing if survivors_only else correct
        near = spec.near if survivors_only else None
        found.append(row(records, name, spec.norm, meant, near))
        standing = standing & ~records.of(name, "fooled")
    return tuple(found)


def row(
    records: Records, name: str, norm: Distance, standing: Tensor, near: float | None = None
) -> AttackRow:
    """Sum up an attack's columns; ``standing`` are the examples that it was meant for."""
    attacked = records.of(name, "attacked")
    success = records.of(name, "success")
    fooled = records.of(name, "fooled")
    stands = int((standing & ~fooled).sum())

    count = int(attacked.sum())
    cost = records.costs.get(name, Cost())
    unseen = asked_nothing(records, name)
    distances = records.of(name, "own_distance")[success]
    return AttackRow(
        name=name,
        robust_accuracy=stands / len(records),
        robust_interval=wilson(stands, len(records)),
        attacked=count,
        fooled=int(fooled.sum()),
        success_rate=int(success.sum()) / count if count else None,
        median_distance=median(distances) if len(distances) else None,
        distance_norm=norm,
        forwards=None if unseen else cost.forwards / max(count, 1),
        backwards=None if unseen else cost.backwards / max(count, 1),
        seconds=cost.seconds,
        illegal=int((attacked & ~records.of(name, "legal")).sum()),
        error=records.errors.get(name),
        rejected=int(records.of(name, "rejected").sum()),
        near=near,
    )


def survivors(records: Records, names: list[str]) -> Tensor:
    """Which examples are classified correctly and fooled by no attack: (n,) bool."""
    standing = records.columns["predicted"] == records.columns["label"]
    for name in names:
        standing = standing & ~records.of(name, "fooled")
    return standing


@dataclass(frozen=True)
class ClassRow:
    """The accuracies of one class.

    Attributes
    ----------
    name : str
        Name of the class.
    n_examples : int
        Examples of the class.
    n_correct : int
        Of those, the ones classified correctly.
    n_robust : int
        Of those, the ones that no attack passed fools within the threat model.
    """

    name: str
    n_examples: int
    n_correct: int
    n_robust: int

    @property
    def clean_accuracy(self) -> float:
        """Share of the class that is classified correctly."""
        return self.n_correct / self.n_examples

    @property
    def clean_interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return wilson(self.n_correct, self.n_examples)

    @property
    def robust_accuracy(self) -> float:
        """Share of the class that is classified correctly and withstands every attack passed."""
        return self.n_robust / self.n_examples

    @property
    def robust_interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return wilson(self.n_robust, self.n_examples)


def class_rows(records: Records, attacks: list[str], names: ClassNames) -> tuple[ClassRow, ...]:
    """Count each class that has examples, in the order of the logits."""
    label, predicted = records.columns["label"], records.columns["predicted"]
    names.check(1 + int(torch.maximum(label, predicted).max()))
    correct, standing = label == predicted, survivors(records, attacks)
    size = int(label.max()) + 1
    counts = [
        label[chosen].bincount(minlength=size).tolist()
        for chosen in (torch.ones_like(correct), correct, standing)
    ]
    return tuple(
        ClassRow(names[index], *counted)
        for index, counted in enumerate(zip(*counts, strict=True))
        if counted[0]
    )
