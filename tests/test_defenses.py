"""Layers, detectors and the defence that stacks them."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from distillguard import (
    DefensiveDistiller,
    ExtendedDistiller,
    LayeredDefense,
    UndefendedClassifier,
    attacks,
    datasets,
    evaluate,
    load,
)
from distillguard._clopper_pearson import clopper_pearson
from distillguard.defenses import (
    JPEG,
    BitDepth,
    Detector,
    FeatureSqueezing,
    GaussianNoise,
    Layer,
    LayeredNetwork,
    MaximumProbability,
    MedianFilter,
    RandomResizePad,
    ReconstructionError,
    TotalVariation,
)
from distillguard.estimators._calibration import joint_thresholds
from distillguard.exceptions import SaveError
from distillguard.functional import margin_loss, merge_rejection
from distillguard.networks import Rejecting
from distillguard.testing import check_defense

LAYERS = {
    "BitDepth": BitDepth,
    "MedianFilter": MedianFilter,
    "even MedianFilter": lambda **settings: MedianFilter(2, **settings),
    "JPEG": JPEG,
    "TotalVariation": TotalVariation,
    "RandomResizePad": lambda **settings: RandomResizePad(seed=0, **settings),
    "GaussianNoise": lambda **settings: GaussianNoise(seed=0, **settings),
}
RANDOM = {"RandomResizePad": RandomResizePad, "GaussianNoise": GaussianNoise}


def images(n=5, seed=0, low=0.0, high=1.0):
    """Images that lie on the bounds here and there."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(n, 3, 9, 12, generator=generator)
    return low + (high - low) * (1.5 * drawn - 0.25).clamp(0, 1)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
def test_a_layer_keeps_its_promises_and_changes_something(name, bounds):
    layer, inputs = LAYERS[name](bounds=bounds), images(low=bounds[0], high=bounds[1])
    check_defense(layer, inputs)
    assert not layer(inputs).equal(inputs)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_same_in_any_units(name):
    inputs = images()
    wide = LAYERS[name](bounds=(-10.0, 30.0)) if name != "GaussianNoise" else None
    if name == "TotalVariation":
        wide = TotalVariation(4.0, bounds=(-10.0, 30.0))
    if name == "GaussianNoise":
        wide = GaussianNoise(4.0, seed=0, bounds=(-10.0, 30.0))
    found = (wide(40 * inputs.double() - 10) + 10) / 40
    assert torch.allclose(found, LAYERS[name]()(inputs.double()), atol=1e-6)


def gradient_of(layer, inputs, weights):
    asked = inputs.clone().requires_grad_()
    return torch.autograd.grad((layer(asked) * weights).sum(), asked)[0]


@pytest.mark.parametrize("name", ["MedianFilter", "TotalVariation", "RandomResizePad"])
def test_an_exact_gradient_is_that_of_finite_differences_and_the_same_at_the_bounds(name):
    generator = torch.Generator().manual_seed(2)
    inputs = 0.3 + 0.4 * torch.rand(1, 1, 4, 5, dtype=torch.float64, generator=generator)
    layer = LAYERS[name]()
    assert torch.autograd.gradcheck(lambda x: layer(x), inputs.requires_grad_(), eps=1e-7)
    # At a bound nothing is lost: the gradient there is that of the same image moved inside.
    bounded = images(n=2).double()
    inner = LAYERS[name](bounds=(-1e-9, 1 + 1e-9)) if name != "RandomResizePad" else None
    if inner is not None:
        weights = torch.randn_like(bounded)
        here = gradient_of(layer, bounded, weights)
        assert torch.allclose(here, gradient_of(inner, bounded, weights), atol=1e-6)
        assert here.abs().sum() > 0


@pytest.mark.parametrize("kind", RANDOM.values(), ids=RANDOM)
def test_a_seed_fixes_one_draw_and_none_draws_anew_from_the_global_generator(kind):
    inputs = images(n=1).expand(4, -1, -1, -1)
    fixed, free = kind(seed=3), kind()
    assert fixed(inputs).equal(kind(seed=3)(inputs))
    assert fixed(inputs)[0].equal(fixed(inputs)[3])
    assert not fixed(inputs).equal(kind(seed=4)(inputs))
    assert not fixed.random
    assert free.random
    torch.manual_seed(0)
    one, other = free(inputs), free(inputs)
    assert not one.equal(other)
    assert not one[0].equal(one[1])
    torch.manual_seed(0)
    assert free(inputs).equal(one)


