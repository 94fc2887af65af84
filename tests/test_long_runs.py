"""Long runs: killed at any moment and started again, and what may lie in their folder."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    RobustDistiller,
    UndefendedClassifier,
    datasets,
)
from distillguard.callbacks import Callback
from distillguard.exceptions import SaveError
from distillguard.training._checkpoints import _EPOCH, _RUN, read, write


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    return X[:200], y[:200]


def network(shape, n_classes):
    """Everything that has a state: BatchNorm, Dropout, momentum comes with the optimiser."""
    hidden = nn.Sequential(nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(nn.Flatten(), hidden, nn.Linear(12, n_classes))


class Augmented(Dataset):
    """Examples with noise from torch's generator: nobody can identify them."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i] + 0.01 * torch.randn(self.X[i].shape), self.y[i]


SETTINGS = {
    "temperature": 10.0,
    "max_epochs": 4,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "lr_scheduler": "one_cycle",
    "weight_averaging": 0.9,
    "gradient_clip": 1.0,
    "early_stopping": True,
    "patience": 3,
    "random_state": 0,
}
KINDS = {
    "arrays": {},
    "loader": {"early_stopping": False},
    "own-generator": {"early_stopping": False},
    "undefended": {},
    "adversarial": {"epsilon": 0.05, "steps": 2},
    "robust": {"epsilon": 0.05, "steps": 2},
}
ONE_NETWORK = {"undefended": UndefendedClassifier, "adversarial": AdversarialTrainer}


def data_of(kind, digits):
    X, y = digits
    if kind == "loader":
        return (DataLoader(Augmented(X, y), 32, shuffle=True),)
    if kind == "own-generator":
        return (DataLoader(Augmented(X, y), 32, shuffle=True, generator=seeded(3)),)
    return digits


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def estimator(kind="arrays", **more):
    settings = SETTINGS | KINDS[kind] | more
    if kind in ONE_NETWORK:
        del settings["temperature"]
        return ONE_NETWORK[kind](network, **settings)
    return (RobustDistiller if kind == "robust" else DefensiveDistiller)(network, **settings)


def weights(fitted):
    names = [name for name in ("teacher_", "student_", "model_") if hasattr(fitted, name)]
    return {
        f"{name}{key}": value
        for name in names
        for key, value in getattr(fitted, name).state_dict().items()
    }


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def history(fitted):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in fitted.history_]


class UnpluggedError(Exception):
    """The power fails."""


class FailsAt(Callback):
    """Raises at the n-th epoch of all stages."""

    def __init__(self, n):
        self.n = n

    def on_epoch(self, record, network):
        self.n -= 1
        if self.n == 0:
            raise UnpluggedError


BREAKS = [
    (kind, epoch)
    for kind in KINDS
    for epoch in (1, 3, 4, 5, 7)
    if epoch < 5 or kind not in ONE_NETWORK
]


@pytest.mark.parametrize(("kind", "epoch"), BREAKS)
def test_a_broken_run_ends_with_the_bits_of_an_unbroken_one(digits, tmp_path, kind, epoch):
    unbroken = estimator(kind).fit(*data_of(kind, digits))
    broken = estimator(kind, checkpoint_dir=tmp_path, callbacks=[FailsAt(epoch)])
    with pytest.raises(UnpluggedError):
        broken.fit(*data_of(kind, digits))

    resumed = estimator(kind, checkpoint_dir=tmp_path).fit(*data_of(kind, digits))
    assert same(weights(resumed), weights(unbroken))
    assert history(resumed) == history(unbroken)


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_broken_run_remembers_the_best_epoch(digits, tmp_path, epoch):
    # The better the network learns, the worse it does on wrong labels: the first epoch is best.
    X, y = digits
    wrong = X, (y + 1) % 10
    settings = {"patience": 3, "max_epochs": 9}
    unbroken = estimator("undefended", **settings).fit(X, y, validation=wrong)
    assert unbroken.n_iter_ < 9
    settings["checkpoint_dir"] = tmp_path
    broken = estimator("undefended", callbacks=[FailsAt(epoch)], **settings)
    with pytest.raises(UnpluggedError):
        broken.fit(X, y, validation=wrong)
    resumed = estimator("undefended", **settings).fit(X, y, validation=wrong)
    assert same(weights(resumed), weights(unbroken))
    assert history(resumed) == history(unbroken)


