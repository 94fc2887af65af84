"""The whole story on real digits: a defence that looks unbreakable, and is not.

    python examples/quickstart.py [--quick] [--out build/demo]

is what ``distillguard demo`` does, whose code is ``src/distillguard/_cli/_demo.py``.
"""

import sys

from distillguard.__main__ import main

if __name__ == "__main__" and (failed := main(["demo", *sys.argv[1:]])):
    sys.exit(failed)
