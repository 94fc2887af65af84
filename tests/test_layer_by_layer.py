"""What passes through each layer of a defence alone, and through all of them."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from distillguard import attacks, evaluate
from distillguard.defenses import (
    BitDepth,
    Detector,
    GaussianNoise,
    LayeredNetwork,
    MaximumProbability,
)
from distillguard.evaluation import LayerReport, _layer_by_layer, evaluate_layers
from distillguard.evaluation._layer_by_layer import counting
from distillguard.evaluation._selective import _without, margin_and_alarm, selective_pgd


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


@pytest.mark.parametrize("threshold", [0.5, 0.5 + 1e-6])
def test_a_point_that_fools_and_is_not_rejected_is_asked_about_once(threshold):
    """An alarm is a score above its threshold, and one on it is none."""
    X, y = points()
    asked = []

    class Constant(Detector):
        def score(self, model, inputs):
            asked.append(len(inputs))
            return 0 * inputs.sum(dim=1) + 0.5

    found = selective_pgd(guard([], [Constant()], [threshold]), X, y, epsilon=0.25)
    assert (found[:, 0] > 0.5).all()
    assert asked == [len(X)]


def test_selective_steps_fall_to_a_hundredth_of_the_radius():
    asked = []

    class Ridge(nn.Module):
        """Nearest to class 1 at 0.4, and never there."""

        def forward(self, inputs):
            asked.append(inputs[:, 0].detach().clone())
            return torch.stack([(inputs[:, 0] - 0.4).abs() + 0.1, 0 * inputs[:, 0]], dim=1)

    whole = guard([], [Second()], [0.9])
    whole.network = Ridge()
    X, y = points(4)
    selective_pgd(whole, X, y, epsilon=0.2)
    moves = (torch.stack(asked[-101:]).diff(dim=0)).abs()
    torch.testing.assert_close(moves[0], torch.full((4,), 0.25 * 0.2))
    assert moves[-1].max() <= 0.011 * 0.2


def test_a_gradient_is_rid_of_what_goes_against_another_and_of_nothing_else():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 50, 2, 3, generator=generator)
    found = _without(one, other)
    against = (one * other).flatten(1).sum(dim=1) < 0
    assert 10 < int(against.sum()) < 40
    assert torch.equal(found[~against], one[~against])
    product = (found * other).flatten(1).sum(dim=1)[against]
    torch.testing.assert_close(product, torch.zeros_like(product), atol=1e-5, rtol=0)
    # What was taken away is a multiple of the other.
    ratio = ((one - found) / other).flatten(1)[against]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=1e-3)


def test_a_selective_attack_borrows_its_model():
    X, y = points()
    whole = guard([GaussianNoise(0.3)], [Sum()], [0.9]).train()
    state = torch.get_rng_state()
    found, again = (selective_pgd(whole, X, y, epsilon=0.25, random_state=0) for _ in range(2))
    assert found.equal(again)
    assert all(part.training for part in whole.modules())
    assert torch.get_rng_state().equal(state)


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
        clean={},
        passes={},
        norm="linf",
        epsilon=0.1,
        seed=0,
    )
    assert report.product == pytest.approx((4 / 8) * (2 / 8))
    assert report.truth == pytest.approx(2 / 8)
    assert report.ratio == pytest.approx(2.0)
    assert report.robust_accuracy == pytest.approx(0.5 - 2 / 20)
    # Of 10 examples few samples hold both of B's: the product may be 0.
    assert report.ratio_interval is None


def test_the_interval_of_the_ratio_holds_the_truth_of_independent_holes():
    draw, inside, runs = np.random.default_rng(0), 0, 60
    for seed in range(runs):
        a, b = draw.random(200) < 0.5, draw.random(200) < 0.6
        fooled = {"bare": np.ones(200, bool), "A": a, "B": b, "all together": a & b}
        report = LayerReport(
            parts=("A", "B"), n_examples=200, clean_accuracy=1.0, clean_rejected=0.0,
            fooled=fooled, stopped={}, clean={}, passes={}, norm="linf", epsilon=0.1, seed=seed,
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
    assert not (report.fooled["joint"] & report.fooled["staged"]).any()
    assert (report.passes["joint"] > 0) == (not report.fooled["staged"].all())
    assert report.passes["staged"] > 0
    assert report.parts == ("BitDepth", "MaximumProbability", "Second")


def test_the_joint_attack_looks_for_what_the_staged_one_left(monkeypatch):
    X, y = points()
    X[:, 1] = 0.6
    whole = guard([BitDepth(6)], [Sum()], [1.0])
    told = []
    attacked = _layer_by_layer._Trial.attacked

    def half(model, x, y, **_):  # moved to the other class by a point that the detector lets pass
        places = (x[:, None] == X).all(dim=2).int().argmax(dim=1)
        return torch.where((places % 2 == 0)[:, None], found[places], x)

    def listening(trial, model, attacks=None):
        if attacks:
            told.append((len(trial.inputs), [*attacks]))
            return attacked(trial, model, attacks)
        return attacked(trial, model)[0], trial.inputs  # nothing to begin with on the whole

    found = _layer_by_layer.selective_pgd(
        whole, X, y, norm="linf", epsilon=TOLD["epsilon"], bounds=(0.0, 1.0), random_state=0
    )
    monkeypatch.setattr(_layer_by_layer, "selective_pgd", half)
    monkeypatch.setattr(_layer_by_layer._Trial, "attacked", listening)
    report = evaluate_layers(whole, X, y, **TOLD)
    assert told == [(int((~report.fooled["staged"]).sum()), ["PGD margin"])]
    assert report.fooled["staged"].mean() == 0.5
    assert (report.fooled["staged"] ^ report.fooled["joint"]).all()


class Flat(nn.Module):
    """The same values, with a gradient of zero."""

    def forward(self, inputs):
        return inputs.detach() + 0 * inputs


@pytest.mark.parametrize("layers", [[], [Flat()]])
def test_square_attacks_the_whole_where_the_gradient_leads_nowhere(monkeypatch, layers):
    X, y = points()
    asked, square = [], attacks.square

    def counted(model, inputs, labels, **told):
        asked.append(len(inputs))
        return square(model, inputs, labels, **told)

    monkeypatch.setattr(attacks, "square", counted)
    settings = {"norm": "linf", "epsilon": 0.04, "bounds": (0.0, 1.0), "batch_size": 32}
    whole = guard(layers, [Second()], [2.0])
    trial = _layer_by_layer._Trial(whole, X, y, settings | {"random_state": 0}, "standard", 1)
    assert not trial.jointly(whole, np.ones(len(X), dtype=bool))[0].any()  # 0.05 away and more
    assert bool(asked) == bool(layers)


@pytest.mark.parametrize(
    ("preset", "norm", "steps"),
    [("standard", "linf", 50), ("standard", "l1", 100), ("autoattack", "l2", 100)],
)
def test_the_joint_attack_takes_no_fewer_steps_than_the_preset(monkeypatch, preset, norm, steps):
    X, y = points(4)
    taken = []

    def noted(model, inputs, labels, **told):
        taken.append((told["steps"], told["norm"], told["epsilon"]))
        return inputs

    monkeypatch.setattr(attacks, "apgd_targeted", noted)
    monkeypatch.setattr(attacks, "square", lambda model, inputs, labels, **_: inputs)
    settings = {"norm": norm, "epsilon": 0.04, "bounds": (0.0, 1.0), "batch_size": 32}
    whole = guard([], [Second()], [2.0])
    trial = _layer_by_layer._Trial(whole, X, y, settings | {"random_state": 0}, preset, 1)
    trial.jointly(whole, np.ones(len(X), dtype=bool))
    assert taken == [(steps, norm, 0.04)]


def test_clean_accuracies_are_those_of_each_part_alone():
    X, y = points(40)
    whole = guard([BitDepth(1)], [Second()], [0.5])
    report = evaluate_layers(whole, X, y, **TOLD)
    bare = guard([], []).classify(X).argmax(dim=1) == y
    rounded = guard([BitDepth(1)], []).classify(X).argmax(dim=1) == y
    expected = {"bare": bare, "BitDepth": rounded, "Second": bare & (X[:, 1] <= 0.5)}
    assert report.clean == {k: v.double().mean().item() for k, v in expected.items()}


def test_passes_are_counted_forwards_and_backwards():
    network, passes = nn.Linear(2, 2), {}
    with counting(network, passes, "a"):
        network(torch.rand(3, 2)).sum().backward()
        with torch.no_grad():
            network(torch.rand(5, 2))
    network(torch.rand(7, 2)).sum().backward()
    assert passes == {"a": 3 + 3 + 5}


def test_what_was_found_against_a_part_is_tried_on_the_whole(monkeypatch):
    X, y = points()
    X[:, 1] = 0.6
    whole, asked = guard([BitDepth(6)], [Sum()], [1.0]), []
    descent = _layer_by_layer.selective_pgd

    def counted(model, x, y, **told):
        asked.append((len(model.layers) + len(model.detectors), len(x)))
        return x if len(model.layers) + len(model.detectors) == 2 else descent(model, x, y, **told)

    monkeypatch.setattr(_layer_by_layer, "selective_pgd", counted)
    report = evaluate_layers(whole, X, y, **TOLD)
    # The descent on the whole, which is blunt here, is run on what no known point fools.
    left = sum(n for parts, n in asked if parts == 2)
    assert report.fooled["staged"].sum() == report.n_counted - left > 0


def test_what_was_found_against_the_whole_is_tried_on_the_parts(monkeypatch):
    X, y = points()
    X[:, 1] = 0.5
    whole, descent = guard([BitDepth(6)], [Second()], [0.6]), _layer_by_layer.selective_pgd

    def blunt_on_parts(model, x, y, **told):
        return x if len(model.layers) + len(model.detectors) == 1 else descent(model, x, y, **told)

    def nobody(trial, model, attacks=None):
        return np.zeros(len(trial.inputs), dtype=bool), trial.inputs

    monkeypatch.setattr(_layer_by_layer, "selective_pgd", blunt_on_parts)
    monkeypatch.setattr(_layer_by_layer._Trial, "attacked", nobody)
    report = evaluate_layers(whole, X, y, **TOLD)
    assert report.fooled["all together"].all()
    for name in report.parts:
        assert report.fooled[name].all(), name


@pytest.mark.parametrize("blunt", ["staged", "joint"])
def test_all_together_is_the_worst_case_of_both_attacks_that_know_the_whole(monkeypatch, blunt):
    X, y = points()
    X[:, 1] = 0.6  # moved to class 1 alone, a point has a sum above 1
    whole = guard([BitDepth(6)], [Sum()], [1.0])
    if blunt == "staged":
        monkeypatch.setattr(_layer_by_layer, "selective_pgd", lambda model, x, y, **_: x)
    else:

        def nobody(trial, model, attacks=None):
            return np.zeros(len(trial.inputs), dtype=bool), trial.inputs

        monkeypatch.setattr(_layer_by_layer._Trial, "attacked", nobody)
    report = evaluate_layers(whole, X, y, **TOLD)
    if blunt == "joint":
        assert not report.fooled["joint"].any()
    assert not report.fooled["oblivious"].any()
    for name in ("all together", *report.parts):
        assert report.fooled[name].all(), name


def test_only_layered_defences_have_layers():
    with pytest.raises(TypeError, match="guard must be a fitted LayeredDefense"):
        evaluate_layers(Line(), *points(), epsilon=0.1)


def test_shares_print_with_their_wilson_intervals():
    fooled = {"bare": 6, "A": 3, "all together": 1}
    fooled = {name: np.arange(8) < count for name, count in fooled.items()}
    report = LayerReport(
        parts=("A",), n_examples=8, clean_accuracy=1.0, clean_rejected=0.0, fooled=fooled,
        stopped={("A",): 5, (): 1}, clean={}, passes={}, norm="linf", epsilon=0.1, seed=0,
    )  # fmt: skip
    for name, each in fooled.items():
        low, high = binomtest(int(each.sum()), 8).proportion_ci(0.95, method="wilson")
        interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
        (line,) = (line for line in str(report).splitlines() if line.startswith(f"{name} "))
        assert interval in line


def test_the_whole_is_not_asked_about_examples_of_which_none_are_left(monkeypatch):
    X, y = points()
    asked, answers = [], LayeredNetwork.answers

    def counted(self, inputs):
        asked.append(len(inputs))
        return answers(self, inputs)

    monkeypatch.setattr(LayeredNetwork, "answers", counted)
    report = evaluate_layers(guard([BitDepth(6)]), X, y, **TOLD)
    assert report.fooled["staged"].all()
    assert 0 not in asked


def test_the_picture_shows_every_group():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    fooled = {"bare": np.ones(6, bool), "all together": np.zeros(6, bool)}
    stopped = {("A",): 3, ("A", "B"): 2, (): 1}
    report = LayerReport(
        parts=("A", "B"), n_examples=6, clean_accuracy=1.0, clean_rejected=0.0, fooled=fooled,
        stopped=stopped, clean={}, passes={}, norm="linf", epsilon=0.1, seed=0,
    )  # fmt: skip
    ax = report.plot()
    assert [bar.get_height() for bar in ax.patches] == [3, 2, 1]
    dots = [len(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots == [1, 2, 0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B"]


def test_random_layers_are_attacked_and_judged_by_their_mean():
    X, y = points(30)
    noisy = guard([GaussianNoise(0.1)], [])
    report = evaluate_layers(noisy, X, y, draws=20, **TOLD)
    # The mean of a line under symmetric noise is the line: at 0.25 all can pass, as without.
    assert report.n_counted >= 28
    assert report.fooled["staged"].mean() > 0.9
    margin, _ = margin_and_alarm(guard([GaussianNoise(0.1)], [Second()], [2.0]), X, y, draws=400)
    exact, _ = margin_and_alarm(guard([], [Second()], [2.0]), X, y, draws=1)
    assert (margin - exact).abs().max() < 5 * 2 * 0.1 / 400**0.5
    once = evaluate_layers(noisy, X, y, draws=1, **TOLD)
    # One question to a noisy line is right by luck at 0.3 to 0.45.
    assert once.n_counted < report.n_counted
    assert report.passes["staged"] > 5 * once.passes["staged"]
