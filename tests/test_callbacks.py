"""What watches training, and the options that shape it: averages, clipping, other examples."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from distillguard import DefensiveDistiller, UndefendedClassifier, datasets, functional
from distillguard._data._sources import TensorSource
from distillguard.callbacks import Callback, JSONLines, LoggerCallback
from distillguard.estimators._run import _held_out
from distillguard.training import Average


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    return X[:300], y[:300]


@pytest.fixture(scope="module")
def held():
    X, y = datasets.load_digits("test")
    return X[:100], y[:100]


def small(**settings):
    return DefensiveDistiller(**{"max_epochs": 2, "random_state": 0, **settings})


def baseline(**settings):
    return UndefendedClassifier(**{"max_epochs": 2, "random_state": 0, **settings})


# --- callbacks --------------------------------------------------------------------------------


def test_callbacks_hear_of_start_epochs_and_end_of_every_stage(digits):
    heard = []

    class Watch(Callback):
        def on_start(self, stage, network, history):
            heard.append(("start", stage, len(history)))

        def on_epoch(self, record, network):
            heard.append((record["stage"], record["epoch"], network.training))

        def on_end(self, stage, network, history):
            heard.append(("end", stage, len(history)))

    small(callbacks=[Watch()]).fit(*digits)
    assert heard == [
        ("start", "teacher", 0),
        ("teacher", 1, False),
        ("teacher", 2, False),
        ("end", "teacher", 2),
        ("start", "student", 0),
        ("student", 1, False),
        ("student", 2, False),
        ("end", "student", 2),
    ]


def test_the_text_log_is_the_history(digits, tmp_path):
    log = tmp_path / "logs" / "history.jsonl"
    fitted = small(callbacks=[JSONLines(log)]).fit(*digits)
    assert [json.loads(line) for line in log.read_text().splitlines()] == fitted.history_


def test_the_text_log_takes_a_learning_rate_of_numpy(digits, tmp_path):
    log = tmp_path / "history.jsonl"
    fitted = baseline(learning_rate=np.float32(0.25), callbacks=[JSONLines(log)]).fit(*digits)
    assert [json.loads(line) for line in log.read_text().splitlines()] == fitted.history_
    assert json.loads(log.read_text().splitlines()[0])["learning_rate"] == 0.25


def test_the_text_log_of_a_second_fit_replaces_the_first(digits, tmp_path):
    log = tmp_path / "history.jsonl"
    estimator = small(callbacks=[JSONLines(log)])
    estimator.fit(*digits)
    estimator.fit(*digits)
    assert [json.loads(line) for line in log.read_text().splitlines()] == estimator.history_


def test_the_text_log_of_a_resumed_run_has_every_epoch_once(digits, tmp_path):
    log = tmp_path / "history.jsonl"

    class Fails(Callback):
        def on_epoch(self, record, network):
            if (record["stage"], record["epoch"]) == ("student", 2):
                raise KeyboardInterrupt

    settings = {"max_epochs": 3, "checkpoint_dir": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        small(callbacks=[JSONLines(log), Fails()], **settings).fit(*digits)
    fitted = small(callbacks=[JSONLines(log)], **settings).fit(*digits)
    assert [json.loads(line) for line in log.read_text().splitlines()] == fitted.history_


def read_csv(logger):
    """The rows of a CSV log: a dict of numbers for each step."""
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return {row.pop("step"): row for row in rows}, len(rows)


def read_tensorboard(logger):
    """The events of a TensorBoard log: the same."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(logger.log_dir).Reload()
    rows, n = {}, 0
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            rows.setdefault(event.step, {})[name] = event.value
            n += name.endswith("/epoch")
    return rows, n


def expected_log(history):
    """Steps counted over the stages, names with their stage, numbers only."""
    return {
        step: {f"{r['stage']}/{name}": v for name, v in r.items() if name != "stage"}
        for step, r in enumerate(history, start=1)
    }


def close_to(rows):
    """TensorBoard holds float32."""
    return {step: pytest.approx(row, rel=1e-6) for step, row in rows.items()}


LOGS = {"csv": (CSVLogger, {}, read_csv), "tensorboard": (TensorBoardLogger, {}, read_tensorboard)}
SAME_FOLDER = {
    "csv, same folder": (CSVLogger, {"version": 0}, read_csv),
    "tensorboard, same folder": (
        TensorBoardLogger,
        {"version": 0, "purge_step": 0},
        read_tensorboard,
    ),
}


