"""One fit of an estimator: its data, its runtime, and the stages that train its networks."""

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING

from torch import nn

from .. import functional
from .._data._batch import Batch, Source
from .._identity import Description
from ..exceptions import DivergenceError
from ..training import (
    Checkpoints,
    Epoch,
    Objective,
    Plan,
    Runtime,
    Scored,
    Stopping,
    data_of,
    head_in_units,
    make_optimizer,
    make_scheduler,
    settings_of,
    train,
    weights_of,
)

if TYPE_CHECKING:
    from ._base import NetworkClassifier


class Fitting:
    """One fit: its data, its runtime and the history that its stages write."""

    def __init__(
        self,
        estimator: "NetworkClassifier",
        runtime: Runtime,
        source: Source,
        validation: Source | None,
        checkpoints: Checkpoints | None,
        seed: int,
        drawn: int,
    ) -> None:
        self.estimator, self.runtime = estimator, runtime
        self.source, self.validation = source, validation
        self.checkpoints, self.seed, self.drawn = checkpoints, seed, drawn
        self.history: list[Epoch] = []

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
        logit_unit: float = 1.0,
        source: Source | None = None,
    ) -> None:
        """Train ``network`` in place for one stage; ``training/_head.py`` explains the unit."""
        estimator, source = self.estimator, source or self.source
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError("module must have parameters to train, got none that needs a gradient")
        inputs = self.source.first().inputs[:2]
        plan = Plan(
            stage=stage,
            source=source,
            objective=objective,
            max_epochs=estimator.max_epochs,
            seed=self.seed,
            validation=self.validation,
            stopping=self._stopping(),
            gradient_clip=estimator.gradient_clip,
            weight_averaging=estimator.weight_averaging,
            callbacks=tuple(estimator.callbacks or ()),
            checkpoints=self.checkpoints,
            verbose=bool(estimator.verbose),
        )
        with head_in_units(network, inputs, logit_unit):
            optimizer = make_optimizer(
                estimator.optimizer, network.parameters(), estimator.learning_rate
            )
            scheduler = make_scheduler(estimator.lr_scheduler, optimizer, self._steps(source))
            try:
                self.history += train(network, optimizer, scheduler, plan, self.runtime)
            except DivergenceError as error:
                self.history += error.history[:-1]
                raise

    def _stopping(self) -> Stopping | None:
        wish = self.estimator.early_stopping
        if not wish:
            return None
        return Stopping(self.estimator.patience, "accuracy" if wish == "accuracy" else "loss")

    def _steps(self, source: Source) -> int:
        """Batches in all epochs; only a schedule needs to know."""
        if source.n_batches is None:
            if self.estimator.lr_scheduler is not None:
                raise ValueError(
                    "lr_scheduler must be None for a data set without a length, "
                    f"got {self.estimator.lr_scheduler!r}"
                )
            return 0
        return self.estimator.max_epochs * source.n_batches

    def _settings(
        self, networks: Mapping[str, nn.Module], prefit: nn.Module | None
    ) -> dict[str, Description]:
        """What a run must have in common with the one whose checkpoints it goes on from."""
        parameters = self.estimator.get_params(deep=False)
        if not isinstance(parameters["random_state"], Integral | None):
            parameters["random_state"] = f"a generator that draws {self.drawn}"
        sources = {"data": self.source, "validation data": self.validation}
        known = dict(networks) if prefit is None else {**networks, "teacher": prefit}
        settings: dict[str, Description] = {
            "estimator": type(self.estimator).__name__,
            "processes": str(self.runtime.processes.count),
            **settings_of(parameters, known, sources),
        }
        if prefit is not None:
            settings["weights of the teacher"] = weights_of(prefit)
        return settings


def hard_label_objective(temperature: float) -> Objective:
    """Cross-entropy of the softmax at a temperature with the true labels."""

    def objective(network: nn.Module, batch: Batch) -> Scored:
        logits = network(batch.inputs)
        return Scored(functional.cross_entropy(logits / temperature, batch.labels), logits)

    return objective
