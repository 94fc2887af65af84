"""List the exercises of the course, show one, or check your answers."""

import argparse
import importlib
import runpy
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which exercise to show, or which answers to check."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("name", metavar="NAME", nargs="?", help="show its statement and stub")
    what.add_argument(
        "--check",
        metavar="FILE",
        help="a Python file, which is run: check its functions that are called as exercises are",
    )


def run(chosen: argparse.Namespace) -> int:
    """List, show or check."""
    exercises: Any = importlib.import_module("distillguard.exercises")
    tasks = exercises.tasks()
    if chosen.check is not None:
        return _check(exercises, tasks, Path(chosen.check))
    if chosen.name is None:
        width = max(map(len, tasks))
        for name, task in tasks.items():
            effort = f"{task.difficulty:<6}  {task.minutes:>3} minutes"
            print(f"chapter {task.chapter}  {name:<{width}}  {effort}")
        return 0
    if chosen.name not in tasks:
        raise ValueError(f"NAME must be one of {', '.join(tasks)}, got {chosen.name!r}")
    task = tasks[chosen.name]
    print(f"{task.name} (chapter {task.chapter}, {task.difficulty}, {task.minutes} minutes)\n")
    print(f"{task.statement.strip()}\n\n{task.stub.strip()}")
    return 0


def _check(exercises: Any, tasks: dict[str, Any], file: Path) -> int:
    """Check each function that is called as an exercise; the code is 1 if one is wrong."""
    if not file.is_file():
        raise ValueError(f"--check must be a Python file, got {str(file)!r}, which is not here")
    held = runpy.run_path(str(file))
    answers = {name: held[name] for name in tasks if callable(held.get(name))}
    if not answers:
        raise ValueError(
            f"--check must be a file with functions called as exercises are, got none in "
            f"{str(file)!r}; distillguard exercises lists them"
        )
    results = [exercises.check(name, answer) for name, answer in answers.items()]
    for result in results:
        print(result)
    print(f"\n{sum(map(bool, results))} of {len(results)} right, of {len(tasks)} exercises")
    return 0 if all(results) else 1
