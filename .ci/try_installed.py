"""Run the README's code and the command with distillguard as it is installed, outside the checkout.

python .ci/try_installed.py README.md: its code has to print the findings that README shows.
"""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import distillguard

SECONDS = 300
"""For everything together; what takes longer is killed."""

MODEL = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
"""
EVALUATE = "evaluate nets:build few.npz --epsilon 1/16 --preset quick --json few.json"


def timed(name: str, act: Callable[[], Any]) -> None:
    """Do it, and print how long it took."""
    began = time.perf_counter()
    act()
    print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


def run_readme(readme: Path) -> None:
    """Run all its Python as one program, and compare the findings."""
    text = readme.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile("\n".join(blocks), str(readme), "exec"), {"__name__": "readme"})
    expected, printed = (
        re.findall(r"^- ([a-z-]+):", part, re.M) for part in (text, shown.getvalue())
    )
    if not printed or printed != expected:
        sys.exit(f"the README's code must print the findings {expected}, got {printed}")


def run_command(*arguments: str) -> None:
    """Run the command as the wheel installed it."""
    command = Path(sys.executable).with_name("distillguard")
    subprocess.run([command, *arguments], check=True, stdout=subprocess.DEVNULL)


readme = Path(sys.argv[1]).resolve()
home = Path(distillguard.__file__).resolve()
if readme.parent / "src" in home.parents:
    sys.exit(f"distillguard must be the installed one, got {home}")
signal.alarm(SECONDS)
os.chdir(tempfile.mkdtemp())
Path("nets.py").write_text(MODEL)
np.savez("few.npz", X=np.random.default_rng(0).random((10, 1, 2, 2)), y=np.arange(10) % 3)
timed("README", lambda: run_readme(readme))
for line in ("--help", EVALUATE, "exercises"):
    timed(f"distillguard {line}", partial(run_command, *line.split()))
