"""Promises about a model's gradient: there, right, alive at the bounds and for every value."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .._boxes import boxes
from .._geometry import inside
from .._random import split_mix
from ..attacks._checks import VISIBLE, needed_hair, slopes
from ..attacks._examples import Examples
from ..exceptions import NoGradientError
from ._promises import BrokenPromise, first
from ._subject import ModelSubject, coordinate

Found = Iterator[BrokenPromise]

LINES = 10
"""Points around which stairs are looked for."""
STAIRS = 9
"""Inputs in a row around each."""
LINE = 1e-4
"""From the first to the last of them, as a share of the width of the bounds."""
FEW = 3
"""Different answers on a line that make it a staircase."""
STEPS = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Changes by which slopes are measured, as a share of the width."""
COARSE = 5e-2
"""The same in half precision."""
PROBES = 16
"""Points at which slopes are measured, three times as many where few of them tell."""
ENOUGH = 6
"""Points from which something is concluded."""
APART = 1 / 3
"""Share by which a slope may differ from that of the answers."""
ROUNDINGS = 64
"""Units of precision of the largest logit below which a difference tells nothing."""


def steady(subject: ModelSubject) -> Found:
    """Small changes of an input change the answer a little: no stairs."""
    parts = torch.cat([subject.rows, subject.points]).split(len(subject.rows))
    expected = subject.answer(subject.rows)[0]
    if all(torch.equal(row, expected) for part in parts for row in subject.answer(part)):
        return  # A constant has no stairs.
    lines = Lines.of(subject)
    if int(lines.told.sum()) < ENOUGH:  # Its own dtype rounds what a step changes.
        double = subject.in_double()
        lines = lines if double is None else Lines.of(double)
    told, flat = lines.told, lines.told & (lines.answers <= FEW)
    if int(told.sum()) < ENOUGH or 2 * int(flat.sum()) <= int(told.sum()):
        return
    yield BrokenPromise(
        "no-stairs",
        f"model must follow small changes of its inputs, got at most {FEW} different answers to "
        f"{STAIRS} inputs in a row, {LINE / STAIRS:.1g} of the width of the bounds apart, around "
        f"{int(flat.sum())} of {int(told.sum())} points; look for argmax, round, sign, "
        "quantisation or a narrower dtype",
        lines.points[first(flat)][None],
    )


