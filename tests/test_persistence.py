"""A save loads to the same predictions or says what is wrong with it, whatever happened to it."""

import errno
import fcntl
import hashlib
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from distillguard import (
    DefensiveDistiller,
    UndefendedClassifier,
    _files,
    estimators,
    load,
    networks,
    persistence,
)
from distillguard._processes import Processes
from distillguard.estimators import _classifier
from distillguard.exceptions import SaveError
from distillguard.persistence._folder import _locked
from distillguard.persistence._networks import networks_of, no_larger_than

TINY = partial(networks.mlp, hidden=(3,))
DROPPING = partial(TINY, dropout=0.1)  # a teacher of ExtendedDistiller needs that


@pytest.fixture(scope="module")
def table():
    generator = np.random.default_rng(0)
    return generator.random((40, 4), dtype=np.float32), np.array(["ja", "nein"] * 20)


def tiny(**settings) -> DefensiveDistiller:
    return DefensiveDistiller(TINY, **{"max_epochs": 1, "random_state": 0, **settings})


@pytest.fixture(scope="module")
def fitted(table):
    return tiny().fit(*table)


@pytest.fixture(scope="module")
def pristine(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")
    fitted.save(folder)
    return folder


@pytest.fixture
def saved(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "guard"))


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def sealed(folder: Path, manifest: dict) -> None:
    """Write a manifest with the digest that belongs to it, as a forger would."""
    manifest.pop("digest", None)
    text = json.dumps(manifest, sort_keys=True)
    manifest["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def same(one, other, X) -> bool:
    return np.array_equal(one.decision_function(X), other.decision_function(X)) and np.array_equal(
        one.predict(X), other.predict(X)
    )


# --- there and back --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes",
    [
        np.array(["ja", "nein"], dtype="<U9"),
        np.array([-3, 7], dtype=np.int16),
        np.array([False, True]),
        np.array([-1, 1], dtype=np.float32),
        np.array(["a", "b"], dtype=object),
    ],
    ids=lambda classes: str(classes.dtype),
)
def test_classes_come_back_with_their_dtype(table, tmp_path, classes):
    X = table[0]
    fitted = UndefendedClassifier(TINY, max_epochs=1, random_state=0).fit(X, classes[[0, 1] * 20])
    fitted.save(tmp_path)
    found = load(tmp_path)
    assert found.classes_.dtype == fitted.classes_.dtype
    assert found.classes_.tolist() == fitted.classes_.tolist()
    assert same(found, fitted, X)


def test_hundreds_of_long_names_of_classes_come_back(table, tmp_path):
    names = np.array([f"{number:0100}" for number in range(400)])  # 160 kB
    X = np.resize(table[0], (800, *table[0].shape[1:]))
    fitted = UndefendedClassifier(TINY, max_epochs=1, random_state=0).fit(X, names.repeat(2))
    fitted.save(tmp_path)
    assert load(tmp_path).classes_.tolist() == names.tolist()


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_predictions_are_bit_equal_in_the_precision_of_the_training(table, tmp_path, precision):
    fitted = tiny(precision=precision).fit(*table)
    fitted.save(tmp_path)
    found = load(tmp_path)
    assert same(found, fitted, table[0])
    np.testing.assert_array_equal(found.soft_labels(table[0]), fitted.soft_labels(table[0]))


def test_all_that_was_learned_and_set_comes_back(table, tmp_path):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(table[0], columns=list("abcd"))
    fitted = tiny(temperature=7.5, lr_scheduler="cosine", max_epochs=2).fit(X, table[1])
    fitted.save(tmp_path / "new" / "folder")
    found = load(tmp_path / "new" / "folder")
    assert found.history_ == fitted.history_
    assert (found.n_iter_, found.n_features_in_, found.input_shape_) == (2, 4, (4,))
    assert list(found.feature_names_in_) == list("abcd")
    ours, theirs = (each.get_params() for each in (found, fitted))
    assert (ours.pop("module").func, theirs.pop("module").func) == (networks.mlp, networks.mlp)
    assert ours == theirs
    assert not any(part.training for part in found.student_.modules())


def test_a_loaded_estimator_fits_as_the_saved_one_does(table, saved, fitted):
    assert same(load(saved).fit(*table), fitted, table[0])


class Tied(nn.Module):
    """Shared weights, buffers, one of them empty, batch statistics: what a state dict can hold."""

    def __init__(self, shape, n_classes):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.last = nn.Linear(4, n_classes)
        self.register_buffer("shift", torch.rand(4))
        self.register_buffer("empty", torch.rand(0, 3))

    def forward(self, inputs):
        return self.last(self.second(self.first(self.norm(inputs)).relu() + self.shift))


