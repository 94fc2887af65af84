"""What our attacks have to reach beside their peers, judged from the rows of benchmarks.attacks."""

import math
from collections.abc import Iterator
from typing import Any

from benchmarks._attacks_page import DATA, HOT, ROBUST, UNDEFENDED, matching
from benchmarks._common import load
from benchmarks._peers import BARE, OURS
from benchmarks.papers._claim import check, shown, verdict

Row = dict[str, Any]

STEPS = "40 steps of "
BUDGETS = {"apgd": "100 steps", "fab": "9 targets x 100", "square": "defaults"}
"""The setting of torchattacks that spends what our defaults may spend."""
CLOSE_ENOUGH = 0.005
"""Half a point of robust accuracy."""


def report() -> None:
    """Print every check of both data sets, and how many hold."""
    for data, words in DATA.items():
        found = list(checks(load(f"attacks-{data}").get("rows", [])))
        print(f"\n{words}: {sum(bool(one['holds']) for one in found)} of {len(found)} hold")
        for one in found:
            print(f"{verdict(one)}  {one['name']}: {shown(one['value'])}, {one['bound']}")


def checks(rows: list[Row]) -> Iterator[Row]:
    """Judge what has been run on the same weights and images; of what has not nothing is said."""
    rows = [row for row in rows if "error" not in row]
    alike = ("network", "examples", "weights", "processor")
    for same in dict.fromkeys(tuple(row[part] for part in alike) for row in rows):
        here = matching(rows, **dict(zip(alike, same, strict=True)))
        for of in (_l2, _linf, _l0, _pgd, _budgets, _jsma):
            for one in of(here, same[0]):
                if one["value"] is not None:
                    yield one | {"name": f"{same[0]}, {one['name']}"}


def _l2(rows: list[Row], network: str) -> Iterator[Row]:
    ours = _row(rows, group="l2", library=OURS, attack="carlini_wagner_l2", setting="defaults")
    theirs = _row(rows, library="adv-lib", attack="carlini_wagner_l2", setting="9 x 200, rate 0.05")
    peers = [
        row for row in matching(rows, group="l2", kind="least distance") if row["library"] != OURS
    ]
    complete = [row for row in peers if row["success"] == 1]
    best = min(complete, key=lambda row: row["median"], default=None)
    yield check("C&W L2: success", _figure(ours, "success"), ">=", 1)
    if network != ROBUST:
        beside = "C&W L2 to adv-lib's 9 x 200"
        yield check(f"{beside}: median", _ratio(ours, theirs, "median"), "<=", 1)
        yield check(f"{beside}: passes", _ratio(ours, theirs, "forwards", "backwards"), "<=", 0.2)
        yield check(f"{beside}: seconds", _ratio(ours, theirs, "processor_seconds"), "<=", 0.2)
    yield check(
        "C&W L2 to the nearest of all peers: median", _ratio(ours, best, "median"), "<=", 1.01
    )


def _linf(rows: list[Row], network: str) -> Iterator[Row]:
    name = "carlini_wagner_linf"
    ours = _row(rows, library=OURS, attack=name, setting="defaults")
    theirs = _row(rows, library="adv-lib", attack=name)
    yield check("C&W linf: success", _figure(ours, "success"), ">=", 1)
    yield check("C&W linf to adv-lib's: median", _ratio(ours, theirs, "median"), "<=", 1)


def _l0(rows: list[Row], network: str) -> Iterator[Row]:
    ours = _row(rows, library=OURS, attack="carlini_wagner_l0", setting="defaults")
    theirs = _row(rows, attack="sigma_zero", setting="200 steps")
    yield check("C&W L0: success", _figure(ours, "success"), ">=", 1)
    yield check("C&W L0 to sigma-zero: median", _ratio(ours, theirs, "median"), "<=", 1.05)
    passes = _ratio(ours, theirs, "forwards", "backwards")
    yield check("C&W L0 to sigma-zero: passes", passes, "<=", 1)


def _pgd(rows: list[Row], network: str) -> Iterator[Row]:
    for kind in ("cross-entropy", "margin"):
        same = matching(rows, group="pgd", kind=kind)
        ours, bare = _row(same, library=OURS, setting="defaults"), _row(same, library=BARE)
        peers = [row for row in same if row["library"] not in (OURS, BARE)]
        strongest = max(peers, key=lambda row: row["success"], default=None)
        equal = [row for row in peers if row["setting"].startswith(STEPS)]
        fastest = min(equal, key=lambda row: row["processor_seconds"], default=None)
        name = f"PGD on the {kind}"
        yield check(f"{name}, robust above the strongest peer", _above(ours, strongest), "<=", 0)
        if network == UNDEFENDED:
            ratio = _ratio(ours, fastest, "processor_seconds")
            yield check(f"{name} to the fastest peer: seconds", ratio, "<=", 0.5)
        if network == ROBUST:
            ratio = _ratio(ours, bare, "processor_seconds")
            yield check(f"{name} to a bare loop: seconds", ratio, "<=", 1.05)


def _budgets(rows: list[Row], network: str) -> Iterator[Row]:
    for group, setting in BUDGETS.items():
        for ours in matching(rows, group=group, library=OURS):
            same = {"group": group, "kind": ours["kind"], "setting": setting}
            above = _above(ours, _row(rows, library="torchattacks", **same))
            name = f"{ours['attack']} ({ours['kind']}), robust above torchattacks'"
            yield check(name, above, "<=", CLOSE_ENOUGH)


def _jsma(rows: list[Row], network: str) -> Iterator[Row]:
    def success(setting: str) -> float | None:
        return _figure(_row(rows, library=OURS, attack="jsma", setting=setting), "success")

    if network == UNDEFENDED:
        yield check("JSMA: success", success("defaults"), ">=", 0.9)
    if network == HOT:
        yield check("JSMA: success", success("defaults"), "<", 0.1)
        undone = success("softmax of logits / T")
        yield check("JSMA, temperature undone: success", undone, ">=", 0.9)


def _row(rows: list[Row], **wanted: str | int) -> Row | None:
    return next(iter(matching(rows, **wanted)), None)


def _figure(row: Row | None, key: str) -> float | None:
    return None if row is None else row[key]


def _ratio(ours: Row | None, theirs: Row | None, *keys: str) -> float | None:
    """Ours to theirs; 0 to a median that does not exist, nothing if it is ours."""
    if ours is None or theirs is None or any(ours[key] is None for key in keys):
        return None
    below = sum(math.inf if theirs[key] is None else theirs[key] for key in keys)
    return sum(ours[key] for key in keys) / below


def _above(ours: Row | None, theirs: Row | None) -> float | None:
    """Robust accuracy that ours leaves above theirs, without the noise of the subtraction."""
    if ours is None or theirs is None:
        return None
    return round(theirs["success"] - ours["success"], 9)
