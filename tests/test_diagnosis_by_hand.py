"""Measurements of the diagnosis and their findings, on figures worked out by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from conftest import deaf
from distillguard._geometry import lp_norm
from distillguard._random import example_keys
from distillguard.attacks._checks import ModelFacts
from distillguard.evaluation import Observations
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._query import QueryCounter
from distillguard.evaluation.diagnosis import _active
from distillguard.evaluation.diagnosis._active import (
    OUTER,
    Group,
    Readout,
    Rewired,
    active_test,
    fitted,
    hits,
    points,
    prepared,
    stacked,
)
from distillguard.evaluation.diagnosis._gradients import at_bounds, by_range, gradients
from distillguard.evaluation.diagnosis._merging import every, first, largest, total, union
from distillguard.evaluation.diagnosis._rescaling import rescaling, scales
from distillguard.evaluation.diagnosis._rules import findings
from distillguard.evaluation.diagnosis._rules_model import numbers
from distillguard.evaluation.diagnosis._stability import (
    batch_dependence,
    random_values,
    randomness,
)
from distillguard.exceptions import NoGradientError

# Findings: what is counted is divided by what it was counted on.

ZERO = {"sampled": 200, "zero_gradients": 40, "zero_gradients_scaled": 30}
OUTSIDE = {"strays": ("a",), "stray_attacked": (50,), "norm": "l2", "epsilon": 0.25}
SCALE = {
    "rescaled": 100, "rescaling_before": 30, "rescaling_won": 50, "rescaling_lost": 2,
    "rescaling_constant": 20, "rescaling": "x / 255",
}  # fmt: skip
LOSSES = {
    "compared": 100, "sampled": 200, "cross_entropy_survivors": 60, "margin_survivors": 40,
    "only_margin": 25, "only_cross_entropy": 5,
}  # fmt: skip
BUDGET = {"compared": 100, "budgets": (0.1, 0.25), "budget_survivors": (30, 30)}
MASKED = {"compared": 100, "budgets": (2.0,), "budget_survivors": (90,), "masked": True}
RIVAL = {"compared": 100, "norm": "linf"}
UNSTABLE = {"asked": 50, "logit_gap": 0.5, "changed": 5}
TESTED = {"active_tested": 20, "active_found": 5, "norm": "linf", "epsilon": 0.1}


@pytest.mark.parametrize(
    ("seen", "code", "severity", "figures", "words"),
    [
        (
            ZERO,
            "zero-gradients",
            "severe",
            {"share": 0.2, "share_scaled": 0.15},
            "exactly 0 on 20.0 % (40 of 200); with the logits divided by their range on 15.0 % (30 "
            "of 200)",
        ),
        (
            ZERO | {"zero_gradients_double": 10, "nan_gradients": 8},
            "zero-gradients",
            "severe",
            {"share": 0.2, "share_scaled": 0.15, "share_float64": 0.05, "share_nan": 0.04},
            ", with the model in float64 on 5.0 % (10 of 200); it has a NaN in it on 4.0 % (8 of",
        ),
        (
            {"sampled": 200, "zero_gradients": 0, "nan_gradients": 20},
            "zero-gradients",
            "severe",
            {"share": 0, "share_scaled": 0, "share_nan": 0.1},
            "it has a NaN in it on 10.0 % (20 of 200)",
        ),
        (
            {"saturated": 50, "correct": 250, "mean_logit": 1234.56, "median_margin": 98.765},
            "saturated-softmax",
            "notice",
            {"share": 0.2, "mean_logit": 1234.56, "median_margin": 98.765},
            "exactly 0 on 20.0 % (50 of 250); mean absolute logit 1235, median margin 98.77",
        ),
        (
            UNSTABLE,
            "unstable-predictions",
            "severe",
            {"logit_gap": 0.5, "changed": 0.1},
            "up to 0.5 apart from pass to pass (rounding explains 0.0001); 10.0 % (5 of 50) ch",
        ),
        (
            UNSTABLE | {"draws": 1},
            "unstable-predictions",
            "severe",
            {"logit_gap": 0.5, "changed": 0.1},
            "from pass to pass",
        ),
        (
            UNSTABLE | {"draws": 2},
            "unstable-predictions",
            "severe",
            {"logit_gap": 0.5, "changed": 0.1, "draws": 2.0},
            "from one mean over 2 draws to the next; 10.0 % (5 of 50) changed their class",
        ),
        (
            {"recalled": 40, "remembered": 20},
            "unstable-predictions",
            "severe",
            {"remembered": 0.5},
            "near 50.0 % (20 of 40) of the points",
        ),
        (
            {"asked": 50, "batch_gap": 0.5, "batch_changed": 5},
            "unstable-predictions",
            "severe",
            {"batch_gap": 0.5, "batch_changed": 0.1},
            "0.5 apart among other examples (rounding explains 0.05); 10.0 % (5 of 50) changed",
        ),
        ({"differentiable": False}, "interrupted-graph", "severe", {}, "no gradient with respect"),
        (
            {"differentiable": False, "stand_ins": ("a: b", "c: d")},
            "interrupted-graph",
            "notice",
            {},
            "followed that of a surrogate (a: b; c: d)",
        ),
        *(
            (
                {"differentiable": False, "unseen": ("a", "b"), "attack_survivors": left},
                "interrupted-graph",
                severity,
                {},
                "a, b never queried it",
            )
            for left, severity in ((0, "notice"), (1, "severe"), (None, "severe"))
        ),
        ({"probabilities": True}, "probabilities-not-logits", "notice", {}, "sums to 1"),
        (
            {"lost_at_bounds": 30, "at_bounds": 60},
            "gradient-vanishes-at-bounds",
            "notice",
            {"share": 0.5, "coordinates": 60.0},
            "50.0 % (30 of 60) have none at the bound",
        ),
        (
            SCALE,
            "normalisation-missing",
            "severe",
            {"before": 0.3, "after": 0.78},
            "as they are, 30.0 % (30 of 100) examples are classified correctly; normalised by x / "
            "255, 78.0 % (78 of 100)",
        ),
        (
            LOSSES,
            "margin-beats-cross-entropy",
            "severe",
            {"withstand_cross_entropy": 0.6, "withstand_margin": 0.4, "blind": 0},
            "60.0 % (60 of 100) withstand PGD on the cross-entropy, 40.0 % (40 of 100) the same",
        ),
        (
            LOSSES | {"margin_survivors": 59, "blind": 20, "blind_within": 0.2},
            "margin-beats-cross-entropy",
            "severe",
            {"withstand_cross_entropy": 0.6, "withstand_margin": 0.59, "blind": 0.1},
            "within a radius of 0.2, 10.0 % (20 of 200) have a cross-entropy gradient of exactly 0",
        ),
        (
            {"compared": 100, "only_one_step": 40, "only_iterative": 5},
            "one-step-beats-iterative",
            "severe",
            {"only_one_step": 0.4},
            "FGSM fools 40.0 % (40 of 100) that PGD on the cross-entropy and on the margin both "
            "miss; PGD fools 5.0 % (5 of 100) that FGSM misses",
        ),
        (
            {"compared": 100, "only_one_step": 40},
            "one-step-beats-iterative",
            "severe",
            {"only_one_step": 0.4},
            "PGD fools 0.0 % (0 of 100) that FGSM misses",
        ),
        *(
            (
                {"compared": 50, "only_distance": 10, "epsilon": 0.5, "diagnosis": kind},
                "minimum-distance-beats-pgd",
                "severe",
                {"share": 0.2},
                f"fools 20.0 % (10 of 50) within epsilon that {missed}",
            )
            for kind, missed in (
                ("full", "the attacks passed and PGD on both losses miss"),
                ("brief", "the attacks passed miss"),
            )
        ),
        (
            RIVAL | {"only_noise": 10},
            "noise-beats-gradient",
            "severe",
            {"share": 0.1},
            "random points of the ball fool 10.0 % (10 of 100) that PGD on the cross-entropy and",
        ),
        (
            RIVAL | {"only_black_box": 20, "diagnosis": "brief"},
            "black-box-beats-white-box",
            "severe",
            {"share": 0.2},
            "a random search (Square) fools 20.0 % (20 of 100) that all attacks on the gradient",
        ),
        (
            RIVAL | {"only_black_box": 20, "norm": "l0", "differentiable": False},
            "black-box-beats-white-box",
            "severe",
            {"share": 0.2},
            "a random search (Sparse-RS) fools 20.0 % (20 of 100) where no gradient attack could",
        ),
        *(
            (
                RIVAL | {"only_transfer": 30, "differentiable": False} | elsewhere,
                "transfer-beats-white-box",
                "severe",
                {"share": 0.3},
                "of the surrogate fool 30.0 % (30 of 100) that the attacks passed miss, where the",
            )
            for elsewhere in ({"stand_ins": ("a: b",)}, {"unseen": ("a",)})
        ),
        (
            BUDGET | {"budget_lost": (0,), "budget_won": (0,)},
            "more-budget-does-not-help",
            "severe",
            {"withstand_0": 0.3, "withstand_1": 0.3},
            "PGD on the margin leaves 30.0 % (30 of 100) at 0.1, 30.0 % (30 of 100) at 0.25",
        ),
        (
            BUDGET | {"budget_lost": (0,), "budget_won": (0,)},
            "unbounded-attack-fails",
            "severe",
            {"share": 0.3},
            "30.0 % (30 of 100) withstand PGD on the margin although it may change every input "
            "arbitrarily within the bounds (radius 0.25)",
        ),
        (
            MASKED | {"only_exchange": 10},
            "unbounded-attack-fails",
            "severe",
            {"share": 0.1},
            "10.0 % (10 of 100) withstand PGD on the margin although it may change all that may "
            "change arbitrarily within the bounds (radius 2), and the values of another example",
        ),
        (
            {"raised": {"a": "OSError: b", "c": "d", "e": "f"}},
            "attack-raised",
            "severe",
            {"attacks": 3},
            "the attack 'a' stopped with an error, OSError: b; so did 'c', 'e'",
        ),
        (
            {"sampled": 100, "attack_survivors": 40, "longer_fools": 20, "longer_steps": 100},
            "more-steps-help",
            "severe",
            {"withstand": 0.4, "share": 0.2},
            "of 40.0 % (40 of 100) that withstand the attacks passed, a PGD of 100 steps on the "
            "margin fools 20",
        ),
        (
            {"silent": 20, "correct": 80},
            "silent-success",
            "severe",
            {"share": 0.25},
            "on 25.0 % (20 of 80) an attack showed",
        ),
        (
            OUTSIDE | {"stray_beyond": (10,), "stray_illegal": (5,), "stray_distance": (0.5,)},
            "outside-threat-model",
            "severe",
            {"share": 0.3, "median_distance": 0.5},
            "a returned 20.0 % (10 of 50) misclassified points beyond epsilon=0.25, at a median "
            "distance of 0.5 in l2 and 10.0 % (5 of 50) points outside the bounds",
        ),
        (
            OUTSIDE | {"stray_beyond": (0,), "stray_illegal": (10,), "stray_distance": (0.0,)},
            "outside-threat-model",
            "severe",
            {"share": 0.2, "median_distance": 0},
            "a returned 20.0 % (10 of 50) points outside the bounds",
        ),
        (
            TESTED | {"active_left_out": 3},
            "attack-fails-its-own-test",
            "severe",
            {"share": 0.25, "tested": 20.0},
            "25.0 % (5 of 20) images (3 more could not be tested)",
        ),
        (
            TESTED,
            "attack-fails-its-own-test",
            "severe",
            {"share": 0.25, "tested": 20.0},
            "(0 more could not be tested)",
        ),
    ],
)
def test_a_finding_gives_the_shares_that_were_counted(seen, code, severity, figures, words):
    found = {finding.code: finding for finding in findings(Observations(**seen))}
    finding = found[code]
    assert finding.severity == severity
    assert finding.figures == pytest.approx(figures)
    assert words in finding.evidence
    order = [each.severity for each in findings(Observations(**seen))]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        # Not measured, nothing lost, or no more than accidents.
        ({"sampled": 200, "nan_gradients": 100}, "zero-gradients"),
        ({"differentiable": None}, "interrupted-graph"),
        ({"differentiable": True, "unseen": ("a",)}, "interrupted-graph"),
        ({"lost_at_bounds": 0, "at_bounds": 0}, "gradient-vanishes-at-bounds"),
        ({"lost_at_bounds": None, "at_bounds": 60}, "gradient-vanishes-at-bounds"),
        ({"logit_gap": 0.5}, "unstable-predictions"),
        ({"changed": 5, "asked": 50}, "unstable-predictions"),
        ({"batch_gap": 0.5}, "unstable-predictions"),
        ({"recalled": 0, "remembered": 0}, "unstable-predictions"),
        (SCALE | {"rescaling": None}, "normalisation-missing"),
        (SCALE | {"rescaling_before": None}, "normalisation-missing"),
        (SCALE | {"rescaled": 0}, "normalisation-missing"),
        (SCALE | {"rescaling_won": 2, "rescaling_lost": 50}, "normalisation-missing"),
        # One class of everything is right as often.
        (SCALE | {"rescaling_constant": 78}, "normalisation-missing"),
        (LOSSES | {"compared": 0}, "margin-beats-cross-entropy"),
        (LOSSES | {"cross_entropy_survivors": None}, "margin-beats-cross-entropy"),
        (LOSSES | {"margin_survivors": None}, "margin-beats-cross-entropy"),
        ({"raised": {"a": "b"}, "differentiable": False}, "attack-raised"),
        ({"sampled": 100, "longer_fools": 20}, "more-steps-help"),
        ({"sampled": 100, "attack_survivors": 20}, "more-steps-help"),
        ({"active_found": 5}, "attack-fails-its-own-test"),
        ({"active_tested": 20}, "attack-fails-its-own-test"),
        # In a mask as many may withstand whatever is done, if no exchange fools the model.
        (MASKED | {"only_exchange": 0}, "unbounded-attack-fails"),
        (MASKED, "unbounded-attack-fails"),
        (
            BUDGET | {"masked": True, "budget_lost": (0,), "budget_won": (0,)},
            "more-budget-does-not-help",
        ),
    ],
)
def test_what_was_not_measured_or_proves_nothing_is_no_finding(seen, code):
    assert code not in {finding.code for finding in findings(Observations(**seen))}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.5, 0.5), "0.5"),
        ((0.5,), "0.5"),
        ((1 / 3, 0.25), "(0.3333, 0.25)"),
        ((1, 2, 3, 4), "(1, 2, 3, 4)"),
        ((1, 2, 3, 4, 5), None),
    ],
)
def test_a_few_numbers_are_written_out_and_equal_ones_once(values, text):
    assert numbers(values) == text
    (found,) = findings(Observations(**SCALE, rescaling_mean=values, rescaling_std=(2.0,)))
    assert f"networks.Normalized(network, {text or 'mean'}, 2), X" in found.remedy


@pytest.mark.parametrize(
    ("how", "values", "merged"),
    [
        (total, [3, 4], 7),
        (total, [(1, 2), (3, 4)], (4, 6)),
        (largest, [0.25, 0.5, 0.125], 0.5),
        (every, [True, True], True),
        (every, [True, False], False),
        (first, [None, (), 0, 5], 0),
        (first, [None, None], None),
        (first, [(), ()], ()),
        (union, [{"a": "x"}, {"a": "y", "b": "z"}], {"a": "y", "b": "z"}),
    ],
)
def test_values_of_groups_become_one(how, values, merged):
    assert how(values) == merged


def test_what_one_group_did_not_measure_is_not_known_of_all():
    one = {"changed": 1, "logit_gap": 0.5, "differentiable": True, "budget_survivors": (1,)}
    for missing in ("changed", "logit_gap", "differentiable"):
        for groups in ([one, one | {missing: None}], [one | {missing: None}, one]):
            seen = Observations.of([Observations(**each) for each in groups])
            assert getattr(seen, missing) is None
    seen = Observations.of([Observations(**one), Observations(**one | {"budget_survivors": ()})])
    assert (seen.changed, seen.budget_survivors) == (2, ())


def test_an_entry_that_says_nothing_joins_without_a_trace():
    known = Observations(asked=4, changed=2, failed={"a": "x"})
    assert known | Observations() == known
    assert (known | Observations(asked=0)).asked == 0
    assert Observations().n_fooled_by_diagnosis == 0
    assert Observations(attack_survivors=5, all_survivors=2).n_fooled_by_diagnosis == 3
    assert Observations(attack_survivors=5).n_fooled_by_diagnosis == 0
    assert Observations(all_survivors=5).n_fooled_by_diagnosis == 0


# What the model is asked.


class Told(nn.Module):
    """Answers as it is told, by the number of the question."""

    def __init__(self, *answers):
        super().__init__()
        self.answers, self.asked = [torch.tensor(answer) for answer in answers], []

    def forward(self, inputs):
        self.asked.append(inputs.clone())
        return self.answers[min(len(self.asked), len(self.answers)) - 1][: len(inputs)]


def probed(model, inputs, batch_size=8, bounds=(0.0, 1.0), mask=None, labels=None, **more):
    """As much of a probe as a measurement asks for."""
    run = SimpleNamespace(model=QueryCounter(model), batch_size=batch_size, seed=3)
    labels = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else labels
    return SimpleNamespace(
        run=run,
        inputs=inputs,
        labels=labels,
        threat=ThreatModel("linf", 0.1, bounds, mask),
        flat=torch.zeros(len(inputs), dtype=torch.bool),
        **more,
    )


FIRST = [[3.0, 4.0], [1.0, 0.0], [-5.0, 0.0]]
TURNED = [[4.0, 3.0], [0.0, 2.0], [-5.0, 0.0]]


def test_the_same_question_is_asked_so_often_and_the_widest_gap_counts():
    # (3, 4) and (4, 3) are 0.2 ** 2 / 5 apart in square, (1, 0) and (0, 1) the root of 2.
    for answers, gap, changed in (
        ([FIRST, FIRST, FIRST], 0.0, 0),
        ([FIRST, FIRST, TURNED], 2**0.5, 2),
        ([FIRST, TURNED, FIRST], 2**0.5, 2),
        ([FIRST, [FIRST[0], FIRST[1], [-1.0, 0.0]], FIRST], 0.0, 0),
        ([FIRST, [TURNED[0], FIRST[1], FIRST[2]], FIRST], 0.08**0.5, 1),
    ):
        model = Told(*answers)
        probe = probed(model, torch.rand(4, 2))
        chosen = torch.tensor([True, False, True, True])
        seen = randomness(probe, chosen, passes=3)
        assert (seen.asked, seen.changed) == (3, changed)
        assert seen.logit_gap == pytest.approx(gap, abs=1e-6)
        assert [len(asked) for asked in model.asked] == [3, 3, 3]
        assert all(asked.equal(probe.inputs[chosen]) for asked in model.asked)


def test_the_other_batch_is_the_reverse_of_the_first_with_mirror_images_between():
    inputs = torch.tensor([[0.125, 0.5], [0.25, 0.75], [0.5, 1.0]])
    mask = torch.tensor([[True, False]])
    model = Told(FIRST[:2], [[0.0, 1.0], [9.0, 9.0], [4.0, 3.0], [9.0, 9.0]])
    seen = batch_dependence(
        probed(model, inputs, bounds=(0.0, 2.0), mask=mask), torch.tensor([True, True, False])
    )
    first, other = model.asked
    assert first.tolist() == inputs[:2].tolist()
    # Of bounds of 0 and 2 the mirror image of 0.25 is 1.75; what may not change stays.
    assert other.tolist() == [[0.25, 0.75], [1.75, 0.75], [0.125, 0.5], [1.875, 0.5]]
    assert (seen.batch_changed, seen.batch_gap) == (2, pytest.approx(2**0.5))


@pytest.mark.parametrize(("batch_size", "asked"), [(1, [2, 1, 2, 2, 2]), (8, [3, 6])])
def test_batches_of_one_are_asked_about_two_at_once(batch_size, asked):
    model = Told([[0.0, 1.0]] * 6)
    probe = probed(model, torch.rand(3, 2), batch_size=batch_size)
    batch_dependence(probe, torch.ones(3, dtype=torch.bool))
    assert [len(each) for each in model.asked] == asked


def test_points_of_the_box_lie_anywhere_in_it_and_differ():
    inputs = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
    threat = ThreatModel("linf", 0.1, (-1.0, 3.0), torch.tensor([[True, True, False]]))
    drawn = random_values(inputs, threat, 5)
    assert drawn.shape == inputs.shape
    assert drawn[:, 2].equal(inputs[:, 2])
    free = drawn[:, :2]
    assert -1 <= free.min() < -0.9
    assert 2.9 < free.max() <= 3
    # Uniform: of mean 1 and variance 16 / 12, to four standard errors.
    assert free.mean().item() == pytest.approx(1.0, abs=4 * (16 / 12 / 600) ** 0.5)
    assert free.var().item() == pytest.approx(16 / 12, abs=0.2)
    assert not free[:, 0].equal(free[:, 1])
    assert random_values(inputs, threat, 5).equal(drawn)
    assert not random_values(inputs, threat, 6).equal(drawn)


class Slopes(nn.Module):
    """Two logits that are as far apart as the first value says times the second."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        lead = self.weight * inputs[:, 0].detach() * inputs[:, 1]
        nothing = inputs[:, 2]
        broken = torch.where(nothing == 0, 0 * nothing.sqrt(), 0)
        return torch.stack([lead + broken, -lead], dim=1)


