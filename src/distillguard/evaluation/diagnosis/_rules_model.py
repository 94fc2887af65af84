"""Rules about the model itself: what its outputs and gradients are like."""

from typing import NamedTuple

from .._statistics import significant_difference
from ._findings import Finding
from ._observations import Observations
from ._remedies import AVERAGED, REPLACEMENT, STRAIGHT_THROUGH
from ._thresholds import BATCH_GAP, RARE_SHARE, REPEAT_GAP, SIGNIFICANCE, exceeds, share


def zero_gradients(seen: Observations) -> Finding | None:
    """The cross-entropy is exactly flat around some of the examples (Carlini and Wagner 2016)."""
    count, nan = seen.zero_gradients, seen.nan_gradients or 0
    if count is None or not exceeds(max(count, nan), seen.sampled, RARE_SHARE):
        return None
    scaled, double = seen.zero_gradients_scaled or 0, seen.zero_gradients_double
    if nan > count / 2:
        cause = UNDEFINED
    elif scaled < count / 2:
        cause = UNDERFLOW
    else:
        cause = INNER_UNDERFLOW if double is not None and double < count / 2 else FLAT
    evidence = (
        f"the cross-entropy's input gradient is exactly 0 on {share(count, seen.sampled)}; "
        f"with the logits divided by their range on {share(scaled, seen.sampled)}"
    )
    figures = {"share": count / seen.sampled, "share_scaled": scaled / seen.sampled}
    if double is not None:
        evidence += f", with the model in float64 on {share(double, seen.sampled)}"
        figures["share_float64"] = double / seen.sampled
    if nan:
        evidence += f"; it has a NaN in it on {share(nan, seen.sampled)}"
        figures["share_nan"] = nan / seen.sampled
    return Finding("zero-gradients", "severe", evidence, cause.meaning, cause.remedy, figures)


class Cause(NamedTuple):
    """Why a gradient is lost."""

    meaning: str
    remedy: str


UNDERFLOW = Cause(
    "The gradient underflows: the logits are so far apart that the softmax is exactly one-hot. "
    "Attacks that follow the cross-entropy do not move there, however robust or fragile the "
    "network is.",
    "Quote attacks on logits (margin, DLR, Carlini-Wagner), or one whose cross-entropy cannot "
    'saturate: attacks.pgd(..., loss="rescaled_cross_entropy").',
)
INNER_UNDERFLOW = Cause(
    "The gradient underflows inside the model, before its output: in float64 it is there. A "
    "softmax or a sigmoid that is exactly 0 or 1 does that. No gradient attack moves there, "
    "however robust or fragile the network is.",
    "Remove the softmax from the model and attack its logits; where that is impossible, attack the "
    "model in float64, evaluate(model.double(), X.double(), y, ...), and add an attack without "
    "gradients.",
)
FLAT = Cause(
    "The network itself is flat around these inputs, whatever the loss: something in it "
    "quantises, thresholds or clips its input. No gradient attack moves there.",
    f"{REPLACEMENT[0].upper()}{REPLACEMENT[1:]}, and add an attack without gradients.",
)
UNDEFINED = Cause(
    "The gradient is not defined: something in the model divides 0 by 0 on its way back, such as "
    "a root or a norm at 0, or a where() over a branch that is infinite. Attacks treat NaN as 0 "
    "and do not move there.",
    "Add a small constant inside the operation, such as (x + 1e-12).sqrt() for x.sqrt(), instead "
    "of selecting after it, and add an attack without gradients.",
)


def saturated_softmax(seen: Observations) -> Finding | None:
    """The softmax is exactly one-hot, not merely rounded to 1 at the top."""
    if not exceeds(seen.saturated, seen.correct, RARE_SHARE):
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
            "Read predict_proba of this model as a class, not as a confidence; where probabilities "
            "are needed, divide the logits by the training temperature T: "
            "functional.softmax(model(X), temperature=T)."
        ),
        figures={
            "share": seen.saturated / seen.correct,
            "mean_logit": seen.mean_logit,
            "median_margin": seen.median_margin,
        },
    )


