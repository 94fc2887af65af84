"""Teacher logits: cached per example where examples have indices, recomputed otherwise."""

from typing import Any

import torch
from torch import Tensor, nn

from .._data import examples
from .._data._batch import Batch, Source
from .._data._sources import source_of
from ..training import Runtime
from ._run import TrainingRun


class TeacherLogits:
    """The teacher's logits for a batch of training examples."""

    def __init__(self, teacher: nn.Module, source: Source, runtime: Runtime) -> None:
        self.teacher, self.runtime = teacher, runtime
        self.known: Tensor | None = None
        if source.identified:
            # Once for every example: the student's epochs need no teacher.
            self.known = torch.cat([self.compute(batch.inputs) for batch in source.in_order()])

    def __call__(self, batch: Batch) -> Tensor:
        if self.known is not None and batch.indices is not None:
            return self.known[batch.indices.to(self.known.device)]
        return self.compute(batch.inputs)

    def compute(self, inputs: Tensor) -> Tensor:
        """The logits of any inputs."""
        return self.runtime.infer(self.teacher, inputs)


def transfer_source(name: str, data: Any, teacher: nn.Module, run: TrainingRun) -> Source:
    """A transfer set, with the teacher's predictions for labels."""
    if isinstance(data, tuple):
        raise TypeError(f"{name} must be examples without labels, got a tuple; pass X alone")

    def label(inputs: Tensor) -> Tensor:
        return run.runtime.infer(teacher, inputs).argmax(dim=1).cpu()

    opened = examples(data, name=name, labelled=False, spec=run.spec)
    return source_of(opened, run.settings.batch_size, run.seed, label)
