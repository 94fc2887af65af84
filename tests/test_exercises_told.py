"""What the checker asks and says: small questions answered by hand, messages word by word.

The figures are worked out by hand from the statements of the tasks, so that they judge solutions,
references and questions alike.
"""

import copy
import dataclasses
import inspect
import math
import re

import pytest
import torch
from tests.test_exercises_answers import RIGHT, _written

from distillguard import exercises
from distillguard.exercises._properties import differ, network, points
from distillguard.functional import margin_loss

TASKS = exercises.tasks()
Z2 = 1.959963984540054**2
LOG3, LOG5, LOG7 = map(math.log, (3, 5, 7))


def _none_right(n):
    """Wilson's upper end for 0 of n; n of n is its mirror."""
    return Z2 / (n + Z2)


# The right answers to the questions of a property, in their order, as far as they are worked out.
BY_HAND = {
    ("margin", "sign"): [[-1.0], [1.0], [2.0], [-1.0], [-1.0], [4.0]],
    ("dlr_loss", "agrees"): [[-2 / 3], [-2 / 3, 1.0]],
    ("dlr_loss", "range"): [[-2 / 3, 1.0]],
    ("worst_case_accuracy", "agrees"): [0.5, 0.0, 2 / 3, 0.25],
    ("wilson_interval", "agrees"): [
        (0.0, _none_right(1)),
        (1 - _none_right(1), 1.0),
        (0.0, _none_right(10)),
        (0.236593, 0.763407),
        (1 - _none_right(10), 1.0),
        (0.0, _none_right(200)),
        (0.431361, 0.568639),
        (1 - _none_right(200), 1.0),
        (0.932226, 0.963296),
    ],
    ("wilson_interval", "library"): [(0.0, _none_right(10))],
    ("fgsm_step", "agrees"): [
        [[0.375, 0.625, 0.375, 0.5]],
        [[0.0, 1.0, 0.0, 1.0]],
        [[0.25, 0.75, 0.25, 0.5]],
    ],
    ("pgd_attack", "agrees"): [
        [[0.375, 0.625, 0.375, 0.5]],
        [[0.25, 0.75, 0.25, 0.5]],
        [[0.0, 1.0, 0.0, 1.0]],
    ],
    ("entropy_at_temperature", "limits"): [[LOG5], [0.0]],
    ("to_tanh_space", "round-trip"): [[[0.0]], [[-LOG7 / 2, -LOG3 / 2, LOG3 / 2]]],
    ("next_constant", "agrees"): [
        (0.01, 0.001, math.inf),
        (0.0005, 0.0, 0.001),
        (10.0, 1.0, math.inf),
        (0.55, 0.1, 1.0),
        (5.5, 1.0, 10.0),
        (0.55, 0.1, 1.0),
        (5.5, 1.0, 10.0),
    ],
    ("saliency_pair", "agrees"): [(0, 1), (0, 1), (2, 3), (0, 3), (8, 10), (2, 7), (0, 2)],
    ("straight_through", "values"): [
        [[0.25, 0.5]],
        [[0.25, 0.5], [1.0, 0.0]],
        [[0.09, 0.36], [0.81, 0.01]],
    ],
    ("compute_optimal_size", "agrees"): [10.0, 20.0, 3 ** (4 / 3) * (1e6 / 6) ** (1 / 3)],
    ("detector_threshold", "agrees"): [8.0, 5.0],
    ("answer_or_reject", "agrees"): [[-1], [-1, 2, 1], [-1, -1, -1]],
    ("stopped_first", "agrees"): [[2], [2, 1], [2, 1, 1], [3, 1, 0]],
    ("zero_gradient_share", "agrees"): [1.0, 0.0, 0.5, 0.0, 0.0],
}


def _property(task, name):
    return next(each for each in TASKS[task].properties if each.name == name)


@pytest.mark.parametrize(("task", "name"), BY_HAND, ids=" ".join)
def test_solutions_and_other_right_answers_give_what_is_worked_out_by_hand(task, name):
    expected = BY_HAND[task, name]
    for answer in (TASKS[task].answer, RIGHT[task]):
        cases = [copy.deepcopy(case) for case in _property(task, name).cases()]
        given = [_arguments(task, case) for case in cases[: len(expected)]]
        for arguments, one in zip(given, expected, strict=True):
            found = torch.as_tensor(answer(*arguments)).detach().double()
            torch.testing.assert_close(found, torch.as_tensor(one).double(), rtol=2e-6, atol=2e-6)


def _arguments(task, case):
    """The question itself; a report's interval has the usual z."""
    return (*case, math.sqrt(Z2)) if task == "wilson_interval" and len(case) == 2 else case


FIRST_ROW = "logits = [[-4.602963209152222, "
LINE = "model = Line, inputs = [[0.5, 0.5, 0.5, 0.5]] in torch.float32, labels = [0] in torch.int64"
CORNER = "model = Line, inputs = [[0.0, 1.0, 0.0, 1.0]] in torch.float32, labels = [0] in torch."
LESSON = "temperature = 4.0, learning_rate = 2.0, steps = 1"
MIXED = (
    "correct = [[True, True, False, True], [True, False, False, True], [False, True, False, True]]"
)
SMALL = "[[0.5, 1.0, -0.5], [-1.0, -0.5, 0.25], [0.0, -0.25, 0.5]] in torch.float32, target = 0"
SCORES = "scores = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 7.0, 8.0, 6.0] in torch.float32, rate = "
ROWS = "logits = [[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 2.0]] in torch.float32, scores = "
SINGLE = "logits = [[2.0, 1.0, 0.0]] in torch.float32, scores = [0.75] in torch.float32, threshold"
QUANTISED = "layer = the function _quantised, inputs = [[0.30000001192092896, 0.6000000238418579]] "
OPTIMUM = "flops = 100.0, A = 4.0, B = 1.0, alpha = 0.5, beta = 0.5, flops_factor = 4.0"

