"""Two processes train and evaluate together as one would."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch

from distillguard import UndefendedClassifier, _processes, datasets
from distillguard._data._batch import Batch
from distillguard._processes import Processes
from distillguard.training import BatchLosses, Runtime
from distillguard.training._loop import _Totals

SCRIPT = """
    import dataclasses, json, os, sys
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
    from distillguard import (
        AdversarialTrainer, DefensiveDistiller, ExtendedDistiller, LayeredDefense, RobustDistiller,
        UndefendedClassifier, datasets, evaluate,
    )
    from distillguard.defenses import BitDepth, MaximumProbability, ReconstructionError
    from lightning_fabric.loggers import CSVLogger
    from distillguard.callbacks import JSONLines, LoggerCallback
    from distillguard.exceptions import AttackError

    torch.set_num_threads(1)
    X, y = datasets.load_digits("train")
    X, y = X[:331], y[:331]   # an odd number: parts of different sizes
    Xt, yt = datasets.load_digits("test")
    settings = {"max_epochs": 2, "random_state": 0, "precision": "64-true"}
    told = {}

    def tell(name, fitted):
        told[name] = {
            "history": [{k: v for k, v in r.items() if k != "seconds"} for r in fitted.history_],
            "logits": fitted.decision_function(Xt[:20]).tolist(),
        }

    folder = sys.argv[2]
    logs = [JSONLines(folder + "/log.jsonl"), LoggerCallback(CSVLogger(folder, "csv", version=0))]
    distiller = DefensiveDistiller(
        temperature=20.0, early_stopping=True, weight_averaging=0.9, gradient_clip=1.0,
        callbacks=logs, checkpoint_dir=folder + "/run", **settings
    )
    tell("distiller", distiller.fit(X, y))
    tell("loaded", distiller.fit(X, y))
    loader = DataLoader(TensorDataset(X, y), 64, shuffle=True)
    tell("loader", UndefendedClassifier(**settings).fit(loader))
    if torch.distributed.is_initialized():
        half = DistributedSampler(TensorDataset(X, y), seed=3)
        loader = DataLoader(TensorDataset(X, y), 32, sampler=half)
        tell("divided", UndefendedClassifier(**settings).fit(loader))

    def normalised(shape, n):
        hidden = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        return nn.Sequential(nn.Flatten(), hidden, nn.Linear(16, n))

    tell("batch-norm", UndefendedClassifier(normalised, **settings).fit(X, y))
    attack = {"epsilon": 0.05, "steps": 2}
    trainer = AdversarialTrainer(weight_perturbation=0.01, **attack, **settings)
    tell("adversarial", trainer.fit(X, y))
    tell("robust", RobustDistiller(**attack, **settings).fit(X, y))
    fresh = UndefendedClassifier(**settings | {"random_state": None}).fit(X, y)
    tell("unseeded", fresh)
    tell("extended", ExtendedDistiller(early_stopping=True, **settings).fit(X, y))

    def guard(seed):
        inner = UndefendedClassifier(**settings | {"random_state": seed})
        detectors = [MaximumProbability(), ReconstructionError(max_epochs=2)]
        guard = LayeredDefense(inner, [BitDepth(4)], detectors, random_state=seed).fit(X, y)
        return {
            "thresholds": guard.thresholds_.tolist(),
            "alarms": guard.false_alarms_,
            "predictions": guard.predict(Xt[:100]).tolist(),
            "again": guard.calibrate(Xt[100:200]).thresholds_.tolist(),
        }

    told["guard"], told["unseeded guard"] = guard(0), guard(None)

    class Recording(nn.Module):
        seen = []

        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, inputs):
            if self.training:
                self.seen += (inputs[:, 0, 0, 0] * 1000).round().int().tolist()
            return self.inner(inputs)

    marked = X.clone()
    marked[:, 0, 0, 0] = torch.arange(len(X)) / 1000
    alone = {"max_epochs": 1, "random_state": None}
    UndefendedClassifier(Recording(), **settings | alone).fit(marked, y)
    told["seen"] = Recording.seen
    asked = {"epsilon": 0.01, "attacks": "quick", "diagnosis": "full", "random_state": 0}
    report = evaluate(distiller, Xt[:40], yt[:40], **asked)
    told["robust"] = report.robust_accuracy
    seen = dataclasses.asdict(report.observations)
    told["counts"] = {k: v for k, v in seen.items() if type(v) is not float}

    def breaks(model, inputs, labels):
        if os.environ.get("RANK", "1") == "1":
            raise OSError("gone")
        return inputs

    pair = {"none": lambda model, inputs, labels: inputs, "breaks": breaks}
    known = yt == torch.as_tensor(distiller.predict(Xt))
    Xt, yt = Xt[known], yt[known]
    report = evaluate(distiller, Xt[:9], yt[:9], epsilon=0.01, attacks=pair, random_state=0)
    told["failing"] = [(row.attacked, row.error) for row in report.attacks]
    try:
        alone = {"breaks": lambda model, inputs, labels: 1 / 0}
        evaluate(distiller, Xt[:1], yt[:1], epsilon=0.01, attacks=alone, random_state=0)
    except AttackError as error:
        told["none ran"] = str(error)

    class Distracted(nn.Module):
        # A large slope that changes nothing.
        def __init__(self):
            super().__init__()
            self.inner = distiller.model_

        def forward(self, inputs):
            flat = inputs.flatten(1)
            away = torch.linspace(-1, 1, 10 * flat.shape[1]).view(-1, 10).to(flat)
            return self.inner(inputs) + 1e4 * (flat - flat.detach()) @ away

    # 16 examples at first, and one more: a part that only one process has.
    asked = {"epsilon": 0.3, "attacks": "quick", "diagnosis": "full", "random_state": 0}
    seen = evaluate(Distracted(), Xt[:17], yt[:17], **asked).observations
    told["misled"] = [seen.correct, seen.compared, seen.only_black_box, seen.all_survivors]
    with open(sys.argv[1], "w") as file:
        json.dump(told, file)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What one process says, and what each of two says."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    base = {**os.environ, "OMP_NUM_THREADS": "1"}
    group = base | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    group |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}

    def start(name, where, environment):
        command = [sys.executable, str(script), str(folder / name), str(folder / where)]
        return subprocess.Popen(command, env=environment)

    running = [start("one.json", "one", base)]
    running += [
        start(f"two{rank}.json", "two", group | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in running] == [0, 0, 0]
    assert len((folder / "two" / "log.jsonl").read_text().splitlines()) == 4
    # The run is fitted twice: trained, then loaded; the first process logs, once.
    assert len((folder / "two/csv/version_0/metrics.csv").read_text().splitlines()) == 1 + 8
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("one", "two0", "two1")]