ROWS = [
    [1.0, 0.5, 1.0],  # a slope
    # The softmax of 100 against -100 is 1 in single precision; its slope is 0, in double it is not.
    [100.0, 1.0, 1.0],
    [1e4, 1.0, 1.0],  # nor in double
    [0.0, 1.0, 1.0],  # flat at any scale
    [1.0, 0.5, 0.0],  # a NaN in one coordinate
]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_lost_gradients_are_counted_with_what_brings_them_back(batch_size):
    inputs = torch.tensor(ROWS)
    probe = probed(Slopes(), inputs, batch_size, bounds=(-1.0, 1e5))
    seen = gradients(probe, torch.ones(5, dtype=torch.bool))
    assert seen.differentiable is True
    assert (seen.zero_gradients, seen.nan_gradients) == (3, 1)
    assert probe.flat.tolist() == [False, True, True, True, False]
    # Divided by their range the second and the third are there again, in float64 the second.
    assert (seen.zero_gradients_scaled, seen.zero_gradients_double) == (1, 2)

    probe = probed(Slopes(), inputs, batch_size, bounds=(-1.0, 1e5))
    seen = gradients(probe, torch.tensor([True, False, False, False, True]))
    assert (seen.zero_gradients, seen.nan_gradients) == (0, 1)
    assert (seen.zero_gradients_scaled, seen.zero_gradients_double) == (0, 0)
    seen = gradients(probe, torch.tensor([False, False, True, False, False]))
    assert probe.flat.tolist() == [False, False, True, False, False]


