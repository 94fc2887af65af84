"""The checks of distillguard.testing, part by part: what they ask, count and say.

Figures are worked out by hand, or by another route: a plane's distance by walking up to it.
"""

import inspect
import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import find, given, settings
from torch import nn

import test_testing_attacks
import test_testing_classifiers
import test_testing_defenses
import test_testing_functions
import test_testing_models
from distillguard import attacks
from distillguard.defenses import Layer, RandomLayer
from distillguard.exceptions import BrokenPromiseError
from distillguard.testing import (
    _attack_subject,
    _attacks,
    _classifiers,
    _defenses,
    _functions,
    _models,
    _promises,
    check_attack,
    check_classifier,
    check_defense,
    check_loss,
    check_model,
    check_softmax,
    strategies,
)
from distillguard.testing._classifier_subject import ClassifierSubject, drawn, rows_apart
from distillguard.testing._closed_forms import Ball, Halfspace, Lent
from distillguard.testing._defense_subject import DefenseSubject
from distillguard.testing._promises import BrokenPromise, Check, run, shown, smallest
from distillguard.testing._subject import ModelSubject, coordinate, shares
from distillguard.testing._traces import generators

MODELS = test_testing_models.FAULTS
ATTACKS = test_testing_attacks.FAULTS
PARTS = test_testing_defenses.FAULTS
ESTIMATORS = {type(each).__name__: each for each in test_testing_classifiers.FAULTS}
IMAGES = test_testing_models.images()


def errors(check, *given, **settings):
    """What a check says of each broken promise, and which it left unjudged."""
    with pytest.raises(BrokenPromiseError) as caught:
        check(*given, **settings)
    return {one.promise: one.message for one in caught.value.broken}, caught.value.unjudged


def checked(kind, name):
    if kind == "model":
        return errors(check_model, MODELS[name][0], IMAGES)[0]
    if kind == "attack":
        attack, settings, _ = ATTACKS[name]
        return errors(check_attack, attack, **settings)[0]
    if kind == "defense":
        part, promises = PARTS[name]
        return errors(check_defense, part, skip=() if promises == "pickle" else "pickle")[0]
    return errors(check_classifier, ESTIMATORS[name])[0]


# Images have 36 values, those of parts 192, those of attacks 12; 66 rows are 4 + 6 + 48 + 8.
SAID = {
    ("model", "clamp"): "got 0 for every input whose value at [0, 0, 0] is its lowest, 0 (36 of 36",
    ("model", "square root"): "got -inf for every input whose value at [0, 0, 0] is its lowest, 0",
    ("model", "argmax"): "got at most 3 different outputs for 9 inputs on a line, 1e-05 of the "
    "width of the bounds apart, around 10 of 10 points",
    ("model", "mean of the batch"): "got other logits in a batch of 2; look for batch statistics",
    ("model", "squeezed"): "got ValueError for a batch of one: model must return logits of shape "
    "(1, n_classes)",
    ("model", "NaN at zero"): "got NaN for 2 of 66 inputs within bounds; look for 0 / 0",
    ("model", "exp overflow"): "got infinity for ",
    ("model", "dead rows"): "got no effect of 6 of 36, the first at [0, 5, 0]",
    ("model", "constant"): "got no effect of 36 of 36, the first at [0, 0, 0]",
    ("model", "double"): "torch.float32 on cpu, got torch.float64 on cpu",
    ("model", "statistics kept"): "got other values in 'seen'",
    ("attack", "double"): "got shape (8, 1, 3, 4) in torch.float64 on cpu",
    ("attack", "bounds"): "within the bounds (0, 1) exactly, got values beyond them by 9.5e-07",
    ("attack", "budget"): "within epsilon 0.1 in linf, got a distance of 0.12",
    ("attack", "train mode"): "got other modes (train, eval) and weights or statistics",
    ("attack", "gradients"): "got other modes (train, eval) and gradients of parameters",
    ("attack", "global seed"): "got another state of torch; draw",
    ("attack", "failures"): "what it cannot fool, got 7 of 8 changed, by up to 0.01",
    ("attack", "grad mode"): "got gradients left on",
    ("attack", "mask"): "got changes in 8 of 8 examples",
    ("attack", "nothing"): "is enough, got 5 of 5 still classified as before",
    ("attack", "targets"): "reach a target class if half of the budget is enough, got 5 of 5 still",
    ("attack", "0 / 0"): "other weights or statistics",
    ("defense", "shape"): "inputs, (6, 3, 8, 8), got Tensor of shape (6, 3, 8, 4)",
    ("defense", "NaN"): "got NaN or infinity for 2 of 10",
    ("defense", "beyond the bounds"): "bounds (0, 1), got some beyond them by 0.001; clamp last",
    ("defense", "other dtype"): "torch.float32 on cpu, got torch.float64 on cpu",
    ("defense", "float32 for float64"): "torch.float64 on cpu, got torch.float32 on cpu",
    ("defense", "clamp"): "got 0 for every input whose value at [0, 0, 0] is its lowest, 0 (192 of",
    ("defense", "straight through, clamped"): "unchanged, got another for 54 of 54",
    ("defense", "no seed reaches it"): "got other values after one manual_seed",
    ("defense", "seed not looked at"): "got the same values with seeds 0 and 1",
    ("defense", "global seed"): "got another state of torch; draw from a torch.Generator",
    ("defense", "argument under another name"): "got no strength; a save stores these",
    ("defense", "argument changed"): "got other outputs from a part built from these",
    ("defense", "copy"): "with its copy, got 1 shared",
    ("defense", "pickle"): "it raised PicklingError: ",
    ("defense", "statistics"): "got other values in 'part.seen'",
    ("defense", "detector: two numbers"): "shape (6,), got Tensor of shape (6, 2)",
    ("defense", "detector: infinite"): "shape (1,), got NaN or infinity for 2 of 10",
    ("defense", "detector: training mode"): "got other modes (train, eval) and weights or",
    ("classifier", "Mute"): "return itself from fit, got another object",
    ("classifier", "Unsorted"): "in classes_, sorted, [0, 1, 2], got [2, 1, 0]",
    ("classifier", "Eager"): "raise NotFittedError from predict before fit, got an output",
    ("classifier", "Tunes"): "got changes in scale; train a copy",
    ("classifier", "TrainsTheModule"): "got changes in module: weights or statistics; train",
    ("classifier", "Standardises"): "write into X in fit, got other values in 60 of 60 rows",
    ("classifier", "Turns"): "write into y in score, got other values in 40 of 60 rows",
    ("classifier", "Columns"): "shape (60, 3) from predict_proba, got (60, 2)",
    ("classifier", "Draws"): "from decision_function, got another value for 60 of 60",
    ("classifier", "Seeds"): "in fit, got another state of numpy",
    ("classifier", "Unseeded"): "got other values of predict_proba for 60 of 60 after another fit",
    ("classifier", "Second"): "with the largest predict_proba, got another for 60 of 60",
    ("classifier", "Percent"): "share of correct predictions from score, 1, got 100",
    ("classifier", "Hardens"): "from soft_labels at temperature 20, got a largest value of 1 after",
    ("classifier", "Unnormalised"): "from soft_labels at temperature 20 that sum to 1",
    ("classifier", "Ranks"): "got another value alone for 60 of 60",
    ("classifier", "Pads"): "ValueError in predict, got an output",
    ("classifier", "Hasty"): "refused for infinity in X, got other n_features_in_; set",
    ("classifier", "Swallows"): "refuse infinity in X with ValueError, got no error",
    ("classifier", "Shrinks"): "got other values of predict_proba; set attributes",
    ("classifier", "Remembers"): "and share no network, got centres_",
}


