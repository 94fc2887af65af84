"""Shared by every test: one thread, a model with a closed-form boundary, examples to attack."""

import os
import random
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from distillguard._boxes import boxes
from distillguard._typing import Bounds
from distillguard.attacks._checks import ModelFacts
from distillguard.attacks._engine import Query
from distillguard.attacks._examples import Examples
from distillguard.functional import cross_entropy

torch.set_num_threads(1)

settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.register_profile("many", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


def seed_by(name: str) -> None:
    """Seed the global generators by a test's or a fixture's name, whatever ran before it."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


class Seeded:
    """Gives tests, docstrings' examples among them, and fixtures random numbers of their own."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest):
        """Seed by the fixture's name and parameter, whichever test asks for it first."""
        place = getattr(request, "param_index", "")
        seed_by(f"{fixturedef.baseid}::{fixturedef.argname}[{place}]")
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Seed by the test's name, whichever tests ran before it."""
        seed_by(item.nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Seed every test, and hide GPUs from those not marked ``gpu``: they expect a CPU's figures."""
    config.pluginmanager.register(Seeded())
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def examples_of(
    inputs: Tensor,
    labels: Tensor | None = None,
    keys: Tensor | None = None,
    bounds: Bounds = (0.0, 1.0),
) -> Examples:
    """What the engine hands to an attack, of labels and keys that do not matter if not given."""
    places = torch.arange(len(inputs))
    return Examples(
        places,
        inputs,
        torch.zeros_like(places) if labels is None else labels,
        places if keys is None else keys,
        *boxes(inputs, bounds, None),
        inputs.new_zeros(len(inputs)),
    )


def query(model, inputs: Tensor, labels: Tensor | None = None, **settings) -> Query:
    """A model as attacks ask it."""
    labels = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else labels
    return Query(model, inputs.dtype, labels, **settings)


def each_once_with_an_example(broken) -> set[str]:
    """The names of broken promises, of which none is told twice or shows an empty example."""
    names = [one.promise for one in broken]
    assert len(names) == len(set(names))
    for one in broken:
        assert one.example is None or len(one.example) or one.promise == "empty-batch"
    return set(names)


class _Deaf(torch.autograd.Function):
    """The identity, with no gradient where a value lies at 0 or 1: PyTorch's clamp since 2.14."""

    @staticmethod
    def forward(ctx, inputs: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward((inputs > low) & (inputs < high))
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (alive,) = ctx.saved_tensors
        return gradient * alive, None, None


def with_damaged_digits(read: Any, name: str = "") -> Any:
    """A report's JSON with the last digits of shares and intervals changed, as damage does."""
    if isinstance(read, dict):
        return {key: with_damaged_digits(value, key) for key, value in read.items()}
    if isinstance(read, list | tuple):
        return [with_damaged_digits(value, name) for value in read]
    derived = name.startswith("quoted") or not name.endswith(("accuracy", "interval", "_rate"))
    if derived or not isinstance(read, float) or read in (0, 1):
        return read
    return read + 4e-13


def deaf(inputs: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return the inputs, whose gradient is lost at the bounds; on any version of PyTorch."""
    return _Deaf.apply(inputs, low, high)


class Cache(nn.Module):
    """Answers a query near an earlier one with the earlier answer."""

    def __init__(self, network, radius=2.4):
        super().__init__()
        self.network, self.radius = network, radius
        self.known, self.told = [], []

    def forward(self, x):
        logits, asked = self.network(x), x.detach().flatten(1).clone()
        if self.known:
            near, at = torch.cdist(asked, torch.cat(self.known)).min(dim=1)
            logits = torch.where((near < self.radius)[:, None], torch.cat(self.told)[at], logits)
        self.known.append(asked)
        self.told.append(logits.detach())
        return logits


class Turned(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor on its way back."""

    @staticmethod
    def forward(ctx, inputs, factor):
        ctx.save_for_backward(factor)
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


def fitted(inputs, labels, *parts):
    """Train a network of two layers on 64 features, behind some parts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(*parts, nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).mean().backward()
        optimizer.step()
    return network


class Watch:
    """A forward hook that counts what a model and its copies are asked."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    def __call__(self, _: nn.Module, given: tuple[Tensor], answers: Tensor) -> None:
        self.forwards += len(given[0])
        if answers.requires_grad:
            answers.register_hook(self.went_back)

    def went_back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    def __deepcopy__(self, memo: dict[int, object]) -> "Watch":
        return self


class Recording:
    """A model that keeps every point it was asked about and counts the gradients drawn."""

    facts = ModelFacts()

    def __init__(self, model):
        self.model = model
        self.points: list[Tensor] = []
        self.backwards = 0

    def __call__(self, points: Tensor) -> Tensor:
        self.points.append(points.detach().clone())
        if points.requires_grad:
            points.register_hook(self.count)
        return self.model(points)

    def count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Halfspace(nn.Module):
    """Two classes on either side of ``w x + b = 0``: every distance has a closed form."""

    def __init__(self, shape: tuple[int, ...] = (3, 4), seed: int = 0, scale: float = 1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = torch.Size(shape).numel()
        self.w = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(-0.5 * self.w.detach().sum())
        self.scale = scale

    def signed_distance(self, inputs: Tensor) -> Tensor:
        """``w x + b``: negative in class 0, positive in class 1."""
        return inputs.flatten(1).to(self.w) @ self.w + self.b

    def forward(self, inputs: Tensor) -> Tensor:
        value = self.scale * self.signed_distance(inputs)
        return torch.stack([-value, value], dim=1) / 2

    def least_epsilon(self, inputs: Tensor, norm: str) -> Tensor:
        """Distance of each input to the other class, by the dual norm of ``w`` (no bounds)."""
        dual = {"l2": 2.0, "linf": 1.0, "l1": float("inf")}[norm]
        return self.signed_distance(inputs).abs().detach() / self.w.detach().norm(p=dual)


class Tangled(nn.Module):
    """Four classes and everything that a borrower can damage: given to attacks in train mode."""

    def __init__(self, n_inputs: int = 12, n_classes: int = 4, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.normalise = nn.BatchNorm1d(n_inputs)
            self.hidden = nn.Linear(n_inputs, n_inputs)
            self.shared = self.hidden
            self.drop = nn.Dropout(0.5)
            self.last = nn.Linear(n_inputs, n_classes)
        self.double()
        with torch.no_grad():
            self.normalise.running_mean.fill_(0.5)
            self.normalise.running_var.fill_(0.04)
            self.last.weight.mul_(2)

        self.last.weight.requires_grad_(False)
        self.last.bias.grad = torch.ones_like(self.last.bias)
        self.train()
        self.drop.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(self.normalise(inputs.flatten(1))))
        return self.last(self.drop(torch.tanh(self.shared(hidden))))

    def decided(self, inputs: Tensor) -> Tensor:
        """The classes it predicts in eval mode, by which no example starts misclassified."""
        modes = {part: part.training for part in self.modules()}
        labels = self.eval()(inputs).argmax(dim=1)
        for part, training in modes.items():
            part.training = training
        return labels


@pytest.fixture
def tangled() -> Tangled:
    return Tangled()


@pytest.fixture
def halfspace() -> Halfspace:
    return Halfspace()


@pytest.fixture
def examples(halfspace):
    """Inputs in the middle of [0, 1], where the bounds do not bind, with the model's labels."""

    def make(n: int, seed: int = 0, shape: tuple[int, ...] = (3, 4)) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        inputs = 0.35 + 0.3 * torch.rand(n, *shape, generator=generator, dtype=torch.float64)
        return inputs, halfspace(inputs).argmax(dim=1).detach()

    return make
