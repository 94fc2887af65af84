"""What DefensiveDistiller promises beyond scikit-learn's contract."""

import copy
import pickle
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from distillguard import DefensiveDistiller, UndefendedClassifier, attacks, datasets, functional
from distillguard.exceptions import DivergenceError


@pytest.fixture(scope="module")
def digits():
    return datasets.load_digits("train")


@pytest.fixture(scope="module")
def distilled(digits):
    return DefensiveDistiller(temperature=100.0, max_epochs=25, random_state=0).fit(*digits)


def small(**settings) -> DefensiveDistiller:
    return DefensiveDistiller(**{"max_epochs": 2, "random_state": 0, **settings})


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Counting(nn.Sequential):
    """Counts the examples that go through it, over all its copies."""

    seen: ClassVar[list[int]] = []

    def forward(self, inputs):
        self.seen.append(len(inputs))
        return super().forward(inputs)


# --- the algorithm ---------------------------------------------------------------------------


def test_training_at_t_is_training_at_1_in_units_of_t(digits):
    # 64 is a power of two, so multiplying by it rounds nothing: the two runs agree bit for bit.
    at_1 = small(temperature=1.0, precision="64-true").fit(*digits)
    at_64 = small(temperature=64.0, precision="64-true").fit(*digits)
    X = digits[0]
    np.testing.assert_allclose(
        at_64.decision_function(X), 64 * at_1.decision_function(X), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        [record["loss"] for record in at_64.history_],
        [record["loss"] for record in at_1.history_],
        rtol=1e-6,
    )


def test_the_last_layer_is_a_plain_layer_again_after_training(digits):
    fitted = small().fit(*digits)
    assert [type(part).__name__ for part in fitted.student_.modules()][-1] == "Linear"
    assert not any("parametrizations" in name for name in fitted.student_.state_dict())


def test_teacher_and_student_start_from_the_same_weights(digits):
    fitted = small(learning_rate=1e-30, max_epochs=1).fit(*digits)
    pairs = zip(fitted.teacher_.parameters(), fitted.student_.parameters(), strict=True)
    assert all(torch.allclose(teacher, student, atol=1e-20) for teacher, student in pairs)


def test_the_first_loss_of_each_stage_is_the_papers_formula(digits):
    X, y = digits
    T = 20.0
    fitted = small(temperature=T, learning_rate=1e-30, max_epochs=1).fit(X, y)
    with torch.no_grad():
        logits = fitted.teacher_(X)
    log_f = torch.log_softmax(logits / T, dim=1)
    hard = -log_f.gather(1, y[:, None]).mean().item()
    soft = -(log_f.exp() * log_f).sum(dim=1).mean().item()
    assert fitted.history_[0]["loss"] == pytest.approx(hard, rel=1e-5)
    assert fitted.history_[1]["loss"] == pytest.approx(soft, rel=1e-5)


def test_the_student_learns_the_teachers_soft_labels_not_the_hard_ones(digits):
    X, y = digits
    wrong = (y + 1) % 10
    teacher = UndefendedClassifier(max_epochs=15, random_state=0).fit(X, y).model_
    fitted = DefensiveDistiller(
        temperature=2.0, teacher=teacher, prefit_teacher=True, max_epochs=25, random_state=0
    ).fit(X, wrong)
    assert same_weights(fitted.teacher_, teacher)
    assert np.mean(fitted.predict(X) == y.numpy()) > 0.95


def test_a_trained_teacher_ends_in_eval_mode_and_the_given_one_as_it_was(digits):
    given = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    fitted = small(teacher=given, prefit_teacher=True).fit(*digits)
    assert not any(part.training for part in fitted.teacher_.modules())
    assert all(part.training for part in given.modules())


def test_weight_one_at_temperature_one_is_training_on_hard_labels_alone(digits):
    fitted = small(temperature=1.0, hard_label_weight=1.0).fit(*digits)
    baseline = UndefendedClassifier(max_epochs=2, random_state=0).fit(*digits)
    assert same_weights(fitted.student_, baseline.model_)