@pytest.mark.parametrize(("kind", "name"), SAID, ids=map(": ".join, SAID))
def test_a_broken_promise_says_what_was_found_with_its_figures(kind, name):
    found = checked(kind, name)
    assert any(SAID[kind, name] in message for message in found.values()), found


def test_a_gradient_is_compared_with_the_slope_that_it_should_be():
    """The outputs are the sum s and 3 s, weighed by cos 1 and cos 2: -0.708 for each value."""

    class Backwards(nn.Module):
        def forward(self, x):
            total = (2 * x.detach() - x).flatten(1).sum(dim=1)
            return torch.stack([total, 3 * total], dim=1)

    found, unjudged = errors(check_model, Backwards(), IMAGES)
    assert "got 0.7081 where they have a slope of -0.7081" in found["true-gradient"]
    assert ", and 16 of 16 points like it; look" in found["true-gradient"]
    assert unjudged == ("gradient-at-bounds", "live-coordinates")


class Bent(nn.Module):
    """The sum of the inputs, weighed, and its gradient times a factor that is not its own."""

    def __init__(self, factor, sign=1.0, value=1.0):
        super().__init__()
        self.factor, self.sign, self.value = factor, sign, value

    def forward(self, x):
        x = self.value * x.detach() + self.factor * (x - x.detach())
        total = x.flatten(1).sum(dim=1)
        return torch.stack([total, torch.zeros_like(total)], dim=1) * self.sign


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("factor", "value", "kept"),
    [
        # Up to a third of the larger of the two.
        (0.68, 1.0, True), (0.65, 1.0, False), (1.48, 1.0, True), (1.52, 1.0, False),
        (-1.0, 1.0, False), (1.0, 0.0, False), (0.0, 1.0, False),
    ],
)  # fmt: skip
def test_a_gradient_is_true_up_to_a_third(factor, value, kept, sign):
    skip = ("no-stairs", "gradient-at-bounds", "live-coordinates", "finite-logits")
    model = Bent(factor, sign, value)
    broken = {one.promise for one in _broken(check_model, model, IMAGES, skip=skip)}
    assert broken == (set() if kept else {"true-gradient"})


def _broken(check, *given, **settings):
    try:
        check(*given, **settings)
    except BrokenPromiseError as error:
        return error.broken
    return []


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_are_asked_for_at_the_corners_where_they_are_highest_and_lowest(sign):
    weight = shares(1, torch.zeros(1, 36, dtype=torch.float64))[0] - 0.5
    most = weight.abs().sum() / 2

    def network(x):
        value = sign * ((x.flatten(1).double() - 0.5) * weight).sum(dim=1)
        logit = (value + 0.9 * most).log()
        return torch.stack([logit, 0 * value], dim=1).to(x)

    found, _ = errors(check_model, network, IMAGES, skip=("no-stairs", "true-gradient"))
    assert found.keys() == {"finite-logits"}
    assert "got NaN for 1 of 62 inputs" in found["finite-logits"]


def test_slopes_are_measured_where_an_input_may_change_and_nowhere_else():
    high = torch.zeros(1, 6, 6)
    high[0, 2, 3] = high[0, 4, 0] = 1
    inputs = IMAGES * high
    bounds = (torch.zeros(1, 6, 6), high)
    check_model(test_testing_models.mlp(), inputs, bounds=bounds)
    found, _ = errors(check_model, Bent(-1.0), inputs, bounds=bounds)
    told = found["true-gradient"]
    assert "at [0, 2, 3] of" in told or "at [0, 4, 0] of" in told
    assert ", and 16 of 16 points like it; look" in told


class _Stays(nn.Module):
    """In training mode for ever, and with noise."""

    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return nn.functional.dropout(test_testing_models.mlp()(x))


def _ends(n):
    """How far each row is from the middle of the batch."""
    return (torch.arange(n) - (n - 1) / 2).abs()[:, None]