@given(st.integers(1, 8), arrays.arrays("float64", (3, 4), elements=st.floats(0, 1)))
def test_bit_depth_rounds_to_the_nearest_of_evenly_spaced_levels(bits, values):
    levels = np.linspace(0, 1, 2**bits)
    found = BitDepth(bits)(torch.from_numpy(values)).numpy()
    distance = np.abs(values[..., None] - levels).min(axis=-1)
    np.testing.assert_allclose(np.abs(found - values), distance, atol=1e-12)
    assert np.abs(found[..., None] - levels).min(axis=-1).max() < 1e-12


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_median_filter_is_scipys(size):
    from scipy.ndimage import rank_filter

    image = images(n=1)[0, 0].numpy()
    # SciPy's window of an even side lies right of and below the pixel's; its median is the upper.
    expected = rank_filter(image, (size**2 - 1) // 2, size=size, mode="nearest")
    found = MedianFilter(size)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(found, expected)


def test_total_variation_pulls_the_two_sides_of_an_edge_together_by_the_closed_form():
    image = torch.full((1, 1, 5, 10), 0.2, dtype=torch.float64)
    image[..., 4:] = 0.8
    weight = 0.4
    found = TotalVariation(weight, steps=3000)(image)
    # Four columns rise by weight / 4 each, six fall by weight / 6.
    assert torch.allclose(found[..., :4], torch.tensor(0.3, dtype=torch.float64), atol=2e-3)
    expected = torch.tensor(0.8 - weight / 6, dtype=torch.float64)
    assert torch.allclose(found[..., 4:], expected, atol=2e-3)


def test_total_variation_treats_rows_as_columns():
    inputs = images()
    turned = TotalVariation(0.2)(inputs.mT).mT
    torch.testing.assert_close(turned, TotalVariation(0.2)(inputs))


def test_resize_and_pad_without_a_change_of_size_is_the_identity():
    inputs = images()
    assert torch.allclose(RandomResizePad(1.0)(inputs), inputs, atol=1e-5)


def test_resize_and_pad_keeps_the_mean_brightness_by_the_area():
    smaller = RandomResizePad(0.5, seed=0)(torch.ones(1, 1, 64, 64))
    share = torch.rand(1, 3, generator=torch.Generator().manual_seed(0))[0, 0]
    area = (0.5 + 0.5 * share) ** 2
    assert smaller.mean().item() == pytest.approx(area.item(), rel=0.02)


@pytest.mark.parametrize(("right", "down"), [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)])
def test_resize_and_pad_puts_the_image_anywhere_in_the_frame_and_never_beyond(right, down):
    layer = RandomResizePad(0.5, bounds=(-1.0, 1.0))
    layer.draw = lambda inputs, *shape: torch.tensor([[0.0, right, down]])
    found = layer(torch.ones(1, 1, 8, 8))
    expected = torch.full((1, 1, 8, 8), -1.0)
    top, left = int(4 * down), int(4 * right)
    expected[..., top : top + 4, left : left + 4] = 1
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitDepth(0), "bits must be at least 1, got 0"),
        (lambda: JPEG(101), "quality must be at most 100, got 101"),
        (lambda: MedianFilter()(torch.zeros(2, 4)), "inputs must be images of shape"),
        (lambda: RandomResizePad(1.5), "smallest must be at most 1, got 1.5"),
        (lambda: BitDepth(bounds=(1, 0)), "bounds must be two numbers, the lower one first"),
        (lambda: FeatureSqueezing([]), "squeezers must hold at least one layer, got none"),
        (lambda: JPEG()(torch.zeros(1, 2, 8, 8)), "inputs must have 1 or 3 channels, got 2"),
    ],
)
def test_a_wrong_argument_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_feature_squeezing_is_the_largest_distance_between_softmaxes_at_its_temperature():
    torch.manual_seed(0)
    network, x = torch.nn.Linear(6, 3), torch.rand(20, 6)
    squeezers, weight = [BitDepth(1), BitDepth(2)], network.weight.detach().mul_(6)
    found = FeatureSqueezing(squeezers, temperature=3.0).score(network, x)

    def answer(values):
        scaled = (values @ weight.T + network.bias) / 3.0
        return scaled.exp() / scaled.exp().sum(dim=1, keepdim=True)

    levels = ((1.0 * x).round(), (3 * x).round() / 3)
    apart = torch.stack([(answer(x) - answer(each)).abs().sum(dim=1) for each in levels])
    torch.testing.assert_close(found, apart.max(dim=0).values)
    assert 3 < int((apart[0] > apart[1]).sum()) < 20


