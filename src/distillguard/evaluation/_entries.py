"""What a caller may pass as attacks: names, functions, or a mapping from names to functions."""

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any, NamedTuple, get_args

from torch import nn

from .. import attacks
from .._typing import Distance
from .._validation import check_choice, check_share
from ._judge import ThreatModel
from ._ours import Ours, completed, ours, unwrapped
from ._presets import PRESETS, AttackSpec, preset

RESERVED = ("clean pass", "checks", "judging", "diagnosis", "adaptation")

ALSO_CALLED = {
    "aa": "autoattack",
    "auto_attack": "autoattack",
    "bim": "pgd",
    "ifgsm": "pgd",
    "i_fgsm": "pgd",
    "cw": "carlini_wagner_l2",
    "c&w": "carlini_wagner_l2",
    "cw_l2": "carlini_wagner_l2",
    "cw_linf": "carlini_wagner_linf",
    "fab": "fab_targeted",
}
"""What the literature calls them; an unknown name that is nearest to one of these means ours."""

ORIGINS = {
    "foolbox": "from_foolbox",
    "torchattacks": "from_torchattacks",
    "art": "from_art",
    "autoattack": "from_autoattack",
    "pyautoattack": "from_autoattack",
    "adv_lib": "from_adv_lib",
}
"""The function of :mod:`distillguard.interop` for each library."""


class Entry(NamedTuple):
    """An attack as a caller gave it."""

    where: str
    """What messages call it, such as ``"attacks['a']"``."""

    attack: Any
    norm: Distance | None = None
    """The norm in which its distances are worth reading, where the caller told."""

    near: float | None = None
    """As in :class:`AttackSpec`."""


def resolve_attacks(
    given: Any, threat: ThreatModel, *, batch_size: int, random_state: int
) -> dict[str, AttackSpec]:
    """Turn whatever ``evaluate`` was given as ``attacks`` into attacks by name."""
    offered = {"batch_size": batch_size, "random_state": random_state}
    chosen: dict[str, AttackSpec] = {}
    for name, entry in entries("attacks", given, presets=PRESETS).items():
        if isinstance(entry.attack, str):
            chosen |= preset(entry.attack, threat, **offered)
        else:
            chosen[name] = complete(entry, threat, **offered)
    return chosen


def entries(argument: str, given: Any, presets: tuple[str, ...] = ()) -> dict[str, Entry]:
    """Name each attack of a mapping, a sequence, or alone; names of presets stay as they are."""
    if isinstance(given, Mapping):
        named = {name: _entry(f"{argument}[{name!r}]", entry) for name, entry in given.items()}
        if len(texts := {str(name) for name in named}) < len(named):
            raise ValueError(f"{argument} must have names that differ as text, got {list(given)!r}")
        for text in texts & set(RESERVED):
            raise ValueError(
                f"{argument} must have other names than {', '.join(map(repr, RESERVED))}, which "
                f"the report's costs go by, got {text!r}"
            )
        found = {str(name): entry for name, entry in named.items()}
    elif isinstance(given, list | tuple) and not isinstance(given, AttackSpec):
        parts = [(f"{argument}[{place}]", part) for place, part in enumerate(given)]
        found = _titled(argument, [_listed(where, part, presets) for where, part in parts])
    elif isinstance(given, str) or callable(given) or isinstance(given, AttackSpec):
        found = _titled(argument, [_listed(argument, given, presets)])
    else:
        raise TypeError(
            f"{argument} must be names of attacks, functions, or a mapping from names to "
            f"functions, got {_described(given)}{_in_order(argument, given)}"
        )
    if not found:
        kind = "mapping" if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"{argument} must hold at least one attack, got an empty {kind}")
    return found


def _in_order(argument: str, given: Any) -> str:
    """The remedy for what has several parts in no order, or only once."""
    several = isinstance(given, Iterable) and not isinstance(given, type)
    return f"; pass {argument}=[...], whose order is that of the attacks" if several else ""


def _listed(where: str, given: Any, presets: tuple[str, ...]) -> Entry:
    if not isinstance(given, str) or given in presets:
        return Entry(where, given) if isinstance(given, str) else _entry(where, given)
    if given in attacks.__all__:
        return Entry(where, getattr(attacks, given))
    choices = (*presets, *attacks.__all__)
    raise ValueError(
        f"{where} must be one of {', '.join(map(repr, choices))}, got {given!r}"
        f"{_did_you_mean(given, choices)}"
    )


def _did_you_mean(given: str, choices: Iterable[str]) -> str:
    known = {name: name for name in choices}
    known |= {alias: name for alias, name in ALSO_CALLED.items() if name in known}
    plain = given.strip().lower().replace("-", "_").replace(" ", "_")
    near = get_close_matches(plain, known, n=1, cutoff=0.5)
    return f"; did you mean {known[near[0]]!r}?" if near else ""


def _titled(argument: str, found: list[Entry]) -> dict[str, Entry]:
    """Name attacks by what they are, with a number where two would share a name."""
    names = Counter(entry.attack for entry in found if isinstance(entry.attack, str))
    names.update(known.name for entry in found if (known := _bare(entry)) is not None)
    for name, count in names.items():
        if count > 1:
            raise ValueError(
                f"{argument} must name each attack once, got {name!r} {count} times; a mapping "
                "runs one with several settings"
            )
    chosen: dict[str, Entry] = {}
    for entry in found:
        name, number = _title(entry.attack), 2
        while name in chosen or name in RESERVED:
            name, number = f"{_title(entry.attack)} {number}", number + 1
        chosen[name] = entry
    return chosen


