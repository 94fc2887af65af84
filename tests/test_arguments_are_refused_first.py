"""Whatever evaluates refuses a wrong argument before it asks the model anything.

Each argument is wrong alone; the model fails where it is asked. Numbers at the edge are accepted.
"""

import pytest
import torch
from torch import nn

from distillguard import evaluate
from distillguard.defenses import LayeredNetwork
from distillguard.evaluation import (
    AttackTrace,
    LossSurfaceDisplay,
    confidence_histogram,
    evaluate_layers,
    gradient_histogram,
    robustness_curve,
    transfer_matrix,
)
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._loss_surface import measured
from distillguard.evaluation._presets import preset
from distillguard.exceptions import NoGradientError
from test_layer_by_layer import Line, Second

X, Y = torch.full((3, 2), 0.25), torch.zeros(3, dtype=torch.int64)


class Silent(nn.Module):
    """Is not to be asked."""

    def forward(self, inputs):
        raise AssertionError("asked")


def guard(network):
    whole = LayeredNetwork(network, [], [Second()])
    whole.thresholds = torch.tensor([0.5])
    return whole.eval()


def unmoved(model, inputs, labels, **_):
    """An attack from elsewhere, which takes everything and does nothing."""
    return inputs


def evaluated(model, **told):
    told = {"epsilon": 0.1, "attacks": unmoved, "diagnosis": None, **told}
    return evaluate(model, X, Y, **told)


def by_layers(model, **told):
    return evaluate_layers(guard(model), X, Y, **{"epsilon": 0.1, "attacks": "quick", **told})


def transferred(model, **told):
    return transfer_matrix([model], unmoved, X, Y, **told)


def curve(model, **told):
    told = {"minimum_distance": unmoved, **told}
    return robustness_curve(model, X, Y, **told)


def gradients(model, **told):
    return gradient_histogram(model, X, **told)


def confidences(model, **told):
    return confidence_histogram(model, X, **told)


def surface(model, **told):
    told = {"radius": 0.1, "n_steps": 2, "bounds": (0.0, 1.0), "random_state": 0, **told}
    return measured(model, X[:1], Y[:1], **told)


def drawn(model, **told):
    return LossSurfaceDisplay.from_model(model, X[:1], Y[:1], radius=0.1, n_steps=2, **told)


def traced(model, **told):
    return AttackTrace(X, Y, **told)


def presets(model, **told):
    told = {"name": "quick", **told}
    return preset(told["name"], ThreatModel("linf", 0.1, (0.0, 1.0)), batch_size=1, random_state=0)


NORMS = "'linf', 'l2', 'l1', 'l0', 'l0_pixels'"
WRONG = {
    "norm": ("l7", f"norm must be one of {NORMS}, got 'l7'"),
    "epsilon": (-0.1, "epsilon must be a finite number above 0, got -0.1"),
    "bounds": ((1.0, 0.0), r"bounds must be finite with low below high, got \(1.0, 0.0\)"),
    "batch_size": (0, "batch_size must be at least 1, got 0"),
    "chunk_size": (0, "chunk_size must be at least 1, got 0"),
    "draws": (0, "draws must be at least 1, got 0"),
    "random_state": (-1, "random_state must be at least 0, got -1"),
    "diagnosis": ("half", "diagnosis must be one of 'auto', 'full', 'brief', None, got 'half'"),
    "adapt": ("often", "adapt must be one of 'auto', True, False, got 'often'"),
    "precision": ("fp8", "precision must be one of None, 'bf16-mixed', got 'fp8'"),
    "keep_examples": ("none", "keep_examples must be one of 'few', 'fooled', 'all', got 'none'"),
    "temperature": (0.0, "temperature must be a finite number above 0, got 0.0"),
    "bins": (0, "bins must be at least 1, got 0"),
    "radius": (0.0, "radius must be a finite number above 0, got 0.0"),
    "n_steps": (1, "n_steps must be at least 2, got 1"),
    "loss": ("hinge", "loss must be one of 'cross_entropy', 'margin', got 'hinge'"),
    "name": ("slow", "attacks must be one of 'quick', 'standard', 'autoattack', got 'slow'"),
    "edges": ([0.0, float("inf")], "edges must be a finite number, got inf"),
    "epsilons": ([0.1, -0.1], "epsilons must be a finite number of at least 0, got -0.1"),
}
EDGE = {"batch_size": 1, "chunk_size": 1, "draws": 1, "random_state": 0, "bins": 1}
ASKING = [
    (evaluated, "norm epsilon bounds batch_size chunk_size draws random_state diagnosis adapt "
     "precision keep_examples"),
    (by_layers, "norm epsilon bounds batch_size draws random_state"),
    (transferred, "norm epsilon bounds batch_size random_state"),
    (curve, "norm epsilons bounds batch_size random_state"),
    (gradients, "temperature edges batch_size random_state"),
    (confidences, "temperature bins batch_size random_state"),
    (surface, "radius n_steps bounds random_state"),
    (drawn, "loss"),
    (traced, "norm epsilon"),
    (presets, "name"),
]  # fmt: skip
CASES = [(ask, name) for ask, names in ASKING for name in names.split()]


