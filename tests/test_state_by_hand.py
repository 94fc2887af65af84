"""What a state file compares and when it is written; columns and samples that grow."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillguard._data import Chunk
from distillguard._processes import Processes
from distillguard.evaluation import _state, _state_format
from distillguard.evaluation._evaluate import check_some_attack_ran
from distillguard.evaluation._records import Column, Records, Sample, asked_nothing
from distillguard.evaluation._state import StateFile
from distillguard.exceptions import AttackError, SaveError

ZERO, ONE = torch.zeros(1), torch.ones(1)


def chunk_of(n, value=0.0):
    return Chunk(torch.arange(n), torch.full((n, 1), value), torch.zeros(n, dtype=torch.int64))


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A state file that only notes what it would write."""
    state = StateFile(tmp_path / "state")
    state.written = []
    monkeypatch.setattr(state, "write", lambda records: state.written.append(records.complete))
    return state


# State files.


@pytest.mark.parametrize(
    ("complete", "known", "claimed"),
    [
        (True, {"a": 2, "b": 2}, False),
        (True, {"a": 2, "b": 1}, True),
        (True, {"a": 2}, True),
        (False, {"a": 2, "b": 2}, True),
    ],
)
def test_a_place_is_claimed_unless_everything_is_known(
    state, monkeypatch, complete, known, claimed
):
    claims = []
    monkeypatch.setattr(_state, "_claim", claims.append)
    monkeypatch.setattr(state, "_compare_settings", lambda: None)
    state.held = {
        "chunks": [[1, "x"], [1, "y"]], "known": known, "complete": complete, "costs": {},
        "errors": {}, "stand_ins": {"a": ["s"]}, "probabilities": True, "facts": None,
    }  # fmt: skip
    state.tensors = {"columns:label": torch.arange(2), "sample:key": torch.arange(2)}
    attacks = dict.fromkeys(("a", "b"), SimpleNamespace(attack=None, norm="l2", near=None))
    records = state.resume(nn.Identity(), attacks, 3, {})
    assert claims == ([state.path] if claimed else [])
    assert (records.chunks, records.known) == ([(1, "x"), (1, "y")], known)
    assert (records.complete, records.probabilities) == (complete, True)
    assert records.stand_ins == {"a": ("s",)}
    assert (len(records), len(records.sample), len(records.drawn)) == (2, 2, 0)
    assert state.identity["seed"] == 3


def test_data_are_marked_once_and_compared_ever_after(state):
    records = Records()
    for number, chunk in enumerate((chunk_of(3), chunk_of(2, 0.5))):
        state.compare_data(number, chunk, records)
    assert [size for size, _ in records.chunks] == [3, 2]
    marks = list(records.chunks)
    for number, chunk in enumerate((chunk_of(3), chunk_of(2, 0.5))):
        state.compare_data(number, chunk, records)
    assert records.chunks == marks
    for number, chunk, got in (
        (0, chunk_of(2), "2 in chunk 0 rather than 3"),
        (1, chunk_of(2), "others in chunk 1"),
        (0, chunk_of(3)._replace(labels=torch.ones(3).long()), "others in chunk 0"),
    ):
        with pytest.raises(SaveError, match=f", got {got}; remove"):
            state.compare_data(number, chunk, records)
    records.complete = True
    with pytest.raises(SaveError, match="got more than 5; remove"):
        state.compare_data(2, chunk_of(1), records)
    assert records.chunks == marks


def test_the_end_of_the_data_is_written_once(state):
    records = Records(chunks=[(3, "x"), (2, "y")])
    with pytest.raises(SaveError, match="got 3 rather than 5; remove"):
        state.finish(1, records)
    assert (records.complete, state.written) == (False, [])
    state.finish(2, records)
    state.finish(2, records)
    assert (records.complete, state.written) == (True, [True])


def test_without_a_path_nothing_is_remembered_or_refused():
    records, state = Records(), StateFile()
    state.compare_data(0, chunk_of(3), records)
    state.compare_model(None, None, records)
    state.finish(1, records)
    state.write(records)
    assert (records.chunks, records.complete, records.notes) == ([], False, {})
    assert (state.answers, state.identity, state.seed) == (None, {}, None)
    assert isinstance(state.resume(None, {}, 0, {}), Records)


@pytest.mark.parametrize(("count", "name"), [(1, "state"), (2, "state.1"), (3, "state.1")])
def test_each_of_several_processes_has_a_file_of_its_own(tmp_path, count, name):
    opened = StateFile.open(str(tmp_path / "state"), Processes(1 if count > 1 else 0, count))
    assert opened.path == tmp_path / name
    assert opened.identity == {"process": {"rank": int(count > 1), "count": count}}
    assert (opened.held, opened.seed) == ({}, None)


