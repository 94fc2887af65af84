"""What every estimator shares: data in, a network built and trained, predictions at T = 1 out."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import prod
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state, check_X_y
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .. import functional, networks
from .._data import PREDICTION_BATCH, Expected, Source, input_batches, seen_classes
from .._modes import borrowed, fitted_to, isolated_random_state
from .._random import draw_seed
from .._sources import TensorSource, source_of
from .._validation import (
    check_at_least,
    check_in_unit_interval,
    check_logits,
    check_positive,
)
from ..exceptions import DivergenceError
from ..training import Checkpoints, Epoch, Runtime
from ._fitting import Fitting
from ._nested import NestedParameters
from ._portable import Portable, networks_of

NetworkFactory: TypeAlias = Callable[[tuple[int, ...], int], nn.Module]
DTYPES = (np.float32, np.float64)


class NetworkClassifier(Portable, NestedParameters, ClassifierMixin, BaseEstimator):
    """A classifier whose predictions are those of one of its networks.

    Subclasses implement ``fit`` inside ``self._fitting(X, y)``; everything that looks at data
    or asks the network is here.
    """

    _predictor: ClassVar[str]
    """Name of the attribute that holds the network behind the predictions."""

    module: Any
    max_epochs: int
    batch_size: int
    optimizer: Any
    learning_rate: float
    lr_scheduler: Any
    early_stopping: Any
    validation_fraction: float
    patience: int
    gradient_clip: float | None
    weight_averaging: float | None
    callbacks: Any
    checkpoint_dir: Any
    device: str
    precision: str
    compile: bool
    warm_start: bool
    random_state: Any
    verbose: bool
    history_: list[Epoch]

    def _keep(self, given: dict[str, Any]) -> None:
        """Store the arguments of ``__init__``, as they are, under their own names."""
        for name in self._get_param_names():
            setattr(self, name, given[name])

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict classes at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``. Of pairs (inputs, labels) the inputs are used.

        Returns
        -------
        ndarray of shape (n,)
            Members of ``classes_``.
        """
        winners = torch.cat([logits.argmax(dim=1) for logits in self._logits_in_batches(X)])
        return self.classes_[winners.numpy()]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Predict the probability of each class: the softmax at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            Rows that sum to 1, in the order of ``classes_``.
        """
        return functional.softmax(self._logits(X).double()).numpy()

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the logits at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            Logits in the order of ``classes_``; for two classes the second less the first.
        """
        logits = self._logits(X)
        if logits.shape[1] == 2:
            return (logits[:, 1] - logits[:, 0]).numpy()
        return logits.numpy()

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy of ``predict`` on the given examples.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``.
        y : array or Tensor of shape (n,), optional
            True classes; taken from ``X`` when that yields pairs.
        sample_weight : array of shape (n,), optional
            Weights of the examples.

        Returns
        -------
        float
            Share of right predictions, in [0, 1].
        """
        if y is None and isinstance(X, DataLoader | Dataset):
            if sample_weight is not None:
                raise ValueError("sample_weight must be None when X yields pairs, got weights")
            return self._score_of_pairs(X)
        return float(super().score(X, np.asarray(y), sample_weight))

    def _score_of_pairs(self, X: Any) -> float:
        check_is_fitted(self)
        right = seen = 0
        expected = Expected(self.classes_, self.input_shape_)
        with isolated_random_state([], None):  # a loader that shuffles draws from it
            for batch in source_of(X, self.batch_size, 0).held_to(expected).in_order():
                logits = self._forward(getattr(self, self._predictor), batch.inputs)
                right += int((logits.argmax(dim=1) == batch.labels.cpu()).sum())
                seen += len(batch.labels)
        return right / seen

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check_parameters(self) -> None:
        """Refuse what training could not use; the data is checked afterwards."""
        check_at_least("max_epochs", self.max_epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("patience", self.patience, 1)
        check_positive("learning_rate", self.learning_rate)
        check_in_unit_interval("validation_fraction", self.validation_fraction)
        if self.validation_fraction in (0, 1):
            raise ValueError(
                f"validation_fraction must be above 0 and below 1, got {self.validation_fraction!r}"
            )
        if self.early_stopping not in (True, False, "loss", "accuracy"):
            raise ValueError(
                "early_stopping must be True, False, 'loss' or 'accuracy', got "
                f"{self.early_stopping!r}"
            )
        for callback in self.callbacks or ():
            if isinstance(callback, type) or not callable(getattr(callback, "on_epoch", None)):
                raise TypeError(
                    f"callbacks must hold objects with a method on_epoch, got {callback!r}"
                )
        if self.gradient_clip is not None:
            check_positive("gradient_clip", self.gradient_clip)
        if self.weight_averaging is not None:
            check_in_unit_interval("weight_averaging", self.weight_averaging)
        if self.warm_start and self.checkpoint_dir is not None:
            raise ValueError("warm_start must be False with checkpoint_dir, got True")

    @contextmanager
    def _fitting(self, X: Any, y: Any, validation: Any = None) -> Iterator[Fitting]:
        """Check parameters and data; inside, random numbers are the fit's own."""
        grads = torch.inference_mode(False), torch.enable_grad()
        with self._unchanged_if_refused(), grads[0], grads[1]:
            yield from self._prepared(X, y, validation)

    def _prepared(self, X: Any, y: Any, validation: Any) -> Iterator[Fitting]:
        self._check_parameters()
        runtime = Runtime(self.device, self.precision, self.compile)
        checkpoints, seed = None, None
        if self.checkpoint_dir is not None:
            checkpoints = Checkpoints(self.checkpoint_dir, runtime.processes)
            seed = checkpoints.seed
        seed = runtime.processes.agreed(self._seed() if seed is None else seed)
        last = dict(vars(self))
        with isolated_random_state(runtime.cuda, seed):
            source = self._training_source(X, y, seed)
            if self.warm_start and self._predictor in last:
                self._check_same_kind(last["classes_"], last["input_shape_"])
            held: Source | None
            if validation is None:
                source, held = self._held_out(source)
            else:
                held = self._other_source("validation", validation, seed)
            fitting = Fitting(self, runtime, source, held, checkpoints, seed)
            self.history_ = fitting.history
            yield fitting

    def _check_same_kind(self, classes: NDArray[Any], shape: tuple[int, ...]) -> None:
        """Refuse examples that the networks of the last fit cannot go on with."""
        remedy = "set warm_start=False to start anew"
        if self.input_shape_ != shape:
            raise ValueError(
                f"X must hold examples of shape {shape} as in the last fit with warm_start=True, "
                f"got {self.input_shape_}; {remedy}"
            )
        if not np.array_equal(self.classes_, classes):
            raise ValueError(
                f"y must hold the classes of the last fit with warm_start=True, "
                f"{classes.tolist()}, got {self.classes_.tolist()}; {remedy}"
            )

    @contextmanager
    def _unchanged_if_refused(self) -> Iterator[None]:
        """A fit that breaks off leaves what was fitted before, unless it is training's own fault.

        What a warm start trains is a copy, so that nothing but attributes has to be put back.
        """
        before = dict(vars(self))
        try:
            if self.warm_start:
                for name in networks_of(type(self)).keys() & vars(self).keys():
                    setattr(self, name, deepcopy(getattr(self, name)))
            yield
        except DivergenceError:
            raise
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _held_out(self, source: Source) -> tuple[Source, Source | None]:
        """Split off the validation examples for early stopping."""
        if not self.early_stopping:
            return source, None
        if not isinstance(source, TensorSource):
            raise ValueError(
                "early_stopping must be False with a DataLoader and no validation, got "
                f"{self.early_stopping!r}"
            )
        n = source.n_examples
        held = max(1, round(self.validation_fraction * n))
        if held >= n:
            raise ValueError(
                f"validation_fraction must leave examples to train on, got "
                f"{self.validation_fraction} of {n} examples"
            )
        order = torch.randperm(n)
        return source.subset(order[held:]), source.subset(order[:held])

    def _other_source(self, name: str, data: Any, seed: int) -> Source:
        """Check more labelled examples, for validation or training, against the training data."""
        if isinstance(data, DataLoader | Dataset):
            source = source_of(data, self.batch_size, seed).held_to(Expected(self.classes_))
        elif isinstance(data, tuple | list) and len(data) == 2:
            X, y = map(as_array, data)
            refuse_bytes(X)
            X, y = check_X_y(X, y, allow_nd=True, dtype=DTYPES)
            unknown = np.setdiff1d(y, self.classes_)
            if len(unknown):
                raise ValueError(f"{name} must hold known classes, got {unknown[0].item()!r}")
            indices = torch.from_numpy(np.searchsorted(self.classes_, y))
            source = TensorSource(as_tensor(X), indices, self.batch_size, seed)
        else:
            raise TypeError(
                f"{name} must be a DataLoader, a Dataset or a pair (X, y), got "
                f"{type(data).__name__}"
            )
        shape = tuple(source.first().inputs.shape[1:])
        if shape != self.input_shape_:
            raise ValueError(
                f"{name} must hold examples of shape {self.input_shape_} as X does, got {shape}"
            )
        return source

    def _training_source(self, X: Any, y: Any, seed: int) -> Source:
        """Check the training data; learn the classes and the shape of an example."""
        if y is None and isinstance(X, tuple) and len(X) == 2:
            X, y = X
        if isinstance(X, DataLoader | Dataset):
            if y is not None:
                raise ValueError("y must be None when X yields pairs (inputs, labels), got labels")
            source = source_of(X, self.batch_size, seed)
            self._learn_shape(source.first().inputs.shape[1:])
            self.classes_ = np.arange(self._n_classes(source))
            self.__dict__.pop("feature_names_in_", None)
            source = source.held_to(Expected(self.classes_))
            if isinstance(source, TensorSource):
                _refuse_one_class(source.labels.unique())
            return source

        X, y = as_array(X), as_array(y)
        refuse_bytes(X)
        X, y = validate_data(self, X, y, allow_nd=True, dtype=DTYPES)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        _refuse_one_class(self.classes_)
        self._learn_shape(X.shape[1:])
        return TensorSource(as_tensor(X), torch.from_numpy(indices), self.batch_size, seed)

    def _n_classes(self, source: Source) -> int:
        """The network's width, or by a pass over the labels without a network."""
        if isinstance(self.module, nn.Module):
            inputs = source.first().inputs[:2]
            return self._forward(deepcopy(self.module), inputs).shape[1]
        seen = seen_classes(source.in_order())
        _refuse_one_class(seen)
        return int(seen.max()) + 1

    def _learn_shape(self, shape: Sequence[int]) -> None:
        self.input_shape_ = tuple(shape)
        self.n_features_in_ = prod(shape)

    def _built(self, module: Any, source: Source) -> nn.Module:
        """Return a network of the estimator's own: copied, called for, or sized from the data."""
        if module is None:
            network: nn.Module = networks.mlp(self.input_shape_, len(self.classes_))
        elif isinstance(module, nn.Module):
            network = deepcopy(module)
        elif callable(module):
            network = module(self.input_shape_, len(self.classes_))
            if not isinstance(network, nn.Module):
                raise TypeError(
                    "module must be an nn.Module or a callable (input_shape, n_classes) -> "
                    f"nn.Module, got one that returns {type(network).__name__}"
                )
        else:
            raise TypeError(
                "module must be an nn.Module, a callable (input_shape, n_classes) -> nn.Module "
                f"or None, got {type(module).__name__}"
            )
        width = self._forward(network, source.first().inputs[:2]).shape[1]
        if width != len(self.classes_):
            raise ValueError(
                f"module must return one logit for each of the {len(self.classes_)} classes, "
                f"got {width}"
            )
        return network

    def _seed(self) -> int:
        """Draw the fit's seed; the global generator is not touched."""
        if self.random_state is None:
            return draw_seed(None)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _checked_batches(self, X: Any) -> Iterator[Tensor]:
        """Batches of what is to be predicted, checked against what was fitted."""
        if isinstance(X, DataLoader | Dataset):
            yield from map(Expected(shape=self.input_shape_).inputs, input_batches(X))
            return
        X = as_array(X)
        refuse_bytes(X)
        # An array is checked and converted some megabytes at a time: one mapped from a file is
        # then never in memory as a whole, whatever its dtype.
        streams = isinstance(X, np.ndarray) and X.ndim > 1 and len(X) > 0
        step = PREDICTION_BATCH * max(1, 2**20 // (PREDICTION_BATCH * self.n_features_in_))
        pieces = (X[i : i + step] for i in range(0, len(X), step)) if streams else [X]
        for piece in pieces:
            yield from input_batches(self._checked(piece))

    def _checked(self, X: Any) -> Tensor:
        if len(self.input_shape_) == 1:
            return as_tensor(validate_data(self, X, reset=False, dtype=DTYPES))
        X = check_array(X, allow_nd=True, dtype=DTYPES)
        if X.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X must have shape (n, {', '.join(map(str, self.input_shape_))}) as in fit, "
                f"got {X.shape}"
            )
        return as_tensor(X)

    def _logits_in_batches(self, X: Any, network: nn.Module | None = None) -> Iterator[Tensor]:
        """Logits of the predictor, or of another network, on the CPU in float32 at least."""
        check_is_fitted(self)
        asked = getattr(self, self._predictor) if network is None else network
        # Rows of a table travel in batches of one size: matrix products of different shapes
        # round differently, and a row's logits would depend on its company.
        size = PREDICTION_BATCH if len(self.input_shape_) == 1 else 1
        with borrowed(asked), torch.no_grad():
            for inputs in self._checked_batches(X):
                yield _ask(asked, filled(inputs, size))[: len(inputs)]

    def _logits(self, X: Any, network: nn.Module | None = None) -> Tensor:
        return torch.cat(list(self._logits_in_batches(X, network)))

    def _forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        with borrowed(network), torch.no_grad():
            return _ask(network, inputs)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor over the array's own memory, also where that is mapped read-only from a file."""
    with warnings.catch_warnings():
        # Nothing here writes to the data, so that it is read-only is no danger.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        # A view that runs backwards is nothing that torch knows.
        return torch.from_numpy(array if min(array.strides, default=0) >= 0 else array.copy())