def unstable_predictions(seen: Observations) -> Finding | None:
    """The same input gives different logits (AutoAttack's flag for randomised models)."""
    n = seen.asked or 1
    if seen.logit_gap is not None and seen.changed is not None and seen.logit_gap > REPEAT_GAP:
        if seen.draws is not None and seen.draws > 1:
            return unsteady_mean(seen.logit_gap, seen.changed, n, seen.draws)
        return Finding(
            code="unstable-predictions",
            severity="severe",
            evidence=(
                f"the same input gave normalised logits up to {seen.logit_gap:.2g} apart from pass "
                f"to pass (rounding explains {REPEAT_GAP:g}); {share(seen.changed, n)} changed "
                "their class"
            ),
            meaning=(
                "The model draws random numbers. Each gradient belongs to one draw, an attack that "
                "fails may succeed on the next draw, and all accuracies here are those of one draw."
            ),
            remedy=(
                "Attack the mean over many draws (EOT) and judge each example by it, "
                f"{AVERAGED}; also report the network without its randomness. If the randomness is "
                "not intended, switch it off: look for dropout called with training=True."
            ),
            figures={"logit_gap": seen.logit_gap, "changed": seen.changed / n},
        )
    if seen.recalled and exceeds(seen.remembered, seen.recalled, RARE_SHARE):
        return remembering(seen.remembered or 0, seen.recalled)
    if seen.batch_gap is None or seen.batch_changed is None or seen.batch_gap <= BATCH_GAP:
        return None
    return Finding(
        code="unstable-predictions",
        severity="severe",
        evidence=(
            f"the same input gave normalised logits up to {seen.batch_gap:.2g} apart among other "
            f"examples (rounding explains {BATCH_GAP:g}); "
            f"{share(seen.batch_changed, n)} changed their class"
        ),
        meaning=(
            "The model's output for an example depends on the others in its batch. An attack "
            "changes all of them at once, so a point may fool the model in one batch and not in "
            "the next, and all accuracies here are those of one batch size and one order."
        ),
        remedy=(
            "Look for anything computed over the batch: BatchNorm called with training=True or "
            "without running statistics, or a mean, a norm or a rank over the first axis. Freeze "
            "it at the values of the training data."
        ),
        figures={"batch_gap": seen.batch_gap, "batch_changed": seen.batch_changed / n},
    )


def remembering(remembered: int, n: int) -> Finding:
    """A model that was asked something answers otherwise than a copy that was not."""
    return Finding(
        code="unstable-predictions",
        severity="severe",
        evidence=(
            f"near {share(remembered, n)} of the points that it had been asked about, the model "
            "answers otherwise than a copy of it that was asked nothing before"
        ),
        meaning=(
            "The model's output depends on earlier queries: it remembers or adapts to what it was "
            "asked. The clean pass and every step of an attack change the answers to the next, so "
            "attacks follow a model that they have changed. An attacker who searches on a copy "
            "asks the model itself once."
        ),
        remedy=(
            "Attack and judge copies that were asked nothing before, with a new model: "
            "evaluate(lambda x: copy.deepcopy(model)(x), X, y, ...); also report the network "
            "without its memory."
        ),
        figures={"remembered": remembered / n},
    )


def unsteady_mean(gap: float, changed: int, n: int, draws: int) -> Finding:
    """Means over few draws differ from one another, which is severe only if classes change."""
    return Finding(
        code="unstable-predictions",
        severity="severe" if exceeds(changed, n, RARE_SHARE) else "notice",
        evidence=(
            f"the same input gave normalised logits up to {gap:.2g} apart from one mean over "
            f"{draws} draws to the next; {share(changed, n)} changed their class"
        ),
        meaning=(
            f"The model draws random numbers. Outputs and gradients here are means over {draws} "
            "draws, which still differ from each other: an example near a decision boundary may be "
            "fooled for one mean and not for the next."
        ),
        remedy=(
            f"If that matters for your claim, take four times as many, draws={4 * draws}, which "
            "halves the difference; also report the network without its randomness."
        ),
        figures={"logit_gap": gap, "changed": changed / n, "draws": float(draws)},
    )