def test_the_score_of_the_maximum_probability_does_not_saturate():
    logits = torch.tensor([[2.0, 1.0, 0.0], [900.0, 1.0, 0.0]], dtype=torch.float64)
    found = MaximumProbability().score(nn.Identity(), logits)
    p = math.exp(2) / (math.exp(2) + math.e + 1)
    assert found[0].item() == pytest.approx(math.log((1 - p) / p))
    assert found[1].item() == pytest.approx(-899 + math.log1p(math.exp(-1)))


def test_the_maximum_probability_is_that_at_its_temperature():
    logits = torch.tensor([[20.0, 10.0, 0.0], [1.0, 4.0, 2.0]], dtype=torch.float64)
    found = MaximumProbability(temperature=10.0).score(nn.Identity(), logits)
    p = (logits / 10).softmax(dim=1).max(dim=1).values
    torch.testing.assert_close(found, ((1 - p) / p).log())


def test_an_autoencoder_learns_to_take_noise_away():
    """Of noise longer than what it knows, the best guess is near the middle of that."""
    generator = torch.Generator().manual_seed(0)
    clean = 0.3 * torch.randn(400, 1, generator=generator).expand(400, 6)

    def slope(noise):
        detector = ReconstructionError(noise=noise, random_state=0).fit(clean)
        drawn = detector.autoencoder(clean).detach().mean(dim=1)
        return (drawn @ clean[:, 0] / (clean[:, 0] @ clean[:, 0])).item()

    # Least squares shrinks by s^2 / (s^2 + noise^2 / 6), where s is the spread.
    shrunk = 0.09 / (0.09 + 1 / 6)
    assert slope(1.0) < shrunk + 0.15 < 0.8 < slope(0.0)


def test_an_autoencoder_draws_odd_inputs_badly_and_trains_by_its_seed():
    X = datasets.load_digits("train")[0][:300]
    detector = ReconstructionError(max_epochs=5, random_state=0).fit(X)
    again = ReconstructionError(max_epochs=5, random_state=0).fit(X)
    model = nn.Identity()
    clean = detector.score(model, X)
    assert clean.equal(again.score(model, X))
    odd = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert detector.score(model, odd).median() > clean.quantile(0.95)


def test_autocast_around_the_training_of_an_autoencoder_changes_nothing():
    X = datasets.load_digits("train")[0][:300]
    outside = ReconstructionError(max_epochs=2, random_state=0).fit(X)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ReconstructionError(max_epochs=2, random_state=0).fit(X)
    model = nn.Identity()
    assert inside.score(model, X).equal(outside.score(model, X))


@pytest.mark.parametrize(("order", "expected"), [(1, [0.2, 0.2]), (2, [0.05, 0.04])])
def test_the_score_of_an_autoencoder_is_its_mean_error_to_the_order(order, expected):
    class Halved(nn.Module):
        def forward(self, inputs):
            return inputs / 2

    detector = ReconstructionError(order=order)
    detector.autoencoder = Halved()
    inputs = torch.tensor([[[0.2, -0.6]], [[-0.4, 0.4]]], dtype=torch.float64)
    assert detector.score(nn.Identity(), inputs).tolist() == pytest.approx(expected)


@st.composite
def scores(draw):
    """Scores of 1 to 3 detectors, ties among them."""
    shape = (draw(st.integers(1, 60)), draw(st.integers(1, 3)))
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3, width=32))
    return torch.from_numpy(draw(arrays.arrays("float32", shape, elements=values)))


@given(scores(), st.floats(0.01, 0.5))
def test_together_thresholds_alarm_at_most_the_wanted_share(clean, rate):
    thresholds = joint_thresholds(clean, rate)
    alarms = (clean > thresholds).any(dim=1)
    assert alarms.sum() <= rate * len(clean)


