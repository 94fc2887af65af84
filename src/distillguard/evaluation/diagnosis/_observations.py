"""What the diagnosis measured: the numbers that the rules read, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Observations:
    """Counts and averages. ``None``: could not be measured, or nobody asked.

    All counts but the first three are of ``sampled`` examples, drawn from the correct ones.
    """

    correct: int
    """Examples classified correctly before any attack."""

    saturated: int
    """Of those, the examples whose softmax gives all other classes exactly 0."""

    silent: int
    """Of those, the examples that an attack fooled on its way without returning the point."""

    mean_logit: float
    """Mean absolute logit."""

    median_margin: float
    """Median lead of the labelled logit over the best other one, of the correct examples."""

    sampled: int
    """Correct examples that the following is measured on."""

    probabilities: bool = False
    """Whether the model returned probabilities; their logarithms were then evaluated."""

    failed: Mapping[str, str] = field(default_factory=dict)
    """What the diagnosis could not measure, and why."""

    logit_gap: float | None = None
    """Largest l2 distance between normalised logits of the same input, over five passes."""

    changed: int | None = None
    """Examples whose class differed in one of the five passes."""

    batch_gap: float | None = None
    """The same distance between the logits in the one batch and in another."""

    batch_changed: int | None = None
    """Examples whose class differed between the two."""

    differentiable: bool | None = None
    """Whether autograd can trace the output back to the input."""

    zero_gradients: int | None = None
    """Examples whose input gradient of the cross-entropy is exactly 0 (or NaN) throughout."""

    zero_gradients_double: int | None = None
    """The same with the model in float64."""

    zero_gradients_scaled: int | None = None
    """The same on logits divided by their range, example by example."""

    nan_gradients: int | None = None
    """Examples whose input gradient of the cross-entropy has a NaN in it."""

    cross_entropy_survivors: int | None = None
    """Examples that withstand PGD on the cross-entropy."""

    margin_survivors: int | None = None
    """Examples that withstand PGD on the margin, with the same steps and starts."""

    only_margin: int | None = None
    """Examples that the margin fools and the cross-entropy does not."""

    only_cross_entropy: int | None = None
    """Examples that the cross-entropy fools and the margin does not."""

    blind: int | None = None
    """Examples with a cross-entropy gradient of exactly 0 that, within ``blind_within``, PGD on
    the margin fools and PGD on the cross-entropy does not."""

    blind_within: float | None = None
    """Twice the threat model's radius, or the radius itself if that would be the whole range."""

    only_one_step: int | None = None
    """Examples that one step, on either loss, fools and both PGDs do not."""

    only_iterative: int | None = None
    """Examples that either PGD fools and one step, on either loss, does not."""

    only_noise: int | None = None
    """Examples that random points of the ball fool and both PGDs do not."""

    only_black_box: int | None = None
    """Examples that a random search fools and both PGDs do not."""

    only_transfer: int | None = None
    """Examples that adversarial examples of the surrogate fool and both PGDs do not."""

    budgets: tuple[float, ...] = ()
    """Radii that PGD on the margin was given, the threat model's first, the whole range last."""

    budget_survivors: tuple[int, ...] = ()
    """Examples that withstand it at each radius."""

    budget_lost: tuple[int, ...] = ()
    """Examples fooled at each radius but the last that withstand the next one."""

    budget_won: tuple[int, ...] = ()
    """Examples that withstand each radius but the last and are fooled at the next one."""

    attack_survivors: int | None = None
    """Examples that withstand all attacks that the caller passed."""

    longer_fools: int | None = None
    """Of those, the examples that a longer PGD on the margin fools."""

    all_survivors: int | None = None
    """Examples that withstand the caller's attacks and everything that the diagnosis tried."""

    @property
    def diagnosed(self) -> bool:
        """Whether a diagnosis was asked for."""
        return True

    @property
    def n_fooled_by_diagnosis(self) -> int:
        """Examples that withstand the caller's attacks and that the diagnosis fools."""
        if self.attack_survivors is None or self.all_survivors is None:
            return 0
        return self.attack_survivors - self.all_survivors