def test_checkpoints_change_nothing(digits, tmp_path):
    with_folder = estimator(checkpoint_dir=tmp_path).fit(*digits)
    assert same(weights(with_folder), weights(estimator().fit(*digits)))


def test_without_a_seed_the_run_goes_on_with_the_one_it_began_with(digits, tmp_path):
    ends = []
    for n in (1, 2, None):  # None: finished, loaded
        calls = [FailsAt(n)] if n else []
        run = estimator(random_state=None, checkpoint_dir=tmp_path, callbacks=calls)
        if n:
            with pytest.raises(UnpluggedError):
                run.fit(*digits)
        else:
            ends = [weights(run.fit(*digits)) for _ in range(2)]
    assert same(*ends)


def test_a_module_of_other_initial_weights_starts_from_those_of_the_run(digits, tmp_path):
    settings = SETTINGS | {"checkpoint_dir": tmp_path}
    torch.manual_seed(1)
    first = network((1, 8, 8), 10)
    unbroken = DefensiveDistiller(first, **SETTINGS).fit(*digits)
    with pytest.raises(UnpluggedError):
        DefensiveDistiller(first, **settings, callbacks=[FailsAt(2)]).fit(*digits)
    torch.manual_seed(2)
    other = network((1, 8, 8), 10)
    assert same(weights(DefensiveDistiller(other, **settings).fit(*digits)), weights(unbroken))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "foreign", "other-run"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(digits, tmp_path, damage):
    unbroken = estimator().fit(*digits)
    with pytest.raises(UnpluggedError):
        estimator(checkpoint_dir=tmp_path, callbacks=[FailsAt(4)]).fit(*digits)
    newest = tmp_path / "teacher-000003.ckpt"
    content = newest.read_bytes()
    if damage == "truncated":
        newest.write_bytes(content[:-100])
    elif damage == "flipped":
        middle = len(content) // 2
        newest.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "emptied":
        newest.write_bytes(b"")
    elif damage == "foreign":
        torch.save({"state": 1}, newest)
    else:
        write(newest, read(newest, _EPOCH) | {"run": "another"})

    with pytest.warns(UserWarning, match="teacher-000003.ckpt"):
        resumed = estimator(checkpoint_dir=tmp_path).fit(*digits)
    assert same(weights(resumed), weights(unbroken))


def test_a_run_with_a_damaged_beginning_is_refused(digits, tmp_path):
    estimator(checkpoint_dir=tmp_path, max_epochs=1).fit(*digits)
    (tmp_path / "run.ckpt").write_bytes(b"distillguard checkpoint 1\n" + bytes(100))
    with pytest.raises(SaveError, match=r"run\.ckpt must be undamaged"):
        estimator(checkpoint_dir=tmp_path, max_epochs=1).fit(*digits)
    (tmp_path / "run.ckpt").unlink()
    with pytest.raises(SaveError, match=r"checkpoint_dir must be empty or hold a run"):
        estimator(checkpoint_dir=tmp_path, max_epochs=1).fit(*digits)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learning_rate": 0.1}, r"same learning_rate \(0\.05 in .*got 0\.1"),
        ({"temperature": 11.0}, "same temperature"),
        ({"random_state": 5}, "same random_state"),
        ({"max_epochs": 9}, "same max_epochs"),
    ],
)
def test_a_folder_of_another_run_is_refused(digits, tmp_path, change, told):
    estimator(checkpoint_dir=tmp_path, max_epochs=1).fit(*digits)
    with pytest.raises(SaveError, match=told):
        estimator(checkpoint_dir=tmp_path, **{"max_epochs": 1} | change).fit(*digits)


