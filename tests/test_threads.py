"""Attacks and fits in several threads give what they give alone, and leave what they found."""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from conftest import Tangled
from distillguard import UndefendedClassifier, attacks, evaluate
from distillguard._modes import borrowed, isolated_random_state


@pytest.fixture(autouse=True)
def hurried():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def at_once(*tasks: Callable[[], object]) -> list[object]:
    """Run the tasks in threads that start together."""
    gate, results = threading.Barrier(len(tasks)), [None] * len(tasks)

    def run(place: int, task: Callable[[], object]) -> None:
        gate.wait()
        results[place] = task()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


@pytest.mark.parametrize("shared", [True, False])
def test_attacks_in_two_threads_are_right_and_leave_models_and_generator_alone(shared):
    models = [Tangled()] * 2 if shared else [Tangled(), Tangled()]
    inputs = torch.rand(40, 12, dtype=torch.float64)
    labels = models[0].decided(inputs)
    settings = {"epsilon": 0.1, "steps": 5, "early_stop": False, "random_state": 0}

    def found(model: nn.Module) -> Tensor:
        return attacks.pgd(model, inputs, labels, **settings)

    def state(model: nn.Module) -> list[object]:
        flags = [p.requires_grad for p in model.parameters()]
        return [*flags, *(part.training for part in model.modules())]

    expected, before = found(models[0]), state(models[0])
    statistics = models[0].normalise.running_mean.clone()
    generator = torch.get_rng_state()
    for _ in range(10):
        for result in at_once(*(lambda model=model: found(model) for model in models)):
            assert torch.equal(result, expected)
        for model in models:
            assert state(model) == before
            assert torch.equal(model.normalise.running_mean, statistics)
        assert torch.equal(torch.get_rng_state(), generator)


def test_fits_in_two_threads_learn_what_they_learn_alone():
    inputs = np.random.default_rng(0).random((60, 12), dtype=np.float32)
    labels = np.arange(60) % 3
    module = nn.Sequential(nn.Linear(12, 8), nn.Dropout(), nn.Linear(8, 3))

    def learnt(seed: int) -> np.ndarray:
        classifier = UndefendedClassifier(module, max_epochs=3, random_state=seed)
        return classifier.fit(inputs, labels).decision_function(inputs)

    expected = [learnt(0), learnt(1)]
    generator, filters = torch.get_rng_state(), list(warnings.filters)
    for _ in range(3):
        results = at_once(lambda: learnt(0), lambda: learnt(1))
        assert all(map(np.array_equal, results, expected))
        assert torch.equal(torch.get_rng_state(), generator)
        assert warnings.filters == filters


def test_a_fit_does_not_copy_a_module_that_another_thread_holds():
    module = Tangled()
    inside, wait = threading.Event(), threading.Event()

    def hold() -> None:
        with borrowed(module):
            inside.set()
            wait.wait(60)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert inside.wait(60)
    inputs = np.random.default_rng(0).random((20, 12))
    classifier = UndefendedClassifier(module, max_epochs=1, random_state=0, precision="64-true")
    fit = threading.Thread(target=classifier.fit, args=(inputs, np.arange(20) % 4), daemon=True)
    fit.start()
    fit.join(0.5)
    wait.set()
    fit.join(60)
    trained = [p.requires_grad for p in classifier.model_.parameters()]
    assert trained == [p.requires_grad for p in module.parameters()]
    assert any(trained)


class Attacked(Dataset):
    """Examples that are attacked as they are read."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        inputs, label = torch.full((1, 12), index / 24).double(), index % 4
        return attacks.fgsm(Tangled(), inputs, torch.tensor([label]), epsilon=0.1)[0], label


@pytest.mark.parametrize("workers", [0, 1])
def test_attacks_inside_a_fit_do_not_wait_for_it(workers):
    class Callback:
        def on_epoch(self, record: dict, network: nn.Module) -> bool:
            inputs = torch.rand(4, 12, dtype=torch.float64)
            attacks.fgsm(network, inputs, torch.arange(4), epsilon=0.1)
            return False

    def fit() -> object:
        loader = DataLoader(Attacked(), batch_size=8, num_workers=workers, timeout=30 * workers)
        settings = {"max_epochs": 1, "precision": "64-true", "callbacks": [Callback()]}
        return UndefendedClassifier(Tangled(), **settings).fit(loader)

    assert hasattr(at_once(fit)[0], "model_")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_lacks():
    inside, wait = threading.Event(), threading.Event()

    def hold() -> None:
        with isolated_random_state([], 0):
            inside.set()
            wait.wait(60)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        with isolated_random_state([], 0):
            os._exit(0)
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    wait.set()
    holder.join(60)
    assert ended == (child, 0)


def test_nobody_who_shows_no_bar_waits_for_the_lock_of_those_who_do():
    # Processes share it: one that is killed while it holds it would keep it for ever.
    X, y = torch.rand(40, 4), torch.arange(40) % 2
    done = []

    def work():
        network = UndefendedClassifier(max_epochs=1, random_state=0).fit(X, y).model_
        done.append(attacks.pgd(network, X, y, epsilon=0.1))
        done.append(evaluate(network, X, y, epsilon=0.1, attacks="quick"))

    with tqdm.get_lock():
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(60)
    assert len(done) == 2