# Faults that one order alone shows, that a layout explains, or that a mode tells.
MORE_MODELS = {
    "the next row": (
        lambda x: (z := test_testing_models.mlp()(x)) + z - z.roll(1, 0),
        "order-independence", "for the same examples in another order",
    ),
    "far from the middle": (
        lambda x: test_testing_models.mlp()(x) + _ends(len(x)),
        "order-independence", "for the same examples in another order",
    ),
    "training mode": (_Stays(), "repeatable", "; still in training mode: 'model'"),
    "probabilities": (
        lambda x: test_testing_models.mlp()(x).softmax(dim=1),
        "logits", "got rows in [0, 1] that sum to 1; remove the final softmax",
    ),
    "float64 of the first row": (
        lambda x: test_testing_models.mlp()(x).to(torch.float16),
        "dtype-and-device", "torch.float32 on cpu, got torch.float16 on cpu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE_MODELS)
def test_a_fault_that_few_questions_show_is_found(name):
    model, promise, words = MORE_MODELS[name]
    found, _ = errors(check_model, model, IMAGES)
    assert words in found[promise]


def test_the_layout_that_a_network_takes_is_told():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    found, _ = errors(check_model, network, IMAGES.permute(0, 2, 3, 1))
    told = "answers", "example_inputs must hold examples in the layout of the model, got shape "
    assert found[told[0]].startswith(told[1] + "(4, 6, 6, 1)")


def test_default_examples_of_a_part_are_a_third_on_its_bounds():
    for bounds in (None, (-2.0, 3.0)):
        subject = DefenseSubject.of_part(nn.Identity(), None, bounds)
        low, high = bounds or (0.0, 1.0)
        assert subject.examples.shape == (6, 3, 8, 8)
        assert (subject.examples.min(), subject.examples.max()) == (low, high)
        for end in (low, high):
            assert (subject.examples == end).float().mean() == pytest.approx(1 / 6, abs=0.03)
        assert (subject.low == low).all()
        assert (subject.high == high).all()
        classifier = subject.model.classifier
        logits = classifier(subject.examples)
        assert logits.shape == (6, 3)
        assert logits.abs().max() <= 9
        torch.testing.assert_close(
            logits, type(classifier)((0.0, 1.0))((subject.examples - low) / (high - low))
        )


class _Detached(nn.Module):
    gradient = "identity"

    def forward(self, inputs):
        return (4 * inputs).round().detach() / 4


def _said(check, subject, **given):
    return lambda: [str(one) for one in _broken(check, subject, **given)]


ANYWHERE = {
    "half-space": lambda: [*Halfspace().parameters()],
    "ball": lambda: [*Ball(0.5).parameters()],
    "lent": lambda: [*Lent().state_dict().values(), Lent().last.bias.grad],
    "examples": lambda: [_attack_subject.examples()],
    "logits": lambda: [_functions.logits(), _functions.large(), _functions.labels()],
    "part": lambda: [DefenseSubject.of_part(nn.Identity(), None, None).points],
    "weights": lambda: [
        *strategies._built((1, 5, 5), 3, ["Conv2d"], ["Linear"], 4, 7).state_dict().values()
    ],
    "drawn": lambda: [
        value
        for each in (strategies.logits(), strategies.soft_labels(), strategies.inputs(),
                     strategies.labels(2, 3), strategies.masks())
        for value in _drawn(each, 2)
    ],
    "no gradient": _said(check_defense, _Detached(), skip={"differentiable", "pickle"}),
    "mask": _said(check_attack, ATTACKS["mask"][0], **ATTACKS["mask"][1]),
    "failures": _said(check_attack, ATTACKS["failures"][0], **ATTACKS["failures"][1]),
    "bounds": _said(check_attack, ATTACKS["bounds"][0], **ATTACKS["bounds"][1]),
    "first class": _said(check_loss, test_testing_functions.LOSSES["first class"][0]),
    "training mode": _said(
        check_defense, PARTS["detector: training mode"][0], skip="pickle"
    ),
    "classes": _said(check_classifier, ESTIMATORS["Sigmoids"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ANYWHERE)
def test_questions_and_answers_are_the_same_on_another_default_device(name):
    expected = ANYWHERE[name]()
    with torch.device("meta"):
        found = ANYWHERE[name]()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    if name == "no gradient":
        assert "let gradients pass unchanged, got none" in found[0]


# --- attacks that few questions tell from right ones


def _sound(model, inputs, labels):
    return test_testing_attacks.SOUND(model, inputs, labels)


def _unseeded(model, inputs, labels):
    """Draws anew each time from a generator of its own, and takes no seed."""
    generator = torch.Generator()
    generator.seed()
    points = _sound(model, inputs, labels)
    return inputs + (points - inputs) * (1 - 0.1 * torch.rand((), generator=generator))


def _by_state(model, inputs, labels, random_state=0):
    """Looks at the global generator, and leaves it as it was."""
    points = _sound(model, inputs, labels)
    with torch.random.fork_rng(devices=[]):
        return inputs + (points - inputs) * (0.8 + 0.2 * torch.rand(()))


def _idle_without_grad(model, inputs, labels):
    return _sound(model, inputs, labels) if torch.is_grad_enabled() else inputs.clone()


def _last_is_nan(model, inputs, labels):
    points = _sound(model, inputs, labels)
    points[-1:] = torch.nan
    return points


def _labelled(model, inputs, labels):
    points = _sound(model, inputs, labels)
    labels.mul_(0)
    return points


def _low_only(model, inputs, labels):
    return (inputs + 10 * (_sound(model, inputs, labels) - inputs)).clamp(max=1)


MORE_ATTACKS = {
    "unseeded": (_unseeded, {}),
    "state": (_by_state, {"repeatable": "with the same random_state, got others by up to 0."}),
    "idle": (_idle_without_grad, {"no-grad": "as it does without, got other points"}),
    "NaN": (_last_is_nan, {"returns": "(8, 1, 3, 4) in torch.float32 on cpu with NaN or infinity"}),
    "labels": (_labelled, {"inputs-kept": "neither change its labels nor return their memory"}),
    "far below": (_low_only, {"bounds": "(0, 1) exactly, got values beyond them by 0.",
                              "budget": "within epsilon 0.1 in linf, got a distance of 1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE_ATTACKS)
def test_an_attack_is_told_what_it_does_wrong_and_nothing_where_that_is_chance(name):
    attack, expected = MORE_ATTACKS[name]
    # Examples whose labels were written over cannot be fooled any more.
    skip = ("fools", "no-grad") if name == "labels" else ()
    broken = _broken(check_attack, attack, norm="linf", epsilon=0.1, skip=skip)
    found = {one.promise: one.message for one in broken}
    assert found.keys() == expected.keys()
    for promise, words in expected.items():
        assert words in found[promise]


# --- parts that draw


class _Mixing(RandomLayer):
    """Draws for the batch as a whole, and mixes its examples."""

    def transform(self, inputs):
        mean = inputs.mean(dim=0, keepdim=True)
        return 0.5 * inputs + 0.25 * mean + 0.1 * self.draw(inputs, 1, 1, 1)


class _Unseeded(_Mixing):
    def __init__(self):
        super().__init__()


class _NoAttribute(Layer):
    def __init__(self, seed=0):
        super().__init__()

    def transform(self, inputs):
        return 0.5 * inputs


class _OwnSeed(Layer):
    seed = 3

    def transform(self, inputs):
        return 0.5 * inputs


@pytest.mark.parametrize(
    ("part", "promise", "words"),
    [
        (_Mixing(), "batch-independence", "got other logits in a batch of 2"),
        (_Unseeded(), "", ""),
        (_NoAttribute(), "parameters", "got no seed; a save stores these"),
        (_OwnSeed(), "", ""),
    ],
)
def test_a_part_that_can_be_seeded_is_asked_about_batches_with_a_seed(part, promise, words):
    found = {one.promise: one.message for one in _broken(check_defense, part, skip="pickle")}
    assert found.keys() == ({promise} - {""})
    assert words in found.get(promise, "")


# --- once


def _model_subject(name):
    return ModelSubject.of(MODELS[name][0].eval(), IMAGES, (0.0, 1.0))


def _attack_subject_of(name):
    attack, given, _ = ATTACKS[name]
    norm, epsilon = given["norm"], given.get("epsilon")
    takes = set(inspect.signature(attack).parameters)
    return _attack_subject.AttackSubject(attack, norm, epsilon, takes)


SUBJECTS = {
    "model": (_models.CHECKS, _model_subject),
    "attack": (_attacks.CHECKS, _attack_subject_of),
    "defense": (_defenses.CHECKS, lambda name: DefenseSubject.of_part(PARTS[name][0], None, None)),
    "classifier": (
        _classifiers.CHECKS,
        lambda name: ClassifierSubject.of(ESTIMATORS[name], None, None),
    ),
    "loss": (_functions.LOSS, lambda name: test_testing_functions.LOSSES[name][0]),
}


@pytest.mark.parametrize(
    ("kind", "name", "promise"),
    [
        ("model", "squeezed", "batch-independence"),
        ("model", "clamp", "gradient-at-bounds"),
        ("attack", "double", "returns"),
        ("attack", "budget", "budget"),
        ("attack", "judged by rounding", "judged-alone"),
        ("attack", "batch", "batch-independence"),
        ("defense", "shape", "answers"),
        ("defense", "other dtype", "dtype-and-device"),
        ("defense", "argument under another name", "parameters"),
        ("classifier", "Clips", "inputs-kept"),
        ("classifier", "Ranks", "batch-independence"),
        ("classifier", "Hardens", "soft-labels"),
        ("classifier", "Swallows", "refused-fit"),
        ("classifier", "Forgets", "refused-fit"),
        ("classifier", "Rounds", "pickle"),
        ("loss", "mean", "one-value-each"),
    ],
)
def test_a_promise_that_is_broken_in_many_places_is_told_once(kind, name, promise):
    checks, subject_of = SUBJECTS[kind]
    (check,) = [each for each in checks if each.promise == promise]
    with torch.random.fork_rng(devices=[]):
        found = [*check.find(subject_of(name))]
    assert [one.promise for one in found] == [promise]


# What each check undoes: a subject that moves every generator, and what it is called with.
def _stirs():
    torch.rand(1), np.random.random(), random.random()  # noqa: NPY002


def _stirring(function):
    def stirring(*given, **settings):
        _stirs()
        return function(*given, **settings)

    return stirring


class _StirringLayer(nn.Module):
    def forward(self, inputs):
        _stirs()
        return inputs


class _StirringEstimator(test_testing_classifiers.Centroids):
    def fit(self, X, y):
        _stirs()
        return super().fit(X, y)


STIRRING = {
    "attack": lambda: check_attack(
        lambda model, inputs, labels: _stirring(test_testing_attacks.SOUND)(model, inputs, labels),
        norm="linf", epsilon=0.1,
    ),
    "defense": lambda: check_defense(_StirringLayer()),
    "classifier": lambda: check_classifier(_StirringEstimator()),
}  # fmt: skip


@pytest.mark.parametrize("name", STIRRING)
def test_a_check_leaves_all_generators_as_they_were_and_tells_which_were_moved(name):
    _stirs()
    before = generators()
    found, _ = errors(STIRRING[name])
    assert generators() == before
    assert "got another state of torch and numpy and random" in found["generators-kept"]


# --- models with known answers


@pytest.mark.parametrize("bias", [0.0, 0.7, -0.4])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_halfspaces_distance_is_where_walking_straight_to_it_changes_the_class(norm, bias):
    model = Halfspace(bias)
    assert 0.5 <= model.weight.abs().min() < model.weight.abs().max() < 1.5
    assert model.weight.min() < 0 < model.weight.max()
    inputs = shares(7, torch.zeros(1, 1, 3, 4))
    weight = model.weight.detach()
    way = {
        "linf": weight.sign(),
        "l2": weight / weight.norm(),
        "l1": weight.sign() * nn.functional.one_hot(weight.abs().argmax(), 12),
    }[norm]
    classes = model(inputs).argmax(dim=1)
    towards = (1 - 2 * classes)[:, None] * way
    far = model.least(inputs, norm)
    assert not far.requires_grad
    assert (far > 0).all()
    for share, changed in ((0.999, False), (1.001, True)):
        moved = inputs + (share * far[:, None] * towards).view_as(inputs)
        assert bool(((model(moved).argmax(dim=1) != classes) == changed).all())


def test_a_halfspace_answers_half_the_signed_distance_and_a_ball_the_difference_of_squares():
    model, inputs = Halfspace(0.25), shares(5, torch.zeros(1, 1, 3, 4))
    value = ((inputs - 0.5).flatten(1) * model.weight).sum(dim=1) + 0.25
    torch.testing.assert_close(model(inputs), torch.stack([-value / 2, value / 2], dim=1))
    beyond = (inputs - 0.5).flatten(1).norm(dim=1).square() - 0.5**2
    expected = torch.stack([1 - beyond, 1 + beyond], dim=1)
    torch.testing.assert_close(Ball(0.5)(inputs), expected)


def test_the_lent_model_has_all_that_an_attack_can_change():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model, twin = Lent(), Lent()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))
    assert [each.training for each in model.modules()] == [True, True, True, False, True]
    assert (model.normalise.running_mean == 0.5).all()
    assert (model.normalise.running_var == torch.tensor(0.04)).all()
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    kept = {name for name, each in model.named_parameters() if each.grad is not None}
    assert (frozen, kept) == ({"last.weight"}, {"last.bias"})
    assert (model.last.bias.grad == 1).all()
    inputs = shares(6, torch.zeros(1, 1, 3, 4))
    found = model.eval()(inputs)
    assert found.shape == (6, 4)
    by_hand = inputs.flatten(1).sub(0.5).div((0.04 + 1e-5) ** 0.5)
    torch.testing.assert_close(found, model.last(torch.tanh(model.hidden(by_hand))))


def test_attacks_are_asked_about_images_of_which_three_are_special():
    images = _attack_subject.examples()
    assert images.shape == (8, 1, 3, 4)
    assert set(images[1].unique().tolist()) == {0.0, 1.0}
    assert (images[2] == 0).all()
    assert (images[3] == 1).all()
    rest = images[[0, 4, 5, 6, 7]]
    assert 0 < rest.min() < rest.max() < 1
    assert len(rest.unique()) == rest.numel()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 40.0, None])
def test_half_of_the_examples_of_a_halfspace_are_within_the_budget(norm, epsilon):
    subject = _attack_subject.AttackSubject(attacks.fgsm, norm, epsilon, ())
    model, inputs, labels = subject.halfspace()
    assert torch.equal(model(inputs).argmax(dim=1), labels)
    assert not model.training
    assert 0.35 - 1e-6 <= inputs.min() <= inputs.max() <= 0.65 + 1e-6
    if epsilon is not None and epsilon < 40:
        median = model.least(inputs, norm).median().item()
        assert median == pytest.approx(epsilon, rel=1e-5) or median < epsilon


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
def test_examples_for_counts_are_the_same_for_any_budget(norm):
    one, other = (
        _attack_subject.AttackSubject(attacks.fgsm, norm, epsilon, ()).halfspace()[1]
        for epsilon in (3, None)
    )
    assert torch.equal(one, other)
    torch.testing.assert_close(one, 0.35 + 0.3 * _attack_subject.examples())


@pytest.mark.parametrize(("share", "kept"), [(0.52, True), (0.15, False)])
def test_an_attack_of_half_the_budget_fools_enough(share, kept):
    def straight(model, inputs, labels):
        return attacks.fgsm(model, inputs, labels, epsilon=0.1 * share)

    skipped = {each.promise for each in _attacks.CHECKS} - {"fools"}
    if kept:
        check_attack(straight, norm="linf", epsilon=0.1, skip=skipped)
    else:
        found, _ = errors(check_attack, straight, norm="linf", epsilon=0.1, skip=skipped)
        assert "still classified as before" in found["fools"]


# --- the points at which models are asked


def test_shares_are_the_same_numbers_below_one_for_each_dtype():
    like = torch.zeros(1, 5, 7, dtype=torch.float64)
    found = shares(64, like)
    assert found.shape == (64, 5, 7)
    assert (found >= 0).all()
    assert (found < 1).all()
    assert len(found.unique()) == found.numel()
    assert found.mean() == pytest.approx(0.5, abs=0.02)
    assert found.var() == pytest.approx(1 / 12, abs=0.01)
    assert torch.equal(found, shares(64, like))
    assert torch.equal(found.float(), shares(64, like.float()))
    assert torch.equal(shares(3, like), found[:3])


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5)])
def test_a_coordinate_is_the_index_of_a_place(shape):
    for place in range(int(np.prod(shape))):
        expected = [int(each) for each in np.unravel_index(place, shape)]
        assert coordinate(place, torch.Size(shape)) == expected


