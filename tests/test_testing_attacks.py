"""check_attack: names the promise that an attack breaks, and no other."""

from functools import partial

import pytest
import torch
from torch import Tensor

from conftest import each_once_with_an_example
from distillguard import attacks
from distillguard.exceptions import BrokenPromiseError
from distillguard.testing import _points, check_attack
from distillguard.testing._attack_subject import AttackSubject
from distillguard.testing._closed_forms import Ball
from distillguard.testing._points import judged_alone

EPSILON = 0.1
SOUND = partial(attacks.pgd, epsilon=EPSILON, steps=3, early_stop=False, random_state=0)


def around(change):
    """An attack of ours, whose points are changed by ``change(points, inputs)``."""

    def attack(model, inputs, labels, targeted=False, random_state=0, mask=None) -> Tensor:
        settings = {"targeted": targeted, "random_state": random_state, "mask": mask}
        points = SOUND(model, inputs, labels, **settings)
        return change(points, inputs)

    return attack


def trains(model, inputs, labels):
    points = SOUND(model, inputs, labels)
    model.train()
    model(inputs)
    return points


def accumulates(model, inputs, labels):
    model.eval()
    points = inputs.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(points), labels).backward()
    return (inputs + EPSILON * points.grad.sign()).clamp(0, 1)


def writes(model, inputs, labels):
    return inputs.copy_(SOUND(model, inputs, labels))


def seeds(model, inputs, labels):
    torch.manual_seed(0)
    return SOUND(model, inputs, labels)


def rounds_up(points, inputs):
    return (inputs + 1.2 * (points - inputs)).clamp(0, 1)


def by_the_batch(points, inputs):
    delta = points - inputs
    return (inputs + delta * (0.9 + 0.1 / max(1, len(inputs)))).clamp(0, 1)


def divides(model, inputs, labels):
    with torch.enable_grad():
        points = inputs.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(points).diff(dim=1).sum(), points)
    sign = (1 - 2 * labels.clamp(max=1)).view(-1, 1, 1, 1) * slope / slope.abs()
    return (inputs + EPSILON * sign).clamp(0, 1).detach()


def divides_where_right(model, inputs, labels):
    right = (model(inputs).argmax(dim=1) == labels).view(-1, 1, 1, 1)
    return torch.where(right, divides(model, inputs, labels), inputs)


def on_the_edge(model, inputs, labels):
    """The nearest point that is past the boundary, in float32, by nothing but rounding."""
    near, far = inputs, attacks.deepfool(model, inputs, labels)
    for _ in range(60):
        middle = (near + far) / 2
        fooled = (model(middle).argmax(dim=1) != labels).view(-1, 1, 1, 1)
        near, far = torch.where(fooled, near, middle), torch.where(fooled, middle, far)
    return far


def drifts(model, inputs, labels):
    points = attacks.deepfool(model, inputs, labels)
    stays = (points == inputs).flatten(1).all(dim=1).view(-1, 1, 1, 1)
    return torch.where(stays, (points + 0.01).clamp(0, 1), points)


def needs_grad(model, inputs, labels):
    points = SOUND(model, inputs, labels)
    torch.set_grad_enabled(True)
    return points


def stacks(model, inputs, labels):
    pairs = zip(inputs.split(1), labels.split(1), strict=True)
    return torch.stack([SOUND(model, x, y)[0] for x, y in pairs if len(x)])


