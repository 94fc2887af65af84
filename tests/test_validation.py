"""Errors at the public boundary: ``<argument> must <rule>, got <value>``, word for word."""

import inspect
import math
import re
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distillguard import _validation as check
from distillguard import attacks, defenses, estimators, functional
from distillguard._boxes import ROUNDINGS, hold_within
from distillguard.attacks import deepfool, fgsm, pgd
from distillguard.exceptions import NoGradientError

UNIT = (0.0, 1.0)


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


def model(inputs: Tensor) -> Tensor:
    return torch.stack([inputs.flatten(1).sum(dim=1), 3 - inputs.flatten(1).sum(dim=1)], dim=1)


INPUTS, LABELS = torch.full((2, 4), 0.25), torch.tensor([0, 1])


# Numbers and choices.


@pytest.mark.parametrize(
    ("function", "value", "rule"),
    [
        (check.check_positive, 0, "a finite number above 0"),
        (check.check_positive, -1.5, "a finite number above 0"),
        (check.check_positive, math.nan, "a finite number above 0"),
        (check.check_positive, math.inf, "a finite number above 0"),
        (check.check_not_negative, -1e-9, "a finite number of at least 0"),
        (check.check_not_negative, math.nan, "a finite number of at least 0"),
        (check.check_in_unit_interval, 1.01, "in [0, 1]"),
        (check.check_in_unit_interval, -0.01, "in [0, 1]"),
        (check.check_in_unit_interval, math.nan, "in [0, 1]"),
        (partial(check.check_at_least, least=1), 0, "at least 1"),
        (partial(check.check_choice, choices=("a", "b")), "c", "one of 'a', 'b'"),
    ],
)
def test_a_value_against_its_rule_is_named_with_the_rule(function, value, rule):
    with pytest.raises(ValueError, match=exactly(f"size must be {rule}, got {value!r}")):
        function("size", value)


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (check.check_positive, "a number"),
        (check.check_not_negative, "a number"),
        (check.check_in_unit_interval, "a number"),
        (partial(check.check_at_least, least=1), "an integer"),
    ],
)
@pytest.mark.parametrize("value", ["1", None, True, [1]])
def test_a_value_of_another_type_is_named_with_the_type_wanted(function, rule, value):
    with pytest.raises(TypeError, match=exactly(f"size must be {rule}, got {value!r}")):
        function("size", value)


def test_a_fraction_is_no_count():
    with pytest.raises(TypeError, match=exactly("steps must be an integer, got 2.0")):
        check.check_at_least("steps", 2.0, 1)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(1)])
def test_numbers_of_numpy_are_numbers(value):
    check.check_positive("size", value)
    check.check_in_unit_interval("size", value)


def test_limits_themselves_are_allowed():
    check.check_in_unit_interval("weight", 0)
    check.check_in_unit_interval("weight", 1)
    check.check_not_negative("momentum", 0.0)
    check.check_at_least("steps", np.int64(1), 1)
    check.check_random_state(0)
    check.check_random_state(None)


# Inputs, bounds and labels.


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            [[0.5]],
            TypeError,
            "inputs must be a torch.Tensor, got list; write torch.as_tensor(inputs)",
        ),
        (
            np.zeros((2, 3)),
            TypeError,
            "inputs must be a torch.Tensor, got ndarray; write torch.as_tensor(inputs)",
        ),
        (
            torch.zeros(2, 3).to_sparse(),
            TypeError,
            "inputs must be dense, got a sparse tensor; write inputs.to_dense()",
        ),
        (
            torch.zeros(2, 3, dtype=torch.uint8),
            TypeError,
            "inputs must be floating point, got torch.uint8; "
            "for images stored as integers use inputs.float() / 255",
        ),
        (
            torch.zeros(3),
            ValueError,
            "inputs must have shape (n, ...) with at least two axes, got (3,)",
        ),
        (torch.tensor([[0.5, math.nan]]), ValueError, "inputs must be finite, got NaN or infinity"),
        (torch.tensor([[math.inf, 0.5]]), ValueError, "inputs must be finite, got NaN or infinity"),
        (
            torch.tensor([[0.0, 255.0]]),
            ValueError,
            "inputs must be within bounds (0.0, 1.0), got values in [0, 255]; "
            "for images stored as 0 to 255 write inputs / 255",
        ),
        (
            torch.tensor([[-0.5, 2.25]]),
            ValueError,
            "inputs must be within bounds (0.0, 1.0), got values in [-0.5, 2.25]; if they are "
            "normalised by mean and standard deviation, pass raw inputs and "
            "networks.Normalized(model, mean, std), or bounds=((0 - mean) / std, (1 - mean) / std)",
        ),
        (
            torch.tensor([[0.0, 300.0]]),
            ValueError,
            "inputs must be within bounds (0.0, 1.0), got values in [0, 300]",
        ),
    ],
)
def test_inputs_that_are_no_examples_get_told_why(inputs, error, message):
    with pytest.raises(error, match=exactly(message)):
        fgsm(model, inputs, LABELS, epsilon=0.1)