def test_points_have_each_value_at_its_lowest_its_highest_and_in_between():
    low, high = torch.tensor([0.0, -2.0, 5.0]), torch.tensor([1.0, 2.0, 5.0])
    examples = torch.tensor([[0.5, 0.0, 5.0], [0.25, 1.0, 5.0]])
    subject = ModelSubject.of(nn.Identity(), examples, (low, high))
    assert subject.points.shape == subject.interior.shape == (48, 3)
    for place in (0, 1):
        lowest, highest = (subject.points[:, place] == each[place] for each in (low, high))
        assert lowest.sum() == highest.sum() == 16
        within = subject.points[~lowest & ~highest]
        assert ((within > low) & (within < high))[:, place].all()
    inner = (subject.interior - low)[:, :2] / (high - low)[:2]
    assert 0.1 <= inner.min() < 0.15 < 0.85 < inner.max() <= 0.9
    assert (subject.points[:, 2] == 5).all()
    assert subject.rows.shape == (6, 3)
    assert torch.equal(subject.rows[:2], examples)
    assert torch.equal(subject.rows[2:], subject.points[:4])
    many = ModelSubject.of(nn.Identity(), shares(9, examples), (0.0, 1.0))
    assert torch.equal(many.rows, many.examples[:6])


def _close(one, other):
    subject = ModelSubject.of(nn.Identity(), torch.rand(2, 3), (0.0, 1.0))
    return subject.close(torch.tensor(one), torch.tensor(other))


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        # A ten-thousandth of the largest logit, 100.
        ([[100.0, 0.0]], [[100.0, 0.0099]], True),
        ([[100.0, 0.0]], [[100.0, 0.0101]], False),
        ([[-100.0, 0.0]], [[-100.0, 0.0099]], True),
        ([[0.0, 0.0]], [[0.0, 0.0]], True),
        ([[0.0, 1e-9]], [[0.0, 0.0]], False),
        ([[float("nan"), 1.0]], [[float("nan"), 1.0]], True),
        ([[float("nan"), 1.0]], [[0.0, 1.0]], False),
        ([[float("inf"), 1.0]], [[float("inf"), 1.0]], True),
        ([[float("inf"), 1.0]], [[float("inf"), 2.0]], False),
        ([[float("-inf"), 1.0]], [[float("-inf"), 1.0]], True),
        ([[1.0, 2.0]], [[1.0], [2.0]], False),
        # A class that is ruled out is no measure of the others.
        ([[1.0, 2.0, -1e9]], [[1.0, 2.1, -1e9]], False),
        # Scores of detectors, one a row.
        ([-100.0, 0.0], [-100.0, 0.0099], True),
        ([-100.0, 0.0], [-100.0, 0.0101], False),
    ],
)
def test_outputs_are_close_up_to_rounding_of_the_largest_logit(one, other, close):
    assert _close(one, other) == close


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_outputs_in_half_precision_may_differ_by_two_hundredths(dtype):
    subject = ModelSubject.of(nn.Identity(), torch.rand(2, 3), (0.0, 1.0))
    one = torch.tensor([[64.0, 0.0]], dtype=dtype)
    assert subject.close(one, one + torch.tensor([[0.0, 1.25]], dtype=dtype))
    assert not subject.close(one, one + torch.tensor([[0.0, 1.3125]], dtype=dtype))