BUDGET = {"norm": "linf", "epsilon": EPSILON}
DISTANCE = {"norm": "l2"}
FAULTS = {
    "double": (around(lambda points, x: points.double()), BUDGET, "returns"),
    "nothing": (around(lambda points, x: x.clone()), BUDGET, "fools"),
    "in place": (writes, BUDGET, "inputs-kept"),
    "same memory": (around(lambda points, x: x), BUDGET, {"inputs-kept", "fools"}),
    "train mode": (trains, BUDGET, "model-kept"),
    "gradients": (accumulates, BUDGET, {"model-kept", "no-grad"}),
    "global seed": (seeds, BUDGET, "generators-kept"),
    "bounds": (around(lambda points, x: points + 1e-6), BUDGET, {"bounds", "budget", "mask"}),
    "budget": (around(rounds_up), BUDGET, "budget"),
    "batch": (around(by_the_batch), BUDGET, "batch-independence"),
    "0 / 0": (divides, BUDGET, {"zero-gradient", "model-kept"}),
    "0 / 0 where right": (divides_where_right, BUDGET, {"zero-gradient", "model-kept"}),
    "failures": (drifts, DISTANCE, "failures-unchanged"),
    "judged by rounding": (on_the_edge, DISTANCE, {"judged-alone", "model-kept"}),
    "grad mode": (needs_grad, BUDGET, "no-grad"),
    "no seed": (
        around(lambda points, x: x + (points - x) * (0.8 + 0.2 * torch.rand(()))),
        BUDGET,
        {"repeatable", "generators-kept"},
    ),
    "mask": (
        lambda model, inputs, labels, mask=None: SOUND(model, inputs, labels),
        BUDGET,
        "mask",
    ),
    "targets": (
        lambda model, inputs, labels, targeted=False: SOUND(model, inputs, labels),
        BUDGET,
        "targeted",
    ),
    "no empty batch": (stacks, BUDGET, "empty-batch"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_promise_is_named_and_no_other(name):
    attack, settings, promises = FAULTS[name]
    with pytest.raises(BrokenPromiseError) as caught:
        check_attack(attack, **settings)
    expected = {promises} if isinstance(promises, str) else promises
    assert each_once_with_an_example(caught.value.broken) == expected
    assert all(one.example is None or len(one.example) <= 8 for one in caught.value.broken)


@pytest.mark.parametrize("tie", ["alone", "exact"])
def test_a_success_that_is_a_tie_alone_or_in_float64_is_none(monkeypatch, tie):
    class Tied(Ball):
        def forward(self, inputs):
            logits = super().forward(inputs)
            tied = len(inputs) == 1 if tie == "alone" else inputs.dtype == torch.float64
            return 0 * logits if tied else logits

    def beyond(model, inputs, labels):
        return 0.5 + (inputs - 0.5) * 2

    subject = AttackSubject(beyond, "l2", None, ())
    assert not [*judged_alone(subject)]
    monkeypatch.setattr(_points, "Ball", Tied)
    (broken,) = judged_alone(subject)
    assert broken.promise == "judged-alone"


def test_norm_and_epsilon_are_those_that_a_partial_fixes():
    check_attack(partial(attacks.fgsm, epsilon=0.3, norm="l2"))
    with pytest.raises(BrokenPromiseError, match=r"budget: .*within epsilon 0.1 in linf"):
        check_attack(partial(attacks.fgsm, epsilon=0.3, norm="l2"), norm="linf", epsilon=0.1)


def test_an_attack_is_asked_about_grey_black_and_white_images_and_black_and_white_pixels():
    kinds = set()

    def notes(points, inputs):
        for image in inputs:
            values = set(image.unique().tolist())
            kinds.add(tuple(sorted(values)) if values <= {0, 1} else "grey")
        return points

    check_attack(around(notes), skip="failures-unchanged")
    assert kinds == {"grey", (0.0,), (1.0,), (0.0, 1.0)}


def test_promises_that_an_attack_does_not_make_are_skipped():
    check_attack(around(rounds_up), **BUDGET, skip="budget")
    with pytest.raises(ValueError, match=r"^skip must be one of 'returns'"):
        check_attack(SOUND, skip=("radius",))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"norm": "l3"},
            ValueError,
            "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'l3'",
        ),
        ({"epsilon": 0}, ValueError, "epsilon must be a finite number above 0, got 0"),
        ({"attack": 3}, TypeError, "attack must be a callable, got int"),
    ],
)
def test_what_is_no_attack_is_refused(settings, error, message):
    with pytest.raises(error, match=f"^{message}"):
        check_attack(settings.pop("attack", SOUND), **settings)
