"""What the diagnosis measured: the numbers that the rules read, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from ._merging import every, first, largest, merge, merged, total, union


@dataclass(frozen=True)
class Observations:
    """Counts and averages. ``None``: could not be measured, or nobody asked.

    A measurement fills its own fields. What was measured on several groups of examples, by several
    processes say, is merged by :meth:`of`; different measurements of the same examples are joined
    by ``|``.
    """

    diagnosis: str | None = merged(first)
    """Which diagnosis was made: ``"full"``, ``"brief"``, or None."""

    norm: str | None = merged(first)
    """Norm of the threat model."""

    epsilon: float | None = merged(first)
    """Radius of the threat model."""

    masked: bool = merged(first, False)
    """Whether a mask, or bounds that are equal, exclude some coordinates from changes."""

    correct: int = merged(first, 0)
    """Examples classified correctly before any attack."""

    saturated: int = merged(first, 0)
    """Of those, the examples whose softmax gives all other classes exactly 0."""

    silent: int = merged(first, 0)
    """Of those, the examples that an attack fooled on its way without returning the point."""

    mean_logit: float = merged(first, 0.0)
    """Mean absolute logit."""

    median_margin: float = merged(first, 0.0)
    """Median lead of the labelled logit over the best other one, of the correct examples."""

    probabilities: bool = merged(first, False)
    """Whether the model returned probabilities; their logarithms were then evaluated."""

    adaptations: tuple[str, ...] = merged(first, ())
    """What the modules of the model say of how they were adapted for attacks."""

    draws: int | None = merged(first)
    """Over how many draws the answers of the model are means."""

    stand_ins: tuple[str, ...] = merged(first, ())
    """What attacks asked in place of the model, each with the attack before it."""

    unseen: tuple[str, ...] = merged(first, ())
    """Attacks that asked the model nothing, and nothing that can be seen from here."""

    raised: Mapping[str, str] = merged(union)
    """Attacks that raised an error before their end, and which."""

    strays: tuple[str, ...] = merged(first, ())
    """Attacks with a budget that returned points which do not count, by name."""

    stray_attacked: tuple[int, ...] = merged(first, ())
    """Examples that each of them attacked."""

    stray_beyond: tuple[int, ...] = merged(first, ())
    """Of those, the misclassified points within bounds that lie beyond ``epsilon``."""

    stray_illegal: tuple[int, ...] = merged(first, ())
    """Of those, the points outside the bounds or the mask, or not finite."""

    stray_distance: tuple[float, ...] = merged(first, ())
    """Median distance of the points beyond ``epsilon``, in ``norm``; 0 if there are none."""

    sampled: int = merged(first, 0)
    """Correct examples drawn for the diagnosis. The following is counted on them or on a part."""

    failed: Mapping[str, str] = merged(union)
    """What the diagnosis could not measure, and why."""

    asked: int | None = merged(total)
    """Sampled examples that the model was asked about several times."""

    logit_gap: float | None = merged(largest)
    """Largest l2 distance between normalised logits of the same input, asked again."""

    changed: int | None = merged(total)
    """Examples asked about whose class differed in one of the passes."""

    batch_gap: float | None = merged(largest)
    """The same distance between the logits in the one batch and in another."""

    batch_changed: int | None = merged(total)
    """Examples asked about whose class differed between the two."""

    remembered: int | None = merged(total)
    """Points asked about near which the model answers otherwise than a copy that was not asked."""

    recalled: int | None = merged(total)
    """Points near which both were asked, as the model had changed by then."""

    differentiable: bool | None = merged(every)
    """Whether autograd can trace the output back to the input."""

    zero_gradients: int | None = merged(total)
    """Sampled examples whose input gradient of the cross-entropy is 0 (or NaN) throughout."""

    zero_gradients_double: int | None = merged(total)
    """Of those, the examples on which it is so with the model in float64."""

    zero_gradients_scaled: int | None = merged(total)
    """Of those, the examples on which it is so on logits divided by their range."""

    nan_gradients: int | None = merged(total)
    """Sampled examples whose input gradient of the cross-entropy has a NaN in it."""

    at_bounds: int | None = merged(total)
    """Coordinates at a bound whose gradient a hair inside is visible, of a few examples."""

    lost_at_bounds: int | None = merged(total)
    """Of those, the coordinates whose gradient at the bound is 0 or not finite."""

    compared: int | None = merged(total)
    """Sampled examples on which attacks of the diagnosis are compared with each other."""

    compared_steps: int | None = merged(first)
    """Steps of the two PGDs that are compared."""

    cross_entropy_survivors: int | None = merged(total)
    """Compared examples that withstand PGD on the cross-entropy."""

    margin_survivors: int | None = merged(total)
    """Compared examples that withstand PGD on the margin, with the same steps and starts."""

    only_margin: int | None = merged(total)
    """Compared examples that the margin fools and the cross-entropy does not."""

    only_cross_entropy: int | None = merged(total)
    """Compared examples that the cross-entropy fools and the margin does not."""

    only_one_step: int | None = merged(total)
    """Compared examples that FGSM on either loss fools and PGD on both does not."""

    only_iterative: int | None = merged(total)
    """Compared examples that PGD on either loss fools and FGSM on both does not."""

    only_distance: int | None = merged(total)
    """Compared examples that ``carlini_wagner_l2`` fools within the radius, and nothing else."""

    only_noise: int | None = merged(total)
    """Compared examples that random points of the ball fool and both PGDs do not."""

    only_black_box: int | None = merged(total)
    """Compared examples that a random search fools and both PGDs do not."""

    only_transfer: int | None = merged(total)
    """Compared examples that those of the surrogate fool and both PGDs do not."""

    budgets: tuple[float, ...] = merged(first, ())
    """Radii that PGD on the margin was given, the whole range last."""

    budget_survivors: tuple[int, ...] = merged(total, ())
    """Compared examples that withstand it at each radius."""

    budget_lost: tuple[int, ...] = merged(total, ())
    """Compared examples fooled at each radius but the last that withstand the next one."""

    budget_won: tuple[int, ...] = merged(total, ())
    """Compared examples that withstand each radius but the last and are fooled at the next."""

    only_exchange: int | None = merged(total)
    """Where not all may change: those that withstand the whole range although the values of another
    example, put in where they may change, fool the model."""

    blind: int | None = merged(total)
    """Sampled examples with a cross-entropy gradient of exactly 0 that, within ``blind_within``,
    PGD on the margin fools and PGD on the cross-entropy does not."""

    blind_within: float | None = merged(first)
    """Twice the threat model's radius, or the radius itself if that would be the whole range."""

    attack_survivors: int | None = merged(total)
    """Sampled examples that withstand all attacks that the caller passed."""

    longer_steps: int | None = merged(first)
    """Most steps of the PGD on the margin that was run on them."""

    longer_fools: int | None = merged(total)
    """Of those, the examples that PGD on the margin fools, and of which no attack returned a
    misclassified point outside the threat model."""

    all_survivors: int | None = merged(total)
    """Sampled examples that withstand the caller's attacks and all that the diagnosis tried."""

    active_tested: int | None = merged(total)
    """Images that were given an adversarial example in the ball, by a new last layer."""

    active_left_out: int | None = merged(total)
    """Images for which that could not be done, or for which random points find one too."""

    active_found: int | None = merged(total)
    """Of the tested images, those whose adversarial example the caller's attacks found."""

    rescaling: str | None = merged(first)
    """The normalisation of the inputs that raises the clean accuracy most."""

    rescaling_mean: tuple[float, ...] = merged(first, ())
    """What it subtracts."""

    rescaling_std: tuple[float, ...] = merged(first, ())
    """What it divides by."""

    rescaled: int | None = merged(first)
    """Examples, drawn from all, that it was tried on."""

    rescaling_before: int | None = merged(first)
    """Of those, the examples classified correctly as they are."""

    rescaling_constant: int | None = merged(first)
    """Of those, the examples of the most frequent class."""

    rescaling_won: int | None = merged(first)
    """Of those, the examples that are wrong as they are and right when normalised."""

    rescaling_lost: int | None = merged(first)
    """Of those, the examples that are right as they are and wrong when normalised."""

    @classmethod
    def of(cls, groups: Sequence["Observations"]) -> "Observations":
        """Merge the same measurements of several groups of examples."""
        if not groups:
            return cls()
        return cls(
            **{
                entry.name: merge(entry, [getattr(group, entry.name) for group in groups])
                for entry in fields(cls)
            }
        )

    def __or__(self, other: "Observations") -> "Observations":
        """Join other measurements of the same examples."""
        nothing = Observations()
        told = {
            entry.name: value
            for entry in fields(other)
            if (value := getattr(other, entry.name)) != getattr(nothing, entry.name)
        }
        known = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return Observations(**known | told | {"failed": {**self.failed, **other.failed}})

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
