"""Sparse-RS whose exchanges are drawn by slope (Croce et al. 2022, Zou et al. 2023)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _l0
from .._geometry import COUNTS
from .._random import uniform
from .._typing import Bounds, Callback, Count, Mask, Model
from .._validation import check_at_least, check_epsilon, check_norm, check_positive
from ._engine import Query, logits_and_gradient, logits_at, put, run, select, take
from ._examples import Examples
from ._losses import ascended_loss, success_margin
from ._sparse_rs import at_corners, free_places, share_exchanged

RANK_EXPONENT = 0.75
"""A place whose slope promises the r-th most is drawn with a weight of r to minus this."""
AGAINST = 0.1
"""Share of the values that are put at the corner to which the slope does not point."""


def guided_sparse_rs(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Count = "l0",
    steps: int = 200,
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
    """Attack few values or pixels by a search whose proposals follow the slopes.

    The search of Sparse-RS [1]_: a number of places is exchanged for as many others, at corners of
    ``bounds``, and the exchange is kept if the logit margin grew. But which places go and which
    come is drawn by the gradient at the best point so far, as in a greedy coordinate gradient
    search [2]_: likelier those by which the margin loses least and gains most to first order.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode; its modes, ``requires_grad`` flags and gradients are left as they were.
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
    steps : int, default=200
        Proposals. The model is asked about each once, and for the gradient at the input and at
        every proposal that is kept.
    alpha_init : float, default=0.3
        Share of the changed places that an exchange concerns at first, above 0 and at most 1; it
        falls as in :func:`sparse_rs`. One place is exchanged at least.
    early_stop : bool, default=True
        Leave an example alone as soon as the model is fooled, rather than widen the margin with
        the steps that are left.
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
        ``norm`` is unknown, ``steps`` is below 1, ``alpha_init`` is not in (0, 1], or ``model``
        returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    sparse_rs : The same without gradients.
    sigma_zero : Descends a smooth count, without a budget.

    Notes
    -----
    The place of rank r by its slope is drawn with a weight of r to the power of -0.75, without
    replacement [3]_; places of equal slope are ranked by chance. A value that comes is put where
    its slope points to, one in ten at the other corner. Greedy coordinate gradient search draws
    evenly from the best few and keeps the best of a batch of proposals.

    References
    ----------
    .. [1] F. Croce, M. Andriushchenko, N. D. Singh, N. Flammarion and M. Hein, "Sparse-RS: a
       Versatile Framework for Query-Efficient Sparse Black-Box Adversarial Attacks", AAAI 2022,
       algorithms 1 and 2. https://arxiv.org/abs/2006.12834
    .. [2] A. Zou, Z. Wang, N. Carlini, M. Nasr, J. Z. Kolter and M. Fredrikson, "Universal and
       Transferable Adversarial Attacks on Aligned Language Models", 2023, algorithm 1.
       https://arxiv.org/abs/2307.15043
    .. [3] P. S. Efraimidis and P. G. Spirakis, "Weighted random sampling with a reservoir",
       Information Processing Letters 97, 2006, algorithm A.

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import guided_sparse_rs
    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> inputs, labels = torch.tensor([[0.6, 0.2, 0.5]]), torch.tensor([0])
    >>> guided_sparse_rs(model, inputs, labels, epsilon=1, random_state=0)
    tensor([[0.0000, 0.2000, 0.5000]])
    """
    check_norm(norm, COUNTS)
    check_epsilon(epsilon, norm)
    check_at_least("steps", steps, 1)
    check_positive("alpha_init", alpha_init)
    if alpha_init > 1:
        raise ValueError(f"alpha_init must be at most 1, got {alpha_init!r}")

    algorithm = GuidedSearch(
        epsilon=int(epsilon),
        norm=norm,
        steps=steps,
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
        budget=(norm, epsilon),
    )


class GuidedSearchState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    current: Tensor
    """The proposal to ask the model about; the input at first."""
    chosen: Tensor
    """Its changed places, (n, places) bool."""
    best: Tensor
    best_chosen: Tensor
    best_margin: Tensor
    slope: Tensor
    """Of the margin at the best point, (n, ...)."""
    asked: Tensor
    """Points that were asked about, the input included."""


@dataclass(frozen=True)
class GuidedSearch:
    """The state machine behind :func:`guided_sparse_rs`."""

    epsilon: int
    norm: Count
    steps: int
    alpha_init: float
    early_stop: bool
    targeted: bool

    def start(self, examples: Examples) -> GuidedSearchState:
        """Begin at the input."""
        inputs = examples.inputs
        none = torch.zeros_like(free_places(examples, self.norm))
        lowest = inputs.new_full((len(inputs),), -torch.inf)
        nothing = torch.zeros_like(examples.labels)
        return GuidedSearchState(
            examples, inputs, none, inputs, none, lowest, torch.zeros_like(inputs), nothing
        )

    def step(self, model: Query, state: GuidedSearchState) -> GuidedSearchState:
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
        uphill = (better & ~self.done(state)).nonzero().squeeze(1)
        if len(uphill):
            state = put(state, uphill, self.with_slope(model, take(state, uphill)))
        return self.proposal(state)

    def done(self, state: GuidedSearchState) -> Tensor:
        """Fooled, or out of steps."""
        over = state.asked > self.steps
        return over | (state.best_margin > 0) if self.early_stop else over

    def result(self, state: GuidedSearchState) -> Tensor:
        """Return the point of widest margin."""
        return state.best

    def with_slope(self, model: Query, state: GuidedSearchState) -> GuidedSearchState:
        """Ask for the gradient of the margin at the best points."""
        margin = ascended_loss("margin", self.targeted)
        _, slope = logits_and_gradient(model, state.examples, state.best, margin)
        return state._replace(slope=slope.to(state.slope))

    def proposal(self, state: GuidedSearchState) -> GuidedSearchState:
        """Take back some changes of the best point and fill up with others, drawn by slope."""
        examples, slope, chosen = state.examples, state.slope, state.best_chosen
        low, high = examples.low, examples.high
        leaving, entering, against = self.drawn(state)
        share = share_exchanged(state.asked - 1, self.steps, self.alpha_init)
        number = (share * self.epsilon).long().clamp(min=1)
        # What the margin loses to first order where a change is taken back; the least leave.
        loss = self.by_place(slope * (state.best - examples.inputs))
        few = chosen.to(loss).topk(self.epsilon, dim=1).indices
        loss, able, leaving = (part.gather(1, few) for part in (loss, chosen, leaving))
        goes = self.winners(-loss, able, leaving, number)
        left = torch.zeros_like(chosen).scatter(1, few, goes)
        # What it gains at most where a place is changed; the most enter.
        inputs = examples.inputs
        gain = self.by_place(torch.maximum(slope * (high - inputs), slope * (low - inputs)))
        kept = chosen & ~left
        spare = free_places(examples, self.norm) & ~kept
        missing = self.epsilon - kept.sum(dim=1)
        entered = self.winners(gain, spare, entering, missing)

        emptied = _l0.over_channels(left, state.best, self.norm)
        points = torch.where(emptied, inputs, state.best)
        upper = (slope > 0) ^ (against < torch.where(slope == 0, 0.5, AGAINST))
        return state._replace(
            current=at_corners(points, entered, upper, examples, self.norm),
            chosen=kept | entered,
        )

    def winners(self, worth: Tensor, able: Tensor, drawn: Tensor, number: Tensor) -> Tensor:
        """Draw a ``number`` of places (n,), ``epsilon`` at most: (n, places) bool."""
        first = _race(worth, able, drawn).topk(self.epsilon, dim=1).indices
        places = torch.arange(self.epsilon, device=number.device)
        return torch.zeros_like(able).scatter(1, first, places < number[:, None]) & able

    def drawn(self, state: GuidedSearchState) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers in [0, 1) for each place that may leave, or enter, and for each coordinate."""
        inputs = state.examples.inputs
        n_places, size = state.chosen.shape[1], inputs[0].numel()
        numbers = uniform(state.examples.keys, state.asked, 2 * n_places + size, torch.float64)
        leaving, entering, against = numbers.split([n_places, n_places, size], dim=1)
        return leaving, entering, against.view_as(inputs)

    def by_place(self, values: Tensor) -> Tensor:
        """Sum over the channels of each place: (n, places)."""
        return _l0.by_place(values, self.norm).sum(dim=1)


def _race(worth: Tensor, able: Tensor, drawn: Tensor) -> Tensor:
    """Scores (n, places) whose highest are a weighted draw: the place of rank r has r^-0.75.

    Efraimidis and Spirakis (2006): u^(1/w) for a weight w and a uniform u, here its logarithm.
    Equal ``worth`` is ranked by the later digits of ``drawn``.
    """
    chance = (drawn * 2**20 % 1).argsort(dim=1)
    order = worth.masked_fill(~able, -torch.inf).gather(1, chance)
    order = chance.gather(1, order.argsort(dim=1, descending=True, stable=True))
    rank = torch.arange(1, worth.shape[1] + 1, device=worth.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, rank)
    scores = (drawn + 2**-54).log() * rank.double() ** RANK_EXPONENT
    return scores.masked_fill(~able, -torch.inf)
