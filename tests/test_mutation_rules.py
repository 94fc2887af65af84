"""Faults by rule are what the rules say, and those listed as equivalent are still there."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
rules = importlib.import_module("benchmarks._mutation_rules")
listed = importlib.import_module("benchmarks._equivalent_faults")

TEXT = '''"""A docstring with 1 + 1."""

TINY = 2.0


def share(values: list[int], *, least: int = 3) -> float:
    """Not 4 < 5 either."""
    if values and least <= 6:
        raise ValueError(f"least must be at most {7 - 1}, got {least}")
    values.sort(reverse=True)
    with lock():
        return -max(values).clamp(min=TINY) / len(values)
'''
EXCHANGES = [
    ("arithmetic", "/", "*"),
    ("bound", "max(values).clamp(min=TINY)", "max(values)"),
    ("call", "values.sort(reverse=True)", "pass"),
    ("comparison", "<=", "<"),
    ("constant", "2.0", "1.0"),
    ("constant", "2.0", "4.0"),
    ("constant", "3", "2"),
    ("constant", "3", "4"),
    ("constant", "6", "5"),
    ("constant", "6", "7"),
    ("constant", "True", "False"),
    ("context", "with lock()", "if True"),
    ("ending", 'raise ValueError(f"least must be at most {7 - 1}, got {least}")', "pass"),
    ("junction", "and", "or"),
    ("keyword", "min=TINY", ""),
    ("keyword", "reverse=True", ""),
    ("negation", "values and least <= 6", "(not (values and least <= 6))"),
    ("reduction", "max", "min"),
    ("sign", "-max(values).clamp(min=TINY)", "max(values).clamp(min=TINY)"),
]


def test_a_small_file_has_the_faults_that_one_counts_by_hand():
    found = rules.faults_in(rules.Source("small.py", TEXT))
    assert sorted((fault.rule, fault.old, fault.new) for fault in found) == EXCHANGES


def test_a_fault_exchanges_its_text_and_nothing_else(tmp_path):
    source = rules.Source("small.py", TEXT)
    (fault,) = (each for each in rules.faults_in(source) if each.rule == "junction")
    (tmp_path / "small.py").write_text(TEXT)
    fault.apply(tmp_path)
    assert (tmp_path / "small.py").read_text() == TEXT.replace("values and", "values or")


def test_what_is_no_python_afterwards_is_left_out():
    source = rules.Source("small.py", "def f():\n    return g(a=1, b=2)\n")
    found = [each for each in rules.faults_in(source) if each.rule == "keyword"]
    assert all(rules.compiles(each, source) for each in found)
    broken = found[0]._replace(new="(")
    assert not rules.compiles(broken, source)
    assert not rules.compiles(broken._replace(new=broken.old), source)


@pytest.mark.parametrize("name", listed.EQUIVALENT)
def test_a_fault_listed_as_equivalent_is_one_that_the_rules_still_make(name):
    source = rules.source_of(name.split(" ")[0])
    assert name in {fault.name for fault in rules.faults_in(source)}
