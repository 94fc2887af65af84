"""RayS: a search over directions of signs that needs nothing but labels (Chen and Gu 2020)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import per_example
from .._typing import Bounds, Callback, Mask, Model
from .._validation import check_at_least, check_positive
from ._engine import Query, logits_at, run, select
from ._examples import Examples
from ._losses import success_margin

TOLERANCE = 1e-2
"""Width at which a bisection ends, as a share of its upper end."""


def rays(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    queries: int = 5000,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack in linf by labels alone, without gradients and without scores [1]_.

    Looks for the direction :math:`d \in \{-1, 1\}^D` along which another class is nearest. From all
    ones, the signs of one block of coordinates after another are turned, at first of all, then of
    halves, fourths and so on; a turned direction is kept if the model is still fooled at the least
    radius known, and its own least radius is found by bisection. No step looks at more of an answer
    than whether the model is fooled: for models that tell only the class this is what is left where
    :func:`square` has no margin to climb.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes), such as rows of 0 with a 5
        at the class. Asked for values alone: it need not be differentiable. A module is attacked in
        eval mode and given back as it was.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified. Blocks are runs of coordinates in the order
        of the last axes: rows of an image.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    epsilon : float
        Radius of the linf ball, in the units of ``inputs``.
    queries : int, default=5000
        How often the model is asked about one example at most.
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
        Only reaches models that draw random numbers themselves; the attack draws none.
    progress : bool, default=False
        Show a progress bar that counts decided examples.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within ``epsilon``
        up to rounding. Where the attack failed, the best point within it that was asked about is
        returned: judge success by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` is not a finite number above 0, ``queries`` is below 1, or
        ``model`` returns something else than logits.

    See Also
    --------
    square : Needs fewer questions where the model tells its margins.

    Notes
    -----
    The paper goes on to smaller radii until its queries are spent; here an example is done at its
    first success within ``epsilon``. Once every coordinate has been a block, the blocks are
    halves again. Before any direction fools at all, the one of the widest margin goes on, which is
    no other than the first where the model tells no margins.

    References
    ----------
    .. [1] J. Chen and Q. Gu, "RayS: A Ray Searching Method for Hard-label Adversarial Attack", KDD
       2020, algorithms 2 and 3. https://arxiv.org/abs/2006.12792

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import rays
    >>> model = lambda inputs: 5.0 * torch.stack([inputs[:, 0] > 0.5, inputs[:, 0] <= 0.5], dim=1)
    >>> inputs, labels = torch.tensor([[0.6, 0.3]]), torch.tensor([0])
    >>> adversarial = rays(model, inputs, labels, epsilon=0.2)
    >>> model(adversarial).argmax(dim=1)
    tensor([1])
    """
    check_positive("epsilon", epsilon)
    check_at_least("queries", queries, 1)
    return run(
        RaySearch(epsilon, queries, targeted),
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
        budget=("linf", epsilon),
    )


class RayState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    direction: Tensor
    """The best one so far: signs, of the shape of the inputs."""
    proposal: Tensor
    """The one that is asked about."""
    high: Tensor
    """The least radius known to fool along the best direction; the farthest before one does."""
    low: Tensor
    """The largest one known to fail in a bisection along it; as far as ``high`` without one."""
    found: Tensor
    """Whether a direction fools."""
    blocks: Tensor
    """Into how many blocks the coordinates are cut."""
    block: Tensor
    """The one whose signs are turned next."""
    asked: Tensor
    margin: Tensor
    """Of the best direction before one fools, at the farthest radius."""
    best: Tensor
    """The point within the radius that comes nearest to fooling."""
    best_margin: Tensor


