"""Settings, keywords and answers of estimators, without a training wherever there need be none."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils import get_tags
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distillguard import (
    ExtendedDistiller,
    UndefendedClassifier,
    networks,
)
from distillguard.estimators._keywords import _keywords, keywords_of, split, with_keywords
from distillguard.estimators._settings import TrainingSettings, check_prefit, plain
from distillguard.networks import Rejecting

# Settings.

GIVEN = {
    "max_epochs": 3, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.1,
    "lr_scheduler": None, "early_stopping": False, "validation_fraction": 0.1, "patience": 2,
    "gradient_clip": None, "weight_averaging": None, "class_weight": None, "callbacks": (),
    "checkpoint_dir": None, "device": "cpu", "precision": "32-true", "compile": False,
    "warm_start": False, "random_state": 0, "verbose": False,
}  # fmt: skip


def settings(**more):
    return TrainingSettings.of(GIVEN | more)


class Watches:
    def on_epoch(self, record, network):
        pass


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"max_epochs": 0}, ValueError, "max_epochs must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"patience": 0}, ValueError, "patience must be at least 1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be above 0"),
        ({"early_stopping": "f1"}, ValueError, "early_stopping must be True, False, 'loss' or"),
        ({"callbacks": 3}, TypeError, "callbacks must be a list of objects"),
        ({"callbacks": [Watches]}, TypeError, "callbacks must hold objects"),
        ({"callbacks": [object()]}, TypeError, "callbacks must hold objects"),
        ({"gradient_clip": 0.0}, ValueError, "gradient_clip must be"),
        ({"weight_averaging": 1.5}, ValueError, "weight_averaging must be in"),
        ({"class_weight": "even"}, ValueError, "class_weight must be None, 'balanced' or"),
        ({"warm_start": True, "checkpoint_dir": "x"}, ValueError, "warm_start must be False"),
    ],
)
def test_a_setting_that_training_cannot_use_is_refused_and_its_neighbours_are_not(
    given, error, message
):
    with pytest.raises(error, match=message):
        settings(**given)
    settings(max_epochs=1, batch_size=1, patience=1, weight_averaging=1.0, gradient_clip=0.5,
             class_weight={0: 1.0}, warm_start=True, callbacks=[Watches()])  # fmt: skip
    assert settings(callbacks=None, checkpoint_dir="x").callbacks == ()
    assert type(settings(learning_rate=np.float32(0.5)).learning_rate) is float
    assert plain("a") == "a"


def test_stopping_is_by_what_was_asked_for_and_a_seed_is_drawn_from_what_was_given():
    assert settings().stopping() is None
    for asked, by in ((True, "loss"), ("loss", "loss"), ("accuracy", "accuracy")):
        stopping = settings(early_stopping=asked, patience=4).stopping()
        assert (stopping.by, stopping.patience) == (by, 4)
    assert settings(random_state=3).seed() == settings(random_state=3).seed()
    generator = np.random.RandomState(3)
    assert settings(random_state=generator).seed() == settings(random_state=3).seed()
    assert settings(random_state=generator).seed() != settings(random_state=3).seed()
    seeds = {settings(random_state=None).seed() for _ in range(8)}
    assert len(seeds) == 8
    drawn = [settings(random_state=k).seed() for k in range(60)]
    assert 2**30 < max(drawn) < 2**31
    check_prefit(nn.ReLU())
    fitted = SimpleNamespace(model_=nn.ReLU())
    for teacher, remedy in ((fitted, "; pass its model_"), (3, "got int")):
        with pytest.raises(TypeError, match="teacher must be a trained") as caught:
            check_prefit(teacher)
        assert str(caught.value).endswith(remedy)


# Keywords.


def factory(shape, n_classes, width=3, *, depth=2):
    return nn.Linear(1, 1)


def test_keywords_of_a_factory_are_parameters_of_the_estimator():
    assert keywords_of({"module": partial(factory, depth=4), "a": 3, "optimizer": factory}) == {
        "module__depth": 4
    }
    own = {"module": None, "beta": 1}
    assert split({"beta": 2, "module__depth": 3, "module__width": 4, "x__y": 5}, own) == (
        {"beta": 2, "x__y": 5},
        {"module": {"depth": 3, "width": 4}},
    )
    assert _keywords(factory) == ["width", "depth"]
    assert _keywords(lambda *shape, **anything: 0) is None
    assert _keywords(lambda a, b, /, c: 0) == []
    assert _keywords(dict) is None
    made = with_keywords("module", factory, {"depth": 9})
    assert (made.func, made.keywords) == (factory, {"depth": 9})
    adam = with_keywords("optimizer", "adam", {"weight_decay": 0.5})
    assert adam(nn.Linear(1, 1).parameters(), 0.25).param_groups[0]["weight_decay"] == 0.5
    for held, keywords, message in (
        (factory, {"heigth": 1}, r"must name a keyword of factory \(width, depth\), got 'heigth'"),
        (partial(factory, depth=1), {"x": 1}, "must name a keyword of factory"),
        (lambda a, b: 0, {"x": 1}, "it has none"),
        (nn.Linear(1, 1), {"x": 1}, "module must be a function for module__x to be set, got Lin"),
        ("adam", {"x": 1}, "module must be a function for module__x to be set, got str"),
    ):
        with pytest.raises(ValueError, match=message):
            with_keywords("module", held, keywords)
    inner = UndefendedClassifier()
    assert with_keywords("estimator", inner, {"max_epochs": 7}) is inner
    assert inner.max_epochs == 7


def test_parameters_of_the_default_network_can_be_set_and_are_then_its_own():
    estimator = UndefendedClassifier().set_params(module__hidden=(5,), max_epochs=2)
    assert (estimator.module.func, estimator.module.keywords) == (networks.mlp, {"hidden": (5,)})
    assert estimator.get_params()["module__hidden"] == (5,)
    assert "module__hidden" not in estimator.get_params(deep=False)
    assert estimator.max_epochs == 2
    extended = ExtendedDistiller().set_params(module__hidden=(5,))
    assert extended.module.keywords == {"hidden": (5,), "dropout": 0.5}


# Answers.


def fitted(kind=UndefendedClassifier, n_classes=2, shape=(4,), **more):
    """An estimator as a fit leaves it, whose network is somebody's."""
    estimator = kind(**more)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), n_classes))
    estimator.classes_, estimator.input_shape_ = np.arange(n_classes), shape
    estimator.n_features_in_ = int(np.prod(shape))
    setattr(estimator, "model_" if kind is UndefendedClassifier else "student_", network)
    return estimator, network


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_answers_are_those_of_the_network_for_every_number_of_examples(shape, n_classes):
    estimator, network = fitted(n_classes=n_classes, shape=shape)
    for n in (1, 3, 520):
        X = torch.rand(n, *shape)
        logits = network(X).detach()
        found = estimator.decision_function(X)
        expected = logits[:, 1] - logits[:, 0] if n_classes == 2 else logits
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(
            estimator.predict_proba(X), logits.double().softmax(1), atol=1e-6
        )
        assert estimator.predict(X).tolist() == logits.argmax(1).tolist()
        right = logits.argmax(1).eq(0).double()
        weights = np.arange(1, n + 1)
        zeros = np.zeros(n, dtype=int)
        assert estimator.score(X, zeros) == pytest.approx(right.mean().item())
        score = estimator.score(X, zeros, weights)
        assert score == pytest.approx(float(np.average(right, weights=weights)))
    # A class that is not known is none that could be right.
    assert estimator.score(X, zeros + 7) == 0
    loader = DataLoader(TensorDataset(X, torch.zeros(n).long()), 100)
    assert estimator.score(loader) == pytest.approx(right.mean().item())
    with pytest.raises(ValueError, match="sample_weight must be None when X yields pairs"):
        estimator.score(loader, sample_weight=weights)
    assert get_tags(estimator).input_tags.three_d_array


