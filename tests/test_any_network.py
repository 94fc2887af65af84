"""Whatever network an estimator is given, it trains and predicts as in plain PyTorch."""

import warnings
from collections import namedtuple
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, TensorDataset

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    RobustDistiller,
    UndefendedClassifier,
    load,
    networks,
)
from distillguard._copies import copied
from distillguard._data._batch import Batch
from distillguard._data._sources import joined_at_the_end
from distillguard.estimators._classifier import joined
from distillguard.training import _layout, _runtime

ESTIMATORS = [UndefendedClassifier, DefensiveDistiller, AdversarialTrainer, RobustDistiller]
IMAGES = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = IMAGES.flatten(1)
LABELS = (IMAGES.mean((1, 2, 3)) > 0.5).long()
SHORT = {"max_epochs": 1, "batch_size": 16, "random_state": 0}

each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def crossed(names: list[str]) -> list[tuple]:
    """The first of several kinds with every estimator, the others with one."""
    return [(each, names[0]) for each in ESTIMATORS] + [
        (AdversarialTrainer, name) for name in names[1:]
    ]


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated"),
]


def predictor(fitted) -> nn.Module:
    return fitted.model_


def weights(fitted) -> dict[str, Tensor]:
    return predictor(fitted).state_dict()


def alike(one, other) -> bool:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


# The layout of memory.


class Convolutional(nn.Module):
    """The features of a convolution in a row, by ``flat``."""

    def __init__(self, flat, *between: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), *between)
        self.head = nn.Linear(36, 2)
        self.flat = flat

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.flat(self.features(inputs), self.training))


class BackwardInRows(torch.autograd.Function):
    """Its backward pass, alone, needs memory in rows."""

    @staticmethod
    def forward(context, features: Tensor) -> Tensor:
        return features.clone()

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return gradient.view(-1).view(gradient.shape)


def asserted(features: Tensor) -> Tensor:
    assert features.is_contiguous()
    return features.flatten(1)


IN_ROWS = {
    "view": lambda features, training: features.view(-1, 36),
    "view in training": lambda features, training: (
        features.view(-1, 36) if training else features.flatten(1)
    ),
    "view in eval mode": lambda features, training: (
        features.flatten(1) if training else features.view(-1, 36)
    ),
    "as_strided": lambda features, training: features.as_strided((len(features), 36), (36, 1)),
    "is_contiguous": lambda features, training: asserted(features),
    "backward": lambda features, training: nn.functional.max_pool2d(
        BackwardInRows.apply(features), 1
    ).flatten(1),
}


@pytest.mark.parametrize(("estimator", "name"), crossed([*IN_ROWS]))
def test_a_network_that_needs_its_own_layout_trains_in_it(name, estimator, monkeypatch):
    def fitted():
        torch.manual_seed(0)
        return estimator(Convolutional(IN_ROWS[name]), **SHORT).fit(IMAGES, LABELS)

    tried = fitted()
    monkeypatch.setattr(_runtime, "wants_channels_last", lambda network: False)
    assert alike(tried, fitted())
    assert np.isfinite(tried.decision_function(IMAGES)).all()


