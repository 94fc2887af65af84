"""Wrong classes to try one after another, likeliest first: what the targeted attacks share."""

import torch
from torch import Tensor

from ..functional import margin_loss


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