@given(st.integers(20, 200), st.integers(1, 4), st.integers(0, 2**31), st.floats(0.05, 0.5))
def test_without_ties_the_share_is_reached_and_every_threshold_is_at_one_level(n, k, seed, rate):
    clean = torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    thresholds = joint_thresholds(clean, rate)
    levels = (clean <= thresholds).sum(dim=0)
    assert (levels == levels[0]).all()
    allowed = n - math.ceil((1 - rate) * (n + 1))
    alarms = int((clean > thresholds).any(dim=1).sum())
    # An example may be the highest in two detectors; a lower level would alarm too many.
    assert alarms <= allowed
    if levels[0] > 1:
        lower = clean.sort(dim=0).values[levels[0] - 2]
        assert int((clean > lower).any(dim=1).sum()) > allowed


@given(scores(), st.floats(0.01, 0.5), st.integers(-8, 8))
def test_thresholds_do_not_depend_on_the_units_of_a_detector(clean, rate, exponent):
    factor = 2.0**exponent
    expected = joint_thresholds(clean, rate) * factor
    assert joint_thresholds(clean * factor, rate).equal(expected)


class Reading(Detector):
    """The score is a number of the input itself."""

    def __init__(self, place: int = 0) -> None:
        super().__init__()
        self.place = place

    def score(self, model, inputs):
        return inputs[:, self.place]


def test_the_interval_holds_the_false_alarm_rate_of_the_rest_in_93_of_100_splits():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(12_000, 3, generator=generator)
    pool = torch.cat([noise[:, :1], noise[:, :1] + noise[:, 1:2], noise[:, 2:].exp()], dim=1)
    held = 0
    for split in range(200):
        order = torch.randperm(len(pool), generator=generator)
        chosen, rest = pool[order[:1000]], pool[order[1000:]]
        detectors = [Reading(0), Reading(1), Reading(2)]
        guard = LayeredDefense(nn.Linear(3, 2), (), detectors, random_state=split)
        guard.calibrate(chosen)
        alarms = (rest > torch.from_numpy(guard.thresholds_)).any(dim=1).double().mean()
        low, high = guard.false_positive_interval_
        held += low <= alarms <= high
    assert held >= 186


def linear(weight, *detectors):
    network = nn.Linear(len(weight[0]), len(weight), bias=False)
    network.weight.data = torch.tensor(weight)
    return LayeredNetwork(network, [], detectors)


@given(st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6), st.integers(0, 2))
def test_an_input_is_rejected_exactly_where_a_score_is_above_its_threshold(values, label):
    network = linear(torch.eye(3).tolist(), Reading(0), Reading(1))
    network.thresholds.copy_(torch.tensor(values[3:5]))
    network.spreads.copy_(torch.tensor([0.5, 2.0]))
    inputs = torch.tensor([values[:3]])
    logits = network(inputs)
    excess = max((values[0] - values[3]) / 0.5, (values[1] - values[4]) / 2.0)
    rejection = max(values[:3]) + excess
    assert logits[0, 3].item() == pytest.approx(rejection, abs=1e-4)
    if abs(excess) > 1e-5:
        assert (logits.argmax().item() == 3) == (excess > 0)
    others = [z for i, z in enumerate(values[:3]) if i != label]
    margin = margin_loss(merge_rejection(logits, torch.tensor([label])), torch.tensor([label]))
    expected = max(others) - max(values[label], rejection)
    assert margin.item() == pytest.approx(expected, abs=1e-4)


def test_without_detectors_nothing_is_rejected():
    inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert not (linear(torch.eye(3).tolist())(inputs).argmax(dim=1) == 3).any()


@pytest.fixture(scope="module")
def digits():
    return datasets.load_digits("train"), datasets.load_digits("test")


@pytest.fixture(scope="module")
def classifier(digits):
    return UndefendedClassifier(max_epochs=10, random_state=0).fit(*digits[0])


def parts():
    return {
        "layers": [BitDepth(4)],
        "detectors": [
            MaximumProbability(),
            FeatureSqueezing([BitDepth(2)]),
            ReconstructionError(max_epochs=3, random_state=0),
        ],
        "random_state": 0,
    }