def test_other_networks_of_convolutions_train_with_their_channels_last():
    module = Convolutional(lambda features, _: features.flatten(1), nn.Conv2d(4, 4, 3, padding=1))
    fitted = UndefendedClassifier(module, **SHORT).fit(IMAGES, LABELS)
    weight = fitted.model_.features[3].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_trying_a_layout_leaves_no_trace(monkeypatch):
    class Tried(Convolutional):
        tries = 0

        def forward(self, inputs: Tensor) -> Tensor:
            type(self).tries += 1
            return super().forward(inputs)

    def fitted():
        torch.manual_seed(0)
        module = Tried(lambda features, _: features.flatten(1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        return UndefendedClassifier(module, **SHORT).fit(IMAGES, LABELS)

    tried, asked = fitted(), Tried.tries
    monkeypatch.setattr(_runtime, "stands_channels_last", lambda network, inputs: True)
    assert alike(tried, fitted())
    assert Tried.tries - asked == asked - 4


def test_a_batch_of_one_is_enough_to_try_a_layout():
    network = Convolutional(lambda features, _: features.flatten(1))
    network.head = nn.Sequential(nn.BatchNorm1d(36), network.head)
    assert _layout.stands_channels_last(network, IMAGES[:1])


PERMUTED = IMAGES.repeat(1, 3, 1, 1).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "given",
    [
        (PERMUTED, LABELS),
        (PERMUTED.numpy(), LABELS.numpy()),
        (TensorDataset(PERMUTED, LABELS),),
        (DataLoader(TensorDataset(PERMUTED, LABELS), 16),),
    ],
)
def test_images_whose_axes_were_permuted_come_as_a_loader_would_stack_them(given):
    class Rows(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.view(len(inputs), -1))

    assert not PERMUTED.is_contiguous()
    torch.manual_seed(0)
    network = Rows(192, 2)
    one = DefensiveDistiller(network, **SHORT).fit(*given)
    other = DefensiveDistiller(network, **SHORT).fit(IMAGES.repeat(1, 3, 1, 1), LABELS)
    if len(given) == 2:
        assert alike(one, other)
    assert one.predict(given[0]).shape == (40,)
    assert 0 <= one.score(*given) <= 1
    assert one.fit(*given, transfer=PERMUTED).n_iter_ == 1


# Inputs and outputs that are not the network's to keep.


def in_place(inputs: Tensor) -> Tensor:
    return inputs.sub_(0.3).div_(0.35)


def of_its_own(inputs: Tensor) -> Tensor:
    return (inputs - 0.3) / 0.35


class Normalising(nn.Module):
    def __init__(self, normalise, shape, n_classes) -> None:
        super().__init__()
        self.normalise = normalise
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(self.normalise(inputs))


class Reusing(nn.Sequential):
    """Writes what it answers where its last answer was, as graphs captured on a GPU do."""

    kept: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        logits = super().forward(inputs)
        if logits.requires_grad:
            return logits
        if self.kept is None or self.kept.shape != logits.shape:
            self.kept = torch.empty_like(logits)
        return self.kept.copy_(logits)


DATA = {
    "arrays": lambda: (IMAGES, LABELS),
    "NumPy": lambda: (IMAGES.numpy(), LABELS.numpy()),
    "Dataset": lambda: (ConcatDataset([TensorDataset(IMAGES, LABELS)]),),
    "DataLoader": lambda: (DataLoader(TensorDataset(IMAGES, LABELS), 16),),
    "batches of the caller's": lambda: (
        DataLoader(list(zip(IMAGES.split(16), LABELS.split(16), strict=True)), batch_size=None),
    ),
}
ROBUST = [
    partial(AdversarialTrainer, objective="pgd"),
    partial(AdversarialTrainer, objective="mart", batch_statistics=True),
    partial(AdversarialTrainer, weight_perturbation=0.01),
    *(partial(RobustDistiller, objective=name) for name in ("ard", "iad", "adaad")),
]


@pytest.mark.parametrize(
    ("estimator", "data"),
    [*crossed([*DATA]), (UndefendedClassifier, "NumPy"), *((each, "arrays") for each in ROBUST)],
)
def test_a_network_that_works_in_place_trains_as_one_that_does_not(estimator, data):
    before = IMAGES.clone()
    settings = SHORT | ({"epsilon": 0.1} if "epsilon" in estimator().get_params() else {})
    one, other = (
        estimator(partial(Normalising, normalise), **settings).fit(*DATA[data]())
        for normalise in (in_place, of_its_own)
    )
    assert torch.equal(IMAGES, before)
    assert alike(one, other)


@pytest.fixture(scope="module")
def working_in_place():
    module = partial(Normalising, in_place)
    return DefensiveDistiller(module, temperature=2.0, **SHORT).fit(IMAGES, LABELS)


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "decision_function", "soft_labels", "score"]
)
@pytest.mark.parametrize("kind", [torch.clone, lambda X: X.numpy().copy()])
def test_predicting_leaves_the_caller_s_inputs_as_they_are(working_in_place, method, kind):
    mine, arguments = kind(IMAGES), (LABELS,) if method == "score" else ()
    first, second = (getattr(working_in_place, method)(mine, *arguments) for _ in range(2))
    assert np.array_equal(np.asarray(mine), IMAGES.numpy())
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", [torch.clone, TensorDataset])
def test_a_transfer_set_is_left_as_it_is(kind):
    mine = IMAGES.clone()
    module = partial(Normalising, in_place)
    given = TensorDataset(mine) if kind is TensorDataset else mine
    DefensiveDistiller(module, **SHORT).fit(IMAGES, LABELS, transfer=given)
    assert torch.equal(mine, IMAGES)


