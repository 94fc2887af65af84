"""Sparse-RS: random search for few pixels, without gradients (Croce et al. 2022)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _l0
from .._geometry import COUNTS
from .._random import uniform
from .._typing import Bounds, Callback, Count, Mask, Model
from .._validation import check_at_least, check_epsilon, check_norm, check_positive
from ._engine import Query, logits_at, run, select
from ._examples import Examples
from ._losses import success_margin

DIVISORS = {0: 1, 1: 2, 51: 4, 201: 5, 501: 6, 1001: 8, 2001: 10, 4001: 12, 6001: 15, 8001: 20}
"""By query of 10,000, what the share of exchanged places is divided by from there on."""


def sparse_rs(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Count = "l0",
    queries: int = 5000,
    alpha_init: float = 0.3,
    early_stop: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Attack few values or pixels by random search, without gradients [1]_.

    Starts by setting ``epsilon`` random positions to random corners of ``bounds``. Each query
    exchanges some of them for others, again with random corners, and keeps the exchange if the
    logit margin grew; the number exchanged falls by a fixed schedule.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). Asked for values alone:
        it need not be differentiable. A module is attacked in eval mode and given back as it
        was.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    epsilon : float
        How many values or pixels may change, a whole number.
    norm : {"l0", "l0_pixels"}, default="l0"
        What is counted: values, the three colours of a pixel as three, or pixels with all their
        channels. The last two axes of an image are its rows and columns; inputs of one axis have
        one channel.
    queries : int, default=5000
        How often the model is asked about one example, the start included.
    alpha_init : float, default=0.3
        Share of the changed places that an exchange concerns at first, above 0 and at most 1. It is
        divided by 2 after the first query, by 4, 5, 6, 8, 10, 12, 15 and 20 after 0.5, 2, 5, 10,
        20, 40, 60 and 80 % of them. One place is exchanged at least.
    early_stop : bool, default=True
        Leave an example alone as soon as the model is fooled, rather than widen the margin with
        the queries that are left.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors
        broadcastable to one input, such as one bound for each feature or channel.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or of all (with a first axis of 1
        or n); the others come back bit-equal. All may if not given.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of all draws, made per example. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``, each value as it was or at a bound, at most
        ``epsilon`` of them changed. Where the attack failed its best candidate is returned: judge
        success by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` is no whole number above 0 or above what can change,
        ``norm`` is unknown, ``queries`` is below 1, ``alpha_init`` is not in (0, 1], or ``model``
        returns something else than logits.

    See Also
    --------
    guided_sparse_rs : The same search, its proposals drawn by slope.
    sigma_zero : With gradients, some ten times cheaper where they can be trusted.

    Notes
    -----
    A value that would be drawn as it is takes the other corner: no point is asked about twice for
    that reason. The paper draws the corners of a pixel's channels without regard to what it was.

    References
    ----------
    .. [1] F. Croce, M. Andriushchenko, N. D. Singh, N. Flammarion and M. Hein, "Sparse-RS: a
       Versatile Framework for Query-Efficient Sparse Black-Box Adversarial Attacks", AAAI 2022,
       algorithms 1 and 2. https://arxiv.org/abs/2006.12834

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import sparse_rs
    >>> model = lambda x: torch.stack([x[:, 0] > 0.5, x[:, 0] <= 0.5], dim=1).float() * 9
    >>> inputs, labels = torch.full((1, 4), 0.6), torch.tensor([0])
    >>> sparse_rs(model, inputs, labels, epsilon=1, random_state=0)
    tensor([[0.0000, 0.6000, 0.6000, 0.6000]])
    """
    check_norm(norm, COUNTS)
    check_epsilon(epsilon, norm)
    check_at_least("queries", queries, 1)
    check_positive("alpha_init", alpha_init)
    if alpha_init > 1:
        raise ValueError(f"alpha_init must be at most 1, got {alpha_init!r}")

    algorithm = SparseSearch(
        epsilon=int(epsilon),
        norm=norm,
        queries=queries,
        alpha_init=alpha_init,
        early_stop=early_stop,
        targeted=targeted,
    )
    return run(
        algorithm,
        model,
        inputs,
        labels,
        targeted=targeted,
        bounds=bounds,
        mask=mask,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
        callback=callback,
        gradients=False,
        budget=(norm, epsilon),
    )


class SparseRSState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    current: Tensor
    """The proposal to ask the model about."""
    chosen: Tensor
    """Its places, (n, places) bool: the set M of the paper."""
    best: Tensor
    best_chosen: Tensor
    best_margin: Tensor
    asked: Tensor


