"""The one loop that runs every iterative attack, over the whole set at once.

An attack is a small state machine on a batch. The engine keeps the batch full: an example
that is done leaves it at once and the next one takes its place (continuous batching), so the
model never sees an example whose fate is decided. Devices, dtypes, modes, randomness,
progress and interruption live here, once.
"""

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from .._bar import progress_bar
from .._batches import few_sizes
from .._boxes import boxes
from .._geometry import check_reach, inside, per_example
from .._model_kinds import check_model
from .._modes import borrowed, device_of, dtype_of
from .._random import draw_seed, example_keys, key_of_copy
from .._rejection import n_classes_of, opposed
from .._slopes import slopes
from .._typing import Bounds, Callback, Distance, Loss, Mask, Model
from .._validation import (
    check_at_least,
    check_differentiable,
    check_finite_output,
    check_gradient,
    check_inputs,
    check_label_range,
    check_labels,
    check_logits,
    check_random_state,
)
from ._checks import SAMPLE, ModelFacts, examine
from ._examples import Examples
from ._losses import success_margin

State = TypeVar("State", bound=tuple[Any, ...])


class Algorithm(Protocol[State]):
    """What an iterative attack tells the engine.

    ``State`` is a named tuple of tensors whose first axis is the example, and of such named
    tuples; the functions are pure and treat every example by itself.
    """

    def start(self, examples: Examples) -> State:
        """Return the state before the first step."""

    def step(self, model: "Query", state: State) -> State:
        """Ask the model once (or as often as the method's one step needs) and move on."""

    def done(self, state: State) -> Tensor:
        """Which examples need no further step: (n,) bool."""

    def result(self, state: State) -> Tensor:
        """Return the adversarial examples: (n, ...)."""


class Query:
    """The model as attacks see it: called in its own dtype, its first answer checked.

    It is asked about points as the caller gets them, rounded to the dtype of his inputs, and in
    a copy, which it may work on in place. Rejection, of a model that has a column for it, stands in
    the way of an attack as the true class does, and is seen as that; for a target it is one more
    of the others.
    """

    def __init__(
        self,
        model: Model,
        given: torch.dtype,
        labels: Tensor,
        *,
        targeted: bool = False,
        callback: Callback | None = None,
    ) -> None:
        self.model = model
        self.given = given
        self.dtype = dtype_of(model, given)
        self.labels = labels
        self.targeted = targeted
        self.callback = callback
        self.facts = ModelFacts()
        self.checked = False

    def __call__(self, examples: Examples, points: Tensor) -> Tensor:
        """Logits, in single precision at least."""
        logits = self.raw(points)
        if not self.targeted:
            logits = opposed(self.model, logits, examples.labels.to(logits.device))
        if self.callback is not None:
            asked = points.detach().to(self.given, copy=True)
            self.callback(examples.indices, asked, logits.detach())
        return _in_single(logits)

    def raw(self, points: Tensor) -> Tensor:
        """Logits as the model returns them."""
        parts = few_sizes(points.to(self.given).to(self.dtype, copy=True))
        answers = [self.model(part) for part in parts]
        if not self.checked:
            # An evaluation has seen more answers: those of a few examples may sum to 1 by chance.
            settled = getattr(self.model, "answers_logits", False)
            check = check_finite_output if settled else check_logits
            check(answers[0], len(parts[0]))
            check_label_range(self.labels, n_classes_of(self.model, answers[0]))
            self.checked = True
        return torch.cat(answers) if len(answers) > 1 else answers[0]

    def narrowest(self) -> torch.dtype:
        """Return the coarser of the two dtypes that points pass through."""
        return max(self.given, self.dtype, key=lambda kind: torch.finfo(kind).eps)


