"""Values on the command line, refused in the words of the library."""

import argparse
from collections.abc import Callable
from fractions import Fraction


def number(text: str) -> float:
    """A number, or a fraction such as 8/255."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"must be a number or a fraction such as 8/255, got {text!r}"
        ) from None


def share(text: str) -> float:
    """A number in [0, 1]."""
    if text.endswith("%") or not 0 <= (value := number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], such as 0.45 for 45 %, got {text!r}")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def one_of(*names: str) -> Callable[[str], str]:
    """One of these words; argparse's own message differs from one Python to the next."""

    def checked(text: str) -> str:
        if text not in names:
            known = ", ".join(map(repr, names))
            raise argparse.ArgumentTypeError(f"must be one of {known}, got {text!r}")
        return text

    return checked
