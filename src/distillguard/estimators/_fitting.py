"""One fit of an estimator: its data, its runtime, and the stages that train its networks."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .. import functional
from .._data import Batch, Source
from ..training import (
    Epoch,
    Objective,
    Plan,
    Runtime,
    Stopping,
    head_in_units,
    make_optimizer,
    make_scheduler,
    train,
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
    ) -> None:
        self.estimator, self.runtime = estimator, runtime
        self.source, self.validation = source, validation
        self.history: list[Epoch] = []

    def train(
        self, stage: str, network: nn.Module, objective: Objective, logit_unit: float = 1.0
    ) -> None:
        """Train ``network`` in place for one stage; ``training/_head.py`` explains the unit."""
        estimator, inputs = self.estimator, self.source.first().inputs[:2]
        stopping = None
        if self.validation is not None:
            stopping = Stopping(self.validation, estimator.patience)
        plan = Plan(
            stage=stage,
            source=self.source,
            objective=objective,
            max_epochs=estimator.max_epochs,
            stopping=stopping,
            callbacks=tuple(estimator.callbacks or ()),
            verbose=bool(estimator.verbose),
        )
        with head_in_units(network, inputs, logit_unit):
            optimizer = make_optimizer(
                estimator.optimizer, network.parameters(), estimator.learning_rate
            )
            scheduler = make_scheduler(estimator.lr_scheduler, optimizer, self._steps())
            self.history += train(network, optimizer, scheduler, plan, self.runtime)

    def _steps(self) -> int:
        """Batches in all epochs; only a schedule needs to know."""
        if self.source.n_batches is None:
            if self.estimator.lr_scheduler is not None:
                raise ValueError(
                    "lr_scheduler must be None for a data set without a length, "
                    f"got {self.estimator.lr_scheduler!r}"
                )
            return 0
        return self.estimator.max_epochs * self.source.n_batches


def hard_label_objective(temperature: float) -> Objective:
    """Cross-entropy of the softmax at a temperature with the true labels."""

    def objective(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(batch.inputs)
        return functional.cross_entropy(logits / temperature, batch.labels), logits

    return objective
