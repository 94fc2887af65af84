"""The loop's own promises: the last layer in units of T, devices, schedules, side effects."""

import os
import subprocess
import sys
import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn

from distillguard import UndefendedClassifier
from distillguard.training import Runtime, head_in_units, make_scheduler, multiply_head
from distillguard.training._head import last_layer

INPUTS = torch.linspace(0, 1, 24).reshape(2, 12)


def mlp(*after: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3), *after)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 12), nn.Linear(12, 12)
        self.last.weight = self.first.weight

    def forward(self, inputs):
        return self.last(self.first(inputs))


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, inputs):
        return 2 * self.inner(inputs)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv1d(12, 3, 1)

    def forward(self, inputs):
        return self.head(inputs[:, :, None]).flatten(1)


def test_the_last_layer_is_the_one_whose_output_is_the_network_s():
    network = mlp()
    assert last_layer(network, INPUTS) is network[2]
    behind_dropout = mlp(nn.Dropout(0.5))
    assert last_layer(behind_dropout, INPUTS) is behind_dropout[2]
    convolutional = Convolutional()
    assert last_layer(convolutional, INPUTS) is convolutional.head


@pytest.mark.parametrize("network", [Doubled(), Tied(), mlp(nn.Tanh()), nn.Flatten()])
def test_a_network_without_a_last_layer_of_its_own_is_left_alone(network):
    assert last_layer(network, INPUTS) is None
    before = network(INPUTS)
    multiply_head(network, INPUTS, 100.0)
    with head_in_units(network, INPUTS, 100.0):
        torch.testing.assert_close(network(INPUTS), before, rtol=0, atol=0)


def test_multiplying_the_head_multiplies_the_logits():
    network = mlp()
    before = network(INPUTS)
    multiply_head(network, INPUTS, 50.0)
    torch.testing.assert_close(network(INPUTS), 50 * before)


def test_units_change_neither_the_logits_nor_the_names_of_the_weights():
    network = mlp()
    before, names = network(INPUTS), list(network.state_dict())
    with head_in_units(network, INPUTS, 64.0):
        torch.testing.assert_close(network(INPUTS), before, rtol=0, atol=0)
    torch.testing.assert_close(network(INPUTS), before, rtol=0, atol=0)
    assert list(network.state_dict()) == names
    assert type(network[2]) is nn.Linear


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_step_at_t_is_the_step_at_1_whatever_the_optimiser(optimizer):
    def trained(unit: float) -> torch.Tensor:
        network = mlp().double()
        inputs, labels = INPUTS.double(), torch.tensor([0, 2])
        multiply_head(network, inputs, unit)
        with head_in_units(network, inputs, unit):
            steps = optimizer(network.parameters(), lr=0.1)
            for _ in range(5):
                steps.zero_grad()
                nn.functional.cross_entropy(network(inputs) / unit, labels).backward()
                steps.step()
        return network(inputs) / unit

    torch.testing.assert_close(trained(64.0), trained(1.0))


def test_units_come_off_again_when_training_breaks_off():
    network = mlp()
    with pytest.raises(KeyboardInterrupt), head_in_units(network, INPUTS, 10.0):
        raise KeyboardInterrupt
    assert type(network[2]) is nn.Linear


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match="device must be available on this machine, got 'cuda'"):
        Runtime("cuda", "32-true")


def test_the_learning_rate_falls_along_a_cosine_to_zero():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = make_scheduler("cosine", optimizer, 4)
    rates = []
    for _ in range(4):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    # (1 + cos(pi t / 4)) / 2 at t = 1, 2, 3, 4
    assert rates == pytest.approx([0.853553, 0.5, 0.146447, 0.0], abs=1e-6)
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_a_schedule_needs_to_know_the_number_of_batches():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.rand(4), 0), (torch.rand(4), 1)])

    with pytest.raises(ValueError, match="lr_scheduler must be None for a data set without a len"):
        UndefendedClassifier(lr_scheduler="cosine").fit(Stream())


def test_a_run_that_begins_leaves_the_environment_alone():
    script = (
        "import os, torch; before = dict(os.environ);"
        "from distillguard.training import Runtime; Runtime('cpu', '32-true');"
        "print({k: v for k, v in os.environ.items() if before.get(k) != v and 'NVML' in k})"
    )
    environment = {k: v for k, v in os.environ.items() if "NVML" not in k}
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert shown.stdout.strip() == "{}"


@pytest.mark.parametrize(
    ("capabilities", "precision", "warned"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "bf16-mixed", True),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "bf16-true", True),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "32-true", False),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed", False),
        ({"neon": True, "bf16": True}, "bf16-mixed", False),
        ({"neon": True, "bf16": False}, "bf16-mixed", True),
        ({}, "bf16-mixed", False),
    ],
)
def test_a_processor_that_emulates_bfloat16_is_told(monkeypatch, capabilities, precision, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Runtime("cpu", precision)
    told = [str(each.message) for each in caught if "bfloat16" in str(each.message)]
    assert len(told) == warned
    assert all(f"precision={precision!r}" in each for each in told)