def test_shared_weights_buffers_and_batch_statistics_come_back(table, tmp_path):
    fitted = DefensiveDistiller(Tied, max_epochs=2, random_state=0).fit(*table)
    fitted.save(tmp_path)
    found = load(tmp_path, module=Tied((4,), 2))
    assert same(found, fitted, table[0])
    assert found.student_.first.weight is found.student_.second.weight


def test_convolutions_trained_channels_last_come_back_as_they_lay(tmp_path):
    X = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.arange(24) % 3
    network = partial(networks.wide_resnet, depth=10, width=1)
    fitted = UndefendedClassifier(network, max_epochs=1, random_state=0).fit(X, y)
    assert manifest_channels_last(fitted, tmp_path) == ["model"]
    found = load(tmp_path)
    assert same(found, fitted, X)
    layouts = [
        [parameter.stride() for parameter in each.model_.parameters()] for each in (found, fitted)
    ]
    assert layouts[0] == layouts[1]


def manifest_channels_last(fitted, folder: Path) -> list[str]:
    fitted.save(folder)
    return manifest_of(folder)["channels_last"]


@pytest.mark.parametrize("estimator", [UndefendedClassifier, DefensiveDistiller])
def test_lazy_layers_take_their_sizes_from_the_data_and_from_the_save(table, tmp_path, estimator):
    def lazy():
        return nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(len(set(table[1]))))

    module = lazy()
    fitted = estimator(module, max_epochs=2, random_state=0).fit(*table)
    again = estimator(lambda shape, n_classes: lazy(), max_epochs=2, random_state=0).fit(*table)
    assert np.array_equal(fitted.decision_function(table[0]), again.decision_function(table[0]))
    assert module[0].has_uninitialized_params()
    fitted.save(tmp_path / "lazy")
    loaded = load(tmp_path / "lazy", module=lazy())
    assert np.array_equal(loaded.decision_function(table[0]), fitted.decision_function(table[0]))


def test_another_teacher_is_asked_for_and_takes_its_place(table, tmp_path):
    wide = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    fitted = tiny(teacher=wide).fit(*table)
    fitted.save(tmp_path)
    with pytest.raises(
        SaveError, match=r"teacher must be given .* made with torch\.nn.*Sequential"
    ):
        load(tmp_path)
    found = load(tmp_path, teacher=wide)
    np.testing.assert_array_equal(found.soft_labels(table[0]), fitted.soft_labels(table[0]))
    with pytest.raises(SaveError, match=r"^teacher must .* 0\.weight \(float32, 9x4\), got 1\."):
        load(tmp_path, teacher=TINY)


def test_a_network_of_the_caller_is_asked_for_by_name(table, tmp_path):
    DefensiveDistiller(Tied, max_epochs=1).fit(*table).save(tmp_path)
    with pytest.raises(SaveError, match=r"module must be given .* made with .*Tied"):
        load(tmp_path)


def test_a_mismatch_names_the_first_tensor_that_differs(saved):
    with pytest.raises(SaveError, match=r"1\.weight \(float32, 3x4\), got 1\.weight \(.*, 5x4\)"):
        load(saved, module=partial(networks.mlp, hidden=(5,)))
    with pytest.raises(SaveError, match=r"3\.weight \(float32, 2x3\), got 3\.weight \(.*, 3x3\)"):
        load(saved, module=partial(networks.mlp, hidden=(3, 3)))
    with pytest.raises(SaveError, match=r"1\.weight \(float32, 3x4\), got 1\.weight \(.*, 2x4\)"):
        load(saved, module=nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(SaveError, match=r"3\.weight \(float32, 2x3\), got none"):
        load(saved, module=nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))


def test_parameters_that_json_cannot_carry_are_told(table, tmp_path):
    fitted = tiny(optimizer=torch.optim.SGD, random_state=np.random.RandomState(0)).fit(*table)
    fitted.save(tmp_path)
    with pytest.warns(UserWarning, match="optimizer, random_state could not be saved"):
        found = load(tmp_path)
    assert found.optimizer == "adam"
    assert same(found, fitted, table[0])


@pytest.mark.parametrize(
    ("weights", "kept"),
    [({}, True), ({"a": 2.0}, True), ({0: 2.0}, False), ({"a": 2.0, 0: 1.0}, False)],
)
@pytest.mark.filterwarnings("ignore:class_weight could not be saved")
def test_a_mapping_is_saved_with_names_for_keys_and_else_not_at_all(table, tmp_path, weights, kept):
    fitted = tiny().fit(*table).set_params(class_weight=weights)
    fitted.save(tmp_path)
    assert load(tmp_path).class_weight == (weights if kept else None)


