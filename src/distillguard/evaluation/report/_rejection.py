"""What a model that may refuse to answer refused."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._records import Records
from .._statistics import wilson
from ._rows import survivors

if TYPE_CHECKING:
    from ._report import RobustnessReport


@dataclass(frozen=True)
class Rejection:
    """How often a model refused to name a class.

    Attributes
    ----------
    clean : int
        Clean examples that were rejected, of all: false alarms. They count as errors.
    clean_interval : (float, float)
        The 95 % Wilson interval of their share.
    adversarial : int
        Of the examples classified correctly, those that no attack passed fooled and for which it
        refused at least one attack's point within the threat model. They count as robust.
    adversarial_interval : (float, float)
        The 95 % Wilson interval of their share of the examples classified correctly.
    """

    clean: int
    clean_interval: tuple[float, float]
    adversarial: int
    adversarial_interval: tuple[float, float]


def rejection(records: Records, names: Iterable[str]) -> Rejection:
    """Count what was rejected, clean and after the attacks ``names``."""
    names = list(names)
    known = records.columns
    clean, correct = int(known["rejected"].sum()), int((known["predicted"] == known["label"]).sum())
    stopped = sum(records.of(name, "rejected") for name in names) > 0
    adversarial = int((survivors(records, names) & stopped).sum())
    return Rejection(clean, wilson(clean, len(records)), adversarial, wilson(adversarial, correct))


def rejected_counts(report: "RobustnessReport") -> list[tuple[str, int, int]]:
    """What was shown to the model, how many of it were rejected, and of how many."""
    found = report.rejection
    if found is None:
        return []
    adapted = report.adaptation.attacks if report.adaptation else ()
    counts = [
        ("clean (false alarms)", found.clean, report.n_examples),
        *((row.name, row.rejected, row.attacked) for row in (*report.attacks, *adapted)),
        ("after any attack, never fooled", found.adversarial, report.observations.correct),
    ]
    return [(" ".join(name.split()), count, n) for name, count, n in counts if n]
