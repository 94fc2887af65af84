"""Detectors, their thresholds and the defence around them: each number worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import LayeredDefense, UndefendedClassifier
from distillguard.defenses import (
    BitDepth,
    Detector,
    FeatureSqueezing,
    LayeredNetwork,
    MaximumProbability,
    MedianFilter,
    ReconstructionError,
)
from distillguard.defenses._layered import _is_fitted, _whole
from distillguard.defenses._reconstruction_error import _autoencoder


def test_scores_by_hand():
    logits = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, math.log(4), 0.0]])
    # The odds against 3 of 5, and against 4 of 6.
    odds = MaximumProbability().score(lambda x: logits, logits)
    assert odds.tolist() == pytest.approx([math.log(2 / 3), math.log(2 / 4)])
    halved = MaximumProbability(2.0).score(lambda x: 2 * logits, logits)
    torch.testing.assert_close(halved, odds)
    squeezing = FeatureSqueezing([nn.Identity(), BitDepth(1)])

    def model(x):
        return torch.cat([x, 0 * x], dim=1)

    inputs = torch.tensor([[0.8], [0.4]])
    sure = torch.sigmoid(torch.tensor([0.8, 0.4])), torch.sigmoid(torch.tensor([1.0, 0.0]))
    expected = 2 * (sure[0] - sure[1]).abs()
    torch.testing.assert_close(squeezing(model, inputs), expected)
    assert [type(each) for each in FeatureSqueezing().squeezers] == [BitDepth, MedianFilter]
    with pytest.raises(ValueError, match="at least one layer"):
        FeatureSqueezing([])
    assert Detector().fitted
    assert Detector().fit(inputs) is not None
    with pytest.raises(NotImplementedError, match="Detector must implement score"):
        Detector()(model, inputs)


@pytest.mark.parametrize(
    ("shape", "linear", "narrow"),
    [((1, 4, 4), False, 3), ((1, 3, 8), True, 3), ((1, 8, 3), True, 3), ((4, 8), True, 3),
     ((8,), True, 2), ((2,), True, 1)],
)  # fmt: skip
def test_an_autoencoder_is_convolutional_for_images_and_else_as_narrow_as_a_quarter(
    shape, linear, narrow
):
    network = _autoencoder(shape, 3)
    assert network(torch.rand(2, *shape)).shape == (2, *shape)
    assert isinstance(network[1], nn.Linear) is linear
    if linear:
        assert network[1].out_features == narrow
    detector = ReconstructionError(width=3)
    assert not detector.fitted
    detector.build(shape)
    assert detector.fitted


def network(n_detectors):
    class Known(Detector):
        def __init__(self, place):
            super().__init__()
            self.place = place

        def score(self, model, inputs):
            assert model(inputs) is model(inputs)  # remembered
            return inputs[:, self.place]

    head = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    return LayeredNetwork(head, [], [Known(place) for place in range(n_detectors)])


def test_an_alarm_is_the_largest_excess_in_spreads_and_moves_the_last_logit_by_units():
    whole = network(2)
    whole.thresholds.copy_(torch.tensor([1.0, 2.0]))
    whole.spreads.copy_(torch.tensor([2.0, 0.5]))
    whole.unit.fill_(3.0)
    inputs = torch.tensor([[3.0, 1.0, 0.0], [0.0, 3.0, 0.0]], requires_grad=True)
    found = whole(inputs)
    # Excesses (3 - 1) / 2 = 1 and (1 - 2) / 0.5 = -2; (0 - 1) / 2 and (3 - 2) / 0.5 = 2.
    assert found.tolist() == [[3, 1, 3 + 3 * 1], [0, 3, 3 + 3 * 2]]
    assert whole(inputs.detach()).equal(found)
    (gradient,) = torch.autograd.grad(found[:, 2].sum(), inputs)
    assert gradient.tolist() == [[1 + 3 / 2, 0, 0], [0, 1 + 3 / 0.5, 0]]
    bare = network(0)(inputs)
    assert bare[:, 2].tolist() == [2, 2]
    assert network(0).parts(inputs)[1].shape == (2, 0)
    logits, scores = whole.parts(inputs)
    assert scores.equal(inputs[:, :2])
    assert logits.equal(inputs[:, :2])


def test_units_and_spreads_are_the_medians_and_quartiles_of_clean_examples():
    whole = network(3)
    logits = torch.tensor([[5.0, 1.0, 0.0], [0.0, 2.0, 1.0], [9.0, 0.0, 8.0]])
    scores = torch.tensor([[0.0, 5.0, 1e6], [1.0, 5.0, 1e6 + 0.5], [4.0, 5.0, 1e6 + 0.5]])
    whole.calibrate(torch.tensor([1.0, 2.0, 3.0]), logits, scores)
    assert whole.unit.item() == 1  # of 4, 1 and 1
    # From 0.5 to 2.5; one that never moves, or by rounding alone, keeps its own unit.
    assert whole.spreads.tolist() == [2, 1, 1]
    assert whole.thresholds.tolist() == [1, 2, 3]
    whole.calibrate(torch.zeros(3), torch.zeros(3, 2), scores)
    assert whole.unit.item() == pytest.approx(1e-6)


# The whole.


def test_what_is_kept_for_thresholds_and_what_makes_the_network(monkeypatch):
    labels = torch.arange(20) % 2
    torch.manual_seed(0)
    for defence, kept in (
        (LayeredDefense(None, (), [MaximumProbability()], calibration_fraction=0.3), 6),
        (LayeredDefense(nn.Linear(2, 2), (), [MaximumProbability()]), 0),
        (LayeredDefense(nn.Linear(2, 2), (), [ReconstructionError()]), 4),
        (LayeredDefense(None, (), ()), 0),
    ):
        assert int(defence._held_out(labels).sum()) == kept
    module = nn.Linear(2, 3)
    found, classes = LayeredDefense(module)._trained(torch.zeros(4, 2), None, 0)
    assert found is not module
    assert not found.training
    assert classes.tolist() == [0, 1, 2]
    assert (_is_fitted(module), _is_fitted(UndefendedClassifier()), _is_fitted(None)) == (
        True, False, False,
    )  # fmt: skip
    assert LayeredDefense(module).module is module
    defence = LayeredDefense(UndefendedClassifier(module))
    assert defence.module is module
    defence.module = other = nn.Linear(1, 1)
    assert defence.estimator.module is other
    plain = LayeredDefense()
    plain.module = None
    assert plain.estimator is None
    plain.module = other
    assert plain.estimator is other
    made = LayeredDefense()
    made.module = lambda shape, n_classes: other
    assert isinstance(made.estimator, UndefendedClassifier)
    assert LayeredDefense(random_state=3)._seed() == LayeredDefense(random_state=3)._seed()
    assert len({LayeredDefense()._seed() for _ in range(5)}) == 5
    assert max(LayeredDefense(random_state=k)._seed() for k in range(40)) > 2**30
    double = _whole(nn.Linear(2, 2).double(), [], [MaximumProbability()])
    assert double.network.weight.dtype == torch.float64


def test_one_half_sets_the_thresholds_and_false_alarms_are_counted_in_the_other():
    whole = network(1)
    inputs = torch.cat([torch.arange(600.0)[:, None], torch.zeros(600, 2)], dim=1)
    defence = LayeredDefense(nn.Linear(3, 2), (), [], false_positive_rate=0.25)
    torch.manual_seed(0)
    alarms, shown = defence._calibrated(whole, inputs[:599])
    assert shown == 299
    torch.manual_seed(0)
    order = torch.randperm(599)
    # Of 300, the rank ceil(0.75 * 301) is permitted.
    threshold = inputs[order[:300], 0].sort().values[225]
    assert whole.thresholds.item() == threshold
    assert alarms == int((inputs[order[300:], 0] > threshold).sum())
    broken = inputs.clone()
    broken[:, 0] = torch.inf
    with pytest.raises(ValueError, match="detectors must give finite scores"):
        defence._calibrated(whole, broken)
    defence._keep_learned(whole, np.arange(2), (1, 2, 3), (1, 2))
    assert (defence.n_features_in_, defence.false_alarms_) == (6, (1, 2))
    assert defence.thresholds_.tolist() == [threshold]