def test_a_copy_in_float64_leaves_the_model_in_its_own_dtype():
    network = nn.Linear(3, 2)
    subject = ModelSubject.of(network, torch.rand(2, 3), (0.0, 1.0))
    double = subject.in_double()
    assert double.answer(double.rows).dtype == torch.float64
    torch.testing.assert_close(double.examples, subject.examples.double())
    assert network.weight.dtype == torch.float32
    assert ModelSubject.of(network.forward, torch.rand(2, 3), (0.0, 1.0)).in_double() is None

    class Single(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs).float()

    class Stubborn(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.float())

    for kind in (Single, Stubborn):
        assert ModelSubject.of(kind(3, 2), torch.rand(2, 3), (0.0, 1.0)).in_double() is None


def test_default_examples_of_a_classifier_are_around_three_corners():
    X, y = drawn()
    assert (X.shape, X.dtype, y.tolist()) == ((60, 4), np.float32, [0, 1, 2] * 20)
    assert 0 <= X.min() < 0.02 < 0.98 < X.max() < 1
    for corner in range(3):
        others = np.delete(X[y == corner], corner, axis=1)
        assert (X[y == corner, corner] >= 0.6).all()
        assert (others < 0.4).all()
    assert all(np.array_equal(*pair) for pair in zip(drawn(), (X, y), strict=True))


