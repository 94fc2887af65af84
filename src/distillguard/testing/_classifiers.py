"""Promises of an estimator about fitting, predicting, copying and saving."""

from collections.abc import Collection
from typing import Any

import torch

from .._words import described
from . import _learning, _predicting
from ._classifier_subject import ClassifierSubject
from ._promises import Check, run
from ._traces import other_generators_kept

CHECKS: list[Check[ClassifierSubject]] = [
    Check("parameters", _learning.parameters),
    Check("fit", _learning.fits, ("parameters",)),
    Check("unfitted", _learning.unfitted, ("fit",)),
    Check("parameters-kept", _learning.parameters_kept, ("fit",)),
    Check("inputs-kept", _learning.inputs_kept, ("fit",)),
    Check("answers", _predicting.answers, ("fit",)),
    Check("repeatable", _predicting.repeatable, ("answers",)),
    Check("generators-kept", _learning.generators_kept, ("fit",)),
    Check("seeds", _learning.seeds, ("answers", "repeatable", "parameters-kept")),
    Check("probabilities", _predicting.probabilities, ("answers", "repeatable")),
    Check("agreement", _predicting.agreement, ("answers", "repeatable")),
    Check("soft-labels", _predicting.soft_labels, ("answers", "repeatable")),
    Check("batch-independence", _predicting.batch_independence, ("answers", "repeatable")),
    Check("other-shape", _predicting.other_shape, ("answers",)),
    Check("labels", _predicting.labels, ("answers", "repeatable", "seeds")),
    Check("refused-fit", _learning.refused, ("answers", "repeatable")),
    Check("clone", _learning.clones, ("fit",)),
    Check("pickle", _predicting.pickles, ("answers", "repeatable")),
    Check("save-and-load", _predicting.saves, ("answers", "repeatable")),
]


def check_classifier(
    estimator: Any, X: Any = None, y: Any = None, *, skip: str | Collection[str] = ()
) -> None:
    """Test that a classifier has the properties that attacks and evaluations rely on.

    Clones are fitted, about eight times, with ``random_state=0`` if they take a seed; the
    estimator itself is not changed. The promises are those conventions of scikit-learn that
    matter to an attack or an evaluation, and some of this package; scikit-learn's own
    ``parametrize_with_checks`` has many more. A promise about a method is tested only if the
    estimator has that method.

    ======================  ====================================================================
    promise                 kept by an estimator that
    ======================  ====================================================================
    ``parameters``          stores the arguments of its constructor unchanged
    ``fit``                 returns itself from ``fit``, with ``classes_``, ``n_features_in_``
    ``unfitted``            raises NotFittedError before ``fit``
    ``parameters-kept``     does not change its parameters in ``fit``, networks included
    ``inputs-kept``         does not write into X or y, neither in ``fit`` nor in predictions
    ``answers``             returns scikit-learn's shapes, and predicts members of ``classes_``
    ``repeatable``          returns the same outputs for the same inputs
    ``generators-kept``     does not change the global random generators
    ``seeds``               learns bit for bit the same with the same ``random_state``
    ``probabilities``       returns probabilities that sum to 1
    ``agreement``           predicts the class of the largest probability, and scores it
    ``soft-labels``         returns ``soft_labels`` that sum to 1 at each temperature
    ``batch-independence``  returns the same for an example alone and in any order
    ``other-shape``         refuses examples of another shape
    ``labels``              predicts classes by the names used in ``fit``, strings too
    ``refused-fit``         refuses infinity and missing labels, without side effects
    ``clone``               has unfitted clones that share no network
    ``pickle``              returns bit-equal outputs after pickling
    ``save-and-load``       returns bit-equal outputs after ``save`` and ``load``
    ======================  ====================================================================

    Parameters
    ----------
    estimator : estimator
        A classifier, of this package or another; it need not learn much, so few epochs suffice.
    X : array or Tensor of shape (n, ...), optional
        Examples, floating. If not given, sixty of four numbers in [0, 1], in three classes.
    y : array or Tensor of shape (n,), optional
        Their classes.
    skip : str or collection of str, default=()
        Names of promises to leave out.

    Raises
    ------
    BrokenPromiseError
        If a promise is broken; the message names each, with an example if one shows it.
    TypeError
        If ``estimator`` has no ``fit`` or ``predict``.
    ValueError
        If X comes without y, or ``skip`` has a name that is not a promise.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from distillguard import UndefendedClassifier
    >>> from distillguard.testing import check_classifier
    >>> check_classifier(UndefendedClassifier(max_epochs=2))
    >>> class Careless(LogisticRegression):
    ...     def predict_proba(self, X):
    ...         return self.decision_function(X)
    >>> check_classifier(Careless(), skip=("pickle",))
    Traceback (most recent call last):
    distillguard.exceptions.BrokenPromiseError: estimator must keep its promises, got 1 of 19 broken
      probabilities: estimator must return rows from predict_proba that sum to 1, none below 0...
    """
    if isinstance(estimator, type) or not all(hasattr(estimator, n) for n in ("fit", "predict")):
        raise TypeError(f"estimator must be one with fit and predict, got {described(estimator)}")
    if (X is None) != (y is None):
        raise ValueError(f"X and y must be given together, got {'y' if X is None else 'X'} alone")
    with torch.random.fork_rng(devices=[]), other_generators_kept():
        run(CHECKS, ClassifierSubject.of(estimator, X, y), "estimator", skip)
