"""Targeted FAB: the nearest point across linearised boundaries (Croce and Hein 2020)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import ball, per_example, size
from .._typing import Bounds, Model, Norm
from .._validation import check_at_least, check_in_unit_interval, check_norm, check_positive
from ._aims import aim_of_run, choose_aims, lead
from ._box_projection import step_to_hyperplane
from ._engine import replaced, rows, run, value, value_and_gradient
from ._losses import success_margin

SEARCH_STEPS = 3
"""Evaluations of the final search on the segment between the input and the result."""

BEYOND = 0.05
"""How far beyond the estimated boundary the final search looks, as a share of what is left."""


def fab_targeted(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "linf",
    n_targets: int = 9,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_within: float | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Attack by stepping to linearised class boundaries, close to the input [1]_.

    The ``n_targets`` wrong classes that the model finds likeliest at the input are tried one
    after another. Towards a class :math:`t` each step linearises :math:`z_t - z_y` at
    :math:`x_k`, finds within ``bounds`` the smallest steps :math:`\delta` from :math:`x_k` and
    :math:`\delta_0` from the input :math:`x` to the hyperplane where it vanishes, exactly, and
    goes to

    .. math::
        x_{k+1} = (1 - \alpha)(x_k + \eta\delta) + \alpha(x + \eta\delta_0),
        \qquad \alpha = \min\Bigl(\tfrac{\lVert\delta\rVert}
        {\lVert\delta\rVert + \lVert\delta_0\rVert}, \alpha_{\max}\Bigr).

    From a point that fools the model the next step is taken a share :math:`1 - \beta` nearer to
    the input. At last the segment from the input to the nearest such point is searched.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode and given back as it was.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the perturbation to make small.
    n_targets : int, default=9
        Wrong classes to try; all of them where the model has fewer.
    steps : int, default=100
        Steps towards each class, one or two model evaluations each.
    restarts : int, default=1
        How often to go through all the classes: first from the input, then each time from
        random points around it, half as far as the nearest success.
    alpha_max : float, default=0.1
        :math:`\alpha_{\max}`, in [0, 1]: how strongly the steps are pulled towards the input.
    eta : float, default=1.05
        :math:`\eta`, at least 1: by how much the steps overshoot the hyperplane.
    beta : float, default=0.9
        :math:`\beta`, in [0, 1]: 1 goes on from a success itself, 0 from the input.
    stop_within : float, optional
        Leave an example alone as soon as a success is at most this far. Far cheaper where only
        the share of examples with a success within a radius is asked for.
    targeted : bool, default=False
        Look for the nearest point of the classes ``labels``, the only ones tried then.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of the random starts, drawn per example. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``, within ``bounds`` exactly. Unchanged where the
        attack failed or the input is misclassified already.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point or ``labels`` is not int64.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, ``alpha_max`` or ``beta`` is outside
        [0, 1], ``eta`` is below 1, ``stop_within`` is not a finite number above 0,
        ``n_targets``, ``steps`` or ``restarts`` is below 1, ``norm`` is unknown, or ``model``
        returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    carlini_wagner_l2 : Minimises the distance by gradient descent instead.
    apgd_targeted : Tries the same classes within a budget.

    Notes
    -----
    A run towards a class ends early where the iterate no longer moves, as at a zero gradient.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive
       Boundary Attack", ICML 2020, algorithm 1. https://arxiv.org/abs/1907.02044

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import fab_targeted
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> adversarial = fab_targeted(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
    >>> (adversarial * 1000).round() / 1000  # just across the diagonal
    tensor([[0.5000, 0.5000]])
    """
    check_norm(norm)
    check_at_least("n_targets", n_targets, 1)
    check_at_least("steps", steps, 1)
    check_at_least("restarts", restarts, 1)
    check_in_unit_interval("alpha_max", alpha_max)
    check_in_unit_interval("beta", beta)
    check_positive("eta", eta)
    if eta < 1:
        raise ValueError(f"eta must be at least 1, got {eta!r}")
    if stop_within is not None:
        check_positive("stop_within", stop_within)

    algorithm = FastAdaptiveBoundary(
        norm=norm,
        n_targets=n_targets,
        steps=steps,
        restarts=restarts,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
        stop_within=0.0 if stop_within is None else stop_within,
        targeted=targeted,
        bounds=bounds,
    )
    return run(
        algorithm,
        model,
        inputs,
        labels,
        bounds=bounds,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
    )


