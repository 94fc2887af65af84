"""The loop's own promises: the last layer in units of T, devices, schedules, side effects."""

import copy
import logging
import os
import subprocess
import sys
import warnings
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.utils import prune

from distillguard import UndefendedClassifier
from distillguard.networks import Scaled
from distillguard.training import Runtime, make_scheduler, multiply_logits, scaled_head
from distillguard.training._optimisers import make_optimizer
from distillguard.training._runtime import _quiet
from distillguard.training._scaled_head import find_head

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


class TiedAndNormed(Tied):
    """Its logits follow the weights wherever they are used; the layers do not stand alone."""

    def forward(self, inputs):
        weight = self.first.weight
        return self.last(nn.functional.normalize(nn.functional.linear(inputs, weight)))


class Function(nn.Module):
    """A function of what a network returns."""

    def __init__(self, function, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, inputs):
        return self.function(self.inner(inputs))


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv1d(12, 3, 1)

    def forward(self, inputs):
        return self.head(inputs[:, :, None]).flatten(1)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv1d(1, 3, 5)

    def forward(self, inputs):
        return self.head(inputs[:, None]).mean(2)


class OwnWeights(nn.Module):
    """Weights without a layer that is called with them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 8)
        self.w, self.b = nn.Parameter(torch.rand(3, 8)), nn.Parameter(torch.zeros(3))

    def forward(self, inputs):
        return nn.functional.linear(self.first(inputs).relu(), self.w, self.b)


class Cosine(nn.Module):
    """Cosines of features and class weights, times a constant or what is learned."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 3, bias=False)
        self.scale = nn.Parameter(torch.tensor(9.0)) if learned else 9.0

    def forward(self, inputs):
        features = nn.functional.normalize(self.first(inputs))
        return self.scale * nn.functional.linear(
            features, nn.functional.normalize(self.last.weight)
        )


