"""Objectives of robust training as data: what the attack ascends, and what is learned there."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from .. import functional
from .._data._batch import Batch
from ..training import BatchLosses, Objective, perturbed
from ._adversary import Adversary
from ._teacher import TeacherLogits

InnerLoss: TypeAlias = Callable[[Tensor], Tensor]
"""One number per point, which the inner attack ascends."""

Numbers: TypeAlias = Mapping[str, float]


class Outputs:
    """What networks say of a batch and of its adversarial inputs, asked where it is needed."""

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        batch: Batch,
        points: Tensor,
        teacher_logits: TeacherLogits | None,
    ) -> None:
        self.network, self.batch, self.points = network, batch, points
        self.labels, self.teacher_logits = batch.labels, teacher_logits

    @cached_property
    def clean(self) -> Tensor:
        """The network's logits of the clean inputs."""
        return self.network(self.batch.inputs)

    @cached_property
    def adversarial(self) -> Tensor:
        """The network's logits of the adversarial inputs."""
        return self.network(self.points)

    @cached_property
    def teacher(self) -> Tensor:
        """The teacher's logits of the clean inputs."""
        assert self.teacher_logits is not None
        return self.teacher_logits(self.batch)

    @cached_property
    def teacher_adversarial(self) -> Tensor:
        """The teacher's logits of the adversarial inputs."""
        assert self.teacher_logits is not None
        return self.teacher_logits.compute(self.points)

    @cached_property
    def opposite(self) -> Tensor:
        """The network's logits opposite the adversarial inputs, at x - delta."""
        return self.network(self._opposite_points)

    @cached_property
    def teacher_opposite(self) -> Tensor:
        """The teacher's logits there."""
        assert self.teacher_logits is not None
        return self.teacher_logits.compute(self._opposite_points)

    @cached_property
    def _opposite_points(self) -> Tensor:
        return 2 * self.batch.inputs - self.points


class RobustObjective(NamedTuple):
    """A method of robust training; a new one is a new row of a table."""

    defaults: Numbers
    """The paper's own numbers, by the names of the estimator's parameters."""

    ascends: Callable[[nn.Module, Batch, TeacherLogits | None], InnerLoss]
    """What the inner attack ascends."""

    loss: Callable[[Outputs, Numbers], Tensor]
    """One loss per example, (n,)."""


def kl_from_clean(network: nn.Module, batch: Batch, _: TeacherLogits | None) -> InnerLoss:
    """TRADES, eq. 5: the divergence from what the network says of the clean inputs."""
    with torch.no_grad():
        clean = network(batch.inputs)
    return lambda points: functional.kl_divergence(network(points), clean)


def cross_entropy_with_labels(
    network: nn.Module, batch: Batch, _: TeacherLogits | None
) -> InnerLoss:
    """Madry et al. 2018, eq. 2.1: the cross-entropy with the true labels."""
    return lambda points: functional.cross_entropy(network(points), batch.labels)


def kl_from_teacher(
    network: nn.Module, batch: Batch, teacher_logits: TeacherLogits | None
) -> InnerLoss:
    """RSLAD, eq. 7: the divergence from what the teacher says of the clean inputs."""
    assert teacher_logits is not None
    clean = teacher_logits(batch)
    return lambda points: functional.kl_divergence(network(points), clean)


def kl_from_teacher_there(
    network: nn.Module, batch: Batch, teacher_logits: TeacherLogits | None
) -> InnerLoss:
    """AdaAD, eq. 6: the divergence from what the teacher says of the same points."""
    assert teacher_logits is not None
    teacher, through = teacher_logits.teacher, teacher_logits.runtime.forward
    return lambda points: functional.kl_divergence(network(points), through(teacher, points))


ADVERSARIAL: dict[str, RobustObjective] = {
    "trades": RobustObjective(
        {"beta": 6.0},
        kl_from_clean,
        lambda o, n: functional.trades_loss(
            o.clean, o.adversarial, o.labels, n["beta"], n["label_smoothing"]
        ),
    ),
    # Clean inputs take no part in the loss: they are looked at in validation only.
    "pgd": RobustObjective(
        {"beta": 0.0},
        cross_entropy_with_labels,
        lambda o, n: functional.smoothed_cross_entropy(
            o.adversarial, o.labels, n["label_smoothing"]
        ),
    ),
    "mart": RobustObjective(
        {"beta": 5.0},
        cross_entropy_with_labels,
        lambda o, n: functional.mart_loss(o.clean, o.adversarial, o.labels, n["beta"]),
    ),
}
"""Training without a teacher."""

DISTILLATION: dict[str, RobustObjective] = {
    "rslad": RobustObjective(
        {"alpha": 5 / 6},
        kl_from_teacher,
        lambda o, n: functional.rslad_loss(o.clean, o.adversarial, o.teacher, n["alpha"]),
    ),
    "ard": RobustObjective(
        {"alpha": 1.0, "temperature": 30.0},
        cross_entropy_with_labels,
        lambda o, n: functional.ard_loss(
            o.clean, o.adversarial, o.teacher, o.labels, n["alpha"], n["temperature"]
        ),
    ),
    "iad": RobustObjective(
        {"beta": 0.1},
        cross_entropy_with_labels,
        lambda o, n: functional.iad_loss(
            o.clean, o.adversarial, o.teacher, o.teacher_adversarial, o.labels, n["beta"]
        ),
    ),
    "adaad": RobustObjective(
        {"alpha": 1.0},
        kl_from_teacher_there,
        lambda o, n: functional.adaad_loss(
            o.clean, o.adversarial, o.teacher, o.teacher_adversarial, n["alpha"]
        ),
    ),
}
"""Training with a teacher."""


def with_gradient_matching(row: RobustObjective, weight: float) -> RobustObjective:
    """IGDM, section 4: a term that grows with the epochs, added to another method's loss."""

    def loss(outputs: Outputs, numbers: Numbers) -> Tensor:
        base = row.loss(outputs, numbers)
        there, opposite = outputs.adversarial, outputs.opposite
        taught = outputs.teacher_adversarial, outputs.teacher_opposite
        matched = functional.igdm_loss(there, opposite, *taught)
        return base + numbers["beta"] * outputs.batch.progress * matched

    return RobustObjective({**row.defaults, "beta": weight}, row.ascends, loss)


# The weight is the paper's for CIFAR-10; it takes 10 for CIFAR-100.
DISTILLATION |= {
    f"igdm_{name}": with_gradient_matching(DISTILLATION[name], weight=1.0)
    for name in ("rslad", "adaad")
}


def robust_objective(
    row: RobustObjective,
    numbers: Numbers,
    adversary: Adversary,
    perturbation: float = 0.0,
    teacher_logits: TeacherLogits | None = None,
) -> Objective:
    """The loss on a batch: attack it, then score what the networks say of both kinds of input."""

    def objective(network: nn.Module, batch: Batch) -> BatchLosses:
        points = adversary(batch, lambda direct: row.ascends(direct, batch, teacher_logits))

        def scored(ask: Callable[[Tensor], Tensor]) -> BatchLosses:
            outputs = Outputs(ask, batch, points, teacher_logits)
            losses = row.loss(outputs, numbers)
            seen = not network.training or "clean" in vars(outputs)
            return BatchLosses(losses, outputs.clean if seen else None, outputs.adversarial)

        if perturbation and network.training:
            direct = adversary.runtime.unwrapped
            return scored(
                perturbed(network, direct, lambda each: scored(each).losses.mean(), perturbation)
            )
        return scored(network)

    return objective
