"""An evaluation under way, step by step: whom it asks, what it writes down, and when."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillguard._account import question
from distillguard._data import Chunk
from distillguard._processes import ALONE, Processes
from distillguard.evaluation import _run
from distillguard.evaluation._evaluate import measure
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation._records import Records
from test_forms_by_hand import subject_of

SPECS = {"a": AttackSpec(None, "linf"), "b": AttackSpec(None, "l2")}


class Above(nn.Module):
    """Class 1 above a half, told by the first value; counts what it is asked in training mode."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.modes = []

    def forward(self, inputs):
        self.modes.append(self.training)
        lead = self.weight * (inputs[:, 0] - 0.5)
        return torch.stack([-lead, lead], dim=1)


def under_way(model=None, **changes):
    """A run on a model, of which nothing is measured yet; its seed is 9."""
    run = subject_of(Above() if model is None else model, torch.zeros(3, 1)).run
    return replace(run, records=Records(), **{"attacks": SPECS, **changes})


# Chunks.


class Log:
    """A run and a state file that tell what they are asked to do."""

    def __init__(self, learns=(True, True), futile=False):
        self.told, self.learns, self.futile = [], iter(learns), futile
        self.model, self.records = SimpleNamespace(model="net"), SimpleNamespace(known={})

    def add(self, chunk, number):
        self.told.append(("add", chunk.places.tolist(), len(chunk.inputs), len(chunk.labels)))
        if next(self.learns):
            self.records.known = {"a": number + 1}

    def compare_data(self, number, chunk, records):
        self.told.append(("data", number, chunk.places.tolist()))

    def compare_model(self, model, inputs, records):
        self.told.append(("model", model, len(inputs)))

    def write(self, records):
        self.told.append(("write", dict(records.known)))

    def finish(self, n_chunks, records):
        self.told.append(("finish", n_chunks))


@pytest.mark.parametrize(
    ("processes", "learns", "futile", "expected"),
    [
        (ALONE, (True, True), False, "data model add write data add write finish"),
        (ALONE, (False, True), False, "data model add data add write finish"),
        (ALONE, (False, False), False, "data model add data add finish"),
        # Where every attack raises, there is nothing to go on with or to write.
        (ALONE, (True, True), True, "data model add"),
        (Processes(1, 2), (True, True), True, "data model add data add finish"),
        (Processes(1, 2), (True, True), False, "data model add write data add write finish"),
    ],
)
def test_what_a_chunk_adds_is_written_before_the_next_is_read(processes, learns, futile, expected):
    log, whole = Log(learns, futile), torch.arange(5)
    chunks = [Chunk(whole, whole[:, None] / 8, whole), Chunk(whole + 5, whole[:, None] / 8, whole)]
    measure(log, iter(chunks), processes, log)
    assert [what for what, *_ in log.told] == expected.split()
    own = slice(processes.rank, None, processes.count)
    added = [rest for what, *rest in log.told if what == "add"]
    places = [(each + 5 * number)[own].tolist() for number, each in enumerate((whole, whole))]
    assert added == [[each, len(each), len(each)] for each in places][: len(added)]
    # The data and the model are compared whole, in every process.
    assert log.told[:2] == [("data", 0, [0, 1, 2, 3, 4]), ("model", "net", 5)]
    writes = [rest[0] for what, *rest in log.told if what == "write"]
    known = [{"a": n + 1} for n, learnt in enumerate(learns) if learnt]
    assert writes == (known if "write" in expected else [])
    if "finish" in expected:
        assert log.told[-1] == ("finish", 2)


def test_a_chunk_is_new_to_the_attacks_that_have_seen_fewer(monkeypatch):
    run, asked = under_way(), []
    for name in ("clean_pass", "examine", "attack_in_turn"):
        monkeypatch.setattr(run, name, lambda *told: asked.append(told[-1]))
    bar = []
    run.progress = SimpleNamespace(skip=bar.append)
    run.records.known = {"a": 2}
    chunk = Chunk(torch.arange(3), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    for number, unknown, skipped in ((0, ["b"], []), (2, ["a", "b"], []), (2, [], [3])):
        asked.clear(), bar.clear()
        run.add(chunk, number)
        assert asked[2:] == ([unknown] if unknown else [])
        assert bar == skipped
        assert run.records.known["b"] == number + 1
        assert run.records.known["a"] == max(2, number + 1)
    # A process that has no part of the last chunk has seen it all the same.
    asked.clear(), bar.clear()
    run.add(Chunk(*(part[:0] for part in chunk)), 3)
    assert (asked, bar, run.records.known) == ([], [0], {"a": 4, "b": 4})


# Accounts.


def test_what_is_spent_is_written_to_its_part_with_the_runs_seed_and_the_model_as_it_was(
    monkeypatch,
):
    model, clock = Above().train(), iter([10.0, 12.5, 20.0, 21.0])
    run, x = under_way(model), torch.full((3, 1), 0.25)
    run.model(x)  # on nobody's account
    monkeypatch.setattr(_run.time, "perf_counter", lambda: next(clock))
    state = torch.get_rng_state()
    with run.accounted("a"):
        assert torch.initial_seed() == 9
        assert not model.weight.requires_grad
        run.model(x.clone().requires_grad_()).sum().backward()
        with question(2, "a student", 1, 0):
            pass
    with run.accounted("a", unseen=True):
        assert torch.initial_seed() == 10
        run.model(x[:2])
        with question(1, "a mean", 1, 0), question(1, "a student", 1, 0):
            pass
    spent = run.records.costs["a"]
    # Three forwards and back, and two of the student; two, and one of the mean.
    assert (spent.forwards, spent.backwards, spent.seconds) == (3 + 2 + 2 + 1, 3, 3.5)
    assert run.records.stand_ins == {"a": ("a student", "a mean")}
    assert model.modes == [True, False, False]
    assert model.training
    assert model.weight.requires_grad
    assert torch.get_rng_state().equal(state)


def test_what_no_attack_asks_is_no_stand_in_and_nothing_asked_leaves_none():
    run = under_way()
    with run.accounted("judging"), question(2, "a student", 1, 0):
        pass
    with run.accounted("a"):
        pass
    assert run.records.stand_ins == {}
    assert run.records.costs["judging"].forwards == 2


@pytest.mark.parametrize(("seed", "unseen", "taken"), [(7, False, 7), (7, True, 8),
                         (2**63 - 1, False, 2**63 - 1), (2**63 - 1, True, 0)])  # fmt: skip
def test_draws_that_no_attack_has_seen_are_those_of_the_next_seed(seed, unseen, taken):
    with under_way(seed=seed).accounted("judging", unseen=unseen):
        assert torch.initial_seed() == taken


def test_an_error_says_where_it_was_raised_if_that_is_told():
    run = under_way()
    for told, notes in (("attack 'a'", ["raised in evaluate's attack 'a'"]), (None, None)):
        with pytest.raises(KeyError) as caught, run.accounted("a", told):
            raise KeyError
        assert getattr(caught.value, "__notes__", None) == notes
