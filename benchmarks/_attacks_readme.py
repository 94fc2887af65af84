"""What README.md says about ``benchmarks.attacks``: generated from its result files."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._common import load
from benchmarks._peers import BARE, OURS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks.attacks: begin -->", "<!-- benchmarks.attacks: end -->"
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
"""The attacks of ours that README.md shows, at their defaults, with the networks that tell most;
JSMA at every setting."""

Row = dict[str, Any]


def write() -> None:
    """Replace what stands between the two marks."""
    README.write_text(inserted(README.read_text(), section()))


def inserted(text: str, between: str) -> str:
    """Put ``between`` between the marks of a text."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{between}\n{END}{after}"


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
    """Our rows that README.md shows, attack by attack and network by network."""
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
