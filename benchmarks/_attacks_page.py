"""docs/benchmarks/attacks.md: generated from the result files of ``benchmarks.attacks``."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._common import load
from benchmarks._peers import BARE, OURS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "attacks.md"
DATA = {"mnist5k": "MNIST-5k", "fashion": "Fashion-MNIST"}
UNDEFENDED, HOT, ROBUST = "undefended", "T=100", "adversarially trained"
HEADLINES = {
    "pgd": (UNDEFENDED, HOT, ROBUST),
    "carlini_wagner_l2": (UNDEFENDED, HOT),
    "carlini_wagner_linf": (UNDEFENDED, HOT),
    "carlini_wagner_l0": (UNDEFENDED, HOT),
    "apgd_targeted": (ROBUST,),
    "fab_targeted": (ROBUST,),
    "square": (ROBUST,),
    "jsma": (UNDEFENDED, HOT),
}
"""The attacks of ours that the page shows, at their defaults, with the networks that tell most;
JSMA at every setting."""

PAGE_TEXT = """\
% Written by: python -m benchmarks.attacks --page. Edit benchmarks/_attacks_page.py instead.

# Attacks compared with other libraries

The same networks and images are attacked, within the same budgets, by distillguard, adv-lib,
foolbox, torchattacks and ART, mostly at their defaults and at a stronger setting. Each row
compares distillguard with the strongest peer on the same task; ties go to the faster one. PGD on a
robust network is also compared with a bare loop.

- *Images*: the first test images that the network classifies correctly.
- *Passes*: forward and backward passes per example, counted by a wrapper around the model.
- *s*: seconds on one CPU core. For PGD, results are means and seconds medians of three runs.
- JSMA has to reach each of the nine other classes.

```
python -m benchmarks.attacks --data mnist5k    # rows already there are kept
python -m benchmarks.attacks --data fashion
python -m benchmarks.attacks --page            # writes this page
```

TABLES

All rows, including those of weaker peers, are in `benchmarks/results/attacks-mnist5k.json` and
`attacks-fashion.json`. Each names the weights that it attacked, and only rows of the same weights,
images and machine are compared.

`python -m benchmarks.attacks --checks` compares the rows with our targets. All are met, including
that of `carlini_wagner_l2`: with 200 steps it is within 1 % of the nearest distance of any peer,
on both networks of both data sets, whatever the peers cost.

Not all rows were measured on the same day. `python -m benchmarks.between_commits` shows that since
the commit of the oldest row `carlini_wagner_l0`, `jsma`, `apgd`, `apgd_targeted` and `square`
return the same points, bit for bit. The others were measured again when they changed, except
`carlini_wagner_linf` on the undefended network of Fashion-MNIST.
"""

Row = dict[str, Any]


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    return PAGE_TEXT.replace("TABLES", section())


def section() -> str:
    """Write one table for each result file."""
    reports = {words: load(f"attacks-{data}") for data, words in DATA.items()}
    return "\n\n".join(described(words, report) for words, report in reports.items() if report)


def described(data: str, report: dict[str, Any]) -> str:
    """Say how the rows of one data set were taken, and compare them."""
    rows = [row for row in report["rows"] if "error" not in row]
    dates = " to ".join(_ends(sorted({row["date"] for row in rows})))
    by_threads = {row["threads"]: set[str]() for row in rows}
    for row in rows:
        by_threads[row["threads"]].add(row["processor"])
    machines = "; ".join(
        f"{' and '.join(sorted(names))}, {threads} thread{'s' * (threads > 1)}"
        for threads, names in sorted(by_threads.items())
    )
    lines = [
        f"{data}, {dates}; {machines}:",
        "",
        "```{rst-class} compact",
        "```",
        "",
        "| network | aim | images | distillguard | | passes | s | strongest peer | | passes | s |",
        "| --- " * 2 + "| ---: " + "| --- | ---: | ---: | ---: " * 2 + "|",
    ]
    for ours, theirs in comparisons(rows):
        cells = [ours["network"], aim(ours), str(ours["examples"]), name(ours), *figures(ours)]
        lines.append("| " + " | ".join([*cells, name(theirs, True), *figures(theirs)]) + " |")
    return "\n".join(lines)


def comparisons(rows: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Our headlines beside the strongest peer of the same aim; on what resists, the bare loop."""
    for ours in headlines(rows):
        alike = ("network", "group", "kind", "examples", "weights", "processor")
        same = matching(rows, **{part: ours[part] for part in alike})
        peers = [row for row in same if row["library"] not in (OURS, BARE)]
        if peers:
            yield ours, min(peers, key=weakness)
        for row in same:
            if row["library"] == BARE and row["network"] == ROBUST:
                yield ours, row


def headlines(rows: list[Row]) -> Iterator[Row]:
    """Our rows that the page shows, attack by attack and network by network."""
    wanted = [(attack, network) for attack, networks in HEADLINES.items() for network in networks]
    for attack, network in wanted:
        for row in matching(rows, library=OURS, attack=attack, network=network):
            if row["setting"] == "defaults" or attack == "jsma":
                yield row


def matching(rows: list[Row], **wanted: str | int) -> list[Row]:
    """The rows that hold all of these."""
    return [row for row in rows if wanted.items() <= row.items()]


def weakness(row: Row) -> tuple[float, float]:
    """Order by the result, and equal results by the processor's seconds."""
    if row["epsilon"] is None and not row["targeted"]:
        return (math.inf if row["median"] is None else row["median"]), row["processor_seconds"]
    return -row["success"], row["processor_seconds"]


def aim(row: Row) -> str:
    """What the attack is to do."""
    if row["epsilon"] is not None:
        return f"{row['group'].upper()}, {row['kind']}, {row['norm']} {row['epsilon']:g}"
    if row["targeted"]:
        return str(row["kind"])
    return f"{row['norm']}, {row['kind']}"


def name(row: Row, library: bool = False) -> str:
    """The attack and, where it is not the default, its setting."""
    words = f"{row['library']} `{row['attack']}`" if library else f"`{row['attack']}`"
    return words if row["setting"] == "defaults" else f"{words}, {row['setting']}"


def figures(row: Row) -> list[str]:
    """Result, forward and backward passes per example, seconds of the processor."""
    passes = f"{row['forwards']:.0f} + {row['backwards']:.0f}"
    seconds = row["processor_seconds"]
    return [result(row), passes, f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"]


def result(row: Row) -> str:
    """The figure by which the attack is judged."""
    if row["epsilon"] is not None:
        return f"{100 * (1 - row['success']):.1f} % robust"
    if row["targeted"]:
        return f"{100 * row['success']:.0f} % reached"
    if row["median"] is None:
        return f"{100 * row['success']:.0f} % fooled"
    median = f"{row['median']:g}" if row["norm"] == "l0" else f"{row['median']:.3f}"
    return median if row["success"] == 1 else f"{median} ({100 * row['success']:.0f} % fooled)"


def line(row: Row) -> str:
    """One row in words, for the terminal."""
    title = f"{row['network']:22s} {row['group']:6s} {name(row, True)} ({row['kind']})"
    return f"{title:95s} " + (row.get("error") or "  ".join(figures(row)))


def _ends(values: list[str]) -> list[str]:
    return values if len(values) < 2 else [values[0], values[-1]]
