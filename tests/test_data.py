"""Examples from memory, data sets and loaders are held to the same rules."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from distillguard import UndefendedClassifier, datasets, evaluate
from distillguard._data import examples
from distillguard._data._arrays import as_tensor
from distillguard._data._chunks import regrouped
from distillguard._data._mixed import MixedSource
from distillguard._data._sources import source_of
from distillguard.evaluation import robustness_curve


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    return X[:300], y[:300]


def baseline(**settings):
    return UndefendedClassifier(**{"max_epochs": 2, "random_state": 0, **settings})


class Pairs(Dataset):
    """Examples that cannot be identified: only asked for one by one."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


FORMS = {
    "data set": Pairs,
    "TensorDataset": TensorDataset,
    "loader": lambda X, y: DataLoader(Pairs(X, y), 70),
    "plain loader": lambda X, y: DataLoader(TensorDataset(X, y), 70),
}


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_loaders_are_looked_up_in_the_classes_like_those_of_arrays(digits, form):
    X, y = digits
    fitted = baseline(max_epochs=5).fit(X, y + 1)
    assert fitted.score(FORMS[form](X, y + 1)) == fitted.score(X, y + 1) > 0.5


@pytest.mark.parametrize("form", FORMS)
def test_validation_labels_of_loaders_are_looked_up_in_the_classes(digits, form):
    X, y = digits
    fitted = baseline().fit(X, 3 * y - 7, validation=FORMS[form](X, 3 * y - 7))
    last = fitted.history_[-1]
    assert last["validation_accuracy"] == pytest.approx(fitted.score(X, 3 * y - 7))


@pytest.mark.parametrize("form", FORMS)
def test_labels_that_are_no_classes_are_refused(digits, form):
    X, y = digits
    fitted = baseline().fit(X, y + 1)
    with pytest.raises(ValueError, match="labels in X must hold known classes, got 0"):
        fitted.score(FORMS[form](X, y))
    with pytest.raises(ValueError, match="labels in validation must hold known classes, got 0"):
        baseline().fit(X, y + 1, validation=FORMS[form](X, y))
    named = baseline().fit(X, np.array(list("abcdefghij"))[y])
    with pytest.raises(ValueError, match=r"must hold known classes, got \d; known are 'a'"):
        named.score(FORMS[form](X, y))


