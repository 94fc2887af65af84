"""Promises about what an attack leaves unchanged, and about torch.no_grad()."""

from collections.abc import Iterator

import torch

from ._attack_subject import AttackSubject, lent
from ._promises import BrokenPromise
from ._traces import generators, stirred, traces

Found = Iterator[BrokenPromise]


def inputs_kept(subject: AttackSubject) -> Found:
    """Inputs and labels are unchanged, and share no memory with the result."""
    model, inputs, labels = subject.halfspace()
    before = inputs.clone(), labels.clone()
    subject.call(model, inputs, labels).detach().fill_(7)
    for name, now, then in zip(("inputs", "labels"), (inputs, labels), before, strict=True):
        if not torch.equal(now, then):
            rule = f"attack must neither change its {name} nor return their memory"
            yield BrokenPromise("inputs-kept", f"{rule}, got other values in them", then)


def model_kept(subject: AttackSubject) -> Found:
    """Modes, flags, gradients and values of the model are unchanged."""
    model, inputs, labels = lent()
    before = traces(model)
    subject.call(model, inputs, labels)
    changed = [name for name, value in traces(model).items() if value != before[name]]
    if changed:
        rule = "attack must leave the model unchanged"
        yield BrokenPromise("model-kept", f"{rule}, got other {' and '.join(changed)}", inputs[:1])


def generators_kept(subject: AttackSubject) -> Found:
    """The states of the global generators are unchanged."""
    model, inputs, labels = subject.halfspace()
    stirred()
    before = generators()
    subject.call(model, inputs, labels)
    changed = [name for name, state in generators().items() if state != before[name]]
    if changed:
        rule = "attack must not change the global random generators"
        got = f"got another state of {' and '.join(changed)}"
        yield BrokenPromise("generators-kept", f"{rule}, {got}; draw from a torch.Generator")


def without_grad(subject: AttackSubject) -> Found:
    """It works with gradients switched off, and leaves them off."""
    model, inputs, labels = subject.halfspace()
    expected = subject.call(model, inputs, labels)
    with torch.no_grad():
        found = subject.call(model, inputs, labels)
        off = not torch.is_grad_enabled()
        again = subject.call(model, inputs, labels)
    # An attack that draws random numbers and takes no seed differs in any case.
    differs = torch.equal(found, again) and not torch.equal(found, expected)
    if differs or not off:
        rule = "attack must work under torch.no_grad() as it does without"
        got = "got other points" if differs else "got gradients left on"
        yield BrokenPromise("no-grad", f"{rule}, {got}", inputs[:1])
