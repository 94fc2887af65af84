"""When a share is more than an accident: the bounds that several rules share."""

from ..._clopper_pearson import lower_bound, upper_bound

RARE_SHARE = 0.01
"""A share whose exact lower bound lies above this is no accident. Undefended and adversarially
trained networks show exactly 0 zero gradients; networks distilled at T >= 10 more than 0.1
(Papernot 2016, figure 9)."""

DISAGREEMENT_SHARE = 0.02
"""The same for examples that a weaker attack finds and a stronger one misses. Any two attacks
differ on a few: small networks on digits show up to 0.02, masked ones 0.1 and more."""

REPEAT_GAP = 1e-4
"""Largest l2 distance between normalised logits that rounding explains (AutoAttack's flag)."""

BATCH_GAP = 0.05
"""The same between two batches, where kernels may round otherwise: a few units of bfloat16."""

MIN_COUNT = 5
"""Minimum count; fewer examples are within what any two attacks disagree on.
Undefended networks on 8 to 40 digits show up to 3."""

WIDE_GAP = 0.1
"""Share of the examples by which one loss must beat another. Between the cross-entropy and
the margin, robust networks show 0.02 to 0.04, distilled ones 0.25 and more."""

SIGNIFICANCE = 0.01
"""Level of the bounds, and of the paired test that a difference between two attacks must pass."""


def exceeds(count: int | None, n: int, threshold: float) -> bool:
    """Whether a share is above a threshold beyond chance; what was not measured is not."""
    return count is not None and lower_bound(count, n, SIGNIFICANCE) > threshold


def exceeds_disagreement(count: int | None, n: int) -> bool:
    """Whether more examples than accidents explain fell to a weaker attack alone."""
    return count is not None and count >= MIN_COUNT and exceeds(count, n, DISAGREEMENT_SHARE)


def share(count: int, n: int) -> str:
    """``"84.0 % (215 of 256)"``."""
    return f"{100 * count / n:.1f} % ({count} of {n})"


def falls_short(count: int, n: int, threshold: float) -> bool:
    """Whether a share is below a threshold beyond chance, and misses it by enough examples."""
    return n - count >= MIN_COUNT and upper_bound(count, n, SIGNIFICANCE) < threshold
