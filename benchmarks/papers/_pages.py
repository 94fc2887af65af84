"""The gallery in ``docs/papers``: generated from the result files, never edited."""

from importlib import import_module
from typing import Any

from benchmarks._common import load
from benchmarks.papers._claim import DATA, Claim, Places, Row, judged, shown

NAMES = (
    "hinton",
    "papernot_success",
    "papernot_sensitivity",
    "papernot_label_smoothing",
    "carlini_wagner_tables",
    "carlini_wagner_temperature",
    "carlini_wagner_transfer",
    "carlini_wagner_jsma",
    "story",
)
NBSP = "\N{NO-BREAK SPACE}"
GENERATED = "% Written by: python -m benchmarks.papers --pages. Edit benchmarks/papers instead.\n"


def claims() -> list[Claim]:
    """All of them, in the order of the story."""
    return [import_module(f"benchmarks.papers.{name}").CLAIM for name in NAMES]


def rejudge(places: Places) -> None:
    """Judge and draw again whatever has results, without measuring anything."""
    for claim in claims():
        for data in DATA:
            result = load(f"{claim.name}-{data}", places.results)
            if result.get("checks"):
                judged(claim, result, places)
    write(places)


def write(places: Places) -> None:
    """Write a page for each claim that has results, and the gallery."""
    places.docs.mkdir(parents=True, exist_ok=True)
    for name, text in pages(places).items():
        (places.docs / f"{name}.md").write_text(text)


def pages(places: Places) -> dict[str, str]:
    """Return all pages by name."""
    found = {}
    for claim in claims():
        results = {data: load(f"{claim.name}-{data}", places.results) for data in DATA}
        judged = {data: result for data, result in results.items() if result.get("checks")}
        if judged:
            found[claim.name] = (claim, judged)
    written = {name: page(claim, judged) for name, (claim, judged) in found.items()}
    return written | {"index": gallery(found)} if written else {}


def page(claim: Claim, results: dict[str, Row]) -> str:
    """One claim: what it says, the results on each data set, and the differences."""
    parts = [GENERATED, f"# {claim.title}\n", claim.text.strip() + "\n"]
    for data, result in results.items():
        parts.append(f"## {DATA[data].title}\n")
        parts.append(figure(claim, data))
        parts.append(circumstances(claim, result))
        parts.append(checked(result["checks"]))
        parts.append(compared(result["comparisons"], result["seeds"]))
    parts.append("## Differences from the paper\n")
    parts.append(claim.differences.strip() + "\n")
    parts.append("## Run it\n")
    parts.append(
        f"```\npython -m benchmarks.papers.{claim.name} --data {next(iter(results))}\n```\n"
    )
    return "\n".join(parts)


def figure(claim: Claim, data: str) -> str:
    """The drawing with its caption."""
    alt = f"{claim.title}, {DATA[data].title}"
    head = f":::{{figure}} {claim.name}-{data}.svg\n:alt: {alt}\n:width: 75%\n"
    return f"{head}\n{claim.caption}\n:::\n"


def circumstances(claim: Claim, result: Row) -> str:
    """Say how the figures were taken."""
    settings = result["settings"]
    sizes = [
        f"{settings[key]:,} {key.replace('_', ' ').replace('jsma', 'JSMA').replace(' l2', ' L2')}"
        for key in claim.sizes
    ]
    training = settings["training_images"]
    images = "all training images" if training == "all" else f"{training:,} training images"
    seeds = f"{result['seeds']} seed" + ("s" if result["seeds"] > 1 else "")
    how = f"{settings['epochs']} epochs of {settings['optimizer']}"
    setting = ", ".join([f"`{settings['network']}`", seeds, images, how, *sizes])
    minutes = result["processor_minutes"]
    return (
        f"{setting}. {minutes:.1f} CPU minutes including training, {result['processor']}, "
        f"torch {result['versions']['torch']}, {result['date']}.\n"
    )


def checked(checks: list[Row]) -> str:
    """Whether each check of the claim holds."""
    words = {True: "yes", False: "**no**", None: "not measured"}
    lines = ["| check | bound | measured | holds |", "| --- | --- | ---: | --- |"]
    for one in checks:
        bound = one["bound"].replace("<", "&lt;").replace(">", "&gt;")
        name = one["name"].replace("|", r"\|")
        lines.append(f"| {name} | {bound} | {shown(one['value'])} | {words[one['holds']]} |")
    return "\n".join(lines) + "\n"


def compared(comparisons: list[Row], seeds: int) -> str:
    """The paper's figures beside ours; a column that would be empty is left out."""
    spread = ", mean ± spread over seeds" if seeds > 1 else ""
    remarks = any(one["why"] for one in comparisons)
    lines = [f"| | the paper | ours{spread} |" + (" remark |" if remarks else "")]
    lines.append("| --- | ---: | ---: |" + (" --- |" if remarks else ""))
    for one in comparisons:
        quantity = one["quantity"].replace("|", r"\|").replace(" = ", NBSP + "=" + NBSP)
        cells = [quantity, printed(one["paper"], one["unit"])]
        cells.append(with_unit(one["ours"], one["spread"], one["unit"]))
        lines.append("| " + " | ".join(cells + ([one["why"]] if remarks else [])) + " |")
    return "\n".join(lines) + "\n"


def counted(holds: list[bool | None]) -> str:
    """How many checks hold."""
    if all(holds):
        known = {1: "The check holds.", 2: "Both checks hold."}
        return known.get(len(holds), f"All {len(holds)} checks hold.")
    return f"{sum(map(bool, holds))} of {len(holds)} checks hold."


def printed(value: float | str | None, unit: str) -> str:
    """The paper's figure, with the digits that it has there."""
    if value is None:
        return ""
    return f"{value if isinstance(value, str) else f'{value:g}'} {unit}".strip()


def with_unit(value: Any, spread: float | None, unit: str) -> str:
    """A figure, its spread and its unit."""
    if value is None:
        return ""
    words = shown(value) + ("" if spread is None else f" ± {shown(spread)}")
    return f"{words} {unit}".strip()


def gallery(found: dict[str, tuple[Claim, dict[str, Row]]]) -> str:
    """All claims at a glance."""
    parts = [GENERATED, "# The papers, reproduced\n"]
    parts.append(
        "The central claims of Hinton et al. 2015, Papernot et al. 2016, and Carlini and Wagner "
        "2016 and 2017,\nmeasured on real images and set beside the published figures. Each page "
        "comes from a single command;\n`python -m benchmarks.papers` runs them all.\n"
    )
    parts.append("::::{grid} 1 2 2 3\n:gutter: 3\n")
    for name, (claim, results) in found.items():
        data = next(iter(results))
        holds = [one["holds"] for result in results.values() for one in result["checks"]]
        head = f":::{{grid-item-card}} {claim.title}\n:link: {name}\n:link-type: doc\n"
        kept = counted(holds)
        picture = f":img-top: {name}-{data}.svg\n:img-alt: {claim.title}, {DATA[data].title}\n"
        parts.append(f"{head}{picture}\n{kept}\n:::\n")
    parts.append("::::\n")
    parts.append("```{toctree}\n:hidden:\n\n" + "\n".join(found) + "\n```\n")
    return "\n".join(parts)