@pytest.mark.parametrize(
    ("one", "other", "slack", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0, [False, False]),
        ([1.0, 2.0], [1.0, 2.001], 0.0, [False, True]),
        ([1.0, 2.0], [1.0019, 2.0], 1e-3, [False, False]),
        ([1.0, 2.0], [1.0021, 2.0], 1e-3, [True, False]),
        ([1.0, -2.0], [1.0021, -2.0], 1e-3, [True, False]),
        ([1.0, -2.0], [1.0019, -2.0], 1e-3, [False, False]),
        ([1.0021, -2.0], [1.0, -2.0], 1e-3, [True, False]),
        ([1, 2], [1, 3], 9.0, [False, True]),
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 5.0]], 0.0, [False, True]),
        ([float("nan"), 1.0], [1.0, 1.0], 1e-3, [True, False]),
        ([1.0, 2.0], [[1.0], [2.0]], 9.0, [True, True]),
        (["a", "b"], ["a", "c"], 1e-3, [False, True]),
        ([1.0, 2.0], [2.0, 2.0], 0.5, [False, False]),
    ],
)
def test_rows_are_apart_by_more_than_a_share_of_the_largest_value(one, other, slack, apart):
    assert rows_apart(np.array(one), np.array(other), slack).tolist() == apart


# --- running checks


def _check(name, breaks=False, needs=()):
    def find(subject):
        subject.append(name)
        if breaks == "raise":
            raise KeyError("why")
        if breaks:
            yield BrokenPromise(name, f"{name} is broken")
            yield BrokenPromise(name, "twice")

    return Check(name, find, needs)


def test_checks_run_in_order_and_what_needs_a_broken_one_is_not_judged():
    checks = [
        _check("a"),
        _check("b", breaks=True),
        _check("c", needs=("a",)),
        _check("d", needs=("a", "b")),
        _check("e", needs=("d",)),
        _check("f", breaks="raise", needs=("c",)),
        _check("g", needs=("f", "a")),
    ]
    asked = []
    with pytest.raises(BrokenPromiseError) as caught:
        run(checks, asked, "thing", ())
    assert asked == ["a", "b", "c", "f"]
    assert caught.value.unjudged == ("d", "e", "g")
    assert str(caught.value) == (
        "thing must keep its promises, got 2 of 7 broken\n"
        "  b: b is broken\n"
        "  f: it raised KeyError: 'why'\n"
        "  not judged, because of these: d, e, g"
    )
    for skip in ("b", ["b"], {"b"}):
        asked.clear()
        with pytest.raises(BrokenPromiseError, match=r"1 of 7 broken\n  f: .*\n  not .*: g$"):
            run(checks, asked, "thing", skip)
        assert asked == ["a", "c", "d", "e", "f"]
    run(checks, asked, "thing", ("b", "f"))
    with pytest.raises(BrokenPromiseError) as caught:
        run(checks[:2], asked, "thing", ())
    assert str(caught.value).splitlines()[1:] == ["  b: b is broken"]