def test_a_function_has_no_form_in_double():
    model = Slopes()
    probe = probed(lambda x: model(x), torch.tensor(ROWS), bounds=(-1.0, 1e5))
    seen = gradients(probe, torch.ones(5, dtype=torch.bool))
    assert (seen.zero_gradients, seen.zero_gradients_scaled) == (3, 1)
    assert seen.zero_gradients_double is None


@pytest.mark.parametrize("detached", [True, False])
def test_a_graph_that_does_not_reach_the_input_is_interrupted(detached):
    weight = nn.Parameter(torch.ones(2))

    def model(inputs):
        logits = inputs.detach() * weight
        return logits.detach() if detached else logits

    probe = probed(model, torch.rand(3, 2))
    assert gradients(probe, torch.ones(3, dtype=torch.bool)) == Observations(differentiable=False)
    assert not probe.flat.any()


def test_logits_divided_by_their_range_are_one_apart_and_constant_ones_stay():
    logits = torch.tensor([[4.0, 2.0, 0.0], [3.0, 3.0, 3.0], [0.5, 0.0, -1e9]])
    scaled = by_range(logits)
    assert scaled[0].tolist() == [1.0, 0.5, 0.0]
    assert scaled[1].tolist() == [3.0, 3.0, 3.0]
    # What stands for no class is no part of the range.
    assert scaled[2, :2].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("hair", [torch.float32, None])
