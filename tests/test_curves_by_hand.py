"""Curves and transfer on a line, where every figure is known by hand."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import attacks
from distillguard._data import Chunk
from distillguard.evaluation import (
    RobustnessCurve,
    TransferMatrix,
    robustness_curve,
    transfer_matrix,
)
from distillguard.evaluation._curves import Search, _radii
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation._transfer import Trial, _subjects

NAN, INF = float("nan"), float("inf")


class Line(nn.Module):
    """Class 1 above ``at``, told by the first value; keeps what it is asked, and how."""

    def __init__(self, at=0.5):
        super().__init__()
        self.at, self.sizes, self.modes = at, [], []

    def forward(self, inputs):
        self.sizes.append(len(inputs))
        self.modes.append((torch.is_grad_enabled(), self.training))
        lead = inputs[:, 0] - self.at
        return torch.stack([-lead, lead], dim=1)


X = torch.tensor([[0.125], [0.25], [0.375], [0.625]])
Y = torch.tensor([0, 0, 0, 0])


def by(step):
    """An attack that moves every value by one step, and keeps nothing of what it is given."""

    def attack(model, inputs, labels, **_):
        assert torch.is_grad_enabled()
        labels += 1
        inputs += step
        return inputs

    return attack


# Curves.


@pytest.mark.parametrize(
    ("nearest", "budgets", "epsilons", "radius", "attack"),
    [
        # The last is misclassified. 0.25 moves the third over the half, 0.375 the second too.
        ([by(0.3125)], [], [], [INF, 0.3125, 0.3125, 0], [-1, 0, 0, -1]),
        ([by(0.3125), by(0.1875)], [], [], [INF, 0.3125, 0.1875, 0], [-1, 0, 1, -1]),
        ([by(0.1875), by(0.3125)], [], [], [INF, 0.3125, 0.1875, 0], [-1, 1, 0, -1]),
        # The first of two that go as far.
        ([by(0.3125), by(0.3125)], [], [], [INF, 0.3125, 0.3125, 0], [-1, 0, 0, -1]),
        # A budget attack counts where it keeps within its radius, and for no more than that.
        ([], [by(0.25)], [0.125], [INF, INF, INF, 0], [-1, -1, -1, -1]),
        ([], [by(0.3125)], [0.0, 0.25, 0.5], [INF, 0.3125, 0.3125, 0], [-1, 0, 0, -1]),
        # It runs on what falls beyond its radius, and is told by its place after the others.
        ([by(0.3125)], [by(0.1875)], [0.25], [INF, 0.3125, 0.1875, 0], [-1, 0, 1, -1]),
        ([by(0.3125)], [by(0.5)], [0.25, 0.5], [0.5, 0.3125, 0.3125, 0], [1, 0, 0, -1]),
    ],
)
def test_an_example_falls_at_the_least_distance_that_any_attack_found(
    nearest, budgets, epsilons, radius, attack
):
    model = Line().train()
    search = Search(
        model, [(f"n{i}", AttackSpec(each, "linf")) for i, each in enumerate(nearest)],
        [(f"b{i}", each) for i, each in enumerate(budgets)], epsilons, 3, 0,
    )  # fmt: skip
    threat = ThreatModel("linf", INF, (0.0, 1.0))
    given = Chunk(torch.arange(7, 11), X.clone(), Y.clone())
    found = search.found(given, threat, torch.device("cpu"))
    assert found["radius"].tolist() == pytest.approx(radius)
    assert found["attack"].tolist() == attack
    assert found["radius"].dtype == found["margin"].dtype == torch.float64
    assert found["margin"].tolist() == [-0.75, -0.5, -0.25, 0.25]
    assert found["predicted"].tolist() == [0, 0, 0, 1]
    assert (found["label"].tolist(), found["index"].tolist()) == (Y.tolist(), [7, 8, 9, 10])
    assert (given.inputs.tolist(), given.labels.tolist()) == (X.tolist(), Y.tolist())
    assert max(model.sizes) == 3
    assert model.training
    assert not any(training for _, training in model.modes)


def test_a_distance_beyond_the_radius_by_rounding_is_the_radius():
    search = Search(Line(), [], [("b", by(0.25 + 2.0**-24))], [0.25], 3, 0)
    given = Chunk(torch.arange(1), torch.tensor([[0.25 + 2.0**-3]]), torch.zeros(1).long())
    found = search.found(given, ThreatModel("linf", INF, (0.0, 1.0)), torch.device("cpu"))
    assert found["radius"].item() == 0.25


def test_a_curve_counts_who_stands_beyond_each_radius():
    radii = np.array([0.0, 0.25, 0.25, 0.5, INF])
    curve = RobustnessCurve.from_radii(radii, "l2", (0.75, 0.25), 3)
    assert curve.epsilons.tolist() == [0, 0.25, 0.5, 0.75]
    assert curve.robust_accuracy.tolist() == [0.8, 0.4, 0.2, 0.2]
    assert (curve.norm, curve.n_examples, curve.random_state) == ("l2", 5, 3)
    found = robustness_curve(Line(), X, Y, minimum_distance=[by(0.3125), by(0.1875)])
    assert found.epsilons.tolist() == [0, 0.1875, 0.3125]
    assert found.robust_accuracy.tolist() == [0.75, 0.5, 0.25]
    table = found.per_example
    assert table.margin.tolist() == [0.75, 0.5, 0.25, -0.25]
    np.testing.assert_array_equal(table.distance, [NAN, 0.3125, 0.1875, NAN])
    at = found.at(0.1875)
    assert [name is not None for name in at.fooled_by] == [False, False, True, False]
    np.testing.assert_array_equal(at.distance, [NAN, NAN, 0.1875, NAN])


@pytest.mark.parametrize(
    ("given", "norm", "radii"),
    [
        (0.5, "linf", [0.5]), ([0.5, 0, 0.25], "linf", [0, 0.25, 0.5]),
        (np.array([2.0, 1.0]), "l0", [1, 2]), (torch.tensor(0.5), "l2", [0.5]), ((), "l2", []),
        (iter([0.25]), "l1", [0.25]), (0, "l0", [0]),
    ],
)  # fmt: skip
def test_radii_are_one_or_several_in_ascending_order(given, norm, radii):
    assert _radii("epsilons", given, norm) == radii


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"budget": attacks.fgsm, "minimum_distance": by(0)},
            r"^epsilons must hold the radii for budget, got \(\)",
        ),
        ({"epsilons": [0.1]}, r"^robustness_curve must get minimum_distance attacks or a budget"),
        ({"budget": {}, "epsilons": 0.1, "minimum_distance": {}}, "^robustness_curve must get"),
        ({"minimum_distance": attacks.pgd}, r"^minimum_distance must look for the nearest"),
        ({"budget": attacks.deepfool, "epsilons": 0.1}, r"^budget must look within an epsilon, g"),
        ({"minimum_distance": AttackSpec(by(0), "l2", 0.5)}, "must have near=None in a curve"),
        (
            {"budget": partial(attacks.fgsm, norm="l2"), "epsilons": 0.1},
            "norm of the curve, 'li",
        ),
        ({"budget": attacks.fgsm, "epsilons": 0.5, "norm": "l0"}, "whole number of values in l0"),
    ],
)
def test_what_makes_no_curve_is_refused(told, message):
    with pytest.raises(ValueError, match=message):
        robustness_curve(Line(), X, Y, **told)
    with pytest.raises(TypeError, match=r"must be a function \(model, inputs, labels, \*, epsilon"):
        robustness_curve(Line(), X, Y, budget=lambda model, inputs, labels: inputs, epsilons=0.1)


def test_an_error_of_an_attack_says_in_which_curve_or_matrix():
    def broken(model, inputs, labels):
        raise KeyError

    for call, where in (
        (partial(robustness_curve, Line(), X, Y, minimum_distance={"a": broken}),
         "raised in robustness_curve's attack 'a'"),
        (partial(transfer_matrix, {"m": Line()}, broken, X, Y),
         "raised in transfer_matrix's attack 'broken' on 'm'"),
        (partial(transfer_matrix, {"m": broken}, by(0), X, Y), None),
    ):  # fmt: skip
        with pytest.raises((KeyError, TypeError)) as caught:
            call()
        notes = caught.value.__notes__
        assert where in notes if where else "clean pass through 'm'" in notes[0]


# Transfer.


def test_what_both_know_counts_and_each_attack_runs_on_what_its_source_knows():
    asked = []

    def attack(model, inputs, labels):
        asked.append((model.at, len(inputs)))
        return by(0.25)(model, inputs, labels)

    models = {"low": Line(0.3125), "high": Line(0.5), "never": Line(0.0)}
    trial = Trial(_subjects(models), "a", AttackSpec(attack, "linf"), 3, 0)
    fooled, both = trial.counts(X, Y, ThreatModel("linf", INF, (0.0, 1.0)))
    # Low knows 0.125 and 0.25, high also 0.375; the step takes those from 0.25 over the half.
    assert both.tolist() == [[2, 2, 0], [2, 3, 0], [0, 0, 0]]
    assert fooled.tolist() == [[2, 0, 0], [2, 1, 0], [0, 0, 0]]
    assert asked == [(0.3125, 2), (0.5, 3)]
    for model in models.values():
        assert max(model.sizes) == 3
        assert {grad for grad, _ in model.modes} == {False}  # attacks alone ask with gradients
    matrix = transfer_matrix(models, by(0.25), X, Y, epsilon=0.25)
    np.testing.assert_array_equal(np.asarray(matrix), [[1, 0, NAN], [1, 1 / 3, NAN], [NAN] * 3])
    assert matrix.n_examples.tolist() == both.tolist()
    assert transfer_matrix(models, by(0.25), X, Y, epsilon=0.125).matrix[0, 0] == 0


def test_a_matrix_prints_its_shares_or_that_there_are_none():
    matrix = TransferMatrix(
        np.array([[1.0, 0.5], [NAN, 0.0]]), ("a", "b"), np.array([[4, 2], [0, 3]])
    )
    assert repr(matrix) == "TransferMatrix(a, b; 0 to 4 examples in each entry)"
    assert matrix._headers == ("made on", "tried on a", "tried on b")
    assert matrix._rows == [
        ("a", "100.0 % [51.0, 100.0]", "50.0 % [9.5, 90.5]"),
        ("b", "none", "0.0 % [0.0, 56.1]"),
    ]
    assert np.asarray(matrix, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.isnan(matrix.intervals[..., 0]), [[False] * 2, [True, False]])


def estimator(classes, network=None):
    return SimpleNamespace(model_=network or Line(), classes_=np.array(list(classes)))


@pytest.mark.parametrize(
    ("models", "names"),
    [
        ([Line(), Line(), nn.Identity(), Line()], ["Line", "Line 2", "Identity", "Line 3"]),
        ((Line(),), ["Line"]),
        ({1: Line(), "b": Line()}, ["1", "b"]),
        ([estimator("ab"), estimator("ab"), Line()],
         ["SimpleNamespace", "SimpleNamespace 2", "Line"]),
    ],
)  # fmt: skip
def test_models_go_by_their_names_or_their_classes(models, names):
    assert list(_subjects(models)) == names


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ({1: Line(), "1": Line()}, ValueError, r"^models must have names that differ as text, got"),
        (Line(), TypeError, r"^models must be a mapping from names to models or a list"),
        ([], ValueError, r"^models must hold at least one model, got none"),
        ({"a": estimator("ab"), "b": Line(), "c": estimator("ba")}, ValueError,
         r"^models must know the same classes, got \['a', 'b'\] in 'a' and \['b', 'a'\] in 'c'"),
        ([3], TypeError, r"^models\[0\] must be a module or a callable"),
        ({"m": 3}, TypeError, r"^models\['m'\] must be a module or a callable"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_compared_are_refused(models, error, message):
    with pytest.raises(error, match=message):
        transfer_matrix(models, by(0), X, Y)


def test_an_attack_within_a_radius_has_one_and_an_attack_is_one():
    for wrong in ("fgsm", attacks.pgd):
        with pytest.raises(ValueError, match=r"^epsilon must be given, because (fgsm|pgd) looks"):
            transfer_matrix([Line()], wrong, X, Y)
    assert transfer_matrix([Line()], partial(attacks.fgsm, epsilon=0.25), X, Y).matrix.shape
    for wrong in (["fgsm"], 3):
        with pytest.raises(TypeError, match=r"^attack must be the name of an attack or a function"):
            transfer_matrix([Line()], wrong, X, Y)
