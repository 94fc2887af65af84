"""Promises about layers and detectors."""

import copy
import pickle
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .._modes import on_cpu
from .._words import described
from ..defenses import Detector, Layer
from . import _answers
from ._defense_subject import DefenseSubject, arguments, rebuilt
from ._promises import BrokenPromise, first
from ._subject import ModelSubject
from ._traces import generators, stirred, traces

Found = Iterator[BrokenPromise]


def of_model(find: Callable[[ModelSubject], Found]) -> Callable[[DefenseSubject], Found]:
    """Apply a promise of models to the part together with its classifier."""

    def found(subject: DefenseSubject) -> Found:
        for one in find(subject):
            noun = "detector" if subject.detects else "layer"
            yield one._replace(message=one.message.replace("model must", f"{noun} must", 1))

    return found


def answers(subject: DefenseSubject) -> Found:
    """A layer keeps the shape; a detector gives one number for each example, all finite."""
    for rows in (subject.examples, _answers.plain_points(subject)[:1]):
        found = subject.answer_apart(rows)
        wanted = rows.shape[:1] if subject.detects else rows.shape
        rule = (
            f"detector must return one finite number for each example, shape {tuple(wanted)}"
            if subject.detects
            else f"layer must return finite values of the shape of its inputs, {tuple(wanted)}"
        )
        if not isinstance(found, Tensor) or found.shape != wanted:
            yield BrokenPromise("answers", f"{rule}, got {described(found)}", rows[:1])
            return
    points = torch.cat([subject.rows, _answers.plain_points(subject)])
    bad = ~subject.answer_apart(points).reshape(len(points), -1).isfinite().all(dim=1)
    if bool(bad.any()):
        got = f"got NaN or infinity for {int(bad.sum())} of {len(points)}"
        yield BrokenPromise("answers", f"{rule}, {got}", points[first(bad)][None])


def range_kept(subject: DefenseSubject) -> Found:
    """A layer returns values within the bounds."""
    if subject.detects:
        return
    points = torch.cat([subject.rows, _answers.plain_points(subject), subject.points])
    found = subject.answer_apart(points)
    low, high = subject.low.to(found.dtype), subject.high.to(found.dtype)
    beyond = ((found < low) | (found > high)).flatten(1).any(dim=1)
    if bool(beyond.any()):
        excess = float(torch.maximum(low - found, found - high).max())
        bounds = "({:.4g}, {:.4g})".format(*subject.model.classifier.bounds)
        yield BrokenPromise(
            "range",
            f"layer must return values within its bounds {bounds}, got some beyond them by "
            f"{excess:.2g}; clamp last",
            points[first(beyond)][None],
        )


def dtype_and_device(subject: DefenseSubject) -> Found:
    """Outputs have the dtype and the device of the inputs, those of a layer in float64 too.

    A layer with weights is tested only in their dtype.
    """
    weights = next(subject.part.parameters(), None)
    kinds = [subject.rows.dtype]
    kinds += [torch.float64] if not subject.detects and weights is None else []
    for kind in kinds:
        rows = subject.rows.to(kind)
        found = subject.answer_apart(rows)
        if found.dtype != kind or found.device != rows.device:
            noun = "detector" if subject.detects else "layer"
            rule = f"{noun} must return the dtype and the device of its inputs"
            got = f"{kind} on {rows.device}, got {found.dtype} on {found.device}"
            yield BrokenPromise("dtype-and-device", f"{rule}, {got}", rows[:1])
            return


def empty(subject: DefenseSubject) -> Found:
    """An empty batch gives an empty result."""
    if subject.detects:
        return  # A detector calls its classifier, which never gets an empty batch.
    rows = subject.rows[:0]
    found = subject.answer_apart(rows)
    if found.shape != rows.shape:
        rule = f"layer must return shape {tuple(rows.shape)} for no examples"
        yield BrokenPromise("empty-batch", f"{rule}, got {tuple(found.shape)}", rows)


def same_without_grad(subject: DefenseSubject) -> Found:
    """Values do not depend on whether gradients are on."""
    rows = subject.rows
    if not subject.close(subject.ask(rows.requires_grad_(False)).detach(), subject.answer(rows)):
        got = "got other values; look for code that uses torch.is_grad_enabled()"
        rule = "layer or detector must return the same with and without gradients"
        yield BrokenPromise("no-grad", f"{rule}, {got}", rows[:1])


def repeatable(subject: DefenseSubject) -> Found:
    """A part that is not declared random returns the same values twice."""
    if not subject.random:
        yield from of_model(_answers.repeatable)(subject)


def generators_kept(subject: DefenseSubject) -> Found:
    """A part that is not declared random does not change the global generators."""
    if subject.random:
        return
    stirred()
    before = generators()
    subject.answer_apart(subject.rows)
    changed = [name for name, state in generators().items() if state != before[name]]
    if changed:
        yield BrokenPromise(
            "generators-kept",
            "layer or detector that is not random must not change the global generators, got "
            f"another state of {' and '.join(changed)}; draw from a torch.Generator",
            subject.rows[:1],
        )