@pytest.fixture(scope="module")
def guard(digits, classifier):
    return LayeredDefense(classifier, **parts()).fit(*digits[0])


def test_a_fitted_classifier_is_taken_as_it_is_and_an_unfitted_one_is_trained(
    digits, classifier, guard
):
    for name, tensor in classifier.model_.state_dict().items():
        assert guard.model_.network.state_dict()[name].equal(tensor)
    fresh = UndefendedClassifier(max_epochs=2, random_state=0)
    trained = LayeredDefense(fresh, [BitDepth(4)]).fit(*digits[0])
    assert not hasattr(fresh, "model_")
    assert trained.score(*digits[1]) > 0.5


def test_predict_is_the_largest_column_and_its_last_the_rejected_label(digits, guard):
    X, y = digits[1]
    logits, answer = guard.decision_function(X), guard.predict(X)
    assert logits.shape == (len(X), 11)
    np.testing.assert_array_equal(answer, np.append(np.arange(10), -1)[logits.argmax(axis=1)])
    alarms = (guard.suspicion(X) > guard.thresholds_).any(axis=1)
    np.testing.assert_array_equal(answer == -1, alarms)
    assert 0 < alarms.mean() < 0.15
    assert guard.score(X, y) == (answer == y.numpy()).mean()
    np.testing.assert_allclose(guard.predict_proba(X).sum(axis=1), 1)


def test_the_rate_and_its_interval_are_those_of_the_half_that_set_nothing(digits, classifier):
    X = digits[1][0][:201]
    found = LayeredDefense(classifier, (), [MaximumProbability()], random_state=3).calibrate(X)
    count = round(found.false_positive_rate_ * 100)
    assert count == pytest.approx(found.false_positive_rate_ * 100)
    assert found.false_positive_interval_ == clopper_pearson(count, 100)
    assert (found.predict(X) == -1).sum() <= count + 0.05 * 101


def test_calibrate_sets_the_thresholds_and_nothing_else(digits, guard):
    twin = pickle.loads(pickle.dumps(guard)).set_params(false_positive_rate=0.3)
    twin.calibrate(digits[1][0])
    assert (twin.thresholds_ < guard.thresholds_).all()
    assert 0.2 < (twin.predict(digits[1][0]) == -1).mean() < 0.4
    before, after = guard.model_.state_dict(), twin.model_.state_dict()
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved == {"thresholds", "spreads", "unit"}


def test_a_pickle_predicts_the_same_and_a_clone_is_unfitted(digits, guard):
    X = digits[1][0]
    restored = pickle.loads(pickle.dumps(guard))
    np.testing.assert_array_equal(restored.decision_function(X), guard.decision_function(X))
    assert not hasattr(clone(guard), "model_")


@pytest.mark.parametrize("prefit", [True, False])
def test_a_save_predicts_the_same_and_tells_its_layers(digits, classifier, tmp_path, prefit):
    fresh = DefensiveDistiller(temperature=5.0, max_epochs=2, random_state=0)
    guard = LayeredDefense(classifier if prefit else fresh, **parts()).fit(*digits[0])
    guard.save(tmp_path)
    loaded = load(tmp_path)
    X = digits[1][0]
    np.testing.assert_array_equal(loaded.decision_function(X), guard.decision_function(X))
    np.testing.assert_array_equal(loaded.thresholds_, guard.thresholds_)
    assert loaded.false_positive_interval_ == guard.false_positive_interval_
    assert repr(loaded.layers[0].bits) == "4"
    assert type(loaded.estimator) is type(guard.estimator)
    assert loaded.estimator.max_epochs == guard.estimator.max_epochs


def test_a_network_by_itself_is_taken_with_its_weights_and_saved_without_its_code(
    digits, classifier, tmp_path
):
    network = classifier.model_
    guard = LayeredDefense(network, [BitDepth(4)], [MaximumProbability()], random_state=0)
    X = digits[1][0]
    guard.calibrate(X).save(tmp_path)
    with pytest.raises(SaveError, match="module must be given to load this save"):
        load(tmp_path)
    loaded = load(tmp_path, module=network)
    np.testing.assert_array_equal(loaded.decision_function(X), guard.decision_function(X))


