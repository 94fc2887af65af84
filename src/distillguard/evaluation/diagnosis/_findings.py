"""What a finding is, and the thresholds that all rules share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .._statistics import lower_bound

Severity = Literal["severe", "notice"]

RARE_SHARE = 0.01
"""A share whose exact lower bound lies above this is no accident. Undefended and adversarially
trained networks show exactly 0 zero gradients; networks distilled at T >= 10 more than 0.1
(Papernot 2016, figure 9)."""

DISAGREEMENT_SHARE = 0.02
"""The same for examples that a weaker attack finds and a stronger one misses. Any two attacks
differ on a few: small networks on digits show up to 0.02, masked ones 0.1 and more."""

MIN_COUNT = 5
"""So many of them it takes at least: few examples show nothing but that two attacks differ.
Undefended networks on 8 to 40 digits show up to 3."""

WIDE_GAP = 0.1
"""Share of the examples by which one loss must beat another. Between the cross-entropy and
the margin, robust networks show 0.02 to 0.04, distilled ones 0.25 and more."""

SIGNIFICANCE = 0.01
"""Level of the bounds, and of the paired test that a difference between two attacks must pass."""

REPEAT_GAP = 1e-4
"""Largest l2 distance between normalised logits that rounding explains (AutoAttack's flag)."""

BATCH_GAP = 0.05
"""The same between two batches, where kernels may round otherwise: a few units of bfloat16."""


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


def exceeds(count: int | None, n: int, threshold: float) -> bool:
    """Whether a share is above a threshold beyond chance; what was not measured is not."""
    return count is not None and n > 0 and lower_bound(count, n, SIGNIFICANCE) > threshold


def exceeds_disagreement(count: int | None, n: int) -> bool:
    """Whether more examples than accidents explain fell to a weaker attack alone."""
    return count is not None and count >= MIN_COUNT and exceeds(count, n, DISAGREEMENT_SHARE)


def share(count: int, n: int) -> str:
    """``"84.0 % (215 of 256)"``."""
    return f"{100 * count / n:.1f} % ({count} of {n})"
