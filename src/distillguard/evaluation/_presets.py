"""The attacks behind ``attacks="quick"`` and ``attacks="standard"``, and what an entry may be."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, get_args

from torch import Tensor

from .. import attacks
from .._typing import Attack, Distance, Mask
from .._validation import check_choice
from ._judge import ThreatModel

PRESETS = ("quick", "standard")
RESERVED = ("clean pass", "checks", "judging", "diagnosis")


class AttackSpec(NamedTuple):
    """An attack and the norm in which its distances are worth reading.

    Attributes
    ----------
    attack : callable
        From ``(model, inputs, labels)`` to adversarial inputs of the same shape.
    norm : {"linf", "l2", "l1", "l0"}
        Norm of the distances in the report.
    """

    attack: Attack
    norm: Distance


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
    # Whoever evaluates judges every result, so that a single step needs no judge of its own.
    fgsm = partial(attacks.fgsm, loss="margin", judge_last=False, **budget)
    chosen: dict[str, Attack] = {"FGSM margin": fgsm}
    if name == "quick":
        chosen["PGD margin"] = partial(attacks.pgd, loss="margin", steps=10, **budget)
    else:
        chosen |= _ascent(threat, budget) | _strong(threat, common, budget)
    return {key: AttackSpec(attack, threat.norm) for key, attack in chosen.items()}


def _ascent(threat: ThreatModel, budget: dict[str, Any]) -> dict[str, Attack]:
    """What climbs the margin: from many patterns in long steps; in l1 through larger balls."""
    if threat.norm == "l1":
        return {"APGD margin": partial(attacks.apgd, loss="margin", steps=100, **budget)}
    pgd = partial(
        attacks.pgd,
        loss="margin",
        steps=10,
        step_size=2 * threat.epsilon,
        step_decay=True,
        restarts=18,
        random_start="blocks",
        **budget,
    )
    return {"PGD margin": pgd}


def _strong(
    threat: ThreatModel, common: dict[str, Any], budget: dict[str, Any]
) -> dict[str, Attack]:
    """AutoAttack's parts (Croce and Hein 2020), each with a part of its budget.

    In l1 it takes a larger part, spent on steps rather than on classes, to find what AutoAttack
    finds (``benchmarks/l1.py``).
    """
    targeted: dict[str, Any] = {"steps": 20}
    if threat.norm == "l1":
        targeted = {"steps": 100, "n_targets": 4}
    return {
        "APGD targeted": partial(attacks.apgd_targeted, **targeted, **budget),
        "FAB targeted": partial(
            attacks.fab_targeted,
            norm=threat.norm,
            steps=60 if threat.norm == "l1" else 15,
            n_targets=3,
            stop_within=threat.epsilon,
            **common,
        ),
        "Square": partial(attacks.square, queries=100, **budget),
    }


def named(given: Any, threat: ThreatModel, random_state: int) -> dict[str, AttackSpec]:
    """Check a caller's mapping from names to attacks, plain or with the norm they minimise.

    Attacks of ours that have no seed are given ``random_state``.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            "attacks must be a preset's name or a mapping from names to callables, "
            f"got {type(given).__name__}"
        )
    if not given:
        raise ValueError("attacks must hold at least one attack, got an empty mapping")
    names = [str(name) for name in given]
    if len(set(names)) < len(names):
        raise ValueError(f"attacks must have names that differ as text, got {list(given)!r}")
    for name in names:
        if name in RESERVED:
            raise ValueError(
                f"attacks must have other names than {', '.join(map(repr, RESERVED))}, which "
                f"the report's costs go by, got {name!r}"
            )
    return {
        str(name): _spec(str(name), entry, threat, random_state) for name, entry in given.items()
    }


def _spec(name: str, entry: Any, threat: ThreatModel, random_state: int) -> AttackSpec:
    attack, norm = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, None)
    if not callable(attack):
        raise TypeError(
            f"attacks[{name!r}] must be a callable (model, inputs, labels) -> Tensor or a pair "
            f"(callable, norm), got {type(entry).__name__}"
        )
    settings = settings_of(attack)
    if norm is None:
        norm = settings.get("norm") or threat.norm
    check_choice(f"norm of attacks[{name!r}]", norm, get_args(Distance))
    if "random_state" in settings and settings["random_state"] is None:
        attack = partial(attack, random_state=random_state)
    return AttackSpec(attack, norm)


def masked(attack: Attack, mask: Mask | None) -> Attack:
    """Tell an attack of this package which coordinates may change; others are judged by it."""
    if mask is None or "mask" not in (settings := settings_of(attack)):
        return attack
    ours: Callable[..., Tensor] = attack
    return ours if settings["mask"] is not None else partial(ours, mask=mask)


def name_of(
    specs: Mapping[str, AttackSpec],
    threat: ThreatModel,
    attack: Callable[..., Tensor],
    suits: Callable[[dict[str, Any]], bool],
) -> str | None:
    """The name of an untargeted attack of ours in this threat model, with suitable settings."""
    within = {"norm": threat.norm, "epsilon": threat.epsilon, "targeted": False}
    for name, spec in specs.items():
        settings = settings_of(spec.attack) if _innermost(spec.attack) is attack else {}
        if within.items() <= settings.items() and suits(settings):
            return name
    return None


def _innermost(attack: Any) -> Any:
    while isinstance(attack, partial):
        attack = attack.func
    return attack


def settings_of(attack: Any) -> dict[str, Any]:
    """Every argument of an attack of ours, with the norm that its name tells; of others, none."""
    settings: dict[str, Any] = {}
    while isinstance(attack, partial):
        settings = {**attack.keywords, **settings}
        attack = attack.func
    name = getattr(attack, "__name__", "")
    if name not in attacks.__all__ or getattr(attacks, name) is not attack:
        return {}
    ending = name.rpartition("_")[2]
    told = ending if ending in get_args(Distance) else _MINIMISED.get(name)
    parameters = inspect.signature(attack).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items()}
    return {"norm": told, **defaults, **settings}


_MINIMISED: dict[str, Distance] = {"ddn": "l2", "jsma": "l0"}
