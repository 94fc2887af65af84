"""Attacks of other libraries in evaluate, and our models handed to them."""

import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import evaluate, interop
from distillguard.exceptions import MissingPackageError


@pytest.fixture
def linear():
    """Two classes by the first value; an example falls exactly when it crosses a half."""
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0, 0, -0.5], [0.0, 0, 0, 0.5]]))
    inputs = torch.full((20, 4), 0.25)
    inputs[:, 0] = torch.linspace(0.3, 0.9, 20)
    inputs[:, 3] = 0.3
    return model, inputs, torch.zeros(20).long()


def standing(linear, epsilon):
    """z0 - z1 = x0 - x3, which a linf ball of radius epsilon moves by twice that."""
    _, inputs, _ = linear
    return ((inputs[:, 0] - inputs[:, 3]) > 2 * epsilon).double().mean().item()


def test_foolbox_attacks_are_evaluated_and_counted(linear):
    foolbox = pytest.importorskip("foolbox")
    model, inputs, labels = linear
    attack = interop.attack(foolbox.attacks.LinfPGD(steps=40), epsilon=0.155)
    # foolbox starts at random, from the generator that evaluate seeds.
    settings = {"epsilon": 0.155, "random_state": 0}
    report = evaluate(model, inputs, labels, attacks={"foolbox": attack}, **settings)
    assert report.robust_accuracy == pytest.approx(standing(linear, 0.155), abs=0.051)
    assert report.attacks[0].backwards == 40


def test_torchattacks_classes_and_makers_are_evaluated(linear):
    torchattacks = pytest.importorskip("torchattacks")
    model, inputs, labels = linear
    made = interop.attack(lambda model: torchattacks.FGSM(model, eps=0.155))
    report = evaluate(model, inputs, labels, epsilon=0.155, attacks={"FGSM": made})
    assert report.robust_accuracy == pytest.approx(standing(linear, 0.155), abs=0.051)
    with pytest.raises(TypeError, match="pass lambda model: FGSM"):
        interop.attack(torchattacks.FGSM(model))


def test_functions_of_three_arguments_are_taken_as_they_are():
    def theirs(model, inputs, labels, targeted=False, eps=0.1):
        return inputs

    assert interop.attack(theirs) is theirs


def test_bound_attacks_of_autoattacks_form_are_run(linear):
    model, inputs, labels = linear

    class AutoAttack:
        def __init__(self, model):
            self.model = model

        def run_standard_evaluation(self, inputs, labels):
            return inputs - torch.tensor([0.155, 0, 0, -0.155])

    report = evaluate(
        model, inputs, labels, epsilon=0.155, attacks={"aa": interop.attack(AutoAttack)}
    )
    assert report.robust_accuracy == pytest.approx(standing(linear, 0.155), abs=0.051)


def test_art_attacks_get_a_classifier_and_arrays(linear, monkeypatch):
    """A stand-in with the toolbox's names: what is passed where."""
    model, inputs, labels = linear
    seen = {}

    class PyTorchClassifier:
        def __init__(self, **given):
            seen.update(given)

    class Method:
        def __init__(self, classifier):
            assert isinstance(classifier, PyTorchClassifier)

        def generate(self, x, y):
            assert isinstance(x, np.ndarray)
            assert y.dtype == np.int64
            return x - np.array([0.155, 0, 0, -0.155], dtype=np.float32)

    Method.__module__ = "art.attacks.evasion"
    package = types.ModuleType("art.estimators.classification")
    package.PyTorchClassifier = PyTorchClassifier
    for name in ("art", "art.estimators"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "art.estimators.classification", package)
    attack = interop.attack(Method, n_classes=2)
    report = evaluate(model, inputs, labels, epsilon=0.155, attacks={"art": attack})
    assert report.robust_accuracy == pytest.approx(standing(linear, 0.155), abs=0.051)
    assert seen["input_shape"] == (4,)
    assert seen["nb_classes"] == 2
    assert seen["clip_values"] == (0.0, 1.0)


def test_a_missing_library_is_named(linear, monkeypatch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(MissingPackageError, match="pip install foolbox"):
        interop.to_foolbox(linear[0])
    with pytest.raises(TypeError, match="foreign must be an attack, got int"):
        interop.attack(3)


def test_nothing_foreign_is_imported_by_the_import():
    check = "import sys, distillguard.interop as i; " + (
        "assert not {'foolbox', 'art', 'torchattacks', 'adv_lib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