def test_hints_are_kept_for_the_usual_bounds():
    message = "inputs must be within bounds (-1.0, 1.0), got values in [-2, 2]"
    with pytest.raises(ValueError, match=exactly(message)):
        hold_within("inputs", torch.tensor([[-2.0, 2.0]]), (-1.0, 1.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("limit", [0.1, 0.3, 0.7, 2.1])
def test_inputs_may_lie_on_a_bound_that_their_dtype_rounds(dtype, limit):
    inputs = torch.tensor([[-limit, limit]], dtype=dtype)
    assert hold_within("inputs", inputs, (-limit, limit)) is inputs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_inputs_may_exceed_a_bound_by_rounding_and_are_put_on_it(dtype):
    unit = torch.finfo(dtype).eps
    beyond = torch.tensor([[1 + ROUNDINGS * unit, -ROUNDINGS * unit, 0.5]], dtype=dtype)
    assert hold_within("inputs", beyond, UNIT).tolist() == [[1.0, 0.0, 0.5]]
    beyond[0, 0] += unit
    with pytest.raises(ValueError, match=r"^inputs must be within bounds \(0.0, 1.0\), got"):
        hold_within("inputs", beyond, UNIT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_extremes_that_a_refusal_prints_are_bounds_that_work(dtype):
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.randn(50, 7, generator=generator, dtype=torch.float64) * 3).to(dtype)
    with pytest.raises(ValueError, match=r"got values in \[") as caught:
        hold_within("inputs", inputs, UNIT)
    printed = re.search(r"got values in \[(.*?), (.*?)\]", str(caught.value)).groups()
    bounds = tuple(map(float, printed))
    assert hold_within("inputs", inputs, bounds) is inputs


def test_an_attack_puts_what_exceeds_the_bounds_by_rounding_on_them():
    inputs = torch.tensor([[1 + 2e-7, 0.25, 0.25, 0.25], [-1e-7, 0.25, 0.25, 0.25]])
    adversarial = fgsm(model, inputs, LABELS, epsilon=0.1)
    assert ((adversarial >= 0) & (adversarial <= 1)).all()
    nearest = deepfool(lambda x: torch.stack([x[:, 0] * 0 + 9, x[:, 0]], dim=1), inputs, LABELS * 0)
    assert nearest.tolist() == inputs.clamp(0, 1).tolist()


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        (1.0, TypeError, "bounds must be a pair (low, high), got 1.0"),
        ((0.0, 0.5, 1.0), TypeError, "bounds must be a pair (low, high), got (0.0, 0.5, 1.0)"),
        (("0", "1"), TypeError, "bounds must be a number or a tensor, got '0'"),
        ((1.0, 0.0), ValueError, "bounds must be finite with low below high, got (1.0, 0.0)"),
        ((0.0, 0.0), ValueError, "bounds must be finite with low below high, got (0.0, 0.0)"),
        (
            (0.0, math.inf),
            ValueError,
            "bounds must be finite with low below high, got (0.0, inf)",
        ),
    ],
)
def test_bounds_are_two_finite_numbers_in_order(bounds, error, message):
    with pytest.raises(error, match=exactly(message)):
        fgsm(model, INPUTS, LABELS, epsilon=0.1, bounds=bounds)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            [0, 1],
            TypeError,
            "labels must be a torch.Tensor, got list; write torch.as_tensor(labels)",
        ),
        (
            LABELS.int(),
            TypeError,
            "labels must have dtype torch.int64, got torch.int32; write labels.long()",
        ),
        (
            LABELS.double(),
            TypeError,
            "labels must have dtype torch.int64, got torch.float64; write labels.long()",
        ),
        (
            LABELS[:1],
            ValueError,
            "labels must have shape (2,), one class per input, got (1,)",
        ),
        (
            LABELS[:, None],
            ValueError,
            "labels must have shape (2,), one class per input, got (2, 1); write labels[:, 0]",
        ),
        (
            torch.tensor([0, 2]),
            ValueError,
            "labels must be classes from 0 to 1, got values in [0, 2]",
        ),
        (
            torch.tensor([-1, 1]),
            ValueError,
            "labels must be classes from 0 to 1, got values in [-1, 1]; write (labels + 1) // 2",
        ),
    ],
)
def test_labels_that_are_no_classes_get_told_why(labels, error, message):
    with pytest.raises(error, match=exactly(message)):
        fgsm(model, INPUTS, labels, epsilon=0.1)


