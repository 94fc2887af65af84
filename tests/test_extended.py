"""Extended distillation: labels with a class of outliers, and a classifier that may refuse."""

import pickle
import warnings
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distillguard import ExtendedDistiller, UndefendedClassifier, attacks, datasets, evaluate, load
from distillguard._data._batch import Batch
from distillguard._rejection import rejects
from distillguard.estimators._calibration import calibrate_offset
from distillguard.estimators._extended import Doubts, logit_variance, moved_to_outliers
from distillguard.networks import Rejecting, mlp

SMALL = partial(mlp, hidden=(32,), dropout=0.3)


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    return X[:400], y[:400]


@pytest.fixture(scope="module")
def fitted(digits):
    settings = {"outlier_weight": 0.7, "max_epochs": 40, "learning_rate": 5e-3}
    return ExtendedDistiller(SMALL, **settings, random_state=0).fit(*digits)


class Coin(nn.Dropout):
    """Drops all of an example's features or none, in turn."""

    def __init__(self):
        super().__init__(0.5)
        self.turn = 0

    def forward(self, inputs):
        if not self.training:
            return inputs
        self.turn += 1
        return inputs * (2.0 if self.turn % 2 else 0.0)


def test_the_variance_is_the_mean_squared_distance_from_the_mean_logits():
    # Logits are 2 x or 0 in turn, their mean is x, and so is each one's distance from it.
    inputs = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    found = logit_variance(nn.Sequential(Coin()), inputs, passes=6)
    assert found.tolist() == [5.0, 0.0, 25.0]


def test_the_variance_of_a_linear_layer_is_that_of_the_bernoulli_masks():
    # z = W (m x / q), m Bernoulli(q) in each feature: var z_i = sum_j (W_ij x_j)^2 (1 - q) / q.
    torch.manual_seed(0)
    linear, inputs, q = nn.Linear(5, 3), torch.rand(4, 5), 0.8
    expected = ((linear.weight[None] * inputs[:, None]) ** 2).sum((1, 2)) * (1 - q) / q
    found = logit_variance(nn.Sequential(nn.Dropout(1 - q), linear), inputs, passes=4000)
    torch.testing.assert_close(found, expected.detach(), rtol=0.1, atol=0)