def interrupted_graph(seen: Observations) -> Finding | None:
    """Autograd cannot trace the output back to the input (Pintor 2022, indicator 1)."""
    if seen.differentiable is not False:
        return None
    if seen.stand_ins:
        return Finding(
            code="interrupted-graph",
            severity="notice",
            evidence=(
                "the model's output has no gradient with respect to its input; attacks followed "
                f"that of a surrogate ({'; '.join(seen.stand_ins)})"
            ),
            meaning=(
                "Attacks on the surrogate were judged on the model, and their result is as good as "
                "the surrogate; the other attacks, and the diagnosis, had no gradient."
            ),
            remedy=(
                "Evaluate a model with the same outputs and the gradient of the surrogate, so that "
                "all attacks and the diagnosis follow it: "
                f"evaluate({STRAIGHT_THROUGH}, X, y, ...)."
            ),
        )
    if seen.unseen:
        return Finding(
            code="interrupted-graph",
            severity="notice" if seen.attack_survivors == 0 else "severe",
            evidence=(
                "the model's output has no gradient with respect to its input, and "
                f"{', '.join(seen.unseen)} never queried it"
            ),
            meaning=(
                "No attack could follow a gradient of the model. Those that never queried it may "
                "have followed another model's, which the evaluation cannot see: their result is "
                "as good as that model."
            ),
            remedy=(
                "Let the evaluation see what is attacked: keep the outputs of the model and give "
                "the part that hides the gradient that of a replacement (BPDA), "
                f"evaluate({STRAIGHT_THROUGH}, X, y, ...)."
            ),
        )
    return Finding(
        code="interrupted-graph",
        severity="severe",
        evidence="the model's output has no gradient with respect to its input",
        meaning="No gradient attack could run, and none attacked the examples that are left.",
        remedy=(
            "Look for detach(), no_grad(), NumPy or argmax inside the model's forward and remove "
            f"it, {REPLACEMENT}, or use attacks that need no gradients, such as square."
        ),
    )


def probabilities_not_logits(seen: Observations) -> Finding | None:
    """The model ends in a softmax (AutoAttack's flag)."""
    if not seen.probabilities:
        return None
    return Finding(
        code="probabilities-not-logits",
        severity="notice",
        evidence="every row of the model's output is in [0, 1] and sums to 1",
        meaning=(
            "The model returns probabilities. Their logarithms were attacked here. An attack that "
            "treats the outputs as logits applies the softmax twice, which flattens its gradients, "
            "and where a probability is exactly 0 its logit is lost."
        ),
        remedy="Remove the final softmax and return logits.",
    )


def gradient_vanishes_at_bounds(seen: Observations) -> Finding | None:
    """Something cuts the inputs off at their own bounds, and other attacks see no slope there."""
    lost, shown = seen.lost_at_bounds, seen.at_bounds
    if lost is None or not shown or not exceeds(lost, shown, RARE_SHARE):
        return None
    return Finding(
        code="gradient-vanishes-at-bounds",
        severity="notice",
        evidence=(
            f"of the coordinates at a bound that have a gradient a hair inside, "
            f"{share(lost, shown)} have none at the bound itself"
        ),
        meaning=(
            "The model clamps its inputs, or takes a root of them. Attacks of this package compute "
            "gradients a hair inside the bounds and are not affected; those of other libraries "
            "are, and the robust accuracy that they leave is too high."
        ),
        remedy=(
            f"Remove the clamp from the model, or preserve its gradient, {STRAIGHT_THROUGH}; or "
            "give attacks of other libraries lambda x: model(x * (1 - 2e-6) + 1e-6), for bounds of "
            "0 and 1."
        ),
        figures={"share": lost / shown, "coordinates": float(shown)},
    )


CANDIDATES = 10
"""Normalisations that are tried at most: each is tested at a level divided by so many."""


def normalisation_missing(seen: Observations) -> Finding | None:
    """The network is right far more often when its inputs are on another scale."""
    n, before = seen.rescaled, seen.rescaling_before
    won, lost = seen.rescaling_won or 0, seen.rescaling_lost or 0
    if not n or before is None or seen.rescaling is None or won <= lost:
        return None
    after = before + won - lost
    if not significant_difference(won, lost, SIGNIFICANCE / CANDIDATES):
        return None
    # On another scale a network may say one class of everything, and be right that often.
    if not exceeds(after, n, (seen.rescaling_constant or 0) / n):
        return None
    mean = numbers(seen.rescaling_mean) or "mean"
    std = numbers(seen.rescaling_std) or "std"
    return Finding(
        code="normalisation-missing",
        severity="severe",
        evidence=(
            f"as they are, {share(before, n)} examples are classified correctly; normalised by "
            f"{seen.rescaling}, {share(after, n)}"
        ),
        meaning=(
            "The network was trained on inputs of another scale. All accuracies of this report, "
            "clean and robust, are those of a network that is used incorrectly."
        ),
        remedy=(
            "Put the normalisation inside the model, so that epsilon and bounds keep the units of "
            f"the inputs: evaluate(networks.Normalized(network, {mean}, {std}), X, y, ...), with "
            "the mean and standard deviation of the training data."
        ),
        figures={"before": before / n, "after": after / n},
    )


def numbers(values: tuple[float, ...]) -> str | None:
    """One number where all are the same, a few as a tuple, many not at all."""
    if len(set(values)) == 1:
        return f"{values[0]:.4g}"
    return f"({', '.join(f'{value:.4g}' for value in values)})" if len(values) <= 4 else None
