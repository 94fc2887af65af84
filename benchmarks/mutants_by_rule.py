"""Deliberate faults by rule, a sample of all of ``src``, and which test catches each one.

    python -m benchmarks.mutants_by_rule                    # the sample; an hour and a half
    python -m benchmarks.mutants_by_rule --keep             # go on after an interruption
    python -m benchmarks.mutants_by_rule --only attacks --number 900 --seed 1

``benchmarks/_mutation_rules.py`` lists every exchange that its rules allow (operators, signs,
constants, conditions, reductions, bounds, keywords, calls, early ends); a sample, the same for the
same seed, takes some from every folder and of every rule. For a fault, the tests that execute its
line are asked, the short and specific ones first, until one fails. Which do is told by the map of
``benchmarks._coverage_map``, made here where there is none of today's sources (15 minutes).

``--seconds`` limits how many: the first tests that take so many processor seconds together, at
least one. What the limit leaves out might have caught the fault, so a survivor has survived the
tests asked, not the suite; its row says how many of how many were asked, and the suite kills at
least as many as the figure says. A test that runs more than ten seconds and five times longer than
it should ends the fault too. A test that fails without any fault kills nothing: after the sample,
those that caught something run once on an unharmed copy, and what they alone caught is judged
again without them.

Survivors that no test can tell are listed, each with its reason, in
``benchmarks/_equivalent_faults.py``.
"""

import argparse
import ast
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks._common import circumstances, load, save, table
from benchmarks._coverage_map import CACHE, CoverageMap, Test
from benchmarks._equivalent_faults import EQUIVALENT
from benchmarks._mutation import ENDLESS, outcome
from benchmarks._mutation_rules import Fault, files, sample, source_of
from benchmarks._survivors import SAMPLES

LINE = "caught by: "
READERS = "tests/test_surface.py::test_the_public_surface"
"""The test that compares names, signatures and defaults with a snapshot."""


class Chosen:
    """A plugin for pytest: these tests in this order, each with a limit, and which one failed."""

    def __init__(self, tests: list[Test]) -> None:
        self.places = {test.name: place for place, test in enumerate(tests)}
        self.seconds = {test.name: test.seconds + test.fixtures for test in tests}
        self.failed: list[str] = []

    def options(self) -> list[str]:
        """Pytest's options: the files, since a fault may take away a test's parameters."""
        files = dict.fromkeys(name.split("::")[0] for name in self.places)
        return ["--hypothesis-seed=0", *files]

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave the chosen tests, in their order."""
        items[:] = sorted(
            (item for item in items if _name(item) in self.places),
            key=lambda item: self.places[_name(item)],
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        """Limit what the next test may take, in processor time and otherwise."""
        seconds = self.seconds[_name(item)]
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime + 10 + 5 * seconds)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))
        signal.alarm(int(60 + 20 * seconds))  # a test that waits uses no processor

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: Any) -> Generator[None, Any]:
        """Note a test that fails."""
        report = (yield).get_result()
        if report.failed:
            self.failed.append(_name(item))

    def pytest_collectreport(self, report: Any) -> None:
        """Note a test file that cannot be imported."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Tell the process that waits."""
        for name in self.failed:
            print(f"\n{LINE}{name}", flush=True)


def _name(item: Any) -> str:
    """The test's name in the map, also where it comes from the copy of the sources."""
    path, _, rest = item.nodeid.partition("::")
    return re.sub(r"^.*?(?=src/distillguard/)", "", path) + f"::{rest}"


def tests_for(fault: Fault, coverage: CoverageMap) -> list[Test]:
    """All tests that execute the fault, by what is known of it, the first to ask first."""
    source = source_of(fault.file)
    first, last = source.line(fault.start), source.line(fault.start + len(fault.old))
    bodies = _bodies(fault.file)
    around = [each for each in bodies if each[0] == fault.function]
    if not any(start <= first <= end for _, start, end in around):
        return _tests_of_module_level(fault, first, coverage)
    found = coverage.tests(fault.file, range(_statement(fault.file, first), last + 1))
    # Solutions of exercises run from their text, where no map sees them.
    return found or _tests_of_module_level(fault, first, coverage)


def _tests_of_module_level(fault: Fault, line: int, coverage: CoverageMap) -> list[Test]:
    """Tests that use what a module, a class or a signature defines in a line.

    The one that reads signatures executes nothing, and comes first.
    """
    bodies = _bodies(fault.file)
    own = [range(start, end + 1) for name, start, end in bodies if name == fault.function]
    names = _defined(fault.file, line) or {fault.function.split(".")[-1]}
    word = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    tests = {test for lines in own for test in coverage.tests(fault.file, lines)}
    for file in files() if not tests else []:
        inside = {n for _, start, end in _bodies(file) for n in range(start, end + 1)}
        text = source_of(file).text.splitlines()
        for number in sorted(inside):
            if word.search(text[number - 1]):
                tests.update(coverage.tests(file, range(number, number + 1)))
    if not tests:
        tests = {
            test
            for _, start, end in bodies
            for test in coverage.tests(fault.file, range(start, end + 1))
        }
    readers = [coverage.test(name) for name in coverage.names() if name.startswith(READERS)]
    return [*readers, *sorted(tests - {*readers}, key=Test.cost)]