def test_a_folder_of_other_data_or_another_network_is_refused(digits, tmp_path):
    X, y = digits
    estimator(checkpoint_dir=tmp_path, max_epochs=1).fit(X, y)
    with pytest.raises(SaveError, match="same data"):
        estimator(checkpoint_dir=tmp_path, max_epochs=1).fit(X.flip(0), y)
    with pytest.raises(SaveError, match=r"same 1\.0\.weight of the teacher"):
        DefensiveDistiller(**SETTINGS | {"checkpoint_dir": tmp_path, "max_epochs": 1}).fit(X, y)


def test_one_corrected_label_makes_another_run(tmp_path):
    X, y = datasets.load_digits("train")
    corrected = y.clone()
    corrected[-1] = (y[-1] + 1) % 10
    loaders = [DataLoader(TensorDataset(X, labels), 500) for labels in (y, corrected)]
    for name, first, second in (
        ("arrays", (X, y), (X, corrected)),
        ("loader", loaders[:1], loaders[1:]),
    ):
        settings = {"max_epochs": 1, "random_state": 0, "checkpoint_dir": tmp_path / name}
        UndefendedClassifier(**settings).fit(*first)
        UndefendedClassifier(**settings).fit(*first)
        with pytest.raises(SaveError, match="with the same data"):
            UndefendedClassifier(**settings).fit(*second)


def test_another_layer_without_weights_makes_another_run(digits, tmp_path):
    def with_layer(layer):
        def network(shape, n_classes):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer, nn.Linear(8, n_classes))

        return UndefendedClassifier(network, max_epochs=1, checkpoint_dir=tmp_path)

    with_layer(nn.ReLU()).fit(*digits)
    for other in (nn.Tanh(), nn.Dropout(0.1)):
        with pytest.raises(SaveError, match="with the same layers of the network"):
            with_layer(other).fit(*digits)


def test_one_corrected_label_of_the_validation_data_makes_another_run(digits, tmp_path):
    X, y = digits
    corrected = y[:50].clone()
    corrected[-1] = (corrected[-1] + 1) % 10
    settings = {"max_epochs": 1, "random_state": 0, "checkpoint_dir": tmp_path}
    for _ in range(2):
        UndefendedClassifier(**settings).fit(X, y, validation=(X[:50], y[:50]))
    with pytest.raises(SaveError, match="with the same validation data"):
        UndefendedClassifier(**settings).fit(X, y, validation=(X[:50], corrected))


@pytest.mark.parametrize("name", ["adversarial", "robust", "transfer"])
def test_another_second_set_of_examples_makes_another_run(digits, tmp_path, name):
    X, y = digits
    settings = {"max_epochs": 1, "random_state": 0, "checkpoint_dir": tmp_path}
    if name == "transfer":
        fit = DefensiveDistiller(**settings).fit
        one, other = {"transfer": X[:50]}, {"transfer": X[:50].flip(0)}
    elif name == "robust":
        fit = RobustDistiller(steps=1, **settings).fit
        one, other = {"extra": X[:50]}, {"extra": X[:50].flip(0)}
    else:
        fit = AdversarialTrainer(steps=1, **settings).fit
        one, other = {"extra": (X[:50], y[:50])}, {"extra": (X[:50], y[:50].flip(0))}
    fit(X, y, **one)
    fit(X, y, **one)
    told = "transfer set" if name == "transfer" else "extra data"
    for less in (other, {}):
        with pytest.raises(SaveError, match=f"with the same {told}"):
            fit(X, y, **less)


def test_a_generator_is_told_by_what_it_draws_and_drawn_from_in_every_run(digits, tmp_path):
    def run(state):
        settings = {"max_epochs": 1, "random_state": state, "checkpoint_dir": tmp_path}
        return UndefendedClassifier(**settings).fit(*digits)

    one, again = np.random.RandomState(1), np.random.RandomState(1)
    assert same(weights(run(one)), weights(run(again)))
    assert one.randint(10**9) == again.randint(10**9)
    with pytest.raises(SaveError, match="with the same random_state"):
        run(np.random.RandomState(2))