# --- what is refused wherever it comes from ------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_values_that_are_not_finite_are_refused(digits, form):
    X, y = digits
    fitted, spoilt = baseline().fit(X, y), X.clone()
    spoilt[-1, 0, 0, 0] = torch.nan
    for name, call in (
        ("X", lambda: baseline().fit(FORMS[form](spoilt, y))),
        ("validation", lambda: baseline().fit(X, y, validation=FORMS[form](spoilt, y))),
        ("X", lambda: fitted.predict(FORMS[form](spoilt, y))),
        ("X", lambda: fitted.score(FORMS[form](spoilt, y))),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be finite, got NaN or infinity"):
            call()


@pytest.mark.parametrize("form", FORMS)
def test_one_class_alone_is_refused(digits, form):
    X, y = digits
    with pytest.raises(ValueError, match="at least two classes, got one class: 4"):
        baseline().fit(FORMS[form](X, y * 0 + 4))


@pytest.mark.parametrize("form", FORMS)
def test_examples_of_another_shape_are_refused_in_prediction(digits, form):
    X, y = digits
    fitted = baseline().fit(X, y)
    for call in (fitted.predict, fitted.score):
        with pytest.raises(ValueError, match=r"X must hold examples of shape \(1, 8, 8\)"):
            call(FORMS[form](X[:, :, 1:], y))


@pytest.mark.parametrize("form", FORMS)
def test_a_third_part_of_a_batch_is_refused_rather_than_dropped(digits, form):
    X, y = digits

    class Triples(Pairs):
        def __getitem__(self, i):
            return *super().__getitem__(i), 1.0

    data = {
        "data set": Triples(X, y),
        "TensorDataset": TensorDataset(X, y, y),
        "loader": DataLoader(Triples(X, y), 70),
        "plain loader": DataLoader(TensorDataset(X, y, y), 70),
    }[form]
    with pytest.raises(TypeError, match=r"X must yield pairs .* got (tuple|list) of 3 items"):
        baseline().fit(data)


def test_weights_are_refused_where_a_loader_holds_the_examples(digits):
    fitted = baseline().fit(*digits)
    with pytest.raises(ValueError, match="sample_weight must be None when X yields pairs"):
        fitted.score(DataLoader(TensorDataset(*digits), 70), sample_weight=np.ones(300))


@pytest.mark.parametrize("form", ["loader", "plain loader"])
def test_the_score_on_a_shuffled_loader_leaves_the_global_generator_alone(digits, form):
    fitted = baseline().fit(*digits)
    loader = DataLoader(FORMS[form](*digits).dataset, 70, shuffle=True)
    before = torch.get_rng_state()
    assert fitted.score(loader) == fitted.score(*digits)
    assert torch.equal(torch.get_rng_state(), before)


# --- memory of every kind ------------------------------------------------------------------------


def test_arrays_read_backwards_and_16_bit_floats_are_taken(digits):
    X, y = digits
    backwards = X.numpy()[:, :, ::-1]
    straight = baseline().fit(backwards.copy(), y)
    fitted = baseline().fit(backwards, y)
    np.testing.assert_array_equal(
        fitted.decision_function(backwards), straight.decision_function(backwards.copy())
    )
    # Sixteenths are exact in all of them.
    sixteen = baseline().fit(X.bfloat16(), y)
    np.testing.assert_array_equal(
        sixteen.decision_function(X.bfloat16()), baseline().fit(X, y).decision_function(X)
    )


def test_names_of_features_are_forgotten_by_a_fit_without_names(digits):
    pandas = pytest.importorskip("pandas")
    X, y = digits[0].flatten(1), digits[1]
    fitted = baseline().fit(pandas.DataFrame(X.numpy()).rename(columns=str), y)
    assert len(fitted.feature_names_in_) == 64
    assert not hasattr(fitted.fit(TensorDataset(X, y)), "feature_names_in_")


@pytest.fixture(scope="module")
def table(digits):
    pandas = pytest.importorskip("pandas")
    X, y = digits[0].flatten(1).numpy(), digits[1].numpy()
    return pandas.DataFrame(X).rename(columns="pixel {}".format), y


@pytest.mark.parametrize(
    "use",
    [
        lambda fitted, X, y: fitted.predict(X),
        lambda fitted, X, y: fitted.score((X, y)),
        lambda fitted, X, y: baseline().fit(X[sorted(X)], y, validation=(X, y)),
        lambda fitted, X, y: evaluate(fitted, X, y, epsilon=0.1, attacks="quick"),
        lambda fitted, X, y: evaluate(fitted, (X, y), epsilon=0.1, attacks="quick"),
        lambda fitted, X, y: robustness_curve(fitted, X, y, budget="fgsm", epsilons=[0, 0.1]),
    ],
    ids=["predict", "score", "validation", "evaluate", "evaluate a pair", "curve"],
)
def test_columns_of_a_table_are_those_of_fit_in_their_order_everywhere(table, use):
    X, y = table
    names = sorted(X)
    fitted = baseline().fit(X[names], y)
    use(fitted, X[names], y)
    with pytest.raises(ValueError, match="order"):
        use(fitted, X[names[::-1]], y)


def test_a_table_that_lacks_a_column_is_refused_and_names_that_are_no_text_are_none(table):
    X, y = table
    fitted = baseline().fit(X, y)
    with pytest.raises(ValueError, match="must have the 64 columns of fit, got 63"):
        evaluate(fitted, X.drop(columns="pixel 3"), y, epsilon=0.1)
    numbered = X.set_axis(range(64), axis=1)
    told, untold = (
        evaluate(fitted, data, y, epsilon=0.1, attacks="quick", random_state=0).robust_accuracy
        for data in (X, numbered)
    )
    assert told == untold


@pytest.mark.parametrize("fraction", [0, 1.0])
def test_a_validation_fraction_of_nothing_or_all_is_refused(digits, fraction):
    with pytest.raises(ValueError, match="validation_fraction must be above 0 and below 1, got"):
        baseline(validation_fraction=fraction, early_stopping=True).fit(*digits)


def test_a_data_set_is_read_in_another_order_in_every_epoch(digits):
    order = []

    class Watched(Dataset):
        def __len__(self):
            return 60

        def __getitem__(self, i):
            order.append(i)
            return digits[0][i], digits[1][i]

    baseline(max_epochs=2).fit(Watched())
    first, second = order[-120:-60], order[-60:]
    assert sorted(first) == sorted(second) == list(range(60))
    assert len({tuple(first), tuple(second), tuple(range(60))}) == 3


@pytest.mark.parametrize("form", ["data set", "batches", "tensor"])
def test_inputs_that_want_a_gradient_are_data_like_any(digits, form):
    X, y = digits
    X = X.clone().requires_grad_()
    given = {
        "tensor": (X, y),
        "batches": ([(X[:150], y[:150]), (X[150:], y[150:])],),
        "data set": (Pairs(X, y),),
    }[form]
    graphs = []

    def attack(model, inputs, labels):
        graphs.append(inputs.requires_grad)
        return inputs

    class Watching(torch.nn.Sequential):
        def forward(self, x):
            if self.training:
                graphs.append(x.requires_grad)
            return super().forward(x)

    network = Watching(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    fitted = UndefendedClassifier(network, max_epochs=1, random_state=0).fit(*given)
    evaluate(fitted, *given, epsilon=0.1, attacks={"given": attack}, diagnosis=None)
    assert len(graphs) == 4  # three batches of training, and one for the attack
    assert not any(graphs)
    assert X.grad is None


def test_a_network_draws_other_numbers_in_every_epoch(digits):
    drawn = []

    class Drawing(torch.nn.Sequential):
        def forward(self, x):
            if self.training:
                drawn.append(torch.rand(1).item())
            return super().forward(x)

    network = Drawing(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    UndefendedClassifier(network, max_epochs=12, batch_size=128, random_state=0).fit(*digits)
    assert len(drawn) % 12 == 0
    assert len(set(drawn)) == len(drawn) > 12


def test_a_read_only_array_is_taken_without_a_word_and_without_a_copy():
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    filters = list(warnings.filters)
    tensor = as_tensor(array)
    assert warnings.filters == filters
    assert tensor.data_ptr() == array.ctypes.data


def test_batches_of_nothing_may_have_any_shape():
    batches = [torch.zeros(0), torch.rand(3, 4), torch.zeros(0, 9), torch.rand(2, 4)]
    groups = list(regrouped([(each, None) for each in batches], 4, "X"))
    assert [len(inputs) for inputs, _ in groups] == [4, 1]
    assert torch.equal(torch.cat([inputs for inputs, _ in groups]), torch.cat(batches[1::2]))


def test_extra_examples_count_one_each_beside_weighted_ones():
    data = torch.rand(12, 3), torch.arange(12) % 2
    own, more = source_of(examples(*data), 6, 0), source_of(examples(*data), 6, 1)
    weights = torch.arange(1.0, 13.0) / 6.5
    mixed = MixedSource(own.weighted(weights), more, 0.5)
    batches = list(mixed.epoch(1))
    found = torch.cat([batch.weights[:3] for batch in batches])
    torch.testing.assert_close(found.sort().values, weights.double(), check_dtype=False)
    for batch in batches:
        assert batch.weights[3:].tolist() == [1, 1, 1]
    assert next(iter(MixedSource(own, more, 0.5).epoch(1))).weights is None