# Settings of the attacks.


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epsilon": 0}, ValueError, "epsilon must be a finite number above 0, got 0"),
        ({"epsilon": "1"}, TypeError, "epsilon must be a number, got '1'"),
        (
            {"epsilon": Fraction(1, 10)},
            TypeError,
            "epsilon must be a number, got Fraction(1, 10); write float(epsilon)",
        ),
        (
            {"epsilon": torch.tensor(0.5)},
            TypeError,
            "epsilon must be a number, got tensor(0.5000); write epsilon.item()",
        ),
        (
            {"norm": "l3"},
            ValueError,
            "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'l3'",
        ),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 1.5}, TypeError, "steps must be an integer, got 1.5"),
        ({"restarts": 0}, ValueError, "restarts must be at least 1, got 0"),
        ({"step_size": -1.0}, ValueError, "step_size must be a finite number above 0, got -1.0"),
        (
            {"momentum": -1.0},
            ValueError,
            "momentum must be a finite number of at least 0, got -1.0",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"random_state": -1}, ValueError, "random_state must be at least 0, got -1"),
        ({"random_state": 0.5}, TypeError, "random_state must be an integer, got 0.5"),
        (
            {"random_start": "stripes"},
            ValueError,
            "random_start must be one of True, False, 'blocks', got 'stripes'",
        ),
        (
            {"restarts": 2, "random_start": False},
            ValueError,
            "restarts must be 1 without random_start, got 2",
        ),
        (
            {"restarts": 2, "judge_last": False},
            ValueError,
            "restarts must be 1 without judge_last, got 2",
        ),
        (
            {"loss": "hinge"},
            ValueError,
            "loss must be one of 'cross_entropy', 'margin', 'dlr', 'rescaled_cross_entropy', "
            "got 'hinge'",
        ),
        ({"loss": 3}, TypeError, "loss must be a name or a callable, got 3"),
        (
            {"loss": nn.CrossEntropyLoss()},
            ValueError,
            "loss must return one value per example, shape (2,), got ()",
        ),
        (
            {"loss": lambda logits, labels: 1.0},
            ValueError,
            "loss must return one value per example, shape (2,), got float",
        ),
    ],
)
def test_settings_of_pgd_against_their_rules(settings, error, message):
    with pytest.raises(error, match=exactly(message)):
        pgd(model, INPUTS, LABELS, **{"epsilon": 0.1, **settings})


# What a model may return.


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (
            lambda x: [x],
            TypeError,
            "model must return a torch.Tensor of logits, got list of 1 item: Tensor (2, 4); "
            "wrap it: networks.Logits(model, 0)",
        ),
        (
            lambda x: x.sum(dim=1),
            ValueError,
            "model must return logits of shape (2, n_classes) with at least two classes, "
            "got (2,); remove the final sigmoid if it has one, then wrap it: "
            "networks.Logits(model), which makes the pair (0, z) of one logit z",
        ),
        (
            lambda x: x[:, :1],
            ValueError,
            "model must return logits of shape (2, n_classes) with at least two classes, "
            "got (2, 1); remove the final sigmoid if it has one, then wrap it: "
            "networks.Logits(model), which makes the pair (0, z) of one logit z",
        ),
        (
            lambda x: x[:1],
            ValueError,
            "model must return logits of shape (2, n_classes) with at least two classes, "
            "got (1, 4); look for a view or reshape that mixes examples",
        ),
        (
            lambda x: x.argsort(dim=1),
            TypeError,
            "model must return floating point logits, got torch.int64",
        ),
        (lambda x: x / 0, ValueError, "model must return finite logits, got NaN or infinity"),
        (
            lambda x: (x + 1e6 * torch.eye(4)[0]).softmax(dim=1).log(),
            ValueError,
            "model must return finite logits, got -infinity, such as the logarithm of a "
            "probability of 0; return what goes into the softmax, or its log_softmax",
        ),
        (
            lambda x: x.softmax(dim=1),
            ValueError,
            "model must return logits, got rows in [0, 1] that sum to 1; remove the final softmax "
            "(gradients through it vanish and attacks then mislead)",
        ),
    ],
)
def test_an_output_that_is_no_logits_gets_told_why(output, error, message):
    with pytest.raises(error, match=exactly(message)):
        fgsm(output, INPUTS, LABELS, epsilon=0.1)