def test_coordinates_at_a_bound_are_counted_where_a_slope_is_there_and_lost(hair):
    # Free are all but the last; the slope of the fourth is less than a thousandth of the first's.
    weight = torch.tensor([2.0, -1.0, 1.0, 1e-3, 1.0])
    mask = torch.tensor([[True, True, True, True, False]])
    inputs = torch.tensor([[0.0, 1.0, 0.5, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5, 1.0], [0.0] * 5])

    def model(function):
        def answers(x):
            lead = (function(x) * weight).sum(dim=1)
            return torch.stack([lead, -lead], dim=1)

        return answers

    # The slope of a root is infinite at 0, and a hair inside it outweighs the one at 1.
    for function, shown, lost in (
        (deaf, 2, 2),
        (lambda x: x, 2, 0),
        (torch.sqrt, 1, 1),
        (lambda x: 0 * x, 0, 0),
        # Undefined in the first coordinate, a hair inside as well: nothing is lost there.
        (lambda x: torch.cat([(-1 - x[:, :1]).sqrt(), deaf(x[:, 1:])], dim=1), 1, 1),
    ):
        probe = probed(model(function), inputs, mask=mask)
        probe.run.model.facts = ModelFacts(hair=hair)
        seen = at_bounds(probe, torch.tensor([True, True, False]))
        assert (seen.at_bounds, seen.lost_at_bounds) == ((shown, lost) if hair else (0, 0))
    probe.run.model.facts = None
    assert at_bounds(probe, torch.ones(3, dtype=torch.bool)).at_bounds == 0