def _bare(entry: Entry) -> Ours | None:
    """An attack of this package without settings."""
    known = ours(entry.attack)
    return known if known is not None and not known.given else None


def _title(attack: Any) -> str:
    if isinstance(attack, str):
        return attack
    function, given = unwrapped(attack)
    name = getattr(function, "__name__", type(function).__name__)
    settings = [f"{key}={value}" for key, value in given.items() if _is_brief(value)]
    return f"{name}({', '.join(settings)})" if settings else name


def _is_brief(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _entry(where: str, given: Any) -> Entry:
    """An attack, plain or with the norm that it minimises and with what else a spec has."""
    if isinstance(given, tuple) and len(given) == 2:
        given = AttackSpec(*given)
    if not isinstance(given, AttackSpec):
        return Entry(where, checked(where, given))
    check_choice(f"norm of {where}", given.norm, get_args(Distance))
    if given.near is not None:
        check_share(f"near of {where}", given.near)
    return Entry(where, checked(where, given.attack), given.norm, given.near)


def checked(where: str, attack: Any) -> Any:
    """Refuse what is no function from a model, inputs and labels, and say what to pass."""
    function, _ = unwrapped(attack)
    routine = inspect.isroutine(function)
    wrong = isinstance(function, type | nn.Module) or not callable(function)
    if wrong or (not routine and _origin(function)):
        raise TypeError(
            f"{where} must be a function (model, inputs, labels) -> Tensor, "
            f"got {_described(function)}{_remedy(function)}"
        )
    return attack


def complete(entry: Entry, threat: ThreatModel, **offered: Any) -> AttackSpec:
    """Give an attack of this package what the evaluation knows and it was not told."""
    where, attack, norm, near = entry
    known = ours(attack)
    if known is None:
        check_call(where, attack)
        return AttackSpec(attack, norm or threat.norm, near)
    _check_settings(where, known)
    if "epsilon" in known.parameters:
        _check_radius(where, known, threat.norm)
        asked: Distance = threat.norm
    else:
        asked = norm or threat.norm
    _check_norm(where, known, asked)
    attack = completed(attack, epsilon=threat.epsilon, norm=asked, bounds=threat.bounds, **offered)
    told = ours(attack)
    return AttackSpec(attack, norm or (told and told.norm) or threat.norm, near)


def check_call(where: str, attack: Any, **keywords: Any) -> None:
    """Refuse a function that cannot be called with a model, inputs, labels and the keywords."""
    wanted = ", ".join(["model, inputs, labels", *(["*"] if keywords else []), *keywords])
    try:
        signature = inspect.signature(attack)
    except (TypeError, ValueError):  # compiled functions may have none
        return
    try:
        signature.bind(None, None, None, **keywords)
    except TypeError as error:
        raise TypeError(
            f"{where} must be a function ({wanted}) -> Tensor, got {_title(attack)}, which "
            f"cannot be called so: {error}{_remedy(unwrapped(attack)[0])}"
        ) from None


def _check_settings(where: str, known: Ours) -> None:
    for name in known.given.keys() - known.parameters.keys():
        near = [full for full in known.parameters if full.startswith(name)]
        near = near or get_close_matches(name, known.parameters, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{where} must have settings of {known.name}, got {name!r}{hint}")


def _check_radius(where: str, known: Ours, norm: Distance) -> None:
    other = known.given.get("norm") if known.norms else known.norm
    if other not in (None, norm) and known.lacks("epsilon"):
        got = f"norm={other!r} alone; name both" if known.norms else f"{known.name}, of {other!r}"
        raise ValueError(
            f"{where} must have an epsilon of its own in another norm than the evaluation's, "
            f"{norm!r}, got {got}"
        )


def _check_norm(where: str, known: Ours, norm: Distance) -> None:
    if not known.norms:
        return
    given = known.given.get("norm")
    if given is not None:
        check_choice(f"norm of {where}", given, known.norms)
    elif norm not in known.norms:
        norms = " and ".join(map(repr, known.norms))
        raise ValueError(
            f"{where} must work in the norm of the evaluation, {norm!r}, got {known.name}, which "
            f"knows {norms}; leave it out, or name a norm of its own: "
            f"functools.partial(attacks.{known.name}, norm={known.norms[0]!r})"
        )


def _origin(value: Any) -> str | None:
    """The function of interop for what comes from a library that it knows."""
    home = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    return ORIGINS.get((getattr(home, "__module__", None) or "").partition(".")[0])


def _remedy(value: Any) -> str:
    if (function := _origin(value)) is not None:
        return f"; distillguard.interop.{function} makes one of it"
    if isinstance(value, str):
        return "; a list takes names, a mapping takes functions"
    if isinstance(value, nn.Module):
        return "; the model to attack is the first argument of evaluate"
    return ""


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, nn.Module):
        return f"the network {type(value).__name__}"
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    return f"the text {value!r}" if isinstance(value, str) else type(value).__name__