@dataclass(frozen=True)
class RaySearch:
    """The state machine behind :func:`rays`: one question a step."""

    epsilon: float
    queries: int
    targeted: bool

    def start(self, examples: Examples) -> RayState:
        """Begin with all ones, at a radius that takes every coordinate to a bound."""
        inputs, zeros = examples.inputs, torch.zeros_like(examples.labels)
        far, ones = examples.farthest("linf").clamp(min=self.epsilon), torch.ones_like(inputs)
        worst = torch.full_like(far, -torch.inf)
        searched = (ones, ones, far, far, zeros > 0, zeros + 1, zeros - 1, zeros)
        return RayState(examples, *searched, worst, inputs, worst)

    def step(self, model: Query, state: RayState) -> RayState:
        """Ask whether a point fools, and go on from there."""
        bisects = self._bisects(state)
        # Algorithm 2, line 6: a turned direction has to fool at the least radius known.
        radius = torch.where(bisects, self._between(state), state.high)
        radius = torch.where(state.asked == 0, 0, radius)  # the input may be misclassified itself
        point = self._point(state.examples, state.proposal, radius)
        logits = logits_at(model, state.examples, point)
        margin = success_margin(logits, state.examples, self.targeted).to(radius)
        state = self._noted(state, point, margin, radius)
        # Algorithm 3: the least radius lies between the largest that failed and the one that fools.
        kept = state._replace(
            direction=state.proposal,
            high=radius,
            low=torch.where(bisects, state.low, 0),
            found=torch.ones_like(state.found),
        )
        # Before any direction fools, that of the widest margin goes on, if the model tells margins.
        leads = ~state.found & (state.asked > 0) & (margin > state.margin)
        failed = state._replace(
            direction=torch.where(per_example(leads, point), state.proposal, state.direction),
            margin=torch.where(leads, margin, state.margin),
            low=torch.where(bisects, radius, state.high),
        )
        state = select(margin > 0, kept, failed)._replace(asked=state.asked + 1)
        return select(self._bisects(state), state, _turned(state))

    def done(self, state: RayState) -> Tensor:
        """Fooled within the radius, or out of queries."""
        return (state.best_margin > 0) | (state.asked >= self.queries)

    def result(self, state: RayState) -> Tensor:
        """Return the point that fools, or the one that comes nearest to it."""
        return state.best

    def _noted(self, state: RayState, point: Tensor, margin: Tensor, radius: Tensor) -> RayState:
        """Remember a point within the radius if it is better than those before it."""
        better = (radius <= self.epsilon) & (margin > state.best_margin)
        return state._replace(
            best=torch.where(per_example(better, point), point, state.best),
            best_margin=torch.where(better, margin, state.best_margin),
        )

    def _bisects(self, state: RayState) -> Tensor:
        """Where the least radius along the best direction is not known closely."""
        return state.low < (1 - TOLERANCE) * state.high

    def _between(self, state: RayState) -> Tensor:
        """The middle of a bisection; first the radius that is allowed, which may be enough."""
        allowed = torch.full_like(state.high, self.epsilon)
        inside = (state.low < allowed) & (allowed < state.high)
        return torch.where(inside, allowed, (state.low + state.high) / 2)

    def _point(self, examples: Examples, direction: Tensor, radius: Tensor) -> Tensor:
        return examples.clamp(examples.inputs + per_example(radius, direction) * direction)


def _turned(state: RayState) -> RayState:
    """Turn the signs of the next block of the best direction (algorithm 2, lines 4 to 15)."""
    # Of the coordinates that may change, as if there were no others.
    free = state.examples.free.expand_as(state.direction).flatten(1)
    size = free.sum(dim=1).clamp(min=1)
    places = free.cumsum(dim=1) - 1
    inside = free & (places * state.blocks[:, None] // size[:, None] == state.block[:, None])
    turned = torch.where(inside.view_as(state.direction), -state.direction, state.direction)
    over = state.block + 1 == state.blocks
    finer = torch.where(state.blocks < size, 2 * state.blocks, 2).minimum(size)
    return state._replace(
        proposal=turned,
        low=state.high,
        blocks=torch.where(over, finer, state.blocks),
        block=torch.where(over, 0, state.block + 1),
    )
