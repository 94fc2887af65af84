"""Promises about the points that an attack returns."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._geometry import COUNTS, lp_norm
from ..functional import margin_loss
from ._attack_subject import AttackSubject, classes, examples, lent
from ._closed_forms import SHAPE, Ball, Halfspace
from ._promises import BrokenPromise, first

Found = Iterator[BrokenPromise]

NEAR = 1e-5
"""By how much the same point may differ between batches, in float32."""


def returns(subject: AttackSubject) -> Found:
    """One finite point like each input."""
    model, inputs, labels = subject.halfspace()
    for some in (inputs, inputs[:1]):
        found = subject.call(model, some, labels[: len(some)])
        kinds = [(tuple(t.shape), t.dtype, t.device) for t in (some, found)]
        if kinds[0] != kinds[1] or not bool(found.isfinite().all()):
            got = f"shape {kinds[1][0]} in {kinds[1][1]} on {kinds[1][2]}"
            finite = "" if bool(found.isfinite().all()) else " with NaN or infinity"
            rule = f"attack must return finite points like its inputs, {kinds[0][0]} in "
            yield BrokenPromise("returns", f"{rule}{kinds[0][1]}, got {got}{finite}", some)
            return


def bounds_kept(subject: AttackSubject) -> Found:
    """Points lie within the bounds exactly, also from inputs on a bound."""
    yield from outside(subject, *lent(), 0.0, 1.0)
    if "bounds" in subject.takes:
        model, inputs, labels = lent()
        low, high = torch.tensor([-0.1, 0.9], device="cpu")
        limits = (float(low), float(high))
        yield from outside(subject, model, inputs - 0.1, labels, *limits, bounds=limits)


def outside(
    subject: AttackSubject,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    low: float,
    high: float,
    **more: Any,
) -> Found:
    """What an attack returns beyond the bounds."""
    inputs = inputs.clamp(low, high)
    found = subject.call(model, inputs, labels, **more)
    beyond = ~((found >= low) & (found <= high))
    if bool(beyond.any()):
        excess = float(torch.maximum(low - found, found - high).max())
        row = first(beyond.flatten(1).any(dim=1))
        rule = f"attack must stay within the bounds ({low:.4g}, {high:.4g}) exactly"
        got = f"got values beyond them by {excess:.2g}"
        yield BrokenPromise("bounds", f"{rule}, {got}; clamp last", inputs[row][None])


def budget_kept(subject: AttackSubject) -> Found:
    """Points lie within the budget up to one rounding of each value."""
    if subject.epsilon is None:
        return
    for model, inputs, labels in (subject.halfspace(), lent()):
        found = subject.call(model, inputs, labels)
        size = lp_norm(found.double() - inputs.double(), subject.norm)
        count = inputs[0].numel()
        share = {"linf": 1.0, "l2": count**0.5, "l1": float(count)}.get(subject.norm, 0.0)
        beyond = size > subject.epsilon + share * torch.finfo(inputs.dtype).eps
        if bool(beyond.any()):
            row = first(beyond)
            rule = f"attack must stay within epsilon {subject.epsilon:.6g} in {subject.norm}"
            got = f"got a distance of {size[row].item():.6g}"
            yield BrokenPromise("budget", f"{rule}, {got}", inputs[row][None])
            return


def fools(subject: AttackSubject) -> Found:
    """Examples that are easy to fool are fooled."""
    model, inputs, labels = subject.halfspace()
    easy = torch.ones(len(inputs), dtype=torch.bool, device="cpu")
    if subject.epsilon is not None and subject.norm not in COUNTS:
        easy = model.least(inputs, subject.norm) < 0.5 * subject.epsilon
    stands = easy & (classes(model, subject.call(model, inputs, labels)) == labels)
    if bool(stands.any()):
        row = first(stands)
        got = f"got {int(stands.sum())} of {int(easy.sum())} still classified as before"
        rule = "attack must fool a linear model if half of the budget is enough"
        yield BrokenPromise("fools", f"{rule}, {got}", inputs[row][None])


def judged_alone(subject: AttackSubject) -> Found:
    """A success is also one when it is evaluated alone, and in float64."""
    for radius, inside in ((0.5, 0.45), (0.5, 0.3)):
        model = Ball(radius).eval()
        unit = (examples() - 0.5).flatten(1)
        inputs = (0.5 + inside * unit / unit.norm(dim=1, keepdim=True)).view(-1, *SHAPE)
        labels = classes(model, inputs)
        found = subject.call(model, inputs, labels)
        together = margin_loss(model(found).detach(), labels)
        exact = margin_loss(model(found.double()).detach(), labels)
        alone = torch.cat(
            [
                margin_loss(model(x).detach(), y)
                for x, y in zip(found.split(1), labels.split(1), strict=True)
            ]
        )
        lost = (together > 0) & ((exact <= 0) | (alone <= 0))
        if bool(lost.any()):
            row = first(lost)
            rule = "attack must return successes that can be reproduced"
            got = f"got one whose margin alone, in float64, is {exact[row].item():.2g}"
            yield BrokenPromise("judged-alone", f"{rule}, {got}", inputs[row][None])
            return


def failures_unchanged(subject: AttackSubject) -> Found:
    """Without a budget, what cannot be fooled or is misclassified already returns unchanged."""
    if subject.epsilon is not None:
        return
    inputs, rule = examples(), "attack must return unchanged "
    labels = torch.ones(len(inputs), dtype=torch.int64, device="cpu")
    cases = {
        "what it cannot fool": (Halfspace(bias=1e3).eval(), labels),
        "what is misclassified already": (Halfspace(bias=1e3).eval(), 1 - labels),
    }
    for which, (model, given) in cases.items():
        found = subject.call(model, inputs, given)
        changed = (found != inputs).flatten(1).any(dim=1)
        if bool(changed.any()):
            most = float((found - inputs).abs().max())
            got = f"{rule}{which}, got {int(changed.sum())} of {len(inputs)} changed"
            got += f", by up to {most:.2g}"
            yield BrokenPromise("failures-unchanged", got, inputs[first(changed)][None])


def finite_on_plateaus(subject: AttackSubject) -> Found:
    """A gradient of zero gives no NaN."""

    class Flat(Halfspace):
        def forward(self, inputs: Tensor) -> Tensor:
            return 0 * super().forward(inputs) + inputs.new_tensor([0.0, 9.0])

    inputs = examples()
    ones = torch.ones(len(inputs), dtype=torch.int64, device="cpu")
    found = subject.call(Flat().eval(), inputs, ones)
    bad = ~found.isfinite().flatten(1).all(dim=1)
    if bool(bad.any()):
        rule = "attack must turn a zero gradient into a step of zero"
        yield BrokenPromise("zero-gradient", f"{rule}, got NaN", inputs[first(bad)][None])


def repeatable(subject: AttackSubject) -> Found:
    """The same seed gives the same points, whatever the state of the global generator."""
    if "random_state" not in subject.takes:
        return
    model, inputs, labels = subject.halfspace()
    one = subject.call(model, inputs, labels)
    torch.rand(3, device="cpu")
    other = subject.call(model, inputs, labels)
    if not torch.equal(one, other):
        row = first((one != other).flatten(1).any(dim=1))
        rule = "attack must return the same points twice with the same random_state"
        got = f"got others by up to {float((one - other).abs().max()):.2g}"
        yield BrokenPromise("repeatable", f"{rule}, {got}", inputs[row][None])


def batch_independence(subject: AttackSubject) -> Found:
    """An example has the same result alone, in any batch and in any order."""
    model, inputs, labels = subject.halfspace()
    together = subject.call(model, inputs, labels)
    if not torch.equal(together, subject.call(model, inputs, labels)):
        return  # It draws random numbers, and takes no seed.
    turned = subject.call(model, inputs.roll(1, 0), labels.roll(1), batch_size=3).roll(-1, 0)
    rule = "attack must return the same point alone, in any batch and in any order"
    for row in range(len(inputs)):
        alone = subject.call(model, inputs[row : row + 1], labels[row : row + 1])
        for other, where in ((alone[0], "alone"), (turned[row], "in another order and batch_size")):
            apart = float((other - together[row]).abs().max())
            if apart > NEAR:
                got = f"got another point {where}, by up to {apart:.2g}"
                yield BrokenPromise("batch-independence", f"{rule}, {got}", inputs[row][None])
                return


def empty(subject: AttackSubject) -> Found:
    """An empty batch gives an empty result."""
    model, inputs, labels = subject.halfspace()
    found = subject.call(model, inputs[:0], labels[:0])
    if found.shape != inputs[:0].shape:
        rule = f"attack must return shape {tuple(inputs[:0].shape)} for no examples"
        yield BrokenPromise("empty-batch", f"{rule}, got {tuple(found.shape)}", inputs[:0])


def mask_kept(subject: AttackSubject) -> Found:
    """Coordinates that the mask excludes are returned bit-equal."""
    if "mask" not in subject.takes:
        return
    model, inputs, labels = subject.halfspace()
    mask = torch.zeros(SHAPE, dtype=torch.bool, device="cpu")
    mask[..., ::2] = True
    found = subject.call(model, inputs, labels, mask=mask)
    changed = ((found != inputs) & ~mask).flatten(1).any(dim=1)
    if bool(changed.any()):
        rule = "attack must not change what the mask excludes"
        got = f"got changes in {int(changed.sum())} of {len(inputs)} examples"
        yield BrokenPromise("mask", f"{rule}, {got}", inputs[first(changed)][None])


def targets_reached(subject: AttackSubject) -> Found:
    """A targeted attack reaches the other of two classes if that is easy."""
    if "targeted" not in subject.takes:
        return

    def towards(model: nn.Module, inputs: Tensor, labels: Tensor, **more: Any) -> Tensor:
        return subject.attack(model, inputs, 1 - labels, targeted=True, **more)

    for one in fools(subject._replace(attack=towards)):
        rule = "attack must reach a target class if half of the budget is enough, got "
        yield one._replace(promise="targeted", message=rule + one.message.partition("got ")[2])