def rate_times(factor):
    return lambda parameters, lr: torch.optim.SGD(parameters, lr=factor * lr)


SAME = {
    "a number of another type": ({"learning_rate": 0.25}, {"learning_rate": np.float32(0.25)}),
    "a whole number": ({"gradient_clip": 3}, {"gradient_clip": 3.0}),
    "a partial made again": (
        {"optimizer": partial(torch.optim.SGD, momentum=0.9)},
        {"optimizer": partial(torch.optim.SGD, momentum=np.float64(0.9))},
    ),
    "a function made again": ({"optimizer": rate_times(2)}, {"optimizer": rate_times(2)}),
    "nothing that matters": ({"verbose": False}, {"verbose": 0, "callbacks": []}),
}
OTHER = {
    "learning_rate": (
        {"learning_rate": np.float32(0.1)},
        {"learning_rate": np.float32(0.2)},
    ),
    "batch_size": ({"batch_size": np.int64(50)}, {"batch_size": np.int64(40)}),
    "optimizer.settings.momentum": (
        {"optimizer": partial(torch.optim.SGD, momentum=0.9)},
        {"optimizer": partial(torch.optim.SGD, momentum=0.8)},
    ),
    "optimizer.function": (
        {"optimizer": partial(torch.optim.SGD)},
        {"optimizer": partial(torch.optim.Adam)},
    ),
    "optimizer.closure.factor": ({"optimizer": rate_times(2)}, {"optimizer": rate_times(3)}),
    "optimizer.bytecode": (
        {"optimizer": lambda p, lr: torch.optim.SGD(p, lr=lr)},
        {"optimizer": lambda p, lr: torch.optim.SGD(p, lr=-lr)},
    ),
    "lr_scheduler": ({"lr_scheduler": None}, {"lr_scheduler": "cosine"}),
}


@pytest.mark.parametrize("what", SAME)
def test_a_run_whose_settings_have_the_same_values_goes_on(digits, tmp_path, what):
    one, other = ({"max_epochs": 1, "random_state": 0, **each} for each in SAME[what])
    first = UndefendedClassifier(checkpoint_dir=tmp_path, **one).fit(*digits)
    again = UndefendedClassifier(checkpoint_dir=tmp_path, **other).fit(*digits)
    assert again.history_ == first.history_  # the seconds too: nothing was trained


@pytest.mark.parametrize("what", OTHER)
def test_a_setting_of_another_value_makes_another_run_and_is_named(digits, tmp_path, what):
    one, other = ({"max_epochs": 1, "random_state": 0, **each} for each in OTHER[what])
    UndefendedClassifier(checkpoint_dir=tmp_path, **one).fit(*digits)
    with pytest.raises(SaveError, match=rf"^checkpoint_dir must hold .* with the same {what} \("):
        UndefendedClassifier(checkpoint_dir=tmp_path, **other).fit(*digits)


class Shifted(nn.Module):
    """A network with a constant that no state dict holds, and a function."""

    def __init__(self, shift=0.5, act=torch.relu):
        super().__init__()
        self.shift, self.act = shift, act
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, inputs):
        return self.last(self.act(self.first(inputs.flatten(1) - self.shift)))


@pytest.mark.parametrize(
    ("other", "name"),
    [({"shift": 0.25}, "shift"), ({"act": torch.tanh}, "act")],
    ids=["shift", "act"],
)
def test_another_constant_of_the_network_makes_another_run(digits, tmp_path, other, name):
    settings = {"max_epochs": 1, "random_state": 0, "checkpoint_dir": tmp_path}
    for _ in range(2):
        UndefendedClassifier(Shifted(), **settings).fit(*digits)
    with pytest.raises(SaveError, match=f"with the same constants of the network.{name}"):
        UndefendedClassifier(Shifted(**other), **settings).fit(*digits)


