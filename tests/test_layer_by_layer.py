"""What passes through each layer of a defence alone, and through all of them."""

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import evaluate
from distillguard.defenses import (
    BitDepth,
    Detector,
    GaussianNoise,
    LayeredNetwork,
    MaximumProbability,
)
from distillguard.evaluation import LayerReport, evaluate_layers
from distillguard.evaluation._selective import selective_pgd


class Line(nn.Module):
    """Class 1 where the first coordinate is above a half."""

    def forward(self, inputs):
        lead = inputs[:, 0] - 0.5
        return torch.stack([-lead, lead], dim=1)


class Second(Detector):
    """As suspicious as the second coordinate is large."""

    def score(self, model, inputs):
        return inputs[:, 1]


class Sum(Detector):
    """Suspicious wherever both coordinates together are large: against the way to class 1."""

    def score(self, model, inputs):
        return inputs.sum(dim=1)


def guard(layers=(), detectors=(), thresholds=()):
    network = LayeredNetwork(Line(), layers, detectors)
    network.thresholds = torch.tensor(thresholds)
    return network.eval()


def points(n=20):
    drawn = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    drawn[:, 0] = 0.3 + 0.15 * drawn[:, 0]
    return drawn, torch.zeros(n, dtype=torch.int64)


TOLD = {"epsilon": 0.25, "attacks": "quick", "random_state": 0}


def test_a_detector_that_attacks_can_silence_stops_nobody_but_the_oblivious():
    X, y = points()
    X[:, 1] = 0.5
    report = evaluate_layers(guard([], [Second()], [0.6]), X, y, **TOLD)
    assert report.fooled["bare"].all()
    assert report.fooled["staged"].all()
    assert report.fooled["all together"].all()
    assert report.robust_accuracy == 0


def test_a_selective_step_passes_where_class_and_alarm_pull_apart():
    X, y = points()
    X[:, 1] = 0.6
    # Above 0.5 in the first, and the sum at most 1: the second has to fall meanwhile.
    whole = guard([], [Sum()], [1.0])
    found = selective_pgd(whole, X, y, epsilon=0.25)
    assert (found[:, 0] > 0.5).all()
    assert (found.sum(dim=1) <= 1.0).all()
    assert (found - X).abs().max() <= 0.25 + 1e-6


def test_what_no_point_of_the_ball_passes_is_counted_as_withstood():
    X, y = points()
    X[:, 1] = 0.9
    report = evaluate_layers(guard([], [Second()], [0.5]), X[:5], y[:5], **TOLD)
    assert report.n_counted == 0  # rejected before any attack
    assert (report.clean_rejected, report.clean_accuracy) == (1.0, 0.0)
    assert "nan" in str(report)
    X[:, 1] = 0.1
    # Alarms wherever the class changes: no point of the ball is both.
    whole = guard([], [First()], [0.5])
    report = evaluate_layers(whole, X[:5], y[:5], **TOLD)
    assert report.fooled["bare"].all()
    assert not report.fooled["all together"].any()
    assert report.robust_accuracy == report.clean_accuracy == 1.0
    assert report.stopped == {("First",): 5}
    assert report.ratio_interval is None  # the product is 0


class First(Detector):
    """As suspicious as the first coordinate is large."""

    def score(self, model, inputs):
        return inputs[:, 0]


def test_the_product_is_that_of_successes_alone_over_those_on_the_bare():
    fooled = {
        "bare": np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0], bool),
        "A": np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool),
        "B": np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool),
        "all together": np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool),
    }
    report = LayerReport(
        parts=("A", "B"),
        n_examples=20,
        clean_accuracy=0.5,
        clean_rejected=0.1,
        fooled=fooled,
        stopped={},
        passes={},
        norm="linf",
        epsilon=0.1,
        seed=0,
    )
    assert report.product == pytest.approx((4 / 8) * (2 / 8))
    assert report.truth == pytest.approx(2 / 8)
    assert report.ratio == pytest.approx(2.0)
    assert report.robust_accuracy == pytest.approx(0.5 - 2 / 20)


def test_the_interval_of_the_ratio_holds_the_truth_of_independent_holes():
    draw, inside, runs = np.random.default_rng(0), 0, 60
    for seed in range(runs):
        a, b = draw.random(200) < 0.5, draw.random(200) < 0.6
        fooled = {"bare": np.ones(200, bool), "A": a, "B": b, "all together": a & b}
        report = LayerReport(
            parts=("A", "B"), n_examples=200, clean_accuracy=1.0, clean_rejected=0.0,
            fooled=fooled, stopped={}, passes={}, norm="linf", epsilon=0.1, seed=seed,
        )  # fmt: skip
        low, high = report.ratio_interval
        inside += low <= 1 <= high
    assert inside >= 0.88 * runs


def test_the_whole_is_attacked_no_weaker_than_evaluate_attacks_it():
    X, y = points(40)
    whole = guard([BitDepth(4)], [MaximumProbability(), Second()], [-0.01, 0.95])
    report = evaluate_layers(whole, X, y, **TOLD)
    told = TOLD | {"diagnosis": None}
    assert report.robust_accuracy <= evaluate(whole, X, y, **told).robust_accuracy
    counted = report.fooled["bare"].sum()
    assert sum(report.stopped.values()) == counted
    assert report.passes["joint"] > 0
    assert report.passes["staged"] > 0
    assert report.parts == ("BitDepth", "MaximumProbability", "Second")


def test_passes_are_those_of_the_classifier():
    class Counts(Line):
        asked = 0

        def forward(self, inputs):
            type(self).asked += len(inputs)
            return super().forward(inputs)

    X, y = points()
    whole = LayeredNetwork(Counts(), [], []).eval()
    report = evaluate_layers(whole, X, y, **TOLD)
    forwards = Counts.asked
    # Beside the counted attacks: clean answers, judging, and the column of rejection.
    counted = sum(report.passes.values()) * report.n_counted
    assert counted / 2 < forwards < counted + 10 * len(X)


def test_only_layered_defences_have_layers():
    with pytest.raises(TypeError, match="guard must be a fitted LayeredDefense"):
        evaluate_layers(Line(), *points(), epsilon=0.1)


def test_the_picture_shows_every_group(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    X, y = points()
    report = evaluate_layers(guard([BitDepth(4)], [Second()], [0.6]), X, y, **TOLD)
    ax = report.plot()
    assert len(ax.patches) == len(report.stopped)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["BitDepth", "Second"]


def test_random_layers_are_attacked_and_judged_by_their_mean():
    X, y = points(30)
    noisy = guard([GaussianNoise(0.1)], [])
    report = evaluate_layers(noisy, X, y, draws=20, **TOLD)
    # The mean of a line under symmetric noise is the line: at 0.25 all can pass, as without.
    assert report.n_counted >= 28
    assert report.fooled["staged"].mean() > 0.9
    once = evaluate_layers(noisy, X, y, draws=1, **TOLD)
    # One question to a noisy line is right by luck at 0.3 to 0.45.
    assert once.n_counted < report.n_counted
    assert report.passes["staged"] > 10 * once.passes["staged"]
