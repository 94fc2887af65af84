"""All rules, applied."""

from collections.abc import Callable

from ._findings import Finding
from ._observations import Observations
from ._rules_attacks import (
    attack_fails_its_own_test,
    attack_raised,
    more_steps_help,
    outside_threat_model,
    silent_success,
)
from ._rules_comparisons import (
    margin_beats_cross_entropy,
    minimum_distance_beats_pgd,
    more_budget_does_not_help,
    one_step_beats_iterative,
    rivals,
    unbounded_attack_fails,
)
from ._rules_model import (
    gradient_vanishes_at_bounds,
    interrupted_graph,
    normalisation_missing,
    probabilities_not_logits,
    saturated_softmax,
    unstable_predictions,
    zero_gradients,
)

RULES: tuple[Callable[[Observations], Finding | None], ...] = (
    normalisation_missing,
    attack_raised,
    outside_threat_model,
    margin_beats_cross_entropy,
    interrupted_graph,
    zero_gradients,
    unstable_predictions,
    one_step_beats_iterative,
    minimum_distance_beats_pgd,
    unbounded_attack_fails,
    more_budget_does_not_help,
    more_steps_help,
    attack_fails_its_own_test,
    silent_success,
    probabilities_not_logits,
    saturated_softmax,
    gradient_vanishes_at_bounds,
)


def findings(seen: Observations) -> tuple[Finding, ...]:
    """Apply every rule, the severe findings first."""
    found = [finding for rule in RULES if (finding := rule(seen)) is not None] + rivals(seen)
    return tuple(sorted(found, key=lambda finding: finding.severity != "severe"))
