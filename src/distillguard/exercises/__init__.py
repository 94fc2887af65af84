"""Exercises along the chapters of the course, with checkers that test properties.

Each task has a statement, a stub to begin with, three hints and a solution. An answer is an
ordinary function; :func:`check` says which properties it has, and for one that fails on what
input and why that matters. Nothing is stored and nothing leaves the machine.
"""

from ._judge import Progress, Result, check, hint, progress, tasks
from ._task import CHAPTERS, Failure, Task

__all__ = [
    "CHAPTERS",
    "Failure",
    "Progress",
    "Result",
    "Task",
    "check",
    "hint",
    "progress",
    "tasks",
]
