"""Attacks of other libraries in evaluate, and our models handed to them."""

import subprocess
import sys
import types
from functools import partial

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


def robust_accuracy(linear, attack, **settings):
    model, inputs, labels = linear
    settings = {"epsilon": 0.155, "random_state": 0, **settings}
    return evaluate(model, inputs, labels, attacks={"theirs": attack}, **settings).robust_accuracy


def standing(linear, epsilon):
    """z0 - z1 = x0 - x3, which a linf ball of radius epsilon moves by twice that."""
    _, inputs, _ = linear
    return ((inputs[:, 0] - inputs[:, 3]) > 2 * epsilon).double().mean().item()


# The libraries themselves, where they are installed.


def test_foolbox_attacks_are_evaluated_and_counted(linear):
    foolbox = pytest.importorskip("foolbox")
    model, inputs, labels = linear
    attack = interop.from_foolbox(foolbox.attacks.LinfPGD(steps=40), epsilon=0.155)
    # foolbox starts at random, from the generator that evaluate seeds.
    settings = {"epsilon": 0.155, "random_state": 0}
    report = evaluate(model, inputs, labels, attacks={"foolbox": attack}, **settings)
    assert report.robust_accuracy == pytest.approx(standing(linear, 0.155), abs=0.051)
    assert report.attacks[0].backwards == 40


def test_foolbox_attacks_without_a_radius_find_the_nearest_point(linear):
    foolbox = pytest.importorskip("foolbox")
    model, inputs, labels = linear
    nearest = interop.from_foolbox(foolbox.attacks.LinfDeepFoolAttack())
    model.double()
    inputs = inputs.double()[2:]  # the others are misclassified or on the boundary
    moved = (nearest(model, inputs, labels[2:]) - inputs).abs().amax(dim=1)
    assert moved == pytest.approx((inputs[:, 0] - inputs[:, 3]) / 2, rel=0.05)


def test_torchattacks_classes_and_factories_are_evaluated(linear):
    torchattacks = pytest.importorskip("torchattacks")
    model, inputs, labels = linear
    made = interop.from_torchattacks(lambda model: torchattacks.FGSM(model, eps=0.155))
    assert robust_accuracy(linear, made) == pytest.approx(standing(linear, 0.155), abs=0.051)
    default = interop.from_torchattacks(torchattacks.FGSM)
    assert (default(model, inputs, labels) - inputs).abs().max() == pytest.approx(8 / 255)
    with pytest.raises(TypeError, match="pass lambda model: FGSM"):
        interop.from_torchattacks(torchattacks.FGSM(model))


def test_adversarial_librarys_functions_take_their_settings(linear):
    attacks = pytest.importorskip("adv_lib.attacks")
    ddn = interop.from_adv_lib(attacks.ddn, steps=100, levels=None)
    reach = {"norm": "l2", "epsilon": 0.2}
    # z0 - z1 = x0 - x3, which an l2 ball of radius epsilon moves by sqrt(2) times that.
    _, inputs, _ = linear
    expected = ((inputs[:, 0] - inputs[:, 3]) > 2**0.5 * 0.2).double().mean().item()
    assert robust_accuracy(linear, ddn, **reach) == pytest.approx(expected, abs=0.051)
    with pytest.raises(TypeError, match="settings must be keywords of ddn"):
        interop.from_adv_lib(attacks.ddn, stepz=100)


def test_art_attacks_run_with_the_settings_that_they_are_given(linear):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")

    def fgm(classifier):
        assert isinstance(classifier, classification.PyTorchClassifier)
        return evasion.FastGradientMethod(classifier, eps=0.155)

    made = interop.from_art(fgm, n_classes=2)
    assert robust_accuracy(linear, made) == pytest.approx(standing(linear, 0.155), abs=0.051)
    model, inputs, labels = linear
    default = interop.from_art(evasion.FastGradientMethod, n_classes=2)
    assert (default(model, inputs, labels) - inputs).abs().max() == pytest.approx(0.3)
    with pytest.raises(TypeError, match="pass lambda classifier: FastGradientMethod"):
        interop.from_art(fgm(interop.to_art(model, (4,), 2)), n_classes=2)


def test_autoattack_is_evaluated(linear):
    package = pytest.importorskip("pyautoattack")

    def factory(model):
        return package.AutoAttack(model, eps=0.155, version="custom", attacks=["apgd-ce"])

    attack = interop.from_autoattack(factory)
    assert robust_accuracy(linear, attack) == pytest.approx(standing(linear, 0.155), abs=0.051)
    with pytest.raises(TypeError, match="pass lambda model: AutoAttack"):
        interop.from_autoattack(factory(linear[0]))


# Stand-ins in the forms of the libraries, always.

SHIFT = torch.tensor([-0.155, 0, 0, 0.155])