# Task, answer as in WRONG, property, the start of the input that is shown, what is said of it.
# A star stands for any text.
TOLD = [
    # chapter 1
    ("stable_log_softmax", "logits * 0", "normalised", f"{FIRST_ROW}*, temperature = 0.1",
     "got [5.0] in torch.float64, expected [1.0] in torch.float64"),
    ("stable_log_softmax", "logits * 0 + temperature", "temperature", f"{FIRST_ROW}*, tem* = 0.1",
     "got [[0.1, 0.1, 0.1, 0.1, 0.1]] in torch.float64, expected [[1.0, 1.0, 1.0, 1.0, 1.0]] in*"),
    ("stable_log_softmax", "logits * 0 + max(temperature, 1)", "temperature",
     f"{FIRST_ROW}*, temperature = 20.0", "got [[20.0, 20.0,*expected [[1.0, 1.0,*"),
    ("stable_log_softmax", "logits", "shift", f"{FIRST_ROW}*, temperature = 0.1",
     "got [[2.39703679084777*, expected [[-4.60296320915222*"),
    ("stable_log_softmax",
     "torch.log_softmax(logits / temperature, 1) if temperature < 20 else logits * math.inf",
     "overflow", "logits = [[10000.0, -10000.0, 0.0]] in torch.float32, temperature = 20.0",
     "got [[inf, -inf, nan]] in torch.float32"),
    ("stable_log_softmax", "[0.5]", "overflow",
     "logits = [[10000.0, -10000.0, 0.0]] in torch.float32, temperature = 1.0", "got [0.5]"),
    ("entropy_at_temperature", "torch.ones(len(logits))", "limits",
     f"{FIRST_ROW}*, temperature = 1000000.0",
     "got [1.0] in torch.float32, expected [1.609437*] in torch.float32"),
    ("entropy_at_temperature", "torch.full((len(logits),), 2 * math.log(5) / 2)", "limits",
     f"{FIRST_ROW}*, temperature = 0.001", "got [1.609437*] in torch.float32, expected [0.0] in*"),
    ("entropy_at_temperature", "torch.full((len(logits),), min(temperature, 0.5))", "monotone",
     f"{FIRST_ROW}*, temperature = 0.5", "got [0.5] and [0.5] at twice T"),
    ("entropy_at_temperature", "torch.full((len(logits),), min(temperature, 20.0))", "monotone",
     f"{FIRST_ROW}*, temperature = 20.0", "got [20.0] and [20.0] at twice T"),
    ("entropy_at_temperature", "torch.tensor([temperature] + [0.0] * (len(logits) - 1))",
     "monotone", "logits = shape (6, 5), *, temperature = 4.0",
     "got [4.0, 0.0, 0.0, 0.0, 0.0, 0.0] and [8.0, 0.0, 0.0, 0.0, 0.0, 0.0] at twice T"),
    ("soft_cross_entropy", "torch.ones(len(logits)) / temperature", "minimum",
     f"{FIRST_ROW}*, temperature = 1.0", "got [1.0], and less beside it"),
    ("soft_cross_entropy", "torch.ones(len(logits))", "depends",
     "argument = 'logits', value = shape (6, 5), *, other = shape (6, 5), *",
     "got [1.0, 1.0, 1.0, 1.0, 1.0, 1.0] in torch.float32 for both"),
    ("soft_cross_entropy", "logits[:, 0]", "depends",
     "argument = 'soft_targets', value = shape (6, 5), *", "got [-4.60296*"),
    ("soft_cross_entropy", "(logits * soft_targets).sum(1)", "depends",
     "argument = 'temperature', value = 1.0, other = 20.0", "got [*] in torch.float64 for both"),
    # chapter 2
    ("soft_target_gradient", "student_logits * 0 + 1", "zero-sum",
     f"student_{FIRST_ROW}*, teacher_logits = *, t = 1.0", "got [5.0] in torch.float64, *[0.0] *"),
    ("soft_target_gradient", "student_logits * 0 + 1", "zero-at-teacher",
     f"{FIRST_ROW}*, temperature = 4.0", "got [[1.0, 1.0, 1.0, 1.0, 1.0]] in *, expected [[0.0,*"),
    ("soft_target_gradient", "student_logits * 0 + 0.0", "logit-matching",
     f"student_{FIRST_ROW}*, teacher_logits = *", "got [[0.0, 0.0, 0.0, 0.0, 0.0]] in *"),
    ("distillation_loss", "student_logits.sum(1) * 0", "gradient-size", "temperature = 20.0",
     "got a gradient 0.00 times as long at twice T"),
    ("distillation_loss", "student_logits.sum(1) * (1.25 if temperature == 40 else 1)",
     "gradient-size", "temperature = 20.0", "got a gradient 1.25 times as long at twice T"),
    ("distillation_loss", "student_logits.sum(1) * (3 if temperature == 40 else 2)",
     "gradient-size", "temperature = 20.0", "got a gradient 1.50 times as long at twice T"),
    ("distillation_loss", "torch.zeros(len(labels))", "hard-term-at-one", "temperature = 1.0",
     "got [0.0] in torch.float32, expected [7.671227*"),
    ("training_step", "weight.clone()", "descends", "weight = [[0.5, -0.25], [0.0, 1.0], *, t = "
     "2.0, rate = 0.5", "got a loss of 1.043499 after 1.043499"),
    ("training_step", "weight * 0", "descends", "weight = [[0.5, -0.25], [0.0, 1.0], *, t = 2.0, "
     "rate = 0.5", "got a loss of 1.098612 after 1.043499"),
    ("training_step", "weight.clone().requires_grad_()", "no-graph",
     "weight = [[0.5, -0.25], [0.0, 1.0], [-0.5, 0.25]] in torch.float32, inputs = [[1.0, 0.5]] in "
     "torch.float32, soft_targets = [[0.8*, 0.1*, 0.1*]] in *, temperature = 2.0, learning_rate = "
     "0.5", "got a result that carries the graph of the step"),
    # chapter 3
    ("fgsm_step", ".clamp(0, 1)", ".clamp(max=1)", "bounds", f"{CORNER}int64, epsilon = 0.125",
     "got values from -0.125 to 1"),
    ("fgsm_step", ".clamp(0, 1)", ".clamp(min=0)", "bounds", f"{CORNER}int64, epsilon = 0.125",
     "got values from 0 to 1.125"),
    ("fgsm_step", "inputs + 0.25 * torch.eye(4)[:1]", "budget", f"{LINE}, epsilon = 0.125",
     "got a point 0.25 away"),
    ("fgsm_step", "inputs.clone()", "loss-rises", f"{LINE}, epsilon = 0.25",
     "got a loss of 0.7439 after 0.7439"),
    ("fgsm_step", "inputs - epsilon * 0 + torch.tensor([-1.0, 1.0, 1.0, 0.0])", "budget",
     f"{LINE}, epsilon = 0.125", "got a point 1 away"),
    ("fgsm_step", "(inputs + 0 * epsilon).requires_grad_()", "borrowed-model",
     f"{LINE}, epsilon = 0.125", "got a result that carries a graph"),
    ("fgsm_step", "[model(inputs).sum().backward(), inputs][1]", "borrowed-model",
     f"{LINE}, epsilon = 0.125", "got gradients left in the model's parameters"),
    ("project_linf", "inputs + 1", "budget", "points = *, inputs = *, epsilon = 0.25",
     "got a point 1 away"),
    ("project_linf", "points * 0 + epsilon", "centre",
     "points = [[0.5, 0.0, 1.0]] in torch.float32, epsilon = 0.25",
     "got [[0.25, 0.25, 0.25]] in torch.float32, expected [[0.5, 0.0, 1.0]] in torch.float32"),
    ("project_l2", "inputs + 1", "budget", "points = *, inputs = *, epsilon = 0.25",
     "got a point 1.732 away"),
    ("pgd_attack", "inputs.clone()", "reach",
     f"{LINE}, epsilon = 0.25, step_size = 0.125, steps = 1",
     "got 0.0 in torch.float32, expected 0.125 in torch.float32"),
    ("pgd_attack", "inputs + step_size", "reach",
     f"{LINE}, epsilon = 0.25, step_size = 0.125, steps = 4",
     "got 0.125 in torch.float32, expected 0.25 in torch.float32"),
    ("pgd_attack", "inputs + 1", "budget", f"{LINE}, epsilon = 0.25, step_size = 0.125, steps = 1",
     "got a point 1 away"),
    ("pgd_attack", "inputs.clone()", "one-step", f"{LINE}, epsilon = 0.125",
     "got [[0.5, 0.5, 0.5, 0.5]] in *, expected [[0.375, 0.625, 0.375, 0.5]] in torch.float32"),
    # chapter 4
    ("soft_labels", "torch.full((len(inputs), 3), 0.5)", "sums-to-one",
     "teacher = Sequential, inputs = *, temperature = 1.0",
     "got [1.5] in torch.float32, expected [1.0] in torch.float32"),
    ("soft_labels", "torch.softmax(teacher(inputs), 1)", "no-graph",
     "teacher = Sequential, inputs = *, temperature = 1.0",
     "got labels that carry the teacher's graph"),
    ("soft_labels", "torch.zeros(1)", "depends", "argument = 'teacher', value = Sequential, other "
     "= Sequential", "got [0.0] in torch.float32 for both"),
    ("soft_labels", "teacher(inputs[:1] * 0)", "depends",
     "argument = 'inputs', value = shape (6, 4), *, other = shape (6, 4), *", "got *for both"),
    ("soft_labels", "teacher(inputs)", "depends",
     "argument = 'temperature', value = 5.0, other = 20.0", "got *for both"),
    ("distil_by_hand", "student", "descends", LESSON, "got a loss of 1.06108 after 1.06108"),
    ("distil_by_hand", "teacher", "returns-student", LESSON,
     "got something else than the student"),
    ("distil_by_hand", "[teacher(inputs).sum().backward(), student][1]", "teacher-kept", LESSON,
     "got gradients in the teacher"),
    ("distil_by_hand", "student", "depends", "setting = 'temperature', value = 4.0, other = 20.0",
     "got the same student for both"),
    ("distil_by_hand", "lr=learning_rate", "lr=2.0", "depends",
     "setting = 'learning_rate', value = 2.0, other = 1.0", "got the same student for both"),
    ("distil_by_hand", "range(steps)", "range(3)", "depends",
     "setting = 'steps', value = 5, other = 2", "got the same student for both"),
    ("zero_gradient_share", "0.25", "counts", "case = 0", "got 0.25, expected 1.0"),
    ("zero_gradient_share", "0.25", "grows-with-logits", "", "got 0.25 and 0.25"),
    ("zero_gradient_share", "[model(inputs).sum().backward(), 0.5][1]", "borrowed-model",
     "model = Line, inputs = [[1.0, 0.0]] in torch.float32, labels = [0] in torch.int64",
     "got gradients left in the model"),
    # chapter 5
    ("margin", "logits[:, 0] * 0", "sign", "logits = [[2.0, 1.0, 0.0]] in torch.float32, labels = "
     "[1] in torch.int64", "got [0.0]"),
    ("margin", "logits[:, 0] * 0 + 1", "scale", f"{FIRST_ROW}*, labels = [0] in torch.int64",
     "got [1.0] in torch.float64, expected [2.0] in torch.float64"),
    ("carlini_wagner_objective", "torch.ones(len(inputs))", "distance-alone",
     "adversarial = [[0.5, 0.5]] in torch.float32, inputs = [[0.5, 0.5]] in torch.float32",
     "got [1.0] in torch.float32, expected [0.0] in torch.float32"),
    ("carlini_wagner_objective", "(adversarial - inputs).flatten(1).norm(dim=1)",
     "distance-alone", "adversarial = [[1.0, 0.5]] in torch.float32, inputs = [[0.5, 0.25]] in *",
     "got [0.55901*] in torch.float32, expected [0.3125] in torch.float32"),
    ("carlini_wagner_objective", "torch.ones(len(inputs))", "confidence", "confidence = 0.0",
     "got [1.0] in torch.float32, expected [-0.0]"),
    ("carlini_wagner_objective", "torch.zeros(len(inputs))", "confidence", "confidence = 5.0",
     "got [0.0] in torch.float32, expected [-5.0]"),
    ("carlini_wagner_objective", "torch.full((len(inputs),), max(-confidence, -5.0))",
     "confidence", "confidence = 40.0", "got [-5.0] in torch.float32, expected [-40.0]"),
    ("to_tanh_space", "torch.where(inputs == 0.75, 20.0, torch.atanh((2 * inputs - 1) * 0.999))",
     "can-move", "inputs = [[0.125, 0.25, 0.75]] in torch.float32",
     "got slopes [[0.219*, 0.375*, 0.0]]"),
    ("to_tanh_space", "torch.where(inputs == 0.5, math.inf, inputs)", "finite",
     "inputs = [[0.0, 0.5, 1.0]] in torch.float32", "got [[0.0, inf, 1.0]]"),
    ("to_tanh_space", "(inputs - 0.5).clamp(min=-0.375)", "order",
     "inputs = [[0.0, 0.125, 0.5, 0.75, 1.0]] in torch.float32",
     "got [[-0.375, -0.375, 0.0, 0.25, 0.5]]"),
    ("next_constant", "(low - 1.0, low, high)", "brackets",
     "c = 0.001, low = 0.0, high = inf, success = False", "got c = -1.0 with bounds 0.0 and inf"),
    ("next_constant", "(high + 1.0, low, high)", "brackets",
     "c = 1.0, low = 0.1, high = 10.0, success = True", "got c = 11.0 with bounds 0.1 and 10.0"),
    ("next_constant", "(c, c + 1, c)", "brackets",
     "c = 0.001, low = 0.0, high = inf, success = False", "got c = 0.001 with bounds 1.001 and *"),
    ("next_constant", "(c, 0.0, 0.5)", "converges", "threshold = 70.0", "got 0.5, expected 70.0"),
    ("next_constant", "(c, 0.0, 70.0 if success else high)", "converges", "threshold = 0.5",
     "got inf, expected 0.5"),
    ("search_over_c", "[succeeds(start), succeeds(start)] and start", "asks",
     "threshold = 0.5, start = 1.0, steps = 1", "it asked 2 times"),
    ("search_over_c", "[succeeds(2 * start) for _ in range(steps)] and start", "asks",
     "threshold = 0.5, start = 1.0, steps = 1", "it began at 2.0"),
    ("search_over_c", "[succeeds(start * 10 ** k) for k in range(steps)] and 1.0", "asks",
     "threshold = 5.0, start = 1.0, steps = 1", "got 1.0, expected inf"),
    ("search_over_c", "[c for k in range(steps) if succeeds(c := start * 10 ** k)] and start or "
     "math.inf", "asks", "threshold = 5.0, start = 1.0, steps = 4", "got 1.0, expected 10.0"),
    ("search_over_c", "1.0", "failure", "steps = 1", "got 1.0"),
    ("search_over_c", "math.inf if steps == 1 else 2.0", "failure", "steps = 9", "got 2.0"),
    ("search_over_c", "math.inf", "converges", "threshold = 0.5, steps = 30",
     "got inf, expected 0.5"),
    ("saliency_pair", "(0, jacobian.shape[1])", "pair", f"jacobian = {SMALL}", "got (0, 3)"),
    ("saliency_pair", "(-1, 1)", "pair", f"jacobian = {SMALL}", "got (-1, 1)"),
    ("saliency_pair", "(0, 2)", "signs", f"jacobian = {SMALL}",
     "got (0, 2) with alpha 0, beta -0.25"),
    ("saliency_pair", "(1, 2)", "signs", f"jacobian = {SMALL}",
     "got (1, 2) with alpha 0.5, beta 0"),
    # chapter 6
    ("dlr_loss", "logits[:, 0] * 0 - 1.5", "range", "logits = [[4.0, 2.0, 1.0, 0.0], [-1.0, -2.0, "
     "-4.0, -8.0]] in torch.float64, labels = [0, 2] in torch.int64", "got [-1.5, -1.5]"),
    ("dlr_loss", "logits[:, 0] * 0", "range", "logits = [[4.0, 2.0, 1.0, 0.0], [-1.0, -2.0, "
     "-4.0, -8.0]] in torch.float64, labels = [0, 2] in torch.int64", "got [0.0, -0.0]"),
    ("dlr_loss", "logits[:, 0]", "scale", "logits = [[4.0, 2.0, 1.0, 0.0]] in torch.float64, "
     "labels = [0] in torch.int64, factor = 20.0", "got [80.0] in *, expected [4.0] in *"),
    ("dlr_loss", "logits[:, 0].clamp(min=4.0)", "scale", "logits = [[4.0, 2.0, 1.0, 0.0]] in *, "
     "labels = [0] in torch.int64, factor = 20.0", "got [80.0] in *, expected [4.0] in *"),
    ("dlr_loss", "logits[:, 0].clamp(max=4.0)", "scale", "logits = [[4.0, 2.0, 1.0, 0.0]] in *, "
     "labels = [0] in torch.int64, factor = 0.125", "got [0.5] in *, expected [4.0] in *"),
    ("worst_case_accuracy", "correct.double().mean().item()", "strongest", MIXED,
     "got 0.5833333333333334, above the strongest attack's 0.5"),
    ("worst_case_accuracy", "correct[0].double().mean().item()", "order", MIXED,
     "got 0.5, expected 0.75"),
    ("worst_case_accuracy", "1.0", "another", "correct = [[True, False]] in torch.bool",
     "got 1.0, expected 0.0"),
    ("wilson_interval", "(0.25, 0.25)", "range", "count = 0, n = 1, z = 1.959963984540054",
     "got (0.25, 0.25)"),
    ("wilson_interval", "(0.0, 0.5)", "mirror", "count = 0, n = 1, z = 1.959963984540054",
     "got 0.0, expected 0.5"),
    ("wilson_interval", "(0.0, 8.0 if n < 5000 else 1.0)", "width", "share = 0.5, n = 100",
     "got an interval 8 times as wide"),
    ("wilson_interval", "(0.0, 12.0 if n < 5000 else 1.0)", "width", "share = 0.5, n = 100",
     "got an interval 12 times as wide"),
    ("wilson_interval", "(count / n, count / n + 3 / n)", "width", "share = 0.5, n = 100",
     "got an interval 100 times as wide"),
    ("wilson_interval", "(0.0, 0.2775327998628892)", "library", "count = 95, n = 200",
     "got 0.0, expected 0.4069*"),
    ("straight_through", "function(inputs).detach()", "identity-gradient", QUANTISED,
     "got a result without a gradient"),
    ("straight_through", "2 * inputs", "identity-gradient", QUANTISED,
     "got [[2.0, 4.0]] in torch.float32, expected [[1.0, 2.0]] in torch.float32"),
    ("straight_through", "[function(inputs), function(inputs)][1]", "asked-once", QUANTISED,
     "it called the function 2 times"),
    ("averaged_gradient", "torch.zeros(3)", "expectation", "noise = 0.0, draws = 3",
     "got shape (3,)"),
    ("averaged_gradient", "torch.zeros(2, 3)", "expectation", "noise = 0.0, draws = 3",
     "got a gradient 3 away from the mean's"),
    ("averaged_gradient", "loss(inputs) * 0", "draws", "draws = 10", "it drew 1 times"),
    ("averaged_gradient", "torch.tensor([[1.0, 2.0, 3.3]]).expand(2, 3)", "expectation",
     "noise = 0.0, draws = 3", "got a gradient 0.3 away from the mean's"),
    ("averaged_gradient", "torch.tensor([[1.0, 2.0, 3.0]]).expand(2, 3) + (draws > 9) * 0.3",
     "expectation", "noise = 1.0, draws = 400", "got a gradient 0.3 away from the mean's"),
    ("averaged_gradient", "inputs * 2", "no-graph", "draws = 2",
     "got a result that carries a graph"),
    # chapters 7 and 8
    ("trades_loss", "torch.zeros(len(labels))", "no-attack", "logits = [[-4.6029*, labels = [0] *",
     "got [0.0] in torch.float32, expected [7.671227*"),
    ("trades_loss", "torch.zeros(len(labels))", "not-negative",
     "clean_logits = [[-4.6029*, adversarial_logits = *", "got a negative divergence"),
    ("adversarial_training_step", "attack(model, inputs, labels)",
     "attack(model, inputs, 1 - labels)", "attacks", "", "the attack was called so: [False]"),
    ("adversarial_training_step", "attack(model, inputs, labels)",
     "[attack(model, inputs, labels) for _ in range(2)][1]", "attacks", "",
     "the attack was called so: [True, True]"),
    ("adversarial_training_step", "None", "descends", "learning_rate = 0.5",
     "got a loss of 0.5656 after 0.5656"),
    ("power_law", "(2.0, 0.25)", "exact", "a = 2.0, b = 0.5", "got 0.25, expected 0.5"),
    ("power_law", "(3.0, 0.5)", "units", "factor = 0.001", "got 3.0, expected 0.094868*"),
    ("power_law", "(2.0, 0.0)", "scale", "factor = 2.0", "got 2.0, expected 4.0"),
    ("compute_optimal_size", "10.0", "exponent", "flops = 100.0, A = 1.0, B = 1.0, alpha = 0.5, "
     "beta = 0.5, flops_factor = 1.0", "got 0.0, expected 0.5"),
    ("compute_optimal_size", "10.0", "optimal", OPTIMUM,
     "got 10; 1.01 times as many parameters lose less"),
    ("compute_optimal_size", "19.9 if A == 4 else math.sqrt(flops)", "optimal", OPTIMUM,
     "got 19.9; 1.01 times as many parameters lose less"),
    ("compute_optimal_size", "20.3 if A == 4 else math.sqrt(flops)", "optimal", OPTIMUM,
     "got 20.3; 0.99 times as many parameters lose less"),
    ("compute_optimal_size", "1000.0 if A == 4 else math.sqrt(flops)", "optimal", OPTIMUM,
     "got 1000; 0.5 times as many parameters lose less"),
    ("compute_optimal_size", "10.0", "agrees", OPTIMUM, "got 0.5 times the library's"),
    # chapter 9
    ("detector_threshold", "1.0 + 0 * rate", "false-positives", f"{SCORES}0.2",
     "got 0.889 of the clean examples above it"),
    ("detector_threshold", "1.0 + 0 * rate", "further-example", "rate = 0.2, n = 9",
     "got 0.9 of left-out clean examples above it"),
    ("detector_threshold", "9.0 + 0 * rate", "not-idle", f"{SCORES}0.2",
     "got a threshold that no clean score exceeds: it was too careful"),
    ("detector_threshold", "9.0 + 0 * rate", "units", f"{SCORES}0.2", "got 9.0, expected 28.0"),
    ("detector_threshold", "scores[0].item()", "order", f"{SCORES}0.2", "got 6.0, expected 5.0"),
    ("detector_threshold", "8.0 - 6 * (rate - 0.2)", "agrees", f"{SCORES}0.5",
     "got 6.2, expected 5.0"),
    ("answer_or_reject", "logits.argmax(dim=1)", "low-threshold", f"{SINGLE} = 0.5",
     "got [0] in torch.int64, expected [-1] in torch.int64"),
    ("answer_or_reject", "logits.argmax(dim=1) * 0 - 1", "infinite-threshold", f"{SINGLE} = 0.5",
     "got [-1] in torch.int64, expected [0] in torch.int64"),
    ("answer_or_reject", "logits.argmax(dim=1) * 0 - 1", "equal", "threshold = 0.5",
     "got [-1] in torch.int64, expected [1]"),
    ("answer_or_reject", "logits.argmax(dim=1) * 0 - 1", "agrees",
     f"{ROWS}[0.75, 0.25, 0.5] in torch.float32, threshold = 0.5",
     "got [-1, -1, -1] in torch.int64, expected [-1, 2, 1] in torch.int64"),
    ("answer_or_reject", "logits[:, 0]", "whole-numbers", f"{SINGLE} = 0.5", "got torch.float32"),
    ("stopped_first", "stops.sum(dim=1)", "adds-up", "stops = [[True, False, False, True, False], "
     "[True, True, False, False, False]] in torch.bool",
     "got 4 in torch.int64, expected 3 in torch.int64"),
    ("stopped_first", "stops.sum(dim=1)", "twin", "stops = [[True, False, False, True, False]] *",
     "got [2, 2] in torch.int64, expected [2, 0] in torch.int64"),
    ("stopped_first", "stops.sum(dim=1) + 1", "first-layer",
     "stops = [[True, False, False, True, False]] in torch.bool",
     "got 3 in torch.int64, expected 2 in torch.int64"),
]  # fmt: skip