def test_weights_that_others_are_computed_from_may_differ_at_the_start(digits, tmp_path):
    settings = {"max_epochs": 1, "random_state": 0, "checkpoint_dir": tmp_path}
    for seed in range(2):
        torch.manual_seed(seed)
        normed = nn.utils.spectral_norm(nn.Linear(64, 10))
        UndefendedClassifier(nn.Sequential(nn.Flatten(), normed), **settings).fit(*digits)


def test_other_code_of_the_network_makes_another_run(digits, tmp_path):
    def network_that(computes):
        class Computing(nn.Linear):
            forward = computes

        return UndefendedClassifier(
            nn.Sequential(nn.Flatten(), Computing(64, 10)), max_epochs=1, checkpoint_dir=tmp_path
        )

    network_that(lambda self, x: nn.functional.linear(x, self.weight, self.bias)).fit(*digits)
    network_that(lambda self, x: nn.functional.linear(x, self.weight, self.bias)).fit(*digits)
    with pytest.raises(SaveError, match="with the same code of the network"):
        network_that(lambda self, x: nn.functional.linear(x, self.weight)).fit(*digits)


def decaying(optimizer, total_steps):
    """A schedule that computes in NumPy's float32, and keeps what it computed."""
    return torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda step: np.float32(0.97))


NUMPY = {
    "float64": {"learning_rate": np.float64(0.05)},
    "float32": {"learning_rate": np.float32(0.05)},
    "partial": {"optimizer": partial(torch.optim.SGD, momentum=np.float32(0.9))},
    "schedule": {"lr_scheduler": decaying},
}


@pytest.mark.parametrize("what", NUMPY)
def test_numbers_of_numpy_break_no_run(digits, tmp_path, recwarn, what):
    settings = {"max_epochs": 6, "random_state": 0, **NUMPY[what]}
    unbroken = UndefendedClassifier(network, **settings).fit(*digits)
    settings["checkpoint_dir"] = tmp_path
    for epoch in (3, 1):
        with pytest.raises(UnpluggedError):
            UndefendedClassifier(network, callbacks=[FailsAt(epoch)], **settings).fit(*digits)
    seen = FailsAt(99)
    resumed = UndefendedClassifier(network, callbacks=[seen], **settings).fit(*digits)
    assert seen.n == 99 - 4  # the third epoch was lost, twice
    assert same(weights(resumed), weights(unbroken))
    assert history(resumed) == history(unbroken)
    assert not [each for each in recwarn if "passed over" in str(each.message)]


def test_a_state_comes_back_with_its_types(tmp_path):
    module = nn.BatchNorm1d(2).state_dict()
    state = {
        "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True), np.complex64(1j), 0.1, 3, True],
        "arrays": (np.arange(6.0).reshape(2, 3), np.zeros((0, 2), np.uint8)),
        "words": {"a": np.str_("b"), np.int64(5): "five", None: b"bytes"},
        "kinds": [Counter({np.int64(3): 2}), OrderedDict(b=1, a=2), {1, 2}, torch.Size([3])],
        "module": module,
    }
    write(tmp_path / "a", {"run": "r", "stage": "s", "epoch": 1, "state": state})
    found = read(tmp_path / "a", _EPOCH)["state"]
    for ours, theirs in zip(state["scalars"], found["scalars"], strict=True):
        assert (type(ours), ours) == (type(theirs), theirs)
    for ours, theirs in zip(state["arrays"], found["arrays"], strict=True):
        assert (ours.dtype, ours.shape, ours.tolist()) == (
            theirs.dtype,
            theirs.shape,
            theirs.tolist(),
        )
    assert found["words"] == {"a": "b", 5: "five", None: b"bytes"}
    assert found["kinds"] == state["kinds"]
    assert list(map(type, found["kinds"])) == list(map(type, state["kinds"]))
    assert same(found["module"], module)
    assert found["module"]._metadata == module._metadata


class Memory:
    """What no reader takes without running code."""


