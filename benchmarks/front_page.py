"""README.md's code, what it prints, and its rows of figures.

    python -m benchmarks.front_page [--page]

Runs the code of README.md in an empty folder, writes what it printed into
``results/front-page.json``, and writes README.md between its marks: the printed report, and the
rows of figures from the result files of other benchmarks. ``--page`` only writes.
"""

import argparse
import contextlib
import io
import os
import re
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from benchmarks._attacks_page import comparisons, figures, result
from benchmarks._common import circumstances, load, save, table
from benchmarks._evaluation_page import judged
from benchmarks._peers import OURS

README = Path(__file__).parents[1] / "README.md"
WIDTH = 96
FIGURES = ("task", "distillguard", "compared with", "page")


def code(text: str) -> str:
    """The Python of a page's fenced blocks."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def printed(source: str) -> list[str]:
    """Run code in an empty folder; the lines that it prints."""
    shown, home = io.StringIO(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(shown):
        os.chdir(folder)
        try:
            exec(compile(source, "README.md", "exec"), {"__name__": "readme"})
        finally:
            os.chdir(home)
    return shown.getvalue().splitlines()


def filled(text: str) -> str:
    """README's text with the figures of the committed results."""
    lines = [wrapped(line) for line in load("front-page")["printed"]]
    text = between(text, "printed", "\n".join(["```", *lines, "```"]))
    return between(text, "figures", table(rows(), list(FIGURES)))


def wrapped(line: str) -> str:
    """A printed line, broken where it is too long for a page."""
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def between(text: str, name: str, inserted: str) -> str:
    """Replace what stands between a text's two marks of this name."""
    begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{inserted}\n{end}{after}"


def rows() -> list[dict[str, str]]:
    """The rows of figures: task, ours, what it is compared with, the page that has more."""
    return [accuracy(), beside_autoattack(), least_distance(), on_photographs(), robust_training()]


def accuracy() -> dict[str, str]:
    """What distillation costs in accuracy."""
    known = {row["network"]: row["accuracy"] for row in load("temperatures-mnist5k")["rows"]}
    return {
        "task": "Accuracy at T = 100, MNIST-5k",
        "distillguard": f"{100 * known['T=100']:.1f} %",
        "compared with": f"undefended {100 * known['undefended']:.1f} %",
        "page": link("temperatures", "benchmarks/temperatures.md"),
    }


def beside_autoattack() -> dict[str, str]:
    """The standard evaluation of an adversarially trained network."""
    measured = load("evaluation")
    key = {"network": "MNIST-5k adversarially trained", "norm": "linf"}
    found = next(row for row in measured["rows"] if key.items() <= row.items())
    row = judged(found, measured["examples"])
    their_passes = row["AutoAttack's"]
    return {
        "task": f"Evaluate an adversarially trained network, {row['radius']}",
        "distillguard": f"{row['robust, %']:.1f} % robust, {row['passes']} passes",
        "compared with": f"AutoAttack {row['AutoAttack']:.1f} %, {their_passes} passes",
        "page": link("evaluation", "benchmarks/evaluation.md"),
    }


def least_distance() -> dict[str, str]:
    """Carlini and Wagner's attack on a distilled network."""
    key = {"network": "T=100", "attack": "carlini_wagner_l2"}
    pairs = comparisons([r for r in load("attacks-mnist5k")["rows"] if "error" not in r])
    mine, theirs = next(pair for pair in pairs if key.items() <= pair[0].items())
    return {
        "task": "Smallest median l2 distance that fools T = 100",
        "distillguard": f"{result(mine)}, {figures(mine)[1]} passes",
        "compared with": f"{theirs['library']} {result(theirs)}, {figures(theirs)[1]} passes",
        "page": link("attacks", "benchmarks/attacks.md"),
    }


def on_photographs() -> dict[str, str]:
    """The standard evaluation of a photograph's network."""
    key = {"network": "ResNet-18, CIFAR-10", "radius": "8/255"}
    row = next(row for row in load("photographs")["rows"] if key.items() <= row.items())
    mine, theirs = (
        f"{100 * row[name]['robust_accuracy']:.1f} % robust, {row[name]['seconds']:.0f} s"
        for name in ("standard", "AutoAttack")
    )
    return {
        "task": f"Evaluate an undefended ResNet-18, CIFAR-10, linf {row['radius']}",
        "distillguard": mine,
        "compared with": f"AutoAttack {theirs.replace(' robust', '')}",
        "page": link("photographs", "benchmarks/evaluation.md#photographs"),
    }


def robust_training() -> dict[str, str]:
    """What adversarial training gives."""
    measured = load("robust-training-mnist5k")
    row: dict[str, Any] = next(r for r in measured["rows"] if r["network"] == "TRADES")
    key = {"network": "T=100", "attack": "pgd", "kind": "margin", "setting": "defaults"}
    attacked = load("attacks-mnist5k")["rows"]
    broken = next(r for r in attacked if (key | {"library": OURS}).items() <= r.items())
    return {
        "task": f"TRADES, MNIST-5k, linf {measured['epsilon']:g}",
        "distillguard": f"{100 * row['robust']:.1f} % robust, {100 * row['clean']:.1f} % clean",
        "compared with": f"distilled, T = 100: {result(broken)}",
        "page": link("robust training", "explanation/robust-training.md"),
    }


def link(words: str, page: str) -> str:
    """A link from README to a page of the documentation."""
    return f"[{words}](docs/{page})"


def main() -> None:
    """Run the code and write the page, or only write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write README.md, run nothing")
    chosen = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    if not chosen.page:
        source = code(text)
        save("front-page", circumstances() | {"code": source, "printed": printed(source)})
    README.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
