"""The attacks behind ``attacks="quick"``, ``"standard"`` and ``"autoattack"``."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from .. import attacks
from .._geometry import COUNTS, lp
from .._typing import Attack, Distance
from .._validation import check_choice
from ._hidden import hidden_boundary_l2
from ._judge import ThreatModel
from ._ours import ours

PRESETS = ("quick", "standard", "autoattack")


class AttackSpec(NamedTuple):
    """An attack and the norm in which its distances are worth reading.

    Attributes
    ----------
    attack : callable
        From ``(model, inputs, labels)`` to adversarial inputs of the same shape.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}
        Norm of the distances in the report.
    near : float, optional
        Run the attack only on examples that the attacks before it have brought near the boundary:
        whose lead of the true class fell, at a point that one of them returned, below this share of
        the clean lead. Where none of them took away a twentieth of it, the attack runs too: a
        search that achieves nothing tells nothing of the distance. None runs it on all. Only where
        attacks run on survivors.
    """

    attack: Attack
    norm: Distance
    near: float | None = None


def preset(
    name: str, threat: ThreatModel, *, batch_size: int, random_state: int
) -> dict[str, AttackSpec]:
    """Build a named sequence: cheap attacks first, so that the strong ones meet few survivors."""
    check_choice("attacks", name, PRESETS)
    common: dict[str, Any] = {
        "bounds": threat.bounds,
        "batch_size": batch_size,
        "random_state": random_state,
    }
    budget = {**common, "norm": threat.norm, "epsilon": threat.epsilon}
    if threat.norm in COUNTS:
        sparse = _sparse(name, threat, common, budget)
        return {key: AttackSpec(attack, threat.norm) for key, attack in sparse.items()}
    if name == "autoattack":
        published = _autoattack(threat, common, budget)
        return {key: AttackSpec(attack, threat.norm) for key, attack in published.items()}
    # `evaluate` judges every returned point, so FGSM can skip its own check.
    fgsm = partial(attacks.fgsm, loss="margin", judge_last=False, **budget)
    chosen = {"FGSM margin": AttackSpec(fgsm, threat.norm)}
    if name == "quick":
        pgd = partial(attacks.pgd, loss="margin", steps=10, **budget)
        return chosen | {"PGD margin": AttackSpec(pgd, threat.norm)}
    standard = _standard_in_l1 if threat.norm == "l1" else _standard
    return chosen | standard(threat, common, budget)


def _sparse(
    name: str, threat: ThreatModel, common: dict[str, Any], budget: dict[str, Any]
) -> dict[str, Attack]:
    """What changes few values: in the ball, for the least number of them, and by two searches.

    The one along slopes finds the most for its passes, the one without more where slopes lead
    astray (``benchmarks/sparse.py``).
    """
    if name == "autoattack":
        raise ValueError(
            f"attacks must be 'quick' or 'standard' in {threat.norm}, got 'autoattack', which "
            "knows 'linf', 'l2' and 'l1'"
        )
    pgd = partial(attacks.pgd, loss="margin", **budget)
    if name == "quick":
        return {"PGD margin": partial(pgd, steps=20)}
    told = {"norm": threat.norm, "stop_within": threat.epsilon, **common}
    return {
        "PGD margin": partial(pgd, steps=40, restarts=2),
        "sigma-zero": partial(attacks.sigma_zero, steps=100, **told),
        "Guided Sparse-RS": partial(attacks.guided_sparse_rs, steps=800, **budget),
        "Sparse-RS": partial(attacks.sparse_rs, queries=400, **budget),
    }


def _standard(
    threat: ThreatModel, common: dict[str, Any], budget: dict[str, Any]
) -> dict[str, AttackSpec]:
    """Climb the margin in long steps, then short runs; the nearest get the most (record 24).

    A few steps up the cross-entropy find what no attack on the logits of one class against another
    finds: it pulls towards all classes at once. Rescaled, it does not vanish. The nearest classes
    come first, as in MALT (``benchmarks/targets.py``). From other patterns, the margin reaches what
    a hundredth of the lead was missing for.
    """
    nearest: dict[str, Any] = {"target_order": "nearest"}
    climb = partial(
        attacks.pgd,
        loss="margin",
        step_size=2 * threat.epsilon,
        step_decay=True,
        random_start="blocks",
        **budget,
    )
    ascent = partial(attacks.apgd, steps=20, **budget)
    targeted = partial(attacks.apgd_targeted, **nearest, **budget)
    chosen: dict[str, tuple[Attack, float | None]] = {
        "PGD margin": (partial(climb, steps=20), None)
    }
    if threat.norm == "l2":
        hidden = partial(hidden_boundary_l2, stop_within=threat.epsilon, **common)
        chosen["Carlini-Wagner L2"] = hidden, None
    chosen |= {
        "APGD targeted": (partial(targeted, steps=10, n_targets=3), 0.75),
        "APGD rescaled cross-entropy": (partial(ascent, loss="rescaled_cross_entropy"), 0.05),
        "APGD cross-entropy": (ascent, 0.05),
        "APGD targeted, one class": (partial(targeted, steps=25, n_targets=1), 0.1),
        "APGD targeted, long": (partial(targeted, steps=30, n_targets=3), 0.03),
        "PGD margin, long": (partial(climb, steps=40, restarts=2), 0.05),
        "PGD margin, many starts": (partial(climb, steps=40, restarts=5), 0.01),
        "FAB targeted": (_fab(threat, common, steps=15, n_targets=1, **nearest), 0.01),
        "Square": (partial(attacks.square, queries=100, **budget), 0.01),
    }
    return _specs(threat, chosen)


def _standard_in_l1(
    threat: ThreatModel, common: dict[str, Any], budget: dict[str, Any]
) -> dict[str, AttackSpec]:
    """Climb through larger balls, in short runs from many starts; what is nearest gets the most.

    Some images fall to one start in ten, or to long runs alone, and which loss finds them depends
    on the network (``benchmarks/l1.py``).
    """
    ascent = partial(attacks.apgd, **budget)
    rescaled = partial(ascent, loss="rescaled_cross_entropy")
    targeted = partial(attacks.apgd_targeted, steps=40, n_targets=3, **budget)
    fab = _fab(threat, common, steps=60, n_targets=1, target_order="nearest")
    fmn = partial(attacks.fmn, norm="l1", steps=150, stop_within=threat.epsilon, **common)
    return _specs(
        threat,
        {
            "APGD margin": (partial(ascent, loss="margin", steps=60), None),
            "APGD cross-entropy": (partial(ascent, steps=40, restarts=3), None),
            "APGD rescaled cross-entropy": (partial(rescaled, steps=40, restarts=10), 0.4),
            "APGD targeted": (targeted, 0.25),
            "FMN": (fmn, 0.15),
            "FAB targeted": (fab, 0.15),
            "APGD cross-entropy, long": (partial(ascent, steps=100, restarts=5), 0.05),
            "APGD rescaled cross-entropy, long": (partial(rescaled, steps=200, restarts=3), 0.05),
            "Square": (partial(attacks.square, queries=100, **budget), None),
        },
    )


def _fab(threat: ThreatModel, common: dict[str, Any], **settings: Any) -> Attack:
    """FAB, done with an example as soon as it is fooled within the budget."""
    within: dict[str, Any] = {"norm": lp(threat.norm), "stop_within": threat.epsilon}
    return partial(attacks.fab_targeted, **settings, **within, **common)


def _specs(
    threat: ThreatModel, chosen: Mapping[str, tuple[Attack, float | None]]
) -> dict[str, AttackSpec]:
    """Attacks with the share of the lead below which each runs."""
    return {key: AttackSpec(attack, threat.norm, near) for key, (attack, near) in chosen.items()}


def _autoattack(
    threat: ThreatModel, common: dict[str, Any], budget: dict[str, Any]
) -> dict[str, Attack]:
    """The "standard" version of AutoAttack at its published budgets (Croce and Hein 2020).

    100 steps of each attack with gradients, 9 targets, 5,000 queries; in l1 (Croce and Hein 2021)
    5 restarts on the cross-entropy and 5 targets of APGD, as version "standard" of the authors'
    package (https://github.com/fra31/auto-attack) sets them.
    """
    restarts, targets = (5, 5) if threat.norm == "l1" else (1, 9)
    return {
        "APGD cross-entropy": partial(attacks.apgd, steps=100, restarts=restarts, **budget),
        "APGD targeted": partial(attacks.apgd_targeted, steps=100, n_targets=targets, **budget),
        "FAB targeted": _fab(threat, common, steps=100, n_targets=9),
        "Square": partial(attacks.square, queries=5000, **budget),
    }


def name_of(
    specs: Mapping[str, AttackSpec],
    threat: ThreatModel,
    attack: Callable[..., Tensor],
    suits: Callable[[dict[str, Any]], bool],
) -> str | None:
    """Name of a built-in untargeted attack for this threat model, with suitable settings."""
    within = {"norm": threat.norm, "epsilon": threat.epsilon, "targeted": False}
    for name, spec in specs.items():
        known = ours(spec.attack)
        if known is None or known.name != attack.__name__:
            continue
        settings = known.settings | {"norm": known.norm}
        if within.items() <= settings.items() and suits(settings):
            return name
    return None