@pytest.mark.parametrize("log", LOGS)
def test_any_of_fabrics_loggers_reads_back_as_the_history(digits, tmp_path, log):
    make, settings, read = LOGS[log]
    logger = make(tmp_path, **settings)
    fitted = small(callbacks=[LoggerCallback(logger)]).fit(*digits)
    rows, n = read(logger)
    assert n == 4
    assert rows == close_to(expected_log(fitted.history_))


@pytest.mark.filterwarnings("ignore:Experiment logs directory .* is not empty:UserWarning")
@pytest.mark.parametrize("log", LOGS | SAME_FOLDER)
def test_the_log_of_a_resumed_run_has_every_step_once(digits, tmp_path, log):
    make, options, read = (LOGS | SAME_FOLDER)[log]

    class Fails(Callback):
        def on_epoch(self, record, network):
            if (record["stage"], record["epoch"]) == ("student", 2):
                raise KeyboardInterrupt

    settings = {"max_epochs": 3, "checkpoint_dir": tmp_path / "run"}
    first = LoggerCallback(make(tmp_path / "log", **options))
    with pytest.raises(KeyboardInterrupt):
        small(callbacks=[first, Fails()], **settings).fit(*digits)
    assert read(first.logger)[1] == 5
    second = LoggerCallback(make(tmp_path / "log", **options))
    fitted = small(callbacks=[second], **settings).fit(*digits)
    rows, n = read(second.logger)
    assert n == 6
    assert rows == close_to(expected_log(fitted.history_))


def test_a_logger_hears_of_one_fit_after_another_without_a_step_twice(digits):
    steps = []

    class Noting(Logger):
        name, version = "noting", 0

        def log_hyperparams(self, params):
            raise NotImplementedError

        def log_metrics(self, metrics, step=None):
            steps.append((step, {name.split("/")[0] for name in metrics}))

    estimator = small(callbacks=[LoggerCallback(Noting())])
    estimator.fit(*digits)
    estimator.fit(*digits)
    stages = [{"teacher"}] * 2 + [{"student"}] * 2
    assert steps == list(enumerate(stages * 2, start=1))


@pytest.mark.parametrize("logger", [None, "logs", CSVLogger, object()])
def test_what_is_no_logger_is_refused(logger):
    with pytest.raises(TypeError, match="logger must have the methods log_metrics and save"):
        LoggerCallback(logger)


# --- averages and clipping ----------------------------------------------------------------------


def test_the_average_follows_its_recurrence():
    network = nn.Linear(1, 1, bias=False).double()
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    network.weight.data.fill_(values[0])
    average, expected = Average(network, 0.3), values[0]
    for d, value in enumerate(values[1:]):
        network.weight.data.fill_(value)
        average.update()
        decay = min(0.3, (1 + d) / (10 + d))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert network.weight.item() == pytest.approx(expected, rel=1e-12)
    assert network.weight.item() == 16.0


def test_training_ends_with_the_average_of_its_own_weights(digits):
    steps = []

    def noted(parameters, lr):
        class Noting(torch.optim.SGD):
            def step(self, closure=None):
                super().step(closure)
                steps.append([p.detach().clone() for g in self.param_groups for p in g["params"]])

        return Noting(parameters, lr=lr)

    settings = {"optimizer": noted, "learning_rate": 0.05}
    averaged = baseline(weight_averaging=0.8, **settings).fit(*digits)
    live = list(steps)
    plain = baseline(weight_averaging=None, **settings).fit(*digits)
    start = baseline(max_epochs=1, learning_rate=1e-30).fit(*digits).model_
    expected = [p.detach().clone() for p in start.parameters()]
    for d, weights in enumerate(live):
        decay = min(0.8, (1 + d) / (10 + d))
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, weights, strict=True)]
    for ours, theirs in zip(averaged.model_.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-5)
    for one, other in zip(live[-1], plain.model_.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach())  # averaging does not touch training


