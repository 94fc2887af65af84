"""Thresholds of several detectors together, from the scores of clean examples."""

import math

import torch
from torch import Tensor


def joint_thresholds(scores: Tensor, rate: float) -> Tensor:
    """One quantile for all detectors, at which at most a share ``rate`` of examples alarms any.

    Thresholds at the same level of each detector's own scores treat them alike, whatever their
    units. The level is the empirical quantile, taken over examples, of the highest level that
    any of an example's scores has, with the correction for a finite sample by which a further
    example of the same kind alarms with a probability of at most ``rate``, where there are at
    least ``1 / rate - 1`` examples. An alarm is a score above its threshold.

    Parameters
    ----------
    scores : Tensor of shape (n, n_detectors)
        Scores of clean examples, at least one.
    rate : float
        In (0, 1).

    Returns
    -------
    Tensor of shape (n_detectors,)
        The thresholds.
    """
    n = len(scores)
    if not scores.shape[1]:
        return scores[0]
    ordered = scores.sort(dim=0).values.T.contiguous()
    # Of equal scores each has the lowest rank, from 1: the number of those below, and itself.
    ranks = torch.searchsorted(ordered, scores.T.contiguous()) + 1
    highest = ranks.amax(dim=0).sort().values
    place = min(n, math.ceil((1 - rate) * (n + 1)))
    level = int(highest[place - 1])
    return ordered[:, level - 1]