class Contrary(nn.Module):
    """Answers otherwise each time."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def forward(self, inputs):
        self.times += 1
        return inputs.expand(-1, 2) + self.times


@pytest.mark.parametrize(
    ("model", "before", "repeatable", "refused"),
    [
        ("same", 0.0, True, False),
        ("same", 0.5, True, True),
        ("same", 0.0, False, True),  # it was one that contradicts itself
        ("contrary", 0.0, False, False),
        ("contrary", 0.0, True, True),
        ("same", None, None, False),
        ("contrary", None, None, False),
    ],
)
def test_a_model_is_compared_by_its_answers_unless_it_contradicts_itself(
    state, model, before, repeatable, refused
):
    net = Contrary() if model == "contrary" else lambda inputs: inputs.expand(-1, 2)
    state.identity |= {"seed": 0, "environment": {}}
    x, records = torch.tensor([[0.25], [0.75]]), Records()
    if before is not None:
        state.held = {"environment": {}, "repeatable": repeatable}
        state.tensors = {"answers:logits": x.expand(-1, 2) + before}
    if refused:
        with pytest.raises(SaveError, match="a model that answers the first examples otherwise"):
            state.compare_model(net, x, records)
        return
    state.compare_model(net, x, records)
    assert state.identity["repeatable"] == (model == "same")
    assert (list(records.notes) == ["resumed model"]) == (model == "contrary")
    assert state.answers.shape == (2, 2)


@pytest.mark.parametrize(
    ("sizes", "known", "rank", "count", "places"),
    [
        ([3, 3, 1], None, 0, 1, [0, 1, 2, 3, 4, 5, 6]),
        ([3, 3, 1], 2, 0, 2, [0, 2, 3, 5]),
        ([3, 3, 1], 3, 1, 2, [1, 4]),
        ([3, 3, 1], 0, 0, 1, []),
    ],
)
def test_places_are_those_of_every_so_manieth_of_each_chunk(sizes, known, rank, count, places):
    content = {"process": {"rank": rank, "count": count}, "chunks": [[n, ""] for n in sizes]}
    assert _state_format.own_places(content, known).tolist() == places


# Records.


def test_a_column_grows_into_room_that_doubles():
    column = Column(torch.empty(0, dtype=torch.int64))
    rooms = []
    for n in (3, 1, 2, 1, 9):
        column.add(torch.full((n,), n))
        rooms.append(len(column.room))
    assert rooms == [3, 6, 6, 12, 24]
    assert column.tensor.tolist() == [3, 3, 3, 1, 2, 2, 1, *[9] * 9]


def test_a_sample_keeps_the_smallest_keys_in_their_order_and_replaces_equal_ones():
    sample = Sample(3)
    for keys in ([5, 1], [9, 7], [6], [0], [8]):
        sample.add(torch.tensor(keys), name=10 * torch.tensor(keys))
        assert len(sample) <= 3
    assert sample["key"].tolist() == [0, 1, 5]
    assert sample["name"].tolist() == [0, 10, 50]
    sample.put(torch.tensor([1, 4]), name=torch.tensor([-1, -4]))
    assert (sample["key"].tolist(), sample["name"].tolist()) == ([0, 1, 4], [0, -1, -4])
    empty = Sample(2)
    empty.put(torch.tensor([2, 1, 3]), name=torch.tensor([2, 1, 3]))
    assert empty["name"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("attacked", "forwards", "nothing"),
    [([True, False], 0, True), ([True, False], 1, False), ([False, False], 0, False)],
)
def test_an_attack_asked_nothing_if_it_returned_points_without_a_question(
    attacked, forwards, nothing
):
    records = Records()
    records.add({"a/attacked": torch.tensor(attacked)})
    records.cost("a").add(forwards, 3, 1.0)
    assert asked_nothing(records, "a") == nothing


@pytest.mark.parametrize(
    ("raised", "attacked", "ends"),
    [("ab", "", True), ("ab", "b", False), ("a", "", False), ("", "", False)],
)
def test_an_evaluation_ends_where_every_attack_raised_and_none_attacked(raised, attacked, ends):
    errors = {name: KeyError(name) for name in raised}
    records = Records(errors={name: f"KeyError: '{name}'" for name in raised})
    for name in "ab":
        records.add({f"{name}/attacked": torch.tensor([name in attacked])})
    run = SimpleNamespace(attacks=dict.fromkeys("ab"), records=records, raised=errors)
    if not ends:
        check_some_attack_ran(run, Processes())
        return
    with pytest.raises(AttackError, match="'a' raised KeyError: 'a'; 'b' raised") as caught:
        check_some_attack_ran(run, Processes())
    assert caught.value.__cause__ is errors["a"]
