"""Rules that compare attacks: a stronger one must not find less (Athalye 2018, Carlini 2019)."""

from collections.abc import Callable
from typing import NamedTuple

from ..._geometry import COUNTS
from .._statistics import significant_difference
from ._findings import Finding
from ._observations import Observations
from ._remedies import REPLACEMENT
from ._thresholds import (
    DISAGREEMENT_SHARE,
    RARE_SHARE,
    SIGNIFICANCE,
    WIDE_GAP,
    exceeds,
    exceeds_disagreement,
    share,
)


def margin_beats_cross_entropy(seen: Observations) -> Finding | None:
    """The same attack succeeds where it follows logits and fails where it follows probabilities.

    Two things show it: a gap that is wide at the threat model's radius, or the cause itself, an
    exactly flat cross-entropy where the margin leads to success within twice the radius.
    """
    cross, margin, n = seen.cross_entropy_survivors, seen.margin_survivors, seen.compared
    if cross is None or margin is None or not n:
        return None
    gap = (cross - margin) / n
    wide = gap >= WIDE_GAP and significant_difference(
        seen.only_margin or 0, seen.only_cross_entropy or 0, SIGNIFICANCE
    )
    blind = seen.blind or 0
    if not (wide or exceeds(blind, seen.sampled, RARE_SHARE)):
        return None
    evidence = (
        f"{share(cross, n)} withstand PGD on the cross-entropy, "
        f"{share(margin, n)} the same PGD on the margin"
    )
    if blind:
        evidence += (
            f"; within a radius of {seen.blind_within:.4g}, {share(blind, seen.sampled)} have a "
            "cross-entropy gradient of exactly 0 and are fooled along the margin only"
        )
    return Finding(
        code="margin-beats-cross-entropy",
        severity="severe",
        evidence=evidence,
        meaning=(
            "Attacks on the cross-entropy are blind on this model. A robust accuracy measured with "
            "them alone is an artefact."
        ),
        remedy=(
            "Quote the worst case over attacks on the margin or the DLR loss and minimum-distance "
            "attacks, never the figure of the cross-entropy alone."
        ),
        figures={
            "withstand_cross_entropy": cross / n,
            "withstand_margin": margin / n,
            "blind": blind / seen.sampled,
        },
    )


def one_step_beats_iterative(seen: Observations) -> Finding | None:
    """One step to the edge of the ball finds more than many small ones inside it."""
    found, missed, n = seen.only_one_step, seen.only_iterative, seen.compared or 0
    if (
        found is None
        or not exceeds_disagreement(found, n)
        or not significant_difference(found, missed or 0, SIGNIFICANCE)
        or found < (missed or 0)
    ):
        return None
    return Finding(
        code="one-step-beats-iterative",
        severity="severe",
        evidence=(
            f"FGSM fools {share(found, n)} that PGD on the cross-entropy and on the margin both "
            f"miss; PGD fools {share(missed or 0, n)} that FGSM misses"
        ),
        meaning=(
            "Small steps lose their way where one large step does not: the gradients near the "
            "inputs are shattered, and an iterative attack that follows them fails for that reason."
        ),
        remedy=(
            "Average the gradient over noise, smooth = lambda x: torch.stack([model(x + sigma * "
            "torch.randn_like(x)) for _ in range(20)]).mean(dim=0) and "
            "evaluate(adaptive.gradient_from(model, smooth), X, y, ...), or "
            f"{REPLACEMENT}; vary the step size."
        ),
        figures={"only_one_step": found / n},
    )


def minimum_distance_beats_pgd(seen: Observations) -> Finding | None:
    """A search for the least distance finds within the radius what no attack inside it does."""
    found, n = seen.only_distance, seen.compared or 0
    if found is None or not exceeds_disagreement(found, n):
        return None
    missed = "the attacks passed and PGD on both losses miss"
    if seen.diagnosis == "brief":
        missed = "the attacks passed miss"
    return Finding(
        code="minimum-distance-beats-pgd",
        severity="severe",
        evidence=f"carlini_wagner_l2 fools {share(found, n)} within epsilon that {missed}",
        meaning=(
            "On the way to the nearest adversarial example the lead of the true class grows before "
            "it shrinks, so an attack that follows the gradient inside the ball stays near the "
            "input. The examples that it leaves are not robust."
        ),
        remedy=(
            f'Attack from the boundary: evaluate(model, X, y, norm="l2", epsilon={seen.epsilon:.6g}'
            ', attacks=["pgd", "carlini_wagner_l2"]), or attacks="standard", which includes it.'
        ),
        figures={"share": found / n},
    )


class Rival(NamedTuple):
    """An attack that needs no gradient of the model and yet finds what gradients miss."""

    code: str
    found: Callable[[Observations], int | None]
    name: str
    remedy: str


