"""What an attack promises, tested on models of which the answer is known."""

import inspect
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .._geometry import COUNTS, lp_norm
from .._typing import Distance
from .._validation import DISTANCES, check_norm, check_positive
from ..functional import margin_loss
from ._closed_forms import SHAPE, Ball, Halfspace, Lent
from ._promises import BrokenPromise, Check, first, run
from ._subject import shares

Found = Iterator[BrokenPromise]

ROWS = 8
NEAR = 1e-5
"""By how much the same point may differ between batches, in float32."""


class AttackSubject(NamedTuple):
    """An attack, and what it is known to take."""

    attack: Callable[..., Tensor]
    norm: Distance
    epsilon: float | None
    """The budget; None for an attack that looks for the nearest point."""
    takes: Collection[str]
    """Keywords."""

    def call(self, model: nn.Module, inputs: Tensor, labels: Tensor, **more: Any) -> Tensor:
        """Attack with a seed, and with what else it takes."""
        given = {"random_state": 0, **more}
        kept = {name: value for name, value in given.items() if name in self.takes}
        return self.attack(model, inputs, labels, **kept)

    def halfspace(self) -> tuple[Halfspace, Tensor, Tensor]:
        """Examples of which one half is well within the budget."""
        model, inputs = Halfspace().eval(), 0.35 + 0.3 * examples()
        if self.epsilon is not None and self.norm not in COUNTS:
            median = float(model.least(inputs, self.norm).median())
            inputs = 0.5 + (inputs - 0.5) * min(1.0, self.epsilon / median)
        return model, inputs, classes(model, inputs)


def examples() -> Tensor:
    """Images of every grey, with one black, one white, and one of black and white pixels."""
    images = shares(ROWS + 1, torch.zeros(1, *SHAPE))[1:].clone()
    images[1], images[2], images[3] = images[1].round(), 0, 1
    return images