@cache
def _bodies(file: str) -> list[tuple[str, int, int]]:
    """Functions of a file: name as in a traceback, first and last line of the body."""
    found = []

    def walk(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{outer}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef):
                found.append((name, child.body[0].lineno, child.end_lineno or 0))
            walk(child, name)

    walk(source_of(file).tree, "")
    return found


@cache
def _statements(file: str) -> list[tuple[int, int]]:
    """First line of every statement, and the last of its head."""
    found = []
    for node in ast.walk(source_of(file).tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or 0
            found.append((node.lineno, max(last, node.lineno)))
    return found


def _statement(file: str, line: int) -> int:
    """The first line of the innermost statement in whose head a line lies."""
    starts = [start for start, end in _statements(file) if start <= line <= end]
    return max(starts, default=line)


def _defined(file: str, line: int) -> set[str]:
    """What the top-level statement around a line defines."""
    for node in source_of(file).tree.body:
        if node.lineno <= line <= (node.end_lineno or 0):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                return {node.name}
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            return {each.id for each in targets if isinstance(each, ast.Name)}
    return set()


def within(tests: list[Test], seconds: float) -> list[Test]:
    """The first tests that take so long together, at least one."""
    chosen, spent = [], 0.0
    for test in tests:
        spent += test.seconds
        if chosen and spent > seconds:
            break
        chosen.append(test)
    return chosen


def judged(fault: Fault, coverage: CoverageMap, seconds: float, broken: set[str]) -> dict[str, Any]:
    """Run the tests that execute a fault: a row of the table."""
    begun = time.perf_counter()
    able = [test for test in tests_for(fault, coverage) if test.name not in broken]
    asked = within(able, seconds)
    caught = caught_by(fault, asked) if asked else []
    verdict = "equivalent" if fault.name in EQUIVALENT else "SURVIVED"
    return {
        "fault": fault.name,
        "rule": fault.rule,
        "line": source_of(fault.file).line(fault.start),
        "exchange": [fault.old, fault.new],
        "verdict": "killed" if caught else verdict,
        "by": caught[0] if caught else None,
        "asked": len(asked),
        "of": len(able),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def caught_by(fault: Fault | None, tests: list[Test]) -> list[str]:
    """The first test that fails, if any; or, without a fault, all of them that fail."""
    chosen = Chosen(tests)
    more = [] if fault else ["--maxfail=1000000"]
    status, output = outcome(fault and fault.apply, [*chosen.options(), *more], [chosen])
    if status in ENDLESS:
        return ["the time limit"]
    failed = re.findall(rf"^{LINE}(.*)$", output, flags=re.MULTILINE)
    if failed or status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return failed
    if status < 0 or "distillguard" in output:
        return [f"a crash (exit status {status})"]
    raise RuntimeError(f"{fault and fault.name!r} was not judged:\n{output[-2000:]}")


def main() -> None:
    """Judge the sample, print what survived, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=320, help="faults to sample, about")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="faults of the sample whose name contains this")
    parser.add_argument("--seconds", type=float, default=60, help="of tests asked for each fault")
    parser.add_argument("--keep", action="store_true", help="do not repeat faults judged already")
    parser.add_argument("--survivors", action="store_true", help="repeat those that survived")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the coverage map")
    parser.add_argument("--out", type=Path, help="folder of the results, another than the usual")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    coverage = CoverageMap.of_today(arguments.cache)
    drawn = sample(arguments.number, arguments.seed)
    chosen = [fault for fault in drawn if arguments.only in fault.name]
    result = SAMPLES.get(arguments.seed, f"mutants-by-rule-{arguments.seed}")
    before = load(result, arguments.out).get("faults", []) if arguments.keep else []
    rows = {row["fault"]: row for row in before}
    setting = circumstances("pytest", "hypothesis", "coverage")
    broken = coverage.broken()

    def judge(fault: Fault) -> None:
        row = rows[fault.name] = judged(fault, coverage, arguments.seconds, broken)
        ordered = [rows[each.name] for each in drawn if each.name in rows]
        drawn_by = {"seed": arguments.seed, "limit": arguments.seconds}
        save(result, {"circumstances": setting, **drawn_by, "faults": ordered}, arguments.out)
        print(f"{row['verdict']:11}{fault.name}  {row['by'] or ''}", flush=True)

    for fault in chosen:
        old = rows.get(fault.name)
        if old is None or (arguments.survivors and not old["by"]):
            judge(fault)

    killers = {rows[fault.name]["by"] for fault in chosen} & coverage.names()
    broken |= set(caught_by(None, [coverage.test(name) for name in sorted(killers)]))
    for fault in chosen:
        if rows[fault.name]["by"] in broken:
            judge(fault)

    found = [rows[fault.name] for fault in chosen]
    print()
    print(dict(Counter(row["verdict"] for row in found)))
    survivors = [row for row in found if row["verdict"] == "SURVIVED"]
    if survivors:
        print(table(survivors, ["fault", "line", "asked", "of"]))
        sys.exit(f"{len(survivors)} survived")


if __name__ == "__main__":
    main()
