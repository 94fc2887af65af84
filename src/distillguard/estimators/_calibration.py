"""Thresholds from clean examples: of several detectors together, of a network that rejects."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .._data._batch import PREDICTION_BATCH
from .._modes import borrowed
from ..networks import Rejecting
from ._logits import batch_logits, filled


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


def calibrate_offset(
    network: Rejecting, batches: Iterable[Tensor], rate: float | None, seed: int
) -> tuple[int, int]:
    """Set how ready a network is to reject, and count what it rejects of other clean examples.

    One half of the examples, at random, sets the offset: the one nearest to 0, from below, at which
    at most a share ``rate`` of them is rejected, by the same correction as for detectors. With None
    the offset is 0, and all examples are counted.

    Parameters
    ----------
    network : Rejecting
        Its offset is set.
    batches : iterable of Tensor of shape (m, ...)
        Clean examples, at least one.
    rate : float or None
        In (0, 1).
    seed : int
        Of the halves.

    Returns
    -------
    alarms, shown : int
        How many of the counted examples are rejected, and how many there are.
    """
    network.offset.zero_()
    best, last = _best_and_last(network, batches)
    order = torch.randperm(len(best), generator=torch.Generator().manual_seed(seed), device="cpu")
    middle = 0 if rate is None else (len(best) + 1) // 2
    if rate is not None:
        chosen = order[:middle]
        lead = last[chosen] - best[chosen]
        # A hair below, so that rounding rejects no example that sits on the threshold.
        hair = 4 * torch.finfo(network.offset.dtype).eps * best.abs().maximum(last.abs()).max()
        threshold = joint_thresholds(lead[:, None], rate) + hair
        network.offset.fill_(min(0.0, -threshold.item()))
    rest = order[middle:]
    rejected = last[rest].to(network.offset.dtype) + network.offset.cpu() > best[rest]
    return int(rejected.sum()), len(rest)


def _best_and_last(network: Rejecting, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The largest logit of a class, and that of rejection, as predictions have them: (n,) each."""
    found = []
    with borrowed(network, gradients=False):
        for batch in batches:
            for part in batch.split(PREDICTION_BATCH):
                size = PREDICTION_BATCH if part.ndim == 2 else 1
                logits = batch_logits(network, filled(part.contiguous(), size))[: len(part)]
                found.append(torch.stack([logits[:, :-1].amax(dim=1), logits[:, -1]]))
    best, last = torch.cat(found, dim=1)
    return best, last
