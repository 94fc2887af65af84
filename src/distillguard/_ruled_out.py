"""What stands in place of classes that are ruled out, such as -1e9: no network computed it.

Where logits are compared with the largest of them, or scaled by their range, it would drown them.
"""

import torch
from torch import Tensor

FILL = 1000
"""Times as far below 0 as the two highest logits are from it, or as 1 is, if they are nearer."""


def ruled_out(logits: Tensor) -> Tensor:
    """Which logits (n, n_classes) only say that a class is none."""
    top = logits.detach().topk(min(2, logits.shape[1]), dim=1).values
    highest = top.abs().amax(dim=1, keepdim=True)
    return logits.detach() < -FILL * highest.clamp(min=1)


def magnitude(logits: Tensor) -> Tensor:
    """Largest absolute value of each example's computed logits, (n,)."""
    return logits.abs().masked_fill(ruled_out(logits), 0).amax(dim=1)


def spread(logits: Tensor) -> Tensor:
    """Range of each example's computed logits, (n, 1), detached."""
    highest = logits.detach().amax(dim=1, keepdim=True)
    return highest - torch.where(ruled_out(logits), highest, logits.detach()).amin(1, keepdim=True)