def run(
    algorithm: Algorithm[State],
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    targeted: bool,
    bounds: Bounds,
    mask: Mask | None,
    batch_size: int,
    random_state: int | None,
    progress: bool,
    callback: Callback | None,
    budget: tuple[Distance, float] | None = None,
    gradients: bool = True,
) -> Tensor:
    """Check what the caller passed, run ``algorithm`` on every example, return like ``inputs``."""
    check_model(model)
    check_inputs(inputs)
    low, high = boxes(inputs, bounds, mask)
    inputs = inputs.detach().clamp(low, high)  # what exceeds the bounds by rounding is put on them
    if budget is not None:
        norm, epsilon = budget
        check_reach(epsilon, norm, low, high, inputs)
    check_labels(labels, inputs)
    check_at_least("batch_size", batch_size, 1)
    check_random_state(random_state)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be None or callable, got {type(callback).__name__}")

    seed = draw_seed(random_state)
    query = Query(model, inputs.dtype, labels, targeted=targeted, callback=callback)
    with (
        borrowed(model, seed),
        progress_bar(progress, total=len(inputs), unit="example") as bar,
    ):
        waiting = _examples(inputs, labels, low, high, seed)
        if len(inputs):
            query.facts = _facts(model, query, waiting, gradients)
        return _run(algorithm, query, waiting, batch_size, bar)


def logits_at(model: Query, examples: Examples, points: Tensor) -> Tensor:
    """Logits without a graph: a third of the cost of :func:`logits_and_gradient`."""
    with torch.no_grad():
        return model(examples, points)