def test_an_output_that_is_used_again_is_not_trusted():
    def body(kind):
        torch.manual_seed(0)
        return kind(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))

    X = torch.rand(1100, 64, generator=torch.Generator().manual_seed(1))
    y = torch.arange(1100) % 3
    for estimator in (DefensiveDistiller, AdversarialTrainer):
        settings = {"max_epochs": 1, "random_state": 0}
        one, other = (
            estimator(body(kind), **settings).fit(X, y, validation=(X, y))
            for kind in (Reusing, nn.Sequential)
        )
        assert alike(one, other)
        assert one.history_[-1]["validation_loss"] == other.history_[-1]["validation_loss"]
        assert np.array_equal(one.decision_function(X), other.decision_function(X))


@pytest.mark.parametrize("sizes", [[5], [3, 3], [3, 3, 1], [1, 3, 3, 3], [2] * 9])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_parts_are_stacked_as_cat_does(sizes, shape):
    whole = torch.rand(sum(sizes), *shape, dtype=torch.float64)
    for n in (None, len(whole)):
        assert np.array_equal(joined(iter(whole.split(sizes)), n), whole.numpy())


def test_nothing_to_predict_is_told(working_in_place):
    for method in ("predict", "decision_function"):
        with pytest.raises(ValueError, match="X must hold at least one example, got none"):
            getattr(working_in_place, method)(TensorDataset(IMAGES[:0]))


# Temperatures.


class Cosine(nn.Module):
    def __init__(self, shape, n_classes) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, n_classes, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        features = nn.functional.normalize(self.first(inputs.flatten(1)))
        return 9 * nn.functional.linear(features, nn.functional.normalize(self.last.weight))


def ending_in(wrap):
    def network(shape, n_classes) -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, n_classes)]
        return wrap(layers)

    return network


def wrapped_last(norm):
    return ending_in(lambda layers: nn.Sequential(*layers[:-1], norm(layers[-1])))


HEADS = {
    "linear": ending_in(lambda layers: nn.Sequential(*layers)),
    "log-softmax": ending_in(lambda layers: nn.Sequential(*layers, nn.LogSoftmax(1))),
    "weight_norm": wrapped_last(nn.utils.parametrizations.weight_norm),
    "weight_norm, the old one": wrapped_last(nn.utils.weight_norm),
    "spectral_norm": wrapped_last(nn.utils.parametrizations.spectral_norm),
    "spectral_norm, the old one": wrapped_last(nn.utils.spectral_norm),
    "cosines": Cosine,
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("ignore:temperature=")
def test_training_at_t_is_training_at_1_whatever_the_head(name):
    def probabilities(temperature: float):
        distiller = DefensiveDistiller(HEADS[name], temperature=temperature, **SHORT)
        return distiller.fit(IMAGES, LABELS).soft_labels(IMAGES), distiller.predict_proba(IMAGES)

    taught, said = probabilities(1.0)
    soft, hard = probabilities(64.0)
    np.testing.assert_allclose(soft, taught, rtol=1e-4, atol=1e-5)
    odds = (said[:, 1] / said[:, 0]) ** 64
    np.testing.assert_allclose(hard[:, 1], odds / (1 + odds), rtol=0.02, atol=0.002)


def test_a_factor_around_the_network_is_told_of_and_saved_with_it(tmp_path):
    distiller = DefensiveDistiller(Cosine, temperature=20.0, **SHORT)
    with pytest.warns(UserWarning, match=r"temperature=20 .* of module: .* last \(Linear\)"):
        distiller.fit(IMAGES, LABELS)
    assert type(distiller.student_) is type(distiller.teacher_) is networks.Scaled
    assert type(distiller.student_.network) is Cosine
    distiller.save(tmp_path)
    loaded = load(tmp_path, module=Cosine)
    for method in ("decision_function", "soft_labels"):
        said = [getattr(each, method)(IMAGES) for each in (loaded, distiller)]
        assert np.array_equal(*said)
    again = load(tmp_path, module=distiller.student_)
    assert np.array_equal(again.predict(IMAGES), distiller.predict(IMAGES))


@pytest.mark.filterwarnings("ignore:temperature=")
def test_a_factor_around_the_network_survives_warm_starts_and_interruptions(tmp_path):
    distiller = DefensiveDistiller(Cosine, temperature=20.0, warm_start=True, **SHORT)
    distiller.fit(IMAGES, LABELS).fit(IMAGES, LABELS)
    assert type(distiller.student_.network) is Cosine

    settings = SHORT | {"max_epochs": 2, "temperature": 20.0}

    def stop(record, network):
        if record["stage"] == "student":
            raise KeyboardInterrupt

    class Stop:
        on_epoch = staticmethod(stop)

    whole = DefensiveDistiller(Cosine, **settings).fit(IMAGES, LABELS)
    settings["checkpoint_dir"] = tmp_path
    with pytest.raises(KeyboardInterrupt):
        DefensiveDistiller(Cosine, callbacks=[Stop()], **settings).fit(IMAGES, LABELS)
    assert alike(DefensiveDistiller(Cosine, **settings).fit(IMAGES, LABELS), whole)


# Batches of one.


class Recording(nn.Sequential):
    """Keeps the sizes of the batches that it is trained on."""

    sizes: list[int] = []  # noqa: RUF012

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.sizes.append(len(inputs))
        return super().forward(inputs)


def recording(shape, n_classes) -> nn.Module:
    Recording.sizes = []
    return Recording(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_classes))