def test_the_callers_module_and_random_numbers_are_left_alone(table, tmp_path):
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    before = [tensor.clone() for tensor in network.state_dict().values()]
    fitted = UndefendedClassifier(network, max_epochs=1).fit(*table)
    state = torch.random.get_rng_state()
    fitted.save(tmp_path)
    load(tmp_path, module=network)
    load(tmp_path, module=lambda *_: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(map(torch.equal, before, network.state_dict().values()))


@pytest.mark.parametrize("name", estimators.__all__)
def test_every_estimator_comes_back_as_it_was_and_fits_as_it_did(table, tmp_path, name):
    X, y = table
    kind = getattr(estimators, name)
    fitted = kind(DROPPING, max_epochs=2, random_state=0).fit(X, y)
    fitted.save(tmp_path)
    found = load(tmp_path)
    assert type(found) is kind
    assert same(found, fitted, X)
    assert found.history_ == fitted.history_
    ours, theirs = (each.get_params() for each in (found, fitted))
    assert (ours.pop("module").func, theirs.pop("module").func) == (networks.mlp, networks.mlp)
    assert ours == theirs
    assert same(found.fit(X, y), fitted, X)


@pytest.mark.parametrize("name", estimators.__all__)
def test_every_save_that_lost_a_network_is_refused_by_its_name(table, tmp_path, name):
    getattr(estimators, name)(DROPPING, max_epochs=1, random_state=0).fit(*table).save(tmp_path)
    for weights in sorted(tmp_path.glob("*.safetensors")):
        content = weights.read_bytes()
        weights.unlink()
        with pytest.raises(SaveError, match=re.escape(weights.name)):
            load(tmp_path)
        weights.write_bytes(content[:-1])
        with pytest.raises(SaveError, match=re.escape(weights.name)):
            load(tmp_path)
        weights.write_bytes(content)
    assert load(tmp_path).n_iter_ == 1


def test_a_robust_student_asks_for_its_other_teacher(table, tmp_path):
    X, y = table
    wide = partial(networks.mlp, hidden=(9,))
    teacher = estimators.AdversarialTrainer(wide, max_epochs=1).fit(X, y)
    fitted = estimators.RobustDistiller(TINY, teacher=teacher.model_, max_epochs=1).fit(X, y)
    fitted.save(tmp_path)
    with pytest.raises(SaveError, match=r"teacher must be given"):
        load(tmp_path)
    inputs = torch.from_numpy(X)
    for given in (teacher, wide):  # the second holds weights of its own, which are replaced
        found = load(tmp_path, teacher=given)
        assert same(found, fitted, X)
        assert torch.equal(found.teacher_(inputs), teacher.model_(inputs))


@pytest.mark.parametrize("name", estimators.__all__)
def test_every_estimator_declares_the_network_that_predicts(name):
    kind = getattr(estimators, name)
    assert networks_of(kind)["model_" if "model_" in networks_of(kind) else "student_"] == "module"


def test_a_fitted_estimator_stands_for_its_network(table, tmp_path):
    teacher = UndefendedClassifier(partial(networks.mlp, hidden=(9,)), max_epochs=1).fit(*table)
    fitted = tiny(teacher=teacher.model_, prefit_teacher=True).fit(*table)
    fitted.save(tmp_path)
    found = load(tmp_path, teacher=teacher)
    np.testing.assert_array_equal(found.soft_labels(table[0]), fitted.soft_labels(table[0]))


def test_only_the_first_of_several_processes_writes(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(_classifier, "processes", lambda: Processes(rank=1, count=2))
    fitted.save(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(_classifier, "processes", lambda: Processes(rank=0, count=2))
    fitted.save(tmp_path)
    assert load(tmp_path).n_iter_ == 1


def test_what_is_not_fitted_or_not_tensors_is_not_saved(table, tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        tiny().save(tmp_path)

    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"anything": 1}

        def set_extra_state(self, state):
            pass

    class Mine(UndefendedClassifier):
        pass

    with pytest.raises(SaveError, match=r"must be of a class of distillguard, .* got .*Mine"):
        Mine(TINY, max_epochs=1).fit(*table).save(tmp_path)

    fitted = UndefendedClassifier(TINY, max_epochs=1).fit(*table)
    fitted.model_ = Extra(4, 2)
    with pytest.raises(SaveError, match="state_dict of tensors, got dict as _extra_state"):
        fitted.save(tmp_path)
    assert not list(tmp_path.iterdir())


# --- what a network answers -------------------------------------------------------------------


class Scaled(nn.Module):
    """Everything that a constructor may be given and no state dict holds."""

    def __init__(self, mean=0.3, std=0.1, eps=1e-3, slope=0.01, residual=True):
        super().__init__()
        self.mean, self.std, self.residual = mean, std, residual
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4, eps=eps)
        self.act, self.last = nn.LeakyReLU(slope), nn.Linear(4, 2)

    def forward(self, inputs):
        inputs = (inputs - self.mean) / self.std
        hidden = self.act(self.norm(self.first(inputs)))
        return self.last(hidden + inputs if self.residual else hidden)


@pytest.fixture(scope="module")
def scaled(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaled")
    UndefendedClassifier(Scaled(), max_epochs=1, random_state=0).fit(*table).save(folder)
    return folder


@pytest.mark.parametrize(
    "other",
    [{"mean": 0.0}, {"std": 1.0}, {"eps": 1e-1}, {"slope": 0.2}, {"residual": False}],
    ids=str,
)
def test_a_module_with_another_constant_is_refused(scaled, other):
    assert load(scaled, module=Scaled()).n_features_in_ == 4
    with pytest.raises(SaveError, match=r"^module must answer as the saved model did, got log"):
        load(scaled, module=Scaled(**other))


class RulesOut(Scaled):
    """One more class, which never wins."""

    def forward(self, inputs):
        logits = super().forward(inputs)
        return torch.cat([logits, torch.full_like(logits[:, :1], -1e9)], dim=1)


def test_a_class_that_is_ruled_out_does_not_hide_another_constant(table, tmp_path):
    X, y = table
    y = np.where(np.arange(len(y)) == 0, "nie", y)
    UndefendedClassifier(RulesOut(), max_epochs=1, random_state=0).fit(X, y).save(tmp_path)
    load(tmp_path, module=RulesOut())
    with pytest.raises(SaveError, match=r"^module must answer as the saved model did, got log"):
        load(tmp_path, module=RulesOut(mean=0.0))


def test_a_module_without_finite_logits_is_refused(scaled):
    with pytest.raises(SaveError, match=r"module must answer .* differ by nan"):
        load(scaled, module=Scaled(std=0.0))


def test_a_module_that_cannot_be_asked_is_let_through(scaled):
    class Elsewhere(Scaled):
        def forward(self, inputs):
            return super().forward(inputs.to("a device that is not here"))

    assert load(scaled, module=Elsewhere()).n_features_in_ == 4


def test_a_teacher_with_another_constant_is_refused_by_its_name(table, tmp_path):
    teacher = Scaled()
    tiny(teacher=teacher).fit(*table).save(tmp_path)
    load(tmp_path, teacher=teacher)
    with pytest.raises(SaveError, match=r"^teacher must answer as the saved teacher did"):
        load(tmp_path, teacher=Scaled(mean=0.0))


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_answers_may_differ_by_rounding_and_by_no_more(table, tmp_path, precision):
    fitted = UndefendedClassifier(TINY, max_epochs=1, random_state=0, precision=precision)
    fitted.fit(*table).save(tmp_path)
    for share, right in ((1e-5, True), (1e-3, False)):
        fitted.save(tmp_path)
        manifest = manifest_of(tmp_path)
        logits = manifest["answers"]["model"]["logits"]["uniform"]
        logits[0][0] += share * max(abs(each) for row in logits for each in row)
        sealed(tmp_path, manifest)
        if right:
            load(tmp_path)
        else:
            with pytest.raises(SaveError, match="must answer as the saved model did"):
                load(tmp_path)


def test_answers_are_those_of_the_network_in_float64(table, tmp_path):
    fitted = UndefendedClassifier(TINY, max_epochs=1, random_state=0).fit(*table)
    fitted.save(tmp_path)
    stored = manifest_of(tmp_path)["answers"]["model"]
    assert stored["dtype"] == "float64"
    # NumPy's frozen generator: the inputs are the same in every version of every library.
    asked = np.random.RandomState(1503).standard_normal((4, 4))
    one, other = (
        [part.detach().double().numpy() for part in fitted.model_[i].parameters()] for i in (1, 3)
    )
    hidden = np.maximum(asked @ one[0].T + one[1], 0)
    logits = hidden @ other[0].T + other[1]
    np.testing.assert_allclose(stored["logits"]["normal"], logits, rtol=1e-12)


class Asked(nn.Module):
    """A head behind a function of the inputs that is not for every input."""

    def __init__(self, function):
        super().__init__()
        self.function, self.head, self.embedding = function, nn.Linear(4, 2), nn.Embedding(3, 4)

    def forward(self, inputs):
        return self.head(self.function(self, inputs))


@pytest.mark.parametrize(
    ("function", "dtype", "kinds"),
    [
        (lambda self, x: x.sub_(0.5), "float64", ["uniform", "normal"]),
        (lambda self, x: x.float(), "float32", ["uniform", "normal"]),
        (lambda self, x: self.embedding(x.long()).sum(1), "float64", ["uniform"]),
        (lambda self, x: x.sqrt(), "float64", ["uniform"]),
        (lambda self, x: x + torch.rand_like(x), None, []),
        (lambda self, x: x[:, :4] if x.max() < 0.5 else 1 / 0, None, []),
    ],
    ids=["in place", "float32 alone", "tokens", "root", "random", "raises"],
)
def test_networks_are_asked_only_what_they_answer(tmp_path, function, dtype, kinds):
    X = np.random.default_rng(0).random((12, 4), dtype=np.float32) / 2.5
    module = Asked(function)
    UndefendedClassifier(module, max_epochs=1, random_state=0).fit(X, [0, 1] * 6).save(tmp_path)
    answers = manifest_of(tmp_path)["answers"]
    if dtype is None:
        assert answers == {}
    else:
        assert answers["model"]["dtype"] == dtype
        assert [*answers["model"]["logits"]] == kinds
    assert load(tmp_path, module=Asked(function)).n_features_in_ == 4


def test_large_inputs_are_not_asked_about(table, tmp_path):
    class Mean(nn.Module):
        def __init__(self, shape, n_classes):
            super().__init__()
            self.head = nn.Linear(1, n_classes)

        def forward(self, inputs):
            return self.head(inputs.flatten(1).mean(1, keepdim=True))

    for side in (700, 800):
        X = torch.zeros(2, 1, side, side)
        UndefendedClassifier(Mean, max_epochs=1).fit(X, [0, 1]).save(tmp_path)
        answers = manifest_of(tmp_path)["answers"]
        assert len(answers) == (side**2 <= 2**19)
        if answers:
            assert [len(rows) for rows in answers["model"]["logits"].values()] == [1, 1]


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strokes", range(12))
def test_a_save_that_is_cut_off_leaves_the_old_one(table, saved, fitted, monkeypatch, strokes):
    """The process ends at the n-th call that touches the disk, half-way through its bytes."""
    other = tiny(random_state=1).fit(*table)
    calls = iter(range(100))

    def cut(function):
        def call(*arguments, **keywords):
            number = next(calls)
            if number == strokes and function is synchronise:
                os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            if number >= strokes:  # nor does the dead sweep up
                raise KeyboardInterrupt
            return function(*arguments, **keywords)

        return call

    synchronise = os.fsync
    monkeypatch.setattr(_files.os, "fsync", cut(synchronise))
    monkeypatch.setattr(_files, "_sync", cut(lambda folder: None))
    monkeypatch.setattr(Path, "replace", cut(Path.replace))
    monkeypatch.setattr(Path, "unlink", cut(Path.unlink))
    ended = False
    try:
        other.save(saved)
        ended = True
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()
    # Three files are synchronised, then each gets its name and its folder is synchronised.
    replaced = strokes > 7
    assert ended == (strokes > 10)
    assert same(load(saved), other if replaced else fitted, table[0])

    # The next save sweeps up.
    other.save(saved)
    named = {each["file"] for each in manifest_of(saved)["networks"].values()}
    assert {path.name for path in saved.iterdir()} == named | {"manifest.json"}
    assert same(load(saved), other, table[0])


def test_a_save_that_fails_leaves_nothing_behind(saved, fitted, monkeypatch):
    before = {path: path.read_bytes() for path in saved.iterdir()}
    replace = Path.replace

    def full(self, target):
        if Path(target).name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(saved)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_threads_that_save_to_one_folder_leave_one_whole_save(
    table, saved, fitted, monkeypatch, locks
):
    """Where the file system has no locks a save may stay behind, and none is broken."""
    if not locks:
        monkeypatch.setattr(fcntl, "flock", without_locks)
    estimators_ = [fitted, tiny(random_state=1).fit(*table)]
    errors = []

    def often(action):
        try:
            for _ in range(20):
                action()
        except Exception as error:
            errors.append(error)

    def load_one():
        found = load(saved)
        assert any(same(found, each, table[0]) for each in estimators_)

    actions = [load_one, *(partial(each.save, saved) for each in estimators_)]
    threads = [threading.Thread(target=often, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    load_one()
    assert len([*saved.iterdir()]) == 3 or not locks


def without_locks(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")


def test_processes_that_save_to_one_folder_leave_one_whole_save(saved):
    script = textwrap.dedent(
        """
        import sys
        from distillguard import load
        estimator = load(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(12):
            estimator.save(sys.argv[1])
        """
    )
    command, pipe = [sys.executable, "-c", script, str(saved)], subprocess.PIPE
    running = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(2)]
    for process in running:
        process.stdout.readline()
    for process in running:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in running:
        process.communicate()
        assert process.returncode == 0
    assert len(load(saved).classes_) == 2
    assert len([*saved.iterdir()]) == 3


def test_what_may_not_be_removed_stops_no_save(saved, fitted, monkeypatch):
    def forbidden(self, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "unlink", forbidden)
    for _ in range(40):
        fitted.save(saved)
    monkeypatch.undo()
    assert load(saved).n_iter_ == 1


def test_files_of_others_stay_whatever_their_names(fitted, tmp_path):
    strangers = {
        "model-0123456789abcdef.safetensors",
        "student-0123456789abcdef.safetensors",
        "manifest.json.0123abcd",
        "manifest.json.bak",
        "student-0123456789abcdef.safetensors.bak",
    }
    for name in strangers:
        (tmp_path / name).write_text("somebody's")
    for _ in range(3):
        fitted.save(tmp_path)
    assert strangers <= {path.name for path in tmp_path.iterdir()}
    assert all((tmp_path / name).read_text() == "somebody's" for name in strangers)
    assert len([*tmp_path.iterdir()]) == len(strangers) + 3


def test_what_a_killed_save_left_is_not_taken_from_one_that_may_be_alive(
    fitted, saved, monkeypatch
):
    unfinished = saved / "student-0123456789abcdef.safetensors.distillguard-0123abcd"
    unfinished.touch()
    monkeypatch.setattr(fcntl, "flock", without_locks)
    fitted.save(saved)
    assert unfinished.exists()
    monkeypatch.undo()
    fitted.save(saved)
    assert not unfinished.exists()


def test_nothing_is_written_through_a_link(fitted, saved, tmp_path):
    """Some stores keep a folder of links to files that other folders share."""
    shared = tmp_path / "shared"
    shared.mkdir()
    for path in sorted(saved.iterdir()):
        path.rename(shared / path.name)
        path.symlink_to(shared / path.name)
    before = {path: path.read_bytes() for path in shared.iterdir()}
    assert load(saved).n_iter_ == 1
    fitted.save(saved)
    assert {path: path.read_bytes() for path in shared.iterdir()} == before
    assert not any(path.is_symlink() for path in saved.iterdir())
    assert load(saved).n_iter_ == 1


def test_a_dangling_link_named_like_the_manifest_is_not_replaced(fitted, tmp_path):
    (tmp_path / "manifest.json").symlink_to(tmp_path / "victim")
    with pytest.raises(SaveError, match=r"without a manifest\.json of something else"):
        fitted.save(tmp_path)
    assert not (tmp_path / "victim").exists()


def test_what_json_has_no_word_for_in_a_history_is_left_out(table, tmp_path):
    fitted = tiny().fit(*table)
    fitted.history_[0] |= {"nan": float("nan"), "object": object(), "numpy": np.float32(0.5)}
    fitted.save(tmp_path)
    row = load(tmp_path).history_[0]
    assert (row["nan"], row["object"], row["numpy"]) == (None, None, 0.5)
    assert row["loss"] == fitted.history_[0]["loss"]


def test_a_manifest_follows_the_published_schema(pristine):
    manifest = manifest_of(pristine)
    jsonschema.validate(manifest, persistence.SCHEMA)
    for place in (("fitted", "n_features_in"), ("fitted", "n_iter"), ("version",)):
        forged = json.loads(json.dumps(manifest))
        home = forged
        for key in place[:-1]:
            home = home[key]
        home[place[-1]] = True
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(forged, persistence.SCHEMA)


def test_a_damaged_weights_file_is_written_again(saved, fitted, table):
    for path in saved.glob("*.safetensors"):
        path.write_bytes(b"half")
    fitted.save(saved)
    assert same(load(saved), fitted, table[0])


def test_another_programs_manifest_is_not_overwritten(fitted, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(SaveError, match=r"without a manifest\.json of something else"):
        fitted.save(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {"name": "a web page"}


# --- damage and forgery ----------------------------------------------------------------------


def flip(chance: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 10])):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def fresh_copy(pristine: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(pristine, folder))


def damage(chance: random.Random, folder: Path) -> None:
    """What disks, downloads and editors do to files."""
    path = chance.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    kind = chance.randrange(7)
    if kind <= 1:
        path.write_bytes(flip(chance, content))
    elif kind == 2:
        path.write_bytes(content[: chance.randrange(len(content))])
    elif kind == 3:
        path.write_bytes(content + chance.randbytes(chance.randrange(1, 100)))
    elif kind == 4:
        one, other = sorted(folder.glob("*.safetensors"))
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(chance.choice([first, second]))
    elif kind == 5:  # harms nothing
        manifest = manifest_of(folder)
        (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=4))
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("old", "new"), [('"nein"', '"neun"'), ("0.001", "0.002"), ("20.0", "2.0")]
)
def test_a_value_that_changed_since_is_noticed(saved, old, new):
    path = saved / "manifest.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SaveError, match="damaged or edited since"):
        load(saved)


VALUES = [
    None, True, -1, 0, 1, 2**31, 10**12, 2**70, 0.5, 1e308, "", "..", "/etc/passwd", "\u0000",
    "mlp", "float32", "int64", "<U1000000000", [], {}, [[]], ["a", "b"], [1e9, 2],
    {"kind": "built-in"},
]  # fmt: skip


def places(value, path=()):
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inside:
        if isinstance(part, dict | list) and part:
            yield from places(part, (*path, key))
        else:
            yield (*path, key)


def forge(chance: random.Random, folder: Path) -> None:
    """Edit anything in the manifest and seal it again, so that only the content can tell."""
    manifest = manifest_of(folder)
    spots = [spot for spot in places(manifest) if spot and spot[0] != "digest"]
    for _ in range(chance.choice([1, 1, 1, 3])):
        *way, last = chance.choice(spots)
        home = manifest
        try:
            for key in way:
                home = home[key]
            if isinstance(home, dict) and not isinstance(last, str):
                continue
            if isinstance(home, dict) and chance.random() < 0.2:
                home.pop(last)
            elif isinstance(home, list) and chance.random() < 0.3:
                home.append(home[last])
            else:
                home[last] = chance.choice(VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier edit took the place away
    sealed(folder, manifest)


def forge_weights(chance: random.Random, folder: Path) -> None:
    """Weights that are damaged or other ones, under a manifest that vouches for them."""
    manifest = manifest_of(folder)
    name, entry = chance.choice(sorted(manifest["networks"].items()))
    path = folder / entry["file"]
    content = path.read_bytes()
    kind = chance.randrange(4)
    if kind == 0:
        content = flip(chance, content[:200]) + content[200:]
    elif kind == 1:
        content = (
            chance.choice([2**63 - 1, 10**9, 0, len(content)]).to_bytes(8, "little") + content[8:]
        )
    elif kind == 2:
        content = content[: chance.randrange(len(content))]
    else:
        tensors = load_file(path)
        some = chance.choice(sorted(tensors))
        tensors[some] = chance.choice([tensors[some][:1].clone(), tensors[some].double()])
        save_file(tensors, path)
        content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    entry.update(sha256=sha256, file=f"{name}-{sha256[:16]}.safetensors")
    (folder / entry["file"]).write_bytes(content)
    sealed(folder, manifest)


MANY = pytest.mark.parametrize(
    ("seed", "n"), [(0, 150), pytest.param(1, 2000, marks=pytest.mark.slow)], ids=["few", "many"]
)


@MANY
def test_a_damaged_save_loads_right_or_says_what_is_wrong(
    pristine, fitted, table, tmp_path, seed, n
):
    chance, refused = random.Random(seed), []
    for _ in range(n):
        folder = fresh_copy(pristine, tmp_path)
        damage(chance, folder)
        try:
            found = load(folder)
        except SaveError as error:
            refused.append(str(error))
        else:
            assert same(found, fitted, table[0])
    assert 0.8 * n < len(refused) < n
    assert all(" must " in message for message in refused)
    print(f"{len(refused)} of {n} refused")


@MANY
@pytest.mark.filterwarnings("ignore:.* could not be saved")
@pytest.mark.parametrize("forger", [forge, forge_weights])
def test_forged_saves_are_refused_or_load_to_something_that_predicts(
    pristine, table, tmp_path, forger, seed, n
):
    """Sealed anew, an edit may give another estimator; never a crash, a hang or much memory."""
    n //= 2
    chance, refused = random.Random(seed), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(n):
        folder = fresh_copy(pristine, tmp_path)
        forger(chance, folder)
        try:
            found = load(folder)
        except SaveError as error:
            refused.append(str(error))
        else:
            if forger is forge:
                assert found.predict(np.zeros((2, found.n_features_in_))).shape == (2,)
    assert len(refused) > n / 2
    print(f"{len(refused)} of {n} refused")
    assert all(" must " in message for message in refused)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


FORGERIES = {
    "a path upwards": (("networks", "student", "file"), "../guard/x.safetensors", "pattern"),
    "a class of others": (("estimator",), "os.system", "a class of ours"),
    "a private name": (("estimator",), "__builtins__", "a class of ours"),
    "a function of others": (("builders", "module", "name"), "check_image", "of distillguard"),
    "an absurd width": (("builders", "module", "keywords", "hidden"), [10**9, 3], "far more"),
    "an absurd depth": (("builders", "module", "keywords", "hidden"), [1] * 10**6, "far more"),
    "an unknown keyword": (("builders", "module", "keywords", "x"), 1, "unexpected keyword"),
    "an absurd image": (("fitted", "input_shape"), [10**9, 10**9], "a shape of 4 numbers"),
    "absurd strings": (("fitted", "classes", "dtype"), "<U100000000", "dtype of numbers"),
    "unsorted classes": (("fitted", "classes", "values"), ["nein", "ja"], "sorted classes"),
    "too few classes": (("fitted", "classes", "values"), ["ja"], "classes"),
    "a newer version": (("version",), 2, "newer distillguard"),
    "a version of another type": (("version",), True, "version from 1"),
    "another format": (("format",), "distillguard report", "another file"),
    "an absurd tensor": (("networks", "student", "tensors"), [["a", "float32", [10**15]]], "size"),
    "an odd dtype": (("networks", "student", "tensors"), [["a", "nn", [1]]], "that torch has"),
    "an unknown parameter": (("parameters", "shell"), "rm", "parameters of DefensiveDistiller"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_what_a_forger_might_try_is_refused_by_name(saved, name):
    (*way, last), value, message = FORGERIES[name]
    manifest = manifest_of(saved)
    home = manifest
    for key in way:
        home = home[key]
    home[last] = value
    sealed(saved, manifest)
    with pytest.raises(SaveError, match=message):
        load(saved)


def test_classes_that_do_not_fit_the_callers_network_are_refused(table, tmp_path):
    network = nn.Linear(4, 2)
    UndefendedClassifier(network, max_epochs=1).fit(*table).save(tmp_path)
    manifest = manifest_of(tmp_path)
    manifest["fitted"]["classes"]["values"].append("oder")
    sealed(tmp_path, manifest)
    with pytest.raises(SaveError, match="each of the 3 saved classes, got 2"):
        load(tmp_path, module=network)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("[]", "another file"),
        ("\x00\x00", "damaged"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "beyond float64"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 200_000, "damaged|another"),
        ('{"a": ' * 990 + "1" + "}" * 990, "damaged|another"),
        ("9" * 5000, "damaged"),
    ],
    ids=["empty", "list", "zeros", "nan", "infinite", "twice", "deep", "deep objects", "long"],
)
def test_json_that_is_no_manifest_is_refused(saved, text, message):
    (saved / "manifest.json").write_text(text)
    with pytest.raises(SaveError, match=message):
        load(saved)


def test_nothing_but_regular_files_is_opened(saved, tmp_path):
    with pytest.raises(SaveError, match="No such file"):
        load(tmp_path / "nowhere")
    manifest = saved / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)  # opening one would wait for a writer for ever
    with pytest.raises(SaveError, match="must be a file, got something else"):
        load(saved)
    manifest.unlink()
    with manifest.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(SaveError, match="at most"):
        load(saved)


def test_tensors_other_than_the_manifest_lists_are_refused(saved):
    manifest = manifest_of(saved)
    entry = manifest["networks"]["student"]
    tensors = load_file(saved / entry["file"])
    # As many bytes, other numbers.
    tensors["1.bias"] = tensors["1.bias"].view(torch.int32)
    save_file(tensors, saved / "new")
    sha256 = hashlib.sha256((saved / "new").read_bytes()).hexdigest()
    entry.update(sha256=sha256, file=f"student-{sha256[:16]}.safetensors")
    (saved / "new").rename(saved / entry["file"])
    sealed(saved, manifest)
    with pytest.raises(SaveError, match=r"hold 1\.bias \(float32, 3\), got 1\.bias \(int32, 3\)"):
        load(saved)


def test_a_pickle_in_place_of_weights_is_not_run(saved):
    manifest = manifest_of(saved)
    trap = b"cos\nsystem\n(S'touch trapped'\ntR."
    sha256 = hashlib.sha256(trap).hexdigest()
    entry = manifest["networks"]["student"]
    entry.update(sha256=sha256, file=f"student-{sha256[:16]}.safetensors")
    (saved / entry["file"]).write_bytes(trap)
    sealed(saved, manifest)
    with pytest.raises(SaveError, match="another size"):
        load(saved)
    assert not Path("trapped").exists()


def test_nothing_is_unpickled(saved, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("unpickled")

    for home, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(home, name, refuse)
    assert len(load(saved).classes_) == 2


FORKED = """
import multiprocessing, sys
import torch
from torch import nn
from distillguard import UndefendedClassifier, load

torch.set_num_threads(2)
X = torch.rand(2000, 3, 16, 16)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 2))
fitted = UndefendedClassifier(net, max_epochs=1, random_state=0).fit(X, torch.arange(2000) % 2)
fitted.predict(X)
child = multiprocessing.get_context("fork").Process(target=fitted.save, args=(sys.argv[1],))
child.start()
child.join(60)
hung = child.is_alive()
child.kill()
assert not hung, "the child waits for threads that it does not have"
load(sys.argv[1], module=net)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_saves_though_its_parent_has_used_threads(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "save")]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_forked_during_a_save_does_not_keep_others_out_after_it(tmp_path):
    with _locked(tmp_path) as had:
        assert had
        child = os.fork()
        if child == 0:  # a worker, which has the open folder too
            time.sleep(60)
            os._exit(0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_other_threads_build_during_a_load_is_not_counted_as_the_saved_network():
    stopped = []

    def build() -> None:
        try:
            nn.ModuleList(nn.Linear(1, 1) for _ in range(600))
        except SaveError as error:
            stopped.append(str(error))

    with no_larger_than({}):
        other = threading.Thread(target=build)
        other.start()
        other.join()
        assert stopped == []
        build()
    assert len(stopped) == 1
