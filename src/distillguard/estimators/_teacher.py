"""What a trained teacher says of examples: looked up where they are known, asked otherwise."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .._data._arrays import as_array, refuse_bytes
from .._data._batch import Batch, Source
from .._data._sources import TensorSource, UnlabelledSource, input_batches
from ..training import Runtime
from ._fitting import Fitting

if TYPE_CHECKING:
    from ._base import NetworkClassifier


class TeacherLogits:
    """The teacher's logits for a batch of training examples."""

    def __init__(self, teacher: nn.Module, source: Source, runtime: Runtime) -> None:
        self.teacher, self.runtime = teacher, runtime
        self.known: Tensor | None = None
        if source.identified:
            # Once for every example: the student's epochs need no teacher.
            self.known = torch.cat([self.ask(batch.inputs) for batch in source.in_order()])

    def __call__(self, batch: Batch) -> Tensor:
        if self.known is not None and batch.indices is not None:
            return self.known[batch.indices.to(self.known.device)]
        return self.ask(batch.inputs)

    def ask(self, inputs: Tensor) -> Tensor:
        """The logits of any inputs."""
        return self.runtime.look(self.teacher, inputs)


def transfer_source(
    estimator: "NetworkClassifier", name: str, data: Any, teacher: nn.Module, fitting: Fitting
) -> Source:
    """A transfer set, with the teacher's predictions for labels."""
    if isinstance(data, tuple):
        raise TypeError(f"{name} must be examples without labels, got a tuple; pass X alone")

    def label(inputs: Tensor) -> Tensor:
        return fitting.runtime.look(teacher, inputs).argmax(dim=1).cpu()

    if isinstance(data, DataLoader | Dataset):
        return UnlabelledSource(data, label, estimator.batch_size)
    data = as_array(data)
    refuse_bytes(data, name)
    X = estimator._checked(data)
    labels = torch.cat([label(inputs) for inputs in input_batches(X)])
    return TensorSource(X, labels, estimator.batch_size, fitting.seed)