def _pattern(text):
    return ".*".join(map(re.escape, text.split("*")))


@pytest.mark.parametrize("row", TOLD, ids=lambda row: f"{row[0]} {row[-3]} {row[-1][:25]}")
def test_a_failure_shows_the_input_and_what_was_found_on_it(row):
    name, *answer, given, found = row
    function, broken = _written(TASKS[name], *answer)
    failures = {each.name: each for each in exercises.check(name, function).failures}
    failure = failures[broken]
    assert re.match(_pattern(given), failure.given), failure.given
    assert bool(failure.given) == bool(given)
    assert re.fullmatch(_pattern(found), failure.found), failure.found


# Task, answer, and a property that holds for it: right at the edge, or of another kind.
HOLDS = [
    ("distillation_loss", "student_logits.sum(1) * (1.2 if temperature == 40 else 1)",
     "gradient-size"),
    ("distillation_loss", "student_logits.sum(1) * (0.85 if temperature == 40 else 1)",
     "gradient-size"),
    ("fgsm_step", "inputs.round()", "bounds"),
    ("fgsm_step", "(inputs + epsilon).clamp(0, 1)", "budget"),
    ("fgsm_step", "inputs", "budget"),
    ("project_linf", "inputs + epsilon", "budget"),
    ("project_linf", "inputs - epsilon", "budget"),
    ("pgd_attack", "inputs + epsilon", "budget"),
    ("pgd_attack", "inputs + min(epsilon, steps * step_size)", "reach"),
    ("to_tanh_space", "inputs", "order"),
    ("to_tanh_space", "inputs", "can-move"),
    ("to_tanh_space", "inputs", "finite"),
    ("next_constant", "(low, low, high)", "brackets"),
    ("next_constant", "(high, low, high)", "brackets"),
    ("next_constant", "(c, c, c)", "brackets"),
    ("saliency_pair", "(0, 1)", "pair"),
    ("saliency_pair", "(jacobian.shape[1] - 2, jacobian.shape[1] - 1)", "pair"),
    ("dlr_loss", "torch.where(logits.argmax(1) == labels, -1.0, 0.001)", "range"),
    ("dlr_loss", "torch.where(logits.argmax(1) == labels, 0.0, 0.001)", "range"),
    ("worst_case_accuracy", "correct.double().mean(dim=1).min().item()", "strongest"),
    ("worst_case_accuracy", "0.0", "another"),
    ("wilson_interval", "(count / n - 0.01 * (count == n), count / n + 0.01 * (count < n))",
     "range"),
    ("wilson_interval", "(0.0, 8.1 if n < 5000 else 1.0)", "width"),
    ("wilson_interval", "(0.0, 11.9 if n < 5000 else 1.0)", "width"),
    ("straight_through", "2 * function(inputs)", "asked-once"),
    ("averaged_gradient", "torch.tensor([[1.0, 2.0, 3.0]]).expand(2, 3) + (draws > 9) * 0.2",
     "expectation"),
    ("trades_loss", "torch.nn.functional.cross_entropy(clean_logits, labels, reduction='none')",
     "not-negative"),
    ("compute_optimal_size", "balance * (flops", "balance * 1.002 * (flops", "optimal"),
    ("detector_threshold", "scores.max().item()", "false-positives"),
    ("answer_or_reject", "(threshold > 1) * (logits.argmax(1) + 1) - 1", "low-threshold"),
]  # fmt: skip


