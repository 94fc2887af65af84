"""Fitting again: what a refused fit leaves, what a warm start goes on from."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    ExtendedDistiller,
    RobustDistiller,
    UndefendedClassifier,
    datasets,
    load,
)
from distillguard.exceptions import MissingDataError

KINDS = [
    UndefendedClassifier,
    DefensiveDistiller,
    AdversarialTrainer,
    RobustDistiller,
    ExtendedDistiller,
]


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    return X[:200], y[:200]


class BadInTheEnd(Dataset):
    """A label that the network does not know, after three good batches."""

    def __init__(self, X, y):
        self.X, self.y = X, y.clone()
        self.y[-1] = 77

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


def fail(record, network):
    raise KeyboardInterrupt


class Fails:
    on_epoch = staticmethod(fail)


REFUSED = {
    "another shape of module": ({"module": nn.Linear(3, 2)}, lambda X, y: (X, y)),
    "another width of module": (
        {"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 7))},
        lambda X, y: (X, y),
    ),
    "NaN": ({}, lambda X, y: (X[:, :, 1:] * float("nan"), y)),
    "one class": ({}, lambda X, y: (X[:, :, 1:], y * 0)),
    "labels too few": ({}, lambda X, y: (X[:, :, 1:], y[1:])),
    "a bad parameter": ({"max_epochs": 0}, lambda X, y: (X, y)),
    "a bad optimiser": ({"optimizer": "magic"}, lambda X, y: (X[:, :, 1:], y + 3)),
    "a bad last batch": (
        {"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))},
        lambda X, y: (DataLoader(BadInTheEnd(X, y), 50),),
    ),
    "an interrupt": ({"callbacks": [Fails()]}, lambda X, y: (X, y % 5)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm_start", [False, True])
def test_a_fit_that_is_refused_leaves_the_estimator_as_it_was(digits, kind, warm_start):
    X, y = digits
    estimator = kind(max_epochs=1, random_state=0, warm_start=warm_start).fit(X, y)
    told = {name: value for name, value in vars(estimator).items() if name.endswith("_")}
    history, logits = list(estimator.history_), estimator.decision_function(X)
    for settings, data in REFUSED.values():
        if warm_start and "module" in settings:
            continue  # the module is there already
        kept = {name: getattr(estimator, name) for name in settings}
        with pytest.raises((ValueError, TypeError, RuntimeError, KeyboardInterrupt)):
            estimator.set_params(**settings).fit(*data(X, y))
        estimator.set_params(**kept)
        after = {name: value for name, value in vars(estimator).items() if name.endswith("_")}
        assert after.keys() == told.keys()
        assert all(after[name] is told[name] for name in told)
        assert estimator.history_ == history
        np.testing.assert_array_equal(estimator.decision_function(X), logits)


def test_a_first_fit_that_is_refused_leaves_an_unfitted_estimator(digits):
    X, y = digits
    estimator = UndefendedClassifier(optimizer="magic")
    before = dict(vars(estimator))
    with pytest.raises(ValueError, match="optimizer must be"):
        estimator.fit(X, y)
    assert vars(estimator) == before


# --- warm starts --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_start_needs_the_classes_and_the_shape_of_the_last_fit(digits, kind):
    X, y = digits
    # After one epoch the class of outliers would still be the largest.
    settings = {"outlier_weight": 0.1} if kind is ExtendedDistiller else {}
    estimator = kind(max_epochs=1, random_state=0, warm_start=True, **settings).fit(X, y)
    with pytest.raises(ValueError, match=r"y must hold the classes of the last fit .* got \[1, 2"):
        estimator.fit(X, y + 1)
    with pytest.raises(ValueError, match=r"y must hold the classes of the last fit .* got \[0, 1"):
        estimator.fit(X, y % 3)
    with pytest.raises(ValueError, match=r"X must hold .* \(1, 8, 8\) .* got \(1, 7, 8\)"):
        estimator.fit(X[:, :, 1:], y)
    assert estimator.fit(X, y).score(X, y) > 0.1


# --- what training needs ------------------------------------------------------------------------


def test_a_frozen_module_is_refused(digits):
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
    with pytest.raises(ValueError, match="module must have parameters to train, got none"):
        UndefendedClassifier(frozen).fit(*digits)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_fit_trains_where_gradients_are_off(digits, mode):
    with mode():
        inside = UndefendedClassifier(max_epochs=1, random_state=0).fit(*digits)
        assert not torch.is_grad_enabled()
    outside = UndefendedClassifier(max_epochs=1, random_state=0).fit(*digits)
    np.testing.assert_array_equal(
        inside.decision_function(digits[0]), outside.decision_function(digits[0])
    )


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.filterwarnings("ignore:this processor has no bfloat16")
def test_autocast_around_a_fit_changes_nothing(digits, precision, enabled):
    settings = {"max_epochs": 2, "precision": precision, "random_state": 0}
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        inside = UndefendedClassifier(**settings).fit(*digits)
        assert torch.is_autocast_enabled("cpu") == enabled
        assert torch.is_autocast_cache_enabled()
    outside = UndefendedClassifier(**settings).fit(*digits)
    for one, other in zip(inside.model_.parameters(), outside.model_.parameters(), strict=True):
        assert one.equal(other)


def test_a_callback_that_is_in_no_list_is_refused(digits):
    with pytest.raises(TypeError, match="callbacks must be a list of objects with a method on_ep"):
        UndefendedClassifier(callbacks=Fails()).fit(*digits)


@pytest.mark.parametrize("callback", [3, print, Fails], ids=["number", "function", "class"])
def test_what_is_no_callback_is_refused(digits, callback):
    with pytest.raises(TypeError, match="callbacks must hold objects with a method on_epoch, got"):
        UndefendedClassifier(callbacks=[callback]).fit(*digits)


def test_mart_refuses_the_label_smoothing_that_its_loss_has_not(digits):
    with pytest.raises(ValueError, match="label_smoothing must be 0 with objective='mart'"):
        AdversarialTrainer(objective="mart", label_smoothing=0.1).fit(*digits)


def test_a_save_is_loaded_to_the_device_that_there_is(digits, tmp_path):
    UndefendedClassifier(max_epochs=1).fit(*digits).save(tmp_path)
    assert load(tmp_path, device="auto").predict(digits[0]).shape == (200,)


def test_an_empty_folder_of_cifar10_is_missing_data(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(MissingDataError, match="load_cifar10 found neither"):
        datasets.load_cifar10("test", root=tmp_path)