@pytest.mark.parametrize(
    ("example", "text"),
    [
        (torch.tensor([[1.0, 2.0]], requires_grad=True), "[[1.0, 2.0]] in torch.float32"),
        (torch.arange(12), f"{[*range(12)]} in torch.int64"),
        (torch.arange(13), "shape (13,), torch.int64 in [0, 12]"),
        (torch.linspace(-0.5, 2, 20).view(4, 5), "shape (4, 5), torch.float32 in [-0.5, 2]"),
        (torch.full((4, 5), 0.25), "shape (4, 5), torch.float32, every value 0.25"),
        (torch.tensor([float("nan")] * 9 + [1.0] * 9), "shape (18,), torch.float32"),
    ],
)
def test_small_examples_are_shown_in_full_and_large_ones_by_their_range(example, text):
    assert shown(example) == text
    assert str(BrokenPromise("a", "b", example)) == f"a: b\n    example: {text}"


def test_the_smallest_example_is_the_first_row_or_pair_that_shows_it():
    points = torch.arange(5.0)[:, None]
    assert smallest(points, lambda rows: bool((rows == 2).any())).tolist() == [[2.0]]
    pair = smallest(points, lambda rows: len(rows) > 1 and bool((rows == 3).any()))
    assert pair.tolist() == [[0.0], [3.0]]
    assert torch.equal(smallest(points, lambda rows: len(rows) > 2), points)


# --- functions at their edge


def _scaled(factor):
    return lambda z, t: torch.softmax(z / t, dim=1) * factor


def test_a_softmax_is_judged_up_to_rounding():
    check_softmax(_scaled(1 + 5e-7))
    found, _ = errors(check_softmax, _scaled(1 + 1.5e-6), skip=("gradient", "limits"))
    assert found == {"sums-to-one": "function must return rows that sum to 1 at T = 0.1"}


def _mixed(function, *changed):
    """A softmax that another function answers for at some temperatures."""
    return lambda z, t: function(z, t) if t in changed else torch.softmax(z / t, dim=1)


@pytest.mark.parametrize("t", [0.1, 20.0, 100.0])
def test_a_softmax_is_asked_at_four_temperatures(t):
    skip = ("limits", "order", "gradient")
    found, _ = errors(check_softmax, _mixed(lambda z, t: 0 * z, t), skip=skip)
    assert found["sums-to-one"].endswith(f"at T = {t}")
    found, _ = errors(check_softmax, _mixed(lambda z, t: z.softmax(1), t), skip=skip)
    assert found == {
        "temperature": f"function must return at T = {t} what it returns for logits / T at T = 1"
    }


@pytest.mark.parametrize(
    ("t", "shift", "kept"), [(1e6, 9e-5, True), (1e6, 1.1e-4, False), (1e6, -1.1e-4, False),
                             (1e-3, 9e-3, True), (1e-3, 1.1e-2, False)],
)  # fmt: skip
def test_the_limits_of_a_softmax_are_reached_but_for_little(t, shift, kept):
    def off(z, t):
        found = torch.softmax(z / t, dim=1)
        if t > 1:
            return found + shift * nn.functional.one_hot(torch.tensor(2), 5)
        return found * (1 - shift)

    function = _mixed(off, t)
    skip = ("sums-to-one", "gradient")
    if kept:
        check_softmax(function, skip=skip)
    else:
        found, _ = errors(check_softmax, function, skip=skip)
        end = "uniform as T grows" if t > 1 else "one-hot as T falls"
        assert found == {"limits": f"function must tend to {end}"}


def test_a_loss_depends_on_its_labels_and_on_its_logits():
    skip = ("shift", "gradient")
    found, _ = errors(check_loss, lambda z, y: y + 0.0 * z.sum(dim=1), skip=skip)
    assert found == {
        "depends": "function must depend on its logits, got the same values for other logits"
    }
    found, _ = errors(check_loss, lambda z, y: z[:, 0], skip=skip)
    assert found == {
        "depends": "function must depend on its labels, got the same values for other labels"
    }


# --- strategies


def _drawn(strategy, count=150):
    found = []

    @settings(max_examples=count, derandomize=True, database=None, deadline=None)
    @given(strategy)
    def collect(value):
        found.append(value)

    collect()
    return found


@pytest.mark.parametrize(
    ("strategy", "shape", "simplest"),
    [
        (strategies.logits(), (4, 6), (1, 2)),
        (strategies.logits(2, 3, size=1.0), (2, 3), (1, 2)),
        (strategies.soft_labels(), (4, 6), (1, 2)),
        (strategies.soft_labels(2, 3), (2, 3), (1, 2)),
        (strategies.inputs(max_examples=2), (2, 1, 4, 4), (1, 1, 4, 4)),
        (strategies.inputs((2,), max_examples=3), (3, 2), (1, 2)),
        (strategies.masks(), (1, 4, 4), (1, 4, 4)),
        (strategies.labels(3, 4), (3,), (3,)),
    ],
)
def test_sizes_are_drawn_from_the_simplest_to_the_largest(strategy, shape, simplest):
    shapes = {tuple(each.shape) for each in _drawn(strategy, 60)}
    assert tuple(map(max, zip(*shapes, strict=True))) == shape
    assert tuple(map(min, zip(*shapes, strict=True))) == simplest
    assert find(strategy, lambda value: True).shape == simplest