def classes(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's own classes."""
    with torch.no_grad():
        return model(inputs).argmax(dim=1)


def lent() -> tuple[Lent, Tensor, Tensor]:
    """The model to be given back, in the modes that it is lent in, and its classes in eval mode."""
    model, inputs = Lent(), examples()
    labels = classes(Lent().eval(), inputs)
    return model, inputs, labels


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


def inputs_kept(subject: AttackSubject) -> Found:
    """Inputs and labels are as before, and share no memory with what comes back."""
    model, inputs, labels = subject.halfspace()
    before = inputs.clone(), labels.clone()
    subject.call(model, inputs, labels).detach().fill_(7)
    for name, now, then in zip(("inputs", "labels"), (inputs, labels), before, strict=True):
        if not torch.equal(now, then):
            rule = f"attack must leave its {name} alone and return other memory"
            yield BrokenPromise("inputs-kept", f"{rule}, got other values in them", then)


def model_kept(subject: AttackSubject) -> Found:
    """Modes, flags, gradients and values of the model are as before."""
    model, inputs, labels = lent()
    before = traces(model)
    subject.call(model, inputs, labels)
    changed = [name for name, value in traces(model).items() if value != before[name]]
    if changed:
        rule = "attack must give the model back as it was"
        yield BrokenPromise("model-kept", f"{rule}, got other {' and '.join(changed)}", inputs[:1])


def traces(model: nn.Module) -> dict[str, Any]:
    """All of a model that an attack must not change."""
    parameters = list(model.parameters())
    return {
        "modes (train, eval)": [part.training for part in model.modules()],
        "requires_grad": [p.requires_grad for p in parameters],
        "gradients of parameters": [
            None if p.grad is None else p.grad.tolist() for p in parameters
        ],
        "weights or statistics": {name: t.tolist() for name, t in model.state_dict().items()},
    }


def generators_kept(subject: AttackSubject) -> Found:
    """The global generators are where they were."""
    model, inputs, labels = subject.halfspace()
    # From a state that no seed leads to, so that a seeding shows.
    torch.rand(3), np.random.random(3), random.random()  # noqa: NPY002
    before = generators()
    subject.call(model, inputs, labels)
    changed = [name for name, state in generators().items() if state != before[name]]
    if changed:
        rule = "attack must leave the global random generators alone"
        got = f"got another state of {' and '.join(changed)}"
        yield BrokenPromise("generators-kept", f"{rule}, {got}; draw from a torch.Generator")


def generators() -> dict[str, Any]:
    """States of all of them."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        "random": random.getstate(),
    }


@contextmanager
def other_generators_kept() -> Iterator[None]:
    """Put NumPy's and Python's global generators back."""
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)


def bounds_kept(subject: AttackSubject) -> Found:
    """Points lie within the bounds exactly, also from inputs on a bound."""
    yield from outside(subject, *lent(), 0.0, 1.0)
    if "bounds" in subject.takes:
        model, inputs, labels = lent()
        low, high = torch.tensor([-0.1, 0.9])
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
        rule = f"attack must keep to the bounds ({low:.4g}, {high:.4g}) exactly"
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
    """What is easily fooled is fooled."""
    model, inputs, labels = subject.halfspace()
    easy = torch.ones(len(inputs), dtype=torch.bool)
    if subject.epsilon is not None and subject.norm not in COUNTS:
        easy = model.least(inputs, subject.norm) < 0.5 * subject.epsilon
    stands = easy & (classes(model, subject.call(model, inputs, labels)) == labels)
    if bool(stands.any()):
        row = first(stands)
        got = f"got {int(stands.sum())} of {int(easy.sum())} still classified as before"
        rule = "attack must fool a linear model where half of the budget is enough"
        yield BrokenPromise("fools", f"{rule}, {got}", inputs[row][None])


def judged_alone(subject: AttackSubject) -> Found:
    """A success is one when it is asked alone and in float64."""
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
            rule = "attack must return successes that anybody can repeat"
            got = f"got one of margin {exact[row].item():.2g} alone, in float64"
            yield BrokenPromise("judged-alone", f"{rule}, {got}", inputs[row][None])
            return


def failures_unchanged(subject: AttackSubject) -> Found:
    """Without a budget: what cannot be fooled, or is misclassified, comes back as it was."""
    if subject.epsilon is not None:
        return
    inputs, rule = examples(), "attack must return unchanged "
    labels = torch.ones(len(inputs), dtype=torch.int64)
    cases = {
        "what it cannot fool": (Halfspace(bias=1e3).eval(), labels),
        "what is misclassified already": (Halfspace(bias=1e3).eval(), 1 - labels),
    }
    for which, (model, given) in cases.items():
        found = subject.call(model, inputs, given)
        changed = (found != inputs).flatten(1).any(dim=1)
        if bool(changed.any()):
            got = f"{rule}{which}, got {int(changed.sum())} of {len(inputs)} changed"
            yield BrokenPromise("failures-unchanged", got, inputs[first(changed)][None])


def finite_on_plateaus(subject: AttackSubject) -> Found:
    """A gradient of zero gives no NaN."""

    class Flat(Halfspace):
        def forward(self, inputs: Tensor) -> Tensor:
            return 0 * super().forward(inputs) + inputs.new_tensor([0.0, 9.0])

    inputs = examples()
    found = subject.call(Flat().eval(), inputs, torch.ones(len(inputs), dtype=torch.int64))
    bad = ~found.isfinite().flatten(1).all(dim=1)
    if bool(bad.any()):
        rule = "attack must take a gradient of zero for a step of zero"
        yield BrokenPromise("zero-gradient", f"{rule}, got NaN", inputs[first(bad)][None])


def repeatable(subject: AttackSubject) -> Found:
    """The same seed gives the same points, whatever the global generator."""
    if "random_state" not in subject.takes:
        return
    model, inputs, labels = subject.halfspace()
    one = subject.call(model, inputs, labels)
    with torch.random.fork_rng(devices=[]):
        torch.rand(3)
        other = subject.call(model, inputs, labels)
    if not torch.equal(one, other):
        row = first((one != other).flatten(1).any(dim=1))
        rule = "attack must return the same points twice with the same random_state"
        got = f"got others by up to {float((one - other).abs().max()):.2g}"
        yield BrokenPromise("repeatable", f"{rule}, {got}", inputs[row][None])


def batch_independence(subject: AttackSubject) -> Found:
    """An example fares the same alone, in any batch and in any order."""
    model, inputs, labels = subject.halfspace()
    together = subject.call(model, inputs, labels)
    if not torch.equal(together, subject.call(model, inputs, labels)):
        return  # It draws random numbers, and takes no seed.
    turned = subject.call(model, inputs.roll(1, 0), labels.roll(1), batch_size=3).roll(-1, 0)
    rule = "attack must treat an example alone, in any batch and in any order alike"
    for row in range(len(inputs)):
        alone = subject.call(model, inputs[row : row + 1], labels[row : row + 1])
        for other, where in ((alone[0], "alone"), (turned[row], "in another order and batch_size")):
            if float((other - together[row]).abs().max()) > NEAR:
                got = f"got another point {where}"
                yield BrokenPromise("batch-independence", f"{rule}, {got}", inputs[row][None])
                return


def empty(subject: AttackSubject) -> Found:
    """No example gives no point."""
    model, inputs, labels = subject.halfspace()
    found = subject.call(model, inputs[:0], labels[:0])
    if found.shape != inputs[:0].shape:
        rule = f"attack must return shape {tuple(inputs[:0].shape)} for no examples"
        yield BrokenPromise("empty-batch", f"{rule}, got {tuple(found.shape)}", inputs[:0])


def without_grad(subject: AttackSubject) -> Found:
    """It works where gradients are off, and leaves them off."""
    model, inputs, labels = subject.halfspace()
    expected = subject.call(model, inputs, labels)
    with torch.no_grad():
        found = subject.call(model, inputs, labels)
        off = not torch.is_grad_enabled()
        again = subject.call(model, inputs, labels)
    # One that draws random numbers and takes no seed gives others each time.
    differs = torch.equal(found, again) and not torch.equal(found, expected)
    if differs or not off:
        rule = "attack must work under torch.no_grad() as elsewhere"
        got = "got other points" if differs else "got gradients that are left on"
        yield BrokenPromise("no-grad", f"{rule}, {got}", inputs[:1])


def mask_kept(subject: AttackSubject) -> Found:
    """What the mask excludes comes back bit-equal."""
    if "mask" not in subject.takes:
        return
    model, inputs, labels = subject.halfspace()
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[..., ::2] = True
    found = subject.call(model, inputs, labels, mask=mask)
    changed = ((found != inputs) & ~mask).flatten(1).any(dim=1)
    if bool(changed.any()):
        rule = "attack must leave alone what the mask excludes"
        got = f"got it changed in {int(changed.sum())} of {len(inputs)}"
        yield BrokenPromise("mask", f"{rule}, {got}", inputs[first(changed)][None])


def targets_reached(subject: AttackSubject) -> Found:
    """Aimed at the other of two classes, it reaches it where it is easily reached."""
    if "targeted" not in subject.takes:
        return

    def towards(model: nn.Module, inputs: Tensor, labels: Tensor, **more: Any) -> Tensor:
        return subject.attack(model, inputs, 1 - labels, targeted=True, **more)

    for one in fools(subject._replace(attack=towards)):
        rule = "attack must reach a target that half of the budget reaches, got "
        yield one._replace(promise="targeted", message=rule + one.message.partition("got ")[2])


CHECKS: list[Check[AttackSubject]] = [
    Check("returns", returns),
    Check("inputs-kept", inputs_kept, ("returns",)),
    Check("model-kept", model_kept, ("returns",)),
    Check("generators-kept", generators_kept, ("returns",)),
    Check("bounds", bounds_kept, ("returns",)),
    Check("budget", budget_kept, ("returns",)),
    Check("fools", fools, ("returns",)),
    Check("judged-alone", judged_alone, ("returns",)),
    Check("failures-unchanged", failures_unchanged, ("returns",)),
    Check("zero-gradient", finite_on_plateaus, ("returns",)),
    Check("repeatable", repeatable, ("returns",)),
    Check("batch-independence", batch_independence, ("returns", "repeatable")),
    Check("empty-batch", empty, ("returns",)),
    Check("no-grad", without_grad, ("returns", "repeatable")),
    Check("mask", mask_kept, ("returns",)),
    Check("targeted", targets_reached, ("returns", "fools")),
]


def check_attack(
    attack: Callable[..., Tensor],
    *,
    norm: Distance | None = None,
    epsilon: float | None = None,
    skip: str | Collection[str] = (),
) -> None:
    """Test what evaluations take for granted of an attack, on models with known answers.

    The models are a half-space, a ball, one that nobody can fool, one without a slope, and one
    with batch normalisation, dropout and gradients of its own that has to come back as it was;
    the examples are eight images of twelve values in [0, 1]. Promises about a keyword are tested
    where the attack takes it.

    ======================  ====================================================================
    promise                 kept by an attack that
    ======================  ====================================================================
    ``returns``             returns finite points in the shape, dtype and device of the inputs
    ``inputs-kept``         leaves inputs and labels alone
    ``model-kept``          leaves modes, ``requires_grad``, gradients and statistics alone
    ``generators-kept``     leaves the global generators of torch, NumPy and Python alone
    ``bounds``              keeps to [0, 1] exactly, and to other ``bounds``
    ``budget``              stays within ``epsilon`` up to rounding
    ``fools``               fools a linear model where half of the budget is enough
    ``judged-alone``        returns successes that hold alone and in float64
    ``failures-unchanged``  without ``epsilon``: returns what it cannot fool unchanged
    ``zero-gradient``       gives no NaN where the gradient is zero
    ``repeatable``          returns the same points with the same ``random_state``
    ``batch-independence``  treats an example alike in any batch, ``batch_size`` and order
    ``empty-batch``         returns no points for no examples
    ``no-grad``             works under ``torch.no_grad()``
    ``mask``                leaves alone what ``mask`` excludes
    ``targeted``            reaches an easy target with ``targeted=True``
    ======================  ====================================================================

    Parameters
    ----------
    attack : callable
        Takes a model, inputs of shape (n, ...) and labels of shape (n,), and returns points like
        the inputs; settings are fixed by ``functools.partial``.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, optional
        Where its distances are measured. If not given, its own keyword ``norm``, else linf.
    epsilon : float, optional
        Its budget. If not given, its own keyword ``epsilon``; an attack without one is taken to
        look for the nearest point.
    skip : str or collection of str, default=()
        Promises that the attack does not make.

    Raises
    ------
    BrokenPromiseError
        If the attack broke a promise; the message names each, with the smallest example.
    TypeError
        If ``attack`` cannot be called.
    ValueError
        If ``norm`` or ``epsilon`` is none, or ``skip`` names no promise.

    Examples
    --------
    >>> from functools import partial
    >>> from distillguard import attacks
    >>> from distillguard.testing import check_attack
    >>> check_attack(partial(attacks.pgd, epsilon=0.1, steps=10))
    >>> check_attack(lambda model, inputs, labels: inputs + 0.1, epsilon=0.1)
    Traceback (most recent call last):
    distillguard.exceptions.BrokenPromiseError: attack must keep its promises, got 1 of 16 broken
      bounds: attack must keep to the bounds (0, 1) exactly, got values beyond them by 0.1; ...
    """
    if not callable(attack):
        raise TypeError(f"attack must be a callable, got {type(attack).__name__}")
    own = inspect.signature(attack).parameters
    norm = _own(own, "norm", "linf") if norm is None else norm
    check_norm(norm, DISTANCES)
    epsilon = _own(own, "epsilon", None) if epsilon is None else epsilon
    if epsilon is not None:
        check_positive("epsilon", epsilon)
    subject = AttackSubject(attack, norm, epsilon, set(own))
    with torch.random.fork_rng(devices=[]), other_generators_kept():
        run(CHECKS, subject, "attack", skip)


def _own(parameters: Any, name: str, default: Any) -> Any:
    value = parameters[name].default if name in parameters else inspect.Parameter.empty
    return default if value is inspect.Parameter.empty else value