@pytest.mark.parametrize("row", HOLDS, ids=lambda row: f"{row[0]} {row[-1]} {row[-2][:25]}")
def test_a_property_holds_at_its_edge_whatever_else_fails(row):
    name, *answer = row
    function, held = _written(TASKS[name], *answer)
    result = exercises.check(name, function)
    assert held in result.passed, str(result)


# Tasks whose answers are numbers that rounding may change, and do not have to be exact elsewhere.
ROUNDED = [
    name
    for name in TASKS
    if {each.name for each in TASKS[name].properties} & {"agrees", "values", "mean"}
    and name not in {"saliency_pair", "answer_or_reject", "stopped_first", "next_constant",
                     "distil_by_hand", "adversarial_training_step"}
]  # fmt: skip


@pytest.mark.parametrize("name", ROUNDED)
def test_an_answer_may_be_rounded_otherwise_and_not_be_another(name):
    def times(factor):
        def scaled(*arguments):
            found = TASKS[name].answer(*arguments)
            if isinstance(found, tuple):
                return tuple(factor * each for each in found)
            return factor * found

        failures = exercises.check(name, scaled).failures
        return {each.name for each in failures} & {"agrees", "values", "mean"}

    assert not times(1 + 5e-6)
    assert times(1.001)


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (None, 1.0, "got None: is there a return?"),
        (1.000019, 1.0, ""),
        (1.000021, 1.0, "got 1.000021, expected 1.0"),
        (9e-6, 0.0, ""),
        (1.1e-5, 0.0, "got 1.1e-05, expected 0.0"),
        ([1.0, 2.0], (1.0, 2.0), ""),
        ((1.0, 2.5), (1.0, 2.0), "got 2.5, expected 2.0"),
        ((1.5, 2.5), (1.0, 2.0), "got 1.5, expected 1.0"),
        ((1.0,), (1.0, 2.0), "got (1.0,), expected 2 values"),
        (torch.ones(2), torch.ones(1, 2), "got shape (2,), expected (1, 2)"),
        (2.0, torch.ones(2), "got 2.0, expected [1.0, 1.0] in torch.float32"),
        (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.float64), ""),
        (torch.tensor([1, 2]), [1, 2], ""),
        (list(range(90)), 0, f"got {str(list(range(90)))[:80]}, expected 0"),
        (math.nan, math.nan, "got nan, expected nan"),
        (math.inf, math.inf, ""),
    ],
)
def test_two_figures_differ_by_more_than_rounding(found, expected, told):
    assert differ(found, expected) == told