class Bound:
    """An attack that has a model, as those of torchattacks."""

    def __init__(self, model, shift=SHIFT):
        self.model, self.shift = model, shift

    def __call__(self, inputs, labels):
        # Theirs put a model in training mode, or in eval mode, as they see fit.
        self.model.train()
        self.model(inputs)
        return (inputs + self.shift.to(inputs)).requires_grad_()


class AutoAttack:
    def __init__(self, model, tells_classes=False):
        self.attack, self.tells_classes = Bound(model), tells_classes

    def run_standard_evaluation(self, inputs, labels):
        points = self.attack(inputs, labels)
        return (points, labels) if self.tells_classes else points


class Foolbox:
    """Called as foolbox's attacks are."""

    def __call__(self, model, inputs, criterion, *, epsilons):
        shift = SHIFT.sign().to(inputs) * (epsilons or 0.05)
        return [inputs], inputs + shift, [True]


@pytest.fixture
def libraries(monkeypatch):
    """Modules with foolbox's and the toolbox's names, and a note of what models went there."""
    seen = {}

    class PyTorchModel:
        def __init__(self, model, **given):
            seen.update(given, model=model)

    class PyTorchClassifier:
        def __init__(self, **given):
            seen.update(given)

    foolbox = types.ModuleType("foolbox")
    foolbox.PyTorchModel = PyTorchModel
    package = types.ModuleType("art.estimators.classification")
    package.PyTorchClassifier = PyTorchClassifier
    for name in ("art", "art.estimators"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, "foolbox", foolbox)
    return seen


class Toolbox:
    """An attack in the form of the toolbox's."""

    def __init__(self, classifier, eps=0.155):
        assert type(classifier).__name__ == "PyTorchClassifier"
        self.eps = eps

    def generate(self, x, y=None):
        assert isinstance(x, np.ndarray)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        return x + self.eps * np.sign(SHIFT.numpy())


def darken(model, inputs, labels, targeted=False, *, by=0.155):
    inputs.add_(by * SHIFT.sign().to(inputs))
    return inputs


ALL = {
    "foolbox": lambda: interop.from_foolbox(Foolbox(), epsilon=0.155),
    "torchattacks": lambda: interop.from_torchattacks(lambda model: Bound(model)),
    "torchattacks, class": lambda: interop.from_torchattacks(Bound),
    "torchattacks, partial": lambda: interop.from_torchattacks(partial(Bound, shift=SHIFT)),
    "autoattack": lambda: interop.from_autoattack(lambda model: AutoAttack(model)),
    "autoattack, pair": lambda: interop.from_autoattack(lambda m: AutoAttack(m, True)),
    "art": lambda: interop.from_art(lambda c: Toolbox(c, eps=0.155), n_classes=2),
    "art, class": lambda: interop.from_art(Toolbox, n_classes=2),
    "adv_lib": lambda: interop.from_adv_lib(darken, by=0.155),
}


@pytest.mark.parametrize("name", ALL)
def test_attacks_of_every_form_are_evaluated(name, linear, libraries):
    accuracy = robust_accuracy(linear, ALL[name]())
    assert accuracy == pytest.approx(standing(linear, 0.155), abs=0.051)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_points_come_back_as_the_inputs_are_and_nothing_else_is_changed(
    name, dtype, linear, libraries
):
    """Inputs of another dtype than the model's, which is in training mode and counts."""
    model, inputs, labels = linear
    model = nn.Sequential(nn.BatchNorm1d(4), model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs = inputs.to(dtype)
    given = inputs.clone()
    points = ALL[name]()(model, inputs, labels)
    assert (points.dtype, points.device) == (inputs.dtype, inputs.device)
    assert not points.requires_grad
    assert torch.allclose((points - given).float(), SHIFT, atol=0.01)
    assert torch.equal(inputs, given)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["torchattacks", "autoattack", "foolbox", "art"])
def test_a_model_that_cannot_switch_modes_is_lent_all_the_same(name, linear, libraries):
    class Fixed(nn.Linear):
        def train(self, mode=True):
            raise NotImplementedError

    model, inputs, labels = linear
    fixed = Fixed(4, 2, bias=False)
    fixed.load_state_dict(model.state_dict())
    accuracy = robust_accuracy((fixed, inputs, labels), ALL[name]())
    assert accuracy == pytest.approx(standing(linear, 0.155), abs=0.051)


def test_models_reach_foolbox_and_the_toolbox_with_bounds_and_classes(linear, libraries):
    model, inputs, labels = linear
    interop.from_art(Toolbox, n_classes=2, bounds=(-1, 1))(model, inputs, labels)
    assert libraries["input_shape"] == (4,)
    assert libraries["nb_classes"] == 2
    assert libraries["clip_values"] == (-1, 1)
    interop.from_foolbox(Foolbox(), bounds=(-1, 1))(model, inputs, labels)
    assert libraries["bounds"] == (-1, 1)
    assert not libraries["model"].training