@dataclass(frozen=True)
class SparseSearch:
    """The state machine behind :func:`sparse_rs` (algorithms 1 and 2)."""

    epsilon: int
    norm: Count
    queries: int
    alpha_init: float
    early_stop: bool
    targeted: bool

    def start(self, examples: Examples) -> SparseRSState:
        """Propose corners of the box in random places."""
        inputs, zeros = examples.inputs, torch.zeros_like(examples.labels)
        free = free_places(examples, self.norm)
        rank, _ = self._drawn(examples, zeros)
        chosen = _l0.highest(rank.masked_fill(~free, -1), self.epsilon) & free
        lowest = inputs.new_full((len(inputs),), -torch.inf)
        state = SparseRSState(examples, inputs, chosen, inputs, chosen, lowest, zeros)
        return state._replace(current=self._recoloured(state, chosen))

    def step(self, model: Query, state: SparseRSState) -> SparseRSState:
        """Ask about the proposal, keep it if it is better, and make the next."""
        logits = logits_at(model, state.examples, state.current)
        margin = success_margin(logits, state.examples, self.targeted).to(state.best_margin)
        better = margin > state.best_margin
        state = state._replace(
            best=select(better, state.current, state.best),
            best_chosen=select(better, state.chosen, state.best_chosen),
            best_margin=torch.where(better, margin, state.best_margin),
            asked=state.asked + 1,
        )
        return self._proposal(state)

    def done(self, state: SparseRSState) -> Tensor:
        """Fooled, or out of queries."""
        over = state.asked >= self.queries
        return over | (state.best_margin > 0) if self.early_stop else over

    def result(self, state: SparseRSState) -> Tensor:
        """Return the point of widest margin."""
        return state.best

    def _proposal(self, state: SparseRSState) -> SparseRSState:
        """Exchange some places of the best point for as many others, in new colours."""
        free, chosen = free_places(state.examples, self.norm), state.best_chosen
        rank, _ = self._drawn(state.examples, state.asked)
        number = (
            (share_exchanged(state.asked, self.queries, self.alpha_init) * self.epsilon)
            .long()
            .clamp(min=1)
        )
        left = _l0.highest(rank.masked_fill(~chosen, -1), number) & chosen
        # What left may come back in another colour. The later digits rank it anew.
        spare = free & (~chosen | left)
        entered = _l0.highest((rank * 2**20 % 1).masked_fill(~spare, -1), number) & spare
        emptied = _l0.over_channels(left, state.best, self.norm)
        state = state._replace(
            current=torch.where(emptied, state.examples.inputs, state.best),
            chosen=(chosen & ~left) | entered,
        )
        return state._replace(current=self._recoloured(state, entered))

    def _recoloured(self, state: SparseRSState, places: Tensor) -> Tensor:
        """Put the ``places`` at random corners of the box, other ones than they are at."""
        _, upper = self._drawn(state.examples, state.asked)
        return at_corners(state.current, places, upper, state.examples, self.norm)

    def _drawn(self, examples: Examples, counter: Tensor) -> tuple[Tensor, Tensor]:
        """A rank for each place (n, places), and whether each coordinate goes up."""
        inputs = examples.inputs
        size = inputs[0].numel()
        places = _l0.by_place(inputs, self.norm).shape[2]
        drawn = uniform(examples.keys, counter, places + size, torch.float64)
        return drawn[:, :places], (drawn[:, places:] < 0.5).view_as(inputs)


def free_places(examples: Examples, norm: Count) -> Tensor:
    """Which places may change: (n, places)."""
    free = examples.free.expand_as(examples.inputs)
    return _l0.by_place(free, norm).any(dim=1)


def share_exchanged(asked: Tensor, queries: int, alpha_init: float) -> Tensor:
    """Share of the places that is exchanged after so many of the queries: (n,)."""
    query = asked * 10_000 // queries
    starts = torch.tensor(list(DIVISORS), device=asked.device)
    divisors = torch.tensor(list(DIVISORS.values()), device=asked.device)
    stage = (query[:, None] >= starts).sum(dim=1) - 1
    return alpha_init / divisors[stage].double()


def at_corners(
    points: Tensor, places: Tensor, upper: Tensor, examples: Examples, norm: Count
) -> Tensor:
    """Put the ``places`` at corners of the box, ``upper`` or lower; where they are, at the other.

    ``places`` (n, places), ``upper`` (n, ...) bool.
    """
    corner = torch.where(upper, examples.high, examples.low)
    same = (_l0.by_place(corner - points, norm) == 0).all(dim=1)
    same = _l0.over_channels(same, points, norm)
    corner = torch.where(upper ^ same, examples.high, examples.low)
    return torch.where(_l0.over_channels(places, points, norm), corner, points)
