"""Projected gradient descent against a classifier and its detectors at once."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import _l0, attacks
from .._boxes import boxes
from .._geometry import COUNTS, ball, lp, per_example, project_to_budget
from .._modes import borrowed
from .._slopes import slopes
from .._typing import Bounds, Distance, Mask
from .._validation import check_gradient
from ..adaptive._averaged import averaged
from ..functional import margin_loss

if TYPE_CHECKING:
    from ..defenses import LayeredNetwork

STEPS, FIRST_STEP, LAST_STEP = 100, 0.25, 0.01
"""Steps, and the first and the last of them as shares of the radius."""

L0_REACH = 10.0
"""Widths of the bounds that stand for the radius where it is a count."""


def selective_pgd(
    model: "LayeredNetwork",
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Distance = "linf",
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    steps: int = STEPS,
    draws: int = 1,
    batch_size: int = 256,
    random_state: int | None = None,
) -> Tensor:
    """Fool the layered classifier first, then silence the detectors from there.

    Each step serves the one of both that is not there yet: in the first half of the steps along its
    gradient less what of it harms the other, in the second along all of it, since a corner of the
    ball may leave no other way (orthogonal and selective projected gradient descent, Bryniarski et
    al. 2021, https://arxiv.org/abs/2106.15023). Of random layers and detectors each step asks
    ``draws`` times, and follows the mean.
    """
    told = {"bounds": bounds, "mask": mask, "batch_size": batch_size, "random_state": random_state}
    classify = averaged(model.classify, draws) if draws > 1 else model.classify
    start = attacks.pgd(
        classify, inputs, labels, epsilon=epsilon, norm=norm, loss="margin", steps=20,
        **told,  # type: ignore[arg-type]
    )  # fmt: skip
    if not len(model.detectors):
        return start
    low, high = (each.expand_as(inputs) for each in boxes(inputs, bounds, mask))
    found = []
    with borrowed(model, random_state):
        for first in range(0, len(inputs), batch_size):
            rows = slice(first, first + batch_size)
            found.append(
                _descent(
                    model, start[rows], inputs[rows], labels[rows], low[rows], high[rows],
                    norm, epsilon, steps, draws,
                )
            )  # fmt: skip
    return torch.cat(found) if found else start


def _descent(
    model: "LayeredNetwork",
    points: Tensor,
    inputs: Tensor,
    labels: Tensor,
    low: Tensor,
    high: Tensor,
    norm: Distance,
    epsilon: float,
    steps: int,
    draws: int,
) -> Tensor:
    """The last points of all steps, or the first that both do not stop."""
    found, places = points.clone(), torch.arange(len(points), device=points.device)
    for step in range(steps + 1):
        asked = points.detach().requires_grad_()
        answer = partial(margin_and_alarm, model, asked, labels, draws)
        margin, alarm = answer()
        left = (margin <= 0) | (alarm > 0)
        found[places] = points.detach()
        if step == steps or not bool(left.any()):
            break
        direction = _direction(margin, alarm, asked, answer if 2 * step < steps else None)
        share = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** (step / steps)
        across = _across(direction, norm, epsilon, high - low)
        farther = points.detach() + share * across
        points = project_to_budget(farther, inputs, norm, epsilon, low, high)[left]
        places, inputs, labels = places[left], inputs[left], labels[left]
        low, high = low[left], high[left]
    return found


def _direction(
    margin: Tensor, alarm: Tensor, asked: Tensor, again: Callable[[], tuple[Tensor, Tensor]] | None
) -> Tensor:
    """What fools more, or alarms less where that is done; free of other harm, if asked ``again``.

    ``again`` computes margin and alarm anew, for a graph that stands one backward pass only.
    """
    fooled = margin > 0
    if again is None:
        (direction,) = torch.autograd.grad(torch.where(fooled, -alarm, margin).sum(), asked)
        return direction
    known = [(margin, alarm)]

    def sums() -> list[Tensor]:
        return [part.sum() for part in (known.pop() if known else again())]

    towards, away = slopes(sums, asked)
    towards = check_gradient(towards)
    away = torch.zeros_like(asked) if away is None else -away
    back, ahead = _without(away, towards), _without(towards, away)
    return torch.where(per_example(fooled, asked), back, ahead)


def _across(gradient: Tensor, norm: Distance, epsilon: float, width: Tensor) -> Tensor:
    """Steepest step as long as the radius."""
    if norm in COUNTS:
        return L0_REACH * _l0.direction(gradient, width)
    return epsilon * ball(lp(norm)).steepest(gradient)


def margin_and_alarm(
    model: "LayeredNetwork", points: Tensor, labels: Tensor, draws: int
) -> tuple[Tensor, Tensor]:
    """Lead of another class over the true one, and the largest excess over a threshold: (n,)."""
    asked = [model.answers(points) for _ in range(draws)]
    logits = torch.stack([answers for answers, _ in asked]).mean(dim=0)
    scores = [
        torch.stack(each).mean(dim=0) for each in zip(*(own for _, own in asked), strict=True)
    ]
    return margin_loss(logits, labels), model.alarm(scores)


def _without(gradient: Tensor, other: Tensor) -> Tensor:
    """A gradient less the part of it that goes against another one."""
    flat, against = gradient.flatten(1), other.flatten(1)
    squared = (against * against).sum(dim=1, keepdim=True)
    share = (flat * against).sum(dim=1, keepdim=True) / squared.clamp(min=1e-30)
    return (flat - share.clamp(max=0) * against).view_as(gradient)