class Lines(NamedTuple):
    """How many different answers there are along short lines."""

    points: Tensor
    """In the middle of each, (n, ...)."""
    answers: Tensor
    """Different ones, (n,)."""
    told: Tensor
    """Whether a step on the line would show, (n,)."""

    @classmethod
    def of(cls, subject: ModelSubject) -> "Lines":
        """Ask along each line in one batch."""
        points = subject.interior[:LINES]
        directions, told = ways(subject, points)
        rows = torch.arange(-(STAIRS // 2), STAIRS // 2 + 1, device=points.device).to(points)
        offsets = (LINE / STAIRS * rows).view(-1, *(1,) * (points.ndim - 1))
        lines = [
            subject.answer(x + offsets * way) for x, way in zip(points, directions, strict=True)
        ]
        answers = torch.tensor([len(line.unique(dim=0)) for line in lines], device=told.device)
        return cls(points, answers, told)


def ways(subject: ModelSubject, points: Tensor) -> tuple[Tensor, Tensor]:
    """Direction in which to go from each point, and whether a step there would show.

    It is along the steepest coordinate. Where there is no slope it is along any one; without a
    copy in float64, where the effect of one is lost in rounding, along all of them.
    """
    logits, width = subject.answer(points), subject.high - subject.low
    try:
        slope = (slopes(subject.ask, points) * width).nan_to_num(0, 0, 0)
    except NoGradientError:
        slope = torch.zeros_like(points)
    flat = slope.flatten(1)
    largest, steepest = flat.abs().max(dim=1)
    some = drawn_places(subject, len(points))
    places = torch.where(largest > 0, steepest, some)
    single = torch.zeros_like(flat).scatter(1, places[:, None], 1.0)
    spread = (largest == 0) & (points.dtype != torch.float64)
    unit = torch.where(spread[:, None], 1.0, single).view_as(points)
    eps = torch.finfo(points.dtype).eps
    told = (largest == 0) | (LINE * largest > STAIRS * eps * logits.abs().amax(dim=1))
    return unit * width, told


def drawn_places(subject: ModelSubject, count: int) -> Tensor:
    """Coordinates that have room, drawn in turn: (count,)."""
    free = (subject.low < subject.high).flatten().nonzero()[:, 0]
    drawn = split_mix(torch.arange(count, device=free.device), 1)[:, 0]
    return free[drawn.remainder(len(free))]


def differentiable(subject: ModelSubject) -> Found:
    """Logits lead back to the inputs by autograd."""
    try:
        slopes(subject.ask, subject.rows)
    except NoGradientError as error:
        yield BrokenPromise("differentiable", str(error), subject.rows[:1])


def true_gradient(subject: ModelSubject) -> Found:
    """The gradient is that of the answers."""
    double = subject.in_double() or subject
    probes = Probes.of(double, PROBES)
    if int(probes.told.sum()) < ENOUGH:
        probes = Probes.of(double, len(double.interior))
    told, given, measured = probes.told, probes.given, probes.measured
    larger = torch.maximum(measured.abs(), given.nan_to_num(0, 0, 0).abs())
    wrong = told & ~((measured - given).abs() <= APART * larger)
    if int(told.sum()) < ENOUGH or 2 * int(wrong.sum()) <= int(told.sum()):
        return
    row = first(wrong)
    place = coordinate(int(probes.places[row]), subject.low.shape)
    yield BrokenPromise(
        "true-gradient",
        f"model must have the gradient of its answers, got {given[row].item():.4g} where the "
        f"answers have a slope of {measured[row].item():.4g} (at {place} of the example), and "
        f"{int(wrong.sum())} of {int(told.sum())} like it; look for detach(), a backward of its "
        "own, or a function that autograd takes for the identity",
        probes.points[row][None],
    )


def gradient_at_bounds(subject: ModelSubject) -> Found:
    """The gradient is alive for values that lie on a bound."""
    points, low, high = subject.points, subject.low, subject.high
    outer = torch.cat([slopes(subject.ask, part) for part in points.split(16)])
    size = outer.abs()
    alive = outer.isfinite() & (size > 0)
    at_low, at_high = points <= low, points >= high
    wide = (low < high).expand_as(points)
    within = ~at_low & ~at_high
    # Alive at every point inside, and at no point of a bound.
    usual = (alive | ~within).all(dim=0) & within.any(dim=0)
    for at_bound, word, bound in ((at_low, "lowest", low), (at_high, "highest", high)):
        lost = usual & at_bound.any(dim=0) & ~(alive & at_bound).any(dim=0) & wide[0]
        lost &= throughout(lost, usual, wide[0])
        if bool(lost.any()):
            place = int(lost.flatten().nonzero()[0, 0])
            row = first(at_bound.flatten(1)[:, place])
            at = coordinate(place, low.shape)
            yield BrokenPromise(
                "gradient-at-bounds",
                f"model must have a gradient at the bounds, got {outer[row].flatten()[place]:.4g} "
                f"for every input whose value at {at} is its {word}, "
                f"{bound.flatten()[place].item():.4g} "
                f"({int(lost.sum())} of {lost.numel()} values are so); look for a clamp or a ReLU "
                "on the input, and for a square root of it",
                points[row][None],
            )
            return
    yield from hidden_at_bounds(subject)


def throughout(lost: Tensor, usual: Tensor, wide: Tensor) -> Tensor:
    """Where all of a channel is lost that is alive as a rule, which must be half of it at least.

    A clamp takes the whole of a channel. Below a median, a value at its lowest is not the median
    either, but the gradient in between is as patchy.
    """
    counts = [each.reshape(len(each), -1).sum(dim=1) for each in (lost, usual, wide)]
    whole = (counts[0] == counts[1]) & (2 * counts[1] >= counts[2])
    return whole.view(-1, *(1,) * (lost.ndim - 1))


def hidden_at_bounds(subject: ModelSubject) -> Found:
    """Whether attacks would have to ask for gradients a hair inside the bounds."""
    inputs = subject.rows
    places = torch.arange(len(inputs), device=inputs.device)
    box = boxes(inputs, (subject.low, subject.high), None)
    examples = Examples(places, inputs, places * 0, places, *box, inputs.new_zeros(len(inputs)))
    hair = needed_hair(subject.ask, examples, inputs.dtype)
    if hair is None:
        return
    points = torch.cat([inputs, subject.points])
    low, high = subject.low, subject.high
    inner, outer = slopes(subject.ask, inside(points, low, high, hair)), slopes(subject.ask, points)
    other = ~outer.isfinite() | ((outer - inner).abs() > APART * inner.abs())
    shown = (inner.abs() > VISIBLE * inner.abs().amax()) & ((points <= low) | (points >= high))
    rows = (other & shown).flatten(1).any(dim=1)
    yield BrokenPromise(
        "gradient-at-bounds",
        "model must have the same gradient at the bounds as beside them, got another for every "
        "input with a certain value at its bound; look for a clamp or a ReLU on the input",
        points[first(rows)][None] if bool(rows.any()) else None,
    )


def live_coordinates(subject: ModelSubject) -> Found:
    """Every value of an input has a say."""
    points = torch.cat([subject.points, subject.rows])
    gradient = torch.cat([slopes(subject.ask, part) for part in points.split(16)])
    dead = ((gradient == 0).all(dim=0)) & (subject.low < subject.high)
    if not bool(dead.any()):
        return
    rows = subject.rows
    other = torch.where(dead, subject.points[: len(rows)].flip(0), rows)
    if not subject.close(subject.answer(other), subject.answer(rows)):
        return  # Its gradient does not say so, but it has one.
    first_place = coordinate(int(dead.flatten().nonzero()[0, 0]), dead.shape)
    yield BrokenPromise(
        "live-coordinates",
        f"model must look at every value of an input, got no effect of {int(dead.sum())} of "
        f"{dead.numel()}, the first at {first_place}; look for slices, strides and masks",
        rows[:1],
    )


class Probes(NamedTuple):
    """Slopes of the answers around points, along one coordinate each, and those that are given."""

    points: Tensor
    places: Tensor
    """Which coordinate, (n,)."""
    measured: Tensor
    """Slope of a mixture of the answers, (n,)."""
    given: Tensor
    """The gradient there, (n,)."""
    told: Tensor
    """Whether one of both is above the rounding of the answers, (n,)."""

    @classmethod
    def of(cls, subject: ModelSubject, count: int) -> "Probes":
        """Change coordinates that have room, in turn, at so many points."""
        points = subject.interior[:count]
        places = drawn_places(subject, count)
        width = (subject.high - subject.low).flatten()[places]
        unit = torch.zeros_like(points).flatten(1).scatter(1, places[:, None], width[:, None])
        step = STEPS.get(points.dtype, COARSE)
        aside = step * unit.view_as(points)
        parts = list(zip(points.split(PROBES), aside.split(PROBES), strict=True))
        change = torch.cat([subject.answer(x + way) - subject.answer(x - way) for x, way in parts])
        mixture = torch.arange(1, change.shape[1] + 1, device=change.device).cos().to(change)
        measured = (change * mixture).sum(dim=1) / (2 * step * width)
        gradient = torch.cat([slopes(subject.ask, x) for x, _ in parts])
        given = gradient.flatten(1).gather(1, places[:, None]).squeeze(1)
        noise = ROUNDINGS * torch.finfo(points.dtype).eps * subject.answer(points[:1]).abs().amax()
        seen = torch.maximum(measured.abs(), given.nan_to_num(0, 0, 0).abs())
        return cls(points, places, measured, given, seen > noise / (2 * step * width))
