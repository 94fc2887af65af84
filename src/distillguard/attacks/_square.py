"""The Square attack: random search that needs no gradients (Andriushchenko et al. 2020)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import lp_norm, per_example
from .._random import uniform
from .._typing import Bounds, Callback, Mask, Model, Norm
from .._validation import check_at_least, check_norm, check_positive
from ._engine import Query, logits_at, put, run, take
from ._examples import Examples
from ._losses import success_margin
from ._windows import Window, bumps, draw_window, mask, sides, unit

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the share of pixels is halved (section 3.3)."""


def square(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    queries: int = 5000,
    p_init: float = 0.8,
    restarts: int = 1,
    early_stop: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack by random search over squares of pixels, without gradients [1]_.

    Each query changes one random square of the best point so far, and keeps the change if the logit
    margin grew. In linf the square takes one of the values :math:`\pm\varepsilon` in each channel,
    after a start in vertical stripes of such values. In l2 and l1 [2]_ the norm that two squares
    use moves into one of them, as two bumps of opposite sign. The squares shrink by a fixed
    schedule. It finds what gradient masking hides from gradient attacks.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). Asked for values alone:
        it need not be differentiable. A module is attacked in eval mode and given back as it
        was.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified. The last two axes are taken for rows and
        columns of an image, those before for its channels; features (n, d) for one row.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    epsilon : float
        :math:`\varepsilon`, radius of the ball, in the units of ``inputs``.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball.
    queries : int, default=5000
        How often the model is asked about one example in each run, the start included.
    p_init : float, default=0.8
        Share of the pixels in the first squares, above 0 and at most 1. It is halved nine
        times, after 0.1 % of the queries first and 80 % last.
    restarts : int, default=1
        Independent runs.
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
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within ``epsilon``
        up to rounding. Where the attack failed its best candidate is returned: judge success
        by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``epsilon`` is not a finite number
        above 0, ``p_init`` is not in (0, 1], ``queries`` or ``restarts`` is below 1, ``norm`` is
        unknown, or ``model`` returns something else than logits.

    See Also
    --------
    apgd : With gradients, some hundred times cheaper where they can be trusted.

    Notes
    -----
    A linf proposal that would change nothing is made with the opposite signs: no point is asked
    about twice. The paper uses the cross-entropy for targeted attacks; here it is the margin.

    References
    ----------
    .. [1] M. Andriushchenko, F. Croce, N. Flammarion and M. Hein, "Square Attack: a
       Query-Efficient Black-Box Adversarial Attack via Random Search", ECCV 2020,
       algorithms 1 to 3. https://arxiv.org/abs/1912.00049
    .. [2] F. Croce and M. Hein, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image
       Classifiers", ICML 2021, section 4. https://arxiv.org/abs/2103.01208

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import square
    >>> model = lambda images: (9 * images.mean(dim=(2, 3))).round()  # no gradient to follow
    >>> inputs, labels = torch.full((1, 2, 8, 8), 0.45), torch.tensor([0])
    >>> inputs[:, 0] += 0.1
    >>> adversarial = square(model, inputs, labels, epsilon=0.2, random_state=0)
    >>> model(adversarial).argmax(dim=1)
    tensor([1])
    """
    check_positive("epsilon", epsilon)
    check_norm(norm)
    check_at_least("queries", queries, 1)
    check_at_least("restarts", restarts, 1)
    check_positive("p_init", p_init)
    if p_init > 1:
        raise ValueError(f"p_init must be at most 1, got {p_init!r}")

    algorithm = RandomSearch(
        epsilon=epsilon,
        norm=norm,
        queries=queries,
        p_init=p_init,
        restarts=restarts,
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


class SquareState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    current: Tensor
    """The proposal to ask the model about."""
    kept: Tensor
    """The run's best point, which proposals change."""
    kept_margin: Tensor
    best: Tensor
    """The best point of all runs."""
    best_margin: Tensor
    asked: Tensor
    """Queries answered in this run."""
    run: Tensor


