"""What a finding is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["severe", "notice"]


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the figures must know.

    Attributes
    ----------
    code : str
        What was found, such as ``"zero-gradients"``; each code has a page in the documentation.
    severity : {"severe", "notice"}
        A severe finding means that some attack failed for a reason other than robustness; it
        puts a warning into the report's headline.
    evidence : str
        What was measured, with its numbers.
    meaning : str
        What that says about the figures.
    remedy : str
        What to do.
    figures : mapping from str to float
        The measured numbers by name.
    """

    code: str
    severity: Severity
    evidence: str
    meaning: str
    remedy: str
    figures: Mapping[str, float] = field(default_factory=dict)
