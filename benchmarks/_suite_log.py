"""A plugin for pytest that writes down what became of every test, and its processor time.

Loaded by name (``-p benchmarks._suite_log``), so that every worker of pytest-xdist has it too.
"""

import json
import os
import resource
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

PLACE = "DISTILLGUARD_SUITE_LOG"
"""The variable with the path of the file to write."""

_failed: list[str] = []
_outcomes: dict[str, str] = {}
_seconds: dict[str, float] = {}


def _spent() -> float:
    """Processor time of this process and of those that it waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any]:
    """Send what a test has used so far with its report."""
    report = (yield).get_result()
    if call.when == "setup":
        item.stash[_BEGUN] = item.config.stash.get(_LAST, _spent())
    if call.when == "teardown":
        item.config.stash[_LAST] = now = _spent()
        report.user_properties.append(("processor seconds", now - item.stash[_BEGUN]))


def pytest_runtest_logreport(report: Any) -> None:
    """Note how a test ended."""
    if report.failed:
        _failed.append(report.nodeid)
    if report.when == "call" or report.skipped:
        _outcomes[report.nodeid] = report.outcome
    for name, value in report.user_properties:
        if name == "processor seconds":
            _seconds[report.nodeid] = round(value, 2)


def pytest_sessionfinish(session: Any) -> None:
    """Write it all down, once: not in the workers."""
    if not hasattr(session.config, "workerinput"):
        told = {"failed": sorted(set(_failed)), "outcomes": _outcomes, "seconds": _seconds}
        Path(os.environ[PLACE]).write_text(json.dumps(told), encoding="utf-8")


_BEGUN = pytest.StashKey[float]()
_LAST = pytest.StashKey[float]()
