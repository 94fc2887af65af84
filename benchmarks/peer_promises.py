"""Which promises of ours the attacks of other libraries keep, by ``testing.check_attack``.

``python -m benchmarks.peer_promises`` asks those that are installed and writes
``results/peer-promises.json``; ``--page`` writes docs/benchmarks/promises.md from it.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from benchmarks import _peers
from benchmarks._common import circumstances, load, save
from benchmarks._promises_page import write
from distillguard.exceptions import BrokenPromiseError
from distillguard.testing import check_attack, promises

NAME = "peer-promises"
PACKAGES = ("adv-lib", "foolbox", "torchattacks")
EPSILON = {"linf": 0.1, "l2": 0.3, "l1": 0.7}


class Asked(NamedTuple):
    """An attack of another library, with settings that are not its defaults."""

    library: str
    attack: str
    norm: Any
    budget: bool
    settings: Mapping[str, Any] = MappingProxyType({})
    takes: str = "eps"
    """The keyword of its budget."""


ADV, FOOL, TORCH = "adv-lib", "foolbox", "torchattacks"
LINF, L2, L1 = "linf", "l2", "l1"

SEARCH = {"binary_search_steps": 3}
CUT = {"steps", "max_iterations", "num_steps", "n_iter", "n_queries"}
"""Settings by which an attack takes fewer steps here than by itself."""
ROSTER = [
    Asked(ADV, "pgd_linf", LINF, True, takes="ε"),
    # Of two classes; its default loss takes three.
    Asked(ADV, "apgd", L2, True, {"norm": 2, "loss_function": "ce"}),
    Asked(ADV, "apgd", LINF, True, {"norm": float("inf"), "loss_function": "ce"}),
    Asked(
        ADV,
        "carlini_wagner_l2",
        L2,
        False,
        {**SEARCH, "max_iterations": 60, "learning_rate": 0.05},
    ),
    Asked(ADV, "ddn", L2, False, {"levels": None}),
    Asked(ADV, "fmn", L2, False, {"norm": 2, "steps": 60}),
    Asked(ADV, "fmn", LINF, False, {"norm": float("inf"), "steps": 60}),
    Asked(ADV, "fab", L2, False, {"norm": 2, "n_iter": 20}),
    Asked(ADV, "df", L2, False, {"norm": 2}),
    Asked(ADV, "alma", L2, False, {"distance": "l2", "num_steps": 60}),
    Asked(ADV, "pdpgd", L2, False, {"norm": 2, "num_steps": 60}),
    Asked(FOOL, "FGSM", LINF, True),
    Asked(FOOL, "LinfPGD", LINF, True),
    Asked(FOOL, "L2FastGradientAttack", L2, True),
    Asked(FOOL, "L2PGD", L2, True),
    Asked(FOOL, "L1PGD", L1, True),
    Asked(FOOL, "L2CarliniWagnerAttack", L2, False, {**SEARCH, "steps": 60, "stepsize": 0.05}),
    Asked(FOOL, "DDNAttack", L2, False, {"steps": 60}),
    Asked(FOOL, "L2DeepFoolAttack", L2, False),
    Asked(FOOL, "LinfDeepFoolAttack", LINF, False),
    Asked(FOOL, "L2FMNAttack", L2, False, {"steps": 40}),
    Asked(FOOL, "LInfFMNAttack", LINF, False, {"steps": 40}),
    Asked(FOOL, "EADAttack", L1, False, {**SEARCH, "steps": 60, "decision_rule": "L1"}),
    Asked(TORCH, "FGSM", LINF, True),
    Asked(TORCH, "BIM", LINF, True),
    Asked(TORCH, "PGD", LINF, True),
    Asked(TORCH, "MIFGSM", LINF, True),
    Asked(TORCH, "PGDL2", L2, True),
    Asked(TORCH, "APGD", LINF, True),
    Asked(TORCH, "Square", LINF, True, {"n_queries": 100}),
    Asked(TORCH, "CW", L2, False, {"steps": 60}),
    Asked(TORCH, "DeepFool", L2, False),
]


def run_of(asked: Asked) -> _peers.Run:
    """The attack as its library is called: the model in the mode that it is in."""
    budget = EPSILON[asked.norm] if asked.budget else None
    if asked.library == FOOL:
        return _peers.foolbox(asked.attack, epsilon=budget, **asked.settings)
    more = {asked.takes: budget} if asked.budget else {}
    adapter = _peers.ADAPTERS[asked.library]
    return adapter(asked.attack, **more, **asked.settings)


def row(asked: Asked) -> dict[str, Any]:
    """Ask an attack for every promise."""
    _peers.imported(asked.library)
    start = time.perf_counter()
    broken: list[Any] = []
    unjudged: tuple[str, ...] = ()
    try:
        budget = EPSILON[asked.norm] if asked.budget else None
        check_attack(run_of(asked), norm=asked.norm, epsilon=budget, skip=left_out(asked))
    except BrokenPromiseError as error:
        broken, unjudged = list(error.broken), error.unjudged
    names = {one.promise for one in broken}
    applicable = [each for each in promises(check_attack) if asks(asked, each)]
    if "generators-kept" in names:  # It draws: batches of it are not compared.
        applicable.remove("batch-independence")
    return {
        "library": asked.library,
        "attack": asked.attack,
        "norm": asked.norm,
        "epsilon": EPSILON[asked.norm] if asked.budget else None,
        "settings": {name: str(value) for name, value in asked.settings.items()},
        "broken": [
            {
                "promise": one.promise,
                "message": one.message,
                "example": None if one.example is None else one.example.tolist(),
            }
            for one in broken
        ],
        "kept": [each for each in applicable if each not in names and each not in unjudged],
        "unjudged": list(unjudged),
        "seconds": round(time.perf_counter() - start, 1),
    }


def left_out(asked: Asked) -> set[str]:
    """Not how much it finds, where its steps were cut short."""
    return {"fools"} if CUT & asked.settings.keys() else set()


def asks(asked: Asked, promise: str) -> bool:
    """Whether a promise is about something that the attack is asked for here."""
    if promise in left_out(asked):
        return False
    if promise in ("repeatable", "mask", "targeted"):
        return False  # No seed, mask or target is passed on.
    return promise != ("failures-unchanged" if asked.budget else "budget")


def main() -> None:
    """Ask all, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page and ask nothing")
    parser.add_argument("--only", default="", help="part of the name of a library or attack")
    given = parser.parse_args()
    if not given.page:
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        rows = {key(each): each for each in load(NAME).get("rows", [])}
        for asked in ROSTER:
            if given.only not in f"{asked.library} {asked.attack}":
                continue
            try:
                found = row(asked)
            except ImportError as error:
                print(f"{asked.library} is not installed: {error}")
                continue
            rows[key(found)] = found
            told = [one["promise"] for one in found["broken"]]
            print(
                f"{asked.library} {asked.attack} {asked.norm} {found['seconds']} s: {told}",
                flush=True,
            )
            order = [(a.library, a.attack, a.norm) for a in ROSTER]
            kept = [rows[k] for k in order if k in rows]
            save(NAME, {"circumstances": circumstances(*PACKAGES), "rows": kept})
    write()


def key(found: dict[str, Any]) -> tuple[str, str, str]:
    """What makes two rows the same question."""
    return found["library"], found["attack"], found["norm"]


if __name__ == "__main__":
    main()
