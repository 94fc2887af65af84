"""docs/benchmarks/attackbench.md and its picture: generated from ``results/attackbench.json``."""

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import load, table
from benchmarks._optimality import Distances, interval, local_optimality

OURS, NAME = "distillguard", "attackbench"
NORMS = ("l0", "l1", "l2", "linf")
PLANNED = (50, 100, 200, 400, 1000, 2000)
CELLS = 5 * len(NORMS) * len(PLANNED)
"""A cell is a network, a norm and a budget."""
DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
TEXT = """\
% Written by: python -m benchmarks.attackbench --page. Edit benchmarks/_attackbench_page.py instead.

# Minimum-distance attacks, by budget

This page measures how close an attack comes to the least distances found by any attack, with a
given number of passes. It is the measure of [AttackBench](https://attackbench.github.io/), at six
budgets instead of one. {images} test images, one seed; adv-lib {adv_lib}, {date};
{devices}.

- *Budget*: forward plus backward passes, per image on average. An attack is stopped when they are
  spent; it is configured for as many steps as its budget allows.
- *Optimality*: AttackBench's local optimality. It is 1 if the distances equal the envelope, the
  least distances of all attacks here at all budgets, and 0 if nothing was found. An attack's
  distance is the least over all misclassified points at which it evaluated the model.
- *Difference*: ours minus the peer's, with a 95 % interval from paired resamples of the images.
- The settings of our `fmn` were chosen on the test images 0 to 39 and, for its radius, on 60 of the
  100 images here, on the three robust networks and the undefended one.
- In front of each network is a clamp whose gradient is 1 everywhere. The gradient of AttackBench's
  own clamp is 0 at the bounds since PyTorch 2.14, and most pixels of these images are at a bound.

```
{command}
python -m benchmarks.attackbench --page
```

```{{figure}} attackbench.svg
:alt: {alt}
:width: 100%
:figclass: wide

The best of ours and the best peer, by budget.
```

## The best of ours compared with the best peer

{covered}
The whole interval is in our favour in {ahead} of the {n}, and in the peer's favour in {behind};
{undecided} are undecided.

```{{rst-class}} compact
```

{table}

{behind_text}{raised}

## Attacks compared

All of our attacks take part, and the three best peers of a pilot on {pilot_images} other images
with {pilot_budget} passes. Their optimality in the pilot:

{pilots}
"""


def write(folder: Path | None = None) -> None:
    """Write the page and the picture anew."""
    (DOCS / f"{NAME}.md").write_text(page(folder), encoding="utf-8")
    draw(cells(load(NAME, folder)["rows"]), DOCS / f"{NAME}.svg")


def page(folder: Path | None = None) -> str:
    """The whole page."""
    result = load(NAME, folder)
    found = cells(result["rows"])
    behind = [each for each in found if each["high"] < 0]
    ahead = [each for each in found if each["low"] > 0]
    return TEXT.format(
        images=result["images"],
        devices=devices(result["rows"]),
        adv_lib=result["versions"]["adv-lib"],
        date=result["date"],
        command=command(result, found),
        alt=alternative(found),
        covered=covered(found),
        n=len(found),
        ahead=len(ahead),
        behind=len(behind),
        undecided=len(found) - len(ahead) - len(behind),
        table=table([shown(each) for each in found], list(shown(found[0]))),
        behind_text=behind_text(behind),
        raised=raised(result["rows"]),
        pilot_images=len(parsed(result["pilots"][0]["rows"][0])),
        pilot_budget=result["pilot_budget"],
        pilots=table(pilots(result["pilots"]), ["norm", "network", "peers"]),
    )


def raised(rows: list[dict[str, Any]]) -> str:
    """Which attacks broke off with an error; their distances are those found until then."""
    named = [
        f"{row['library']} {row['attack']} in {row['norm']} on {row['network']} with "
        f"{row['budget']} passes (`{'; '.join(row['raised'])}`)"
        for row in rows
        if "raised" in row
    ]
    if not named:
        return ""
    return f"\n\nBroke off with an error, and count by what they had found: {', '.join(named)}."


def parsed(row: dict[str, Any]) -> Distances:
    """The distances of a row."""
    return np.array([float(value) for value in row["distances"].split()])


def envelope(rows: list[dict[str, Any]]) -> Distances:
    """Each image's least distance over all rows."""
    least: Distances = np.minimum.reduce([parsed(row) for row in rows])
    return least


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By budget: the best of ours and of the peers, and the interval of their difference.

    The rows are those of one network and norm; the envelope is that of all of them.
    """
    least, found = envelope(rows), []

    def optimality(row: dict[str, Any]) -> float:
        return float(local_optimality(parsed(row), least))

    for budget in sorted({row["budget"] for row in rows}):
        at = [row for row in rows if row["budget"] == budget]
        ours = [row for row in at if row["library"] == OURS]
        theirs = [row for row in at if row["library"] != OURS]
        if not ours or not theirs:
            continue
        mine, peer = (max(some, key=optimality) for some in (ours, theirs))
        low, high = interval(parsed(mine), parsed(peer), least)
        about = {name: mine[name] for name in ("norm", "data", "network", "budget")}
        about |= {"ours": mine["attack"], "our optimality": optimality(mine)}
        about |= {"peer": f"{peer['library']} {peer['attack']}", "its optimality": optimality(peer)}
        found.append(about | {"low": low, "high": high})
    return found


def cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summaries of every norm and network, in this order, by budget."""
    networks = dict.fromkeys((row["data"], row["network"]) for row in rows)
    found = []
    for norm, network in product(NORMS, networks):
        chosen = [
            row for row in rows if (row["data"], row["network"]) == network and row["norm"] == norm
        ]
        found += summaries(chosen) if chosen else []
    return found