WEIGHT = torch.ones(4, 3, requires_grad=True)


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(lambda x: 5 * x.detach(), id="detached"),
        pytest.param(lambda x: torch.from_numpy(5 * x.detach().numpy()), id="numpy"),
        pytest.param(lambda x: x.detach() @ WEIGHT, id="a graph that leads elsewhere"),
    ],
)
def test_a_graph_that_does_not_reach_the_input_gets_told_where_to_look(output):
    message = (
        "model must be differentiable with respect to its input, got an output without a graph; "
        "look for detach(), no_grad(), NumPy or argmax inside its forward, or use an attack that "
        "needs no gradients"
    )
    with pytest.raises(NoGradientError, match=exactly(message)):
        fgsm(output, INPUTS, LABELS, epsilon=0.1)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], True),
        ([[0.25, 0.75 + 1e-4], [1.0, 0.0]], False),
        ([[0.25, 0.75], [1.5, -0.5]], False),
        ([[0.25, 0.75], [0.5, 0.1]], False),
    ],
)
def test_probabilities_are_told_by_every_row(rows, verdict):
    assert check.look_like_probabilities(torch.tensor(rows)) is verdict


def test_no_rows_do_not_look_like_probabilities():
    assert not check.look_like_probabilities(torch.zeros(0, 3))


def numbers(function):
    """Arguments that are numbers, by their annotations."""
    for parameter in inspect.signature(function).parameters.values():
        if {"int", "float"} & {*inspect.formatannotation(parameter.annotation).split(" | ")}:
            yield parameter.name


def linear(input_shape, n_classes):
    return nn.Linear(*input_shape, n_classes)


def assert_refused_by_name(name, call):
    for wrong in (math.nan, -1, "a"):
        with pytest.raises((TypeError, ValueError), match=rf"\b{name} must "):
            call({name: wrong})


@pytest.mark.parametrize("name", attacks.__all__)
def test_every_number_that_an_attack_takes_is_refused_by_its_name(name):
    attack, inputs = getattr(attacks, name), torch.rand(2, 4)
    model = nn.Linear(4, 3)
    needed = {"epsilon": 1.0} if "epsilon" in inspect.signature(attack).parameters else {}
    tested = list(numbers(attack))
    assert "batch_size" in tested
    for number in tested:
        assert_refused_by_name(
            number,
            lambda wrong: attack(model, inputs, torch.tensor([0, 1]), **(needed | wrong)),
        )


@pytest.mark.parametrize("name", [name for name in functional.__all__ if name.endswith("_loss")])
def test_every_number_that_a_loss_takes_is_refused_by_its_name(name):
    loss, logits = getattr(functional, name), torch.rand(2, 4)
    given = {
        each: torch.tensor([0, 1]) if each == "labels" else logits
        for each in inspect.signature(loss).parameters
        if each == "labels" or each.endswith("logits")
    }
    # Of those that all have to be given.
    needed = {"temperature": 1.0, "hard_label_weight": 0.5} if name == "distillation_loss" else {}
    for number in numbers(loss):
        assert_refused_by_name(number, lambda wrong: loss(**given, **(needed | wrong)))


@pytest.mark.parametrize("name", estimators.__all__)
def test_every_number_that_an_estimator_takes_is_refused_by_its_name(name):
    estimator, X, y = getattr(estimators, name), torch.rand(12, 4), torch.arange(12) % 3
    tested = {*numbers(estimator)}
    assert "max_epochs" in tested
    for number in tested:
        assert_refused_by_name(
            number,
            lambda wrong: estimator(linear, **({"max_epochs": 1} | wrong)).fit(X, y),
        )


@pytest.mark.parametrize(
    "name",
    ["JPEG", "BitDepth", "FeatureSqueezing", "GaussianNoise", "MaximumProbability", "MedianFilter",
     "RandomResizePad", "ReconstructionError", "TotalVariation"],
)  # fmt: skip
def test_every_number_that_a_defense_takes_is_refused_by_its_name(name):
    defense = getattr(defenses, name)
    for number in numbers(defense):
        assert_refused_by_name(number, lambda wrong: defense(**wrong))
