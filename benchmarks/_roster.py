"""Who is compared with whom: every attack of ours and its peers, at each setting."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks._peers import ADAPTERS, ART, BARE, OURS, Run
from distillguard.functional import cross_entropy, margin_loss

ADV, FOOLBOX, TORCHATTACKS = "adv-lib", "foolbox", "torchattacks"
CE, MARGIN, DLR, TARGETED = "cross-entropy", "margin", "dlr", "targeted"
LEAST, DEEPFOOL = "least distance", "DeepFool"
DEFAULTS = "defaults"


class Contender(NamedTuple):
    """One attack at one setting. Those of equal ``group`` and ``kind`` have the same aim."""

    group: str
    kind: str
    library: str
    attack: str
    setting: str
    norm: str
    run: Run
    epsilon: float | None = None
    """None for an attack that minimises the distance."""
    divisor: float = 1.0
    """What divides the logits before the attack sees them."""
    targeted: bool = False
    """Towards the class after the label, which is all that torchattacks' JSMA can do."""
    hours: bool = False
    """Takes hours on a processor: run only when asked for."""


def roster(epsilon: float, close: float, temperature: float) -> list[Contender]:
    """List all contenders.

    ``epsilon`` is the budget of FGSM and PGD; ``close`` that of APGD, FAB and Square, a radius
    that leaves some examples robust, without which budget attacks cannot be told apart;
    ``temperature`` the network's, for attacks that undo it.
    """
    return [
        *_fgsm(epsilon),
        *_pgd(epsilon),
        *_l2(temperature),
        *_linf(),
        *_l0(),
        *_apgd(close),
        *_fab(close),
        *_square(close),
        *_jsma(temperature),
    ]


def _entry(group: str, norm: str, **shared: Any) -> Callable[..., Contender]:
    """Make the function that makes a group's contenders; other keywords are the attack's."""

    def of(
        kind: str,
        library: str,
        attack: str,
        setting: str = DEFAULTS,
        *,
        divisor: float = 1.0,
        hours: bool = False,
        **keywords: Any,
    ) -> Contender:
        run = ADAPTERS[library](attack, **keywords)
        about = {"divisor": divisor, "hours": hours} | shared
        return Contender(group, kind, library, attack, setting, norm, run, **about)

    return of


def _fgsm(epsilon: float) -> list[Contender]:
    of = _entry("fgsm", "linf", epsilon=epsilon)
    return [
        of(CE, OURS, "fgsm", epsilon=epsilon),
        of(MARGIN, OURS, "fgsm", epsilon=epsilon, loss="margin"),
        of(CE, FOOLBOX, "FGSM", epsilon=epsilon),
        of(CE, TORCHATTACKS, "FGSM", eps=epsilon),
        of(CE, ART, "FastGradientMethod", eps=epsilon),
    ]


def _pgd(epsilon: float) -> list[Contender]:
    of = _entry("pgd", "linf", epsilon=epsilon)
    step = 2.5 * epsilon / 40
    same = f"40 steps of {step:.4g}"
    bare = {"epsilon": epsilon, "step_size": step}
    art = {"max_iter": 40, "eps_step": step, "num_random_init": 1, "batch_size": 256}
    pgd, art_pgd = "pgd_linf", "ProjectedGradientDescent"
    return [
        of(CE, OURS, "pgd", epsilon=epsilon),
        of(CE, OURS, "pgd", same, epsilon=epsilon, step_size=step),
        of(MARGIN, OURS, "pgd", epsilon=epsilon, loss="margin"),
        of(MARGIN, OURS, "pgd", same, epsilon=epsilon, step_size=step, loss="margin"),
        of(CE, BARE, "pgd", same, loss=cross_entropy, **bare),
        of(MARGIN, BARE, "pgd", same, loss=margin_loss, **bare),
        of(CE, ADV, pgd, ε=epsilon),
        of(CE, ADV, pgd, same, ε=epsilon, absolute_step_size=step),
        of(MARGIN, ADV, pgd, ε=epsilon, loss_function="dl"),
        of(MARGIN, ADV, pgd, same, ε=epsilon, loss_function="dl", absolute_step_size=step),
        of(CE, FOOLBOX, "LinfPGD", epsilon=epsilon),
        of(CE, FOOLBOX, "LinfPGD", same, epsilon=epsilon, abs_stepsize=step),
        of(CE, TORCHATTACKS, "PGD", eps=epsilon),
        of(CE, TORCHATTACKS, "PGD", same, eps=epsilon, steps=40, alpha=step),
        of(CE, ART, art_pgd, eps=epsilon),
        of(CE, ART, art_pgd, same, eps=epsilon, **art),
    ]


