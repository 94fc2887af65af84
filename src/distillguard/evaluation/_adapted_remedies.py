"""Which finding names which form in which a model is attacked again.

A new remedy is a row of :data:`REMEDIES`.
"""

from .. import attacks
from ._adapted_forms import (
    BOUNDARY,
    FRONT,
    HEAD,
    LABELS,
    LOGARITHM,
    PARTS,
    PLAIN,
    READOUT,
    SEARCH,
    SMOOTH,
    STUDENT,
    SURROGATE,
    TOWARDS,
    Form,
)
from ._ours import ours
from ._presets import name_of
from ._run import Run
from .diagnosis._findings import Finding

HIDDEN = (LOGARITHM, HEAD, PARTS, FRONT, READOUT, LABELS, SURROGATE, STUDENT, TOWARDS, SEARCH)
"""For a gradient that is not there."""

MISLEADING = (LOGARITHM, HEAD, PARTS, FRONT, SMOOTH, LABELS, SURROGATE, STUDENT, TOWARDS, SEARCH)
"""For one that leads astray."""

REMEDIES: dict[str, tuple[Form, ...]] = {
    "saturated-softmax": (PLAIN, HEAD),
    "margin-beats-cross-entropy": (PLAIN,),
    "more-steps-help": (PLAIN,),
    "gradient-vanishes-at-bounds": (PLAIN,),
    "unstable-predictions": (PLAIN,),
    "zero-gradients": (PLAIN, *HIDDEN),
    "interrupted-graph": HIDDEN,
    "one-step-beats-iterative": MISLEADING,
    "noise-beats-gradient": MISLEADING,
    "black-box-beats-white-box": MISLEADING,
    "transfer-beats-white-box": MISLEADING,
    "more-budget-does-not-help": MISLEADING,
    "unbounded-attack-fails": MISLEADING,
    "minimum-distance-beats-pgd": (BOUNDARY,),
    "attack-fails-its-own-test": MISLEADING,
}
"""By the code of a finding, the forms in which the model is attacked again."""

SATURATION = ("saturated-softmax", "margin-beats-cross-entropy", "zero-gradients")
"""What an attack on the margin does not mind."""


def forms_for(finding: Finding, run: Run) -> tuple[Form, ...]:
    """What is to be tried; nothing where the attacks passed have done it, or nothing helps."""
    forms, figures = REMEDIES.get(finding.code, ()), finding.figures
    if finding.code == "unstable-predictions" and not draws_numbers(finding):
        return (PLAIN,) if remembers(finding) else ()
    if finding.code == "gradient-vanishes-at-bounds" and all(
        ours(spec.attack) for spec in run.attacks.values()
    ):
        return ()  # They ask for gradients a hair inside the bounds.
    if finding.code == "zero-gradients" and figures["share_scaled"] < figures["share"] / 2:
        forms = (PLAIN,)  # The logits have a gradient.
    if finding.code in SATURATION and climbs_margin(run):
        return tuple(form for form in forms if form is not PLAIN)
    return forms


def climbs_margin(run: Run) -> bool:
    """Whether an attack passed climbs what no softmax saturates."""
    found = (
        name_of(run.attacks, run.threat, attack, lambda settings: settings["loss"] == "margin")
        for attack in (attacks.pgd, attacks.apgd)
    )
    return any(found)


def cannot_help(finding: Finding) -> bool:
    """Whether nothing that is known here helps against what was found."""
    by_batch = finding.code == "unstable-predictions" and "batch_gap" in finding.figures
    return by_batch or finding.code not in REMEDIES


def draws_numbers(finding: Finding) -> bool:
    """Whether a finding says that the model is random, and not a mean over draws already."""
    figures = finding.figures
    return finding.code == "unstable-predictions" and figures.keys() == {"logit_gap", "changed"}


def remembers(finding: Finding) -> bool:
    """Whether a finding says that answers depend on earlier questions."""
    return "remembered" in finding.figures