@dataclass(frozen=True)
class RandomSearch:
    """The state machine behind :func:`square` (algorithm 1)."""

    epsilon: float
    norm: Norm
    queries: int
    p_init: float
    restarts: int
    early_stop: bool
    targeted: bool

    def start(self, examples: Examples) -> SquareState:
        """Propose the first point of each example."""
        inputs, zeros = examples.inputs, torch.zeros_like(examples.labels)
        lowest = inputs.new_full((len(inputs),), -torch.inf)
        state = SquareState(examples, inputs, inputs, lowest, inputs, lowest, zeros, zeros)
        return state._replace(current=self._first(state))

    def step(self, model: Query, state: SquareState) -> SquareState:
        """Ask about the proposal, keep it if it is better, and make the next."""
        logits = logits_at(model, state.examples, state.current)
        margin = success_margin(logits, state.examples, self.targeted).to(state.best_margin)
        kept, kept_margin = _better(margin, state.current, state.kept_margin, state.kept)
        best, best_margin = _better(margin, state.current, state.best_margin, state.best)
        state = state._replace(
            kept=kept,
            kept_margin=kept_margin,
            best=best,
            best_margin=best_margin,
            asked=state.asked + 1,
        )
        return self._restart(state._replace(current=self._proposal(state)))

    def done(self, state: SquareState) -> Tensor:
        """Fooled, or out of queries."""
        over = (state.run == self.restarts - 1) & (state.asked >= self.queries)
        return over | (state.best_margin > 0) if self.early_stop else over

    def result(self, state: SquareState) -> Tensor:
        """Return the point of widest margin."""
        return state.best

    def _restart(self, state: SquareState) -> SquareState:
        """Send the examples whose run is over to another first point."""
        again = (state.asked >= self.queries) & (state.run < self.restarts - 1)
        rows = again.nonzero().squeeze(1)
        if not len(rows):
            return state
        ended = take(state, rows)
        ended = ended._replace(
            run=ended.run + 1,
            asked=torch.zeros_like(ended.asked),
            kept_margin=torch.full_like(ended.kept_margin, -torch.inf),
        )
        return put(state, rows, ended._replace(current=self._first(ended)))

    def _first(self, state: SquareState) -> Tensor:
        """Stripes of plus and minus epsilon in linf, tiles of bumps in l2 and l1."""
        images, free = self._images(state)
        make = stripes if self.norm == "linf" else tiles
        delta = torch.where(free, make(images, state.examples.keys, self._counter(state)), 0)
        length = per_example(lp_norm(delta, self.norm), delta)
        reach = torch.where(length > 0, self.epsilon / length, 0)
        return self._project(images + reach * delta, state)

    def _proposal(self, state: SquareState) -> Tensor:
        """Change a random square of the best point."""
        (inputs, free), kept = self._images(state), as_images(state.kept)
        channels, rows, columns = inputs.shape[1:]
        drawn = uniform(state.examples.keys, self._counter(state), 5 + channels, torch.float64)
        sign = torch.where(drawn[:, 5:, None, None] < 0.5, -1.0, 1.0).to(inputs)
        height, width = sides(self._share(state), rows, columns, *_SMALLEST[self.norm])
        first = draw_window(height, width, drawn[:, :2], rows, columns)

        if self.norm == "linf":
            change = 2 * self.epsilon * sign * mask(first, rows, columns)[:, None]
            proposed = self._project(kept + change, state)
            same = lp_norm(proposed - state.kept, "linf") == 0
            opposite = self._project(kept - change, state)
            return torch.where(per_example(same, proposed), opposite, proposed)

        second = draw_window(height, width, drawn[:, 2:4], rows, columns)
        bump = bumps(first, drawn[:, 4] < 0.5, rows, columns)[:, None].to(inputs)
        bump = torch.where(free, bump, 0)
        into, outof = (mask(window, rows, columns)[:, None] for window in (first, second))
        delta = moved_norm(kept - inputs, sign * bump, into, outof, self.epsilon, self.norm)
        return self._project(inputs + delta, state)

    def _share(self, state: SquareState) -> Tensor:
        """Share of the pixels in a square at this query: (n,)."""
        done = state.asked.double() / self.queries * 10_000
        halvings = torch.tensor(HALVINGS, device=done.device)
        return self.p_init * 0.5 ** (done[:, None] > halvings).sum(dim=1).double()

    def _counter(self, state: SquareState) -> Tensor:
        """A number for each draw of an example, its own in each run."""
        return state.run * (self.queries + 1) + state.asked

    def _project(self, candidate: Tensor, state: SquareState) -> Tensor:
        """Come back into the ball and the bounds, and into the shape of the inputs."""
        candidate = candidate.view_as(state.current)
        return state.examples.project(candidate, self.norm, self.epsilon)

    def _images(self, state: SquareState) -> tuple[Tensor, Tensor]:
        """View the inputs as images, and which of their pixels may change."""
        inputs = state.examples.inputs
        return as_images(inputs), as_images(state.examples.free.expand_as(inputs))