# Other scales of the inputs.


class Above(nn.Module):
    """Class 1 above a threshold, and a class 2 that is never said; may reject."""

    def __init__(self, threshold, rejects=False):
        super().__init__()
        self.threshold, self.rejects, self.asked = threshold, rejects, []

    def forward(self, inputs):
        self.asked.append(len(inputs))
        lead = inputs[:, 0] - self.threshold
        return torch.stack([-lead, lead, -lead.abs() - 1], dim=1)


def scaled_run(values, labels, predicted=None, level=(), drawn=None, rejects=False):
    """A run of a network that waits for values up to 255 and was given shares of that."""
    n = len(values)
    labels = torch.tensor(labels)
    margin = torch.ones(n, dtype=torch.float64)
    margin[list(level)] = 0
    predicted = torch.zeros_like(labels) if predicted is None else torch.tensor(predicted)
    index = torch.arange(n) if drawn is None else torch.tensor(drawn)
    inputs = torch.tensor(values)[:, None]
    records = SimpleNamespace(
        columns={"predicted": predicted, "label": labels, "margin": margin},
        drawn={"inputs": inputs[index], "labels": labels[index], "index": index},
    )
    return SimpleNamespace(model=QueryCounter(Above(100.0, rejects)), records=records, batch_size=5)


