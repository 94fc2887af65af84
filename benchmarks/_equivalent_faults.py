"""Faults by rule that no test can tell from the code as it is, each with the reason."""

EQUIVALENT: dict[str, str] = {}