def test_hinton_s_loss_weighs_the_two_terms_with_t_squared(digits):
    X, y = digits
    T, w = 4.0, 0.25
    fitted = small(temperature=T, hard_label_weight=w, learning_rate=1e-30, max_epochs=1)
    fitted.fit(X, y)
    with torch.no_grad():
        z = fitted.student_(X)
        expected = functional.distillation_loss(z, z, y, T, w).mean().item()
    assert fitted.history_[-1]["loss"] == pytest.approx(expected, rel=1e-5)


def test_logits_grow_t_fold_and_cross_entropy_goes_blind_while_the_margin_sees(distilled):
    X, y = datasets.load_digits("test")
    X, y = X[:200], y[:200]
    network = distilled.student_

    def accuracy(loss: str) -> float:
        adversarial = attacks.pgd(network, X, y, epsilon=0.3, loss=loss, steps=20, random_state=0)
        return float((distilled.predict(adversarial) == y.numpy()).mean())

    assert np.abs(distilled.decision_function(X)).mean() > 100
    assert accuracy("cross_entropy") > 0.6
    assert accuracy("margin") < 0.05
    assert accuracy("rescaled_cross_entropy") < 0.05


def test_a_large_teacher_may_teach_a_small_student(digits):
    def narrow(shape, n):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, n))

    def wide(shape, n):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n))

    fitted = small(module=narrow, teacher=wide, max_epochs=15, learning_rate=0.01).fit(*digits)
    assert fitted.teacher_[1].out_features == 64
    assert fitted.student_[1].out_features == 8
    assert fitted.score(*digits) > 0.85


# --- what predictions are ---------------------------------------------------------------------


def test_predictions_are_at_temperature_1_and_soft_labels_at_t(distilled):
    X = datasets.load_digits("test")[0][:50]
    with torch.no_grad():
        student, teacher = distilled.student_(X).double(), distilled.teacher_(X).double()
    np.testing.assert_allclose(distilled.predict_proba(X), student.softmax(1), atol=1e-6)
    np.testing.assert_allclose(distilled.soft_labels(X), (teacher / 100).softmax(1), atol=1e-6)
    np.testing.assert_allclose(distilled.soft_labels(X, 5), (teacher / 5).softmax(1), atol=1e-6)
    np.testing.assert_array_equal(distilled.predict(X), student.argmax(1))


def test_soft_labels_soften_towards_uniform_as_the_temperature_grows(distilled):
    X = datasets.load_digits("test")[0][:50]
    highest = [distilled.soft_labels(X, T).max(axis=1).mean() for T in (1, 100, 1e4, 1e8)]
    assert highest == sorted(highest, reverse=True)
    assert highest[-1] == pytest.approx(0.1, abs=1e-3)


def test_string_labels_come_back_as_strings(digits):
    X, y = digits
    names = np.array(["zero", "one", "two"])[y[y < 3]]
    fitted = small(max_epochs=10).fit(X[y < 3], names)
    assert list(fitted.classes_) == ["one", "two", "zero"]
    assert np.mean(fitted.predict(X[y < 3]) == names) > 0.95


# --- data of every kind ------------------------------------------------------------------------


class Pairs(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], int(self.y[i])


class Stream(IterableDataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __iter__(self):
        return iter(zip(self.X, self.y, strict=True))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda X, y: (X.numpy(), y.numpy()), id="arrays"),
        pytest.param(lambda X, y: (X.double().numpy(), y.tolist()), id="float64 and a list"),
        pytest.param(lambda X, y: ((X, y),), id="a pair"),
        pytest.param(lambda X, y: (TensorDataset(X, y),), id="TensorDataset"),
        pytest.param(lambda X, y: (Pairs(X, y),), id="Dataset"),
        pytest.param(lambda X, y: (DataLoader(Pairs(X, y), 100, shuffle=True),), id="loader"),
        pytest.param(
            lambda X, y: (DataLoader(TensorDataset(X, y), 100, shuffle=True),), id="plain loader"
        ),
        pytest.param(lambda X, y: (DataLoader(Stream(X, y), 100),), id="stream"),
    ],
)
def test_fit_takes_examples_of_every_kind(digits, given):
    fitted = small(max_epochs=10).fit(*given(*digits))
    assert fitted.score(*digits) > 0.85
    assert fitted.n_features_in_ == 64
    assert list(fitted.classes_) == list(range(10))