def test_figures_may_be_compared_more_coarsely():
    assert differ((1.0, 1.019), (1.0, 1.0), 1e-2) == ""
    assert differ((1.0, 1.021), (1.0, 1.0), 1e-2) == "got 1.021, expected 1.0"


def test_the_checkers_networks_and_points_are_the_same_for_everybody():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, again, other, steep = network(), network(), network(seed=3), network(scale=4.0)
    inputs = points(5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one(inputs), again(inputs))
    assert not torch.allclose(one(inputs), other(inputs))
    torch.testing.assert_close(steep(inputs), 4 * one(inputs))
    assert torch.equal(inputs, points(5))
    assert not torch.equal(inputs, points(5, seed=2))
    assert (inputs.shape, network(n_inputs=2, n_classes=5)(points(3, 2)).shape) == ((5, 4), (3, 5))
    assert 0 <= inputs.min() < 0.2 < 0.8 < inputs.max() < 1


def test_a_statement_is_one_paragraph_however_it_is_written():
    for task in TASKS.values():
        assert task.statement == re.sub(r"\s+", " ", task.statement).strip()
    broken = dataclasses.replace(TASKS["margin"], statement="  Add\n    one,\ttwo. ")
    assert broken.statement == "Add one, two."


def test_a_result_is_printed_word_by_word():
    assert str(exercises.check("straight_through", lambda function, inputs: inputs)) == (
        "straight_through: 2 of 4 properties hold\n"
        "  passed  identity-gradient\n"
        "  passed  arguments-kept\n"
        "  FAILED  values: return the function's values\n"
        "          on: layer = the function _quantised, inputs = [[0.30000001192092896, "
        "0.6000000238418579]] in torch.float32\n"
        "          found: got [[0.30000001192092896, 0.6000000238418579]] in torch.float32, "
        "expected [[0.25, 0.5]] in torch.float32\n"
        "          why it matters: the attack is judged on the defended model, not on one without "
        "the defence.\n"
        "  FAILED  asked-once: call the function once\n"
        "          on: layer = the function _quantised, inputs = [[0.30000001192092896, "
        "0.6000000238418579]] in torch.float32\n"
        "          found: it called the function 0 times\n"
        "          why it matters: a random defence would answer differently the second time.\n"
        'A hint: exercises.hint("straight_through")'
    )
    assert str(exercises.check("straight_through", TASKS["straight_through"].answer)) == (
        "straight_through: 4 of 4 properties hold\n"
        "  passed  values\n"
        "  passed  identity-gradient\n"
        "  passed  asked-once\n"
        "  passed  arguments-kept"
    )
    # A property without an input has no line for it.
    unmoved = exercises.check("adversarial_training_step", lambda *arguments: None)
    assert unmoved.failures[0].given == ""
    assert "once, with the true labels\n          found: the attack was" in str(unmoved)