def as_images(inputs: Tensor) -> Tensor:
    """View examples of any shape as (n, channels, rows, columns)."""
    if inputs.ndim == 2:
        return inputs[:, None, None]
    return inputs.reshape(len(inputs), -1, *inputs.shape[-2:])


def stripes(images: Tensor, keys: Tensor, counter: Tensor) -> Tensor:
    """Vertical stripes of random signs (section 3.3)."""
    channels, _, columns = images.shape[1:]
    drawn = uniform(keys, counter, channels * columns, torch.float32)
    sign = torch.where(drawn < 0.5, -1.0, 1.0).to(images)
    return sign.view(-1, channels, 1, columns).expand_as(images)


def tiles(images: Tensor, keys: Tensor, counter: Tensor) -> Tensor:
    """A grid of five by five bumps of random sign and direction (section 3.4)."""
    n, (channels, rows, columns) = len(images), images.shape[1:]
    height, width = max(rows // 5, 1), max(columns // 5, 1)
    down, beside = rows // height, columns // width
    drawn = uniform(keys, counter, (channels + 1) * down * beside, torch.float32)
    chosen = (drawn < 0.5).view(n, channels + 1, down, beside)

    one = torch.zeros(2, dtype=torch.long, device=images.device)
    whole = Window(one, one, one + height, one + width)
    upright, sideways = bumps(whole, one == torch.arange(2, device=images.device), height, width)
    upright, sideways = (tile.repeat(down, beside) for tile in (upright, sideways))
    wide = chosen.repeat_interleave(height, dim=2).repeat_interleave(width, dim=3)
    grid = torch.where(wide[:, :1], upright, sideways) * torch.where(wide[:, 1:], 1, -1)

    delta = torch.zeros_like(images)
    top, left = (rows - down * height) // 2, (columns - beside * width) // 2
    delta[:, :, top : top + down * height, left : left + beside * width] = grid.to(delta)
    return delta


def moved_norm(
    delta: Tensor, bump: Tensor, into: Tensor, outof: Tensor, epsilon: float, norm: Norm = "l2"
) -> Tensor:
    """Gather the norm of two windows in one, as a bump upon what was there (algorithm 3).

    What adds up are squares in l2 and, as in the l1 form of the attack, sizes in l1.
    """
    order = 2 if norm == "l2" else 1
    used = (delta.abs() ** order).sum(dim=(1, 2, 3), keepdim=True)
    unused = (epsilon**order - used).clamp(min=0) / delta.shape[1]
    windows = (delta * (into | outof)).abs() ** order
    available = windows.sum(dim=(2, 3), keepdim=True) + unused
    shape = unit(bump, order) + unit(delta * into, order)
    gathered = unit(shape, order) * available ** (1 / order)
    return torch.where(into, gathered, delta.masked_fill(outof, 0))


def _better(
    margin: Tensor, point: Tensor, best_margin: Tensor, best: Tensor
) -> tuple[Tensor, Tensor]:
    better = margin > best_margin
    return (
        torch.where(per_example(better, best), point, best),
        torch.where(better, margin, best_margin),
    )


_SMALLEST = {"linf": (1, False), "l2": (3, True), "l1": (3, True)}
"""Least side of a square, and whether it must be odd."""