@pytest.mark.parametrize(("ask", "name"), CASES, ids=lambda each: getattr(each, "__name__", each))
def test_what_is_out_of_its_range_is_refused_before_the_model_is_asked(ask, name):
    value, message = WRONG[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        ask(Silent(), **{name: value})


@pytest.mark.parametrize(
    ("ask", "name"),
    [case for case in CASES if case[1] in EDGE],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_the_least_number_that_means_something_is_taken(ask, name):
    assert ask(Line(), **{name: EDGE[name]}) is not None


@pytest.mark.parametrize("ask", [ask for ask, name in CASES if name == "bounds"])
def test_bounds_are_a_pair_and_nothing_that_only_unpacks_like_one(ask):
    for wrong in ((0.0, 0.5, 1.0), "01"):
        with pytest.raises(TypeError, match=r"^bounds must be a pair"):
            ask(Silent(), bounds=wrong)


@pytest.mark.parametrize("attacks", ["pgd", "fgsm", ["quick"]])
def test_attacks_on_layers_are_presets_and_nothing_else_that_evaluate_takes(attacks):
    expected = "attacks must be one of 'quick', 'standard', 'autoattack', got "
    with pytest.raises(ValueError, match=f"^{expected}") as caught:
        by_layers(Silent(), attacks=attacks)
    assert str(caught.value) == expected + repr(attacks)


@pytest.mark.parametrize("ask", [evaluated, by_layers, transferred])
def test_a_count_is_a_whole_number_wherever_it_is_a_radius(ask):
    with pytest.raises(ValueError, match=r"^epsilon must be a whole number of values in l0, "):
        ask(Silent(), norm="l0", epsilon=1.5)


def test_a_trace_is_of_inputs_and_labels_that_fit():
    with pytest.raises(TypeError, match=r"^inputs must be floating point, got torch.int64"):
        AttackTrace(X.long(), Y)
    with pytest.raises(ValueError, match=r"^labels must have shape \(3,\), one class per input"):
        AttackTrace(X, Y[:2])
    with pytest.raises(ValueError, match=r"^epsilon must be a whole number of pixels in l0_pixels"):
        AttackTrace(X, Y, norm="l0_pixels", epsilon=1.5)
    assert AttackTrace(X, Y).epsilon is None


def test_a_surface_is_one_of_a_single_example():
    told = {"radius": 0.1, "n_steps": 2, "bounds": (0.0, 1.0), "random_state": 0}
    with pytest.raises(ValueError, match=r"^X must hold one example, got 2; pass X\[:1\] and y"):
        measured(Silent(), X[:2], Y[:2], **told)


class Thrice(Line):
    """Three answers to any number of inputs, or one of a single column."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, inputs):
        return inputs.sum() + torch.zeros(self.shape)


@pytest.mark.parametrize("ask", [evaluated, transferred, curve, gradients, confidences, surface])
def test_what_are_no_logits_is_refused(ask):
    with pytest.raises(ValueError, match=r"must return logits of shape \([13], n_classes\)"):
        ask(Thrice((7, 2)))
    column = Thrice((1 if ask is surface else 3, 1))
    with pytest.raises(ValueError, match=r"must return logits of shape .* at least two classes"):
        ask(column)


@pytest.mark.parametrize("ask", [transferred, curve, gradients, confidences, surface])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda z: z * float("nan"), "finite logits, got NaN or infinity"),
        (lambda z: z.softmax(dim=1), r"logits, got rows in \[0, 1\] that sum to 1"),
    ],
)
def test_numbers_that_are_no_logits_are_refused(ask, change, got):
    name = r"models\['<lambda>'\]" if ask is transferred else "model"
    with pytest.raises(ValueError, match=f"^{name} must return {got}"):
        ask(lambda inputs: change(Line()(inputs)))


@pytest.mark.parametrize("ask", [gradients, surface])
def test_a_model_without_a_gradient_is_told_by_its_graph(ask):
    with pytest.raises(NoGradientError, match=r"^model must be differentiable"):
        ask(lambda inputs: Line()(inputs).detach())
    with pytest.raises(NoGradientError):  # a graph that does not lead to the inputs
        ask(lambda inputs: Line()(inputs).detach() + torch.zeros(2, requires_grad=True))


@pytest.mark.parametrize(
    ("ask", "label"),
    [(evaluate, 2), (transfer_matrix, 2), (robustness_curve, 2), (measured, 2), (evaluate, -1)],
)
def test_a_label_beyond_the_last_column_is_refused(ask, label):
    labels = torch.tensor([label])
    given, told = (X[:1], labels), {"epsilon": 0.1, "attacks": unmoved, "diagnosis": None}
    if ask is transfer_matrix:
        given, told = (unmoved, X[:1], labels), {}
    elif ask is robustness_curve:
        told = {"minimum_distance": unmoved}
    elif ask is measured:
        told = {"radius": 0.1, "n_steps": 2, "bounds": (0.0, 1.0), "random_state": 0}
    model = [Line()] if ask is transfer_matrix else Line()
    with pytest.raises(ValueError, match=r"^y must be classes from 0 to 1"):
        ask(model, *given, **told)
