"""Promises of an estimator about fitting: what is kept, what is written, what is refused."""

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from ._classifier_subject import ClassifierSubject, differing, modules, told
from ._promises import BrokenPromise
from ._traces import generators, stirred, traces

Found = Iterator[BrokenPromise]


def parameters(subject: ClassifierSubject) -> Found:
    """Arguments are stored unchanged, and get_params returns what set_params received."""
    given = subject.fresh().get_params(deep=False)
    rule = "estimator must store the arguments of its constructor unchanged"
    made = type(subject.estimator)(**given)
    changed = [name for name, value in given.items() if getattr(made, name, None) is not value]
    if changed:
        got = f"got other objects for {' and '.join(changed)}"
        yield BrokenPromise("parameters", f"{rule}, {got}; check and convert them in fit")
        return
    back = subject.fresh().set_params(**given).get_params(deep=False)
    lost = [name for name, value in given.items() if back[name] is not value]
    if lost:
        rule = "estimator must return from get_params what set_params received"
        yield BrokenPromise("parameters", f"{rule}, got others for {' and '.join(lost)}")


def clones(subject: ClassifierSubject) -> Found:
    """A clone of a fitted estimator has its parameters, and has learned nothing."""
    twin, parent = clone(subject.fitted), subject.fitted
    rule = "clone of a fitted estimator must be unfitted and share no network"
    if told(twin):
        yield BrokenPromise("clone", f"{rule}, got {' and '.join(told(twin))}")
    ours, theirs = (modules(each.get_params(deep=False)) for each in (parent, twin))
    shared = [name for name, module in ours.items() if theirs.get(name) is module]
    if shared:
        yield BrokenPromise("clone", f"{rule}, got the same object as {' and '.join(shared)}")


def unfitted(subject: ClassifierSubject) -> Found:
    """Predicting before fit is an error."""
    for name in subject.answers(subject.fitted):
        fresh = subject.fresh()
        rule = f"estimator must raise NotFittedError from {name} before fit"
        try:
            getattr(fresh, name)(subject.given()[0])
        except NotFittedError:
            continue
        except Exception as error:
            got = f"got {type(error).__name__}: {error}"
        else:
            got = "got an output"
        yield BrokenPromise("unfitted", f"{rule}, {got}; call check_is_fitted(self)")


def fits(subject: ClassifierSubject) -> Found:
    """Fit returns the estimator, with the classes and the number of features."""
    fresh = subject.fresh()
    if fresh.fit(*subject.given()) is not fresh:
        yield BrokenPromise("fit", "estimator must return itself from fit, got another object")
    classes = np.unique(np.asarray(subject.y))
    learned = getattr(subject.fitted, "classes_", ())
    if not np.array_equal(learned, classes):
        rule = f"estimator must have its classes in classes_, sorted, {classes.tolist()}"
        yield BrokenPromise("fit", f"{rule}, got {np.asarray(learned).tolist()}")
    count = int(np.prod(np.shape(subject.X)[1:]))
    found = getattr(subject.fitted, "n_features_in_", None)
    if found != count:
        rule = f"estimator must have the number of features in n_features_in_, {count}"
        yield BrokenPromise("fit", f"{rule}, got {found}")


def parameters_kept(subject: ClassifierSubject) -> Found:
    """Fit changes no parameter, and no network that is one."""
    fresh = subject.fresh()
    before = fresh.get_params(deep=False)
    shown = {name: traces(module) for name, module in modules(before).items()}
    fresh.fit(*subject.given())
    changed = [
        name for name, value in fresh.get_params(deep=False).items() if value is not before[name]
    ]
    for name, trace in shown.items():
        found = traces(before[name])
        changed += [f"{name}: {part}" for part, value in found.items() if value != trace[part]]
    if changed:
        rule = "estimator must not change its parameters in fit, networks included"
        got = f"got changes in {' and '.join(changed)}; train a copy"
        yield BrokenPromise("parameters-kept", f"{rule}, {got}")


