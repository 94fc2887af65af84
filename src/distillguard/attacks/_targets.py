"""Wrong classes to try one after another, likeliest first: what the targeted attacks share."""

import torch
from torch import Tensor

from ..functional import margin_loss


def likeliest_targets(
    logits: Tensor, labels: Tensor, n_targets: int, targeted: bool
) -> tuple[Tensor, int]:
    """Return each example's aims, (n, n_targets), and how many of the columns count.

    The aims are the likeliest wrong classes; when ``targeted``, the label alone.
    """
    if targeted:
        return labels[:, None].repeat(1, n_targets), 1
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    count = min(n_targets, logits.shape[1] - 1)
    aims = wrong.topk(count, dim=1).indices
    return torch.nn.functional.pad(aims, (0, n_targets - count)), count


def target_of_run(aims: Tensor, run: Tensor, count: Tensor) -> Tensor:
    """Return the class that each example moves towards: all its aims in turn, then again."""
    return aims.gather(1, (run % count)[:, None]).squeeze(1)


def lead(logits: Tensor, labels: Tensor, aim: Tensor, targeted: bool) -> Tensor:
    """Logit of the aim minus that of the label, or of its best rival when ``targeted``. (n,)."""
    if targeted:
        return -margin_loss(logits, aim)
    return (logits.gather(1, aim[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