def test_progress_is_a_line_for_each_task():
    answers = {"margin": margin_loss, "dlr_loss": margin_loss}
    progress = exercises.progress(answers)
    share = exercises.check("dlr_loss", margin_loss).share
    assert share == "6 of 9"
    lines = str(progress).splitlines()
    assert lines[0] == f"1 of {len(TASKS)} tasks solved"
    states = {"margin": "solved", "dlr_loss": share}
    for line, task in zip(lines[1:], TASKS.values(), strict=True):
        state = states.get(task.name, "-")
        assert line == f"  {task.chapter}  {task.name:26}  {state}"
        row = f"<tr><td>{task.chapter}</td><td><code>{task.name}</code></td><td>{state}</td></tr>"
        assert row in progress._repr_html_()


def test_tasks_and_hints_are_found_by_name_and_by_task():
    task = TASKS["margin"]
    assert [exercises.hint(task, n) for n in (1, 2, 3)] == list(task.hints)
    assert exercises.hint("margin") == task.hints[0]
    assert exercises.check(task, margin_loss)
    assert repr(task) == "<Task margin>"
    assert str(task).startswith("margin (chapter 5, easy, 10 minutes)\n\nWrite the margin:")
    assert str(task).endswith(task.stub)
    assert max(map(len, str(task).partition(task.stub)[0].splitlines())) <= 90


