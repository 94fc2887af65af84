"""One fit of an estimator: its data, its runtime, and the stages that train its networks."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import functional
from .._data._batch import Batch, Source
from ..exceptions import DivergenceError
from ..training import (
    Checkpoints,
    Epoch,
    Objective,
    Plan,
    Runtime,
    Scored,
    Stopping,
    head_in_units,
    make_optimizer,
    make_scheduler,
    train,
)

if TYPE_CHECKING:
    from ._base import NetworkClassifier

# What may differ where a run goes on from its checkpoints.
_FREE = {"callbacks", "checkpoint_dir", "device", "module", "teacher", "verbose"}


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
    ) -> None:
        self.estimator, self.runtime = estimator, runtime
        self.source, self.validation = source, validation
        self.checkpoints, self.seed = checkpoints, seed
        self.history: list[Epoch] = []

    def begin(self, prefit: nn.Module | None = None, **networks: nn.Module) -> None:
        """Give the networks the weights that the run of the checkpoint folder started from.

        Initial weights may differ from that run's; those of a ``prefit`` teacher may not.
        """
        if self.checkpoints is not None:
            start = {name: network.state_dict() for name, network in networks.items()}
            settings = self._settings(networks)
            if prefit is not None:
                settings["weights of the teacher"] = _digest(prefit.state_dict().values())
            stored = self.checkpoints.begin(settings, start, self.seed)
            for name, network in networks.items():
                network.load_state_dict(stored[name])

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
        given = stage == "teacher" and getattr(estimator, "teacher", None) is not None
        parameter = "teacher" if given else "module"
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError(
                f"{parameter} must have parameters to train, got none that needs a gradient"
            )
        inputs = self.source.first().inputs[:2]
        plan = Plan(
            stage=stage,
            parameter=parameter,
            inputs=inputs,
            source=source,
            objective=objective,
            max_epochs=int(estimator.max_epochs),
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
        return Stopping(int(self.estimator.patience), "accuracy" if wish == "accuracy" else "loss")

    def _steps(self, source: Source) -> int:
        """Batches in all epochs; only a schedule needs to know."""
        if source.n_batches is None:
            if self.estimator.lr_scheduler is not None:
                raise ValueError(
                    "lr_scheduler must be None for a data set without a length, "
                    f"got {self.estimator.lr_scheduler!r}"
                )
            return 0
        return int(self.estimator.max_epochs) * source.n_batches

    def _settings(self, networks: Mapping[str, nn.Module]) -> dict[str, str]:
        """What a run must have in common with the one whose checkpoints it goes on from."""
        parameters = self.estimator.get_params(deep=False).items()
        settings = {name: _described(value) for name, value in parameters if name not in _FREE}
        for name, network in networks.items():
            for key, value in network.state_dict().items():
                settings[f"{key} of the {name}"] = str(tuple(value.shape))
            # Layers without weights count too; where an object lies in memory does not.
            layers = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(network))
            settings[f"layers of the {name}"] = hashlib.sha256(layers.encode()).hexdigest()[:16]
        settings["estimator"] = type(self.estimator).__name__
        settings["processes"] = str(self.runtime.processes.count)
        settings["number of batches"] = str(self.source.n_batches)
        for name, source in (("data", self.source), ("validation data", self.validation)):
            if source is not None and source.identified:
                settings[name] = _digest(
                    part for batch in source.in_order() for part in (batch.inputs, batch.labels)
                )
        return settings


def hard_label_objective(temperature: float) -> Objective:
    """Cross-entropy of the softmax at a temperature with the true labels."""

    def objective(network: nn.Module, batch: Batch) -> Scored:
        logits = network(batch.inputs)
        return Scored(functional.cross_entropy(logits / temperature, batch.labels), logits)

    return objective


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _described(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__name__)
