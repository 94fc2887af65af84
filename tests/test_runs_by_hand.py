"""What a run of an estimator decides before and after its training, without one."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distillguard import (
    DefensiveDistiller,
    ExtendedDistiller,
    RobustDistiller,
    UndefendedClassifier,
    networks,
)
from distillguard.estimators import _extended
from distillguard.estimators._onnx import _check_same
from distillguard.estimators._run import TrainingRun, training_data
from distillguard.networks import Rejecting
from test_estimators_by_hand import GIVEN, settings


def run_of(source=None, validation=None, **more):
    parameters = GIVEN | more
    data = SimpleNamespace(source=source, validation=validation, spec=None, feature_names=None)
    runtime = SimpleNamespace(processes=SimpleNamespace(count=2, broadcast=lambda value: value))
    return TrainingRun("Name", parameters, settings(**more), data, runtime, None, 5, 11)


def test_a_schedule_has_as_many_steps_as_all_epochs_have_batches():
    assert run_of()._steps(SimpleNamespace(n_batches=7)) == 21
    assert run_of()._steps(SimpleNamespace(n_batches=None)) == 0
    with pytest.raises(ValueError, match="lr_scheduler must be None for a data set without a len"):
        run_of(lr_scheduler="cosine")._steps(SimpleNamespace(n_batches=None))
    with pytest.raises(ValueError, match=r"module must have parameters to train"):
        run_of(SimpleNamespace()).train("network", nn.ReLU(), None)
    with pytest.raises(ValueError, match=r"teacher must have parameters to train"):
        run_of(SimpleNamespace(), teacher=3, random_state=1).train("teacher", nn.ReLU(), None)


@pytest.mark.parametrize(
    ("rate", "held", "counts", "warned", "learned"),
    [
        (0.05, True, (9, 10), "", (9, 10)),
        (0.05, False, (0, 10), "false_positive_rate needs clean examples", None),
        (None, True, (2, 10), "rejects 20 % of the held-out examples", (2, 10)),
        (None, True, (1, 10), "", (1, 10)),
        (None, False, (2, 10), "rejects 20 % of the training examples", None),
        (None, False, (1, 10), "", None),
    ],
)
def test_a_user_is_told_of_more_rejections_than_a_tenth_where_nothing_bounds_them(
    monkeypatch, rate, held, counts, warned, learned
):
    asked = []

    def calibrate(student, batches, given, seed):
        asked.append((list(batches), given, seed))
        student.offset.fill_(-3)
        return counts

    monkeypatch.setattr(_extended, "calibrate_offset", calibrate)
    sources = [SimpleNamespace(in_order=lambda k=k: [SimpleNamespace(inputs=k)]) for k in (1, 2)]
    run = run_of(sources[0], sources[1] if held else None)
    student = Rejecting(nn.Linear(1, 3))
    said = ExtendedDistiller(false_positive_rate=rate)._calibrated(run, student)
    assert asked == [([2 if held else 1], rate, 5)]
    assert run.learned.get("false_alarms_") == learned
    assert student.offset.item() == -3
    assert warned in said
    assert bool(said) is bool(warned)


def test_a_teacher_of_robustness_is_known_by_its_network_and_its_classes():
    network, teacher = nn.Linear(4, 3), UndefendedClassifier()
    teacher.model_, teacher.classes_ = network, np.arange(3)
    known = RobustDistiller(teacher=teacher)._prefit_teacher
    assert known(np.arange(3)) is network
    with pytest.raises(ValueError, match=r"know the classes of y, \[0, 1\], got \[0, 1, 2\]"):
        known(np.arange(2))
    with pytest.raises(ValueError, match="teacher must be fitted"):
        RobustDistiller(teacher=UndefendedClassifier())._prefit_teacher(np.arange(3))
    assert RobustDistiller(teacher=network)._prefit_teacher(np.arange(9)) is network
    assert RobustDistiller(teacher=networks.mlp)._prefit_teacher(np.arange(9)) is None
    assert RobustDistiller(objective="ard", alpha=0.5)._numbers() == {
        "alpha": 0.5, "temperature": 30.0,
    }  # fmt: skip
    assert DefensiveDistiller(temperature=7)._logit_scale() == 7.0
    assert DefensiveDistiller(temperature=7, prefit_teacher=True)._logit_scale() == 1.0
    for kind in (UndefendedClassifier, ExtendedDistiller):
        assert kind()._keeps_aside() is (kind is ExtendedDistiller)
    assert not ExtendedDistiller(false_positive_rate=None)._keeps_aside()


@pytest.mark.parametrize("extra", [0, 1])
def test_classes_are_the_width_of_a_module_or_those_that_are_seen(extra):
    X, y = torch.rand(6, 4), torch.tensor([0, 2, 1, 0, 2, 1])
    estimator = SimpleNamespace(
        _keeps_aside=lambda: False, _EXTRA_COLUMNS={"student_": extra}, module=nn.Linear(4, 6)
    )
    loader = DataLoader(TensorDataset(X, y), 2)
    data = training_data(estimator, loader, None, None, None, settings(), 0)
    assert list(data.spec.classes) == list(range(6 - extra))
    estimator.module = None
    data = training_data(estimator, loader, None, None, None, settings(), 0)
    assert list(data.spec.classes) == [0, 1, 2]


@pytest.mark.parametrize(
    ("off", "scale", "message"),
    [
        (0.9e-4, 1.0, None),
        (1.1e-4, 1.0, r"logits to 1\.0e-04, got a difference of"),
        (0.9e-2, -100.0, None),
        (1.1e-2, 100.0, r"logits to 1\.0e-02, got a difference of"),
        (float("nan"), 1.0, "got a difference of nan"),
        (None, 1.0, r"got shape \("),
    ],
)
def test_a_graph_may_be_off_by_a_ten_thousandth_of_the_largest_logit(
    monkeypatch, tmp_path, off, scale, message
):
    sizes = []

    class Session:
        def __init__(self, *given, **more):
            pass

        def run(self, names, feed):
            inputs = feed["inputs"]
            sizes.append(len(inputs))
            found = np.full((len(inputs), 2), scale, dtype=np.float32)
            if off is None:
                return [found[:, :1]]
            found[-1, 0] -= off
            return [found]

    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    network = lambda inputs: torch.full((len(inputs), 2), scale)  # noqa: E731
    if message is None:
        _check_same(network, tmp_path, (3,))
        assert sizes == [1, 2, 7]
    else:
        with pytest.raises(RuntimeError, match=message):
            _check_same(network, tmp_path, (3,))