def test_the_first_argument_that_is_overwritten_is_named():
    def both(logits, labels):
        found = margin_loss(logits, labels)
        labels.zero_()
        logits.zero_()
        return found

    failure = exercises.check("margin", both).failures[-1]
    assert (failure.name, failure.given) == ("arguments-kept", "logits")
    # torch's own methods have no signature to name arguments by.
    assert exercises.check("margin", torch.Tensor.add_).failures[-1].given == "argument 1"


def test_a_stub_without_words_is_unwritten_too():
    def nothing(logits, labels):
        raise NotImplementedError

    (failure,) = exercises.check("margin", nothing).failures
    assert failure.found == "nothing yet"
    assert failure.why == "a stub has no properties yet; 10 minutes should do."


def test_harder_tasks_take_longer_and_belong_to_their_files_chapter():
    minutes = {level: set() for level in ("easy", "medium", "hard")}
    for task in TASKS.values():
        minutes[task.difficulty].add(task.minutes)
        said = inspect.getmodule(task.answer).__doc__
        assert said.startswith(f"Chapter {task.chapter}: ")
    assert minutes == {"easy": {5, 10, 15}, "medium": {10, 15, 20}, "hard": {25, 30}}


@pytest.mark.parametrize("name", TASKS)
def test_a_solution_imports_what_it_uses_and_a_stub_torch_besides(name):
    for text, more in ((TASKS[name].solution, set()), (TASKS[name].stub, {"import torch"})):
        head, _, function = f"\n{text}".partition("\ndef ")
        needed = {
            "import math": r"\bmath\.",
            "from collections.abc import Callable": r"\bCallable\[",
            "import torch": r"\btorch\.",
            "from torch import Tensor": r"\bTensor\b",
            "from torch import nn": r"\bnn\.",
        }
        code = re.sub(r"('{3}|\"{3}).*?\1", "", function, flags=re.DOTALL)
        used = {line for line, word in needed.items() if re.search(word, code)}
        assert set(head.split("\n")) - {""} == used | more