def test_one_step_is_no_longer_than_the_clip(digits):
    sgd = {"optimizer": torch.optim.SGD, "learning_rate": 1.0, "max_epochs": 1, "batch_size": 300}
    sgd["weight_averaging"] = None
    start = baseline(**sgd | {"learning_rate": 1e-30}).fit(*digits).model_

    def moved(clip):
        end = baseline(gradient_clip=clip, **sgd).fit(*digits).model_
        pairs = zip(end.parameters(), start.parameters(), strict=True)
        return torch.cat([(a - b).flatten() for a, b in pairs]).norm().item()

    whole = moved(None)
    assert moved(whole / 4) == pytest.approx(whole / 4, rel=1e-3)
    assert moved(whole * 4) == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"gradient_clip": 0.0}, ValueError, "gradient_clip must be"),
        ({"weight_averaging": 1.5}, ValueError, "weight_averaging must be in"),
        ({"early_stopping": "f1"}, ValueError, "early_stopping must be True, False, 'loss' or"),
        ({"gradient_clip": "much"}, TypeError, "gradient_clip must be a number"),
    ],
)
def test_what_training_cannot_use_is_refused(digits, settings, error, told):
    with pytest.raises(error, match=told):
        small(**settings).fit(*digits)


def test_an_epoch_that_is_as_good_as_the_best_is_not_a_better_one(digits, held):
    # Weights that cannot move give the same accuracy for ever.
    stopped = UndefendedClassifier(
        max_epochs=9, learning_rate=1e-30, early_stopping="accuracy", patience=3, random_state=0
    ).fit(*digits, validation=held)
    assert len({record["validation_accuracy"] for record in stopped.history_}) == 1
    assert stopped.n_iter_ == 1 + 3


# --- validation and transfer sets ---------------------------------------------------------------


def data_set(X, y):
    class Plain(Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], y[i]

    return Plain()


FORMS = {
    "pair": lambda X, y: (X, y),
    "arrays": lambda X, y: (X.numpy(), y.numpy()),
    "loader": lambda X, y: DataLoader(TensorDataset(X, y), 33),
    "dataset": data_set,
}


@pytest.mark.parametrize("form", FORMS)
def test_validation_figures_are_those_of_the_network_on_the_examples(digits, held, form):
    Xv, yv = held
    T = 5.0
    fitted = small(temperature=T).fit(*digits, validation=FORMS[form](Xv, yv))
    with torch.no_grad():
        student, teacher = fitted.student_(Xv), fitted.teacher_(Xv)
    soft = functional.soft_cross_entropy(student, functional.softmax(teacher, T), T)
    hard = functional.cross_entropy(teacher / T, yv)
    last = {record["stage"]: record for record in fitted.history_}
    assert last["student"]["validation_loss"] == pytest.approx(soft.mean().item(), rel=1e-5)
    assert last["teacher"]["validation_loss"] == pytest.approx(hard.mean().item(), rel=1e-5)
    right = (student.argmax(1) == yv).double().mean().item()
    assert last["student"]["validation_accuracy"] == pytest.approx(right)


def test_held_out_examples_are_scored_by_their_own_soft_labels(digits):
    # The teacher's soft labels are looked up by index in training: not in validation.
    fitted = small(early_stopping=True, temperature=5.0).fit(*digits)
    records = [record for record in fitted.history_ if record["stage"] == "student"]
    best = min(records, key=lambda record: record["validation_loss"])
    X, y = digits
    rows = held_rows(fitted, y, round(0.1 * len(X)))
    with torch.no_grad():
        student, teacher = fitted.student_(X[rows]), fitted.teacher_(X[rows])
    soft = functional.soft_cross_entropy(student, functional.softmax(teacher, 5.0), 5.0)
    assert best["validation_loss"] == pytest.approx(soft.mean().item(), rel=1e-5)
    right = (student.argmax(1) == y[rows]).double().mean().item()
    assert best["validation_accuracy"] == pytest.approx(right)


def held_rows(fitted, y, held):
    """The held-out examples: evenly spaced where the classes lie one after another."""
    seed = int(np.random.RandomState(fitted.random_state).randint(2**31 - 1))
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).tolist()
    by_class = sorted(shuffled, key=lambda row: int(y[row]))
    return torch.tensor(sorted(by_class[int((i + 0.5) * len(y) / held)] for i in range(held)))


