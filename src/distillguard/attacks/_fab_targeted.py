"""Targeted FAB: the nearest point across linearised boundaries (Croce and Hein 2020)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._geometry import lp_norm, per_example
from .._typing import Bounds, Callback, Mask, Model, Norm
from .._validation import check_at_least, check_in_unit_interval, check_norm, check_positive
from ._box_projection import step_to_hyperplane
from ._engine import Query, logits_and_gradient, logits_at, put, run, select, take
from ._examples import Examples
from ._losses import success_margin
from ._targets import (
    TargetChoice,
    TargetOrder,
    check_target_order,
    logit_gap,
    target_of_run,
)

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
    target_order: TargetOrder = "likeliest",
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_within: float | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack by stepping to linearised class boundaries, close to the input [1]_.

    The ``n_targets`` wrong classes that the model finds likeliest at the input are tried one
    after another, or those whose boundaries are nearest. Towards a class :math:`t` each
    step linearises :math:`z_t - z_y` at :math:`x_k`, finds within ``bounds`` the smallest steps
    :math:`\delta` from :math:`x_k` and :math:`\delta_0` from the input :math:`x` to the
    hyperplane where it vanishes, exactly, and goes to

    .. math::
        x_{k+1} = (1 - \alpha)(x_k + \eta\delta) + \alpha(x + \eta\delta_0),
        \qquad \alpha = \min\Bigl(\tfrac{\lVert\delta\rVert}
        {\lVert\delta\rVert + \lVert\delta_0\rVert}, \alpha_{\max}\Bigr).

    From a point that fools the model the next step is taken a share :math:`1 - \beta` nearer to
    the input. Finally, a line search runs along the segment from the input to the nearest success.

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
    target_order : {"likeliest", "nearest"}, default="likeliest"
        In which order wrong classes are tried: by their logits, as the authors have it, or by the
        distance to their boundaries of the model linearised at the input [2]_. That looks at the
        12 likeliest wrong classes, or at ``n_targets`` if they are more, one backward pass each,
        and few of them find what many of the likeliest find.
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
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors
        broadcastable to one input, such as one bound for each feature or channel.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or of all (with a first axis of 1
        or n); the others come back bit-equal. All may if not given.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of the random starts, drawn per example. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``, within ``bounds`` exactly. Unchanged where the
        attack failed or the input is misclassified already.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``alpha_max`` or ``beta`` is outside
        [0, 1], ``eta`` is below 1, ``stop_within`` is not a finite number above 0,
        ``n_targets``, ``steps`` or ``restarts`` is below 1, ``norm`` or ``target_order`` is
        unknown, or ``model`` returns something else than logits.
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
    .. [2] O. Melamed, G. Yehudai and A. Shamir, "MALT Powers Up Adversarial Attacks",
       NeurIPS 2024. https://arxiv.org/abs/2407.02240

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
    check_target_order(target_order)
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
        choose=TargetChoice(n_targets, target_order, norm, targeted),
        steps=steps,
        restarts=restarts,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
        stop_within=0.0 if stop_within is None else stop_within,
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
    )


class FABState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    targets: Tensor
    """Classes that the runs move towards in turn: (n, n_targets)."""
    runs: Tensor
    """How many runs the example has; run number ``runs`` is the final search."""
    run: Tensor
    step: Tensor
    """Steps taken in this run; ``steps + 1`` once it is over."""
    retreated: Tensor
    """Whether ``current`` is a success taken a share nearer to the input."""
    forward_only: Tensor
    """Whether no step is taken from ``current`` as it is, so that its gradient is not asked for."""
    current: Tensor
    best: Tensor
    """The nearest success."""
    best_distance: Tensor
    best_margin: Tensor
    last_failure: Tensor
    """The furthest point of the segment to ``best`` that is known to fail."""
    failure_margin: Tensor


@dataclass(frozen=True)
class FastAdaptiveBoundary:
    """The state machine behind :func:`fab_targeted`, in the order of algorithm 1."""

    norm: Norm
    choose: TargetChoice
    steps: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    stop_within: float
    targeted: bool

    def start(self, examples: Examples) -> FABState:
        """Place every example at itself, as if a run before the first had ended there."""
        inputs, labels = examples.inputs, examples.labels
        whole, real = torch.zeros_like(labels), inputs.new_zeros(len(inputs))
        return FABState(
            examples=examples,
            targets=labels.new_zeros(len(labels), self.choose.n_targets),
            runs=whole + self.restarts,
            run=whole - 1,
            step=whole + self.steps + 1,
            retreated=whole.bool(),
            forward_only=~whole.bool(),
            current=inputs,
            best=inputs,
            best_distance=real + torch.inf,
            best_margin=real,
            last_failure=inputs,
            failure_margin=real,
        )

    def step(self, model: Query, state: FABState) -> FABState:
        """Look at the inputs, only judge some points, step from the others."""
        first = state.run < 0
        ways = (
            (first, self._first_look),
            (state.forward_only & ~first, self._judge_only),
            (~state.forward_only & ~first, self._take_step),
        )
        for chosen, move in ways:
            rows = chosen.nonzero().squeeze(1)
            if len(rows) == len(chosen):
                return self._next_run(move(model, state))
            if len(rows):
                state = put(state, rows, move(model, take(state, rows)))
        return self._next_run(state)

    def done(self, state: FABState) -> Tensor:
        """Near enough, or through with all runs and the final search."""
        failed = state.best_distance.isinf()
        over = (state.run == state.runs) & ((state.step >= SEARCH_STEPS) | failed)
        return over | (state.best_distance <= self.stop_within)

    def result(self, state: FABState) -> Tensor:
        """Return the nearest success, or the input."""
        return state.best

    def _first_look(self, model: Query, state: FABState) -> FABState:
        """Judge the input and choose the targets."""
        logits, targets, count = self.choose(model, state.examples)
        runs = torch.full_like(state.runs, count * self.restarts)
        return self._keep_nearest(state._replace(targets=targets, runs=runs), logits)[0]

    def _judge_only(self, model: Query, state: FABState) -> FABState:
        """Judge the current point: one that has probably fooled, or a run's last."""
        logits = logits_at(model, state.examples, state.current)
        state, margin = self._keep_nearest(state, logits)
        searching, last = state.run == state.runs, state.step >= self.steps
        retreat = (margin > 0) & ~searching & ~last
        following = select(retreat, self._retreat(state), state.current)
        following = select(searching, self._segment_point(state), following)
        return state._replace(
            current=following,
            retreated=retreat,
            forward_only=searching,
            step=state.step + (searching | last),
        )

    def _take_step(self, model: Query, state: FABState) -> FABState:
        """Step to the linearised boundary; from a success that comes unexpected, retreat first."""
        logits, gradient = logits_and_gradient(
            model, state.examples, state.current, lambda logits, _: self._gap(logits, state)
        )
        state, margin = self._keep_nearest(state, logits)
        retreat = (margin > 0) & ~state.retreated
        following = self._linearised_step(state, logits, gradient)
        following = select(retreat, self._retreat(state), following)

        # Where nothing moves any more the run is over.
        idle = ~retreat & (lp_norm(following - state.current, "linf") == 0)
        step = torch.where(idle, self.steps + 1, state.step + ~retreat)
        return state._replace(
            current=following,
            retreated=retreat,
            # Once across the boundary, a step from behind it mostly leads across again.
            forward_only=~retreat & (state.retreated | (step >= self.steps)),
            step=step,
        )

    def _gap(self, logits: Tensor, state: FABState) -> Tensor:
        """What is linearised: positive across the boundary to the target. (n,)."""
        target = target_of_run(state.targets, state.run, state.runs // self.restarts)
        return logit_gap(logits, state.examples.labels, target, self.targeted)

    def _keep_nearest(self, state: FABState, logits: Tensor) -> tuple[FABState, Tensor]:
        """Keep the nearest success, and on the way to it the furthest failure; also the margin."""
        margin = success_margin(logits, state.examples, self.targeted).to(state.best_margin)
        distance = lp_norm(state.current - state.examples.inputs, self.norm)
        nearer = (margin > 0) & (distance < state.best_distance)
        failure = (margin <= 0) & ((state.run < 0) | (state.run == state.runs))
        kept = state._replace(
            best=select(nearer, state.current, state.best),
            best_distance=torch.where(nearer, distance, state.best_distance),
            best_margin=torch.where(nearer, margin, state.best_margin),
            last_failure=select(failure, state.current, state.last_failure),
            failure_margin=torch.where(failure, margin, state.failure_margin),
        )
        return kept, margin

    def _linearised_step(self, state: FABState, logits: Tensor, gradient: Tensor) -> Tensor:
        """Step to the hyperplane where the linearised gap vanishes, pulled to the input."""
        x, examples = state.current, state.examples
        inputs, low, high = examples.inputs, examples.low, examples.high
        # A rounding error of the pixels beyond the boundary, so that a tie is left too.
        largest = torch.maximum(low.abs(), high.abs()).flatten(1).amax(dim=1)
        gap = torch.finfo(x.dtype).eps * largest * lp_norm(gradient, "l1")
        gap = gap - self._gap(logits, state)
        gap_of_inputs = gap + (gradient * (x - inputs)).flatten(1).sum(dim=1)
        # Equations 7 and 8: the projections of the iterate and of the input.
        delta = step_to_hyperplane(x, gradient, gap, self.norm, low, high)
        delta_of_inputs = step_to_hyperplane(inputs, gradient, gap_of_inputs, self.norm, low, high)

        # Equation 9: the weight alpha of the step from the input.
        length = lp_norm(delta, self.norm)
        both = length + lp_norm(delta_of_inputs, self.norm)
        alpha = torch.where(both > 0, length / both, 0).clamp(max=self.alpha_max)
        alpha = per_example(alpha, x)
        following = (1 - alpha) * (x + self.eta * delta)
        following = following + alpha * (inputs + self.eta * delta_of_inputs)
        return examples.clamp(following)

    def _retreat(self, state: FABState) -> Tensor:
        """Nearer to the input by a share: the backward step with beta."""
        inputs = state.examples.inputs
        return inputs + self.beta * (state.current - inputs)

    def _next_run(self, state: FABState) -> FABState:
        """Send the examples whose run is over to the next, after the last to the final search."""
        again = (state.step > self.steps) & (state.run < state.runs)
        rows = again.nonzero().squeeze(1)
        if not len(rows):
            return state
        ended = take(state, rows)
        ended = ended._replace(
            run=ended.run + 1,
            step=torch.zeros_like(ended.step),
            retreated=torch.zeros_like(ended.retreated),
            forward_only=ended.run + 1 == ended.runs,
        )
        searching = ended.run == ended.runs
        first = select(searching, self._segment_point(ended), self._first_iterate(ended))
        return put(state, rows, ended._replace(current=first))

    def _first_iterate(self, state: FABState) -> Tensor:
        """Start at the input, in later rounds at a random point half as far as the best."""
        examples = state.examples
        half_width = ((examples.high - examples.low) / 2).expand_as(examples.inputs)
        radius = lp_norm(half_width, self.norm)
        radius = torch.minimum(state.best_distance, radius) / 2
        if self.stop_within:
            radius = radius.clamp(max=self.stop_within / 2)
        radius = radius.masked_fill(state.run < state.runs // self.restarts, 0)
        delta = examples.sample(self.norm, state.run)
        return examples.clamp(examples.inputs + per_example(radius, delta) * delta)

    def _segment_point(self, state: FABState) -> Tensor:
        """Where the margin, if it were linear, would vanish between failure and success."""
        share = state.failure_margin / (state.failure_margin - state.best_margin)
        share = per_example(share + BEYOND * (1 - share), state.last_failure)
        failure = state.last_failure
        return state.examples.clamp(failure + share * (state.best - failure))
