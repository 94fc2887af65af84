"""Long runs: killed at any moment and started again, and what may lie in their folder."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from itertools import count

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
from distillguard.training._checkpoints import _EPOCH, read, write


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
    names = [name for name in ("teacher_", "student_", "network_") if hasattr(fitted, name)]
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


@pytest.mark.parametrize("kind", [DefensiveDistiller, RobustDistiller])
def test_another_trained_teacher_makes_another_run(digits, tmp_path, kind):
    settings = {"max_epochs": 1, "random_state": 0, "checkpoint_dir": tmp_path}
    settings |= {"prefit_teacher": True} if kind is DefensiveDistiller else {"steps": 1}
    one, other = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2))
    kind(teacher=one, **settings).fit(*digits)
    kind(teacher=one, **settings).fit(*digits)
    with pytest.raises(SaveError, match="with the same weights of the teacher"):
        kind(teacher=other, **settings).fit(*digits)


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
    torch.set_num_threads(1)
    sys.path.insert(0, {tests!r})
    from test_long_runs import estimator, weights
    from distillguard import datasets
    X, y = datasets.load_digits("train")
    print("ready", flush=True)
    fitted = estimator(checkpoint_dir={folder!r}, max_epochs=150).fit(X[:200], y[:200])
    torch.save(weights(fitted), {out!r})
    """
)


def killed_until_done(tmp_path, seed, kills, longest):
    """Run the script, kill it at random moments, and at last let it finish; its weights."""
    draw, out = random.Random(seed), tmp_path / "out.pt"
    tests = os.path.dirname(__file__)
    script = SCRIPT.format(folder=str(tmp_path / f"run{seed}"), out=str(out), tests=tests)
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
def test_twenty_kills_leave_the_same_bits(tmp_path):
    unbroken, _ = killed_until_done(tmp_path, seed=1, kills=0, longest=0)
    killed = 0
    for seed in range(2, 7):
        broken, done = killed_until_done(tmp_path, seed, kills=4, longest=1.0)
        assert same(broken, unbroken)
        killed += done
    assert killed == 20


def test_files_of_others_in_the_checkpoint_folder_stay(digits, tmp_path):
    strangers = ["model.ckpt.index", "model.ckpt.data-00000-of-00001", "notes.ckpt.txt"]
    for name in strangers:
        (tmp_path / name).write_text("not ours")
    (tmp_path / "network-000001.ckpt.distillguard-0a1b2c3d").write_text(
        "ours, cut off while it was written"
    )

    UndefendedClassifier(max_epochs=1, checkpoint_dir=tmp_path).fit(*digits)

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*strangers, "run.ckpt", "network-000001.ckpt"}


def test_a_folder_that_is_refused_keeps_all_its_files(digits, tmp_path):
    for name in ("old.ckpt", "run.ckpt.distillguard-0a1b2c3d"):
        (tmp_path / name).write_text("not ours")
    with pytest.raises(SaveError, match="must be empty or hold a run"):
        UndefendedClassifier(max_epochs=1, checkpoint_dir=tmp_path).fit(*digits)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_path_is_no_checkpoint_folder(digits):
    with pytest.raises(ValueError, match="checkpoint_dir must name a folder"):
        UndefendedClassifier(max_epochs=1, checkpoint_dir="").fit(*digits)
