"""Promises about a model's gradient: it exists, is correct, and does not vanish at the bounds."""

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
"""Number of points around which stairs are sought."""
STAIRS = 9
"""Number of inputs on a line through each."""
LINE = 1e-4
"""From the first to the last of them, as a share of the width of the bounds."""
FEW = 3
"""At most so many different outputs on a line make it a staircase."""
STEPS = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Steps of finite differences, as a share of the width of the bounds."""
COARSE = 5e-2
"""The same in half precision."""
PROBES = 16
"""Number of points at which slopes are measured, tripled if too few are conclusive."""
ENOUGH = 6
"""Number of conclusive points from which something is concluded."""
APART = 1 / 3
"""Share by which a gradient may differ from the measured slope."""
ROUNDINGS = 64
"""Units of precision of the largest logit below which a difference is not conclusive."""


def steady(subject: ModelSubject) -> Found:
    """Small changes of an input change the logits slightly: no stairs."""
    parts = torch.cat([subject.rows, subject.points]).split(len(subject.rows))
    expected = subject.answer(subject.rows)[0]
    if all(torch.equal(row, expected) for part in parts for row in subject.answer(part)):
        return  # A constant has no stairs.
    lines = Lines.of(subject)
    if int(lines.told.sum()) < ENOUGH:  # Its dtype may round the effect of a step away.
        double = subject.in_double()
        lines = lines if double is None else Lines.of(double)
    told, flat = lines.told, lines.told & (lines.answers <= FEW)
    if int(told.sum()) < ENOUGH or 2 * int(flat.sum()) <= int(told.sum()):
        return
    yield BrokenPromise(
        "no-stairs",
        f"model must respond to small changes of its inputs, got at most {FEW} different outputs "
        f"for {STAIRS} inputs on a line, {LINE / STAIRS:.1g} of the width of the bounds apart, "
        f"around {int(flat.sum())} of {int(told.sum())} points; look for argmax, round, sign, "
        "quantisation or a narrower dtype",
        lines.points[first(flat)][None],
    )


class Lines(NamedTuple):
    """Numbers of different outputs along short lines."""

    points: Tensor
    """The middle of each, (n, ...)."""
    answers: Tensor
    """Number of different outputs, (n,)."""
    told: Tensor
    """Whether a step on the line would change the output visibly, (n,)."""

    @classmethod
    def of(cls, subject: ModelSubject) -> "Lines":
        """Evaluate each line in one batch."""
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
    """A direction from each point, and whether a step in it would change the output visibly.

    It is along the steepest coordinate. If there is no slope, it is along any coordinate in
    float64, and along all of them otherwise, as rounding would hide the effect of one.
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
    """Coordinates that may change, drawn at random: (count,)."""
    free = (subject.low < subject.high).flatten().nonzero()[:, 0]
    drawn = split_mix(torch.arange(count, device=free.device), 1)[:, 0]
    return free[drawn.remainder(len(free))]


def differentiable(subject: ModelSubject) -> Found:
    """Autograd can differentiate the logits with respect to the inputs."""
    try:
        slopes(subject.ask, subject.rows)
    except NoGradientError as error:
        yield BrokenPromise("differentiable", str(error), subject.rows[:1])


def true_gradient(subject: ModelSubject) -> Found:
    """The gradient agrees with finite differences of the logits."""
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
        f"model must have the gradient of its logits, got {given[row].item():.4g} where they have "
        f"a slope of {measured[row].item():.4g} (at {place} of the example), and "
        f"{int(wrong.sum())} of {int(told.sum())} points like it; look for detach(), a custom "
        "backward, or a function that autograd treats as the identity",
        probes.points[row][None],
    )


def gradient_at_bounds(subject: ModelSubject) -> Found:
    """The gradient does not vanish for values that lie on a bound."""
    points, low, high = subject.points, subject.low, subject.high
    outer = torch.cat([slopes(subject.ask, part) for part in points.split(16)])
    size = outer.abs()
    alive = outer.isfinite() & (size > 0)
    at_low, at_high = points <= low, points >= high
    wide = (low < high).expand_as(points)
    within = ~at_low & ~at_high
    # There at every point inside, and at no point of a bound.
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
                f"({int(lost.sum())} of {lost.numel()} values behave so); look for a clamp, a "
                "ReLU or a square root of the input",
                points[row][None],
            )
            return
    yield from hidden_at_bounds(subject)


def throughout(lost: Tensor, usual: Tensor, wide: Tensor) -> Tensor:
    """Where a channel loses every gradient that it usually has, if that is at least half of it.

    A clamp affects a whole channel. Behind a median filter a value at its lowest has no gradient
    either, because it is not the median, but neither have many of the values in between.
    """
    counts = [each.reshape(len(each), -1).sum(dim=1) for each in (lost, usual, wide)]
    whole = (counts[0] == counts[1]) & (2 * counts[1] >= counts[2])
    return whole.view(-1, *(1,) * (lost.ndim - 1))


def hidden_at_bounds(subject: ModelSubject) -> Found:
    """Whether attacks would have to compute gradients a hair inside the bounds."""
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
        "model must have the same gradient at the bounds as just inside, got another for every "
        "input with a certain value at its bound; look for a clamp or a ReLU on the input",
        points[first(rows)][None] if bool(rows.any()) else None,
    )


def live_coordinates(subject: ModelSubject) -> Found:
    """Every value of an input has an effect."""
    points = torch.cat([subject.points, subject.rows])
    gradient = torch.cat([slopes(subject.ask, part) for part in points.split(16)])
    dead = ((gradient == 0).all(dim=0)) & (subject.low < subject.high)
    if not bool(dead.any()):
        return
    rows = subject.rows
    other = torch.where(dead, subject.points[: len(rows)].flip(0), rows)
    if not subject.close(subject.answer(other), subject.answer(rows)):
        return  # They have an effect although their gradient is zero.
    first_place = coordinate(int(dead.flatten().nonzero()[0, 0]), dead.shape)
    yield BrokenPromise(
        "live-coordinates",
        f"model must use every value of an input, got no effect of {int(dead.sum())} of "
        f"{dead.numel()}, the first at {first_place}; look for slices, strides and masks",
        rows[:1],
    )


class Probes(NamedTuple):
    """Slopes of the logits around points, along one coordinate each, and the gradients there."""

    points: Tensor
    places: Tensor
    """Which coordinate, (n,)."""
    measured: Tensor
    """Slope of a weighted sum of the logits, by finite differences, (n,)."""
    given: Tensor
    """The gradient of the same, (n,)."""
    told: Tensor
    """Whether either of the two is above the rounding errors of the logits, (n,)."""

    @classmethod
    def of(cls, subject: ModelSubject, count: int) -> "Probes":
        """Change one coordinate after another, at so many points."""
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