def test_what_is_bound_already_is_refused_with_the_remedy(linear):
    model, _, _ = linear
    match = r"got Bound, which is bound already; pass lambda model: Bound\(model, ...\)"
    with pytest.raises(TypeError, match=match):
        interop.from_torchattacks(Bound(model))
    with pytest.raises(TypeError, match=r"pass lambda model: AutoAttack\(model, ...\)"):
        interop.from_autoattack(AutoAttack(model))
    toolbox = Toolbox.__new__(Toolbox)
    with pytest.raises(TypeError, match=r"pass lambda classifier: Toolbox\(classifier, ...\)"):
        interop.from_art(toolbox, n_classes=2)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: interop.from_foolbox(Foolbox), TypeError, r"got the class Foolbox; pass Foolbox"),
        (lambda: interop.from_foolbox(darken), TypeError, "attack of foolbox, got function"),
        (lambda: interop.from_foolbox(3), TypeError, "attack of foolbox, got int"),
        (lambda: interop.from_foolbox(Foolbox(), epsilon=-1), ValueError, "epsilon must be"),
        (lambda: interop.from_foolbox(Foolbox(), bounds=(1, 0)), ValueError, "bounds must be"),
        (lambda: interop.from_torchattacks(3), TypeError, "from a model to an attack, got int"),
        (lambda: interop.from_autoattack(None), TypeError, "to an attack, got NoneType"),
        (lambda: interop.from_art(3, n_classes=2), TypeError, "from a classifier to an attack"),
        (lambda: interop.from_art(Toolbox, n_classes=1), ValueError, "n_classes must be at least"),
        (lambda: interop.from_adv_lib(Bound), TypeError, "must be a function .*the class Bound"),
        (lambda: interop.from_adv_lib(darken, too=1), TypeError, "settings must be keywords of da"),
    ],
)
def test_what_is_no_attack_is_refused_when_it_is_given(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: interop.from_torchattacks(lambda model: 3),
        lambda: interop.from_autoattack(lambda model: 3),
        lambda: interop.from_art(lambda classifier: 3, n_classes=2),
    ],
)
def test_a_factory_of_something_else_is_told_when_it_runs(make, linear, libraries):
    with pytest.raises(TypeError, match=r"factory must return an attack of .*, got int"):
        make()(*linear)


def test_points_of_another_shape_are_refused(linear):
    attack = interop.from_adv_lib(lambda model, inputs, labels: inputs[:, :3])
    with pytest.raises(ValueError, match=r"shape of its inputs, \(20, 4\), got \(20, 3\)"):
        attack(*linear)
    attack = interop.from_adv_lib(lambda model, inputs, labels: [inputs])
    with pytest.raises(TypeError, match=r"return a torch\.Tensor, got list"):
        attack(*linear)


def test_a_missing_library_is_named(linear, monkeypatch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(MissingPackageError, match="pip install foolbox"):
        interop.to_foolbox(linear[0])


def test_nothing_foreign_is_imported_by_the_import():
    check = "import sys, distillguard.interop as i; " + (
        "assert not {'foolbox', 'art', 'torchattacks', 'adv_lib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


class Refusing(nn.Module):
    """Two classes and rejection."""

    rejects = True

    def forward(self, inputs):
        return inputs[:, :3]


@pytest.mark.parametrize("kind", ["foolbox", "art", "torchattacks", "autoattack", "adv_lib"])
def test_a_refusal_is_never_a_class_to_end_at(kind):
    def fails(*_, **__):
        raise AssertionError("the library was asked")

    class Attack:
        __call__ = fails

    makers = {
        "foolbox": lambda: interop.from_foolbox(Attack(), epsilon=0.1),
        "art": lambda: interop.from_art(fails, n_classes=2),
        "torchattacks": lambda: interop.from_torchattacks(fails),
        "autoattack": lambda: interop.from_autoattack(fails),
        "adv_lib": lambda: interop.from_adv_lib(fails),
    }
    attack = makers[kind]()
    for model in (Refusing(), nn.Sequential(nn.Identity(), Refusing())):
        with pytest.raises(ValueError, match="model must name a class for every input"):
            attack(model, torch.rand(2, 4), torch.zeros(2).long())
    settings = {"epsilon": 0.1, "diagnosis": None}
    kinds = {"theirs": attack, "nothing": lambda model, inputs, labels: inputs}
    inputs = torch.tensor([[0.9, 0.1, 0.2, 0.0]])
    row = evaluate(Refusing(), inputs, torch.zeros(1).long(), attacks=kinds, **settings).attacks[0]
    assert "rejection, which other libraries take for one more class" in row.error


def test_a_model_that_refuses_is_not_handed_out():
    with pytest.raises(ValueError, match="got one whose last column is rejection"):
        interop.to_foolbox(Refusing())
    with pytest.raises(ValueError, match="got one whose last column is rejection"):
        interop.to_art(Refusing(), (4,), 2)