@pytest.mark.parametrize("kind", [Memory, partial(deque, [1]), partial(defaultdict, int)])
def test_a_state_that_could_not_be_read_back_is_refused_when_it_is_written(digits, tmp_path, kind):
    def remembering(optimizer, total_steps):
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
        schedule.memory = {"all": [kind()]}
        return schedule

    run = UndefendedClassifier(max_epochs=3, lr_scheduler=remembering, checkpoint_dir=tmp_path)
    with pytest.raises(SaveError, match=r"^checkpoint_dir must be None .* at .*memory\.all\.0$"):
        run.fit(*digits)
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]


@pytest.mark.parametrize("kind", [DefensiveDistiller, RobustDistiller])
def test_another_trained_teacher_makes_another_run(digits, tmp_path, kind):
    settings = {"max_epochs": 1, "random_state": 0, "checkpoint_dir": tmp_path}
    settings |= {"prefit_teacher": True} if kind is DefensiveDistiller else {"steps": 1}
    one, other = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2))
    kind(teacher=one, **settings).fit(*digits)
    kind(teacher=one, **settings).fit(*digits)
    with pytest.raises(SaveError, match="with the same weights of the teacher"):
        kind(teacher=other, **settings).fit(*digits)


def begun(folder, digits):
    """Five epochs of six, and the weights that the run must end with."""
    settings = {"max_epochs": 6, "random_state": 0, "optimizer": "sgd"}
    run = UndefendedClassifier(network, **settings, checkpoint_dir=folder, callbacks=[FailsAt(6)])
    with pytest.raises(UnpluggedError):
        run.fit(*digits)
    resumed = UndefendedClassifier(network, **settings, checkpoint_dir=folder)
    return resumed, weights(UndefendedClassifier(network, **settings).fit(*digits))


def copied(one, other):
    return lambda folder: shutil.copy(folder / one, folder / other)


def made_a_folder(name):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return change


def made_a_link(folder):
    (folder / "run.ckpt").rename(folder / "elsewhere")
    (folder / "run.ckpt").symlink_to(folder / "nowhere")


