"""Models that remember earlier queries: found, told from others that change, and attacked anew."""

import copy
from collections import deque
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Cache, Watch
from distillguard import UndefendedClassifier, attacks, datasets, evaluate
from distillguard.evaluation import _adapted_forms
from distillguard.evaluation._unasked import has_changed, unasked

N = 50
PGD = {"PGD": partial(attacks.pgd, loss="margin", steps=40)}
SETTINGS = {"epsilon": 0.3, "attacks": PGD, "diagnosis": "brief", "random_state": 0}


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(_adapted_forms, "QUESTIONS", 1000)
    monkeypatch.setattr(_adapted_forms, "QUERIES", 200)


@pytest.fixture(scope="module")
def data():
    inputs, labels = datasets.load_digits("test")
    return inputs[:N], labels[:N]


@pytest.fixture(scope="module")
def network():
    train = datasets.load_digits("train")
    return UndefendedClassifier(max_epochs=10, random_state=0).fit(*train).model_


class Detached(Cache):
    def forward(self, x):
        return super().forward(x).detach()


class Sure(Cache):
    def forward(self, x):
        return super().forward(x).softmax(dim=1)


class Callable:
    """No module, but an object that can be copied."""

    def __init__(self, network):
        self.cache = Cache(network)

    def __call__(self, x):
        return self.cache(x)


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("cache",)

    def __init__(self, network):
        self.cache = Cache(network)

    def __call__(self, x):
        return self.cache(x)


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def method(network):
    """A method of an object that is no module, which an evaluation asks as it is."""
    return Callable(network).__call__


def partially(network):
    return partial(lambda cache, x: cache(x), Cache(network))


def as_attribute(network):
    """A function that keeps its cache as an attribute of its own."""

    def model(x):
        return model.cache(x)

    model.cache = Cache(network)
    return model


def in_a_layer(network):
    return nn.Sequential(Lambda(around(network)))


def in_a_hook(network):
    """A network whose answers a hook replaces."""
    model, cache = nn.Sequential(network), Cache(network)
    model.register_forward_hook(lambda module, given, answer: cache(*given))
    return model


def around(network):
    """A function with a cache around it."""
    cache = Cache(network)
    return lambda x: cache(x)


def by_default(network):
    """A function with a cache among its arguments."""
    cache = Cache(network)
    return lambda x, cache=cache: cache(x)


def by_keyword(network):
    """A function with a cache among its arguments that are told by name alone."""
    cache = Cache(network)
    return lambda x, *, cache=cache: cache(x)


class Centred(nn.Module):
    """Centres its inputs by the mean of its first query."""

    def __init__(self, network):
        super().__init__()
        self.network, self.mean = network, None

    def forward(self, x):
        if self.mean is None:
            self.mean = x.detach().mean()
        return self.network(x - self.mean)


def memory(report):
    return [each for each in report.findings if "remembered" in each.figures]


@pytest.mark.parametrize("kind", [Cache, Detached, Sure, Callable, around, by_default])
def test_a_cache_of_earlier_queries_is_named_and_worth_what_its_network_is(kind, network, data):
    twin = evaluate(network, *data, **SETTINGS)
    blind = evaluate(kind(network), *data, adapt=False, **SETTINGS)
    report = evaluate(kind(network), *data, adapt=True, **SETTINGS)
    assert blind.quoted_accuracy > twin.robust_accuracy + 0.3
    assert report.quoted_accuracy <= twin.robust_accuracy + 0.05
    (finding,) = memory(report)
    assert (finding.code, finding.severity) == ("unstable-predictions", "severe")
    assert "depends on earlier queries" in finding.meaning
    assert any("remembers no other" in told for told in report.adaptation.remedies)
    assert (report.adaptation.attacks[0].name == "PGD margin, again") == (kind is not Detached)


@pytest.mark.parametrize("before", ["asked about the data", "evaluated"])
def test_a_model_that_remembers_from_before_the_evaluation_is_named_too(network, data, before):
    model = Cache(network)
    if before == "evaluated":
        evaluate(model, *data, adapt=False, **SETTINGS)
    else:
        model(data[0])
    (finding,) = memory(evaluate(model, *data, adapt=False, **SETTINGS))
    assert finding.figures["remembered"] > 0.5


def test_the_line_of_the_remedy_attacks_the_network(network, data):
    model = Cache(network)
    names = {"copy": copy, "evaluate": partial(evaluate, **SETTINGS), "model": model}
    (finding,) = memory(evaluate(Cache(network), *data, adapt=False, **SETTINGS))
    line = finding.remedy.partition(": ")[2].partition("; also")[0]
    report = eval(line.replace("X, y, ...", "*data"), names, {"data": data, "model": model})
    twin = evaluate(network, *data, **SETTINGS)
    assert report.robust_accuracy == twin.robust_accuracy
    assert not model.known


