"""What every estimator is: one training run at a time, and the predictions of its network."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from .. import functional
from .._copies import computed_tensors_copied, copied, want_gradients_alike
from .._data import Examples, Spec, examples
from .._data._batch import PREDICTION_BATCH, Source
from .._modes import (
    borrowed,
    cpu_by_default,
    for_training,
    isolated_random_state,
    one_at_a_time,
)
from .._processes import joined as processes
from .._typing import NetworkFactory
from ..exceptions import DivergenceError
from ..networks import mlp
from ..networks._builders import built
from ..networks._wrappers import scaled_as_saved
from ..persistence._saving import save
from ..training import Checkpoints, Epoch, Runtime, multiply_logits
from ._keywords import keywords_of, split, with_keywords
from ._logits import batch_logits, filled, logits_of
from ._onnx import export
from ._run import TrainingRun, other_source, training_data
from ._settings import TrainingSettings


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose predictions are those of ``model_``, one of its networks.

    Subclasses implement ``fit`` inside ``self._run(X, y, ...)``, which writes nothing on the
    estimator before training has come to its end.
    """

    module: Any
    model_: Any
    classes_: NDArray[Any]
    input_shape_: tuple[int, ...]
    n_features_in_: int
    history_: list[Epoch]

    _default_module: ClassVar[NetworkFactory] = staticmethod(mlp)
    """What None makes for ``module``."""
    _EXTRA_COLUMNS: ClassVar[Mapping[str, int]] = {}
    """Logits beyond one for each class, by the attribute of a network that has some."""

    def _keep(self, given: dict[str, Any]) -> None:
        """Store the arguments of ``__init__``, as they are, under their own names."""
        for name in self._get_param_names():
            setattr(self, name, given[name])

    def __sklearn_clone__(self) -> Any:
        with computed_tensors_copied():
            clone = super().__sklearn_clone__()
        for name, value in self.get_params(deep=False).items():
            if isinstance(value, nn.Module):
                want_gradients_alike(value, getattr(clone, name))
        return clone

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict classes at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``. Of pairs (inputs, labels) the inputs are used.

        Returns
        -------
        ndarray of shape (n,)
            Members of ``classes_``.
        """
        winners = self._gathered(X, lambda logits: logits.argmax(dim=1))
        return self.classes_[winners]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Predict the probability of each class: the softmax at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            Rows that sum to 1, in the order of ``classes_``.
        """
        return self._gathered(X, lambda logits: functional.softmax(logits.double()))

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the logits at temperature 1.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            Logits in the order of ``classes_``; for two classes the second less the first.
        """
        check_is_fitted(self)
        if len(self.classes_) == 2:
            return self._gathered(X, lambda logits: logits[:, 1] - logits[:, 0])
        return self._gathered(X, lambda logits: logits)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy of ``predict`` on the given examples.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader, pair (X, y) or batches
            Examples like those of ``fit``.
        y : array or Tensor of shape (n,), optional
            True classes; taken from ``X`` when that yields pairs. One that ``fit`` has not seen
            counts as wrong, as scikit-learn counts it; among pairs it is refused.
        sample_weight : array of shape (n,), optional
            Weights of the examples, where these are in memory.

        Returns
        -------
        float
            Share of right predictions, in [0, 1].
        """
        check_is_fitted(self)
        spec = Spec(self.classes_, self.input_shape_, unknown=None if y is None else -1)
        opened = examples(X, y, spec=spec)
        if opened.memory is None and sample_weight is not None:
            raise ValueError("sample_weight must be None when X yields pairs, got weights")
        right = [logits.argmax(dim=1) == labels for logits, labels in self._answers(X, opened)]
        return float(np.average(torch.cat(right).numpy(), weights=sample_weight))

    def _gathered(
        self, X: Any, answer: Callable[[Tensor], Tensor], network: nn.Module | None = None
    ) -> NDArray[Any]:
        """What ``answer`` makes of the logits at ``X``, of ``model_`` or another network."""
        check_is_fitted(self)
        opened = examples(X, labelled=False, spec=Spec(shape=self.input_shape_))
        n = None if opened.memory is None else opened.n_examples
        return joined((answer(logits) for logits, _ in self._answers(X, opened, network)), n)

    def _answers(
        self, X: Any, opened: Examples, network: nn.Module | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits, on the CPU in float32 at least, and labels of what was opened."""
        table = X[0] if isinstance(X, tuple) else X
        if len(self.input_shape_) == 1 and hasattr(table, "shape") and np.ndim(table) == 2:
            validate_data(self, table, reset=False, skip_check_array=True)  # names and their number
        network = self.model_ if network is None else network
        # Rows of a table travel in batches of one size: matrix products of different shapes
        # round differently, and a row's logits would depend on the batch it is in.
        size = PREDICTION_BATCH if len(self.input_shape_) == 1 else 1
        with borrowed(network, gradients=False):
            for chunk in opened.chunks(PREDICTION_BATCH):
                logits = batch_logits(network, filled(chunk.inputs.contiguous(), size))
                yield logits[: len(chunk.inputs)], chunk.labels

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a folder, for :func:`distillguard.load` to read.

        The folder holds ``manifest.json`` (parameters, classes, history, the tensors of each
        network, its answers to a few made-up inputs) and one safetensors file for each
        network. A save that is there already is replaced in one stroke: killed at any moment,
        the folder holds the old one or the new; of saves at the same time it holds one.
        Under several processes the first one writes, and the others do not wait for it.

        Parameters
        ----------
        path : str or path
            The folder, made if need be.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        SaveError
            If the folder holds another program's ``manifest.json``, a network's state holds
            something other than tensors, or the estimator's class is not one of this package.

        See Also
        --------
        distillguard.load : Reads it.
        """
        check_is_fitted(self)
        if processes().first:
            save(self, path)

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network behind the predictions as ONNX, and check it in ONNX Runtime.

        The graph takes ``inputs``, float32 of shape (n, ...) for any n, and returns ``logits``,
        float32 of shape (n, n_classes) at temperature 1, in the order of ``classes_``, which
        are in the file's metadata as JSON under ``classes``.

        Parameters
        ----------
        path : str or path
            The file to write or replace. Nothing is left there if the check fails.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        MissingPackageError
            If onnx, onnxruntime or onnxscript is not installed: the extra ``onnx``.
        RuntimeError
            If ONNX Runtime's logits differ from torch's by more than 1e-4, or 1e-4 of the
            largest logit where that is above 1.

        Notes
        -----
        Networks trained in another precision are exported, and compared, in float32.
        """
        check_is_fitted(self)
        export(self.model_, self.input_shape_, path, self.classes_.tolist())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Include the keywords of partial functions, such as ``module__hidden``.

        Returns
        -------
        dict
            Names and values.
        """
        found: dict[str, Any] = super().get_params(deep=deep)
        return found | keywords_of(found) if deep else found

    def set_params(self, **params: Any) -> Self:
        """Set parameters, or keywords of those that are functions.

        ``set_params(module__hidden=(32,))`` makes ``module`` a partial function with that
        keyword; where ``module`` is None, one of :func:`distillguard.networks.mlp`.
        ``set_params(optimizer__weight_decay=5e-4)`` does the same to the optimiser of a name.

        Parameters
        ----------
        **params : dict
            New values by name.

        Returns
        -------
        estimator
            The estimator itself.

        Raises
        ------
        ValueError
            If a name is not a parameter, or a keyword is not one of the function.
        """
        plain, nested = split(params, self.get_params(deep=False))
        super().set_params(**plain)
        for parameter, keywords in nested.items():
            held = getattr(self, parameter)
            if parameter == "module" and held is None:
                held = self._default_module
            setattr(self, parameter, with_keywords(parameter, held, keywords))
        return self

    @contextmanager
    def _run(
        self, X: Any, y: Any, validation: Any = None, sample_weight: Any = None
    ) -> Iterator[TrainingRun]:
        """Check parameters and data; inside, random numbers are the run's own.

        What was learned is written on the estimator at the end. A run that breaks off leaves
        everything as it was; one that diverges leaves the last good networks.
        """
        # The runtime silences warnings, which it does for all threads at once.
        with one_at_a_time():
            parameters = self.get_params(deep=False)
            settings = TrainingSettings.of(parameters)
            self._check_parameters()
            runtime = Runtime(settings.device, settings.precision, settings.compile)
            checkpoints, seed = None, None
            if settings.checkpoint_dir is not None:
                checkpoints = Checkpoints(settings.checkpoint_dir, runtime.processes)
                seed = checkpoints.seed
            # A generator has to be drawn from in every run, or those after this one draw otherwise.
            drawn = settings.seed()
            seed = runtime.processes.broadcast(drawn if seed is None else seed)
            with isolated_random_state(runtime.cuda, seed), for_training(runtime.device):
                data = training_data(self, X, y, validation, sample_weight, settings, seed)
                if self._goes_on():
                    self._check_same_kind(data.spec)
                name = type(self).__name__
                run = TrainingRun(
                    name, parameters, settings, data, runtime, checkpoints, seed, drawn
                )
                try:
                    yield run
                except DivergenceError:
                    self._learn(run)
                    raise
                self._learn(run)

    def _check_parameters(self) -> None:
        """Refuse parameters of the subclass's own."""

    def _keeps_aside(self) -> bool:
        """Whether some examples are kept from training where early stopping needs none."""
        return False

    def _learn(self, run: TrainingRun) -> None:
        """Write down what a run has learned: the only place that does."""
        self.classes_, self.input_shape_ = np.asarray(run.spec.classes), run.input_shape
        self.n_features_in_ = int(np.prod(self.input_shape_))
        self.__dict__.pop("feature_names_in_", None)
        if run.feature_names is not None:
            self.feature_names_in_ = run.feature_names
        for attribute, value in (run.networks | run.learned).items():
            setattr(self, attribute, value)
        self.history_ = run.history
        self.n_iter_ = sum(record["stage"] == run.stage for record in run.history)

    def _goes_on(self) -> bool:
        """Whether networks of the last fit are trained further."""
        return bool(self.warm_start) and hasattr(self, "model_")

    def _check_same_kind(self, spec: Spec) -> None:
        """Refuse examples that the networks of the last fit cannot be trained on."""
        remedy = "set warm_start=False to start anew"
        if self.input_shape_ != spec.shape:
            raise ValueError(
                f"X must hold examples of shape {self.input_shape_} as in the last fit with "
                f"warm_start=True, got {spec.shape}; {remedy}"
            )
        classes = np.asarray(spec.classes)
        if not np.array_equal(self.classes_, classes):
            raise ValueError(
                "y must hold the classes of the last fit with warm_start=True, "
                f"{self.classes_.tolist()}, got {classes.tolist()}; {remedy}"
            )

    def _network(
        self,
        run: TrainingRun,
        attribute: str,
        module: Any,
        unit: float = 1.0,
        parameter: str = "module",
    ) -> nn.Module:
        """A network of the run's own: that of the last fit with `warm_start`, or a new one.

        The logits of a new one are multiplied by ``unit``; messages call it ``parameter``.
        """
        if self._goes_on():
            network: nn.Module = copied(getattr(self, attribute))
        else:
            extra = self._EXTRA_COLUMNS.get(attribute, 0)
            builder = self._default_module if module is None else module
            network = built(parameter, builder, run.input_shape, len(run.classes) + extra)
            if not cpu_by_default():
                # What it makes while it computes lies there as well: move it before it is asked.
                network.to(run.runtime.device)
            width = logits_of(network, run.inputs, parameter).shape[1]
            if width != len(run.classes) + extra:
                raise ValueError(
                    f"{parameter} must return one logit for each of the {len(run.classes)} "
                    f"classes{' and one for rejection' * extra}, got {width}"
                )
            network = multiply_logits(network, run.inputs, unit, parameter)
        run.networks[attribute] = network
        return network

    def _assembled(
        self, attribute: str, network: nn.Module, saved: Mapping[str, Tensor]
    ) -> nn.Module:
        """What the tensors of a save belong to, around a network as ``module`` makes it."""
        return scaled_as_saved(network, saved)

    def _other_source(self, run: TrainingRun, name: str, data: Any) -> Source:
        """More labelled examples for a run."""
        return other_source(name, data, run.spec, run.settings.batch_size, run.seed)


def joined(parts: Iterable[Tensor], n: int | None = None) -> NDArray[Any]:
    """Join parts (m, ...) as they come, into one array of ``n`` rows or one that doubles.

    Thousands of small parts kept until the end would leave memory in pieces that nothing fits.
    """
    whole, end = np.empty(0), 0
    for part in parts:
        rows = part.numpy()
        if end + len(rows) > len(whole):
            larger = np.empty(
                (n or max(2 * len(whole), end + len(rows)), *rows.shape[1:]), rows.dtype
            )
            if end:
                larger[:end] = whole[:end]
            whole = larger
        whole[end : end + len(rows)] = rows
        end += len(rows)
    return whole if end == len(whole) else whole[:end].copy()
