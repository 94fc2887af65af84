"""Papernot's control: labels softened by hand."""

from typing import Any

import torch
from torch import nn

from distillguard import UndefendedClassifier, functional
from distillguard._data._batch import Batch
from distillguard.training import BatchLosses


class Smoothed(UndefendedClassifier):
    """Papernot's control: hard labels softened by hand, without a teacher.

    His targets are 0.9 for the true class and 1 / (10 N) for each of the N - 1 others.
    """

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, validation: Any = None
    ) -> "Smoothed":
        """Train the network on the softened labels."""

        def objective(network: nn.Module, batch: Batch) -> BatchLosses:
            logits = network(batch.inputs)
            n = logits.shape[1]
            targets = torch.full_like(logits, 0.1 / n).scatter(1, batch.labels[:, None], 0.9)
            return BatchLosses(functional.soft_cross_entropy(logits, targets), logits)

        with self._run(X, y, validation, sample_weight) as run:
            network = self._network(run, "model_", self.module)
            run.begin(network=network)
            run.train("network", network, objective)
        return self