def test_the_whole_is_exported_to_onnx(digits, classifier, tmp_path):
    pytest.importorskip("onnxruntime")
    import onnxruntime

    layers, detectors = [BitDepth(4), MedianFilter(2)], [MaximumProbability()]
    guard = LayeredDefense(classifier, layers, detectors, random_state=0)
    X = digits[1][0][:50]
    guard.calibrate(digits[1][0]).export_onnx(tmp_path / "guard.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "guard.onnx")
    (logits,) = session.run(["logits"], {"inputs": X.numpy()})
    np.testing.assert_allclose(logits, guard.decision_function(X), atol=1e-3)


def test_it_ends_a_pipeline_and_its_classifier_has_settings(digits):
    X, y = (part.flatten(1).numpy() if part.ndim > 1 else part.numpy() for part in digits[0])
    inner = UndefendedClassifier(max_epochs=20, random_state=0)
    guard = LayeredDefense(inner, (), [MaximumProbability()], random_state=0)
    pipeline = make_pipeline(FunctionTransformer(), guard)
    pipeline.set_params(layereddefense__estimator__max_epochs=5).fit(X, y)
    assert inner.max_epochs == 5
    assert 0.8 < pipeline.score(X, y) < 0.97


def test_a_detector_of_another_class_is_pickled_not_saved(digits, classifier, tmp_path):
    X = digits[1][0].flatten(1)
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), classifier.model_)
    guard = LayeredDefense(network, (), [Reading(20)], random_state=0).calibrate(X)
    with pytest.raises(SaveError, match="detectors must be of classes of"):
        guard.save(tmp_path)
    restored = pickle.loads(pickle.dumps(guard))
    np.testing.assert_array_equal(restored.predict(X), guard.predict(X))


def test_classes_of_text_have_a_rejected_label_of_text(digits):
    (X, y), (X_test, _) = digits
    names = np.array([f"digit {label}" for label in y.tolist()])
    settings = parts() | {"false_positive_rate": 0.2}
    guard = LayeredDefense(UndefendedClassifier(max_epochs=3, random_state=0), **settings)
    answer = guard.fit(X, names).predict(X_test)
    assert {"-1"} < set(answer)
    assert set(answer) <= {"-1", *names}


def test_an_attack_on_the_whole_fools_what_ignores_the_detectors_does_not(digits, guard):
    X, y = (part[:100] for part in digits[1])
    right = torch.from_numpy(guard.predict(X)) == y
    X, y = X[right], y[right]
    budget = {"epsilon": 0.2, "loss": "margin", "random_state": 0}
    oblivious = attacks.pgd(guard.model_.classify, X, y, **budget)
    whole = attacks.pgd(guard.model_, X, y, **budget)
    fooled = [
        ((answer != -1) & (answer != y.numpy())).mean()
        for answer in (guard.predict(oblivious), guard.predict(whole))
    ]
    assert fooled[1] > fooled[0] + 0.1


def test_an_evaluation_counts_a_rejected_clean_example_as_an_error(digits, guard):
    X, y = (part[:60] for part in digits[1])
    report = evaluate(guard, X, y, epsilon=0.1, attacks=["pgd"], diagnosis="brief", random_state=0)
    assert report.clean_accuracy == guard.score(X, y)
    told = report.per_example.predicted == "rejected"
    np.testing.assert_array_equal(told, guard.predict(X) == -1)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"false_positive_rate": 1.0}, ValueError, "false_positive_rate must be above 0 and below"),
        ({"layers": [torch.round]}, TypeError, "layers must be a list or tuple of modules"),
        ({"detectors": [nn.Linear(2, 2)]}, TypeError, "detectors must be a list or tuple of inst"),
        ({"detectors": MaximumProbability}, TypeError, "detectors must be a list or tuple of in"),
        ({"estimator": "svm"}, TypeError, "estimator must be None, an estimator of distillguard"),
        ({"rejected_label": 3}, ValueError, "rejected_label must be none of the classes, got 3"),
        ({"rejected_label": None}, TypeError, "rejected_label must be a number, got None"),
        ({"rejected_label": "no"}, TypeError, "rejected_label must be a number, got 'no'"),
        ({"rejected_label": math.nan}, ValueError, "rejected_label must be a finite number, got"),
        ({"estimator": ExtendedDistiller()}, TypeError, "one that may reject by itself"),
        ({"estimator": Rejecting(nn.Linear(4, 3))}, TypeError, "one that may reject by itself"),
    ],
)
def test_a_wrong_parameter_is_refused(digits, classifier, settings, kind, message):
    with pytest.raises(kind, match=message):
        LayeredDefense(**{"estimator": classifier, **settings}).fit(*digits[0])