MISPLACED = {
    "an epoch for the run": (copied("network-000005.ckpt", "run.ckpt"), "got another checkpoint"),
    "the run for an epoch": (copied("run.ckpt", "network-000005.ckpt"), None),
    "another epoch": (copied("network-000004.ckpt", "network-000005.ckpt"), None),
    "a later epoch": (copied("network-000004.ckpt", "network-000009.ckpt"), None),
    "a folder for an epoch": (made_a_folder("network-000009.ckpt"), "must hold files"),
    "a folder for the run": (made_a_folder("run.ckpt"), "must hold files"),
    "a link to nowhere": (made_a_link, "must hold files"),
    "a pipe": (lambda folder: os.mkfifo(folder / "network-000007.ckpt"), "must hold files"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:a checkpoint is passed over")
@pytest.mark.parametrize("what", MISPLACED)
def test_a_misplaced_file_is_refused_or_does_no_harm(digits, tmp_path, what):
    resumed, expected = begun(tmp_path, digits)
    change, refusal = MISPLACED[what]
    change(tmp_path)
    if refusal is None:
        assert same(weights(resumed.fit(*digits)), expected)
    else:
        with pytest.raises(SaveError, match=refusal):
            resumed.fit(*digits)


def test_a_state_of_the_student_is_none_of_the_teacher(digits, tmp_path):
    unbroken = estimator().fit(*digits)
    with pytest.raises(UnpluggedError):
        estimator(checkpoint_dir=tmp_path, callbacks=[FailsAt(7)]).fit(*digits)
    shutil.copy(tmp_path / "student-000002.ckpt", tmp_path / "teacher-000004.ckpt")
    with pytest.warns(UserWarning, match=r"teacher-000004\.ckpt must be what its name says"):
        resumed = estimator(checkpoint_dir=tmp_path).fit(*digits)
    assert same(weights(resumed), weights(unbroken))


def test_a_file_is_no_checkpoint_folder(digits, tmp_path):
    (tmp_path / "file").touch()
    for path in ("file", "file/inside"):
        with pytest.raises(SaveError, match=r"^checkpoint_dir must be a folder, got"):
            UndefendedClassifier(max_epochs=1, checkpoint_dir=tmp_path / path).fit(*digits)


@pytest.mark.parametrize(
    ("name", "form", "change", "told"),
    [
        ("run.ckpt", _RUN, {"settings": "{"}, "must hold the settings of a run"),
        ("run.ckpt", _RUN, {"settings": "[" * 10_000}, "must hold the settings of a run"),
        ("run.ckpt", _RUN, {"settings": "{}"}, "must hold a run with the same"),
        ("run.ckpt", _RUN, {"start": {}}, "must hold the initial weights of its run"),
        ("run.ckpt", _RUN, {"start": {"network": 3}}, "must hold the initial weights of its run"),
        ("run.ckpt", _RUN, {"seed": "0"}, "must hold run, seed"),
        ("network-000005.ckpt", _EPOCH, {"state": {}}, "cannot be put back: KeyError"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_forged_checkpoints_are_refused(digits, tmp_path, name, form, change, told):
    resumed, _ = begun(tmp_path, digits)
    write(tmp_path / name, read(tmp_path / name, form) | change)
    with pytest.raises(SaveError, match=told):
        resumed.fit(*digits)


def altered(chance, folder, others):
    """What disks, people and other programs do to a folder of checkpoints."""
    files = (path for path in folder.glob("*.ckpt") if path.is_file())
    paths = sorted(path for path in files if path.stat().st_size)
    if not paths:
        return
    path = chance.choice(paths)
    content = path.read_bytes()
    kind = chance.randrange(9)
    if kind == 0:
        middle = chance.randrange(len(content))
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif kind == 1:
        path.write_bytes(content[: chance.randrange(len(content))])
    elif kind == 2:
        path.write_bytes(content + chance.randbytes(9))
    elif kind == 3:
        path.unlink()
    elif kind == 4:  # exchanged
        other = chance.choice(paths)
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif kind == 5:  # under another epoch
        path.unlink()
        other = folder / f"network-{chance.randrange(1, 12):06}.ckpt"
        if not other.is_dir():
            other.write_bytes(content)
    elif kind == 6:  # of another run
        path.write_bytes(chance.choice(sorted(others.iterdir())).read_bytes())
    elif kind == 7:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(chance.choice([b"", b"distillguard checkpoint 1\n", chance.randbytes(99)]))


@pytest.mark.filterwarnings("ignore:a checkpoint is passed over")
@pytest.mark.parametrize(
    ("seed", "n"), [(0, 40), pytest.param(1, 1000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_whatever_became_of_its_files_a_run_ends_right_or_is_refused(tmp_path, seed, n):
    X, y = datasets.load_digits("train")
    digits = X[:40], y[:40]
    resumed, expected = begun(tmp_path / "pristine", digits)
    begun(tmp_path / "others", (X[40:80], y[40:80]))
    chance, counts = random.Random(seed), Counter()
    for _ in range(n):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "pristine", folder)
        for _ in range(chance.choice([1, 1, 2])):
            altered(chance, folder, tmp_path / "others")
        try:
            found = resumed.set_params(checkpoint_dir=folder).fit(*digits)
        except SaveError:
            counts["refused"] += 1
        else:
            assert same(weights(found), expected)
            counts["right"] += 1
    assert min(counts["refused"], counts["right"]) > n / 5
    print(dict(counts))


def test_no_code_in_a_checkpoint_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    write(tmp_path / "trap.ckpt", {"state": Trap()})
    with pytest.raises(SaveError, match="without running code"):
        read(tmp_path / "trap.ckpt", _EPOCH)
    assert not (tmp_path / "sprung").exists()


def test_warm_start_and_checkpoints_exclude_each_other(digits, tmp_path):
    with pytest.raises(ValueError, match="warm_start must be False with checkpoint_dir, got True"):
        estimator(warm_start=True, checkpoint_dir=tmp_path).fit(*digits)


def test_only_the_last_two_states_of_a_stage_are_kept(digits, tmp_path):
    estimator(checkpoint_dir=tmp_path).fit(*digits)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run.ckpt",
        "student-000003.ckpt",
        "student-000004.ckpt",
        "teacher-000003.ckpt",
        "teacher-000004.ckpt",
    ]


SCRIPT = textwrap.dedent(
    """
    import sys, torch
    import numpy as np
    from functools import partial
    torch.set_num_threads(1)
    sys.path.insert(0, {tests!r})
    from test_long_runs import estimator, weights
    from distillguard import datasets
    X, y = datasets.load_digits("train")
    print("ready", flush=True)
    fitted = estimator(checkpoint_dir={folder!r}, max_epochs=150, **{more}).fit(X[:200], y[:200])
    torch.save(weights(fitted), {out!r})
    """
)


def killed_until_done(tmp_path, seed, kills, longest, more):
    """Run the script, kill it at random moments, and at last let it finish; its weights."""
    draw, out = random.Random(seed), tmp_path / "out.pt"
    tests = os.path.dirname(__file__)
    folder = str(tmp_path / f"run{seed}")
    script = SCRIPT.format(folder=folder, out=str(out), tests=tests, more=more)
    done = 0
    for attempt in count():
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if attempt < kills:
                time.sleep(draw.uniform(0.0, longest))
            if attempt < kills and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                done += 1
                continue
            assert process.wait() == 0
        return torch.load(out), done
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        "{}",
        "dict(learning_rate=np.float64(0.05), optimizer=partial(torch.optim.SGD, momentum=0.8))",
    ],
    ids=["plain", "numpy and a partial"],
)
def test_twenty_kills_leave_the_same_bits(tmp_path, more):
    unbroken, _ = killed_until_done(tmp_path, 1, kills=0, longest=0, more=more)
    killed = 0
    for seed in range(2, 7):
        broken, done = killed_until_done(tmp_path, seed, kills=4, longest=1.0, more=more)
        assert same(broken, unbroken)
        killed += done
    assert killed == 20


def test_files_of_others_in_the_checkpoint_folder_stay(digits, tmp_path):
    strangers = ["model.ckpt.index", "notes.ckpt.txt", "network-000001.ckpt.0a1b2c3d"]
    for name in strangers:
        (tmp_path / name).write_text("not ours")
    (tmp_path / "network-000001.ckpt.distillguard-0a1b2c3d").write_text(
        "ours, cut off while it was written"
    )

    UndefendedClassifier(max_epochs=1, checkpoint_dir=tmp_path).fit(*digits)

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*strangers, "run.ckpt", "network-000001.ckpt"}


def test_older_files_of_others_stay_though_named_like_ours(digits, tmp_path):
    settings = {"max_epochs": 6, "random_state": 0, "checkpoint_dir": tmp_path}
    with pytest.raises(UnpluggedError):
        UndefendedClassifier(**settings, callbacks=[FailsAt(4)]).fit(*digits)
    strangers = [tmp_path / f"network-00000{number}.ckpt" for number in (1, 8, 9)]
    for path in strangers:
        path.write_text("not ours")
    with pytest.warns(UserWarning, match="a checkpoint is passed over"):
        UndefendedClassifier(**settings).fit(*digits)
    assert all(path.read_text() == "not ours" for path in strangers)
    names = {path.name for path in tmp_path.iterdir()} - {path.name for path in strangers}
    assert names == {"run.ckpt", "network-000005.ckpt", "network-000006.ckpt"}


def test_a_folder_that_is_refused_keeps_all_its_files(digits, tmp_path):
    for name in ("old.ckpt", "run.ckpt.distillguard-0a1b2c3d"):
        (tmp_path / name).write_text("not ours")
    with pytest.raises(SaveError, match="must be empty or hold a run"):
        UndefendedClassifier(max_epochs=1, checkpoint_dir=tmp_path).fit(*digits)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_path_is_no_checkpoint_folder(digits):
    with pytest.raises(ValueError, match="checkpoint_dir must name a folder"):
        UndefendedClassifier(max_epochs=1, checkpoint_dir="").fit(*digits)