class Stream(IterableDataset):
    def __iter__(self):
        return zip(ROWS[:33], LABELS[:33], strict=True)


PAIRS = TensorDataset(ROWS[:33], LABELS[:33])
ENDING_IN_ONE = {
    "arrays": lambda: (ROWS[:33], LABELS[:33]),
    "TensorDataset": lambda: (PAIRS,),
    "Dataset": lambda: (ConcatDataset([PAIRS]),),
    "DataLoader": lambda: (DataLoader(PAIRS, 16),),
    "DataLoader, shuffled": lambda: (DataLoader(ConcatDataset([PAIRS]), 16, shuffle=True),),
    "IterableDataset": lambda: (Stream(),),
    "batches cut already": lambda: (
        DataLoader(list(zip(ROWS[:33].split(16), LABELS[:33].split(16), strict=True)), None),
    ),
}


@pytest.mark.parametrize("name", ENDING_IN_ONE)
def test_a_last_batch_of_one_joins_the_batch_before(name):
    fitted = UndefendedClassifier(recording, max_epochs=2, batch_size=16, random_state=0)
    fitted.fit(*ENDING_IN_ONE[name]())
    assert Recording.sizes == [16, 17, 16, 17]


@pytest.mark.parametrize("name", ["TensorDataset", "Dataset", "DataLoader"])
def test_a_schedule_counts_the_batches_that_there_are(name):
    fitted = UndefendedClassifier(
        recording, max_epochs=2, batch_size=16, lr_scheduler="cosine", random_state=0
    ).fit(*ENDING_IN_ONE[name]())
    assert fitted.history_[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("data", [ROWS[:33], TensorDataset(ROWS[:33])])
def test_a_transfer_set_may_end_in_a_batch_of_one(data):
    distiller = DefensiveDistiller(recording, max_epochs=1, batch_size=16, random_state=0)
    distiller.fit(ROWS[:32], LABELS[:32], transfer=data)
    assert Recording.sizes == [16, 16, 16, 17]


@pytest.mark.parametrize("data", [ROWS[:33], TensorDataset(ROWS[:33])])
@pytest.mark.parametrize("estimator", [AdversarialTrainer, RobustDistiller])
def test_extra_examples_may_end_in_a_batch_of_one(estimator, data):
    if estimator is AdversarialTrainer:
        data = TensorDataset(ROWS[:33], LABELS[:33])
    robust = estimator(recording, max_epochs=2, batch_size=16, random_state=0)
    assert robust.fit(ROWS[:33], LABELS[:33], extra=data).n_iter_ == 2


def test_a_batch_of_one_that_cannot_be_helped_is_told():
    rule = r"batch_size must be at least 2 for a network with BatchNorm, .* drop_last=True"
    with pytest.raises(ValueError, match=rule):
        UndefendedClassifier(recording, batch_size=1).fit(ROWS, LABELS)
    with pytest.raises(ValueError, match=rule):
        UndefendedClassifier(recording).fit(DataLoader(PAIRS, 1))
    without = UndefendedClassifier(networks.mlp, batch_size=1, max_epochs=1)
    assert without.fit(DataLoader(PAIRS, 1)).n_iter_ == 1


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1], [1]),
        ([1, 1], [1, 1]),
        ([4, 1], [5]),
        ([4, 4, 1], [4, 5]),
        ([4, 1, 4], [4, 1, 4]),
        ([4, 1, 1], [4, 1, 1]),
        ([1, 1, 1], [1, 1, 1]),
        ([4, 1, 4, 1], [4, 1, 5]),
        ([1, 4, 1], [1, 5]),
    ],
)
def test_only_the_last_batch_is_joined_and_every_example_is_seen_in_order(sizes, expected):
    rows = torch.arange(sum(sizes))
    given = [Batch(part[:, None].float(), part, part) for part in rows.split(sizes)]
    joined = list(joined_at_the_end(iter(given)))
    assert [len(batch.labels) for batch in joined] == expected
    for field in range(3):
        seen = [batch[field].flatten() for batch in joined]
        assert torch.equal(torch.cat([rows[:0], *seen]).long(), rows)


