"""Promises about the outputs of a model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .._slopes import slopes
from .._validation import check_output, look_like_probabilities
from .._words import listed
from ..evaluation._first_batch import layout_explained
from ._promises import BrokenPromise, first, smallest
from ._subject import ModelSubject

Found = Iterator[BrokenPromise]

LOGITS = 16
"""How many logits are raised and lowered along their gradients."""


def answers(subject: ModelSubject) -> Found:
    """A batch of n examples gives n rows of logits."""
    try:
        with layout_explained(subject.answer, subject.examples, "example_inputs"):
            logits = subject.answer(subject.examples)
        check_output(logits, len(subject.examples))
    except Exception as error:
        yield BrokenPromise("answers", str(error), subject.examples[:1])


def inputs_kept(subject: ModelSubject) -> Found:
    """The model does not change its inputs."""

    def written(rows: Tensor) -> bool:
        given = rows.clone()
        version = given._version
        with torch.no_grad():
            subject.model(given)
        # A ReLU in place writes the same values where they are positive.
        return given._version != version or not torch.equal(given, rows)

    if written(subject.interior):
        yield BrokenPromise(
            "inputs-kept",
            "model must not change its inputs, got values written into them; look for +=, "
            "methods that end in an underscore, and nn.ReLU(inplace=True) as the first layer",
            smallest(subject.interior, written),
        )


def dtype_and_device(subject: ModelSubject) -> Found:
    """Logits have the dtype and the device of the inputs."""
    rows = subject.rows
    logits = subject.answer(rows)
    if logits.dtype != rows.dtype or logits.device != rows.device:
        yield BrokenPromise(
            "dtype-and-device",
            f"model must return logits in the dtype and on the device of its inputs, "
            f"{rows.dtype} on {rows.device}, got {logits.dtype} on {logits.device}",
            rows[:1],
        )


def finite_logits(subject: ModelSubject) -> Found:
    """Logits are finite, even at the extremes that the bounds allow."""
    points = torch.cat([plain_points(subject), subject.rows, subject.points, steepest(subject)])
    rows = torch.cat([subject.answer(part) for part in points.split(16)])
    bad = ~rows.isfinite().all(dim=1)
    if not bool(bad.any()):
        return
    point, logits = points[first(bad)][None], rows[first(bad)]
    if bool(logits.isnan().any()):
        got, remedy = "NaN", "look for 0 / 0, log(0) and divisions by a norm or a deviation"
    else:
        got, remedy = "infinity", "look for an overflow, such as of float16 above 65504 or of exp"
    yield BrokenPromise(
        "finite-logits",
        f"model must return finite logits, got {got} for {int(bad.sum())} of {len(points)} inputs "
        f"within bounds; {remedy}",
        point,
    )


def plain_points(subject: ModelSubject) -> Tensor:
    """Inputs with every value at zero, at its lowest, at its highest, and in the middle."""
    low, high = subject.low, subject.high
    zero = torch.zeros_like(low).clamp(low, high)
    return torch.stack([zero, low, high, (low + high) / 2])


def steepest(subject: ModelSubject) -> Tensor:
    """Corners of the bounds towards which gradients raise or lower a logit; none without those."""
    point = subject.interior[:1].clone().requires_grad_()

    def logits() -> tuple[Tensor, ...]:
        found = subject.ask(point)
        return found[0, :LOGITS].unbind() if found.requires_grad else ()

    corners = []
    for slope in slopes(logits, point):
        if slope is not None:
            corners += [torch.where(slope > 0, subject.high, subject.low)]
            corners += [torch.where(slope < 0, subject.high, subject.low)]
    return torch.cat(corners).detach() if corners else subject.interior[:0]


def logits_not_probabilities(subject: ModelSubject) -> Found:
    """The outputs are logits, not probabilities."""
    if look_like_probabilities(subject.answer(subject.rows)):
        yield BrokenPromise(
            "logits",
            "model must return logits, got rows in [0, 1] that sum to 1; remove the final softmax",
            subject.rows[:1],
        )


def repeatable(subject: ModelSubject) -> Found:
    """The same inputs give the same logits."""

    def changes(rows: Tensor) -> bool:
        return not subject.close(subject.answer(rows), subject.answer(rows))

    if not any(changes(subject.rows) for _ in range(3)):
        return
    training = parts_in_training(subject.model)
    where = f"; still in training mode: {listed(training)}" if training else ""
    yield BrokenPromise(
        "repeatable",
        "model must return the same logits for the same inputs in eval mode, got different ones; "
        f"look for dropout or noise that is still on, such as functional.dropout without training="
        f"{where}",
        smallest(subject.rows, changes),
    )


def parts_in_training(model: object) -> list[str]:
    """Names of the modules that are still in training mode."""
    if not isinstance(model, nn.Module):
        return []
    return [name or "model" for name, part in model.named_modules() if part.training]


@contextmanager
def values_kept(model: object) -> Iterator[None]:
    """Put the values of parameters and buffers back afterwards, whatever a model does to them."""
    if not isinstance(model, nn.Module):
        yield
        return
    before = {name: value.clone() for name, value in tensors(model).items()}
    try:
        yield
    finally:
        now = tensors(model)
        with torch.no_grad():
            for name, value in before.items():
                if not same(value, now[name]):
                    now[name].copy_(value)


def state_kept(subject: ModelSubject) -> Found:
    """A forward pass in eval mode changes no parameter or buffer."""
    if not isinstance(subject.model, nn.Module):
        return
    before = {name: value.clone() for name, value in tensors(subject.model).items()}
    subject.answer(subject.rows)
    now = tensors(subject.model)
    changed = [name for name, value in before.items() if not same(value, now[name])]
    if changed:
        yield BrokenPromise(
            "state-kept",
            f"model must not change when it is evaluated in eval mode, got other values in "
            f"{listed(changed)}; look for running statistics that are still updated",
            subject.rows,
        )


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, NaN equal to NaN."""
    return bool(((one == other) | ((one != one) & (other != other))).all())


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def order_independence(subject: ModelSubject) -> Found:
    """Reordering the inputs reorders the logits."""
    rows = subject.rows
    together = subject.answer(rows)
    turned = subject.answer(rows.roll(1, dims=0)).roll(-1, dims=0)
    flipped = subject.answer(rows.flip(0)).flip(0)
    if subject.close(turned, together) and subject.close(flipped, together):
        return
    yield BrokenPromise(
        "order-independence",
        "model must return the same logits for an example anywhere in a batch, got other logits "
        "for the same examples in another order; look for a sort, a flip or a value stored per row",
        smallest(rows, lambda some: not alike_alone(subject, some)),
    )


def alike_alone(subject: ModelSubject, rows: Tensor) -> bool:
    """Whether examples get the same logits together as alone."""
    alone = torch.cat([subject.answer(row) for row in rows.split(1)])
    return subject.close(alone, subject.answer(rows))


def batch_independence(subject: ModelSubject) -> Found:
    """An example gets the same logits alone and in any batch."""
    rows = subject.rows
    rule = "model must return the same logits for an example alone and in any batch"
    training = parts_in_training(subject.model)
    remedy = "look for batch statistics, such as BatchNorm in training mode or a mean over axis 0"
    remedy += f"; still in training mode: {listed(training)}" if training else ""
    for row in rows.split(1):
        try:
            check_output(subject.answer(row), 1)
        except Exception as error:
            got = f"got {type(error).__name__} for a batch of one: {error}"
            yield BrokenPromise("batch-independence", f"{rule}, {got}; {remedy}", row)
            return
    if not alike_alone(subject, rows):
        apart = smallest(rows, lambda some: not alike_alone(subject, some))
        got = f"got other logits in a batch of {len(apart)}"
        yield BrokenPromise("batch-independence", f"{rule}, {got}; {remedy}", apart)
