"""Run the README's code and a short demo with the installed distillguard, outside the checkout.

python .ci/try_installed.py README.md: the code has to print the findings that the README shows.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import distillguard
from distillguard.__main__ import main

DEMO = ["demo", "--epochs", "1", "--images", "10", "--train", "64", "--out", "demo"]

readme = Path(sys.argv[1]).resolve()
home = Path(distillguard.__file__).resolve()
if readme.parent / "src" in home.parents:
    sys.exit(f"distillguard must be the installed one, got {home}")
os.chdir(tempfile.mkdtemp())
text = readme.read_text(encoding="utf-8")
blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    exec(compile("\n".join(blocks), str(readme), "exec"), {"__name__": "readme"})
print(shown.getvalue())
expected, printed = (re.findall(r"^- ([a-z-]+):", part, re.M) for part in (text, shown.getvalue()))
if not printed or printed != expected:
    sys.exit(f"the README's code must print the findings {expected}, got {printed}")
sys.exit(main(DEMO))
