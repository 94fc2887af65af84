"""Errors of foreign code: where they came from, and which of them an evaluation survives."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ..exceptions import AttackError


@contextmanager
def noted(where: str) -> Iterator[None]:
    """Add a note to whatever is raised inside, interruptions included."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"raised {where}")
        raise


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error says more about the machine than about the code that raised it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # On the CPU, PyTorch has no class for it.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def described(error: Exception) -> str:
    """``"ZeroDivisionError: division by zero"``."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def no_attack_ran(errors: Mapping[str, str]) -> AttackError:
    """What to raise where every attack raised."""
    told = "; ".join(f"{name!r} raised {error}" for name, error in errors.items())
    return AttackError(f"attacks must hold at least one that runs, got none: {told}")