HIGH, LOW = [0.75] * 10, [0.25] * 10


def test_a_scale_is_told_with_what_it_wins_and_loses():
    # All are called 0; times 255 the ten high ones are called 1, which is right for nine of them.
    seen = rescaling(scaled_run(HIGH + LOW, [1] * 9 + [0] * 11))
    assert (seen.rescaling, seen.rescaled) == ("x * 255", 20)
    assert (seen.rescaling_before, seen.rescaling_won, seen.rescaling_lost) == (11, 9, 1)
    assert seen.rescaling_constant == 11
    assert seen.rescaling_mean == (0.0,)
    assert seen.rescaling_std == pytest.approx((1 / 255,))


@pytest.mark.parametrize(("won", "told"), [(7, None), (8, "x * 255")])
def test_fewer_than_eight_examples_put_right_are_none(won, told):
    seen = rescaling(scaled_run(HIGH + LOW, [1] * won + [0] * (20 - won)))
    assert (seen.rescaling, seen.rescaled, seen.rescaling_before) == (told, 20, 20 - won)
    assert (seen.rescaling_won, seen.rescaling_lost) == ((won, 10 - won) if told else (0, 0))


@pytest.mark.parametrize(("right", "asked"), [(17, True), (18, False)])
def test_nine_of_ten_that_are_right_need_no_other_scale(right, asked):
    run = scaled_run(HIGH + LOW, [1] * (20 - right) + [0] * right)
    assert (rescaling(run).rescaled is not None) is asked
    assert bool(run.model.model.asked) is asked


def test_a_model_that_rejects_is_asked_on_no_other_scale():
    run = scaled_run(HIGH + LOW, [1] * 10 + [0] * 10, rejects=True)
    assert rescaling(run) == Observations()
    assert run.model.model.asked == []


def test_examples_on_which_all_classes_are_level_are_not_put_right():
    labels = [1] * 10 + [0] * 10
    assert rescaling(scaled_run(HIGH + LOW, labels, level=[0])).rescaling_won == 9
    assert rescaling(scaled_run(HIGH + LOW, labels, level=[0, 1, 2])).rescaling is None


def test_the_examples_that_were_drawn_are_looked_up_by_their_places():
    # Of the first two, which are not drawn, one would be put right.
    drawn = list(range(19, 1, -1))
    seen = rescaling(scaled_run(HIGH + LOW, [1, 0] + [1] * 8 + [0] * 10, drawn=drawn))
    assert (seen.rescaled, seen.rescaling_before, seen.rescaling_won) == (18, 10, 8)


def test_of_all_scales_the_one_that_wins_most_is_told():
    # Times 255 all but the last are above 100; with the own mean, -1 of them all are below.
    run = scaled_run([0.75] * 12 + [0.25] * 8, [1] * 12 + [0] * 8)
    told = {scale.name: scale for scale in scales(run.records.drawn["inputs"])}
    assert list(told)[:3] == ["x * 255", "x / 255", "(x - 0.5) / 0.5"]
    assert len(told) == 4
    assert rescaling(run).rescaling == "x * 255"
    run.model.model.threshold = -0.25  # all of them are above it as they are
    run.records.columns["predicted"] = torch.ones(20, dtype=torch.int64)
    # Half of the range from the middle: 0.25 becomes -0.5, and 0.75 stays above.
    seen = rescaling(run)
    assert (seen.rescaling, seen.rescaling_won, seen.rescaling_lost) == (list(told)[2], 8, 0)


@pytest.mark.parametrize(
    ("name", "channels", "of_half"),
    [
        ("x * 255", 1, [127.5]),
        ("x / 255", 1, [0.5 / 255]),
        ("(x - 0.5) / 0.5", 1, [0.0]),
        # (0.5 - mean) / std, channel by channel, of the figures that everybody uses.
        ("ImageNet", 3, [0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225]),
        ("CIFAR-10", 3, [0.0086 / 0.2470, 0.0178 / 0.2435, 0.0535 / 0.2616]),
        ("CIFAR-100", 3, [-0.0071 / 0.2673, 0.0135 / 0.2564, 0.0591 / 0.2762]),
        ("MNIST", 1, [0.3693 / 0.3081]),
        ("Fashion-MNIST", 1, [0.2140 / 0.3530]),
    ],
)
def test_the_customary_scales_are_those_of_their_data_sets(name, channels, of_half):
    (scale,) = (each for each in scales(torch.rand(4, channels, 2, 2)) if each.name == name)
    values = scale(torch.full((2, channels, 3, 3), 0.5))
    assert values.shape == (2, channels, 3, 3)
    for channel, value in enumerate(of_half):
        assert values[:, channel].flatten().tolist() == pytest.approx([value] * 18, abs=1e-6)


# Images with an adversarial example by construction.

OWN = torch.tensor([3.0, 1.0, 0.0])


