"""One fit of an estimator: its data, its runtime, and the stages that train its networks."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import functional
from .._data._batch import Batch, Source
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
from ._settings import TrainingSettings
from ._training_data import TrainingData


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