def _l2(temperature: float) -> list[Contender]:
    of = _entry("l2", "l2")
    cw, fb_cw, art_cw = "carlini_wagner_l2", "L2CarliniWagnerAttack", "CarliniL2Method"
    short = {"learning_rate": 0.05, "max_iterations": 200}
    long = {"learning_rate": 0.05, "max_iterations": 1000}
    listed = [
        of(LEAST, OURS, cw),
        of(LEAST, OURS, cw, "as published", hours=True, algorithm="paper"),
        of(LEAST, OURS, "ddn"),
        of(LEAST, ADV, cw, hours=True),
        of(LEAST, ADV, cw, "9 x 200, rate 0.05", **short),
        of(LEAST, ADV, cw, "9 x 1000, rate 0.05", hours=True, **long),
        of(LEAST, ADV, "ddn"),
        of(LEAST, ADV, "ddn", "1000 steps", steps=1000),
        of(LEAST, ADV, "fmn", norm=2),
        of(LEAST, ADV, "fmn", "1000 steps", norm=2, steps=1000),
        of(LEAST, ADV, "sdf"),
        of(LEAST, FOOLBOX, fb_cw, hours=True),
        of(LEAST, FOOLBOX, fb_cw, "9 x 1000, rate 0.05", hours=True, steps=1000, stepsize=0.05),
        of(LEAST, FOOLBOX, "DDNAttack"),
        of(LEAST, FOOLBOX, "DDNAttack", "1000 steps", steps=1000),
        of(LEAST, TORCHATTACKS, "CW"),
        of(LEAST, TORCHATTACKS, "CW", "c = 10, 1000 steps", c=10, steps=1000),
        of(LEAST, ART, art_cw),
        of(LEAST, ART, art_cw, "10 x 100", hours=True, max_iter=100, batch_size=256),
        of(DEEPFOOL, OURS, "deepfool"),
        of(DEEPFOOL, ADV, "df"),
        of(DEEPFOOL, FOOLBOX, "L2DeepFoolAttack"),
        of(DEEPFOOL, TORCHATTACKS, "DeepFool"),
        of(DEEPFOOL, ART, "DeepFool"),
    ]
    if temperature != 1:
        listed += [
            of(LEAST, ADV, "ddn", f"{n} steps on logits / T", divisor=temperature, steps=n)
            for n in (200, 1000)
        ]
    return listed


def _linf() -> list[Contender]:
    of = _entry("linf", "linf")
    cw, fb_fmn, art_cw = "carlini_wagner_linf", "LInfFMNAttack", "CarliniLInfMethod"
    return [
        of(LEAST, OURS, cw),
        of(LEAST, OURS, cw, "as published", hours=True, algorithm="paper"),
        of(LEAST, ADV, cw),
        of(LEAST, ADV, "fmn", norm=math.inf),
        of(LEAST, ADV, "fmn", "1000 steps", norm=math.inf, steps=1000),
        of(LEAST, FOOLBOX, fb_fmn),
        of(LEAST, FOOLBOX, fb_fmn, "1000 steps", steps=1000),
        of(LEAST, ART, art_cw),
        of(LEAST, ART, art_cw, "100 steps", hours=True, max_iter=100, batch_size=256),
        of(DEEPFOOL, OURS, "deepfool", norm="linf"),
        of(DEEPFOOL, ADV, "df", norm=math.inf),
        of(DEEPFOOL, FOOLBOX, "LinfDeepFoolAttack"),
    ]


