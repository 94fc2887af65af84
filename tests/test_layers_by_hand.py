"""Attacks on a layered defence, with stand-ins for the attacks: who is asked, and how often."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from distillguard.defenses import BitDepth, Detector, Layer, LayeredNetwork
from distillguard.evaluation import _layer_by_layer
from distillguard.evaluation._layer_by_layer import STAGED_STEPS, _alone, _names, _Trial
from distillguard.evaluation._layer_report import BARE, JOINT, OBLIVIOUS, STAGED, WHOLE
from distillguard.evaluation._presets import AttackSpec


class Line(nn.Module):
    """Class 1 where the first value is above a half, and class 2 where it is about one."""

    def forward(self, inputs):
        value = inputs[:, 0]
        return torch.stack([0.5 - value, value - 0.5, 3 * (value - 0.9) + 0.4], dim=1)


class Second(Detector):
    """As suspicious as the second value is large."""

    def score(self, model, inputs):
        return inputs[:, 1]


class Third(Detector):
    """As suspicious as the third value is large."""

    def score(self, model, inputs):
        return inputs[:, 2]


def guard():
    whole = LayeredNetwork(Line(), [BitDepth(8)], [Second(), Third()])
    whole.thresholds = torch.tensor([0.5, 0.5])
    return whole.eval()


SETTINGS = {"norm": "linf", "epsilon": 0.5, "bounds": (0.0, 2.0), "batch_size": 4,
            "random_state": 3}  # fmt: skip


def trial_of(*rows, labels=None, **settings):
    labels = torch.zeros(len(rows), dtype=torch.int64) if labels is None else labels
    told = {**SETTINGS, **settings}
    return _Trial(guard(), torch.tensor(rows), labels, told, "quick", 1)


def test_parts_are_called_by_their_classes_with_numbers_from_the_second_on():
    whole = LayeredNetwork(Line(), [BitDepth(8), BitDepth(3)], [Second(), Third(), Second()])
    assert _names(whole) == ("BitDepth", "BitDepth 2", "Second", "Third", "Second 2")


@pytest.mark.parametrize("training", [True, False])
def test_a_part_alone_has_its_own_threshold(training):
    whole = LayeredNetwork(Line(), [BitDepth(8), BitDepth(3)], [Second(), Third()])
    whole.thresholds, whole.spreads = torch.tensor([0.25, 0.75]), torch.tensor([2.0, 3.0])
    whole.unit = torch.tensor(7.0)
    whole.train(training)
    part = _alone(whole, [1], [1])
    assert part.network is whole.network
    assert list(part.layers) == [whole.layers[1]]
    assert list(part.detectors) == [whole.detectors[1]]
    assert (part.thresholds.tolist(), part.spreads.tolist()) == ([0.75], [3.0])
    assert (part.unit.item(), part.training) == (7.0, training)
    bare = _alone(whole, [], [])
    assert (len(bare.layers), len(bare.detectors), len(bare.thresholds)) == (0, 0, 0)


def test_answers_are_columns_and_a_rejected_point_fools_nobody():
    trial = trial_of([0.25, 0, 0], [0.75, 0, 0], [0.75, 1, 0], [1.75, 0, 0], [0.25, 0, 1])
    points = trial.inputs
    assert trial.rejection == 3
    assert trial.answers(trial.whole, points).tolist() == [0, 1, 3, 2, 3]
    assert trial.fools(trial.whole, points).tolist() == [False, True, False, True, False]
    trial.labels[1] = 1
    assert trial.fools(trial.whole, points).tolist() == [False, False, False, True, False]


class Asks:
    """In place of all attacks: each asks the classifier a number of times and fools some."""

    def __init__(self, monkeypatch, times, found):
        self.log = []

        def asked(kind, trial, model):
            n = times[kind]
            trial.whole.network(torch.zeros(n, 3))
            self.log.append((kind, len(model.layers), len(model.detectors), len(trial.inputs)))
            return torch.tensor(found[kind]), torch.full_like(trial.inputs, float(n))

        def attacked(trial, model, attacks=None):
            fooled, points = asked("attacked", trial, model)
            return fooled.numpy(), points

        def staged(trial, model, **settings):
            return asked("staged", trial, model)[1]

        def in_stages(trial, model, known):
            self.known = [point[0, 0].item() for point in known]
            fooled, points = asked("in_stages", trial, model)
            return fooled.numpy(), points

        def jointly(trial, model, left):
            self.left = left.tolist()
            fooled, points = asked("jointly", trial, model)
            return fooled.numpy(), points

        def fools(trial, model, points):
            self.log.append(("fools", len(model.layers), len(model.detectors), points[0, 0].item()))
            trial.whole.network(torch.zeros(times["fools"], 3))
            return np.array(found["fools"](model, points[0, 0].item()))

        for each in (attacked, staged, in_stages, jointly, fools):
            monkeypatch.setattr(_Trial, each.__name__, each)


@pytest.fixture
def report(monkeypatch):
    """Two of three examples count; the detectors stop what they stop."""

    def fools(model, point):
        # The bare points (3) pass the layer, one of them the first detector, and none the second.
        if point == 3:
            second = len(model.detectors) == 1 and isinstance(model.detectors[0], Third)
            return [not second, not len(model.detectors)]
        # Of the others the joint ones (13) fool the second where there is a detector alone.
        return [False, point == 13 and len(model.detectors) == 1]

    times = {"attacked": 3, "staged": 5, "in_stages": 7, "jointly": 13, "fools": 100}
    found = {
        "attacked": [True, False], "staged": [False, False], "in_stages": [False, False],
        "jointly": [False, True], "fools": fools,
    }  # fmt: skip
    asks = Asks(monkeypatch, times, found)
    # The last one is rejected before any attack.
    trial = trial_of([0.25, 0, 0], [0.125, 0, 0], [0.25, 1, 0], epsilon=0.375)
    return trial.report(), asks


def test_passes_are_those_of_each_attack_and_of_judging_it(report):
    found, _ = report
    # By the counted example: an attack of 3 on the bare; on a part 3 and 5, one judging of its
    # own descent and two of the points against the whole; in stages 7, and jointly 13.
    assert found.passes == {
        BARE: 3 / 2,
        **dict.fromkeys(("BitDepth", "Second", "Third"), (3 + 5 + 300) / 2),
        STAGED: 7 / 2,
        JOINT: 13 / 2,
    }
    assert OBLIVIOUS not in found.passes


def test_who_was_fooled_by_what(report):
    found, asks = report
    told = {name: each.tolist() for name, each in found.fooled.items()}
    assert told == {
        BARE: [True, False],
        OBLIVIOUS: [True, False],
        "BitDepth": [True, False],
        "Second": [True, True],
        "Third": [True, True],
        STAGED: [False, False],
        JOINT: [False, True],
        WHOLE: [True, True],
    }
    assert list(told) == [BARE, OBLIVIOUS, "BitDepth", "Second", "Third", STAGED, JOINT, WHOLE]
    # Of the one point that fools the bare classifier.
    assert found.stopped == {("Third",): 1}
    assert found.parts == ("BitDepth", "Second", "Third")
    # What was found last is tried first; the joint attack looks for what is left.
    assert asks.known == [5.0, 3.0, 5.0, 3.0, 5.0, 3.0]
    assert asks.left == [True, True]


def test_figures_before_any_attack_are_shares_of_all_examples(report):
    found, asks = report
    assert (found.n_examples, found.n_counted) == (3, 2)
    assert found.clean_accuracy == pytest.approx(2 / 3)
    assert found.clean_rejected == pytest.approx(1 / 3)
    assert found.clean == {BARE: 1, "BitDepth": 1, "Second": pytest.approx(2 / 3), "Third": 1}
    assert (found.norm, found.epsilon, found.seed) == ("linf", 0.375, 3)
    # Only those examples are attacked that are counted, and each part alone.
    assert {n for kind, _, _, n in asks.log if kind != "fools"} == {2}
    attacked = [each[1:3] for each in asks.log if each[0] == "attacked"]
    assert attacked == [(0, 0), (1, 0), (0, 1), (0, 1)]


class Less(Layer):
    """Takes a half away."""

    def forward(self, inputs):
        return inputs - 0.5


def test_an_example_counts_where_the_bare_classifier_and_the_whole_are_right(monkeypatch):
    asked = []

    def attacked(trial, model, attacks=None):
        asked.append(trial.inputs[:, 0].tolist())
        return np.zeros(len(trial.inputs), dtype=bool), trial.inputs

    monkeypatch.setattr(_Trial, "attacked", attacked)
    labels = torch.tensor([0, 0, 1, 1])
    # The bare classifier says 0, 1, 1, 2, and the whole 0, 0, 0, 1.
    trial = trial_of([0.25, 0, 0], [0.75, 0, 0], [0.75, 0, 0], [1.125, 0, 0], labels=labels)
    trial.whole = LayeredNetwork(Line(), [Less()], []).eval()
    found = trial.report()
    assert asked[0] == [0.25]
    assert (found.n_examples, found.n_counted, found.clean_accuracy) == (4, 1, 0.75)
    assert found.clean == {BARE: 0.5, "Less": 0.75}


def test_points_that_are_known_are_tried_before_any_search(monkeypatch):
    trial = trial_of([0.25, 0, 0], [0.25, 0, 0], [0.25, 0, 0], [0.25, 0, 0])
    searched = []

    def staged(few, model, **settings):
        searched.append((len(few.inputs), settings))
        return few.inputs + 0.5

    monkeypatch.setattr(_Trial, "staged", staged)
    one, other = trial.inputs.clone(), trial.inputs.clone()
    one[1, 0], other[1, 0], other[2, 0] = 0.75, 1.5, 0.625
    fooled, last = trial.in_stages(trial.whole, [one, other])
    # The descent adds a half to every value: the detectors stop none that is on its threshold.
    assert searched == [(2, {"steps": STAGED_STEPS})]
    assert fooled.tolist() == [True] * 4
    assert last[:, 0].tolist() == [0.75, 0.75, 0.625, 0.75]
    fooled, last = trial.in_stages(trial.whole, [trial.inputs + 0.375, trial.inputs + 0.5])
    assert len(searched) == 1
    assert last[:, 0].tolist() == [0.625] * 4


@pytest.mark.parametrize(
    ("preset", "names", "steps", "near"),
    [
        ("quick", ["PGD margin"], 10, [None]),
        ("standard", ["APGD targeted", "Square"], 50, [None, 1e-6]),
        ("autoattack", ["APGD targeted", "Square"], 100, [None, 1e-6]),
    ],
)
def test_the_joint_attack_runs_on_what_is_left(monkeypatch, preset, names, steps, near):
    trial, asked = trial_of([0.25, 0, 0], [0.125, 0, 0], [0.0, 0, 0]), []
    trial.attacks = preset

    def attacked(few, model, attacks=None):
        asked.append((few.inputs[:, 0].tolist(), model, attacks))
        return np.array([True, False]), few.inputs + 0.5

    monkeypatch.setattr(_Trial, "attacked", attacked)
    left = np.array([True, False, True])
    fooled, points = trial.jointly(trial.whole, left)
    assert fooled.tolist() == [True, False, False]
    assert points[:, 0].tolist() == [0.75, 0.125, 0.5]
    ((values, model, attacks),) = asked
    assert (values, model) == ([0.25, 0.0], trial.whole)
    assert list(attacks) == names
    assert [spec.near for spec in attacks.values()] == near
    first = attacks[names[0]]
    assert isinstance(first, AttackSpec)
    assert isinstance(first.attack, partial)
    told = first.attack.keywords
    assert (told["steps"], told["epsilon"], told["norm"]) == (steps, 0.5, "linf")
    assert (told["bounds"], told["batch_size"], told["random_state"]) == ((0.0, 2.0), 4, 3)


def test_what_attacks_a_part_is_told_what_attacks_the_whole(monkeypatch):
    trial, told = trial_of([0.25, 0, 0]), []
    trial.draws = 2
    monkeypatch.setattr(
        _layer_by_layer, "selective_pgd", lambda *given, **settings: told.append(settings)
    )
    trial.staged(trial.whole, steps=7)
    assert told == [{**SETTINGS, "steps": 7, "draws": 2}]
    fooled, points = trial_of([0.25, 0, 0]).attacked(trial.whole)
    assert fooled.tolist() == [True]
    assert points[0, 0] > 0.5
    nobody = _Trial(trial.whole, trial.inputs[:0], trial.labels[:0], SETTINGS, "quick", 1)
    assert [len(each) for each in nobody.attacked(trial.whole)] == [0, 0]
