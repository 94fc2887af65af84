"""The measures of the benchmarks against brute force, hand-worked numbers and their library."""

import importlib
import itertools
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
exact = importlib.import_module("benchmarks._exact")
optimality = importlib.import_module("benchmarks._optimality")
bench = importlib.import_module("benchmarks.attackbench")
peers = importlib.import_module("benchmarks._peers")

NONE = np.inf


def network_of(features, seed):
    """A tiny random network whose classes meet at the centre of the box."""
    torch.manual_seed(seed)
    sizes = (features, 4, 4, 3)
    modules = [nn.Linear(m, n) for m, n in pairwise(sizes)]
    network = [(3 * weight, bias) for weight, bias in exact.layers(nn.Sequential(*modules))]
    network[-1][1][:] -= exact.logits(network, np.full(features, 0.5))
    return network


def grid(features, steps):
    axes = np.meshgrid(*[np.linspace(0, 1, steps)] * features)
    return np.stack([axis.ravel() for axis in axes], axis=1)


def brute_force(network, points, x, label, norm):
    """Least distance of the points that another class wins."""
    values = exact.logits(network, points)
    wrong = (np.delete(values, label, axis=1) >= values[:, [label]]).any(axis=1)
    change = np.abs(points - x)
    far = change.max(axis=1) if norm == "linf" else (change > 0).sum(axis=1).astype(float)
    return far[wrong].min(initial=np.inf)


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_distance_in_linf_is_that_of_a_fine_grid(seed):
    network = network_of(2, seed)
    x = np.array([0.3, 0.6])
    label = int(exact.logits(network, x).argmax())
    far = brute_force(network, grid(2, 1001), x, label, "linf")
    found = exact.least_distance(network, x, label, "linf", known=0.75, seconds=20)
    assert found.proved
    assert found.low == pytest.approx(found.high * (1 - exact.CLOSER))
    assert found.high == pytest.approx(far, abs=2e-3)
    assert exact.robust(network, x, label, "linf", far - 3e-3, 20) is True
    assert exact.robust(network, x, label, "linf", far + 3e-3, 20) is False


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_count_in_l0_is_that_of_a_fine_grid(seed):
    network = network_of(3, seed)
    rng = np.random.default_rng(seed)
    x = np.round(rng.uniform(size=3), 2)
    label = int(exact.logits(network, x).argmax())
    count = brute_force(network, grid(3, 101), x, label, "l0")
    found = exact.least_distance(network, x, label, "l0", known=4.0, seconds=20)
    # 4 of 3 values is what is left where no point errs at all.
    assert found.high == min(count, 4)
    assert found.proved


def test_local_optimality_is_the_share_of_the_area_that_the_envelope_takes_away():
    # Radius 4, the first wrong before. Taken away: envelope 3 + 2 + 0, attack 2 + 0 + 0.
    envelope = np.array([0.0, 1.0, 2.0, 4.0])
    attack = np.array([0.0, 2.0, 5.0, NONE])
    assert optimality.local_optimality(attack, envelope) == pytest.approx(2 / 5)
    assert optimality.local_optimality(envelope, envelope) == 1
    assert optimality.local_optimality(np.array([0.0, NONE, NONE, NONE]), envelope) == 0


def test_local_optimality_is_attackbenchs():
    try:
        peers.imported("attackbench")
    except ImportError:
        pytest.skip("attackbenchlib is not installed")
    from attackbench.metrics.distances import eval_optimality

    rng = np.random.default_rng(0)
    attack, other = rng.exponential(size=(2, 50))
    attack[:10], attack[10:20] = NONE, 0
    envelope = np.minimum(attack, other)
    theirs = eval_optimality(attack, envelope, float((envelope > 0).mean()))
    assert optimality.local_optimality(attack, envelope) == pytest.approx(theirs)


def test_the_interval_of_a_difference_covers_it_and_excludes_0_where_one_is_always_better():
    rng = np.random.default_rng(0)
    envelope = rng.uniform(1, 2, size=60)
    better, worse = envelope * 1.01, envelope * 1.3
    low, high = optimality.interval(better, worse, envelope)
    difference = np.subtract(*(optimality.local_optimality(d, envelope) for d in (better, worse)))
    assert 0 < low < difference < high
    assert optimality.interval(better, better, envelope) == (0, 0)


class Brightness(nn.Module):
    """Class 1 where the sum of the two values exceeds 1."""

    def forward(self, inputs):
        excess = inputs.flatten(1).sum(dim=1) - 1
        return torch.stack([-excess, excess], dim=1)


def observed(norm, budget=10.0):
    inputs = torch.tensor([[0.2, 0.4], [0.9, 0.0], [0.9, 0.9]])
    return bench.Observed(Brightness(), inputs, torch.zeros(3, dtype=torch.long), norm, budget)


@pytest.mark.parametrize(
    ("norm", "expected"), [("linf", 0.5), ("l2", 0.5), ("l1", 0.5), ("l0", 1.0)]
)
def test_what_is_kept_is_the_least_distance_of_the_wrong_answers_on_the_way(norm, expected):
    model = observed(norm)
    # The third is wrong from the start; of the points near the first, only one is wrong.
    model(torch.tensor([[0.2, 0.7], [0.9, 0.0]]))
    model(torch.tensor([[0.2, 0.9]]))
    model(torch.tensor([[0.2, 1.0]]))
    assert model.least.tolist() == pytest.approx([expected, NONE, 0])


def test_a_value_outside_the_box_counts_at_its_bound_and_has_a_gradient():
    model = observed("linf")
    inputs = torch.tensor([[0.2, 1.7]], requires_grad=True)
    model(inputs)[:, 1].sum().backward()
    assert model.least[0] == pytest.approx(0.6)
    assert inputs.grad.tolist() == [[1, 1]]