@pytest.mark.parametrize(
    ("classes", "label", "told"),
    [([0, 1], -1, [0, -1]), ([0.5, 1.5], 9, [0.5, 9]), (["a", "b"], "no", ["a", "no"]),
     (["a", "b"], -1, ["a", "-1"])],
)  # fmt: skip
def test_an_input_that_is_rejected_gets_the_rejected_label(classes, label, told):
    estimator = ExtendedDistiller(rejected_label=label)
    network = Rejecting(nn.Linear(1, 3, bias=False))
    with torch.no_grad():
        network.network.weight.copy_(torch.tensor([[0.0], [-1.0], [1.0]]))
    estimator.student_, estimator.classes_ = network, np.array(classes)
    estimator.input_shape_, estimator.n_features_in_ = (1,), 1
    assert estimator.predict(np.array([[-1e-9], [0.0]])).tolist()[1] == told[0]
    found = estimator.predict(np.array([[0.0], [1.0], [-1.0]])).tolist()
    assert found == [told[0], told[1], classes[1]]
    estimator.false_alarms_ = (1, 4)
    assert estimator.false_positive_rate_ == 0.25
    low, high = estimator.false_positive_interval_
    assert low < 0.25 < high
    estimator.false_alarms_ = (0, 0)
    assert np.isnan(estimator.false_positive_rate_)
    estimator._check_rejected_label(np.array(classes))
    for known in (classes[0], str(classes[0])):
        clashes = ExtendedDistiller(rejected_label=known)
        if isinstance(classes[0], str) or not isinstance(known, str):
            with pytest.raises(ValueError, match="rejected_label must be none of the classes"):
                clashes._check_rejected_label(np.array(classes))
        else:
            with pytest.raises(TypeError, match="rejected_label must be a number"):
                clashes._check_rejected_label(np.array(classes))