@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_every_class_gives_its_share_of_the_held_out_examples(fraction):
    # Nine of ten examples are of one class: a random tenth would miss the others now and then.
    counts = {0: 360, 1: 30, 2: 10}
    y = np.repeat(list(counts), list(counts.values()))
    X = np.random.default_rng(0).random((len(y), 3), dtype=np.float32)
    seen = []

    class Note(nn.Linear):
        def forward(self, inputs):
            seen.append(inputs)
            return super().forward(inputs)

    settings = {"early_stopping": True, "validation_fraction": fraction, "max_epochs": 1}
    baseline(module=Note(3, 3), batch_size=1000, **settings).fit(X, y)
    held = next(len(inputs) for inputs in reversed(seen))
    rows = {tuple(row): label for row, label in zip(X.tolist(), y.tolist(), strict=True)}
    labels = [rows[tuple(row)] for row in seen[-1].tolist()]
    assert held == round(fraction * len(y))
    for label, count in counts.items():
        assert abs(labels.count(label) - fraction * count) <= 1


def test_an_example_alone_in_its_class_is_learned_rather_than_held_out():
    labels = torch.tensor([0] * 10 + [1] * 9 + [2])
    source = TensorSource(torch.rand(20, 3), labels, batch_size=8)
    settings = SimpleNamespace(early_stopping=True, validation_fraction=0.5)
    for seed in range(10):
        torch.manual_seed(seed)
        learned, held = _held_out(source, settings)
        assert 2 in learned.own_labels()
        assert sorted([*learned.own_labels(), *held.own_labels()]) == labels.tolist()
        assert held.n_examples == 10


def test_stopping_by_accuracy_keeps_the_most_accurate_epoch(digits, held):
    settings = {"max_epochs": 30, "learning_rate": 0.05, "patience": 4}
    fitted = baseline(early_stopping="accuracy", **settings).fit(*digits, validation=held)
    accuracies = [record["validation_accuracy"] for record in fitted.history_]
    assert accuracies.index(max(accuracies)) == len(accuracies) - 1 - 4
    assert fitted.score(*held) == pytest.approx(max(accuracies))


def test_a_validation_set_of_strings_is_encoded_like_the_training_labels(digits, held):
    names = np.array(list("abcdefghij"))
    X, y = digits
    numbered = baseline().fit(X, y, validation=held)
    named = baseline().fit(X, names[y], validation=(held[0], names[held[1]]))
    assert named.history_[-1]["validation_loss"] == numbered.history_[-1]["validation_loss"]


@pytest.mark.parametrize(
    ("validation", "error", "told"),
    [
        ("half", TypeError, "validation must be a tensor, an array, a pair"),
        ((torch.rand(2, 5), torch.tensor([0, 1])), ValueError, "validation must hold examples of"),
        (
            (torch.rand(1, 1, 8, 8), torch.tensor([77])),
            ValueError,
            "labels in validation must be classes from 0 to 9, got values in .77, 77.",
        ),
    ],
)
def test_a_validation_set_that_does_not_fit_is_refused(digits, validation, error, told):
    with pytest.raises(error, match=told):
        baseline().fit(*digits, validation=validation)


TRANSFERS = {
    "tensor": lambda X: X,
    "array": lambda X: X.numpy(),
    "loader": lambda X: DataLoader(TensorDataset(X), 33, shuffle=True),
    "dataset": lambda X: data_set(X, torch.full((len(X),), -1)),
}


@pytest.mark.parametrize("form", TRANSFERS)
def test_a_student_learns_a_transfer_set_without_labels(digits, held, form):
    # The student sees nothing but the other examples: it cannot know the training set's.
    X, y = digits
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, inputs):
            if self.training:
                seen.append(inputs.detach().clone())
            return self.inner(inputs)

    teacher = baseline(max_epochs=10).fit(X, y).model_
    settings = {"teacher": teacher, "prefit_teacher": True, "max_epochs": 40}
    fitted = small(module=Watched(), temperature=2.0, learning_rate=0.01, **settings)
    fitted.fit(X, y, transfer=TRANSFERS[form](held[0]))
    known = {row.numpy().tobytes() for row in held[0]}
    assert {row.numpy().tobytes() for batch in seen for row in batch} == known
    with torch.no_grad():
        labels = teacher(held[0]).argmax(1).numpy()
    agreed = (fitted.predict(held[0]) == labels).mean()
    assert agreed > 0.9
    assert fitted.history_[-1]["accuracy"] > 0.85