class FABState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    inputs: Tensor
    labels: Tensor
    keys: Tensor
    aims: Tensor
    """Classes that the runs move towards in turn: (n, n_targets)."""
    runs: Tensor
    """How many runs the example has; run number ``runs`` is the final search."""
    run: Tensor
    taken: Tensor
    """Steps taken in this run; ``steps + 1`` once it is over."""
    retreated: Tensor
    """Whether ``current`` is a success taken a share nearer to the input."""
    looks: Tensor
    """Whether no step is taken from ``current`` as it is, so that its gradient is not asked for."""
    current: Tensor
    best: Tensor
    """The nearest success."""
    best_distance: Tensor
    best_margin: Tensor
    inner: Tensor
    """The furthest point of the segment to ``best`` that is known to fail."""
    inner_margin: Tensor


@dataclass(frozen=True)
class FastAdaptiveBoundary:
    """The state machine behind :func:`fab_targeted`."""

    norm: Norm
    n_targets: int
    steps: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    stop_within: float
    targeted: bool
    bounds: Bounds

    def start(self, inputs: Tensor, labels: Tensor, keys: Tensor) -> FABState:
        """Place every example at itself, as if a run before the first had ended there."""
        whole = torch.zeros_like(labels)
        real = inputs.new_zeros(len(inputs), dtype=torch.promote_types(inputs.dtype, torch.float32))
        return FABState(
            inputs=inputs,
            labels=labels,
            keys=keys,
            aims=labels.new_zeros(len(labels), self.n_targets),
            runs=whole + self.restarts,
            run=whole - 1,
            taken=whole + self.steps,
            retreated=whole.bool(),
            looks=~whole.bool(),
            current=inputs,
            best=inputs,
            best_distance=real + torch.inf,
            best_margin=real,
            inner=inputs,
            inner_margin=real,
        )

    def step(self, model: Model, state: FABState) -> FABState:
        """Look at some points, step from the others."""
        for looks, move in ((state.looks, self.looked), (~state.looks, self.stepped)):
            places = looks.nonzero().squeeze(1)
            if len(places) == len(looks):
                return self.restarted(move(model, state))
            if len(places):
                state = replaced(state, places, move(model, rows(state, places)))
        return self.restarted(state)

    def looked(self, model: Model, state: FABState) -> FABState:
        """Judge the current point: the input, one that has probably fooled, or a run's last."""
        logits = value(model, state.current)
        state, margin = self.judged(self.aimed(state, logits), logits)
        x, searching, last = state.current, state.run == state.runs, state.taken >= self.steps
        retreat = (margin > 0) & ~searching & ~last
        following = torch.where(per_example(retreat, x), self.back(state), x)
        following = torch.where(per_example(searching, x), self.on_segment(state), following)
        return state._replace(
            current=following,
            retreated=retreat,
            looks=searching,
            taken=state.taken + (searching | last),
        )

    def stepped(self, model: Model, state: FABState) -> FABState:
        """Step to the linearised boundary; from a success that comes unexpected, retreat first."""
        logits, gradient = value_and_gradient(
            model, state.current, lambda logits, _: self.lead(logits, state), state.labels
        )
        state, margin = self.judged(state, logits)
        retreat = (margin > 0) & ~state.retreated
        following = self.linearised(state, logits, gradient)
        following = torch.where(per_example(retreat, following), self.back(state), following)

        # Where nothing moves any more the run is over.
        idle = ~retreat & (size(following - state.current, "linf") == 0)
        taken = torch.where(idle, self.steps + 1, state.taken + ~retreat)
        return state._replace(
            current=following,
            retreated=retreat,
            # Once across the boundary, a step from behind it mostly leads across again.
            looks=~retreat & (state.retreated | (taken >= self.steps)),
            taken=taken,
        )

    def done(self, state: FABState) -> Tensor:
        """Near enough, or through with all runs and the final search."""
        failed = state.best_distance.isinf()
        over = (state.run == state.runs) & ((state.taken >= SEARCH_STEPS) | failed)
        return over | (state.best_distance <= self.stop_within)

    def result(self, state: FABState) -> Tensor:
        """Return the nearest success, or the input."""
        return state.best

    def lead(self, logits: Tensor, state: FABState) -> Tensor:
        """What is linearised: positive across the boundary to the aim. (n,)."""
        aim = aim_of_run(state.aims, state.run, state.runs // self.restarts)
        return lead(logits, state.labels, aim, self.targeted)

    def aimed(self, state: FABState, logits: Tensor) -> FABState:
        """At the first look choose the aims."""
        first = state.run < 0
        if not bool(first.any()):
            return state
        aims, count = choose_aims(logits, state.labels, self.n_targets, self.targeted)
        return state._replace(
            aims=torch.where(first[:, None], aims, state.aims),
            runs=torch.where(first, count * self.restarts, state.runs),
        )

    def judged(self, state: FABState, logits: Tensor) -> tuple[FABState, Tensor]:
        """Keep the nearest success, and on the way to it the furthest failure; also the margin."""
        margin = success_margin(logits, state.labels, self.targeted).to(state.best_margin)
        distance = size(state.current - state.inputs, self.norm).to(state.best_distance)
        nearer = (margin > 0) & (distance < state.best_distance)
        inner = (margin <= 0) & ((state.run < 0) | (state.run == state.runs))
        kept = state._replace(
            best=torch.where(per_example(nearer, state.best), state.current, state.best),
            best_distance=torch.where(nearer, distance, state.best_distance),
            best_margin=torch.where(nearer, margin, state.best_margin),
            inner=torch.where(per_example(inner, state.inner), state.current, state.inner),
            inner_margin=torch.where(inner, margin, state.inner_margin),
        )
        return kept, margin

    def linearised(self, state: FABState, logits: Tensor, gradient: Tensor) -> Tensor:
        """Step to the hyperplane where the linearised lead vanishes, pulled to the input."""
        x, inputs = state.current, state.inputs
        # A rounding error of the pixels beyond the boundary, so that a tie is left too.
        ulp = torch.finfo(x.dtype).eps * max(map(abs, self.bounds))
        gap = ulp * size(gradient, "l1") - self.lead(logits, state)
        gap_of_inputs = gap + (gradient * (x - inputs)).flatten(1).sum(dim=1)
        delta = step_to_hyperplane(x, gradient, gap, self.norm, self.bounds)
        delta_of_inputs = step_to_hyperplane(
            inputs, gradient, gap_of_inputs, self.norm, self.bounds
        )

        length = size(delta, self.norm)
        both = length + size(delta_of_inputs, self.norm)
        alpha = torch.where(both > 0, length / both, 0).clamp(max=self.alpha_max)
        alpha = per_example(alpha, x)
        following = (1 - alpha) * (x + self.eta * delta)
        following = following + alpha * (inputs + self.eta * delta_of_inputs)
        return following.clamp(*self.bounds)

    def back(self, state: FABState) -> Tensor:
        """Nearer to the input by a share."""
        return state.inputs + self.beta * (state.current - state.inputs)

    def restarted(self, state: FABState) -> FABState:
        """Send the examples whose run is over to the next, after the last to the final search."""
        again = (state.taken > self.steps) & (state.run < state.runs)
        places = again.nonzero().squeeze(1)
        if not len(places):
            return state
        ended = rows(state, places)
        ended = ended._replace(
            run=ended.run + 1,
            taken=torch.zeros_like(ended.taken),
            retreated=torch.zeros_like(ended.retreated),
            looks=ended.run + 1 == ended.runs,
        )
        last = per_example(ended.run == ended.runs, ended.current)
        first = torch.where(last, self.on_segment(ended), self.first_iterate(ended))
        return replaced(state, places, ended._replace(current=first))

    def first_iterate(self, state: FABState) -> Tensor:
        """Start at the input, in later rounds at a random point half as far as the best."""
        half_width = (self.bounds[1] - self.bounds[0]) / 2
        radius = size(torch.full_like(state.inputs, half_width), self.norm)
        radius = torch.minimum(state.best_distance.to(radius), radius) / 2
        if self.stop_within:
            radius = radius.clamp(max=self.stop_within / 2)
        radius = radius.masked_fill(state.run < state.runs // self.restarts, 0)
        delta = ball(self.norm).sample(state.inputs, state.keys, state.run)
        return (state.inputs + per_example(radius, delta) * delta).clamp(*self.bounds)

    def on_segment(self, state: FABState) -> Tensor:
        """Where the margin, if it were linear, would vanish between failure and success."""
        share = state.inner_margin / (state.inner_margin - state.best_margin)
        share = per_example(share + BEYOND * (1 - share), state.inner).to(state.inner)
        return (state.inner + share * (state.best - state.inner)).clamp(*self.bounds)
