"""Robust training and robust distillation: losses by hand, the inner attack, what comes out."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distillguard import (
    AdversarialTrainer,
    RobustDistiller,
    UndefendedClassifier,
    attacks,
    datasets,
    evaluate,
    functional,
)
from distillguard.estimators import _adversary
from distillguard.training import Ascent, attack_mode, perturbed

EPSILON = 0.1


@pytest.fixture(scope="module")
def digits():
    return datasets.load_digits("train")


@pytest.fixture(scope="module")
def held():
    X, y = datasets.load_digits("test")
    return X[:100], y[:100]


def narrow(shape, n):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, n))


def quick(kind=AdversarialTrainer, **settings):
    base = {"epsilon": EPSILON, "steps": 4, "max_epochs": 2, "random_state": 0}
    return kind(narrow, **base | settings)


@pytest.fixture(scope="module")
def trades(digits):
    return quick(max_epochs=25, learning_rate=3e-3).fit(*digits)


def robust(network, held, epsilon=EPSILON):
    X, y = held
    points = attacks.pgd(network, X, y, epsilon=epsilon, loss="margin", steps=20, random_state=0)
    with torch.no_grad():
        return (network(points).argmax(1) == y).double().mean().item()


# --- losses -------------------------------------------------------------------------------------

# Two classes with probabilities that can be written down: log-odds of 3 are 3/4 and 1/4.
THREE = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
EVEN = torch.zeros(1, 2, dtype=torch.float64)
FIRST = torch.tensor([0])
KL_EVEN_TO_THREE = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL((3/4, 1/4) || (1/2, 1/2))
KL_THREE_TO_EVEN = 0.5 * math.log(2 / 3) + 0.5 * math.log(2.0)  # KL((1/2, 1/2) || (3/4, 1/4))


def value(tensor):
    assert tensor.shape == (1,)
    return tensor.item()


def test_the_divergence_is_from_the_target_and_sums_over_classes():
    assert value(functional.kl_divergence(EVEN, THREE)) == pytest.approx(KL_EVEN_TO_THREE)
    assert value(functional.kl_divergence(THREE, EVEN)) == pytest.approx(KL_THREE_TO_EVEN)


@given(st.floats(0.1, 50.0), st.integers(0, 999))
def test_the_divergence_is_torchs_and_zero_only_of_itself(temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    z, v = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    ours = functional.kl_divergence(z, v, temperature)
    theirs = nn.functional.kl_div(
        torch.log_softmax(z / temperature, 1), torch.softmax(v / temperature, 1), reduction="none"
    ).sum(1)
    torch.testing.assert_close(ours, theirs)
    assert (ours > 0).all()
    assert functional.kl_divergence(z, z, temperature).abs().max() == 0


def test_trades_by_hand():
    loss = functional.trades_loss(THREE, EVEN, FIRST, beta=2.0)
    assert value(loss) == pytest.approx(-math.log(0.75) + 2 * KL_EVEN_TO_THREE)
    smooth = functional.trades_loss(THREE, THREE, FIRST, beta=2.0, smoothing=0.2)
    assert value(smooth) == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25))


def test_label_smoothing_is_torchs():
    z, y = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 5
    for share in (0, 0.1, 1):
        theirs = nn.functional.cross_entropy(z, y, label_smoothing=share, reduction="none")
        torch.testing.assert_close(functional.smoothed_cross_entropy(z, y, share), theirs)


def test_the_clean_branch_of_trades_is_not_detached():
    clean = THREE.clone().requires_grad_()
    whole = torch.autograd.grad(functional.trades_loss(clean, EVEN, FIRST, 1.0).sum(), clean)[0]
    first = torch.autograd.grad(functional.trades_loss(clean, EVEN, FIRST, 0.0).sum(), clean)[0]
    assert not torch.allclose(whole, first)


def test_mart_by_hand():
    # p' = (3/4, 1/4): the boosted term is -log p'_y - log(1 - max other) = -2 log(3/4).
    loss = functional.mart_loss(EVEN, THREE, FIRST, beta=4.0)
    assert value(loss) == pytest.approx(-2 * math.log(0.75) + 4 * 0.5 * KL_THREE_TO_EVEN)


def test_mart_stays_finite_where_the_wrong_class_is_certain():
    sure = torch.tensor([[-200.0, 200.0, 0.0]], requires_grad=True)
    loss = functional.mart_loss(torch.zeros(1, 3), sure, FIRST)
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), sure)[0].isfinite().all()
    # -log p'_0 = 400 and -log(1 - p'_1) = 200, up to what float32 keeps; then the divergence.
    kl = functional.kl_divergence(sure.detach(), torch.zeros(1, 3)).item()
    assert loss.item() == pytest.approx(600 + 5 * 2 / 3 * kl, rel=1e-5)


def test_ard_by_hand_and_with_t_squared():
    loss = functional.ard_loss(THREE, EVEN, 5 * THREE, FIRST, alpha=0.5, temperature=5.0)
    expected = 0.5 * -math.log(0.75) + 0.5 * 25 * KL_EVEN_TO_THREE
    assert value(loss) == pytest.approx(expected)
    # The published code's divisor: nothing is averaged over the classes.
    assert value(functional.ard_loss(THREE, EVEN, THREE, FIRST, temperature=1.0)) == pytest.approx(
        KL_EVEN_TO_THREE
    )


def test_at_alpha_1_ards_clean_logits_do_not_enter_whatever_they_are():
    for clean in (THREE, THREE * torch.nan, torch.full_like(THREE, -torch.inf)):
        assert value(functional.ard_loss(clean, EVEN, THREE, FIRST, 1.0, 1.0)) == pytest.approx(
            KL_EVEN_TO_THREE
        )


def test_iad_trusts_the_teacher_as_far_as_it_is_right():
    student, teacher = EVEN, THREE
    for there, trust in ((THREE, 0.75**0.5), (EVEN, 0.5**0.5)):
        loss = functional.iad_loss(THREE * 2, student, teacher, there, FIRST, beta=0.5)
        own = value(functional.kl_divergence(student, THREE * 2))
        assert value(loss) == pytest.approx(trust * KL_EVEN_TO_THREE + (1 - trust) * own)


def test_rslad_and_adaad_by_hand():
    loss = functional.rslad_loss(THREE, EVEN, THREE, alpha=0.25)
    assert value(loss) == pytest.approx(0.25 * KL_EVEN_TO_THREE)
    loss = functional.rslad_loss(EVEN, THREE, THREE, alpha=0.25)
    assert value(loss) == pytest.approx(0.75 * KL_EVEN_TO_THREE)
    loss = functional.adaad_loss(EVEN, THREE, THREE, EVEN, alpha=0.25)
    assert value(loss) == pytest.approx(0.75 * KL_EVEN_TO_THREE + 0.25 * KL_THREE_TO_EVEN)
    assert value(functional.adaad_loss(EVEN, THREE, THREE, EVEN)) == pytest.approx(KL_THREE_TO_EVEN)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b, t, y: functional.trades_loss(a, b, y),
        lambda a, b, t, y: functional.mart_loss(a, b, y),
        lambda a, b, t, y: functional.ard_loss(a, b, t, y, 0.7, 3.0),
        lambda a, b, t, y: functional.iad_loss(a, b, t, 2 * t, y),
        lambda a, b, t, y: functional.rslad_loss(a, b, t),
        lambda a, b, t, y: functional.adaad_loss(a, b, t, 2 * t, 0.7),
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    generator = torch.Generator().manual_seed(0)
    a, b, t = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    a.requires_grad_()
    b.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, t, torch.arange(4)), (a, b))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: functional.kl_divergence(EVEN, torch.zeros(1, 3)), "target_logits must have the"),
        (lambda: functional.trades_loss(EVEN, EVEN, FIRST, beta=-1), "beta must be"),
        (lambda: functional.mart_loss(EVEN, EVEN, FIRST, beta=-1), "beta must be"),
        (lambda: functional.rslad_loss(EVEN, EVEN, EVEN, alpha=2), "alpha must be in"),
        (lambda: functional.ard_loss(EVEN, EVEN, EVEN, FIRST, temperature=0), "temperature must"),
        (lambda: functional.smoothed_cross_entropy(EVEN, FIRST, 1.5), "smoothing must be in"),
    ],
)
def test_numbers_out_of_range_are_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


# --- the inner attack ---------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_ascent_stays_in_the_ball_and_reaches_the_best_point_of_a_plane(norm):
    inputs, w = torch.full((3, 8), 0.5), torch.tensor([3.0, -1.0, 0.5, 0, 0, 0, 0, 0])
    ascent = Ascent(norm, 0.2, 80, 0.05, (0.0, 1.0))
    points = ascent(inputs, lambda points: points @ w)
    best = {"linf": 0.2 * w.abs().sum(), "l2": 0.2 * w.norm(), "l1": 0.2 * w.abs().max()}[norm]
    gained = (points - inputs) @ w
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    assert ((points - inputs).norm(p=order, dim=1) <= 0.2 * (1 + 1e-5)).all()
    torch.testing.assert_close(gained, best.expand(3), rtol=0.02, atol=0)


def test_the_ascent_respects_the_bounds():
    inputs = torch.tensor([[0.05, 0.95]])
    points = Ascent("linf", 0.2, 5, 0.1, (0.0, 1.0))(inputs, lambda p: p[:, 1] - p[:, 0])
    torch.testing.assert_close(points, torch.tensor([[0.0, 1.0]]))


def norms():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_training_attacks_the_network_in_the_mode_that_was_asked_for(digits, batch_statistics):
    modes = []

    def attack(network, inputs, labels):
        modes.append(network.training)
        return inputs

    settings = {"attack": attack, "batch_statistics": batch_statistics, "max_epochs": 1}
    quick(**settings).fit(*(part[:200] for part in digits))
    assert set(modes) == {batch_statistics}


def test_a_step_is_a_quarter_of_the_radius_if_none_is_given(digits, monkeypatch):
    sizes = []

    def ascent(norm, epsilon, steps, step_size, bounds):
        sizes.append(step_size)
        return Ascent(norm, epsilon, steps, step_size, bounds)

    monkeypatch.setattr(_adversary, "Ascent", ascent)
    few = tuple(part[:100] for part in digits)
    quick(epsilon=0.2, max_epochs=1).fit(*few)
    quick(epsilon=0.2, step_size=0.03, max_epochs=1).fit(*few)
    assert sizes == [0.05, 0.03]


def test_an_attacked_network_keeps_its_statistics_and_its_modes():
    network = norms().train()
    network[2].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    inputs = torch.rand(6, 4)
    with attack_mode(network, batch_statistics=True):
        by_batch = network(inputs)
    with attack_mode(network, batch_statistics=False):
        by_history = network(inputs)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert [m.training for m in network] == [True, True, False, True]
    assert network[1].track_running_stats
    expected = nn.functional.batch_norm(
        network[0](inputs), None, None, network[1].weight, network[1].bias, training=True
    )
    torch.testing.assert_close(by_batch, network[3](expected))
    torch.testing.assert_close(by_history, network.eval()(inputs))


def test_perturbed_weights_lie_uphill_at_the_relative_size_and_leave_no_trace():
    network = nn.Linear(3, 2).double()
    inputs, labels = torch.rand(5, 3).double(), torch.tensor([0, 1, 0, 1, 1])

    def loss(ask):
        return nn.functional.cross_entropy(ask(inputs), labels)

    (gradient,) = torch.autograd.grad(loss(network), network.weight)
    weight = network.weight.detach().clone()
    ask = perturbed(network, network, loss, 0.1)
    moved = weight + 0.1 * weight.norm() * gradient / gradient.norm()
    torch.testing.assert_close(
        ask(inputs), nn.functional.linear(inputs, moved, network.bias), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(network.weight, weight, rtol=0, atol=0)

    # The gradient at the moved weights is what the network is trained with.
    loss(ask).backward()
    shifted = moved.clone().requires_grad_()
    expected = nn.functional.cross_entropy(
        nn.functional.linear(inputs, shifted, network.bias), labels
    )
    torch.testing.assert_close(network.weight.grad, torch.autograd.grad(expected, shifted)[0])


# --- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["trades", "pgd", "mart"])
def test_adversarial_training_is_robust_where_plain_training_is_not(digits, held, objective):
    settings = {"max_epochs": 20, "learning_rate": 3e-3}
    fitted = quick(objective=objective, **settings).fit(*digits)
    plain = UndefendedClassifier(narrow, random_state=0, **settings).fit(*digits)
    assert robust(fitted.model_, held) > robust(plain.model_, held) + 0.15
    assert fitted.score(*held) > 0.93


@pytest.mark.parametrize("objective", ["rslad", "ard", "iad", "adaad"])
def test_a_student_of_a_robust_teacher_is_robust(digits, held, trades, objective):
    settings = {"objective": objective, "max_epochs": 20, "learning_rate": 3e-3}
    fitted = quick(RobustDistiller, teacher=trades, **settings).fit(*digits)
    plain = UndefendedClassifier(narrow, random_state=0, max_epochs=20).fit(*digits)
    assert robust(fitted.student_, held) > robust(plain.model_, held) + 0.15
    assert fitted.score(*held) > 0.9


def test_no_finding_is_raised_for_a_robust_network(trades, held):
    report = evaluate(trades, *held, epsilon=EPSILON, attacks="quick", random_state=0)
    assert [finding.code for finding in report.findings] == []


def test_the_first_loss_is_the_formula_on_attacked_inputs(digits):
    X, y = digits[0][:64], digits[1][:64]

    def attack(network, inputs, labels):
        return (inputs + 0.01).clamp(0, 1)

    settings = {"attack": attack, "learning_rate": 1e-30, "max_epochs": 1, "batch_size": 64}
    fitted = quick(beta=3.0, label_smoothing=0.1, **settings).fit(X, y)
    with torch.no_grad():
        clean = fitted.model_(X)
        adversarial = fitted.model_((X + 0.01).clamp(0, 1))
    expected = functional.trades_loss(clean, adversarial, y, 3.0, 0.1).mean().item()
    assert fitted.history_[0]["loss"] == pytest.approx(expected, rel=1e-4)
    right = (adversarial.argmax(1) == y).double().mean().item()
    assert fitted.history_[0]["robust_accuracy"] == pytest.approx(right)


def test_any_attack_of_ours_may_take_the_place_of_the_ascent(digits, held):
    attack = partial(attacks.pgd, epsilon=EPSILON, steps=4, early_stop=False, random_state=0)
    fitted = quick(attack=attack, objective="pgd", max_epochs=8, learning_rate=3e-3).fit(*digits)
    assert robust(fitted.model_, held) > 0.5


def test_clean_accuracy_under_pgd_training_is_told_of_validation_examples_alone(digits, held):
    fitted = quick(objective="pgd").fit(*digits, validation=held)
    last = fitted.history_[-1]
    assert "accuracy" not in last
    assert last["validation_accuracy"] == pytest.approx(fitted.score(*held))
    assert last["validation_robust_accuracy"] <= last["validation_accuracy"]


def test_without_bounds_the_extremes_of_the_data_are_kept(digits):
    X, y = digits
    seen = []

    def watch(module, inputs):
        seen.append(inputs[0].detach().aminmax())

    network = narrow(None, 10)
    network.register_forward_pre_hook(watch)
    settings = {"epsilon": 4.0, "steps": 2, "max_epochs": 1, "random_state": 0}
    AdversarialTrainer(network, **settings).fit(4 * X[:100] - 2, y[:100])
    assert min(low for low, _ in seen) == -2.0
    assert max(high for _, high in seen) == 2.0


def test_validation_data_in_memory_may_reach_farther_than_x(digits):
    X, y = digits
    fitted = quick(max_epochs=1).fit(X[:64] / 2, y[:64], validation=(X[64:128], y[64:128]))
    assert "validation_robust_accuracy" in fitted.history_[-1]


def test_a_loader_outside_the_unit_interval_must_name_its_bounds(digits):
    X, y = digits
    loader = DataLoader(TensorDataset(4 * X[:64] - 2, y[:64]), 32)
    with pytest.raises(ValueError, match="X must"):
        quick().fit(loader)
    quick(bounds=(-2.0, 2.0)).fit(loader)


def test_a_teacher_may_be_an_estimator_its_network_or_left_to_be_trained(digits, trades):
    X, y = digits[0][:200], digits[1][:200]
    one = quick(RobustDistiller, teacher=trades).fit(X, y)
    other = quick(RobustDistiller, teacher=trades.model_).fit(X, y)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    assert [record["stage"] for record in one.history_] == ["student"] * 2
    own = quick(RobustDistiller, teacher=narrow).fit(X, y)
    assert [record["stage"] for record in own.history_] == ["teacher"] * 2 + ["student"] * 2
    with pytest.raises(ValueError, match="teacher must be fitted"):
        quick(RobustDistiller, teacher=quick()).fit(X, y)


class Recording(nn.Module):
    """Remembers the inputs that a network in training was shown."""

    def __init__(self):
        super().__init__()
        self.inner, self.seen = narrow(None, 10), []

    def forward(self, inputs):
        if self.training:
            self.seen.append(inputs.detach().clone())
        return self.inner(inputs)


def test_extra_examples_make_up_their_share_of_every_batch(digits):
    X, y = digits[0][:120], digits[1][:120]
    marked = torch.ones(50, 1, 8, 8), torch.zeros(50, dtype=torch.int64)
    shares = []

    def attack(network, inputs, labels):
        shares.append((inputs == 1).flatten(1).all(1).double().mean().item())
        return inputs

    settings = {"attack": attack, "batch_size": 40, "extra_fraction": 0.75, "max_epochs": 2}
    quick(**settings).fit(X, y, extra=marked)
    assert len(shares) == 2 * 12  # 10 of every 40 are X's: 120 / 10 batches an epoch
    assert shares == [0.75] * 24


def test_extra_examples_go_on_from_epoch_to_epoch(digits):
    X, y = digits[0][:20], digits[1][:20]
    extra = torch.arange(1, 41).reshape(40, 1, 1, 1) / 100 * torch.ones(1, 1, 8, 8)
    seen = []

    def attack(network, inputs, labels):
        flat = inputs.flatten(1)
        seen.extend(flat[(flat == flat[:, :1]).all(1), 0].tolist())
        return inputs

    settings = {"attack": attack, "batch_size": 20, "extra_fraction": 0.5, "max_epochs": 2}
    quick(**settings).fit(X, y, extra=(extra, torch.zeros(40, dtype=torch.int64)))
    assert len(set(seen)) == 40  # two epochs of two batches of ten: every one once


FORMS = {
    "tensor": lambda X: X,
    "loader": lambda X: DataLoader(TensorDataset(X), 70, shuffle=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_extra_examples_of_a_student_are_labelled_by_the_teacher(digits, trades, form):
    X, y = digits
    told = {}

    def attack(network, inputs, labels):
        told.update(zip((row.numpy().tobytes() for row in inputs), labels.tolist(), strict=True))
        return inputs

    settings = {"teacher": trades, "attack": attack}
    quick(RobustDistiller, **settings).fit(X[:100], y[:100], extra=FORMS[form](X[100:200]))
    expected = trades.predict(X[100:200]).tolist()
    assert [told[row.numpy().tobytes()] for row in X[100:200]] == expected


@pytest.mark.parametrize(
    ("first", "second"), [(100, None), (None, 60), (100, 60)], ids=["X", "extra", "both"]
)
def test_the_share_of_extra_examples_holds_for_loaders(digits, first, second):
    X, y = digits[0][:200], digits[1][:200]
    marked = torch.ones(300, 1, 8, 8), torch.zeros(300, dtype=torch.int64)
    shares = []

    def attack(network, inputs, labels):
        shares.append((inputs == 1).flatten(1).all(1).double().mean().item())
        return inputs

    def given(data, size):
        return data if size is None else DataLoader(TensorDataset(*data), size)

    fitted = quick(attack=attack, extra_fraction=0.6, max_epochs=1, batch_size=100)
    fitted.fit(given((X, y), first), extra=given(marked, second))
    # Two loaders keep their own batches.
    assert shares[0] == pytest.approx(60 / 160 if first and second else 0.6, abs=0.01)


OUTSIDE = {
    "pair": lambda X, y: (X, y),
    "TensorDataset": TensorDataset,
    "loader": lambda X, y: DataLoader(TensorDataset(X, y), 50),
}


@pytest.mark.parametrize("form", OUTSIDE)
def test_bounds_hold_for_the_last_example_of_all_data(digits, held, form):
    X, y = digits[0][:120], digits[1][:120]
    outside = X.clone()
    outside[-1, 0, 0, 0] = 1.5
    spoilt = OUTSIDE[form](outside, y)
    trainer = quick(bounds=(0.0, 1.0), max_epochs=1)
    for name, call in {
        "X": lambda: trainer.fit(spoilt),
        "validation": lambda: trainer.fit(X, y, validation=spoilt),
        "extra": lambda: trainer.fit(X, y, extra=spoilt),
    }.items():
        with pytest.raises(ValueError, match=rf"{name} must be within bounds \(0.0, 1.0\)"):
            call()


@pytest.mark.parametrize("form", FORMS)
def test_bounds_hold_for_extra_examples_of_a_student(digits, trades, form):
    X, y = digits[0][:120], digits[1][:120]
    outside = X.clone()
    outside[-1, 0, 0, 0] = 1.5
    student = quick(RobustDistiller, teacher=trades, max_epochs=3, batch_size=40)
    with pytest.raises(ValueError, match=r"extra must be within bounds \(0.0, 1.0\)"):
        student.fit(X, y, extra=FORMS[form](outside))


def test_extra_examples_are_refused_as_bytes_or_as_a_pair(digits, trades):
    X, y = digits[0][:60], digits[1][:60]
    student = quick(RobustDistiller, teacher=trades, max_epochs=1)
    for data in ((X * 255).byte(), (X * 255).byte().numpy()):
        with pytest.raises(TypeError, match="extra must be floating point, got uint8 images"):
            student.fit(X, y, extra=data)
    with pytest.raises(TypeError, match="extra must be examples without labels, got a tuple"):
        student.fit(X, y, extra=(X, y))


@pytest.mark.parametrize("fraction", [0, 1.0])
def test_a_share_of_nothing_or_all_is_refused(digits, fraction):
    with pytest.raises(ValueError, match="extra_fraction must be above 0 and below 1, got"):
        quick(extra_fraction=fraction).fit(*digits)


def test_a_teacher_of_other_classes_is_refused(digits, trades):
    X, y = digits[0][:60], digits[1][:60]
    with pytest.raises(ValueError, match=r"teacher must know the classes of y, \[1, .* got \[0"):
        quick(RobustDistiller, teacher=trades).fit(X, y + 1)


def test_the_recipe_is_the_published_configuration():
    trainer = AdversarialTrainer.from_recipe("bartoldson2024", narrow, max_epochs=3)
    told = trainer.get_params()
    assert {k: told[k] for k in ("objective", "beta", "label_smoothing", "steps")} == {
        "objective": "trades",
        "beta": 5.0,
        "label_smoothing": 0.1,
        "steps": 10,
    }
    assert told["step_size"] * 255 == pytest.approx(2)
    assert (told["weight_averaging"], told["learning_rate"]) == (0.995, 0.1)
    assert told["max_epochs"] == 3
    published = AdversarialTrainer.from_recipe("bartoldson2024", narrow).get_params()
    # 500 million synthetic images and 10,000 epochs of 25 batches of 2,048.
    assert {k: published[k] for k in ("max_epochs", "batch_size", "extra_fraction", "norm")} == {
        "max_epochs": 10_000,
        "batch_size": 2048,
        "extra_fraction": 0.875,
        "norm": "linf",
    }
    assert (published["batch_statistics"], published["bounds"]) == (True, (0.0, 1.0))
    assert published["epsilon"] * 255 == pytest.approx(8)
    assert published["lr_scheduler"] == "warmup_cosine"
    with pytest.raises(ValueError, match="recipe must be one of 'bartoldson2024', got 'best'"):
        AdversarialTrainer.from_recipe("best")


def test_the_recipe_trains(digits):
    X, y = digits
    trainer = AdversarialTrainer.from_recipe(
        "bartoldson2024", narrow, max_epochs=4, batch_size=256, learning_rate=0.5, random_state=0
    )
    trainer.fit(X[:300], y[:300], extra=(X[300:], y[300:]))
    rates = [record["learning_rate"] for record in trainer.history_]
    assert rates[0] > rates[-1]
    decays = {
        group["weight_decay"]
        for group in trainer.optimizer(
            [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))], lr=1.0
        ).param_groups
    }
    assert decays == {5e-4, 0.0}


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"objective": "fgsm"}, ValueError, "objective must be one of 'trades', 'pgd', 'mart'"),
        ({"epsilon": 0.0}, ValueError, "epsilon must be"),
        ({"norm": "l7"}, ValueError, "norm must be one of"),
        ({"steps": 0}, ValueError, "steps must be"),
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds must"),
        (
            {"bounds": (torch.zeros(64), 1.0)},
            TypeError,
            r"bounds must be two numbers for training, got Tensor of shape \(64,\)",
        ),
        ({"attack": 3}, TypeError, "attack must be None or callable, got int"),
        ({"beta": -1.0}, ValueError, "beta must be"),
    ],
)
def test_what_robust_training_cannot_use_is_refused(digits, settings, error, told):
    with pytest.raises(error, match=told):
        quick(**settings).fit(*digits)


def weights(network):
    return torch.cat([each.detach().flatten() for each in network.parameters()])


@pytest.mark.parametrize("setting", [{"label_smoothing": 0.5}, {"weight_perturbation": 0.05}])
def test_a_robust_teacher_is_trained_with_the_settings_of_all_robust_training(digits, setting):
    X, y = digits[0][:64], digits[1][:64]
    plain, other = (
        quick(RobustDistiller, max_epochs=1, steps=1, **more).fit(X, y) for more in ({}, setting)
    )
    assert not torch.equal(weights(plain.teacher_), weights(other.teacher_))


def test_a_robust_teacher_of_the_students_kind_starts_as_the_student_does(digits):
    X, y = digits[0][:64], digits[1][:64]
    still = {"optimizer": "sgd", "learning_rate": 1e-12, "max_epochs": 1, "steps": 1}
    distiller = quick(RobustDistiller, **still).fit(X, y)
    torch.testing.assert_close(weights(distiller.teacher_), weights(distiller.student_))
