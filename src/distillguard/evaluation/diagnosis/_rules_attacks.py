"""Rules about the attacks that the caller passed: whether they did what they were passed for."""

from ..._words import listed
from ._active import EXPECTED
from ._findings import Finding
from ._observations import Observations
from ._remedies import REPLACEMENT
from ._thresholds import RARE_SHARE, exceeds, exceeds_disagreement, falls_short, share


def attack_raised(seen: Observations) -> Finding | None:
    """Attacks are missing from the figures, and not because the model has no gradient to follow."""
    if not seen.raised or seen.differentiable is False:
        return None
    (name, error), *others = seen.raised.items()
    also = f"; so did {listed(other for other, _ in others)}" if others else ""
    return Finding(
        code="attack-raised",
        severity="severe",
        evidence=f"the attack {name!r} stopped with an error, {error}{also}",
        meaning="The figures are those of the other attacks, and too high if this one finds more.",
        remedy="Fix what the error names, or pass only attacks that can attack this model.",
        figures={"attacks": len(seen.raised)},
    )


def more_steps_help(seen: Observations) -> Finding | None:
    """The attacks passed had not converged (Carlini 2019; Pintor 2022, indicator 4)."""
    found, left = seen.longer_fools, seen.attack_survivors
    if found is None or left is None or not exceeds_disagreement(found, seen.sampled):
        return None
    return Finding(
        code="more-steps-help",
        severity="severe",
        evidence=(
            f"of {share(left, seen.sampled)} that withstand the attacks passed, a PGD of "
            f"{seen.longer_steps} steps on the margin fools {found}"
        ),
        meaning="The attacks passed are too weak or have not converged; their figure is too high.",
        remedy=(
            'Use attacks="standard", or more steps, restarts and losses, until doubling them '
            "changes nothing."
        ),
        figures={"withstand": left / seen.sampled, "share": found / seen.sampled},
    )


def silent_success(seen: Observations) -> Finding | None:
    """An attack fooled the model on its way and lost the point (Pintor 2022, indicator 3)."""
    if not exceeds(seen.silent, seen.correct, RARE_SHARE):
        return None
    return Finding(
        code="silent-success",
        severity="severe",
        evidence=(
            f"on {share(seen.silent, seen.correct)} an attack showed the model a point within the "
            "threat model that fooled it, and returned another one that does not fool it"
        ),
        meaning=(
            "The attack had a success and lost it, probably because it returns its last point "
            "instead of its best. That it failed says nothing about the model."
        ),
        remedy="Make the attack return the best point of its path.",
        figures={"share": seen.silent / seen.correct},
    )


def outside_threat_model(seen: Observations) -> Finding | None:
    """An attack searched another set than the threat model, and what it found does not count."""
    lost = [
        beyond + illegal
        for beyond, illegal in zip(seen.stray_beyond, seen.stray_illegal, strict=True)
    ]
    if not lost:
        return None
    worst = lost.index(max(lost))
    name, n, beyond = seen.strays[worst], seen.stray_attacked[worst], seen.stray_beyond[worst]
    if not exceeds_disagreement(lost[worst], n):
        return None
    found = []
    if beyond:
        found.append(
            f"{share(beyond, n)} misclassified points beyond epsilon={seen.epsilon:.6g}, at a "
            f"median distance of {seen.stray_distance[worst]:.6g} in {seen.norm}"
        )
    if illegal := seen.stray_illegal[worst]:
        found.append(
            f"{share(illegal, n)} points outside the bounds, outside the mask or not finite"
        )
    return Finding(
        code="outside-threat-model",
        severity="severe",
        evidence=f"{name} returned {' and '.join(found)}",
        meaning=(
            "These points do not count, whether the model errs there or not. The attack did not "
            "search within the threat model, so the examples that it left were hardly attacked, "
            "and the robust accuracy may be too high by as many."
        ),
        remedy=(
            f'Give the attack the threat model of this evaluation, norm="{seen.norm}", '
            f"epsilon={seen.epsilon:.6g}, and its bounds and mask, in the units of the inputs."
        ),
        figures={"share": lost[worst] / n, "median_distance": seen.stray_distance[worst]},
    )


def attack_fails_its_own_test(seen: Observations) -> Finding | None:
    """An adversarial example is there by construction, and the attacks do not find it."""
    tested, found = seen.active_tested, seen.active_found
    if tested is None or found is None or not falls_short(found, tested, EXPECTED):
        return None
    return Finding(
        code="attack-fails-its-own-test",
        severity="severe",
        evidence=(
            "with a new last layer that has an adversarial example within epsilon by construction, "
            f"the attacks passed find one for {share(found, tested)} images "
            f"({seen.active_left_out or 0} more could not be tested)"
        ),
        meaning=(
            "An attack that works finds nearly all of them (Zimmermann et al. 2022). These attacks "
            "do not follow what the model computes up to its last layer, so the examples that they "
            "leave are no evidence of robustness."
        ),
        remedy=(
            'Pass attacks="standard", or attacks={"PGD": functools.partial(attacks.pgd, '
            f'loss="margin", norm="{seen.norm}", epsilon={seen.epsilon:.6g}, steps=100)}}; if '
            f"these fail too, {REPLACEMENT}."
        ),
        figures={"share": found / tested, "tested": float(tested)},
    )