# Networks that deepcopy refuses.


def after_a_pass(wrap) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2)]
    layers[1] = wrap(layers[1]) or layers[1]
    network = nn.Sequential(*layers)
    network(IMAGES)
    return network


def pruned() -> nn.Module:
    return after_a_pass(lambda layer: prune.l1_unstructured(layer, "weight", 0.5))


class Remembering(nn.Module):
    """Keeps what it computed last, with its history."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = {"features": [self.first(inputs.flatten(1)).relu()]}
        return self.last(self.seen["features"][0])


def remembering() -> nn.Module:
    network = Remembering()
    network(IMAGES)
    return network


REFUSED = {
    "pruned": pruned,
    "spectral_norm": lambda: after_a_pass(nn.utils.spectral_norm),
    "weight_norm": lambda: after_a_pass(nn.utils.weight_norm),
    "remembering": remembering,
    "TorchScript": lambda: torch.jit.script(after_a_pass(lambda layer: None)),
}


@pytest.mark.parametrize(("estimator", "name"), crossed([*REFUSED]))
def test_networks_that_deepcopy_refuses_are_copied_and_trained(estimator, name):
    network = REFUSED[name]()
    start = network(IMAGES).detach()
    before = [value.clone() for value in network.state_dict().values()]
    settings = SHORT | ({"temperature": 1.0} if estimator is DefensiveDistiller else {})
    fitted = clone(estimator(network, **settings)).fit(IMAGES, LABELS)
    after = network.state_dict().values()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert not torch.allclose(predictor(fitted)(IMAGES).detach(), start)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("estimator", [DefensiveDistiller, RobustDistiller])
def test_they_teach_as_they_are(estimator, name):
    teacher = REFUSED[name]()
    settings = SHORT | ({"prefit_teacher": True} if estimator is DefensiveDistiller else {})
    fitted = estimator(networks.mlp, teacher=teacher, **settings).fit(IMAGES, LABELS)
    with torch.no_grad():
        torch.testing.assert_close(fitted.teacher_(IMAGES), teacher.eval()(IMAGES))


def test_a_pruned_network_stays_pruned():
    network = pruned()
    mask = network[1].weight_mask.clone()
    fitted = UndefendedClassifier(network, **SHORT | {"max_epochs": 3}).fit(IMAGES, LABELS)
    trained = fitted.model_
    trained(IMAGES)
    assert torch.equal(trained[1].weight == 0, mask == 0)
    assert not torch.equal(trained[1].weight, network[1].weight)


def test_a_search_over_a_pruned_network_runs():
    search = GridSearchCV(
        UndefendedClassifier(pruned(), max_epochs=1), {"learning_rate": [0.01, 0.1]}, cv=2
    )
    assert search.fit(ROWS.numpy(), LABELS.numpy()).best_score_ > 0


# Outputs in training mode.

Outputs = namedtuple("Outputs", "logits aux")
PACKED = {
    "tuple": lambda main, side: (main, side),
    "tuple, features first": lambda main, side: (side.repeat(1, 3), main),
    "named tuple": lambda main, side: Outputs(logits=main, aux=side),
    "named tuple, logits last": lambda main, side: namedtuple("O", "aux logits")(side, main),
    "dict": lambda main, side: {"aux": None, "logits": main},
}


class Auxiliary(nn.Module):
    """Returns more than logits in training mode."""

    def __init__(self, pack) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.main, self.side = nn.Linear(64, 2), nn.Linear(64, 2)
        self.pack = pack

    def forward(self, inputs: Tensor):
        main, side = self.main(inputs), self.side(inputs)
        return self.pack(main, side) if self.training else main


@pytest.mark.parametrize(("estimator", "name"), crossed([*PACKED]))
def test_auxiliary_outputs_in_training_mode_change_nothing(name, estimator):
    settings = SHORT | ({"batch_statistics": True} if hasattr(estimator, "_adversary") else {})
    module = Auxiliary(PACKED[name])
    with pytest.warns(UserWarning, match="module returns .* in training mode; .* no part") as told:
        fitted = estimator(module, **settings).fit(ROWS, LABELS)
    expected = estimator(Auxiliary(lambda main, side: main), **settings).fit(ROWS, LABELS)
    assert alike(fitted, expected)
    assert len(told) == (1 if estimator in (UndefendedClassifier, AdversarialTrainer) else 2)


@each_estimator
@pytest.mark.parametrize(
    ("pack", "error", "message"),
    [
        (lambda main, side: None, TypeError, "module must return a torch.Tensor of logits, got N"),
        (lambda main, side: (main[:, :1],), TypeError, "module must return a torch.Tensor of lo"),
        (lambda main, side: main[:, 0], ValueError, "module must return logits of shape"),
        (lambda main, side: main.repeat(1, 2), ValueError, "module must return one logit for ea"),
        (lambda main, side: main.long(), TypeError, "module must return floating point logits"),
    ],
)
def test_other_outputs_in_training_mode_are_refused_as_in_eval_mode(
    pack, error, message, estimator
):
    with pytest.raises(error, match=message):
        estimator(Auxiliary(pack), **SHORT).fit(ROWS, LABELS)


# Builders.


class Plain(nn.Module):
    def __init__(self, num_classes: int = 1000, *, hidden: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, num_classes)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Channels(Plain):
    def __init__(self, in_channels: int = 3, num_classes: int = 1000) -> None:
        assert in_channels == 3
        super().__init__(num_classes)


def with_weights(weights=None, progress=True, **keywords) -> nn.Module:
    """As the functions of torchvision."""
    assert weights is None
    assert progress is True
    return Plain(**keywords)


def pretrained(pretrained=False, progress=True, *, num_classes=1000) -> nn.Module:
    """As the functions of older libraries."""
    assert not pretrained
    return Plain(num_classes)


def by_position(shape, n_classes, **keywords) -> nn.Module:
    assert shape == (1, 8, 8)
    return Plain(n_classes)


def with_defaults(input_shape=(3, 32, 32), n_classes=10) -> nn.Module:
    assert input_shape == (1, 8, 8)
    return Plain(n_classes)


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()


class Late(nn.Module):
    def __init__(self, block, layers, num_classes: int = 1000) -> None:
        super().__init__()


@pytest.mark.parametrize(
    "build",
    [
        Plain,
        Channels,
        partial(Plain, hidden=5),
        with_weights,
        partial(with_weights, progress=True),
        pretrained,
        by_position,
        with_defaults,
        lambda *given: by_position(*given),
        lambda shape=None, classes=10: by_position(shape, classes),
        lambda num_classes: Plain(num_classes),
        lambda shape, num_classes: by_position(shape, num_classes),
    ],
)
def test_a_builder_is_given_what_it_asks_for(build):
    fitted = UndefendedClassifier(build, **SHORT).fit(IMAGES, LABELS)
    assert fitted.decision_function(IMAGES).shape == (40,)


@pytest.mark.parametrize("build", [Plain, with_weights, by_position])
def test_a_save_is_loaded_with_the_builder_that_it_was_trained_with(build, tmp_path):
    fitted = UndefendedClassifier(build, **SHORT).fit(IMAGES, LABELS)
    fitted.save(tmp_path)
    loaded = load(tmp_path, module=build)
    assert np.array_equal(loaded.decision_function(IMAGES), fitted.decision_function(IMAGES))


def test_a_network_of_torchvision_is_built_without_its_weights():
    models = pytest.importorskip("torchvision.models")
    fitted = UndefendedClassifier(models.squeezenet1_1, **SHORT)
    fitted.fit(torch.rand(4, 3, 32, 32), torch.arange(4) % 3)
    assert fitted.model_.num_classes == 3


@pytest.mark.parametrize("parameter", ["module", "teacher"])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Nothing, "got the class Nothing, which takes no arguments; .* n_classes: Nothing"),
        (Late, "got the class Late, which takes block, layers; .* n_classes: Late"),
        (lambda weights=None, progress=True: None, "function <lambda>, which takes weights, prog"),
        (lambda shape: None, "the function <lambda>, which takes shape; pass"),
        ("resnet", "or None, got str"),
        (lambda *_: 3, "got one that returns int"),
    ],
)
def test_what_builds_no_network_is_told_what_to_write(build, message, parameter):
    with pytest.raises(TypeError, match=f"^{parameter} must be an nn.Module.*{message}"):
        DefensiveDistiller(**{parameter: build}, **SHORT).fit(IMAGES, LABELS)


@pytest.mark.parametrize("estimator", [DefensiveDistiller, RobustDistiller])
@pytest.mark.parametrize(
    ("teacher", "error", "message"),
    [
        (nn.Linear(64, 1000), ValueError, "teacher must return one logit for each of the 2"),
        (nn.Sequential(nn.Linear(64, 2), nn.Softmax(1)), ValueError, "teacher must return logits"),
        (nn.LSTM(64, 2), TypeError, "teacher must return a torch.Tensor of logits, got tuple"),
        ("resnet", TypeError, "teacher must be an nn.Module"),
        (lambda shape, n: nn.Linear(64, 5), ValueError, "teacher must return one logit for each"),
        (lambda *_: Auxiliary(lambda main, side: main[:, 0]), ValueError, "teacher must return lo"),
        (lambda *_: nn.Linear(64, 2).requires_grad_(False), ValueError, "teacher must have param"),
    ],
)
def test_what_is_wrong_with_the_teacher_is_said_of_the_teacher(estimator, teacher, error, message):
    with pytest.raises(error, match=message):
        estimator(networks.mlp, teacher=teacher, **SHORT).fit(ROWS, LABELS)


# NumPy's numbers.


def of_numpy(value):
    kinds = {int: np.uint8, float: np.float32}
    return kinds.get(type(value), lambda same: same)(value)


@each_estimator
def test_numpy_scalars_are_numbers(estimator, tmp_path):
    numbers = {"max_epochs": 2, "batch_size": 16, "learning_rate": 0.0078125, "patience": 3}
    numbers |= {"gradient_clip": 0.5, "weight_averaging": 0.5, "random_state": 3}
    numbers |= {"validation_fraction": 0.25, "early_stopping": True, "lr_scheduler": "one_cycle"}
    if estimator is DefensiveDistiller:
        numbers |= {"temperature": 20.0, "hard_label_weight": 0.25}
    if hasattr(estimator, "_adversary"):
        numbers |= {"epsilon": 0.125, "steps": 2, "step_size": 0.0625}
    same = {name: of_numpy(value) for name, value in numbers.items()}
    one = estimator(**numbers).fit(ROWS, LABELS)
    other = estimator(**same).fit(ROWS, LABELS)
    assert alike(one, other)
    resumed = estimator(**same, checkpoint_dir=tmp_path).fit(ROWS, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert alike(estimator(**same, checkpoint_dir=tmp_path).fit(ROWS, LABELS), resumed)


def test_numpy_scalars_cut_batches_and_count_them():
    X, y = ROWS.repeat(10, 1), LABELS.repeat(10)
    for data in ((X, y), (ConcatDataset([TensorDataset(X, y)]),)):
        fitted = UndefendedClassifier(batch_size=np.uint8(200), max_epochs=np.int8(100))
        fitted.set_params(lr_scheduler="cosine", random_state=0).fit(*data)
        assert fitted.history_[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)


def test_a_copy_wants_the_gradients_that_the_original_wants():
    for network in (nn.Linear(2, 2), torch.jit.script(nn.Linear(2, 2))):
        network.weight.requires_grad_(False)
        twin = copied(network)
        assert [p.requires_grad for p in twin.parameters()] == [False, True]
