"""Parameters of training that change what an example counts, or how far a step goes."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    ExtendedDistiller,
    RobustDistiller,
    UndefendedClassifier,
    functional,
)

KINDS = (
    DefensiveDistiller,
    UndefendedClassifier,
    AdversarialTrainer,
    RobustDistiller,
    ExtendedDistiller,
)
generator = np.random.default_rng(0)
X = generator.random((90, 4), dtype=np.float32)
y = np.repeat([0, 1, 2], [60, 20, 10])


def dropping(shape, n_classes):
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(4, n_classes))


def frozen(kind=UndefendedClassifier, **settings):
    """Nothing is learned, so that the recorded loss is that of the initial weights."""
    settings = {"module": nn.Linear(4, 3), "learning_rate": 1e-30, "max_epochs": 1} | settings
    return kind(**settings, random_state=0)


def losses(fitted, inputs=X, labels=y):
    with torch.no_grad():
        logits = fitted.model_(torch.from_numpy(inputs))
    return nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy()


@pytest.mark.parametrize("batch_size", [90, 7])
def test_the_loss_is_the_mean_weighted_by_sample_weight(batch_size):
    weights = generator.random(90)
    fitted = frozen(batch_size=batch_size).fit(X, y, sample_weight=weights)
    expected = np.average(losses(fitted), weights=weights)
    assert fitted.history_[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_balanced_classes_weigh_the_same_together():
    fitted = frozen().fit(X, y)
    by_class = [losses(fitted)[y == label].mean() for label in range(3)]
    weighted = frozen(module=fitted.model_, class_weight="balanced").fit(X, y)
    assert weighted.history_[0]["loss"] == pytest.approx(np.mean(by_class), rel=1e-5)


def test_class_weights_are_looked_up_by_class_and_multiply_sample_weights():
    names = np.array(["cat", "dog", "eel"])[y]
    weights = generator.random(90)
    by_class = {"cat": 0.5, "dog": 2.0, "eel": 1.0}
    fitted = frozen(class_weight=by_class).fit(X, names, sample_weight=weights)
    both = weights * np.array([0.5, 2.0, 1.0])[y]
    expected = np.average(losses(fitted), weights=both)
    assert fitted.history_[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_of_weight_zero_is_as_if_it_were_not_there(kind):
    # Dropping examples changes the order of an epoch: the whole set is one batch.
    weights = np.ones(90)
    weights[60:80] = 0
    settings = {"max_epochs": 3, "precision": "64-true", "random_state": 0, "batch_size": 90}
    if kind in (AdversarialTrainer, RobustDistiller):
        settings["attack"] = lambda network, inputs, labels: inputs + 0.01
        settings["bounds"] = (0.0, 1.0)
    module = dropping if kind is ExtendedDistiller else nn.Linear(4, 3)
    one = kind(module, **settings).fit(X, y + (y == 2), sample_weight=weights)
    kept = weights > 0
    other = kind(module, **settings)
    module = one.module
    assert len(one.classes_) == 3
    other.set_params(module=module)
    # The class that has no weight stays a class: the network keeps an output for it.
    data = torch.utils.data.TensorDataset(
        torch.from_numpy(X[kept]),
        torch.from_numpy(np.searchsorted([0, 1, 3], (y + (y == 2))[kept])),
    )
    other.fit(data)
    np.testing.assert_allclose(
        one.decision_function(X), other.decision_function(X), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "weights", "message"),
    [
        ({}, np.zeros(90), "at least one non-zero"),
        ({}, -np.ones(90), "[Nn]egative values in data"),
        ({}, np.ones(3), "sample_weight.shape"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, None, "class_weight must hold weights of 0 or more"),
        (
            {"class_weight": {0: 1, 1: -1, 2: 1}},
            None,
            "class_weight must hold weights of 0 or more",
        ),
        ({"class_weight": "fair"}, None, "class_weight must be None, 'balanced' or a mapping"),
    ],
)
def test_weights_that_weigh_nothing_are_refused(kind, settings, weights, message):
    with pytest.raises(ValueError, match=message):
        kind(max_epochs=1, **settings).fit(X, y, sample_weight=weights)


def test_weights_of_a_stream_are_refused_with_the_sampler_that_does_it():
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(data, 10)
    with pytest.raises(ValueError, match=r"class_weight must be None .*WeightedRandomSampler"):
        frozen(class_weight="balanced").fit(loader)


@pytest.mark.parametrize("kind", [UndefendedClassifier, DefensiveDistiller])
def test_label_smoothing_is_pytorchs(kind):
    fitted = frozen(
        kind, label_smoothing=0.2, **({"temperature": 1.0} if kind is DefensiveDistiller else {})
    ).fit(X, y)
    with torch.no_grad():
        logits = fitted.model_(torch.from_numpy(X))
    expected = nn.functional.cross_entropy(logits, torch.from_numpy(y), label_smoothing=0.2)
    assert fitted.history_[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_keywords_of_a_named_optimiser_are_parameters():
    settings = {"module": nn.Linear(4, 3), "max_epochs": 3, "learning_rate": 0.1}
    fitted = frozen(**settings).set_params(optimizer__weight_decay=0.3)
    assert fitted.get_params()["optimizer__weight_decay"] == 0.3
    by_hand = frozen(**settings, optimizer=partial(torch.optim.Adam, weight_decay=0.3))
    left, right = clone(fitted).fit(X, y), by_hand.fit(X, y)
    np.testing.assert_array_equal(left.decision_function(X), right.decision_function(X))
    with pytest.raises(ValueError, match=r"optimizer__\.\.\. must name a keyword of Adam"):
        frozen().set_params(optimizer__weight_dekay=0.1)


def test_a_grid_search_goes_over_keywords_of_a_named_optimiser():
    search = GridSearchCV(
        frozen(learning_rate=0.1), {"optimizer__weight_decay": np.array([0.0, 0.5])}, cv=2
    ).fit(X, y)
    assert set(search.cv_results_["param_optimizer__weight_decay"]) == {0.0, 0.5}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_numpys_are_numbers(kind):
    settings = {"max_epochs": 2, "batch_size": 30, "learning_rate": 0.01, "patience": 3}
    other = {
        "max_epochs": np.int64(2),
        "batch_size": np.int32(30),
        "learning_rate": np.float64(0.01),
        "patience": np.uint8(3),
    }
    plain, numpys = (kind(random_state=0, **given).fit(X, y) for given in (settings, other))
    np.testing.assert_array_equal(plain.decision_function(X), numpys.decision_function(X))


# --- radii in the units of the data ------------------------------------------------------------


@pytest.mark.parametrize("kind", [AdversarialTrainer, RobustDistiller])
@pytest.mark.parametrize("epsilon", [8 / 255, 0.1, 0.3])
def test_a_radius_in_units_of_0_to_1_is_refused_for_pixels_up_to_255(kind, epsilon):
    pixels = np.round(X * 255)
    pixels[0, 0], pixels[0, 1] = 0, 255
    message = r"epsilon must be in the units of X, got 0.\d+ with values in \(0, 255\), the range"
    with pytest.raises(ValueError, match=message):
        kind(epsilon=epsilon).fit(pixels, y)
    settings = {"epsilon": epsilon, "bounds": (0.0, 255.0), "max_epochs": 1, "steps": 1}
    kind(**settings).fit(pixels, y)  # whoever gives the bounds means it


@pytest.mark.parametrize("kind", [AdversarialTrainer, RobustDistiller])
def test_a_radius_beyond_the_range_of_the_data_is_refused_with_the_range(kind):
    with pytest.raises(ValueError, match=r"epsilon must be .*the range of X"):
        kind(epsilon=8.0).fit(X, y)


# --- indirect gradient matching ----------------------------------------------------------------


def shifted(network, inputs, labels):
    return inputs + 0.05


@pytest.mark.parametrize("base", ["rslad", "adaad"])
def test_gradient_matching_grows_with_the_epochs_and_is_the_papers_term(base):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    told = {"teacher": teacher, "attack": shifted, "bounds": (-1.0, 2.0), "max_epochs": 4}
    told["module"] = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    plain = frozen(RobustDistiller, objective=base, **told).fit(X, y)
    matched = frozen(RobustDistiller, objective=f"igdm_{base}", beta=3.0, **told).fit(X, y)

    inputs = torch.from_numpy(X)
    with torch.no_grad():
        taught = (teacher(inputs + 0.05) - teacher(inputs - 0.05)).softmax(1)
        learned = (plain.model_(inputs + 0.05) - plain.model_(inputs - 0.05)).log_softmax(1)
    term = nn.functional.kl_div(learned, taught, reduction="batchmean").item()
    assert term > 0
    for epoch in range(4):
        more = matched.history_[epoch]["loss"] - plain.history_[epoch]["loss"]
        assert more == pytest.approx(3.0 * (epoch + 1) / 4 * term, rel=1e-3)


def test_gradient_matching_follows_the_products_of_gradients_to_first_order():
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in "12")
    x, delta = torch.rand(5, 4).double(), 1e-4 * torch.randn(5, 4).double()
    found = functional.igdm_loss(
        *(net.double()(x + sign * delta) for net in (student, teacher) for sign in (1, -1))
    )
    slopes = []
    for net in (student, teacher):
        jacobian = torch.func.vmap(torch.func.jacrev(net))(x)
        slopes.append(2 * torch.einsum("nkd,nd->nk", jacobian, delta))
    expected = functional.kl_divergence(*slopes)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