def test_the_variance_of_half_precision_is_taken_in_single():
    drawn = (5 * torch.randn(9, 6, 3)).bfloat16()
    answers = iter(drawn)

    class Drawn(nn.Module):
        def forward(self, inputs):
            return next(answers)

    found = logit_variance(Drawn(), torch.zeros(6, 2), 9)
    expected = drawn.double().var(dim=0, correction=0).sum(dim=1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_variance_leaves_the_network_and_the_random_state_as_they_were():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs, state = torch.rand(8, 3), torch.get_rng_state()
    logit_variance(network, inputs, passes=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_mass_of_a_label_moves_to_the_last_column():
    found = moved_to_outliers(torch.tensor([1, 0]), torch.tensor([0.25, 0.0]), 3)
    assert found.tolist() == [[0.0, 0.75, 0.25], [1.0, 0.0, 0.0]]


def test_the_students_loss_is_the_cross_entropy_with_the_labels_of_its_definition(digits):
    # Nothing is learned, so that the recorded loss is that of the networks as they are.
    X, y = digits[0][:50].flatten(1), digits[1][:50]
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10))
    settings = {"learning_rate": 1e-30, "max_epochs": 1, "batch_size": 50}
    found = ExtendedDistiller(
        nn.Linear(64, 11),
        teacher=teacher,
        prefit_teacher=True,
        outlier_weight=0.8,
        false_positive_rate=None,
        **settings,
    )
    with warnings.catch_warnings(action="ignore"):  # of what nobody has learned to reject
        found.fit(X, y)
    doubt = torch.from_numpy(found.uncertainty(X))
    moved = 0.8 * doubt / doubt.max()
    with torch.no_grad():
        logs = found.model_(X).log_softmax(dim=1)
    own = logs.gather(1, y[:, None])[:, 0]
    expected = -((1 - moved) * own + moved * logs[:, -1]).mean()
    assert found.history_[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_outliers_are_what_the_teacher_is_unsure_of():
    # The second feature, which a fourth of the examples have, is all that moves the logits much.
    torch.manual_seed(0)
    X, marked = torch.rand(200, 2), torch.arange(200) % 4 == 0
    y = (X[:, 0] > 0.5).long()
    X[:, 1] = 3.0 * marked
    teacher = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
    with torch.no_grad():
        teacher[1].weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
    settings = {"max_epochs": 60, "learning_rate": 1e-2, "random_state": 0}
    found = ExtendedDistiller(
        mlp((2,), 3, hidden=(16,)),
        teacher=teacher,
        prefit_teacher=True,
        false_positive_rate=None,
        **settings,
    )
    with pytest.warns(UserWarning, match="rejects 2. % of the training examples"):
        found.fit(X, y)
    rejected = torch.from_numpy(found.predict(X) == -1)
    assert (rejected == marked).double().mean() > 0.97


def test_without_weight_on_outliers_nothing_is_rejected(digits):
    settings = {"max_epochs": 20, "learning_rate": 5e-3, "random_state": 0}
    found = ExtendedDistiller(SMALL, outlier_weight=0.0, **settings).fit(*digits)
    assert not (found.predict(digits[0]) == -1).any()
    assert found.score(*digits) > 0.85


def test_prediction_is_the_largest_column_and_the_last_one_rejects(fitted, digits):
    logits = fitted.decision_function(digits[0])
    assert logits.shape == (400, 11)
    winners = logits.argmax(axis=1)
    expected = np.where(winners == 10, -1, winners)
    assert np.array_equal(fitted.predict(digits[0]), expected)
    assert fitted.score(*digits) == np.mean(expected == digits[1].numpy())
    assert fitted.predict_proba(digits[0]).shape == (400, 11)
    assert rejects(fitted.model_)


def test_the_rejected_label_may_be_text_and_no_class(digits):
    names = np.array([f"digit {label}" for label in digits[1]])
    settings = {"max_epochs": 1, "random_state": 0}
    found = ExtendedDistiller(SMALL, rejected_label="nothing", **settings).fit(digits[0], names)
    assert set(found.predict(digits[0])) <= {"nothing", *names}
    with pytest.raises(ValueError, match="rejected_label must be none of the classes, got 3"):
        ExtendedDistiller(SMALL, rejected_label=3, **settings).fit(*digits)
    with pytest.raises(TypeError, match="rejected_label must be a number, got 'nothing'"):
        ExtendedDistiller(SMALL, rejected_label="nothing", **settings).fit(*digits)


def test_saves_pickles_and_clones_answer_alike(fitted, digits, tmp_path):
    fitted.save(tmp_path / "saved")
    expected, doubt = fitted.decision_function(digits[0]), fitted.uncertainty(digits[0])
    assert fitted.student_.offset < 0
    for again in (load(tmp_path / "saved"), pickle.loads(pickle.dumps(fitted))):
        assert again.false_alarms_ == fitted.false_alarms_
        assert np.array_equal(again.decision_function(digits[0]), expected)
        assert np.array_equal(again.uncertainty(digits[0]), doubt)
    assert clone(fitted).fit(*digits).decision_function(digits[0]).tolist() == expected.tolist()


def test_the_default_network_has_dropout_and_comes_back(digits, tmp_path):
    found = ExtendedDistiller(max_epochs=1, random_state=0).fit(*digits)
    found.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict(digits[0]), found.predict(digits[0]))
    kept = ExtendedDistiller().set_params(module__hidden=(16,)).module.keywords
    assert kept == {"dropout": 0.5, "hidden": (16,)}


def test_an_attack_fools_only_by_another_class(fitted, digits):
    X, y = digits[0][:60], digits[1][:60]
    points = attacks.pgd(fitted.model_, X, y, epsilon=0.3, random_state=0)
    moved = (points != X).flatten(1).any(dim=1)
    answers = torch.from_numpy(fitted.predict(points))
    clean = torch.from_numpy(fitted.predict(X))
    report = evaluate(fitted, X, y, epsilon=0.3, attacks="quick", random_state=0)
    assert bool(moved.any())
    assert report.clean_accuracy == pytest.approx((clean == y).double().mean().item())
    fooled = (answers != y) & (answers != -1) & (clean == y)
    assert report.robust_accuracy <= ((clean == y) & ~fooled).double().mean().item()
    assert report.rejection.clean == int((clean == -1).sum())


# --- how much is rejected -----------------------------------------------------------------------