def test_an_attack_is_stopped_once_its_passes_are_spent():
    def endless(model, inputs, labels):
        while True:
            points = inputs.clone().requires_grad_()
            model(points).sum().backward()

    inputs, labels = torch.rand(4, 2), torch.zeros(4, dtype=torch.long)
    found = bench.attacked(endless, Brightness(), inputs, labels, "l2", budget=6)
    assert found["passes"] == 6


def test_an_attack_that_raises_on_the_way_keeps_what_it_found():
    def breaking(model, inputs, labels):
        model(torch.tensor([[0.5, 0.9]]))
        raise ZeroDivisionError("no steps")

    inputs, labels = torch.tensor([[0.5, 0.3]]), torch.zeros(1, dtype=torch.long)
    found = bench.attacked(breaking, Brightness(), inputs, labels, "linf", budget=6)
    assert found["distances"] == "0.6"
    assert found["raised"] == ["ZeroDivisionError('no steps')"]
    assert found["passes"] == 1


IN_ORDER = [
    (network, norm, budget, *rival)
    for network, norm, budget, rival in itertools.product(
        [("MNIST-5k", "undefended"), ("MNIST", "TRADES (published)")],
        ["l0", "linf"],
        [50, 1000],
        [("distillguard", None), ("adv-lib", "fmn"), ("adv-lib", "pdpgd")],
    )
]


@pytest.mark.parametrize("seed", range(3))
def test_the_file_does_not_depend_on_the_order_in_which_rows_arrive(seed, tmp_path):
    first = {"l0": "sigma_zero", "linf": "carlini_wagner_linf"}
    expected = [
        {"data": data, "network": network, "norm": norm, "budget": budget, "library": library,
         "attack": attack or first[norm]}
        for (data, network), norm, budget, library, attack in IN_ORDER
    ]  # fmt: skip
    arriving = random.Random(seed).sample(expected, len(expected))
    record = bench.Record(100, "cpu", tmp_path)
    for each in arriving[:7]:
        record.keep(record.rows, each)
    record = bench.Record(100, "cpu", tmp_path)  # interrupted, and started again
    for each in arriving[7:]:
        record.keep(record.rows, each)
    assert json.loads((tmp_path / "attackbench.json").read_text())["rows"] == expected


def test_what_was_measured_with_other_settings_is_not_written_over(tmp_path):
    record = bench.Record(100, "cpu", tmp_path)
    record.keep(record.pilots, {"data": "MNIST-5k", "network": "undefended", "norm": "l2"})
    before = (tmp_path / "attackbench.json").read_bytes()
    with pytest.raises(ValueError, match="--results"):
        bench.Record(50, "cpu", tmp_path)
    assert (tmp_path / "attackbench.json").read_bytes() == before


class Halves(bench.Subject):
    """Two values that are not bright."""

    def build(self):
        return Brightness()

    def images(self, first, end):
        values = torch.linspace(0, 0.5, end - first)
        return torch.stack([values, 0.5 - values], dim=1), torch.zeros(len(values)).long()


def brighter(by):
    return lambda model, inputs, labels: inputs + by


def broken(model, inputs, labels):
    raise ZeroDivisionError("no steps")


@pytest.fixture
def contest(monkeypatch, tmp_path):
    """A record whose contenders are one of ours, a peer that fails and one that the pilot drops."""
    runs = {("distillguard", "a"): brighter(0.3), ("peer", "b"): broken, ("peer", "c"): None}
    listed = [
        bench.Contender(name, library, lambda budget, run=run: run)
        for (library, name), run in runs.items()
    ]
    monkeypatch.setattr(bench, "contenders", lambda norm: listed)
    record = bench.Record(4, "cpu", tmp_path)
    rows = [
        {"library": library, "attack": name, "processor_seconds": seconds}
        for (library, name), seconds in zip(runs, (1.0, 2.0, 3.0), strict=True)
    ]
    about = {"data": "MNIST-5k", "network": "undefended", "norm": "linf"}
    record.pilots.append(about | {"kept": [["peer", "b"]], "rows": rows})
    return record, [(Halves("MNIST-5k", "undefended", tmp_path), "linf")]


def test_a_contender_that_fails_is_named_and_does_not_lose_the_others(contest, tmp_path):
    record, cells = contest
    tasks = list(record.missing_rows(cells, 50))
    # What took long in the pilot comes first: the one that fails.
    assert [task.args[4:6] for task in tasks] == [("peer", "b"), ("distillguard", "a")]
    with ThreadPoolExecutor(1) as pool:
        (error,) = bench.gather(pool, 1, tasks, partial(record.keep, record.rows), np.inf)
    assert "b of peer" in str(error)
    assert "no steps" in str(error)
    (row,) = json.loads((tmp_path / "attackbench.json").read_text())["rows"]
    assert (row["attack"], row["budget"], row["distances"]) == ("a", 50, "0.3 0.3 0.3 0.3")
    (left,) = record.missing_rows(cells, 50)
    assert left.args[4:6] == ("peer", "b")


def test_after_the_deadline_nothing_is_begun_and_what_has_begun_is_kept():
    begun, kept = [], []
    deadline = time.monotonic() + 0.2

    def task(number):
        begun.append(number)
        time.sleep(max(0.0, deadline + 0.05 - time.monotonic()))
        return number

    tasks = [partial(task, number) for number in range(5)]
    with ThreadPoolExecutor(2) as pool:
        assert bench.gather(pool, 2, tasks, kept.append, deadline) == []
    assert sorted(begun) == sorted(kept) == [0, 1]