class Attention(nn.Module):
    """Its last layer is used by a function of PyTorch's, and never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, inputs):
        tokens = inputs[:, None] * torch.tensor([[1.0], [0.5]])
        return self.attention(tokens, tokens, tokens)[0].sum(1)


class BatchNormed(nn.Module):
    """What its last layer is multiplied by, BatchNorm divides by again in training."""

    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(12, 3), nn.BatchNorm1d(3, affine=affine)

    def forward(self, inputs):
        return self.norm(self.first(inputs))


def normed(norm, network: nn.Module | None = None) -> nn.Module:
    network = mlp() if network is None else network
    norm(network[2])
    network(INPUTS)
    return network


def zeros() -> nn.Module:
    network = mlp()
    for parameter in network[2].parameters():
        nn.init.zeros_(parameter)
    return network


def capped(logits):
    return 30 * torch.tanh(logits / 30)


# What a network ends in, and the path of the module whose weights take the factor.
HEADS = {
    "linear": (mlp, "2"),
    "linear without a bias": (lambda: nn.Sequential(nn.Linear(12, 3, bias=False)), "0"),
    "linear, zero at first": (zeros, "2"),
    "dropout": (lambda: mlp(nn.Dropout(0.5)), "2"),
    "log-softmax": (lambda: mlp(nn.LogSoftmax(1)), "2"),
    "half of the logits": (lambda: Function(lambda z: z * 0.5, mlp()), "inner.2"),
    "logits less their mean": (lambda: Function(lambda z: z - z.mean(1, True), mlp()), "inner.2"),
    "weight_norm": (lambda: normed(nn.utils.parametrizations.weight_norm), "2"),
    "weight_norm, the old one": (lambda: normed(nn.utils.weight_norm), "2"),
    "pruned": (lambda: normed(lambda m: prune.l1_unstructured(m, "weight", 0.5)), "2"),
    "orthogonal": (lambda: normed(nn.utils.parametrizations.orthogonal), None),
    "spectral_norm": (lambda: normed(nn.utils.parametrizations.spectral_norm), None),
    "spectral_norm, the old one": (lambda: normed(nn.utils.spectral_norm), None),
    "convolution": (Convolutional, "head"),
    "convolution and pooling": (Pooled, "head"),
    "weights of its own": (OwnWeights, ""),
    "attention": (Attention, "attention.out_proj"),
    "cosines, learned scale": (lambda: Cosine(True), ""),
    "cosines, constant scale": (lambda: Cosine(False), None),
    "tied weights": (Tied, None),
    "tied weights, normed": (TiedAndNormed, None),
    "scaled already": (lambda: Scaled(mlp(), 3.0), "network.2"),
    "BatchNorm": (lambda: BatchNormed(True), "norm"),
    "BatchNorm without weights": (lambda: BatchNormed(False), None),
    "capped": (lambda: Function(capped, mlp()), None),
    "a mean of two": (lambda: Function(lambda z: z[:, :3] + z[:, 3:], nn.Linear(12, 6)), "inner"),
}
without_weights = [name for name, (_, path) in HEADS.items() if path is None]
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")


def same(network: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    """Equal values under equal names in equal order."""
    own = network.state_dict()
    return list(own) == list(state) and all(torch.equal(own[key], state[key]) for key in own)


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_found_by_what_its_weights_do_to_the_logits(name):
    make, path = HEADS[name]
    torch.manual_seed(0)
    network = make()
    before = copy.deepcopy(network.state_dict())
    head = find_head(network, INPUTS)
    assert head is (None if path is None else network.get_submodule(path))
    assert same(network, before)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("ignore:temperature=50 has no place")
def test_multiplying_multiplies_the_logits_but_for_a_shift(name):
    torch.manual_seed(0)
    network = HEADS[name][0]().eval()
    before = network(INPUTS).log_softmax(1) * 50
    multiplied = multiply_logits(network, INPUTS, 50.0).eval()
    assert type(multiplied) is (Scaled if name in without_weights else type(network))
    torch.testing.assert_close(
        multiplied(INPUTS).log_softmax(1), before.log_softmax(1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", without_weights)
def test_a_head_that_cannot_take_the_factor_is_named(name):
    torch.manual_seed(0)
    network = HEADS[name][0]()
    path = "last" if hasattr(network, "last") else "inner.2" if name == "capped" else "2"
    path = "first" if "BatchNorm" in name else path
    with pytest.warns(UserWarning, match=rf"temperature=50 .* of teacher: .* layer, {path} \("):
        multiply_logits(network, INPUTS, 50.0, "teacher")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert multiply_logits(network, INPUTS, 1.0) is network


@pytest.mark.parametrize("name", HEADS)
def test_units_change_neither_the_logits_nor_the_names_of_the_weights(name):
    torch.manual_seed(0)
    network = HEADS[name][0]().eval()
    before, state = network(INPUTS), copy.deepcopy(network.state_dict())
    kinds = [type(part) for part in network.modules()]
    with scaled_head(network, INPUTS, 64.0):
        torch.testing.assert_close(network(INPUTS), before, rtol=0, atol=0)
    torch.testing.assert_close(network(INPUTS), before, rtol=0, atol=0)
    assert same(network, state)
    assert [type(part) for part in network.modules()] == kinds


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("ignore:temperature=64 has no place")
def test_a_step_at_t_is_the_step_at_1_whatever_the_optimiser_and_the_head(name, optimizer):
    def trained(unit: float) -> torch.Tensor:
        torch.manual_seed(0)
        inputs, labels = INPUTS.double(), torch.tensor([0, 2])
        network = multiply_logits(HEADS[name][0]().double(), inputs, unit)
        with scaled_head(network, inputs, unit):
            steps = optimizer(network.parameters(), lr=0.1)
            for _ in range(5):
                steps.zero_grad()
                nn.functional.cross_entropy(network(inputs) / unit, labels).backward()
                steps.step()
        return (network.eval()(inputs) / unit).softmax(1)

    torch.testing.assert_close(trained(64.0), trained(1.0))


def test_units_come_off_again_when_training_breaks_off():
    network = mlp()
    with pytest.raises(KeyboardInterrupt), scaled_head(network, INPUTS, 10.0):
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


@pytest.mark.parametrize("steps", [400, 2000])
def test_a_warm_up_takes_a_fortieth_of_the_steps(steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler("warmup_cosine", optimizer, steps)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) + 1 == steps / 40


def test_numpys_numbers_in_tuples_are_pythons_in_an_optimiser():
    betas = np.float64(0.75), np.float64(0.9)
    made = make_optimizer(partial(torch.optim.Adam, betas=betas), [nn.Parameter(torch.zeros(1))], 1)
    (group,) = made.param_groups
    assert [type(each) for each in group["betas"]] == [float, float]
    assert group["betas"] == (0.75, 0.9)


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


@pytest.mark.filterwarnings("ignore:this processor has no bfloat16:UserWarning")
@pytest.mark.parametrize(
    ("precision", "weights", "products"),
    [
        ("32-true", torch.float32, torch.float32),
        ("64-true", torch.float64, torch.float64),
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
    ],
)
def test_a_precision_is_that_of_weights_and_of_products(precision, weights, products):
    seen = set()

    class Recorded(nn.Linear):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            if self.training and torch.is_grad_enabled():
                seen.add((self.weight.dtype, outputs.dtype))
            return outputs

    network = nn.Sequential(Recorded(12, 8), nn.ReLU(), nn.Linear(8, 2))
    classifier = UndefendedClassifier(network, max_epochs=1, random_state=0, precision=precision)
    classifier.fit(INPUTS, [0, 1])
    assert seen == {(weights, products)}


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


def test_fabrics_log_and_warnings_are_silent_while_it_is_set_up():
    logger, heard = logging.getLogger("lightning_fabric"), []
    handler = logging.Handler()
    handler.emit = heard.append
    logger.addHandler(handler)
    level = logger.level
    try:
        logger.setLevel(logging.INFO)
        with _quiet():
            logger.info("Using bfloat16")
            logger.warning("No device")
            warnings.warn("renamed", stacklevel=1)
        assert heard == []
        logger.info("of somebody else")
        assert len(heard) == 1
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def test_callbacks_that_other_packages_give_fabric_stay_out(tmp_path, monkeypatch):
    described = tmp_path / "meddler-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Name: meddler\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        "[lightning_fabric.callbacks_factory]\nmeddler = meddler:callbacks\n"
    )
    (tmp_path / "meddler.py").write_text("raise RuntimeError('loaded')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="loaded"):
        Fabric(accelerator="cpu")
    Runtime("cpu", "32-true")