def shown(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell as the table has it."""
    difference = cell["our optimality"] - cell["its optimality"]
    return {
        "norm": cell["norm"],
        "network": f"{cell['data']} {cell['network']}",
        "budget": cell["budget"],
        "ours": cell["ours"],
        "optimality": f"{cell['our optimality']:.3f}",
        "best peer": cell["peer"],
        "its optimality": f"{cell['its optimality']:.3f}",
        "difference": f"{difference:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]",
    }


def covered(found: list[dict[str, Any]]) -> str:
    """What of the plan is measured."""
    budgets = sorted({each["budget"] for each in found})
    text = f"Measured: {len(found)} of {CELLS} cells, at {', '.join(map(str, budgets))} passes."
    there = Counter((each["norm"], each["budget"]) for each in found)
    missing = {
        norm: [
            str(budget)
            for budget in PLANNED
            if there[norm, budget] * len(NORMS) * len(PLANNED) < CELLS
        ]
        for norm in NORMS
    }
    told = [f"{norm} at {', '.join(some)}" for norm, some in missing.items() if some]
    if told:
        text += (
            f"\nMissing, wholly or in part: {'; '.join(told)}. Until the rest is there the envelope"
            "\nis farther away, and optimality looks better."
        )
    return text


def behind_text(behind: list[dict[str, Any]]) -> str:
    """Where a peer is ahead, by how much."""
    if not behind:
        return "No peer is ahead."
    lines = ["A peer is ahead, with the whole interval:", ""]
    for norm in dict.fromkeys(each["norm"] for each in behind):
        some = [each for each in behind if each["norm"] == norm]
        most = max(each["its optimality"] - each["our optimality"] for each in some)
        peers = ", ".join(sorted({each["peer"] for each in some}))
        lines.append(f"- {norm}: {peers}; cells: {len(some)}, by at most {most:.3f}")
    return "\n".join(lines)


def pilots(kept: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The peers of every pilot, the best first; those that take part are in bold."""
    rows = []
    for each in sorted(kept, key=lambda pilot: NORMS.index(pilot["norm"])):
        names = []
        for row in sorted(each["rows"], key=lambda row: -row["local_optimality"]):
            if row["library"] == OURS:
                continue
            name = f"{row['library']} {row['attack']} {row['local_optimality']:.3f}"
            chosen = [row["library"], row["attack"]] in each["kept"]
            names.append(f"**{name}**" if chosen else name)
        about = {"norm": each["norm"], "network": f"{each['data']} {each['network']}"}
        rows.append(about | {"peers": ", ".join(names)})
    return rows


def devices(rows: list[dict[str, Any]]) -> str:
    """Where the attacks ran, and how many if there are several places."""
    runs = Counter(row["device"] for row in rows)
    if len(runs) == 1:
        return f"on {next(iter(runs))}"
    return ", ".join(f"{n} of {len(rows)} attacks on {name}" for name, n in runs.most_common())


def command(result: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """The command that measures what is there."""
    budgets = " ".join(map(str, sorted({each["budget"] for each in found})))
    told = f"--budgets {budgets} --images {result['images']} --published FOLDER"
    return f"python -m benchmarks.attackbench {told}"


def alternative(found: list[dict[str, Any]]) -> str:
    """What the picture shows, in words."""
    parts = []
    for norm in dict.fromkeys(each["norm"] for each in found):
        some = [each for each in found if each["norm"] == norm]
        ours, theirs = (
            [each[name] for each in some] for name in ("our optimality", "its optimality")
        )
        parts.append(
            f"in {norm} ours from {min(ours):.2f} to {max(ours):.2f}, "
            f"the best peer from {min(theirs):.2f} to {max(theirs):.2f}"
        )
    return "Local optimality by budget, a panel for each norm and network: " + "; ".join(parts)


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each norm and network."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys((each["data"], each["network"]) for each in found))
    figure = Figure(figsize=(2.2 * len(networks), 8), layout="constrained")
    axes = figure.subplots(len(NORMS), len(networks), sharex=True, sharey=True, squeeze=False)
    for (i, norm), (j, network) in product(enumerate(NORMS), enumerate(networks)):
        some = [
            each
            for each in found
            if each["norm"] == norm and (each["data"], each["network"]) == network
        ]
        at, axis = [each["budget"] for each in some], axes[i, j]
        axis.plot(at, [each["our optimality"] for each in some], "o-", label="the best of ours")
        axis.plot(at, [each["its optimality"] for each in some], "s--", label="the best peer")
        axis.set_xscale("log")
        axis.set_xticks(PLANNED, map(str, PLANNED), rotation=60, minor=False)
        axis.set_xticks([], minor=True)
        if i == 0:
            axis.set_title("\n".join(network), fontsize=9)
        if j == 0:
            axis.set_ylabel(f"{norm}: optimality")
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("passes an image")
    with mpl.rc_context({"svg.hashsalt": NAME}):
        figure.savefig(path, metadata={"Date": None})
