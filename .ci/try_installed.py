"""Run the README's code and the demo with distillguard as it is installed, outside the checkout.

python .ci/try_installed.py README.md: data sets are cut to a few examples, to save time.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distillguard
from distillguard import datasets
from distillguard.__main__ import main

EXAMPLES = 20
DEMO = ["demo", "--epochs", "1", "--images", "10", "--train", "64", "--out", "demo"]


def cut(load: Callable[..., Any]) -> Callable[..., Any]:
    """The first examples of what a loader returns."""

    def shortened(*args: Any, **settings: Any) -> tuple[Any, ...]:
        return tuple(part[:EXAMPLES] for part in load(*args, **settings))

    return shortened


readme = Path(sys.argv[1]).resolve()
home = Path(distillguard.__file__).resolve()
if readme.parent / "src" in home.parents:
    sys.exit(f"distillguard must be the installed one, got {home}")
os.chdir(tempfile.mkdtemp())
for name in datasets.__all__:
    setattr(datasets, name, cut(getattr(datasets, name)))
blocks = re.findall(r"^```python\n(.*?)^```$", readme.read_text(), re.DOTALL | re.MULTILINE)
exec(compile("\n".join(blocks), str(readme), "exec"), {"__name__": "readme"})
sys.exit(main(DEMO))