def random_by_seed(subject: DefenseSubject) -> Found:
    """Draws come from torch's global generator; a seed fixes them, another seed changes them."""
    rows, part = subject.rows, subject.part
    if subject.random and not torch.equal(subject.answer_apart(rows), subject.answer_apart(rows)):
        rule = "layer or detector must draw from torch's global generator"
        yield BrokenPromise("seed", f"{rule}, got other values after one manual_seed", rows[:1])
    if not hasattr(part, "seed") or "seed" not in arguments(part):
        return
    twins = [subject.with_part(rebuilt(part, rows.shape[1:], seed=seed)) for seed in (0, 0, 1)]
    one, again, other = (twin.answer_apart(rows) for twin in twins)
    if not torch.equal(one, again):
        rule = "layer or detector must return the same values twice with the same seed"
        yield BrokenPromise("seed", f"{rule}, got others", rows[:1])
    elif torch.equal(one, other):
        rule = "layer or detector must draw other numbers with another seed"
        yield BrokenPromise("seed", f"{rule}, got the same values with seeds 0 and 1", rows[:1])


def independent(find: Callable[[ModelSubject], Found]) -> Callable[[DefenseSubject], Found]:
    """Test independence of the batch with a seed that fixes the draw."""

    def found(subject: DefenseSubject) -> Found:
        if subject.random:
            if "seed" not in arguments(subject.part):
                return
            shape = subject.rows.shape[1:]
            subject = subject.with_part(rebuilt(subject.part, shape, seed=0))
        yield from of_model(find)(subject)

    return found


def exact(find: Callable[[ModelSubject], Found]) -> Callable[[DefenseSubject], Found]:
    """Test the gradient unless the part declares another one."""

    def found(subject: DefenseSubject) -> Found:
        if not subject.lends_gradient:
            yield from of_model(find)(subject)

    return found


def identity_gradient(subject: DefenseSubject) -> Found:
    """A part that declares the gradient of the identity has it, also at the bounds."""
    if getattr(subject.part, "gradient", "") != "identity":
        return
    rows = torch.cat([subject.rows, subject.points]).requires_grad_()
    found = subject.seeded(lambda: subject.model.apart(rows))
    counted = torch.arange(1, found[0].numel() + 1, device=found.device)
    weights = counted.to(found).cos().view(found.shape[1:])
    if not found.requires_grad:
        bad, got = torch.ones(len(rows), dtype=torch.bool, device="cpu"), "got none"
    else:
        (gradient,) = torch.autograd.grad((found * weights).sum(), rows)
        bad = (gradient != weights).flatten(1).any(dim=1)
        got = f"got another for {int(bad.sum())} of {len(rows)}"
    if bool(bad.any()):
        rule = 'layer whose gradient is "identity" must let gradients pass unchanged'
        yield BrokenPromise("identity-gradient", f"{rule}, {got}", rows.detach()[first(bad)][None])


def classifier_kept(subject: DefenseSubject) -> Found:
    """A detector leaves the classifier unchanged."""
    if not subject.detects:
        return
    assert isinstance(subject.part, Detector)
    size = subject.rows[0].numel()
    with on_cpu():
        watched = nn.Sequential(nn.BatchNorm1d(size), nn.Dropout()).eval()
        network = nn.Sequential(nn.Flatten(), watched, nn.Linear(size, 3)).eval()
    network.to(subject.rows.dtype).requires_grad_(False)
    before = traces(network)
    subject.part.score(network, subject.rows)
    changed = [name for name, value in traces(network).items() if value != before[name]]
    if changed:
        rule = "detector must leave the classifier unchanged"
        got = f"got other {' and '.join(changed)}"
        yield BrokenPromise("model-kept", f"{rule}, {got}", subject.rows[:1])


def parameters_told(subject: DefenseSubject) -> Found:
    """The attributes named like the constructor's arguments suffice to build an equal part."""
    part, rows = subject.part, subject.rows
    if not isinstance(part, Layer | Detector):
        return  # Any module may be a layer; only ours are saved by their arguments.
    lacking = [name for name in arguments(part) if not hasattr(part, name)]
    rule = "layer or detector must store each argument of its constructor under the same name"
    remedy = "a save stores these"
    if lacking:
        yield BrokenPromise("parameters", f"{rule}, got no {' and '.join(lacking)}; {remedy}")
        return
    twin = subject.with_part(rebuilt(part, rows.shape[1:]))
    if not subject.close(twin.answer_apart(rows), subject.answer_apart(rows)):
        got = "got other outputs from a part built from these"
        yield BrokenPromise("parameters", f"{rule}, {got}; {remedy}", rows[:1])


def copies(subject: DefenseSubject) -> Found:
    """A deep copy returns the same values, and shares no weights."""
    yield from second_of(subject, "copy", copy.deepcopy)


def pickles(subject: DefenseSubject) -> Found:
    """A pickled copy returns the same values."""
    yield from second_of(subject, "pickle", pickled)


def second_of(subject: DefenseSubject, name: str, route: Callable[[nn.Module], nn.Module]) -> Found:
    """Differences between a part and its copy by this route."""
    rows, part = subject.rows, subject.part
    twin = subject.with_part(route(part))
    if not subject.close(twin.answer_apart(rows), subject.answer_apart(rows)):
        rule = f"layer or detector must return the same after a {name}"
        yield BrokenPromise(name, f"{rule}, got other values", rows[:1])
    shared = {id(p) for p in twin.part.parameters()} & {id(p) for p in part.parameters()}
    if shared:
        rule = f"layer or detector must share no weights with its {name}"
        yield BrokenPromise(name, f"{rule}, got {len(shared)} shared")


def pickled(part: nn.Module) -> nn.Module:
    """A copy, by way of a pickle."""
    again: nn.Module = pickle.loads(pickle.dumps(part))  # noqa: S301 - made in this very line
    return again