class Scores(nn.Module):
    """Two classes that get 0, and outliers that get the input."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return torch.cat([torch.zeros_like(inputs).expand(-1, 2), self.scale * inputs], dim=1)


@given(st.integers(20, 200), st.floats(0.05, 0.5), st.integers(0, 1000))
def test_at_most_the_wanted_share_of_the_half_that_sets_the_offset_is_rejected(n, rate, seed):
    torch.manual_seed(seed)
    inputs, network = torch.randn(n, 1), Rejecting(Scores())
    alarms, shown = calibrate_offset(network, [inputs], rate, seed)
    answers = network(inputs).argmax(dim=1) == 2
    assert shown == n // 2
    assert int(answers.sum()) - alarms <= rate * (n - shown)
    # Not lower than it takes: the next example above the threshold is rejected.
    assert int(answers.sum()) - alarms >= rate * (n - shown) - 2 or network.offset == 0


def test_the_offset_is_hand_worked():
    # Of 20 leads 1, 2, ..., 20 the quantile at 10 % with its correction is the 19th of 20.
    network = Rejecting(Scores())
    leads = torch.arange(1.0, 21.0)[:, None]
    calibrate_offset(network, [leads, leads], 0.1, 0)
    alone = Rejecting(Scores())
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:20] % 20 + 1
    assert network.offset.item() == pytest.approx(-order.sort().values[18].item(), rel=1e-5)
    assert calibrate_offset(alone, [-leads], 0.1, 0) == (0, 10)
    assert alone.offset == 0


@pytest.fixture(scope="module")
def unsure():
    """Epochs after which the paper's rule still rejects most digits."""
    return {"max_epochs": 8, "learning_rate": 5e-3, "random_state": 0}


def test_rounding_rejects_no_example_that_sits_on_the_threshold():
    generator, network = torch.Generator().manual_seed(0), Rejecting(nn.Identity())
    for _ in range(100):
        best = torch.rand((), generator=generator)
        last = 2 + 50 * torch.rand((), generator=generator)
        inputs = torch.stack([best - 1, best, last]).repeat(12, 1)
        assert calibrate_offset(network, [inputs], 0.2, 0) == (0, 6)
        assert network.offset.item() == pytest.approx((best - last).item(), abs=1e-4)


def test_doubts_of_a_stream_are_shares_though_some_exceed_the_largest_known():
    teacher = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).eval()
    source = SimpleNamespace(
        identified=False, in_order=lambda: [Batch(torch.ones(3, 4), torch.zeros(3).long())]
    )
    runtime = SimpleNamespace(fabric=SimpleNamespace(autocast=nullcontext))
    doubts = Doubts(teacher, source, runtime, passes=5)
    found = doubts(Batch(torch.tensor([[9.0] * 4, [0.5] * 4]), torch.zeros(2).long()))
    assert found[0] == 1
    assert 0 < found[1] < 1


def test_no_more_clean_examples_are_rejected_than_was_asked_for(digits, unsure):
    X, y = datasets.load_digits("train")
    with pytest.warns(UserWarning, match="set false_positive_rate, train longer or lower outlier"):
        published = ExtendedDistiller(SMALL, false_positive_rate=None, **unsure).fit(X, y)
    found = ExtendedDistiller(SMALL, validation_fraction=0.3, **unsure).fit(X, y)
    X_test, y_test = datasets.load_digits("test")
    assert (published.predict(X_test) == -1).mean() > 0.2
    assert (found.predict(X_test) == -1).mean() < 0.12
    assert found.score(X_test, y_test) > published.score(X_test, y_test)
    low, high = found.false_positive_interval_
    assert low <= found.false_positive_rate_ <= high
    assert low <= 0.08
    assert found.false_alarms_[1] == round(0.3 * len(X)) // 2


def test_the_examples_of_validation_set_the_offset_where_there_are_any(digits, unsure):
    X, y = digits
    held = (X[300:], y[300:])
    found = ExtendedDistiller(SMALL, **unsure).fit(X[:300], y[:300], validation=held)
    again = ExtendedDistiller(SMALL, false_positive_rate=None, **unsure)
    with pytest.warns(UserWarning, match="of the held-out examples, which are clean"):
        again.fit(X[:300], y[:300], validation=held)
    assert found.false_alarms_[1] == 50
    assert again.false_alarms_[1] == 100
    # Both are of one training: what differs is the last column, by one number.
    difference = again.decision_function(X) - found.decision_function(X)
    assert not difference[:, :-1].any()
    assert difference[:, -1] == pytest.approx(-found.student_.offset.item(), rel=1e-4)
    assert again.set_params(false_positive_rate=0.05).calibrate(held[0]) is again
    assert again.false_alarms_[1] == 50
    assert (again.predict(X[300:]) == -1).mean() <= 0.1