RIVALS = (
    Rival(
        "noise-beats-gradient",
        lambda seen: seen.only_noise,
        "random points of the ball fool",
        "Look for flat or shattered gradients (zero-gradients); attack the margin from many random "
        'starts, attacks.pgd(..., loss="margin", restarts=20), and without gradients, '
        "attacks.square.",
    ),
    Rival(
        "black-box-beats-white-box",
        lambda seen: seen.only_black_box,
        "a random search ({search}) fools",
        f"Give the search many more queries and quote what it leaves; {REPLACEMENT}.",
    ),
    Rival(
        "transfer-beats-white-box",
        lambda seen: seen.only_transfer,
        "adversarial examples of the surrogate fool",
        "Quote the worst case with transfer included; attack the surrogate with high confidence, "
        "or follow its gradients on this model, evaluate(adaptive.gradient_from(model, surrogate), "
        "X, y, ...).",
    ),
)


def rivals(seen: Observations) -> list[Finding]:
    """Attacks that see less of the model must not find what PGD on either loss misses."""
    n, search = seen.compared or 0, "Sparse-RS" if seen.norm in COUNTS else "Square"
    if seen.differentiable is False and (seen.stand_ins or seen.unseen):
        missed = "that the attacks passed miss, where the model has no gradient of its own"
        meaning = (
            "Attacks that followed a surrogate in place of the model miss what is found without "
            "any gradient. The surrogate leads elsewhere, and the examples that they left are not "
            "robust."
        )
    elif seen.differentiable is False:
        missed = "where no gradient attack could run"
        meaning = (
            "The model has no gradient, but adversarial examples are found without one. The "
            "examples that are left were not attacked with gradients, which does not make them "
            "robust."
        )
    else:
        missed = "that PGD on the cross-entropy and on the margin both miss"
        if seen.diagnosis == "brief":
            missed = "that all attacks on the gradient miss"
        meaning = (
            "An attack that sees less of the model does better than attacks that see all of "
            "it. The gradients mislead, and the examples that gradient attacks leave are not "
            "robust."
        )
    return [
        Finding(
            code=rival.code,
            severity="severe",
            evidence=f"{rival.name.format(search=search)} {share(found, n)} {missed}",
            meaning=meaning,
            remedy=rival.remedy,
            figures={"share": found / n},
        )
        for rival in RIVALS
        if (found := rival.found(seen)) is not None and exceeds_disagreement(found, n)
    ]


def more_budget_does_not_help(seen: Observations) -> Finding | None:
    """Success falls, or stays where it was, when the ball grows."""
    stands, n = seen.budget_survivors, seen.compared or 0
    if len(stands) < 2:
        return None
    falls = any(
        exceeds_disagreement(lost, n)
        and lost > won
        and significant_difference(lost, won, SIGNIFICANCE)
        for lost, won in zip(seen.budget_lost, seen.budget_won, strict=True)
    )
    stays = exceeds(stands[-1], n, WIDE_GAP) and stands[-1] >= stands[0] and not seen.masked
    if not (falls or stays):
        return None
    steps = ", ".join(
        f"{share(count, n)} at {radius:.4g}"
        for radius, count in zip(seen.budgets, stands, strict=True)
    )
    return Finding(
        code="more-budget-does-not-help",
        severity="severe",
        evidence=f"PGD on the margin leaves {steps}",
        meaning=(
            "A larger ball contains the smaller one, so an attack that works can only do better in "
            "it. This one does not find the model's decision boundary."
        ),
        remedy=(
            "Do not trust gradient attacks on this model; vary the step size and the loss, "
            f"{REPLACEMENT}, and add an attack without gradients."
        ),
        figures={f"withstand_{i}": count / n for i, count in enumerate(stands)},
    )


def unbounded_attack_fails(seen: Observations) -> Finding | None:
    """Even the whole range of inputs does not suffice (Pintor 2022, indicator 6)."""
    n, left = seen.compared or 0, (seen.budget_survivors or (None,))[-1]
    if seen.masked:
        # What a mask lets change need not suffice; where an exchange does, an attack should too.
        left = seen.only_exchange
    if left is None or not exceeds(left, n, DISAGREEMENT_SHARE):
        return None
    range_given = f"within the bounds (radius {seen.budgets[-1]:.4g})"
    evidence = (
        f"{share(left, n)} withstand PGD on the margin although it may change every input "
        f"arbitrarily {range_given}"
    )
    meaning = (
        "With the whole range to choose from, an attack reaches inputs of every class. Where "
        "it fails, the attack is broken or the model is constant; that is not robustness."
    )
    if seen.masked:
        evidence = (
            f"{share(left, n)} withstand PGD on the margin although it may change all that may "
            f"change arbitrarily {range_given}, and the values of another example fool the model"
        )
        meaning = (
            "What may change suffices to fool the model, as the values of another example show. "
            "Where an attack does not find that, it is broken; that is not robustness."
        )
    return Finding(
        code="unbounded-attack-fails",
        severity="severe",
        evidence=evidence,
        meaning=meaning,
        remedy=(
            "Find out why the gradient leads nowhere before quoting any figure: look for "
            "zero-gradients, a wrong step size, or a loss that the model saturates."
        ),
        figures={"share": left / n},
    )
