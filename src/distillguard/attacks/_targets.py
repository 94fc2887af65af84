"""Wrong classes to try one after another: what the targeted attacks share."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._geometry import DUAL, lp_norm
from .._typing import Norm
from .._validation import check_choice
from ..functional import margin_loss
from ._engine import Query, logits_and_jacobian, logits_at
from ._examples import Examples

TargetOrder = Literal["likeliest", "nearest"]
"""By the logits, or by the distance to each class of the linearised model."""

CANDIDATES = 12
"""Likeliest wrong classes among which the nearest are looked for; more if more are tried."""


class TargetChoice(NamedTuple):
    """How the wrong classes to try are chosen, by a look at the clean example."""

    n_targets: int
    order: TargetOrder
    norm: Norm
    targeted: bool

    def __call__(self, model: Query, examples: Examples) -> tuple[Tensor, Tensor, int]:
        """Return the logits, the targets (n, n_targets) and how many of the columns count.

        Nearest first (Melamed et al. 2024, MALT): by the lead of the label over the length of
        its gradient, in the dual norm, which is how far away a linear model has the boundary.
        """
        inputs, labels = examples.inputs, examples.labels
        if self.targeted or self.order == "likeliest":
            logits = logits_at(model, examples, inputs)
            return logits, *likeliest_targets(logits, labels, self.n_targets, self.targeted)
        few = max(CANDIDATES, self.n_targets)
        chosen: list[Tensor] = []

        def leads(logits: Tensor, labels: Tensor) -> Tensor:
            targets, count = likeliest_targets(logits.detach(), labels, few, False)
            chosen[:] = [targets[:, :count]]
            return logits.gather(1, labels[:, None]) - logits.gather(1, chosen[0])

        logits, jacobian = logits_and_jacobian(model, examples, inputs, leads)
        lead = leads(logits, labels)
        slope = lp_norm(jacobian.flatten(0, 1), DUAL[self.norm]).view_as(lead)
        nearest = (lead / slope.to(lead)).argsort(dim=1, stable=True)
        count = min(self.n_targets, nearest.shape[1])
        targets = chosen[0].gather(1, nearest[:, :count])
        return logits, torch.nn.functional.pad(targets, (0, self.n_targets - count)), count


def check_target_order(order: str) -> None:
    """Refuse what is no order of targets."""
    check_choice("target_order", order, ("likeliest", "nearest"))


def likeliest_targets(
    logits: Tensor, labels: Tensor, n_targets: int, targeted: bool
) -> tuple[Tensor, int]:
    """Return each example's targets, (n, n_targets), and how many of the columns count.

    They are the likeliest wrong classes; when ``targeted``, the label alone.
    """
    if targeted:
        return labels[:, None].repeat(1, n_targets), 1
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    count = min(n_targets, logits.shape[1] - 1)
    targets = wrong.topk(count, dim=1).indices
    return torch.nn.functional.pad(targets, (0, n_targets - count)), count


def target_of_run(targets: Tensor, run: Tensor, count: Tensor) -> Tensor:
    """Return the class that each example moves towards: all its targets in turn, then again."""
    return targets.gather(1, (run % count)[:, None]).squeeze(1)


def logit_gap(logits: Tensor, labels: Tensor, target: Tensor, targeted: bool) -> Tensor:
    """Logit of the target minus that of the label, or of its best rival when ``targeted``. (n,)."""
    if targeted:
        return -margin_loss(logits, target)
    return (logits.gather(1, target[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
