"""The measures of the benchmarks against brute force, hand-worked numbers and their library."""

import importlib
import sys
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