def as_array(data: Any) -> Any:
    """A tensor as an array, in float32 where NumPy does not know the dtype; others as they are."""
    if not isinstance(data, Tensor):
        return data
    data = data.detach().cpu()
    return (data.float() if data.dtype == torch.bfloat16 else data).numpy()


def _refuse_one_class(classes: Any) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"y must hold at least two classes, got one class: {classes.tolist()[0]!r}"
        )


def filled(inputs: Tensor, size: int) -> Tensor:
    """Inputs with zeros below, up to ``size`` rows."""
    missing = max(0, size - len(inputs))
    return torch.cat([inputs, inputs.new_zeros(missing, *inputs.shape[1:])]) if missing else inputs


def _ask(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of one batch, checked, on the CPU."""
    logits = network(fitted_to(network, inputs))
    check_logits(logits, len(inputs), "module")
    return logits.cpu() if logits.element_size() >= 4 else logits.cpu().float()


def refuse_bytes(X: Any, name: str = "X") -> None:
    """Refuse images stored as bytes, which would be taken for numbers up to 255."""
    if getattr(X, "dtype", None) == np.uint8 and X.ndim > 2:
        raise TypeError(
            f"{name} must be floating point, got uint8 images; divide by 255, for instance "
            f"{name} / 255.0"
        )