def test_a_readout_keeps_the_lead_of_the_image_and_crosses_near_the_edge():
    # The image at 0, what is near it from -0.1 to 0.1, the point on the edge at 1.
    features = torch.tensor([[0.0], [0.1], [-0.1], [1.0]])
    readout = fitted(features, OWN, 0)
    lead = features[:, 0] * readout.weight + readout.offset
    # Zero at 80 % of the way from 0.1 to 1, and the image's own lead of 3 - 1 at 0.
    expected = 2 * (1 - features[:, 0] / (0.1 + 0.8 * 0.9))
    assert lead.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert readout.signs.tolist() == [0.5, -0.5, 0]
    # All other logits lie as far below the highest as the lowest did: 3 of 1 - (-1).
    assert readout.rest.item() == pytest.approx(2 / 2 - 3)
    # Where the image lies does not matter.
    apart = fitted(features + 3, OWN, 0)
    lead = (features + 3)[:, 0] * apart.weight + apart.offset
    assert lead.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    # The other class is the runner-up, wherever the label stands.
    swapped = fitted(features, torch.tensor([0.0, 1.0, 5.0, -3.0]), 2)
    assert swapped.signs.tolist() == [0, -0.5, 0.5, 0]
    assert swapped.rest.item() == pytest.approx(4 / 2 - 8)


def test_the_weight_of_a_readout_is_that_of_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    readout = fitted(features, OWN, 0)
    relative = features - features[0]
    ridge = 1e-3 * (relative * relative).sum(dim=1).mean()
    target = torch.tensor([0.0] * 5 + [-1.0], dtype=torch.float64)
    inner = relative.T @ relative + ridge * torch.eye(4, dtype=torch.float64)
    weight = torch.linalg.solve(inner, relative.T @ target)
    cosine = (weight @ readout.weight) / (weight.norm() * readout.weight.norm())
    assert cosine.item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("features", "own", "label"),
    [
        ([[0.0], [0.1], [torch.inf]], OWN, 0),  # not a number
        ([[0.5], [0.5], [0.5]], OWN, 0),  # nothing to tell them apart by
        ([[0.0], [0.1], [0.0]], OWN, 0),  # the edge is where the image is
        ([[0.0], [0.1], [1.0]], OWN, 1),  # the label is not the highest
        ([[0.0], [0.1], [1.0]], torch.tensor([1.0, 1.0, 0.0]), 0),  # nor alone
    ],
)
def test_what_cannot_be_told_apart_has_no_readout(features, own, label):
    assert fitted(torch.tensor(features), own, label) is None


def test_readouts_are_stacked_with_blank_ones_for_those_that_are_none():
    readout = fitted(torch.tensor([[0.0], [0.1], [1.0]]), OWN, 0)
    whole = stacked([None, readout], torch.zeros(2, 3, 1), 3)
    assert [part.dtype for part in whole] == [torch.float32] * 4
    assert [part.shape for part in whole] == [(2, 1), (2,), (2,), (2, 3)]
    assert all(not part[0].any() for part in whole)
    assert whole.signs[1].tolist() == [0.5, -0.5, 0]
    assert whole.weight[1].item() == pytest.approx(readout.weight.item())