def inputs_kept(subject: ClassifierSubject) -> Found:
    """Neither fit nor a prediction writes into its inputs."""
    fresh, (X, y) = subject.fresh(), subject.given()
    calls: dict[str, Callable[[], Any]] = {"fit": lambda: fresh.fit(X, y)}
    for name in subject.answers(subject.fitted):
        calls[name] = partial(getattr(subject.fitted, name), X)
    calls["score"] = lambda: subject.fitted.score(X, y)
    for name, call in calls.items():
        call()
        for argument, now, then in (("X", X, subject.X), ("y", y, subject.y)):
            bad = (np.asarray(now) != np.asarray(then)).reshape(len(subject.y), -1).any(axis=1)
            if bad.any():
                rule = f"estimator must not write into {argument} in {name}"
                got = f"got other values in {int(bad.sum())} of {len(bad)} rows"
                yield BrokenPromise("inputs-kept", f"{rule}, {got}", subject.rows(bad))
                return


def seeds(subject: ClassifierSubject) -> Found:
    """The same random_state gives the same outputs, and a second fit starts afresh."""
    if "random_state" not in subject.fitted.get_params():
        return
    stirred()
    again = subject.trained()
    rule = "estimator must learn the same from the same examples with the same random_state"
    for what, other in (("another fit", again), ("a second fit", again.fit(*subject.given()))):
        found = differing(subject.answers(subject.fitted), subject.answers(other))
        for name, bad in found.items():
            got = f"got other values of {name} for {int(bad.sum())} of {len(bad)} after {what}"
            yield BrokenPromise("seeds", f"{rule}, {got}", subject.rows(bad))
            return


def generators_kept(subject: ClassifierSubject) -> Found:
    """With a seed, the global generators are not changed."""
    if "random_state" not in subject.fitted.get_params():
        return
    fresh = subject.fresh()
    for name, call in (
        ("fit", lambda: fresh.fit(*subject.given())),
        ("predict", lambda: subject.fitted.predict(subject.given()[0])),
    ):
        stirred()
        before = generators()
        call()
        changed = [each for each, state in generators().items() if state != before[each]]
        if changed:
            rule = f"estimator must not change the global random generators in {name}"
            got = f"got another state of {' and '.join(changed)}"
            yield BrokenPromise("generators-kept", f"{rule}, {got}")


def refused(subject: ClassifierSubject) -> Found:
    """A fit that is refused writes nothing, on an unfitted estimator or on a fitted one."""
    infinite, y = subject.given()
    infinite[-1] = np.inf
    cases = {"infinity in X": (infinite, y), "a missing label": (subject.X, y[1:])}
    for estimator in (subject.fresh(), subject.trained()):
        for name, data in cases.items():
            found = [*refusal(estimator, name, data), *written(subject, estimator, name, data)]
            if found:
                yield found[0]
                return


def refusal(estimator: Any, name: str, data: tuple[Any, Any]) -> Found:
    """Any outcome of a fit other than ValueError."""
    rule = f"estimator must refuse {name} with ValueError"
    try:
        copy.deepcopy(estimator).fit(*copy.deepcopy(data))
    except ValueError:
        return
    except Exception as error:
        yield BrokenPromise("refused-fit", f"{rule}, got {type(error).__name__}: {error}")
    else:
        yield BrokenPromise("refused-fit", f"{rule}, got no error")


def written(subject: ClassifierSubject, estimator: Any, name: str, data: Any) -> Found:
    """What a refused fit has changed."""
    learned = told(estimator)
    answers = subject.answers(estimator) if "classes_" in learned else {}
    with suppress(Exception):
        estimator.fit(*copy.deepcopy(data))
    rule = f"estimator must be unchanged after a fit that was refused for {name}"
    remedy = "set attributes when training is done"
    now = told(estimator)
    changed = sorted(now.keys() ^ learned.keys())
    changed += [each for each in learned if each in now and now[each] is not learned[each]]
    if changed:
        yield BrokenPromise("refused-fit", f"{rule}, got other {' and '.join(changed)}; {remedy}")
    elif answers:
        for method, bad in differing(answers, subject.answers(estimator)).items():
            got = f"got other values of {method}"
            yield BrokenPromise("refused-fit", f"{rule}, {got}; {remedy}", subject.rows(bad))