def logits_and_gradient(
    model: Query, examples: Examples, points: Tensor, loss: Loss, moving: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits at ``points`` and the gradient of each example's loss there, both detached.

    Where no example is ``moving`` on, no gradient is asked for, and it is 0.
    """
    if moving is not None and not bool(moving.any()):
        return logits_at(model, examples, points), torch.zeros_like(points)
    logits, jacobian = logits_and_jacobian(
        model, examples, points, lambda logits, labels: loss(logits, labels)[:, None]
    )
    return logits, jacobian[:, 0]


def logits_and_jacobian(
    model: Query, examples: Examples, points: Tensor, outputs: Loss
) -> tuple[Tensor, Tensor]:
    """Logits at ``points`` and the gradients there of k ``outputs`` per example: (n, k, ...).

    ``outputs`` maps logits (n, n_classes) and labels (n,) to (n, k). One forward, k backwards:
    on full batches that is faster than a vectorised backward, and every model supports it.

    Of a model whose gradient is lost at the bounds, all is asked for a hair inside them; then the
    logits of what looks like a success there are asked for again, at the point itself.
    """
    hair = model.facts.hair
    asked = points if hair is None else inside(points, examples.low, examples.high, hair)
    asked = asked.detach().requires_grad_()
    answers: list[Tensor] = []

    def sums() -> tuple[Tensor, ...]:
        logits = model(examples, asked)
        check_differentiable(logits)
        answers.append(logits.detach())
        return outputs(logits, examples.labels).sum(dim=0).unbind()

    gradients = [_finite(check_gradient(each)) for each in slopes(sums, asked)]
    jacobian = torch.stack(gradients, dim=1).masked_fill(~examples.free[:, None], 0)
    logits = answers[0]
    return (logits if hair is None else _confirmed(model, examples, points, logits)), jacobian


def _confirmed(model: Query, examples: Examples, points: Tensor, logits: Tensor) -> Tensor:
    """Replace the logits of successes by those at the points themselves."""
    successes = (success_margin(logits, examples, model.targeted) > 0).nonzero().squeeze(1)
    if not len(successes):
        return logits
    exact = logits_at(model, take(examples, successes), points[successes])
    return logits.index_copy(0, successes, exact)


def _finite(gradient: Tensor) -> Tensor:
    """A slope without end becomes one that outweighs all others and whose square is finite.

    At an exact zero the square root has such a slope, and NaN where nothing depends on it.
    """
    highest = torch.finfo(gradient.dtype).max ** 0.5 / max(1, gradient[0].numel())
    return gradient.nan_to_num(nan=0.0, posinf=highest, neginf=-highest)


def _examples(inputs: Tensor, labels: Tensor, low: Tensor, high: Tensor, seed: int) -> Examples:
    """All that the caller passed."""
    keys = key_of_copy(example_keys(inputs, seed), labels.to(inputs.device))
    places = torch.arange(len(inputs), device="cpu")
    nothing = torch.zeros(len(inputs), device="cpu")
    return Examples(places, inputs, labels, keys, low, high, nothing)


def model_facts(
    model: Model, inputs: Tensor, labels: Tensor, bounds: Bounds, mask: Mask | None, seed: int
) -> ModelFacts:
    """Find out what attacks have to know of a borrowed model, with or without gradients."""
    low, high = boxes(inputs, bounds, mask)
    query = Query(model, inputs.dtype, labels)
    few = _few(_examples(inputs, labels, low, high, seed), device_of(model, inputs.device))
    try:
        return examine(query.raw, few, query.narrowest(), gradients=True)
    except Exception:
        # A backward pass through foreign code may raise anything; all else is raised again here.
        return examine(query.raw, few, query.narrowest(), gradients=False)


def _few(waiting: Examples, device: torch.device) -> Examples:
    return _on(device, take(waiting, torch.arange(min(SAMPLE, len(waiting.inputs)), device="cpu")))


def _facts(model: Model, query: Query, waiting: Examples, gradients: bool) -> ModelFacts:
    """What a caller who evaluates knows already, or what a look at a few examples tells."""
    known = getattr(model, "facts", None)
    if isinstance(known, ModelFacts):
        return known
    few = _few(waiting, device_of(model, waiting.inputs.device))
    return examine(query.raw, few, query.narrowest(), gradients)


def _run(
    algorithm: Algorithm[State], query: Query, waiting: Examples, batch_size: int, bar: Any
) -> Tensor:
    inputs = waiting.inputs
    device = device_of(query.model, inputs.device)
    adversarial = inputs.clone()

    def start(places: Tensor) -> State:
        # Indexing copies: a tensor made under inference_mode could not take part in autograd.
        fresh = _on(device, take(waiting, places))
        rounding = torch.full_like(fresh.inputs.flatten(1)[:, 0], query.facts.rounding)
        return algorithm.start(fresh._replace(rounding=rounding))

    places = torch.arange(min(batch_size, len(inputs)), device="cpu")
    following = len(places)
    state = start(places) if len(places) else None

    while state is not None:
        state = algorithm.step(query, state)
        done = algorithm.done(state).cpu()
        if not done.any():
            continue

        finished = done.nonzero().squeeze(1)
        result = algorithm.result(take(state, finished))
        adversarial[places[finished]] = result.detach().to(adversarial)
        bar.update(len(finished))

        fresh = torch.arange(following, min(following + len(finished), len(inputs)), device="cpu")
        following += len(fresh)
        if len(fresh):
            rows = finished[: len(fresh)]
            state = put(state, rows, start(fresh))
            places[rows] = fresh
            done[rows] = False
        if done.any():
            kept = (~done).nonzero().squeeze(1)
            places = places[kept]
            state = take(state, kept) if len(kept) else None

    return adversarial


def _on(device: torch.device, examples: Examples) -> Examples:
    """Move to the device, points in single precision at least."""
    moved = Examples(*(part.to(device) for part in examples))
    return moved._replace(
        inputs=_in_single(moved.inputs), low=_in_single(moved.low), high=_in_single(moved.high)
    )


def _in_single(values: Tensor) -> Tensor:
    """Half precision is for the network: it would swallow small steps and small margins."""
    return values.float() if values.element_size() < 4 else values


def take(state: State, rows: Tensor) -> State:
    """Return the state of some examples alone."""
    return _rebuilt(state, [_taken(part, rows) for part in state])


def put(state: State, rows: Tensor, fresh: State) -> State:
    """Return the state with some examples exchanged."""
    parts = zip(state, fresh, strict=True)
    return _rebuilt(state, [_put(old, rows, new) for old, new in parts])


def select(chosen: Tensor, new: Any, old: Any) -> Any:
    """Return ``new`` for the ``chosen`` examples (n,) and ``old`` for the others.

    Of two tensors whose first axis is the example, or of two states.
    """
    if isinstance(old, Tensor):
        return torch.where(per_example(chosen, old), new, old)
    return _rebuilt(old, [select(chosen, *parts) for parts in zip(new, old, strict=True)])


def _taken(part: Any, rows: Tensor) -> Any:
    return part[rows.to(part.device)] if isinstance(part, Tensor) else take(part, rows)


def _put(old: Any, rows: Tensor, new: Any) -> Any:
    if not isinstance(old, Tensor):
        return put(old, rows, new)
    return old.index_copy(0, rows.to(old.device), new)


def _rebuilt(state: State, parts: list[Any]) -> State:
    return type(state)(*parts)
