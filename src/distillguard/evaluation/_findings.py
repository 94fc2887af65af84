"""The rules, each a pure function from observations to a finding; all thresholds stand here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ._diagnosis import Observations
from ._statistics import significant_difference, wilson

Severity = Literal["severe", "notice"]

RARE = 0.01
"""A share whose Wilson interval lies above this is no accident. Undefended and adversarially
trained networks show 0; networks distilled at T >= 10 more than 0.1 (Papernot 2016, figure 9)."""

WIDE_GAP = 0.1
"""Share of the examples by which one attack must beat another. Between the cross-entropy and
the margin, robust networks show 0.02 to 0.03, distilled ones 0.5 and more."""

SIGNIFICANCE = 0.01
"""Level of the paired test that a difference between two attacks must pass."""


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


Rule = Callable[[Observations], Finding | None]


def zero_gradients(seen: Observations) -> Finding | None:
    """The cross-entropy is exactly flat around some of the examples (Carlini and Wagner 2016)."""
    count = seen.zero_gradients
    if count is None or not common(count, seen.sampled):
        return None
    scaled = seen.zero_gradients_scaled or 0
    double = seen.zero_gradients_double
    underflow = scaled < count / 2
    evidence = (
        f"the cross-entropy's input gradient is exactly 0 on {share(count, seen.sampled)}; "
        f"with the logits divided by their range on {share(scaled, seen.sampled)}"
    )
    if double is not None:
        evidence += f", with the model in float64 on {share(double, seen.sampled)}"
    meaning = (
        "The gradient underflows: the logits are so far apart that the softmax is exactly "
        "one-hot. Attacks that follow the cross-entropy stand still there, whatever the network "
        "is worth."
        if underflow
        else "The network itself is flat around these inputs, whatever the loss: a quantised, "
        "thresholded or detached input. Gradient attacks of any kind stand still there."
    )
    remedy = (
        "Quote attacks on logits (margin, DLR, Carlini-Wagner), or divide the logits by the "
        "training temperature before the loss."
        if underflow
        else "Attack through a differentiable stand-in for the flat part (BPDA), and add an attack "
        "without gradients."
    )
    figures = {"share": count / seen.sampled, "share_scaled": scaled / seen.sampled}
    if double is not None:
        figures["share_float64"] = double / seen.sampled
    return Finding("zero-gradients", "severe", evidence, meaning, remedy, figures)


def saturated_softmax(seen: Observations) -> Finding | None:
    """The softmax is exactly one-hot, not merely rounded to 1 at the top."""
    if not common(seen.saturated, seen.correct):
        return None
    return Finding(
        code="saturated-softmax",
        severity="notice",
        evidence=(
            f"every other class has probability exactly 0 on {share(seen.saturated, seen.correct)};"
            f" mean absolute logit {seen.mean_logit:.4g}, median margin {seen.median_margin:.4g}"
        ),
        meaning=(
            "The logits are far larger than those of a network trained at temperature 1. "
            "Probabilities, confidences and losses computed from them carry no information."
        ),
        remedy=(
            "Read predict_proba of this model as a class, not as a confidence; divide the logits "
            "by the training temperature where probabilities are needed."
        ),
        figures={
            "share": seen.saturated / seen.correct,
            "mean_logit": seen.mean_logit,
            "median_margin": seen.median_margin,
        },
    )


def margin_beats_cross_entropy(seen: Observations) -> Finding | None:
    """The same attack succeeds far more often when it follows logits instead of probabilities."""
    if seen.cross_entropy_stands is None or seen.margin_stands is None:
        return None
    gap = (seen.cross_entropy_stands - seen.margin_stands) / seen.sampled
    if gap < WIDE_GAP or not significant_difference(
        seen.only_margin or 0, seen.only_cross_entropy or 0, SIGNIFICANCE
    ):
        return None
    return Finding(
        code="margin-beats-cross-entropy",
        severity="severe",
        evidence=(
            f"{share(seen.cross_entropy_stands, seen.sampled)} withstand PGD on the cross-entropy, "
            f"{share(seen.margin_stands, seen.sampled)} the same PGD on the margin"
        ),
        meaning=(
            "Attacks on the cross-entropy are blind on this model. A robust accuracy measured with "
            "them alone is an artefact."
        ),
        remedy=(
            "Quote the worst case over attacks on the margin, the DLR loss or distances; never the "
            "cross-entropy's figure."
        ),
        figures={
            "withstand_cross_entropy": seen.cross_entropy_stands / seen.sampled,
            "withstand_margin": seen.margin_stands / seen.sampled,
        },
    )


RULES: tuple[Rule, ...] = (margin_beats_cross_entropy, zero_gradients, saturated_softmax)


def findings(seen: Observations) -> tuple[Finding, ...]:
    """Apply every rule, the severe findings first."""
    found = [finding for rule in RULES if (finding := rule(seen)) is not None]
    return tuple(sorted(found, key=lambda finding: finding.severity != "severe"))


def common(count: int, n: int) -> bool:
    """Whether a share is above :data:`RARE` beyond chance."""
    return n > 0 and wilson(count, n)[0] > RARE


def share(count: int, n: int) -> str:
    """``"84.0 % (215 of 256)"``."""
    return f"{100 * count / n:.1f} % ({count} of {n})"