def test_a_memory_mapped_array_is_read_in_place(digits, tmp_path):
    X, y = digits
    np.save(tmp_path / "X.npy", X.numpy())
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    in_memory = small().fit(X, y)
    assert same_weights(small().fit(mapped, y).student_, in_memory.student_)


def test_soft_labels_are_computed_once_for_known_examples_and_per_batch_otherwise(digits):
    X, y = digits[0][:200], digits[1][:200]
    teacher = Counting(nn.Flatten(), nn.Linear(64, 10))
    settings = {"teacher": teacher, "prefit_teacher": True, "max_epochs": 3}

    def asked(data) -> int:
        Counting.seen.clear()
        small(**settings).fit(*data)
        return sum(Counting.seen)

    looked_at = 2  # once, to see how many logits the teacher gives
    assert asked((X, y)) == 200 + looked_at
    assert asked((DataLoader(TensorDataset(X, y), 50, shuffle=True),)) == 200 + looked_at
    assert asked((DataLoader(Pairs(X, y), 50, shuffle=True),)) == 3 * 200 + looked_at


def test_soft_labels_of_a_plain_loader_meet_their_own_examples(digits):
    # The same order of batches with soft labels looked up by index or computed on the batch.
    X, y = digits[0][:200], digits[1][:200]
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    by_index = small(module=module).fit(DataLoader(TensorDataset(X, y), 50))
    by_batch = small(module=module).fit(DataLoader(Pairs(X, y), 50))
    for one, other in zip(
        by_index.student_.parameters(), by_batch.student_.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_last_batch_of_one_example_does_not_stop_batch_norm(digits):
    X, y = digits[0][:101], digits[1][:101]
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
    fitted = small(module=module, batch_size=20).fit(X, y)
    assert fitted.n_iter_ == 2


# --- nothing surprises -------------------------------------------------------------------------


def test_the_given_module_is_copied_and_never_changed(digits):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = copy.deepcopy(module.state_dict())
    fitted = small(module=module).fit(*digits)
    assert fitted.module is module
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_the_seed_decides_and_the_global_generators_are_untouched(digits):
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = small().fit(*digits), small().fit(*digits)
    other = small(random_state=1).fit(*digits)
    assert same_weights(first.student_, again.student_)
    assert not same_weights(first.student_, other.student_)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_fit_starts_afresh_unless_warm_start(digits):
    distiller = small().fit(*digits)
    once = copy.deepcopy(distiller.student_)
    assert same_weights(distiller.fit(*digits).student_, once)
    warm = small(warm_start=True).fit(*digits)
    loss = warm.history_[0]["loss"]
    assert warm.fit(*digits).history_[0]["loss"] < 0.8 * loss


def test_warm_start_goes_on_from_the_very_weights(digits):
    warm = small(warm_start=True).fit(*digits)
    before = copy.deepcopy(warm.student_)
    warm.set_params(learning_rate=1e-30).fit(*digits)
    for one, other in zip(before.parameters(), warm.student_.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_history_has_one_record_per_epoch_and_stage(digits):
    fitted = small(max_epochs=3).fit(*digits)
    assert [(r["stage"], r["epoch"]) for r in fitted.history_] == [
        (stage, epoch) for stage in ("teacher", "student") for epoch in (1, 2, 3)
    ]
    assert all(0 <= record["accuracy"] <= 1 for record in fitted.history_)
    assert fitted.n_iter_ == 3


def test_early_stopping_ends_a_stage_and_keeps_the_best_weights(digits):
    X, y = digits[0][:200], digits[1][:200]
    logits = []

    class Watch:
        def on_epoch(self, record, network):
            if record["stage"] == "student":
                logits.append(network(X).detach())

    settings = {"early_stopping": True, "patience": 3, "learning_rate": 0.05}
    fitted = small(max_epochs=200, callbacks=[Watch()], **settings).fit(X, y)
    losses = [r["validation_loss"] for r in fitted.history_ if r["stage"] == "student"]
    assert len(losses) < 200
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    torch.testing.assert_close(fitted.student_(X).detach(), logits[losses.index(min(losses))])
    assert not torch.equal(logits[-1], logits[losses.index(min(losses))])


def test_a_callback_sees_every_epoch_and_may_stop_the_stage(digits):
    class Stop:
        seen: ClassVar[list[tuple[str, int]]] = []

        def on_epoch(self, record, network):
            self.seen.append((record["stage"], record["epoch"]))
            return record["epoch"] == 2

    small(max_epochs=5, callbacks=[Stop()]).fit(*digits)
    assert Stop.seen == [("teacher", 1), ("teacher", 2), ("student", 1), ("student", 2)]


def test_bf16_training_reaches_the_accuracy_of_float32(digits):
    single = small(max_epochs=15).fit(*digits).score(*digits)
    mixed = small(max_epochs=15, precision="bf16-mixed").fit(*digits).score(*digits)
    assert abs(single - mixed) < 0.02


def test_the_progress_bar_shows_loss_and_accuracy(digits, capsys):
    small(max_epochs=1, verbose=True).fit(*digits)
    shown = capsys.readouterr().err
    assert "teacher 1/1" in shown
    assert "loss=" in shown
    assert "accuracy=" in shown


def test_divergence_is_an_error_that_leaves_the_last_good_weights(digits):
    distiller = small(optimizer="sgd", learning_rate=1e30)
    with pytest.raises(DivergenceError, match=r"teacher diverged in epoch 1.*smaller"):
        distiller.fit(*digits)
    assert all(p.isfinite().all() for p in distiller.teacher_.parameters())


def test_divergence_leaves_the_averaged_weights_of_the_last_good_epoch(digits):
    X, y = digits
    batches = -(-len(X) // 64)

    def breaks_in_epoch_three(optimizer, total_steps):
        return LambdaLR(optimizer, lambda step: 1.0 if step < 2 * batches else 1e38)

    settings = {"weight_averaging": 0.9, "batch_size": 64, "random_state": 0}
    settings |= {"optimizer": "sgd", "lr_scheduler": breaks_in_epoch_three}
    broken = UndefendedClassifier(max_epochs=3, **settings)
    with pytest.raises(DivergenceError, match="diverged in epoch 3"):
        broken.fit(X, y)
    whole = UndefendedClassifier(max_epochs=2, **settings).fit(X, y)
    np.testing.assert_array_equal(broken.decision_function(X), whole.decision_function(X))
    live = UndefendedClassifier(max_epochs=2, **settings | {"weight_averaging": None}).fit(X, y)
    assert not np.allclose(live.decision_function(X), whole.decision_function(X))


def test_divergence_tells_the_epochs_before_it_and_the_one_that_failed(digits):
    class Poison:
        def on_epoch(self, record, network):
            if record["epoch"] == 2:
                with torch.no_grad():
                    next(network.parameters()).fill_(float("nan"))

    distiller = small(max_epochs=5, callbacks=[Poison()], weight_averaging=None)
    with pytest.raises(DivergenceError, match="diverged in epoch 3") as caught:
        distiller.fit(*digits)
    assert [record["epoch"] for record in caught.value.history] == [1, 2, 3]
    assert not np.isfinite(caught.value.history[-1]["loss"])
    assert distiller.history_ == caught.value.history[:-1]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert len(again.history) == 3


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, "temperature must be a finite number above 0, got 0.0"),
        ({"temperature": float("nan")}, ValueError, "temperature must be .* above 0, got nan"),
        ({"temperature": float("inf")}, ValueError, "temperature must be .* above 0, got inf"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number, got 'hot'"),
        ({"hard_label_weight": 1.5}, ValueError, r"hard_label_weight must be in \[0, 1\], got 1.5"),
        ({"max_epochs": 0}, ValueError, "max_epochs must be at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an integer, got 2.5"),
        ({"optimizer": "magic"}, ValueError, "optimizer must be one of 'adam'.* got 'magic'"),
        ({"lr_scheduler": "magic"}, ValueError, "lr_scheduler must be one of .* got 'magic'"),
        ({"precision": "8-bit"}, ValueError, "precision must be one of .* got '8-bit'"),
        ({"device": "abacus"}, ValueError, "device must be 'auto' or a torch device"),
        ({"module": 3}, TypeError, "module must be an nn.Module, a callable .* got int"),
        ({"module": lambda s, n: 3}, TypeError, "module must be .* got one that returns int"),
        ({"prefit_teacher": True}, TypeError, "teacher must be a trained nn.Module"),
        (
            {"prefit_teacher": True, "teacher": SimpleNamespace(model_=nn.Linear(64, 10))},
            TypeError,
            "prefit_teacher=True, got SimpleNamespace; pass its model_",
        ),
        (
            {"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 7))},
            ValueError,
            "module must return one logit for each of the 10 classes, got 7",
        ),
        (
            {"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))},
            ValueError,
            "module must return logits, got rows in .* remove the final softmax",
        ),
    ],
)
def test_wrong_parameters_are_refused_with_the_rule_and_the_value(digits, settings, error, message):
    with pytest.raises(error, match=message):
        small(**settings).fit(*digits)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (lambda X, y: (X * float("nan"), y), ValueError, "NaN"),
        (
            lambda X, y: (X, y[:-1]),
            ValueError,
            "y must have one label for each of 1442 inputs, got 1441",
        ),
        (lambda X, y: (X, y * 0), ValueError, "at least two classes, got one class: 0"),
        (lambda X, y: (X, y + 0.5), ValueError, "[Uu]nknown label type"),
        (
            lambda X, y: ((X * 255).byte(), y),
            TypeError,
            "X must be floating point, got uint8 images; divide by 255",
        ),
        (lambda X, y: (TensorDataset(X, y), y), TypeError, "y must be None when X yields pairs"),
        (
            lambda X, y: (DataLoader(TensorDataset(X[:0], y[:0])),),
            ValueError,
            "one example",
        ),
        (lambda X, y: (DataLoader(X, 10),), TypeError, "yield pairs .* got Tensor of shape"),
        (
            lambda X, y: (DataLoader(Pairs((X * 255).byte(), y), 10),),
            TypeError,
            "X must be floating point, got uint8 images",
        ),
        (
            lambda X, y: (DataLoader(TensorDataset(X, y + 0.5), 10),),
            TypeError,
            "labels in X must hold integer classes, got 0.5",
        ),
        (
            lambda X, y: (DataLoader(Pairs(X / 0, y), 10),),
            ValueError,
            "X must be finite, got NaN or infinity",
        ),
    ],
)
def test_wrong_data_is_refused_with_the_remedy(digits, data, error, message):
    with pytest.raises(error, match=message):
        small().fit(*data(*digits))


def test_a_label_beyond_the_network_s_classes_is_refused(digits):
    X, y = digits
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    for data in (DataLoader(Pairs(X, y), 50), TensorDataset(X, y)):
        with pytest.raises(ValueError, match="labels in X must be classes from 0 to 4, got"):
            small(module=module).fit(data)


def test_prediction_on_another_shape_is_refused(distilled):
    with pytest.raises(
        ValueError, match=r"X must hold examples of shape \(1, 8, 8\) as in fit, got \(1, 9, 9\)"
    ):
        distilled.predict(torch.zeros(2, 1, 9, 9))


def test_an_attack_on_the_estimator_itself_names_the_network_to_pass(distilled, digits):
    with pytest.raises(TypeError, match="got DefensiveDistiller; pass its model_"):
        attacks.fgsm(distilled, *digits, epsilon=0.1)


def test_soft_labels_refuse_a_temperature_of_zero(distilled, digits):
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, got 0"):
        distilled.soft_labels(digits[0], 0)
