"""Which tests execute which line: the map by which ``benchmarks.mutants_by_rule`` chooses tests.

    python -m benchmarks._coverage_map                    # the whole suite, once
    python -m benchmarks._coverage_map tests/test_l1.py   # these files anew, in the map there is

The suite runs in one process under ``coverage`` (the extra ``bench``), with one context for each
test. A line executed while a fixture of wider scope is made, or while a test file is imported,
counts for every test that depends on it; a line executed in a process that a test starts counts
for that test. The map is kept under ``benchmarks/.cache/coverage``, for the state of the sources
at the time.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "distillguard"
CACHE = Path(__file__).parent / ".cache" / "coverage"
CHILDREN = """\
[run]
data_file = {folder}/lines
parallel = true
source = {sources}
context = ${{DISTILLGUARD_TEST-}}
"""


class Test(NamedTuple):
    """What the map knows of one test."""

    name: str
    seconds: float
    """Under coverage, set-up included: an upper bound of what it takes without."""
    fixtures: float
    """Processor seconds to make the fixtures that it shares, which come on top once."""
    lines: int
    """Of the sources, executed by it: few where a test is specific."""

    def cost(self) -> tuple[float, str]:
        """What tests are sorted by: short and specific ones come first."""
        return self.seconds * (50 + self.lines), self.name


class CoverageMap:
    """The map in a folder, as the command of this module writes it."""

    def __init__(self, folder: Path = CACHE) -> None:
        from coverage import CoverageData

        self.folder = folder
        self.known: dict[str, Any] = json.loads((folder / "tests.json").read_text())
        self.data = CoverageData(str(folder / "lines"))
        self.data.read()
        self._lines: dict[str, dict[int, list[str]]] = {}

    @classmethod
    def of_today(cls, folder: Path = CACHE) -> "CoverageMap":
        """The map in a folder, made anew unless it is of the sources as they are."""
        path = folder / "tests.json"
        if not path.exists() or json.loads(path.read_text())["sources"] != fingerprint():
            command = [sys.executable, "-m", "benchmarks._coverage_map", "--cache", str(folder)]
            subprocess.run(command, cwd=ROOT, check=True)
        return cls(folder)

    def tests(self, file: str, lines: range) -> list[Test]:
        """The tests that execute one of these lines of a file, the short and specific first."""
        if file not in self._lines:
            self._lines[file] = self.data.contexts_by_lineno(str(SOURCES / file))
        contexts = {c for line in lines for c in self._lines[file].get(line, ())}
        names = {name for context in contexts for name in self._depending(context)}
        found = [self.test(name) for name in names if name in self.known["tests"]]
        return sorted(found, key=Test.cost)

    def names(self) -> set[str]:
        """The names of all tests."""
        return set(self.known["tests"])

    def broken(self) -> set[str]:
        """Names of tests that failed under coverage."""
        return {name for name, test in self.known["tests"].items() if not test["passed"]}

    def test(self, name: str) -> Test:
        """What is known of a test."""
        known, times = self.known["tests"][name], self.known["fixtures"]
        shared = sum(times.get(key, 0.0) for key in known["fixtures"])
        return Test(name, known["seconds"], shared, self._sizes.get(name, 0))

    def _depending(self, context: str) -> list[str]:
        """The tests behind a context of coverage."""
        return self._shared.get(context, [context])

    @cached_property
    def _shared(self) -> dict[str, list[str]]:
        """Tests for each fixture of wider scope and each test file."""
        shared: dict[str, list[str]] = {}
        for name, test in self.known["tests"].items():
            for context in (*test["fixtures"], name.split("::")[0]):
                shared.setdefault(context, []).append(name)
        return shared

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Lines that each test executes."""
        sizes: dict[str, int] = {}
        for path in self.data.measured_files():
            for contexts in self.data.contexts_by_lineno(path).values():
                for context in contexts:
                    sizes[context] = sizes.get(context, 0) + 1
        return sizes


class _Contexts:
    """A plugin for pytest that tells coverage what is running."""

    def __init__(self, measured: Any) -> None:
        self.measured, self.context = measured, ""
        self.tests: dict[str, dict[str, Any]] = {}
        self.fixtures: dict[str, float] = {}

    def switch(self, context: str) -> str:
        """Let what follows count for a context; return the one before."""
        before, self.context = self.context, context
        self.measured.switch_context(context)
        return before

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector: Any) -> Generator[None]:
        """What a file does when imported counts for the file."""
        before = self.switch(collector.nodeid.split("::")[0])
        yield
        self.switch(before)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None]:
        """What making a shared fixture does counts for the fixture."""
        before, begun, key = self.context, time.process_time(), _key(fixturedef)
        if fixturedef.scope != "function":
            self.switch(key)
        yield
        if fixturedef.scope != "function":
            spent = time.process_time() - begun
            self.fixtures[key] = max(self.fixtures.get(key, 0.0), round(spent, 3))
        self.switch(before)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Generator[None]:
        """All else counts for the test."""
        known = item._fixtureinfo.name2fixturedefs.values()
        shared = [_key(each) for definitions in known for each in definitions]
        self.tests[item.nodeid] = {"seconds": 0.0, "passed": True, "fixtures": shared}
        os.environ["DISTILLGUARD_TEST"] = item.nodeid
        before = self.switch(item.nodeid)
        yield
        self.switch(before)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the time and the verdict of each phase of a test."""
        test = self.tests[report.nodeid]
        test["seconds"] += round(report.duration, 3)
        test["passed"] &= report.passed


def _key(fixture: Any) -> str:
    return f"fixture {fixture.baseid}::{fixture.argname}"


def fingerprint() -> str:
    """A digest of all sources."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(f"{path.relative_to(SOURCES)}\0{path.read_text()}\0".encode())
    return digest.hexdigest()


def main() -> None:
    """Run the suite, or some of its files, and write the map."""
    import coverage

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tests", nargs="*", help="test files to measure anew; all by default")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the map")
    arguments = parser.parse_args()
    folder = arguments.cache.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not arguments.tests:
        for old in folder.iterdir():
            old.unlink()

    (folder / "children.ini").write_text(CHILDREN.format(folder=folder, sources=SOURCES))
    os.environ["COVERAGE_PROCESS_START"] = str(folder / "children.ini")
    os.chdir(ROOT)
    measured = coverage.Coverage(str(folder / "lines"), source=[str(SOURCES)], config_file=False)
    if arguments.tests:
        measured.load()
    measured.start()
    contexts = _Contexts(measured)
    status = pytest.main(["-q", "-p", "no:xdist", "--tb=short", *arguments.tests], [contexts])
    measured.stop()
    measured.save()
    measured.load()
    measured.combine([str(folder)], strict=False)
    measured.save()

    path = folder / "tests.json"
    before = json.loads(path.read_text()) if path.exists() else {"tests": {}, "fixtures": {}}
    known = {
        "sources": fingerprint(),
        "tests": before["tests"] | contexts.tests,
        "fixtures": before["fixtures"] | contexts.fixtures,
    }
    path.write_text(json.dumps(known, indent=1))
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(int(status))


if __name__ == "__main__":
    main()