def _l0() -> list[Contender]:
    of = _entry("l0", "l0")
    cw = "carlini_wagner_l0"
    return [
        of(LEAST, OURS, cw),
        of(LEAST, OURS, cw, "as published", hours=True, algorithm="paper"),
        of(LEAST, OURS, cw, "1000 steps", steps=1000),
        of(LEAST, ADV, "sigma_zero", "200 steps", num_steps=200),
        of(LEAST, ADV, "sigma_zero"),
        of(LEAST, ADV, "fmn", norm=0),
        of(LEAST, ADV, "fmn", "1000 steps", norm=0, steps=1000),
        of(LEAST, FOOLBOX, "L0FMNAttack"),
        of(LEAST, FOOLBOX, "L0FMNAttack", "1000 steps", steps=1000),
        of(LEAST, ART, "CarliniL0Method", hours=True),
    ]


def _apgd(close: float) -> list[Contender]:
    of = _entry("apgd", "linf", epsilon=close)
    adv = {"eps": close, "norm": math.inf}
    many = {"eps": close, "steps": 100}
    art_apgd, ratio = "AutoProjectedGradientDescent", "difference_logits_ratio"
    art = {"eps": close, "batch_size": 256}
    return [
        of(CE, OURS, "apgd", epsilon=close),
        of(DLR, OURS, "apgd", loss="dlr", epsilon=close),
        of(TARGETED, OURS, "apgd_targeted", epsilon=close),
        of(CE, ADV, "apgd", loss_function="ce", **adv),
        of(DLR, ADV, "apgd", **adv),
        of(TARGETED, ADV, "apgd_targeted", **adv),
        of(CE, TORCHATTACKS, "APGD", eps=close),
        of(CE, TORCHATTACKS, "APGD", "100 steps", **many),
        of(DLR, TORCHATTACKS, "APGD", eps=close, loss="dlr"),
        of(DLR, TORCHATTACKS, "APGD", "100 steps", loss="dlr", **many),
        of(TARGETED, TORCHATTACKS, "APGDT", eps=close),
        of(TARGETED, TORCHATTACKS, "APGDT", "100 steps", **many),
        of(CE, ART, art_apgd, "5 x 100 steps", loss_type="cross_entropy", **art),
        of(DLR, ART, art_apgd, "5 x 100 steps", loss_type=ratio, **art),
    ]


def _fab(close: float) -> list[Contender]:
    of = _entry("fab", "linf", epsilon=close)
    adv = {"norm": math.inf, "ε": close}
    return [
        of(TARGETED, OURS, "fab_targeted", stop_within=close),
        of(TARGETED, ADV, "fab", **adv),
        of(TARGETED, ADV, "fab", "9 targets", targeted_restarts=True, restarts=9, **adv),
        of(TARGETED, TORCHATTACKS, "FAB", eps=close),
        of(TARGETED, TORCHATTACKS, "FAB", "9 targets x 100", eps=close, steps=100,
           multi_targeted=True),
    ]  # fmt: skip


def _square(close: float) -> list[Contender]:
    of = _entry("square", "linf", epsilon=close)
    return [
        of(MARGIN, OURS, "square", epsilon=close),
        of(MARGIN, TORCHATTACKS, "Square", eps=close),
        of(MARGIN, ART, "SquareAttack", eps=close),
        of(MARGIN, ART, "SquareAttack", "5000 queries", eps=close, max_iter=5000, batch_size=256),
    ]


def _jsma(temperature: float) -> list[Contender]:
    of = _entry("jsma", "l0", targeted=True)
    few, share, art_jsma = "112 features", 112 / 784, "SaliencyMapMethod"
    each = "each other class, 112 features"
    strong = {"theta": 1.0, "gamma": share, "batch_size": 256}
    listed = [
        of(each, OURS, "jsma", following=True),
        of(each, OURS, "jsma", "saliency of logits", following=True, saliency="logits"),
        of(each, TORCHATTACKS, "JSMA"),
        of(each, TORCHATTACKS, "JSMA", few, gamma=share),
        of("each other class, any features", ART, art_jsma, hours=True, following=True),
        of(each, ART, art_jsma, few, following=True, **strong),
    ]
    if temperature != 1:
        undone = of(
            each, OURS, "jsma", "softmax of logits / T", following=True, temperature=temperature
        )
        listed.insert(1, undone)
    return listed