@pytest.mark.parametrize("linear", [True, False])
def test_each_point_is_read_by_the_readout_of_the_image_that_it_is_near(linear):
    layer = nn.Linear(2, 3)
    torch.nn.init.constant_(layer.weight, 7.0)
    images = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    readout = Readout(
        torch.tensor([[1.0, 0.0], [0.0, -2.0]]) if linear else torch.eye(2, 3),
        torch.tensor([0.5, 1.0]),
        torch.tensor([-4.0, -8.0]),
        torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.5, -0.5]]),
    )
    network = layer if linear else nn.Identity()
    if not linear:
        images = nn.functional.pad(images, (0, 1))
    subject = Rewired(QueryCounter(network), layer if linear else None, readout, images, "l2")
    asked = images[[1, 0, 1]] + 0.125
    answers = subject(asked)
    leads = [1 - 2 * 1.125, 0.5 + 0.125, 1 - 2 * 1.125]
    if not linear:
        leads = [1 + 1.125, 0.5 + 0.125, 1 + 1.125]
    assert answers[0].tolist() == pytest.approx([-8.0, leads[0] / 2, -leads[0] / 2])
    assert answers[1].tolist() == pytest.approx([leads[1] / 2, -leads[1] / 2, -4.0])
    assert answers[2].equal(answers[0])
    assert not layer._forward_hooks


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_images_count_whose_built_example_random_points_do_not_find(batch_size):
    """What the features say in one go is what the new model says of each point."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Sigmoid(), nn.Linear(8, 3))
    network[2].weight.data *= 5
    inputs = torch.rand(12, 3)
    labels = network(inputs).argmax(dim=1)
    labels[2] = (labels[2] + 1) % 3
    probe = probed(network, inputs, batch_size, labels=labels)
    probe.threat = ThreatModel("linf", 0.45, (0.0, 1.0))
    rows = torch.tensor([11, 2, 3, 4, 5, 6, 7, 8, 1])
    group = prepared(probe, rows)
    assert probe.run.model.account.forwards == len(rows) * (1 + 15 + 8 + 1 + 24)
    x, keys = inputs[rows], example_keys(inputs[rows], probe.run.seed + 1)
    edge, near, around = points(x, keys, probe.threat)

    def right(shown):
        """Of each image its own points; a Rewired model finds the image by the distance."""
        leads = []
        for place, each in enumerate(shown):
            group.model.images = x[place : place + 1].expand(len(x), -1)
            whole = group.model.readout
            group.model.readout = Readout(*(part[place : place + 1] for part in whole))
            answers = group.model(each)
            group.model.readout = whole
            leads.append((answers.argmax(dim=1) == labels[rows][place]).all())
        return torch.stack(leads)

    with torch.no_grad():
        fooled = ~right(edge[:, None]) & (labels[rows] == network(x).argmax(dim=1))
        expected = right(x[:, None]) & fooled & right(around[:, OUTER:])
    assert group.kept.tolist() == expected.nonzero().squeeze(1).tolist()
    assert 1 not in group.kept  # its label is wrong
    assert 2 <= len(group.kept) <= 7
    # Those that the layer was fitted to.
    assert bool(right(near)[group.kept].all())
    assert bool(right(around[:, :OUTER])[group.kept].all())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_points_lie_on_the_edge_near_the_image_and_all_over_the_ball(norm):
    x = torch.full((3, 2, 4), 0.5)
    mask = torch.ones(1, 2, 4, dtype=torch.bool)
    mask[0, 0, 0] = False
    threat = ThreatModel(norm, 0.25, (0.0, 1.0), mask)
    edge, near, around = points(x, torch.tensor([5, 6, 7]), threat)
    assert (edge.shape, near.shape, around.shape) == ((3, 2, 4), (3, 15, 2, 4), (3, 32, 2, 4))
    sizes = [
        lp_norm((each - (x if each is edge else x[:, None])).flatten(0, -3), norm)
        for each in (edge, near, around)
    ]
    assert sizes[0].tolist() == pytest.approx([0.25] * 3, rel=1e-5)
    assert 0.9 * 0.125 < sizes[1].max() <= 0.125 * (1 + 1e-6)
    assert 0.9 * 0.25 < sizes[2].max() <= 0.25 * (1 + 1e-6)
    for each in (edge, near, around):
        assert (each[..., 0, 0] == 0.5).all()
        assert len(each.flatten(0, -3).unique(dim=0)) == len(each.flatten(0, -3))
    # Those near the image are no smaller copies of those all over the ball.
    assert not ((near - 0.5) * 2 + 0.5).isclose(around[:, :15], atol=1e-4).all()
    narrow = ThreatModel(norm, 0.25, (0.4375, 1.0))
    for each in points(x, torch.tensor([5, 6, 7]), narrow):
        assert each.min() >= 0.4375
    again = points(x[1:], torch.tensor([6, 7]), threat._replace(mask=mask))
    assert all(one.equal(other[1:]) for one, other in zip(again, (edge, near, around), strict=True))


def test_attacks_look_in_turn_for_what_those_before_them_missed():
    asked = []

    def blind(model, inputs, labels):
        asked.append(("blind", inputs[:, 0].tolist()))
        raise NoGradientError

    def lead(inputs):
        # What is moved by an eighth is answered with class 1.
        moved = (inputs[:, 0] * 8).round() % 2
        return torch.stack([1 - moved, moved], dim=1)

    inputs = torch.tensor([[0.0], [0.25], [0.5], [0.75]])
    probe = probed(lead, inputs)
    probe.threat = ThreatModel("linf", 0.25, (0.0, 1.0))

    def near(by):
        def attack(model, x, labels):
            asked.append((by, x[:, 0].tolist()))
            return torch.where(x <= by, x + 0.125, x)

        return SimpleNamespace(attack=attack, norm="linf")

    specs = {
        "one": near(0.25),
        "blind": SimpleNamespace(attack=blind, norm="linf"),
        "two": near(0.5),
    }
    rows = torch.tensor([0, 1, 2, 3])
    assert hits(probe, QueryCounter(lead), rows, specs) == 3
    assert asked == [(0.25, [0.0, 0.25, 0.5, 0.75]), ("blind", [0.5, 0.75]), (0.5, [0.5, 0.75])]
    asked.clear()
    assert hits(probe, QueryCounter(lead), rows[:2], specs) == 2
    assert asked == [(0.25, [0.0, 0.25])]


@pytest.mark.parametrize(
    ("n", "waiting", "kept", "found", "seen", "groups"),
    [
        # Groups of sixteen, until thirty-two images were tested.
        (60, 50, 16, 16, (32, 10, 32), [16, 16]),
        (60, 50, 12, 12, (32, 10 + 4 + 4, 32), [16, 16, 8]),
        (20, 20, 16, 16, (20, 0, 20), [16, 4]),
        (20, 0, 16, 16, (0, 20, 0), []),
        # Eight suffice where the attacks find too few; five may be missed by accident of four.
        (60, 50, 16, 4, (16, 10, 4), [16]),
        (60, 50, 7, 0, (14, 10 + 18, 0), [16, 16]),
        (60, 50, 8, 0, (8, 10 + 8, 0), [16]),
    ],
)
def test_images_are_tested_until_they_suffice(monkeypatch, n, waiting, kept, found, seen, groups):
    asked = []

    def prepared(probe, rows):
        asked.append(len(rows))
        return Group(None, torch.arange(min(kept, len(rows))))

    monkeypatch.setattr(_active, "apart", lambda probe: torch.arange(waiting))
    monkeypatch.setattr(_active, "prepared", prepared)
    monkeypatch.setattr(_active, "hits", lambda probe, model, rows, specs: min(found, len(rows)))
    told = active_test(SimpleNamespace(inputs=torch.zeros(n, 1)), {})
    assert asked == groups
    assert (told.active_tested, told.active_left_out, told.active_found) == seen