def numbers(told, name):
    rows = [[v for v in row.values() if not isinstance(v, str)] for row in told[name]["history"]]
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(told[name]["logits"])


@pytest.mark.parametrize("name", ["distiller", "loader"])
def test_two_processes_train_the_network_that_one_trains(told, name):
    # The loss of a batch is the mean over all its examples, wherever they are.
    one, two = numbers(told[0], name), numbers(told[1], name)
    # Fabric hands logits on in float32 even where the weights are float64.
    torch.testing.assert_close(one[0], two[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one[1], two[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "distiller",
        "loaded",
        "loader",
        "divided",
        "batch-norm",
        "adversarial",
        "robust",
        "extended",
        "guard",
        "unseeded guard",
    ],
)
def test_all_processes_end_with_the_same_network(told, name):
    assert told[1][name] == told[2][name]


def test_two_processes_calibrate_the_layered_defence_that_one_calibrates(told):
    one, two = told[0]["guard"], told[1]["guard"]
    assert one["alarms"] == two["alarms"]
    assert one["predictions"] == two["predictions"]
    assert -1 in one["predictions"]
    for name in ("thresholds", "again"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)


def test_without_a_seed_the_first_process_draws_it_for_all(told):
    assert told[1]["unseeded"] == told[2]["unseeded"]
    # With different orders some examples would be seen twice and others never.
    assert sorted(told[1]["seen"] + told[2]["seen"]) == list(range(331))


def test_a_finished_run_is_loaded_by_all_processes(told):
    assert all(each["loaded"] == each["distiller"] for each in told)


def test_a_report_of_two_processes_follows_on_their_training(told):
    assert told[0]["robust"] == told[1]["robust"] == told[2]["robust"]
    assert told[0]["counts"]["sampled"] > 4
    assert told[0]["counts"] == told[1]["counts"] == told[2]["counts"]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("count", [2, 3])
def test_the_parts_of_a_batch_are_the_batch_and_weigh_as_its_mean(n, count):
    batch = Batch(torch.rand(n, 3), torch.arange(n), torch.arange(n))
    losses = torch.rand(n)
    runtime, total, seen = Runtime("cpu", "32-true"), 0.0, []
    for rank in range(count):
        runtime.processes = Processes(rank, count)
        part, weight = runtime.shard(batch, divided=False)
        total += (losses[part.indices].sum() * weight).item() / count  # DDP averages
        seen += part.indices.tolist() if weight else []
    assert sorted(seen) == list(range(n))
    assert total == pytest.approx(losses.mean().item(), rel=1e-6)


def test_an_example_without_weight_counts_for_no_figure_of_an_epoch():
    totals, logits = _Totals(Runtime("cpu", "32-true")), torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    totals.add(BatchLosses(torch.tensor([1.0, 4.0]), logits), torch.tensor([0, 0]), 1.0)
    totals.add(BatchLosses(torch.tensor([9.0]), logits[:1]), torch.tensor([0]), 0.0)
    assert totals.means() == {"loss": 2.5, "accuracy": 0.5}


def test_an_attack_that_fails_in_one_process_is_told_in_all(told):
    one, *two = (part["failing"] for part in told)
    (n, _), broken = one
    assert broken == [0, "OSError: gone"]
    for (attacked, _), (ran, error) in two:
        assert attacked == n
        assert 0 < ran < n
        assert error == "OSError: gone"


def test_a_search_goes_on_in_all_processes_where_one_has_found_something(told):
    correct, compared, found, left = told[0]["misled"]
    assert correct == compared == 17
    assert found > 0
    assert left < 17
    assert told[0]["misled"] == told[1]["misled"] == told[2]["misled"]


def test_where_no_attack_ran_every_process_raises_even_one_without_examples(told):
    assert len({part["none ran"] for part in told}) == 1


OWN_GROUP = """
    import json, os, sys
    from torch import distributed
    from distillguard import UndefendedClassifier, datasets

    folder, rank = sys.argv[1:]
    distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=int(rank), world_size=2
    )
    X, y = datasets.load_digits("train")
    settings = {"max_epochs": 1, "random_state": 0, "precision": "64-true"}
    fitted = UndefendedClassifier(**settings).fit(X[:101], y[:101])
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(fitted.decision_function(X[:5]).tolist(), file)
"""


def test_a_group_that_the_user_started_without_torchrun_trains_what_one_process_trains(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(OWN_GROUP))
    base = {k: v for k, v in os.environ.items() if not k.startswith(("MASTER_", "WORLD", "RANK"))}
    command = [sys.executable, str(script), str(tmp_path)]
    running = [subprocess.Popen([*command, rank], env=base) for rank in "01"]
    X, y = datasets.load_digits("train")
    settings = {"max_epochs": 1, "random_state": 0, "precision": "64-true"}
    alone = UndefendedClassifier(**settings).fit(X[:101], y[:101]).decision_function(X[:5])
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    np.testing.assert_allclose(first, alone, rtol=1e-5, atol=1e-5)


def test_threads_that_wait_for_python_finish_before_the_group_is_left(monkeypatch):
    asked, order = threading.Event(), []

    def drops_tensors():
        asked.wait()
        order.append("thread")

    group = _processes.distributed
    monkeypatch.setattr(group, "is_initialized", lambda: True)
    monkeypatch.setattr(group, "destroy_process_group", lambda: order.append("destroyed"))
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=drops_tensors)
    thread.start()
    try:
        sys.setswitchinterval(10)  # nobody runs until the main thread waits
        asked.set()
        _processes._leave()
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert order == ["thread", "destroyed"]