@pytest.mark.parametrize(
    "kind", [Slotted, method, partially, by_keyword, as_attribute, in_a_layer, in_a_hook]
)
def test_a_cache_is_found_wherever_it_is_held(kind, network, data):
    (finding,) = memory(evaluate(kind(network), *data, adapt=False, **SETTINGS))
    assert finding.figures["remembered"] == 1


@pytest.mark.parametrize("radius", [0.2, 0.5, 2.4])
def test_a_cache_is_seen_where_it_answers_for_a_part_of_the_ball_alone(radius, network, data):
    (finding,) = memory(evaluate(Cache(network, radius), *data, adapt=False, **SETTINGS))
    assert finding.figures["remembered"] == 1


def test_statistics_of_the_first_query_are_memory(network, data):
    assert memory(evaluate(Centred(network), *data, adapt=False, **SETTINGS))


class Counting(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.calls, self.last = network, 0, None

    def forward(self, x):
        self.calls, self.last = self.calls + len(x), x.detach()
        return self.network(x)


class Learnt(nn.Module):
    """Computes a table with its first query, and keeps it."""

    def __init__(self, network):
        super().__init__()
        self.network, self.tables = network, {}

    def forward(self, x):
        if x.shape[1:] not in self.tables:
            self.tables[x.shape[1:]] = torch.linspace(0.9, 1, x[0].numel()).view(x.shape[1:])
        return self.network(x * self.tables[x.shape[1:]])


class Exact(nn.Module):
    """Keeps answers for queries that are equal to the last bit."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.answer = lru_cache(lambda told: network(torch.tensor(told)[None])[0])

    def forward(self, x):
        if x.requires_grad:
            return self.network(x)
        return torch.stack([self.answer(told) for told in map(nested, x.tolist())])


def nested(told):
    return tuple(map(nested, told)) if isinstance(told, list) else told


class Noisy(nn.Module):
    """Draws from a generator of its own, whose state moves with every query."""

    def __init__(self, network):
        super().__init__()
        self.network, self.generator = network, np.random.default_rng(0)

    def forward(self, x):
        noise = self.generator.standard_normal(x.shape)
        return self.network(x + 0.1 * torch.tensor(noise, dtype=x.dtype))


class Uncopied(Counting):
    def __deepcopy__(self, memo):
        raise TypeError("there is one of me")


class Elsewhere(Counting):
    """Draws noise for values that no clean example has."""

    def forward(self, x):
        clean = 16 * x == (16 * x).round()
        return super().forward(torch.where(clean, x, x + 0.1 * torch.randn_like(x)))


def headless(network):
    """A network, what a hook saw at its last layer but one, and that layer."""
    known, last = {}, network[-1]
    last.register_forward_pre_hook(lambda _, given: known.update(features=given[0]))
    return known, last


class Hooked(nn.Module):
    """Reads what a hook put into a dictionary."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network)
        self.known, self.last = headless(self.network)

    def forward(self, x):
        self.network(x)
        return nn.functional.linear(self.known["features"], self.last.weight, self.last.bias)


def hooked(network):
    network = copy.deepcopy(network)
    known, last = headless(network)

    def model(x):
        network(x)
        return nn.functional.linear(known["features"], last.weight, last.bias)

    return model


def asked_before(kind):
    """As many examples as the diagnosis asks about at once, so that old answers fit."""

    def made(network):
        model = kind(network)
        model(torch.rand(16, 1, 8, 8))
        return model

    return made


def prepared(network):
    """Two functions that share a variable, which the first query fills."""
    scale = None

    def prepare():
        nonlocal scale
        scale = 2.0

    def model(x):
        if scale is None:
            prepare()
        return scale * network(x)

    return model


def by_halves(network):
    """A function that calls itself, and counts."""
    calls = []

    def model(x):
        calls.append(len(x))
        return torch.cat([model(x[:4]), model(x[4:])]) if len(x) > 4 else network(x)

    return model


class Registered(Counting):
    """Known by its place in memory to a table that all share."""

    table: ClassVar = {}

    def __init__(self, network):
        super().__init__(network)
        self.table[id(self)] = 1.0

    def forward(self, x):
        return self.table[id(self)] * super().forward(x)


class Odd(nn.Module):
    """Holds what compares in ways of its own."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.names = np.array(["a", "b"])
        self.things = np.array([None, {}], dtype=object)
        self.sparse = torch.eye(2).to_sparse()
        self.nowhere = torch.empty(2, device="meta")
        self.first, self.second = np.zeros(2), torch.zeros(2)

    def forward(self, x):
        self.first, self.second = None, 3
        return self.network(x)


def normalised(network):
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(1), network)


HARMLESS = {
    "plain": lambda network: network,
    "counting": Counting,
    "a table at first use": Learnt,
    "exact cache": Exact,
    "noise of its own": Noisy,
    "not to be copied": Uncopied,
    "normalised": normalised,
    "compiled": lambda network: torch.compile(Counting(network), backend="eager"),
    "a function": lambda network: lambda x: network(x),
    "hooked": Hooked,
    "hooked, asked before": asked_before(Hooked),
    "a function with a hook": hooked,
    "a function with a hook, asked before": asked_before(hooked),
    "a shared variable": prepared,
    "a function that calls itself": by_halves,
    "registered": Registered,
    "odd things": Odd,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_or_not_without_remembering_is_not_accused(name, network, data):
    settings = {**SETTINGS, "diagnosis": "full" if name == "plain" else "brief"}
    report = evaluate(HARMLESS[name](network), *data, adapt=False, **settings)
    assert not memory(report)
    assert not report.observations.failed


def test_noise_that_no_clean_example_shows_is_no_memory(network, data):
    idle = {"none": lambda model, inputs, labels: inputs}
    settings = {**SETTINGS, "attacks": idle}
    report = evaluate(Elsewhere(network), *data, adapt=False, **settings)
    assert report.observations.recalled == 16
    assert report.observations.changed == 0
    assert not memory(report)


@pytest.mark.parametrize(("kind", "asked"), [(Counting, 16), (nn.Sequential, 0)])
def test_a_copy_is_asked_only_where_the_model_has_changed_and_counted(kind, asked, network, data):
    inner, watch = nn.Sequential(network), Watch()
    model = kind(inner)
    handle = inner.register_forward_hook(watch)
    report = evaluate(model, *data, adapt=False, **SETTINGS)
    handle.remove()
    assert report.observations.recalled == asked
    (row,) = report.attacks
    costs = sum(cost.forwards for cost in report.costs.values())
    assert watch.forwards == costs + round(row.forwards * row.attacked)


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.thing, self.layer = None, nn.Linear(2, 2)
        self.register_buffer("kept", torch.zeros(2))


CHANGES = {
    "a number": (1, lambda holder: setattr(holder, "thing", 2)),
    "a longer list": ([1], lambda holder: holder.thing.append(1)),
    "a list in a list": ([[1]], lambda holder: holder.thing[0].append(1)),
    "a full deque": (deque([1, 2], maxlen=2), lambda holder: holder.thing.append(3)),
    "a set": ({1}, lambda holder: holder.thing.add(2)),
    "a dictionary": ({"a": 1}, lambda holder: holder.thing.update(b=1)),
    "a tensor": (torch.zeros(2), lambda holder: holder.thing.add_(1)),
    "an array": (np.zeros(2), lambda holder: holder.thing.put(0, 1)),
    "a buffer": (None, lambda holder: holder.kept.add_(1)),
    "an object": (Callable(Cache(None)), lambda holder: holder.thing.cache.known.append(1)),
    "a set of values": (torch.eye(2).to_sparse(), lambda holder: holder.thing.mul_(2)),
    "a variable": (lambda thing=[]: thing, lambda holder: holder.thing().append(1)),
    "another kind": (None, lambda holder: setattr(holder, "thing", "told")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_what_a_model_holds_is_seen(name):
    thing, change = CHANGES[name]
    holder = nn.Sequential(Holder())
    holder[0].thing = copy.deepcopy(thing)
    before = unasked(holder)
    assert not has_changed(before, holder)
    change(holder[0])
    assert has_changed(before, holder)


def test_what_holds_itself_is_compared_to_an_end():
    holder = Holder()
    holder.thing = [holder, float("nan"), torch.tensor([float("nan")])]
    holder.thing += [[holder.thing] for _ in range(400)]
    before = unasked(holder)
    holder.thing[1] = before.model.thing[1]
    assert not has_changed(before, holder)


def test_a_copy_shares_the_parameters_and_nothing_else():
    holder = Holder()
    kept = unasked(holder).model
    assert kept.layer.weight is holder.layer.weight
    assert kept.kept is not holder.kept
    assert unasked(lambda x: x) is None
    (cell,) = unasked(lambda x: holder.layer(x)).model.__closure__
    assert cell.cell_contents.kept is not holder.kept
    assert cell.cell_contents.layer.weight is holder.layer.weight


def test_the_copy_of_a_compiled_model_is_not_compiled():
    compiled = torch.compile(Holder(), backend="eager")
    assert type(unasked(compiled).model) is Holder


def test_the_first_of_all_queries_is_every_one():
    model = Centred(nn.Identity())
    first, x = unasked(model), torch.rand(2, 3)
    for asked in (x, x + 1):
        torch.testing.assert_close(first(asked), x - x.mean())
    assert model.mean is None


def test_a_copied_function_keeps_what_is_said_of_it():
    holder = Holder()

    def model(x):
        return holder(x)

    model.rejects = True
    assert unasked(model).rejects


def test_copies_share_what_the_originals_share():
    count = 0

    def more():
        nonlocal count
        count += 1

    def model(x):
        more()
        return torch.full((len(x), 2), float(count))

    kept = unasked(model).model
    model(torch.zeros(1))
    assert kept(torch.zeros(1))[0, 0] == 1
    assert kept(torch.zeros(1))[0, 0] == 2
    assert count == 1
