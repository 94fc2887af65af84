"""docs/benchmarks/promises.md: generated from results/peer-promises.json."""

from pathlib import Path
from typing import Any

from benchmarks._common import load

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "promises.md"

PAGE_TEXT = """\
% Written by: python -m benchmarks.peer_promises --page. Edit benchmarks/_promises_page.py instead.

# Promises of attacks, in other libraries too

{func}`~distillguard.testing.check_attack` tests attacks of adv-lib, foolbox and torchattacks for
the promises that every attack of distillguard keeps. Most of these promises are ours alone:
another library may leave it to the caller to put the model into eval mode or to seed the
generator, and may say so. A broken promise shows what a caller has to take care of, or what a
figure may depend on.

- Each attack is called as in its library's examples, with the model in the mode that it is in.
- No seed, mask or target is passed on, so `repeatable`, `mask` and `targeted` are not tested.
- If `settings` in the results say that steps were cut short, `fools` is not tested.
  `batch-independence` is not judged for an attack that draws random numbers. foolbox marks failures
  that are returned changed in a third value. A change of 1e-7 is only rounding, but is reported.
- `alma` of adv-lib, and `apgd` with its default loss, need at least three classes.
- With {mod}`distillguard.interop` these attacks leave the model unchanged, and can be called under
  `torch.no_grad()`.

```
python -m benchmarks.peer_promises           # tests what is installed
python -m benchmarks.peer_promises --page    # writes this page
```

VERSIONS

TABLE

## What was found

For each library and promise, one attack that breaks it, with the smallest example: images of 3 x 4
values in [0, 1].

FOUND

All messages and examples are in `benchmarks/results/peer-promises.json`.
"""

SHOWN = 4
"""Values of an example that the page shows."""


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    report = load("peer-promises")
    rows = report["rows"]
    versions = report["circumstances"]["versions"]
    told = ", ".join(f"{name} {versions[name]}" for name in ("adv-lib", "foolbox", "torchattacks"))
    text = PAGE_TEXT.replace("VERSIONS", f"{report['circumstances']['date']}; {told}:")
    return text.replace("TABLE", table(rows)).replace("FOUND", found(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """What each breaks, and how many it keeps."""
    lines = ["| library | attack | norm | broken | kept |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        names = dict.fromkeys(one["promise"] for one in row["broken"])
        broken = ", ".join(f"`{name}`" for name in names) or "none"
        cells = [row["library"], f"`{row['attack']}`", row["norm"], broken, kept(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def kept(row: dict[str, Any]) -> str:
    """Which are kept."""
    return ", ".join(f"`{each}`" for each in row["kept"])


def found(rows: list[dict[str, Any]]) -> str:
    """The first attack of each library that breaks a promise, and the example."""
    lines, seen = [], set()
    for row in rows:
        for one in row["broken"]:
            if (row["library"], one["promise"]) not in seen:
                seen.add((row["library"], one["promise"]))
                lines.append(f"- {row['library']} `{row['attack']}`: {entry(one)}")
    return "\n".join(lines)


def entry(one: dict[str, Any]) -> str:
    """One broken promise in words."""
    message = one["message"].splitlines()[0]
    return f"`{one['promise']}`: {message}{shown(one['example'])}"


def shown(example: Any) -> str:
    """The first values of an example."""
    if not example:
        return ""
    values = _flat(example)
    cut = ", ..." if len(values) > SHOWN else ""
    return f" (at [{', '.join(f'{value:.4g}' for value in values[:SHOWN])}{cut}])"


def _flat(example: Any) -> list[float]:
    if isinstance(example, list):
        return [value for part in example for value in _flat(part)]
    return [example]
