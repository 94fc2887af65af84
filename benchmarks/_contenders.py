"""Attacks that look for the least distance, each told what a budget of passes pays for.

A contender maps a budget to an attack. Passes are forwards and backwards together. Settings of the
peers are AttackBench's, except where a budget below its 2,000 or pixels that are mostly 0 and 1 ask
for others: fewer steps, a search over radii that starts near the distances met here, and a larger
learning rate for Carlini and Wagner's attack, which is better for fewer steps.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from benchmarks._peers import Run, adv_lib, foolbox, imported, ours

FIRST_RADIUS = {"l0": 10.0, "l1": 8.0, "l2": 1.0, "linf": 0.1}
ORDER = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": math.inf}
OVERHEAD = 6
"""Passes that an attack of ours spends besides its steps: on the clean images and on judging."""
LITTLE = 3
"""Those of attacks that ask about each step's point alone and judge nothing again."""


class Contender(NamedTuple):
    """An attack for one norm."""

    name: str
    library: str
    build: Callable[[int], Run]
    """The attack for a budget of passes."""


def contenders(norm: str) -> list[Contender]:
    """List who competes in a norm, ours first."""
    return [*_ours(norm), *_peers(norm)]


def _ours(norm: str) -> list[Contender]:
    def of(name: str, **settings: Any) -> Contender:
        def build(budget: int) -> Run:
            return ours(name, steps=max(1, (budget - OVERHEAD) // 2), **settings)

        return Contender(name, "distillguard", build)

    def our_fmn(budget: int) -> Run:
        return ours("fmn", norm=norm, steps=max(1, (budget - LITTLE) // 2))

    fmn = Contender("fmn", "distillguard", our_fmn)
    fab = Contender("fab_targeted", "distillguard", partial(_our_fab, norm))
    radii = [
        Contender(name, "distillguard", partial(_our_radii, name, norm))
        for name in ("apgd", "apgd_targeted")
    ]
    return {
        "l0": [of("sigma_zero"), of("carlini_wagner_l0")],
        "l1": [fmn, fab, *radii],
        "l2": [of("carlini_wagner_l2"), of("ddn"), fmn, fab, *radii],
        "linf": [of("carlini_wagner_linf"), fmn, fab, *radii],
    }[norm]


def _our_fab(norm: str, budget: int) -> Run:
    n_targets = _targets(budget)
    # A step costs two forwards and one backward pass, and a few more at the end.
    steps = max(1, int((budget - OVERHEAD) / (3.1 * n_targets)))
    return ours("fab_targeted", norm=norm, n_targets=n_targets, steps=steps)


def _targets(budget: int) -> int:
    return 1 if budget < 200 else 3 if budget < 1000 else 9


def _peers(norm: str) -> list[Contender]:
    order = ORDER[norm]

    def of(name: str, argument: str, **settings: Any) -> Contender:
        def build(budget: int) -> Run:
            return adv_lib(name, **settings, **{argument: budget // 2})

        return Contender(name, "adv-lib", build)

    fmn = of("fmn", "steps", norm=order, α_init=10.0 if norm == "linf" else 1.0)
    pdpgd = of("pdpgd", "num_steps", norm=order)
    alma = of(
        "alma",
        "num_steps",
        distance=norm,
        α=0.9,
        init_lr_distance={"l1": 0.5, "l2": 0.1}.get(norm),
    )
    listed = {
        "l0": [
            of("sigma_zero", "num_steps"),
            fmn,
            of("pdpgd", "num_steps", norm=0, proximal_operator=23),
            Contender("vfga", "adv-lib", _vfga),
            _foolbox("L0FMNAttack"),
        ],
        "l1": [fmn, pdpgd, alma, _foolbox("L1FMNAttack"), Contender("EAD", "foolbox", _ead)],
        "l2": [
            of("ddn", "steps", levels=None),
            fmn,
            of("pdgd", "num_steps"),
            pdpgd,
            alma,
            _foolbox("DDNAttack"),
            Contender("carlini_wagner_l2", "adv-lib", _carlini_wagner_l2),
        ],
        "linf": [
            fmn,
            pdpgd,
            _foolbox("LInfFMNAttack"),
            Contender("carlini_wagner_linf", "adv-lib", _carlini_wagner_linf),
        ],
    }[norm]
    if norm != "l0":
        listed += [
            Contender("apgd", "adv-lib", partial(_radii, "apgd", norm)),
            Contender("apgd_targeted", "adv-lib", partial(_radii, "apgd_targeted", norm)),
            Contender("fab", "adv-lib", partial(_their_fab, norm)),
        ]
    return listed


def _vfga(budget: int) -> Run:
    # A step changes one pixel and asks about four points: more steps for fewer samples.
    return adv_lib("vfga", max_iter=max(1, budget // 5), n_samples=2, targeted=False)


def _foolbox(name: str) -> Contender:
    return Contender(name, "foolbox", lambda budget: foolbox(name, steps=max(1, budget // 2 - 1)))


def _search_steps(budget: int) -> int:
    return 9 if budget >= 1000 else 5 if budget >= 200 else 3


def _ead(budget: int) -> Run:
    search = _search_steps(budget)
    return foolbox("EADAttack", binary_search_steps=search, steps=max(1, budget // (2 * search)))


def _carlini_wagner_l2(budget: int) -> Run:
    search = _search_steps(budget)
    steps = max(10, budget // (2 * search))
    return adv_lib(
        "carlini_wagner_l2",
        binary_search_steps=search,
        max_iterations=steps,
        learning_rate=0.05,
        initial_const=1.0,
    )


def _carlini_wagner_linf(budget: int) -> Run:
    # The constant doubles from the first value to the largest, one search at each.
    searches = 5
    return adv_lib(
        "carlini_wagner_linf",
        max_iterations=max(10, budget // (2 * searches)),
        initial_const=1.0,
        largest_const=20.0,
    )


def _radii(name: str, norm: str, budget: int) -> Run:
    """Make an attack of adv-lib's that has a radius minimal, as AttackBench does."""
    search = 10 if budget >= 1000 else 6 if budget >= 200 else 4
    settings: dict[str, Any] = {"n_iter": max(2, (budget - search) // (2 * search) - 1)}
    if name == "apgd_targeted":
        settings["num_targets"] = 1 if budget < 1000 else 3
        settings["n_iter"] = max(2, settings["n_iter"] // settings["num_targets"])
    settings |= {"norm": ORDER[norm], "use_large_reps": norm == "l1"}
    return _bisected(partial(getattr(imported("adv-lib"), name), **settings), norm, search)


def _our_radii(name: str, norm: str, budget: int) -> Run:
    """Make an attack of ours that has a radius minimal, likewise."""
    search = 10 if budget >= 1000 else 6 if budget >= 200 else 3
    steps = max(2, (budget // search - OVERHEAD) // 2)
    settings: dict[str, Any] = {"steps": steps, "norm": norm}
    if name == "apgd_targeted":
        settings["n_targets"] = 1 if budget < 1000 else 3
        settings["steps"] = max(2, steps // settings["n_targets"])
    else:
        settings["loss"] = "margin"

    def attack(
        model: nn.Module, inputs: Tensor, labels: Tensor, eps: Tensor, targeted: bool
    ) -> Tensor:
        points = inputs.clone()
        for epsilon in eps.unique().tolist():
            some = eps == epsilon
            # The search asks for more than the box has, which ours refuse.
            run = ours(name, epsilon=min(epsilon, widest(norm, inputs)), **settings)
            points[some] = run(model, inputs[some], labels[some])
        return points

    return _bisected(attack, norm, search)


def widest(norm: str, inputs: Tensor) -> float:
    """The largest distance between two inputs in [0, 1]."""
    size = inputs[0].numel()
    return {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}[norm]


def _bisected(attack: Callable[..., Tensor], norm: str, search_steps: int) -> Run:
    """Search each image's least radius at which an attack succeeds."""

    def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        made: Tensor = imported("attackbench").adv_lib_minimal_wrapper(
            model,
            inputs,
            labels,
            attack,
            init_eps=FIRST_RADIUS[norm],
            max_eps=1.0 if norm == "linf" else None,
            search_steps=search_steps,
        )
        return made

    return run


def _their_fab(norm: str, budget: int) -> Run:
    n_targets = _targets(budget)
    steps = max(1, budget // (3 * n_targets) - 2)
    return adv_lib(
        "fab", norm=ORDER[norm], n_iter=steps, restarts=n_targets, targeted_restarts=True
    )
