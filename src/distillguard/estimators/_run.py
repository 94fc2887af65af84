"""One fit of an estimator: its data, its runtime, and the stages that train its networks."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data
from torch import Tensor, nn

from .. import functional
from .._copies import copied
from .._data import Spec, examples
from .._data._batch import Batch, Source
from .._data._sources import StreamSource, TensorSource, classes_in, source_of
from .._identity import Description
from ..exceptions import DivergenceError
from ..training import (
    BatchLosses,
    Checkpoints,
    Epoch,
    Objective,
    Plan,
    Runtime,
    data_of,
    make_optimizer,
    make_scheduler,
    scaled_head,
    settings_of,
    train,
    weights_of,
)
from ._logits import logits_of
from ._settings import TrainingSettings


class TrainingData(NamedTuple):
    """Training examples and those to validate with, and what they have in common."""

    source: Source
    validation: Source | None
    spec: Spec
    """Classes and shape, to which all other data is held."""

    feature_names: NDArray[Any] | None


class TrainingRun:
    """The networks of one fit in training: their data, the runtime and the history."""

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        settings: TrainingSettings,
        data: TrainingData,
        runtime: Runtime,
        checkpoints: Checkpoints | None,
        seed: int,
        drawn: int,
    ) -> None:
        self.name, self.parameters, self.settings = name, parameters, settings
        self.source, self.validation, self.spec = data.source, data.validation, data.spec
        self.feature_names = data.feature_names
        self.runtime, self.checkpoints = runtime, checkpoints
        self.seed, self.drawn = seed, drawn
        self.networks: dict[str, nn.Module] = {}
        """The estimator's networks by attribute, once they are there."""
        self.learned: dict[str, Any] = {}
        """What else the estimator learns, by attribute."""
        self.history: list[Epoch] = []
        self.stage = ""
        """The last one that was trained."""

    @property
    def classes(self) -> NDArray[Any]:
        """The classes, in the order of the logits."""
        return np.asarray(self.spec.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        assert self.spec.shape is not None
        return self.spec.shape

    @property
    def inputs(self) -> Tensor:
        """Two examples to look at a network with."""
        return self.source.first().inputs[:2]

    def begin(self, prefit: nn.Module | None = None, **networks: nn.Module) -> None:
        """Give the networks the weights that the run of the checkpoint folder started from.

        Initial weights may differ from that run's; those of a ``prefit`` teacher may not.
        """
        if self.checkpoints is not None:
            start = {name: network.state_dict() for name, network in networks.items()}
            settings = self._settings(networks, prefit)
            stored = self.checkpoints.begin(settings, start, self.seed)
            for name, network in networks.items():
                network.load_state_dict(stored[name])

    def also(self, name: str, source: Source | None, *, labels: bool = True) -> None:
        """Compare data that only a stage uses with those of the run of the checkpoint folder."""
        if self.checkpoints is not None:
            self.checkpoints.also(name, data_of(source, labels=labels))

    def train(
        self,
        stage: str,
        network: nn.Module,
        objective: Objective,
        logit_scale: float = 1.0,
        source: Source | None = None,
    ) -> None:
        """Train ``network`` in place for one stage; ``scaled_head`` explains the scale."""
        settings, source, self.stage = self.settings, source or self.source, stage
        given = stage == "teacher" and self.parameters.get("teacher") is not None
        parameter = "teacher" if given else "module"
        if not any(weight.requires_grad for weight in network.parameters()):
            raise ValueError(
                f"{parameter} must have parameters to train, got none that needs a gradient"
            )
        plan = Plan(
            stage=stage,
            parameter=parameter,
            inputs=self.inputs,
            source=source,
            objective=objective,
            max_epochs=settings.max_epochs,
            seed=self.seed,
            validation=self.validation,
            stopping=settings.stopping(),
            gradient_clip=settings.gradient_clip,
            weight_averaging=settings.weight_averaging,
            callbacks=settings.callbacks,
            checkpoints=self.checkpoints,
            verbose=bool(settings.verbose),
        )
        with scaled_head(network, self.inputs, logit_scale):
            optimizer = make_optimizer(
                settings.optimizer, network.parameters(), settings.learning_rate
            )
            scheduler = make_scheduler(settings.lr_scheduler, optimizer, self._steps(source))
            try:
                self.history += train(network, optimizer, scheduler, plan, self.runtime)
            except DivergenceError as error:
                self.history += error.history[:-1]
                raise

    def _steps(self, source: Source) -> int:
        """Batches in all epochs; only a schedule needs to know."""
        if source.n_batches is None:
            if self.settings.lr_scheduler is not None:
                raise ValueError(
                    "lr_scheduler must be None for a data set without a length, "
                    f"got {self.settings.lr_scheduler!r}"
                )
            return 0
        return self.settings.max_epochs * source.n_batches

    def _settings(
        self, networks: Mapping[str, nn.Module], prefit: nn.Module | None
    ) -> dict[str, Description]:
        """What a run must have in common with the one whose checkpoints it resumes."""
        parameters = dict(self.parameters)
        if not isinstance(parameters["random_state"], Integral | None):
            parameters["random_state"] = f"a generator that draws {self.drawn}"
        sources = {"data": self.source, "validation data": self.validation}
        known = dict(networks) if prefit is None else {**networks, "teacher": prefit}
        settings: dict[str, Description] = {
            "estimator": self.name,
            "processes": str(self.runtime.processes.count),
            **settings_of(parameters, known, sources),
        }
        if prefit is not None:
            settings["weights of the teacher"] = weights_of(prefit)
        return settings


def hard_label_objective(temperature: float, smoothing: float = 0.0) -> Objective:
    """Cross-entropy of the softmax at a temperature with the true labels, smoothed or not."""

    def objective(network: nn.Module, batch: Batch) -> BatchLosses:
        logits = network(batch.inputs)
        scaled = logits / temperature
        losses = functional.smoothed_cross_entropy(scaled, batch.labels, smoothing)
        return BatchLosses(losses, logits)

    return objective


def training_data(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    validation: Any,
    sample_weight: Any,
    settings: TrainingSettings,
    seed: int,
) -> TrainingData:
    """Open and check everything before any work; nothing is written on the estimator."""
    names = feature_names(estimator, X, y)
    opened = examples(X, y, learn_classes=True)
    source = source_of(opened, settings.batch_size, seed)
    shape = tuple(source.first().inputs.shape[1:])
    classes = opened.spec.classes
    if classes is None:
        extra = sum(estimator._EXTRA_COLUMNS.values())
        classes = np.arange(_n_classes(source, estimator.module, extra))
        source = source.held_to(replace(opened.spec, classes=classes))
        if isinstance(source, TensorSource):
            classes_in(source)
    spec = Spec(classes, shape, columns=names)
    source = _weighted(source, sample_weight, settings.class_weight, classes)
    if validation is None:
        held: Source | None = None
        aside = estimator._keeps_aside() and isinstance(source, TensorSource)
        if settings.early_stopping or aside:
            rest, few = _held_out(source, settings)
            if few.n_examples:
                source, held = rest, few
            elif settings.early_stopping:
                raise ValueError(
                    "early_stopping must be False, or validation given, where every class has one "
                    f"example, which is there to be learned; got {settings.early_stopping!r}"
                )
    else:
        held = other_source("validation", validation, spec, settings.batch_size, seed)
    return TrainingData(source, held, spec, names)


def other_source(name: str, data: Any, spec: Spec, batch_size: int, seed: int) -> Source:
    """More labelled examples, held to the classes and the shape of the training examples."""
    opened = examples(data, name=name, label_name=f"labels in {name}", spec=spec)
    return source_of(opened, batch_size, seed)


def feature_names(estimator: BaseEstimator, X: Any, y: Any) -> NDArray[Any] | None:
    """The names of a table's columns; scikit-learn's own words where ``y`` is missing."""
    if isinstance(X, Tensor) or not hasattr(X, "shape"):
        return None
    if y is not None and np.ndim(y) == 2 and np.shape(y)[1] == 1:
        column_or_1d(y, warn=True)
    scratch = copy(estimator)  # it is written on
    validate_data(scratch, X, y, skip_check_array=True)
    return getattr(scratch, "feature_names_in_", None)


def _n_classes(source: TensorSource | StreamSource, module: Any, extra: int) -> int:
    """A module's width less columns that are no classes, or by a pass over the labels."""
    if isinstance(module, nn.Module):
        return logits_of(copied(module), source.first().inputs[:2]).shape[1] - extra
    return int(classes_in(source).max()) + 1


def _weighted(
    source: TensorSource | StreamSource, sample_weight: Any, class_weight: Any, classes: Any
) -> TensorSource | StreamSource:
    """The same examples, with what each counts in the loss."""
    if sample_weight is None and class_weight is None:
        return source
    if not isinstance(source, TensorSource):
        name = "class_weight" if sample_weight is None else "sample_weight"
        raise ValueError(
            f"{name} must be None for a stream of batches, got one; pass X and y in memory, or "
            "let a torch.utils.data.WeightedRandomSampler draw the examples"
        )
    labels = source.labels.numpy()
    weights = np.ones(len(labels))
    if sample_weight is not None:
        weights = _check_sample_weight(
            sample_weight, labels, dtype=np.float64, ensure_non_negative=True
        )
        if not weights.any():
            raise ValueError("sample_weight must hold at least one non-zero weight, got only zeros")
    if class_weight is not None:
        names = np.asarray(classes)
        by_class = compute_class_weight(class_weight, classes=names, y=names[labels])
        weights = weights * by_class[labels]
    if bool((weights < 0).any()) or not weights.any():
        raise ValueError(
            "class_weight must hold weights of 0 or more, and leave an example above 0, got "
            f"{class_weight!r}"
        )
    weights = weights / weights[weights > 0].mean()
    return source.weighted(torch.from_numpy(weights))


def _held_out(
    source: TensorSource | StreamSource, settings: TrainingSettings
) -> tuple[TensorSource, TensorSource]:
    """Split off the validation examples for early stopping, the same share of every class."""
    if not isinstance(source, TensorSource):
        raise ValueError(
            "early_stopping must be False with a DataLoader and no validation, got "
            f"{settings.early_stopping!r}"
        )
    n = source.n_examples
    held = max(1, round(settings.validation_fraction * n))
    if held >= n:
        raise ValueError(
            "validation_fraction must leave examples to train on, got "
            f"{settings.validation_fraction} of {n} examples"
        )
    chosen = held_out(source.own_labels(), held)
    rows = torch.arange(n, device="cpu")
    return source.subset(rows[~chosen]), source.subset(rows[chosen])


def held_out(labels: Tensor, count: int) -> Tensor:
    """Choose about ``count`` examples at random, the same share of every class: (n,) bool.

    Classes come one after another, at random within each, and evenly spaced examples of these are
    chosen; one that is alone in its class stays to be learned.
    """
    order = torch.randperm(len(labels), device="cpu")
    order = order[labels.bincount()[labels[order]] > 1]
    order = order[labels[order].argsort(stable=True)]
    count = min(count, len(order))
    chosen = torch.zeros(len(labels), dtype=torch.bool, device="cpu")
    places = (torch.arange(count, device="cpu") + 0.5) * len(order) / max(count, 1)
    chosen[order[places.long()]] = True
    return chosen
