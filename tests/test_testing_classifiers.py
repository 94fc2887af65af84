"""check_classifier: names what is wrong with an estimator, and passes what is right."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from conftest import each_once_with_an_example
from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    LayeredDefense,
    RobustDistiller,
    UndefendedClassifier,
    datasets,
)
from distillguard.defenses import BitDepth, MaximumProbability
from distillguard.exceptions import BrokenPromiseError
from distillguard.testing import check_classifier

SOUND = {
    "UndefendedClassifier": UndefendedClassifier(max_epochs=2),
    "with a module": UndefendedClassifier(nn.Linear(4, 3), max_epochs=2),
    "DefensiveDistiller": DefensiveDistiller(max_epochs=2),
    "AdversarialTrainer": AdversarialTrainer(max_epochs=1, steps=2),
    "RobustDistiller": RobustDistiller(max_epochs=1, steps=2),
    "LayeredDefense": LayeredDefense(
        UndefendedClassifier(max_epochs=3), [BitDepth(3)], [MaximumProbability()]
    ),
    "logistic regression": LogisticRegression(),
    "nearest neighbours": KNeighborsClassifier(),
    "a support vector machine": SVC(),
}


@pytest.mark.parametrize("name", SOUND)
def test_our_estimators_and_scikit_learns_keep_their_promises(name):
    check_classifier(SOUND[name])


def test_images_in_tensors_and_two_classes_are_examples_too():
    X, y = datasets.load_digits("train")
    check_classifier(DefensiveDistiller(max_epochs=1), X[:40], y[:40] % 2)


class Centroids(ClassifierMixin, BaseEstimator):
    """Decides by the distance from the centre of each class, which some noise has moved."""

    def __init__(self, scale=9.0, module=None, random_state=None):
        self.scale = scale
        self.module = module
        self.random_state = random_state

    def fit(self, X, y):
        X, y = self.checked(X, y)
        noise = np.random.RandomState(self.random_state).normal(0, 0.01, X.shape[1])
        classes = np.unique(y)
        self.centres_ = np.stack([X[y == each].mean(axis=0) for each in classes]) + noise
        self.classes_ = classes
        return self

    def checked(self, X, y):
        # What scikit-learn's validation writes on the estimator is put off.
        twin = Centroids()
        X, y = validate_data(twin, X, y)
        self.n_features_in_ = twin.n_features_in_
        return X, y

    def decision_function(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return -self.scale * ((X[:, None] - self.centres_) ** 2).sum(axis=2)

    def predict_proba(self, X):
        odds = np.exp(Centroids.decision_function(self, X))
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X):
        winners = Centroids.decision_function(self, X).argmax(axis=1)
        return self.classes_[winners]

    def soft_labels(self, X, temperature):
        odds = np.exp(Centroids.decision_function(self, X) / temperature)
        return odds / odds.sum(axis=1, keepdims=True)


class Converts(Centroids):
    def __init__(self, scale=9.0, module=None, random_state=None):
        super().__init__(float(str(scale)), module, random_state)


class Mute(Centroids):
    def fit(self, X, y):
        super().fit(X, y)


class Unsorted(Centroids):
    def fit(self, X, y):
        super().fit(X, y)
        self.classes_, self.centres_ = self.classes_[::-1], self.centres_[::-1]
        return self


class Eager(Centroids):
    def predict(self, X):
        return super().predict(X) if hasattr(self, "classes_") else np.zeros(len(X))


class Tunes(Centroids):
    def fit(self, X, y):
        self.scale = 8.0
        return super().fit(X, y)


class TrainsTheModule(Centroids):
    def fit(self, X, y):
        with torch.no_grad():
            self.module.weight.add_(0.1)
        return super().fit(X, y)


class Standardises(Centroids):
    def fit(self, X, y):
        X -= 0.5
        return super().fit(X, y)


class Clips(Centroids):
    def predict(self, X):
        return super().predict(np.clip(X, 0.3, 1, out=X))


class Columns(Centroids):
    def predict_proba(self, X):
        return super().predict_proba(X)[:, :2]


class Places(Centroids):
    def predict(self, X):
        return self.decision_function(X).argmax(axis=1) + 1


class Draws(Centroids):
    def decision_function(self, X):
        noise = np.random.RandomState().normal(size=(len(X), 1))
        return super().decision_function(X) + noise


class Seeds(Centroids):
    def fit(self, X, y):
        np.random.seed(self.random_state)  # noqa: NPY002
        return super().fit(X, y)


class Drifts(Centroids):
    """Goes on from the last fit."""

    def fit(self, X, y):
        last = getattr(self, "centres_", 0)
        super().fit(X, y)
        self.centres_ = self.centres_ + 0.1 * last
        return self


class Unseeded(Centroids):
    def fit(self, X, y):
        super().fit(X, y)
        self.centres_ = self.centres_ + np.random.RandomState().normal(0, 0.01, 4)
        return self


class Sigmoids(Centroids):
    def predict_proba(self, X):
        return 1 / (1 + np.exp(-self.decision_function(X)))


class Second(Centroids):
    def predict(self, X):
        second = Centroids.decision_function(self, X).argsort(axis=1)[:, -2]
        return self.classes_[second]


class Percent(Centroids):
    def score(self, X, y):
        return 100 * super().score(X, y)


class Unnormalised(Centroids):
    def soft_labels(self, X, temperature):
        return Centroids.predict_proba(self, X) ** (1 / temperature)


class Hardens(Centroids):
    def soft_labels(self, X, temperature):
        return super().soft_labels(X, 1 / temperature)


class Ranks(Centroids):
    def decision_function(self, X):
        found = super().decision_function(X)
        return found - found.mean(axis=0)


class Sorts(Centroids):
    """Answers in the order of the first feature, which is that of examples in this order."""

    def decision_function(self, X):
        return super().decision_function(X[X[:, 0].argsort(kind="stable")])


class Turns(Centroids):
    """Turns the labels over that it is scored by."""

    def score(self, X, y):
        share = super().score(X, y)
        y[:] = y.max() - y
        return share


class Pads(Centroids):
    def decision_function(self, X):
        return super().decision_function(np.pad(X, ((0, 0), (0, 4 - X.shape[1]))))

    def predict(self, X):
        winners = self.decision_function(X).argmax(axis=1)
        return self.classes_[winners]


class Numbers(Centroids):
    def fit(self, X, y):
        super().fit(X, y)
        self.classes_ = np.arange(len(self.classes_))
        return self


class Hasty(Centroids):
    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        return super().fit(X, y)


class Swallows(Centroids):
    def fit(self, X, y):
        n = min(len(X), len(y))
        return super().fit(np.nan_to_num(X[:n]), y[:n])


class Forgets(Centroids):
    def fit(self, X, y):
        vars(self).pop("centres_", None)
        return super().fit(X, y)


class Shrinks(Centroids):
    """Begins with what it knows, in place, before it looks at the examples."""

    def fit(self, X, y):
        if hasattr(self, "centres_"):
            self.centres_ *= 0.5
        return super().fit(X, y)


class Remembers(Centroids):
    def __sklearn_clone__(self):
        twin = type(self)(self.scale, self.module, self.random_state)
        twin.__dict__.update({k: v for k, v in vars(self).items() if k == "centres_"})
        return twin


class Rounds(Centroids):
    def __getstate__(self):
        state = dict(super().__getstate__())
        if "centres_" in state:
            state["centres_"] = state["centres_"].astype(np.float16)
        return state


class Loses(UndefendedClassifier):
    def save(self, path):
        UndefendedClassifier(max_epochs=1, random_state=1).fit(*EXAMPLES).save(path)


EXAMPLES = (np.random.RandomState(0).rand(60, 4).astype("float32"), np.arange(60) % 3)
FAULTS = {
    Converts(scale=9): "parameters",
    Mute(): "fit",
    Unsorted(): "fit",
    Eager(): "unfitted",
    Tunes(): "parameters-kept",
    TrainsTheModule(module=nn.Linear(2, 2)): "parameters-kept",
    Standardises(): "inputs-kept",
    Clips(): "inputs-kept",
    Turns(): "inputs-kept",
    Columns(): "answers",
    Places(): "answers",
    Draws(): "repeatable",
    Seeds(): "generators-kept",
    Drifts(): "seeds",
    Unseeded(): "seeds",
    Sigmoids(): "probabilities",
    Second(): "agreement",
    Percent(): "agreement",
    Unnormalised(): "soft-labels",
    Hardens(): "soft-labels",
    Ranks(): "batch-independence",
    Pads(): "other-shape",
    Numbers(): "labels",
    Hasty(): "refused-fit",
    Swallows(): "refused-fit",
    Forgets(): "refused-fit",
    Shrinks(): "refused-fit",
    Remembers(): "clone",
    Rounds(): "pickle",
    Loses(max_epochs=1): "save-and-load",
}


def broken(estimator, **settings):
    with pytest.raises(BrokenPromiseError) as caught:
        check_classifier(estimator, **settings)
    return caught.value.broken


@pytest.mark.parametrize("estimator", FAULTS, ids=lambda each: type(each).__name__)
def test_a_fault_is_named_and_no_other(estimator):
    assert each_once_with_an_example(broken(estimator)) == {FAULTS[estimator]}


def test_answers_in_another_order_than_the_examples_are_noticed_where_these_happen_to_have_it():
    order = EXAMPLES[0][:, 0].argsort()
    X, y = (part[order] for part in EXAMPLES)
    (one,) = broken(Sorts(), X=X, y=y)
    assert one.promise == "batch-independence"
    assert "in another order" in one.message


def test_the_rows_that_were_written_into_are_counted_and_shown():
    (one,) = broken(Standardises())
    assert one.message.endswith("got other values in 60 of 60 rows")
    assert one.example.shape[1:] == (4,)


def test_the_sound_one_among_them_passes():
    check_classifier(Centroids())


def test_the_example_is_one_row_that_shows_it():
    (one,) = broken(Sigmoids())
    assert one.example.shape == (1, 4)
    assert str(one).startswith(
        "probabilities: estimator must return rows from predict_proba that sum to 1, none below 0"
    )


def test_the_estimator_itself_is_left_alone():
    estimator = Centroids(random_state=5)
    check_classifier(estimator)
    assert vars(estimator) == {"scale": 9.0, "module": None, "random_state": 5}


@pytest.mark.parametrize(
    ("estimator", "settings", "error", "message"),
    [
        (Centroids, {}, TypeError, "estimator must be one with fit and predict"),
        (3, {}, TypeError, "estimator must be one with fit and predict, got 3"),
        (Centroids(), {"X": EXAMPLES[0]}, ValueError, "X and y must be given together, got X"),
        (Centroids(), {"skip": "magic"}, ValueError, "skip must be one of 'parameters'"),
    ],
)
def test_what_is_no_estimator_is_refused(estimator, settings, error, message):
    with pytest.raises(error, match=f"^{message}"):
        check_classifier(estimator, **settings)
