"""How long it takes a newcomer to get anywhere, from a fresh clone.

    python -m benchmarks.newcomer [--only STEP ...]

Clones the repository as committed, and runs from the clone what a newcomer runs, in the order of
README.md: its code, ``distillguard demo``, and the notebook of each chapter of the course, cell by
cell. Installation is not timed, since it is mostly the download of PyTorch. Writes
``results/newcomer.json``; a test compares the seconds that each chapter states with it.

Seconds of the processor, of all cores together, say what a step costs; those of the clock depend on
what else the machine does.
"""

import argparse
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._common import circumstances, load, save, table
from benchmarks.front_page import code

ROOT = Path(__file__).parents[1]
COLUMNS = ["step", "processor seconds", "seconds", "most, processor seconds"]
OWN_RESULT = 600
"""Processor seconds within which a newcomer has a result of their own."""
CHAPTER = 300
"""Processor seconds that a chapter may take."""

RUN_NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
NotebookClient(nbformat.read(sys.argv[1], 4), timeout=900).execute()
"""


def cloned(folder: Path) -> Path:
    """The committed state of the repository, in a folder of its own."""
    clone = folder / "distillguard"
    source = f"file://{ROOT}"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", source, str(clone)], check=True)
    return clone


def steps(clone: Path, folder: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Name, limit and command of each step."""
    readme = folder / "readme.py"
    readme.write_text(code((clone / "README.md").read_text(encoding="utf-8")))
    yield "README's code", OWN_RESULT, [str(readme)]
    yield "distillguard demo --quick", OWN_RESULT, ["-m", "distillguard", "demo", "--quick"]
    yield "distillguard demo", OWN_RESULT, ["-m", "distillguard", "demo"]
    runner = folder / "notebook.py"
    runner.write_text(RUN_NOTEBOOK)
    for page, notebook in notebooks(clone, folder).items():
        yield page, CHAPTER, [str(runner), str(notebook)]


def notebooks(clone: Path, folder: Path) -> dict[str, Path]:
    """Each chapter's notebook without its first cell, which installs."""
    import nbformat

    maker = runpy.run_path(str(clone / "docs" / "notebooks.py"))
    made = {}
    for page in maker["chapters"]():
        book = maker["notebook"](page)
        book.cells = [cell for cell in book.cells if "%pip install" not in cell.source]
        made[page.stem] = folder / f"{page.stem}.ipynb"
        made[page.stem].write_text(nbformat.writes(book))
    return made


def timed(act: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the processor, children included, and of the clock."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    processor, clock = spent(), time.perf_counter()
    act()
    return spent() - processor, time.perf_counter() - clock


def run(command: list[str], clone: Path, folder: Path) -> None:
    """Run Python in an empty place, with the clone's package and without a screen."""
    settings = {"PYTHONPATH": str(clone / "src"), "MPLBACKEND": "Agg"}
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | settings,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def words_before_a_picture(text: str) -> int:
    """How many words of a page stand before its first picture."""
    return len(text.partition("![")[0].split())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="measure these steps, keep the other rows")
    chosen = parser.parse_args().only
    known = {row["step"]: row for row in (load("newcomer") or {}).get("rows", [])}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clone = cloned(folder)
        words = words_before_a_picture((clone / "README.md").read_text(encoding="utf-8"))
        for step, most, command in steps(clone, folder):
            if not chosen or step in chosen:
                processor, clock = timed(partial(run, command, clone, folder))
                known[step] = {
                    "step": step,
                    "processor seconds": round(processor, 1),
                    "seconds": round(clock, 1),
                    "most, processor seconds": most,
                }
                found = {"words before the first picture": words, "rows": [*known.values()]}
                save("newcomer", circumstances() | found)
                print(table([known[step]], COLUMNS).splitlines()[-1], flush=True)
    print(f"Words of README.md before its first picture: {words}\n")
    print(table(list(known.values()), COLUMNS))


if __name__ == "__main__":
    main()
