"""Pytest on a harmed copy of the sources, in a fork of a warm process."""

import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hypothesis.extra.numpy  # noqa: F401 - here and below: for the forks
import pytest
import scipy.optimize
import scipy.stats  # noqa: F401

ROOT = Path(__file__).parents[1]
CPU_SECONDS = 150
"""For one fault; the longest test file needs about a third of it."""
ENDLESS = (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM)
"""Exit statuses of a process that a limit ended."""


def outcome(
    harm: Callable[[Path], object] | None,
    options: Sequence[str],
    plugins: Sequence[Any] = (),
) -> tuple[int, str]:
    """Pytest's exit status and output on a copy of ``src``, harmed unless that is None.

    An option that starts with ``src/`` means that file of the copy.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        home = Path(folder) / "src"
        # Compiled files come along: they are used where the source is as old as they say.
        shutil.copytree(ROOT / "src", home)
        if harm is not None:
            harm(home / "distillguard")
        places = [f"{folder}/{each}" if each.startswith("src/") else each for each in options]
        # A fork: what is imported already, torch above all, need not be imported for each fault.
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            _run_on_copy(home, places, plugins)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(ProcessLookupError):  # what the tests started and a fault left running
            os.killpg(child, signal.SIGKILL)
        output.seek(0)
        return status, output.read().decode(errors="replace")


def _run_on_copy(home: Path, options: list[str], plugins: Sequence[Any]) -> NoReturn:
    """Run pytest on the copy and leave the process; nothing else may stand in for the copy."""
    status = 99
    # Some faults never end. Processor seconds, which do not depend on what else is running.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        os.chdir(ROOT)
        os.environ |= {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(home))
        import distillguard

        if not Path(distillguard.__file__).resolve().is_relative_to(home.resolve()):
            raise RuntimeError(f"{distillguard.__file__} was imported, not the copy in {home}")
        quiet = ["-x", "-q", "--tb=no", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        place = [f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
        status = int(pytest.main([*quiet, *place, *options], list(plugins)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)
