"""Promises of an estimator about its predictions."""

import copy
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..persistence import load
from ._classifier_subject import ClassifierSubject, differing, rows_apart
from ._promises import BrokenPromise

Found = Iterator[BrokenPromise]

TEMPERATURES = (1.0, 20.0, 100.0)
NEAR = 1e-4
"""Share of the largest value by which an output may depend on the size of a batch."""
SUM = 1e-6
"""By how much the sum of a row of probabilities may differ from 1."""


def answers(subject: ClassifierSubject) -> Found:
    """Outputs have the right shapes, and predictions are classes."""
    found, n, columns = subject.answers(subject.fitted), len(subject.y), subject.columns
    flat = (n,) if columns == 2 else (n, columns)
    wanted = {"predict": (n,), "predict_proba": (n, columns), "decision_function": flat}
    for name, answer in found.items():
        if answer.shape != wanted[name]:
            rule = f"estimator must return shape {wanted[name]} from {name}"
            yield BrokenPromise("answers", f"{rule}, got {answer.shape}")
    known = [*subject.fitted.classes_, getattr(subject.fitted, "rejected_label", None)]
    foreign = ~np.isin(found["predict"], [each for each in known if each is not None])
    if foreign.any():
        rule = "estimator must predict members of classes_"
        got = f"got {found['predict'][foreign][0]!r}"
        yield BrokenPromise("answers", f"{rule}, {got}", subject.rows(foreign))


def probabilities(subject: ClassifierSubject) -> Found:
    """Rows of probabilities sum to one."""
    found = subject.answers(subject.fitted).get("predict_proba")
    if found is not None:
        yield from summing("probabilities", "predict_proba", subject, found)


def summing(promise: str, name: str, subject: ClassifierSubject, rows: Any) -> Found:
    """Rows that are not probabilities."""
    bad = ~(np.abs(rows.sum(axis=1) - 1) <= SUM) | ~(rows >= 0).all(axis=1)
    if bad.any():
        rule = f"estimator must return rows from {name} that sum to 1, none below 0"
        got = f"got {rows[bad][0].tolist()}"
        yield BrokenPromise(promise, f"{rule}, {got}", subject.rows(bad))


def agreement(subject: ClassifierSubject) -> Found:
    """Predictions have the largest probability and decision value; the score is the share right."""
    found, classes = subject.answers(subject.fitted), subject.fitted.classes_
    label = getattr(subject.fitted, "rejected_label", None)
    known = np.array([*classes] if label is None else [*classes, label])
    for name, rows in found.items():
        if name == "predict":
            continue
        winners = (rows > 0).astype(int) if rows.ndim == 1 else rows.argmax(axis=1)
        bad = known[winners] != found["predict"]
        if bad.any():
            rule = f"estimator must predict the class with the largest {name}"
            got = f"got another for {int(bad.sum())} of {len(bad)}"
            yield BrokenPromise("agreement", f"{rule}, {got}", subject.rows(bad))
    right = float(np.mean(found["predict"] == np.asarray(subject.y)))
    score = subject.fitted.score(*subject.given())
    if abs(score - right) > SUM:
        rule = f"estimator must return the share of correct predictions from score, {right:.4g}"
        yield BrokenPromise("agreement", f"{rule}, got {score:.4g}")


def soft_labels(subject: ClassifierSubject) -> Found:
    """Soft labels sum to one and get softer with the temperature."""
    if not hasattr(subject.fitted, "soft_labels"):
        return
    before = None
    for temperature in TEMPERATURES:
        name = f"soft_labels at temperature {temperature:g}"
        rows = np.asarray(subject.fitted.soft_labels(subject.given()[0], temperature))
        yield from summing("soft-labels", name, subject, rows)
        largest = rows.max(axis=1)
        if before is not None and (bad := largest > before + SUM).any():
            rule = f"estimator must return softer rows at a higher temperature from {name}"
            got = f"got a largest value of {largest[bad][0]:.4g} after {before[bad][0]:.4g}"
            yield BrokenPromise("soft-labels", f"{rule}, {got}", subject.rows(bad))
            return
        before = largest