def test_a_stream_without_validation_says_that_training_examples_had_to_do(digits):
    pairs = DataLoader(TensorDataset(*digits), batch_size=100)
    with pytest.warns(UserWarning, match="needs clean examples that are kept from training"):
        found = ExtendedDistiller(SMALL, max_epochs=1, random_state=0).fit(pairs)
    assert np.isnan(found.false_positive_rate_)
    assert (found.predict(digits[0]) == -1).mean() <= 0.05


def test_a_warm_start_trains_without_the_offset_of_the_last_fit(digits, unsure):
    found = ExtendedDistiller(SMALL, warm_start=True, **unsure).fit(*digits)
    expected = found.history_[-1]["validation_loss"]
    assert found.student_.offset < 0
    # Nothing is learned the second time: the loss is that of the networks as they were.
    found.set_params(learning_rate=1e-30, weight_averaging=None).fit(*digits)
    assert found.history_[-1]["validation_loss"] == pytest.approx(expected, rel=1e-3)


def test_the_onnx_graph_rejects_what_the_estimator_rejects(digits, unsure, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    found = ExtendedDistiller(SMALL, **unsure).fit(*digits)
    found.export_onnx(tmp_path / "extended.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "extended.onnx")
    (logits,) = session.run(["logits"], {"inputs": digits[0].numpy()})
    assert found.student_.offset < 0
    assert logits == pytest.approx(found.decision_function(digits[0]), abs=1e-4)


def test_a_loader_that_augments_gets_the_same_kind_of_labels(digits):
    pairs = [(digits[0][i : i + 100], digits[1][i : i + 100]) for i in range(0, 400, 100)]
    found = ExtendedDistiller(SMALL, max_epochs=1, random_state=0)
    found.fit(pairs, validation=digits)
    assert found.decision_function(digits[0]).shape == (400, 11)


def idle(shape, n):
    """A teacher whose dropout drops nothing."""
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(64, n))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"module": partial(mlp, hidden=(8,))}, ValueError, "module must have dropout"),
        ({"teacher": partial(mlp, hidden=(8,))}, ValueError, "teacher must have dropout"),
        ({"teacher": idle}, ValueError, "teacher must have dropout, by which"),
        ({"module": nn.Linear(64, 11)}, TypeError, "pass a teacher too"),
        (
            {"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "teacher": SMALL},
            ValueError,
            "module must return one logit for each of the 10 classes and one for rejection, got 10",
        ),
        ({"prefit_teacher": True}, TypeError, "teacher must be a trained nn.Module"),
        ({"outlier_weight": 1.5}, ValueError, r"outlier_weight must be in \[0, 1\]"),
        ({"dropout_passes": 1}, ValueError, "dropout_passes must be at least 2"),
        ({"false_positive_rate": 1.0}, ValueError, "false_positive_rate must be above 0 and below"),
    ],
)
def test_what_it_could_not_do_is_refused_in_a_sentence(digits, settings, error, message):
    with pytest.raises(error, match=message):
        ExtendedDistiller(**settings, max_epochs=1).fit(*digits)


def test_a_network_around_which_rejecting_stands_says_that_it_rejects():
    inner = nn.Linear(4, 3)
    inputs = torch.rand(2, 4)
    assert torch.equal(Rejecting(inner)(inputs), inner(inputs))
    assert rejects(Rejecting(inner))
    assert not rejects(inner)
    lower = Rejecting(inner, offset=-2.5)(inputs) - inner(inputs)
    torch.testing.assert_close(lower, torch.tensor([[0.0, 0.0, -2.5]]).expand(2, 3))
    with pytest.raises(TypeError, match="network must be a module, got"):
        Rejecting("a name")


def test_mlp_drops_out_after_each_hidden_layer_where_asked():
    kinds = [type(layer) for layer in mlp((4,), 2, hidden=(8, 8), dropout=0.2)]
    hidden = [nn.Linear, nn.ReLU, nn.Dropout]
    assert kinds == [nn.Flatten, *hidden, *hidden, nn.Linear]
    assert nn.Dropout not in map(type, mlp((4,), 2))


def test_the_baseline_keeps_its_default_network(digits):
    found = UndefendedClassifier(max_epochs=1).fit(*digits).model_
    assert not any(isinstance(layer, nn.Dropout) for layer in found)
