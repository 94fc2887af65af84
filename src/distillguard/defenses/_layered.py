"""The estimator: a classifier with layers and detectors, which may reject inputs."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .._copies import copied
from .._data import Spec, examples
from .._modes import borrowed, dtype_of, fitted_to, isolated_random_state, on_cpu
from .._processes import joined as processes
from .._random import draw_seed
from .._rejection import rejects
from .._validation import check_share
from .._words import described
from ..estimators import UndefendedClassifier
from ..estimators._calibration import joint_thresholds
from ..estimators._classifier import NetworkClassifier
from ..estimators._logits import logits_of
from ..estimators._rejecting import RejectingClassifier
from ..estimators._run import feature_names, held_out
from ..networks._wrappers import scaled_as_saved
from ..persistence._networks import no_larger_than
from ._detector import Detector
from ._network import LayeredNetwork

_BATCH = 256


class LayeredDefense(RejectingClassifier):
    """Classifier with input transformations and detectors, which may reject an input.

    Inputs pass through the layers in order before they are classified. Each detector scores every
    input, and an input is rejected if any score exceeds its detector's threshold. The thresholds
    are set jointly, so that all detectors together reject the requested share of clean examples.

    Parameters
    ----------
    estimator : estimator, nn.Module or None, default=None
        The classifier. A fitted estimator of this package, or a module that returns logits and is
        already trained, is used as it is. An unfitted estimator is cloned and trained on the
        original inputs, without the layers. None is
        :class:`~distillguard.UndefendedClassifier`.
    layers : sequence of nn.Module, default=()
        Transformations of the inputs, such as :class:`~distillguard.defenses.BitDepth`, or any
        module that keeps their shape.
    detectors : sequence of Detector, default=()
        Detectors that may reject an input, such as
        :class:`~distillguard.defenses.FeatureSqueezing`. They are copied, never modified.
    false_positive_rate : float, default=0.05
        Share of clean examples to reject, in (0, 1).
    rejected_label : int or str, default=-1
        What ``predict`` returns for a rejected input: a number that is not one of the classes; if
        classes are strings, a string.
    calibration_fraction : float, default=0.2
        Share of the examples that ``fit`` holds out from training to set the thresholds, in (0, 1).
        Used only if there are detectors and something is trained.
    random_state : int, RandomState or None, default=None
        Seed of the splits of the examples, and of the training of parts that have no seed
        themselves.

    Attributes
    ----------
    false_alarms_ : (int, int)
        Number of clean examples rejected among those not used to set the thresholds, and how many
        of those there are.
    model_ : LayeredNetwork
        The whole defence as one module, whose last logit is rejection, as its attribute ``rejects``
        declares.
    thresholds_ : ndarray of shape (n_detectors,)
        Scores above which a detector rejects.
    false_positive_rate_ : float
        Share rejected among the clean examples not used to set the thresholds; NaN if there are
        none.
    false_positive_interval_ : tuple of float
        The 95 % Clopper-Pearson interval of ``false_positive_rate_``.
    classes_ : ndarray of shape (n_classes,)
        The classes, in the order of the logits.
    n_features_in_ : int
        Numbers in one example.
    input_shape_ : tuple of int
        Shape of one example.

    See Also
    --------
    distillguard.evaluate : Attack the whole defence.

    Notes
    -----
    A random half of the clean examples sets the thresholds and the other half gives the interval,
    which is therefore valid for new examples. A rejected example counts as wrong in ``score``.

    Examples
    --------
    >>> from distillguard import LayeredDefense, UndefendedClassifier, datasets
    >>> from distillguard.defenses import BitDepth, MaximumProbability
    >>> X, y = datasets.load_digits("train")
    >>> guard = LayeredDefense(
    ...     UndefendedClassifier(max_epochs=10, random_state=0),
    ...     [BitDepth(3)],
    ...     [MaximumProbability()],
    ...     random_state=0,
    ... ).fit(X, y)
    >>> X_test, y_test = datasets.load_digits("test")
    >>> rejected = guard.predict(X_test) == -1
    >>> bool(0 < rejected.mean() < 0.15)
    True
    """

    _PARTS = ("layers", "detectors")
    """Parameters without which a save would be of something else."""

    model_: nn.Module
    estimator: Any
    layers: Sequence[nn.Module]
    detectors: Sequence[Detector]
    false_positive_rate: float
    calibration_fraction: float
    random_state: Any

    def __init__(
        self,
        estimator: Any = None,
        layers: Sequence[nn.Module] = (),
        detectors: Sequence[Detector] = (),
        *,
        false_positive_rate: float = 0.05,
        rejected_label: Any = -1,
        calibration_fraction: float = 0.2,
        random_state: Any = None,
    ) -> None:
        self._keep(locals())

    @property
    def thresholds_(self) -> NDArray[Any]:
        """Scores above which a detector rejects: (n_detectors,)."""
        thresholds: Tensor = self._layered().thresholds
        return thresholds.cpu().numpy()

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the parts that are not fitted and calibrate the thresholds on held-out examples.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), DataLoader, Dataset or pair (X, y)
            Training examples, or something that yields pairs (inputs, labels). They are held in
            memory.
        y : array or Tensor of shape (n,), optional
            Classes; None when ``X`` yields pairs.

        Returns
        -------
        LayeredDefense
            The estimator itself.

        Raises
        ------
        TypeError
            If a parameter, the data or what a loader yields has the wrong type.
        ValueError
            If a parameter is out of its range, or the data is empty, not finite or of one class
            only.
        """
        self._check()
        names = feature_names(self, X, y)
        opened = examples(X, y, learn_classes=True)
        _, inputs, labels = opened.whole(torch.get_default_dtype())
        classes = opened.spec.classes
        targets = labels.numpy() if classes is None else np.asarray(classes)[labels.numpy()]
        seed = self._seed()
        with isolated_random_state([], seed):
            held = self._held_out(labels)
            network, classes = self._trained(inputs[~held], targets[~held], seed)
            self._check_rejected_label(classes)
            detectors = _copies(self.detectors)
            for detector in detectors:
                if not detector.fitted:
                    detector.fit(inputs[~held].float())
            model = _whole(network, _copies(self.layers), detectors)
            rate = self._calibrated(model, inputs[held] if bool(held.any()) else inputs)
        self._keep_learned(model, classes, tuple(inputs.shape[1:]), rate)
        self.__dict__.pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = names
        return self

    def calibrate(self, X: Any) -> Self:
        """Set the thresholds on clean examples, without any training.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Clean examples that no part was trained on. Labels are ignored. One half sets the
            thresholds, the other measures the false-positive rate.

        Returns
        -------
        LayeredDefense
            The estimator itself.

        Raises
        ------
        NotFittedError
            If the estimator or a detector is not fitted.
        ValueError
            If a parameter is out of its range, or the data is empty or not finite.
        """
        self._check()
        shape = getattr(self, "input_shape_", None) or getattr(self.estimator, "input_shape_", None)
        opened = examples(X, labelled=False, spec=Spec(shape=shape))
        _, inputs, _ = opened.whole(torch.get_default_dtype())
        if hasattr(self, "model_"):
            model, classes = cast(LayeredNetwork, copied(self.model_)), self.classes_
        else:
            if not _is_fitted(self.estimator):
                raise NotFittedError(
                    "estimator must be fitted for calibrate, which trains nothing; call fit"
                )
            for detector in self.detectors:
                if not detector.fitted:
                    raise NotFittedError(
                        "detectors must be fitted for calibrate, which trains nothing, got "
                        f"{described(detector)}; call fit, or the detector's own"
                    )
            network, classes = self._trained(inputs, None, 0)
            self._check_rejected_label(classes)
            model = _whole(network, _copies(self.layers), _copies(self.detectors))
        with isolated_random_state([], self._seed()):
            rate = self._calibrated(model, inputs)
        self._keep_learned(model, classes, tuple(inputs.shape[1:]), rate)
        return self

    def suspicion(self, X: Any) -> NDArray[Any]:
        """Return the scores of the detectors, to be compared with ``thresholds_``.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_detectors)
            Scores, in the order of ``detectors``.
        """
        check_is_fitted(self)
        opened = examples(X, labelled=False, spec=Spec(shape=self.input_shape_))
        _, inputs, _ = opened.whole(torch.get_default_dtype())
        return _parts(self._layered(), inputs)[1].numpy()

    @property
    def module(self) -> Any:
        """The factory of the classifier's network, for saving."""
        return self.estimator if isinstance(self.estimator, nn.Module) else self._inner().module

    @module.setter
    def module(self, builder: Any) -> None:
        if isinstance(self.estimator, NetworkClassifier):
            self.estimator.module = builder
        elif isinstance(builder, nn.Module):
            self.estimator = builder
        elif builder is not None:
            self.estimator = UndefendedClassifier(builder)

    def _inner(self) -> Any:
        return UndefendedClassifier() if self.estimator is None else self.estimator

    def _layered(self) -> LayeredNetwork:
        check_is_fitted(self)
        assert isinstance(self.model_, LayeredNetwork)
        return self.model_

    def _seed(self) -> int:
        """The seed of the first process, in all processes."""
        if self.random_state is None:
            seed = draw_seed(None) % 2**31
        else:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return int(processes().broadcast(seed))

    def _check(self) -> None:
        for name in ("false_positive_rate", "calibration_fraction"):
            check_share(name, getattr(self, name))
        for name, kind, what in (("layers", nn.Module, "modules"), ("detectors", Detector, "")):
            held = getattr(self, name)
            for each in held if isinstance(held, list | tuple) else [held]:
                if not isinstance(each, kind):
                    raise TypeError(
                        f"{name} must be a list or tuple of {what or 'instances of Detector'}, got "
                        f"{described(each)}"
                    )
        inner = self.estimator
        if isinstance(inner, RejectingClassifier) or rejects(inner):
            raise TypeError(
                "estimator must answer every input by a class, got one that may reject by itself, "
                f"{described(inner)}; let the detectors reject"
            )
        if not (inner is None or isinstance(inner, nn.Module | NetworkClassifier)):
            raise TypeError(
                "estimator must be None, an estimator of distillguard or a module, got "
                f"{described(inner)}"
            )

    def _held_out(self, labels: Tensor) -> Tensor:
        """Examples held out from training: none without thresholds to set or parts to train."""
        trains = not _is_fitted(self.estimator) or not all(each.fitted for each in self.detectors)
        count = max(1, round(self.calibration_fraction * len(labels)))
        return held_out(labels, count if self.detectors and trains else 0)

    def _trained(self, inputs: Tensor, targets: Any, seed: int) -> tuple[nn.Module, NDArray[Any]]:
        """A copy of the classifier's network, and its classes."""
        if isinstance(self.estimator, nn.Module):
            network = copied(self.estimator).eval()
            width = logits_of(network, inputs[:2], "estimator").shape[1]
            return network, np.arange(width)
        inner = self.estimator
        if not _is_fitted(inner):
            inner = clone(self._inner())
            if inner.random_state is None:
                inner.set_params(random_state=seed)
            inner.fit(inputs, targets)
        return copied(inner.model_), inner.classes_

    def _calibrated(self, model: LayeredNetwork, inputs: Tensor) -> tuple[int, int]:
        """Set the thresholds on one half; return the false positives in the other, and its size."""
        model.eval()
        order = torch.randperm(len(inputs), device="cpu")
        middle = (len(inputs) + 1) // 2
        logits, scores = _parts(model, inputs[order[:middle]])
        if not scores.isfinite().all():
            raise ValueError("detectors must give finite scores, got NaN or infinity")
        model.calibrate(joint_thresholds(scores, self.false_positive_rate), logits, scores)
        rest = inputs[order[middle:]]
        alarms = 0
        for batch in rest.split(_BATCH):
            answers = logits_of(model, batch, "estimator")
            alarms += int((answers.argmax(dim=1) == answers.shape[1] - 1).sum())
        return alarms, len(rest)

    def _keep_learned(
        self, model: nn.Module, classes: Any, shape: tuple[int, ...], rate: tuple[int, int]
    ) -> None:
        self.model_, self.classes_, self.input_shape_ = model, classes, shape
        self.n_features_in_ = int(np.prod(shape))
        self.false_alarms_ = rate

    def _assembled(
        self, attribute: str, network: nn.Module, saved: Mapping[str, Tensor]
    ) -> nn.Module:
        """The defence around a classifier's network, as it was saved."""
        prefix = "network."
        inside = [name.removeprefix(prefix) for name in saved if name.startswith(prefix)]
        detectors = _copies(self.detectors)
        with no_larger_than(saved), on_cpu():
            for detector in detectors:
                detector.build(self.input_shape_)
        return LayeredNetwork(scaled_as_saved(network, inside), _copies(self.layers), detectors)


def _copies(parts: Sequence[nn.Module]) -> list[Any]:
    return [deepcopy(part) for part in parts]


def _whole(network: nn.Module, layers: list[Any], detectors: list[Any]) -> LayeredNetwork:
    """All examples, in the dtype of the classifier."""
    dtype = dtype_of(network, torch.get_default_dtype())
    return LayeredNetwork(
        network, *([part.to(dtype) for part in each] for each in (layers, detectors))
    )


def _is_fitted(estimator: Any) -> bool:
    return isinstance(estimator, nn.Module) or hasattr(estimator, "model_")


def _parts(model: LayeredNetwork, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and scores of all inputs, on the CPU."""
    with borrowed(model, gradients=False):
        parts = [model.parts(fitted_to(model, batch)) for batch in inputs.split(_BATCH)]
    logits, scores = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return logits.float(), scores.float()
