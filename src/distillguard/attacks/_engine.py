"""The one loop that runs every iterative attack, over the whole set at once.

An attack is a small state machine on a batch. The engine keeps the batch full: an example
that is done leaves it at once and the next one takes its place (continuous batching), so the
model never sees an example whose fate is decided. Devices, dtypes, modes, randomness,
progress and interruption live here, once.
"""

from typing import Protocol, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .._batches import few_sizes
from .._modes import borrowed, device_of, dtype_of
from .._random import draw_seed, example_keys
from .._typing import Bounds, Loss, Model
from .._validation import (
    check_at_least,
    check_bounds,
    check_differentiable,
    check_gradient,
    check_inputs,
    check_label_range,
    check_labels,
    check_logits,
    check_model,
    check_random_state,
)

State = TypeVar("State", bound=tuple[Tensor, ...])


class Algorithm(Protocol[State]):
    """What an iterative attack tells the engine.

    ``State`` is a named tuple of tensors whose first axis is the example; the functions are
    pure and treat every example by itself.
    """

    def start(self, inputs: Tensor, labels: Tensor, keys: Tensor) -> State:
        """Return the state before the first step; ``keys`` (n,) int64 seed each example."""

    def step(self, model: Model, state: State) -> State:
        """Ask the model once (or as often as the method's one step needs) and move on."""

    def done(self, state: State) -> Tensor:
        """Which examples need no further step: (n,) bool."""

    def result(self, state: State) -> Tensor:
        """Return the adversarial examples: (n, ...)."""


def run(
    algorithm: Algorithm[State],
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    bounds: Bounds,
    batch_size: int,
    random_state: int | None,
    progress: bool,
) -> Tensor:
    """Check what the caller passed, run ``algorithm`` on every example, return like ``inputs``."""
    check_model(model)
    check_bounds(bounds)
    check_inputs(inputs, bounds)
    check_labels(labels, inputs)
    check_at_least("batch_size", batch_size, 1)
    check_random_state(random_state)

    seed = draw_seed(random_state)
    with (
        borrowed(model, seed),
        tqdm(total=len(inputs), disable=not progress, unit="example") as bar,
    ):
        return _run(algorithm, model, inputs, labels, batch_size, seed, bar)


def logits_and_gradient(
    model: Model, points: Tensor, loss: Loss, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits at ``points`` and the gradient of each example's loss there, both detached."""
    logits, jacobian = logits_and_jacobian(
        model, points, lambda logits, labels: loss(logits, labels)[:, None], labels
    )
    return logits, jacobian[:, 0]


def logits_and_jacobian(
    model: Model, points: Tensor, outputs: Loss, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits at ``points`` and the gradients there of k ``outputs`` per example: (n, k, ...).

    ``outputs`` maps logits (n, n_classes) and labels (n,) to (n, k). One forward, k backwards:
    on full batches that is faster than a vectorised backward, and every model supports it.
    """
    points = points.detach().requires_grad_()
    logits = model(points)
    check_differentiable(logits)
    sums = outputs(logits, labels).sum(dim=0).unbind()
    gradients = [
        torch.autograd.grad(each, points, retain_graph=each is not sums[-1], allow_unused=True)[0]
        for each in sums
    ]
    return logits.detach(), torch.stack(
        [_finite(check_gradient(each)) for each in gradients], dim=1
    )


def _finite(gradient: Tensor) -> Tensor:
    """A slope without end becomes one that outweighs all others and whose square is finite.

    At an exact zero the square root has such a slope, and NaN where nothing depends on it.
    """
    highest = torch.finfo(gradient.dtype).max ** 0.5 / max(1, gradient[0].numel())
    return gradient.nan_to_num(nan=0.0, posinf=highest, neginf=-highest)


def logits_at(model: Model, points: Tensor) -> Tensor:
    """Logits at ``points`` without a graph: a third of the cost of :func:`logits_and_gradient`."""
    with torch.no_grad():
        return model(points)


def _run(
    algorithm: Algorithm[State],
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    batch_size: int,
    seed: int,
    bar: "tqdm[None]",
) -> Tensor:
    device = device_of(model, inputs.device)
    ask = _WrappedModel(model, inputs.dtype, dtype_of(model, inputs.dtype), labels)
    inputs = inputs.detach()
    adversarial = inputs.clone()

    def start(examples: Tensor) -> State:
        # Indexing copies: a tensor made under inference_mode could not take part in autograd.
        fresh = inputs[examples].to(device)
        keys = example_keys(fresh, seed)
        return algorithm.start(_in_single(fresh), labels[examples].to(device), keys)

    examples = torch.arange(min(batch_size, len(inputs)))
    following = len(examples)
    state = start(examples) if len(examples) else None

    while state is not None:
        state = algorithm.step(ask, state)
        done = algorithm.done(state).cpu()
        if not done.any():
            continue

        finished = done.nonzero().squeeze(1)
        result = algorithm.result(take(state, finished))
        adversarial[examples[finished]] = result.detach().to(adversarial)
        bar.update(len(finished))

        fresh = torch.arange(following, min(following + len(finished), len(inputs)))
        following += len(fresh)
        if len(fresh):
            places = finished[: len(fresh)]
            state = put(state, places, start(fresh))
            examples[places] = fresh
            done[places] = False
        if done.any():
            kept = (~done).nonzero().squeeze(1)
            examples = examples[kept]
            state = take(state, kept) if len(kept) else None

    return adversarial


class _WrappedModel:
    """The model as attacks see it: called in its own dtype, its first answer checked.

    It is asked about points as the caller gets them, rounded to the dtype of his inputs, and in
    a copy, which it may work on in place.
    """

    def __init__(
        self, model: Model, rounding: torch.dtype, dtype: torch.dtype, labels: Tensor
    ) -> None:
        self.model = model
        self.rounding = rounding
        self.dtype = dtype
        self.labels = labels
        self.checked = False

    def __call__(self, points: Tensor) -> Tensor:
        parts = few_sizes(points.to(self.rounding).to(self.dtype, copy=True))
        answers = [self.model(part) for part in parts]
        if not self.checked:
            check_logits(answers[0], len(parts[0]))
            check_label_range(self.labels, answers[0].shape[1])
            self.checked = True
        logits = torch.cat(answers) if len(answers) > 1 else answers[0]
        return _in_single(logits)


def _in_single(values: Tensor) -> Tensor:
    """Half precision is for the network: it would swallow small steps and small margins."""
    return values.float() if values.element_size() < 4 else values


def take(state: State, places: Tensor) -> State:
    """Return the state of some examples alone."""
    return _rebuilt(state, [part[places.to(part.device)] for part in state])


def put(state: State, places: Tensor, fresh: State) -> State:
    """Return the state with some examples exchanged."""
    parts = zip(state, fresh, strict=True)
    return _rebuilt(state, [old.index_copy(0, places.to(old.device), new) for old, new in parts])


def _rebuilt(state: State, parts: list[Tensor]) -> State:
    return type(state)(*parts)
