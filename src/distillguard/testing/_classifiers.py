"""What an estimator promises to whoever fits, asks, copies or saves it."""

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
    """Test what others take for granted of an estimator that classifies.

    Clones are fitted, some eight times, with ``random_state=0`` where they take a seed; the
    estimator itself is left alone. These are scikit-learn's conventions as far as they matter to
    an attack or an evaluation, and promises of this package beside them; scikit-learn's own
    ``parametrize_with_checks`` has many more. Promises about a method are tested where the
    estimator has it.

    ======================  ====================================================================
    promise                 kept by an estimator that
    ======================  ====================================================================
    ``parameters``          keeps the arguments of its constructor as they are
    ``fit``                 returns itself from ``fit``, with ``classes_``, ``n_features_in_``
    ``unfitted``            raises NotFittedError before ``fit``
    ``parameters-kept``     changes no parameter in ``fit``, and no network that is one
    ``inputs-kept``         writes into neither X nor y, in ``fit`` and in every answer
    ``answers``             returns the shapes of scikit-learn, and predicts members of ``classes_``
    ``repeatable``          answers a question twice in the same way
    ``generators-kept``     leaves the global random generators alone
    ``seeds``               learns the same with the same ``random_state``, bit for bit
    ``probabilities``       returns probabilities that sum to 1
    ``agreement``           predicts the largest probability and decision, and scores by that
    ``soft-labels``         returns ``soft_labels`` that sum to 1 at each temperature
    ``batch-independence``  answers an example alike alone and in any order
    ``other-shape``         refuses examples of another shape
    ``labels``              predicts classes under the names that they were given, text too
    ``refused-fit``         refuses infinity and missing labels, and then has written nothing
    ``clone``               has an unfitted clone that shares no network
    ``pickle``              answers bit for bit alike after a pickle
    ``save-and-load``       answers bit for bit alike after ``save`` and ``load``
    ======================  ====================================================================

    Parameters
    ----------
    estimator : estimator
        A classifier of this package or of another, with few epochs: it need not learn much.
    X : array or Tensor of shape (n, ...), optional
        Examples, floating. If not given, sixty of four numbers in [0, 1] and three classes.
    y : array or Tensor of shape (n,), optional
        Their classes.
    skip : str or collection of str, default=()
        Promises that the estimator does not make.

    Raises
    ------
    BrokenPromiseError
        If a promise broke; the message names each, with an example where one shows it.
    TypeError
        If ``estimator`` has no ``fit`` or ``predict``.
    ValueError
        If X comes without y, or ``skip`` names no promise.

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
      probabilities: estimator must return rows that sum to 1 from predict_proba, none below 0...
    """
    if isinstance(estimator, type) or not all(hasattr(estimator, n) for n in ("fit", "predict")):
        raise TypeError(f"estimator must be one with fit and predict, got {described(estimator)}")
    if (X is None) != (y is None):
        raise ValueError(f"X and y must be given together, got {'y' if X is None else 'X'} alone")
    with torch.random.fork_rng(devices=[]), other_generators_kept():
        run(CHECKS, ClassifierSubject.of(estimator, X, y), "estimator", skip)
