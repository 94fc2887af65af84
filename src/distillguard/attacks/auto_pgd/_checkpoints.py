"""When Auto-PGD looks back: its checkpoints, and in l1 the stages of a run, as tables by step."""

import math
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

STAGES = (0.3, 0.6)
"""Shares of a run after which the ball shrinks from three to two and to one budget."""


@cache
def checkpoint_periods(steps: int, device: torch.device) -> Tensor:
    """For each step, how many have passed since the checkpoint before, -1 between checkpoints.

    Checkpoints lie at the steps p_j of the paper's section 3.1, in hundredths of ``steps``.
    """
    percents = [0, 22]
    while percents[-1] < 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    checkpoints = sorted({math.ceil(p * steps / 100) for p in percents if p <= 100})

    periods = torch.full((steps + 1,), -1, device=device)
    periods[0] = 0
    for earlier, later in pairwise(checkpoints):
        periods[later] = later - earlier
    return periods


@cache
def stages(steps: int, device: torch.device) -> Tensor:
    """For each step of a run in l1: first step of its stage, of the next, and ball: (3, steps + 1).

    The last stage has the last iterate too, which is only judged.
    """
    table = torch.zeros(3, steps + 1, dtype=torch.float64, device=device)
    ends = [math.floor(share * steps) for share in STAGES] + [steps + 1]
    for begun, ended, multiple in zip([0, *ends[:-1]], ends, (3.0, 2.0, 1.0), strict=True):
        table[:, begun:ended] = table.new_tensor([[begun], [ended], [multiple]])
    return table