def test_values_are_drawn_up_to_their_bounds_and_not_beyond():
    logits = torch.stack(_drawn(strategies.logits(1, 2, size=8.0)))
    assert (logits.min(), logits.max()) == (-8, 8)
    assert (logits % 1 != 0).any()
    assert (logits % 1 == 0).any(dim=0).all()
    assert 5e3 < max(each.abs().max() for each in _drawn(strategies.logits(1, 2))) <= 1e4
    warm = _drawn(strategies.temperatures(0.5, 3.0))
    assert 0.5 <= min(warm) < 0.75 < 2.75 < max(warm) <= 3
    assert {1.0, 2.0} < set(warm)
    wide = _drawn(strategies.temperatures())
    assert 0.05 <= min(wide) < 0.2
    assert {1.0, 2.0, 20.0, 100.0} < set(wide)
    assert max(wide) == 100
    assert find(strategies.temperatures(3.0, 4.0), lambda t: True) == 3.0
    assert find(strategies.temperatures(2.0, 4.0), lambda t: True) == 2.0
    assert find(strategies.temperatures(0.5, 1.0), lambda t: True) == 1.0
    inputs = {each.item() for each in _drawn(strategies.inputs((1,), 1))}
    assert {0.0, 0.5, 1.0} < inputs
    assert 0 == min(inputs) < max(inputs) == 1
    labels = torch.stack(_drawn(strategies.labels(3, 4), 100))
    assert (labels.dtype, labels.unique().tolist()) == (torch.int64, [0, 1, 2, 3])
    bounds = _drawn(strategies.bounds(), 500)
    assert {(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)} < set(bounds)
    rest = [pair for pair in bounds if pair[1] < 255]
    assert {low for low, _ in rest} == {float(n) for n in range(-10, 11)}
    assert {high - low for low, high in rest} == {float(n) for n in range(1, 11)}
    balls = _drawn(strategies.norm_balls(0.5))
    assert {ball.norm for ball in balls} == {"linf", "l2", "l1"}
    radii = [ball.epsilon for ball in balls]
    assert 5e-4 <= min(radii) < 0.05 < max(radii) == 0.5
    assert balls[0]._asdict().keys() == {"norm", "epsilon"}
    masks = torch.stack(_drawn(strategies.masks((3,)), 100))
    assert len(masks.unique(dim=0)) == 7


def test_soft_labels_are_weights_over_their_sum_and_uniform_without_any():
    rows = torch.tensor([[0.0, 0.0], [1.0, 3.0], [0.0, 0.5]])
    expected = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.0, 0.5]])
    torch.testing.assert_close(strategies._normalised(rows), expected)
    drawn = _drawn(strategies.soft_labels(1, 3), 100)
    assert any((each == 0).any() for each in drawn)
    assert len({each.max().item() for each in drawn}) > 10


def test_a_residual_part_adds_its_input():
    part = strategies.Residual(nn.Linear(2, 2))
    inputs = torch.rand(3, 2)
    torch.testing.assert_close(part(inputs), inputs + part.network(inputs))


def test_networks_of_every_kind_and_depth_are_built_alike_from_one_seed():
    torch.manual_seed(5)
    shape, images, flat = (2, 5, 5), [*strategies._image_layers(1)], [*strategies._flat_layers(1)]
    pools = ["AvgPool2d", "MaxPool2d"]
    for names, numbers in ((images, flat), (pools, []), ([], flat), ([], [])):
        state = torch.get_rng_state()
        one, again = (strategies._built(shape, 3, names, numbers, 4, 7) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
        other = strategies._built(shape, 3, names, numbers, 4, 8)
        assert torch.is_grad_enabled()
        assert one.training
        inputs = torch.rand(3, *shape)
        found = one.eval()(inputs)
        assert found.shape == (3, 3)
        assert torch.equal(found, again.eval()(inputs))
        assert not torch.allclose(found, other.eval()(inputs))
        told = [type(each).__name__ for each in one]
        head = ["Conv2d", *names] if names else []
        tail = ["Linear", *numbers] if numbers else []
        assert told == [*head, "Flatten", *tail, "Linear"]
        assert all(each.out_channels == 4 for each in one.modules() if isinstance(each, nn.Conv2d))


def test_pooling_is_by_two_and_takes_one_off_each_side():
    layers = strategies._image_layers(1)
    image = torch.arange(9.0).view(1, 1, 3, 3)
    assert layers["MaxPool2d"]()(image).tolist() == [[[[4.0, 5.0], [7.0, 8.0]]]]
    assert layers["AvgPool2d"]()(image).tolist() == [[[[2.0, 3.0], [5.0, 6.0]]]]
    for name, make in strategies._image_layers(6).items():
        size = {"MaxPool2d": 2, "AvgPool2d": 2}.get(name, 3)
        assert make()(torch.rand(2, 6, 3, 3)).shape == (2, 6, size, size)


def test_a_network_has_at_most_so_many_layers_and_as_many_poolings_as_the_image_has_room_for():
    before, after, widths = set(), set(), set()
    for network in _drawn(strategies.networks((1, 3, 3), n_classes=5, max_layers=3), 120):
        kinds = [type(each).__name__ for each in network]
        flatten = kinds.index("Flatten")
        before.add(flatten)
        after.add(len(kinds) - flatten - 1)
        widths |= {network[0].out_channels} if flatten else set()
        assert network[-1].out_features == 5
    # The first convolution and up to two others; up to three between the two linear ones.
    assert (before, after, widths) == ({0, 2, 3}, {1, 3, 4, 5}, {2, 3, 4, 5, 6})


def test_promises_of_a_module_stay_out_of_reach_of_each_other():
    names = [each.promise for each in _attacks.CHECKS]
    for check, name in itertools.product(_attacks.CHECKS, names):
        if name in check.needs:
            assert names.index(name) < names.index(check.promise)
    assert _promises.first(torch.tensor([False, False, True, True])) == 2