def repeatable(subject: ClassifierSubject) -> Found:
    """The same inputs give the same outputs."""
    found = differing(*(subject.answers(subject.fitted) for _ in range(2)))
    for name, bad in found.items():
        rule = f"estimator must return the same values for the same inputs from {name}"
        got = f"got another value for {int(bad.sum())} of {len(bad)}"
        yield BrokenPromise("repeatable", f"{rule}, {got}", subject.rows(bad))
        return


def batch_independence(subject: ClassifierSubject) -> Found:
    """An example has the same outputs alone and in any order."""
    together = subject.answers(subject.fitted)
    turned = subject.answers(subject.fitted, subject.X[np.arange(len(subject.y))[::-1].copy()])
    alone = [subject.answers(subject.fitted, subject.X[i : i + 1]) for i in range(len(subject.y))]
    for name, expected in together.items():
        for where, found in (
            ("in another order", turned[name][::-1]),
            ("alone", np.concatenate([each[name] for each in alone])),
        ):
            bad = rows_apart(found, expected, NEAR)
            if bad.any():
                rule = f"estimator must return the same alone and in any order from {name}"
                got = f"got another value {where} for {int(bad.sum())} of {len(bad)}"
                yield BrokenPromise("batch-independence", f"{rule}, {got}", subject.rows(bad))
                return


def other_shape(subject: ClassifierSubject) -> Found:
    """Examples of another shape are refused."""
    rule = "estimator must refuse examples of another shape with ValueError in predict"
    try:
        subject.fitted.predict(subject.given()[0][..., 1:])
    except ValueError:
        return
    except Exception as error:
        yield BrokenPromise("other-shape", f"{rule}, got {type(error).__name__}: {error}")
    else:
        yield BrokenPromise("other-shape", f"{rule}, got an output")


def labels(subject: ClassifierSubject) -> Found:
    """Classes are predicted by the names used in fit."""
    X, y = subject.given()
    _, places = np.unique(np.asarray(y), return_inverse=True)
    names = np.array([f"class {place}" for place in range(places.max() + 1)])
    settings = {"rejected_label": "none"} if hasattr(subject.fitted, "rejected_label") else {}
    found = subject.fresh().set_params(**settings).fit(X, names[places])
    predicted, expected = found.predict(X), subject.fitted.predict(X)
    classes = list(subject.fitted.classes_)
    words = np.array([names[classes.index(e)] if e in classes else "none" for e in expected])
    bad = predicted != words
    if bad.any():
        rule = "estimator must predict classes by the names used in fit"
        got = f"got {predicted[bad][0]!r} rather than {str(words[bad][0])!r}"
        yield BrokenPromise("labels", f"{rule}, {got}", subject.rows(bad))


def pickles(subject: ClassifierSubject) -> Found:
    """A pickled copy returns the same values."""
    yield from alike("pickle", subject, pickled)


def saves(subject: ClassifierSubject) -> Found:
    """An estimator that was saved and loaded returns the same values."""
    if not hasattr(subject.fitted, "save"):
        return

    def there_and_back(fitted: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "saved")
            fitted.save(path)
            return load(path, module=copy.deepcopy(getattr(fitted, "module", None)))

    yield from alike("save-and-load", subject, there_and_back)


def alike(promise: str, subject: ClassifierSubject, route: Callable[[Any], Any]) -> Found:
    """Differences between an estimator and its copy by this route."""
    found = differing(subject.answers(route(subject.fitted)), subject.answers(subject.fitted))
    for name, bad in found.items():
        rule = f"estimator must return bit-equal values after a {promise}"
        got = f"got other values of {name} for {int(bad.sum())} of {len(bad)}"
        yield BrokenPromise(promise, f"{rule}, {got}", subject.rows(bad))
        return


def pickled(fitted: Any) -> Any:
    """A copy, by way of a pickle."""
    return pickle.loads(pickle.dumps(fitted))  # noqa: S301 - made in this very line
