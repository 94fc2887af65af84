"""What the columns of the run alone tell: nothing here asks the model."""

import torch
from torch import Tensor

from ..._boxes import tensor_of
from .._adaptations import adaptations, draws
from .._ours import ours
from .._presets import AttackSpec
from .._records import asked_nothing
from .._run import Run
from .._statistics import median
from ._observations import Observations

CONCENTRATED = 0.05
"""A budget shows where distances differ by no more than this share of their median."""


def observed(run: Run) -> Observations:
    """What the clean pass and the attacks left behind."""
    columns = run.records.columns
    correct = columns["predicted"] == columns["label"]
    margins = -columns["margin"][correct]
    silent = torch.zeros_like(correct)
    for name in run.attacks:
        silent |= run.records.of(name, "silent")
    return Observations(
        adaptations=adaptations(run.model.model),
        draws=draws(run.model.model),
        stand_ins=tuple(
            f"{name}: {told}"
            for name in run.attacks
            for told in run.records.stand_ins.get(name, ())
        ),
        unseen=tuple(name for name in run.attacks if asked_nothing(run.records, name)),
        raised=dict(run.records.errors),
        norm=run.threat.norm,
        epsilon=run.threat.epsilon,
        masked=is_masked(run),
        correct=int(correct.sum()),
        saturated=int(columns["saturated"][correct].sum()),
        silent=int(silent.sum()),
        mean_logit=columns["magnitude"].mean().item(),
        median_margin=median(margins) if len(margins) else 0.0,
        probabilities=bool(run.model.takes_logarithm),
    )


def is_masked(run: Run) -> bool:
    """Whether a mask, or bounds that are equal, exclude some coordinates from changes."""
    low, high = run.threat.bounds
    return run.threat.mask is not None or bool(tensor_of(low == high).any())


def strays(run: Run) -> tuple[Observations, Tensor]:
    """Count the points that do not count, and tell of which examples there are some: (n,) bool."""
    strayed = torch.zeros(len(run.records), dtype=torch.bool, device="cpu")
    rows = []
    for name, spec in run.attacks.items():
        beyond, illegal = outside(run, name, spec)
        strayed |= beyond | illegal
        if bool((beyond | illegal).any()):
            distances = run.records.of(name, "distance")[beyond]
            far = median(distances) if len(distances) else 0.0
            attacked = int(run.records.of(name, "attacked").sum())
            rows.append((name, attacked, int(beyond.sum()), int(illegal.sum()), far))
    if not rows:
        return Observations(), strayed
    names, attacked_by, beyond_by, illegal_by, distance_by = zip(*rows, strict=True)
    return (
        Observations(
            strays=names,
            stray_attacked=attacked_by,
            stray_beyond=beyond_by,
            stray_illegal=illegal_by,
            stray_distance=distance_by,
        ),
        strayed,
    )


def outside(run: Run, name: str, spec: AttackSpec) -> tuple[Tensor, Tensor]:
    """Misclassified points beyond epsilon, of an attack with a budget, and illegal points."""
    attacked, fooled = run.records.of(name, "attacked"), run.records.of(name, "fooled")
    beyond = attacked & run.records.of(name, "success") & ~fooled
    distances = (run.records.of(name, which)[beyond] for which in ("distance", "own_distance"))
    known = ours(spec.attack)
    # An attack that minimises the distance has every right to end beyond epsilon.
    limited = any(map(is_concentrated, distances))
    if known is not None:
        limited = "epsilon" in known.parameters
    if not limited:
        beyond = torch.zeros_like(beyond)
    return beyond, attacked & ~run.records.of(name, "legal")


def is_concentrated(distances: Tensor) -> bool:
    """Whether most distances are the same, as those of an attack with a budget are."""
    if not len(distances):
        return False
    levels = distances.new_tensor([0.1, 0.5, 0.9])
    low, middle, high = torch.quantile(distances, levels).tolist()
    return bool(high - low <= CONCENTRATED * middle)