def test_detectors_and_layers_take_the_precision_of_the_classifier(digits, tmp_path):
    X, y = (part[:100] for part in digits[0])
    inner = UndefendedClassifier(max_epochs=1, precision="64-true", random_state=0)
    parts = [BitDepth(4)], [MaximumProbability(), ReconstructionError(max_epochs=1)]
    guard = LayeredDefense(inner, *parts, random_state=0).fit(X, y)
    assert guard.decision_function(X).dtype == np.float64
    guard.save(tmp_path)
    assert np.array_equal(load(tmp_path).decision_function(X), guard.decision_function(X))


def test_examples_are_kept_for_thresholds_only_where_something_is_trained(digits, classifier):
    X, y = digits[0][0][:50], digits[0][1][:50]
    trained = ReconstructionError(max_epochs=1).fit(X)
    for estimator, detector, kept in (
        (classifier, ReconstructionError(), 10),
        (clone(classifier), trained, 10),
        (classifier, trained, 0),
    ):
        guard = LayeredDefense(estimator, (), [detector], calibration_fraction=0.2)
        assert guard._held_out(y).sum().item() == kept
    assert LayeredDefense(clone(classifier))._held_out(y).sum().item() == 0


def test_calibrate_wants_everything_fitted(digits, classifier):
    X = digits[1][0]
    with pytest.raises(NotFittedError, match="estimator must be fitted for calibrate"):
        LayeredDefense().calibrate(X)
    with pytest.raises(NotFittedError, match="detectors must be fitted for calibrate"):
        LayeredDefense(classifier, (), [ReconstructionError()]).calibrate(X)


def test_calibrate_takes_only_inputs_of_the_estimators_shape(digits, classifier):
    with pytest.raises(ValueError, match="X must hold examples of shape"):
        LayeredDefense(classifier).calibrate(digits[1][0][:, :, :-1])


def test_a_score_of_another_shape_is_refused(digits, classifier):
    class Odd(Detector):
        def score(self, model, inputs):
            return inputs

    with pytest.raises(ValueError, match="score of Odd must return one number for each input"):
        LayeredDefense(classifier, (), [Odd()]).calibrate(digits[1][0])


def test_a_layer_whose_way_back_is_the_identity_may_compute_in_numpy():
    class Rounded(Layer):
        gradient = "identity"

        def transform(self, inputs):
            return torch.from_numpy(inputs.numpy().round())

    pixels = images().requires_grad_()
    changed = Rounded()(pixels)
    assert torch.equal(changed, pixels.detach().round())
    (gradient,) = torch.autograd.grad(changed.sum(), pixels)
    assert torch.equal(gradient, torch.ones_like(pixels))


def test_a_layer_that_changes_the_shape_is_refused():
    class Halved(Layer):
        def transform(self, inputs):
            return inputs[:, :, ::2]

    with pytest.raises(ValueError, match="transform must return a tensor of the shape of its inp"):
        Halved()(images())


def test_the_gradient_of_an_alarm_is_that_of_the_maximum_and_asks_no_other_detector():
    network = LayeredNetwork(nn.Linear(2, 2), [], [MaximumProbability(), MaximumProbability()])
    network.thresholds, network.spreads = torch.tensor([0.5, 1.0]), torch.tensor([2.0, 0.5])
    scores = [torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1.0, 2.0, 4.0])]
    ours, theirs = ([each.clone().requires_grad_() for each in scores] for _ in range(2))
    alarm = network.alarm(ours)
    excess = (torch.stack(theirs, dim=1) - network.thresholds) / network.spreads
    assert torch.equal(alarm, excess.amax(dim=1))
    assert torch.equal(network.alarm(scores), alarm)
    alarm.sum().backward()
    excess.amax(dim=1).sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))
    lone = [each[:1].clone().requires_grad_() for each in scores]
    (only, other) = torch.autograd.grad(network.alarm(lone).sum(), lone, allow_unused=True)
    assert only.tolist() == [0.5]
    assert other is None
