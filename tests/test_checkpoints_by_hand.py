"""A checkpoint folder and callbacks, without a training."""

import json
from collections import Counter, OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distillguard.callbacks import JSONLines, LoggerCallback
from distillguard.exceptions import SaveError
from distillguard.training import _callbacks, _checkpoints
from distillguard.training._checkpoints import (
    _EPOCH,
    Checkpoints,
    _decoded,
    _encoded,
    _mapped,
    _parts,
    _shapes,
    read,
    write,
)


class Process:
    """One process of several, whose first one tells the others what it has."""

    def __init__(self, first=True, told=None):
        self.first, self.told, self.waits = first, told, 0

    def broadcast(self, value):
        return value if self.first else self.told

    def wait(self):
        self.waits += 1


START = {"network": {"w": torch.zeros(2, 3)}}
SETTINGS = {"estimator": "'A'", "data": {"bytecode": "1", "x": "2"}}


def begun(folder, **more):
    checkpoints = Checkpoints(folder, Process())
    checkpoints.begin(SETTINGS | more, START, 7)
    return checkpoints


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_begins_once_and_the_next_one_in_its_folder_goes_on_as_it_did(tmp_path):
    first = Checkpoints(tmp_path / "a" / "b", Process())
    assert first.seed is None
    assert first.begin(SETTINGS, START, 7) == START
    again = Checkpoints(tmp_path / "a" / "b", Process())
    assert again.seed == 7
    other = {"network": {"w": torch.ones(2, 3)}}
    assert not again.begin(SETTINGS, other, 9)["network"]["w"].any()
    assert again.seed == 7
    with pytest.raises(SaveError, match=r"with the same data\.x \(2 in .*\), got 3"):
        again.begin({**SETTINGS, "data": {"bytecode": "1", "x": "3"}}, START, 7)
    for start in ({"network": {"w": torch.zeros(3, 2)}}, {"other": START["network"]}):
        with pytest.raises(SaveError, match="the initial weights of its run, got others"):
            again.begin(SETTINGS, start, 7)


@pytest.mark.parametrize("same", [True, False])
def test_bytecode_counts_within_one_version_of_python_alone(tmp_path, monkeypatch, same):
    begun(tmp_path)
    if not same:
        monkeypatch.setattr(_checkpoints, "_python", lambda: "2.7")
    changed = {"data": {"bytecode": "9", "x": "2"}}
    if same:
        with pytest.raises(SaveError, match=r"the same data\.bytecode"):
            begun(tmp_path, **changed)
    else:
        begun(tmp_path, **changed)


def test_what_a_run_has_besides_is_noted_once_and_then_compared(tmp_path):
    begun(tmp_path).also("extra", "3")
    begun(tmp_path).also("extra", "3")
    begun(tmp_path).also("more", "5")
    with pytest.raises(SaveError, match=r"the same extra \(3 in .*got 4"):
        begun(tmp_path).also("extra", "4")
    later = read(tmp_path / "run.ckpt", _checkpoints._RUN)["later"]
    assert json.loads(later) == {"extra": "3", "more": "5"}


def test_the_newest_good_state_of_a_stage_is_gone_on_from_and_two_are_kept(tmp_path):
    checkpoints = begun(tmp_path)
    assert checkpoints.last("student") is None
    (tmp_path / "student-000001.ckpt").write_bytes(b"somebody's")
    for epoch in range(2, 6):
        checkpoints.save("student", epoch, {"n": epoch})
        checkpoints.save("teacher", epoch, {"n": -epoch})
    assert names(tmp_path) == [
        "run.ckpt", "student-000001.ckpt", "student-000004.ckpt", "student-000005.ckpt",
        "teacher-000004.ckpt", "teacher-000005.ckpt",
    ]  # fmt: skip
    assert checkpoints.last("student") == {"n": 5}
    assert checkpoints.last("teacher") == {"n": -5}
    form = {"run": checkpoints.stored["run"], "stage": "student", "epoch": 5, "state": {"n": 0}}
    for wrong, message in (
        ({"run": "another"}, "must belong to the run of run.ckpt"),
        ({"epoch": 6}, "must be what its name says, got the state of student after epoch 6"),
        ({"stage": "teacher"}, "what its name says, got the state of teacher after epoch 5"),
    ):
        write(tmp_path / "student-000005.ckpt", form | wrong)
        with pytest.warns(UserWarning, match=f"a checkpoint is passed over: .*{message}"):
            assert checkpoints.last("student") == {"n": 4}
    assert read(tmp_path / "student-000004.ckpt", _EPOCH)["epoch"] == 4


def test_only_the_first_process_writes_and_all_wait_for_it(tmp_path):
    stored = {"run": "ab", "seed": 3, "python": _checkpoints._python(), "later": "{}"}
    stored |= {"settings": json.dumps(SETTINGS), "start": START}
    second = Process(False, stored)
    checkpoints = Checkpoints(tmp_path / "x", second)
    assert checkpoints.begin(SETTINGS, START, 5) is START
    checkpoints.save("student", 1, {"n": 1})
    assert second.waits == 1
    assert not (tmp_path / "x").exists()
    second.told = {"n": 9}
    assert checkpoints.last("student") == {"n": 9}


def test_a_folder_is_empty_or_holds_a_run_and_unfinished_files_are_swept(tmp_path):
    (tmp_path / "teacher-000001.ckpt").touch()
    with pytest.raises(SaveError, match=r"got teacher-000001\.ckpt without run\.ckpt"):
        Checkpoints(tmp_path, Process())
    (tmp_path / "teacher-000001.ckpt").unlink()
    (tmp_path / "run.ckpt").mkdir()
    with pytest.raises(SaveError, match=r"files as checkpoints, got run\.ckpt"):
        Checkpoints(tmp_path, Process())
    (tmp_path / "run.ckpt").rmdir()
    for name in ("run.ckpt.distillguard-01234567", "a-000002.ckpt.distillguard-01234567",
                 "notes.distillguard-01234567"):  # fmt: skip
        (tmp_path / name).touch()
    begun(tmp_path)
    assert names(tmp_path) == ["notes.distillguard-01234567", "run.ckpt"]


def test_a_link_in_place_of_a_checkpoint_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "run.ckpt").symlink_to(tmp_path / "precious")
    write(tmp_path / "run.ckpt", {"a": 1})
    assert read(tmp_path / "run.ckpt", {"a": int}) == {"a": 1}
    assert (tmp_path / "precious").read_bytes() == b"precious"
    for form in ({"a": str}, {"a": int, "b": int}, {}):
        with pytest.raises(SaveError, match=r"must hold .*, got another checkpoint"):
            read(tmp_path / "run.ckpt", form)
    write(tmp_path / "run.ckpt", [1])
    with pytest.raises(SaveError, match="must hold a dict, got list"):
        read(tmp_path / "run.ckpt", {"a": int})


def test_values_of_numpy_come_back_with_their_dtypes_in_containers_of_their_kinds():
    class Own(dict):
        pass

    state = OrderedDict(
        a=np.float32(0.5), b=[np.arange(3, dtype=np.int16), (np.bool_(True),)],
        c=Counter({np.int64(3): np.int64(2)}), d=np.str_("x"), e={"f": torch.ones(2)},
    )  # fmt: skip
    found = _decoded(_encoded(state))
    assert type(found) is OrderedDict
    assert (type(found["a"]), found["a"]) == (np.float32, 0.5)
    assert found["b"][0].dtype == np.int16
    assert found["b"][0].tolist() == [0, 1, 2]
    assert type(found["b"][1]) is tuple
    assert type(found["b"][1][0]) is np.bool_
    assert type(found["c"]) is Counter
    assert (list(found["c"]), type(found["c"][3])) == ([3], np.int64)
    assert type(next(iter(found["c"]))) is int
    assert type(found["d"]) is str
    assert found["e"]["f"] is state["e"]["f"]
    own = Own(a=1)
    assert _mapped(own, lambda part: part) is own
    with pytest.raises(ValueError, match="must not have the dtype object"):
        _decoded({"distillguard: NumPy": "|O", "value": 3})


def test_everything_in_a_state_has_its_place():
    state = {"a": [1, {"b": 2}], "c": (3,)}
    assert [place for place, _ in _parts(state)] == [
        "the state", "a", "a.0", "a.1", "a.1.b", "a.1.b", "c", "c.0", "a", "c",
    ]  # fmt: skip
    assert _shapes({"n": {"w": torch.zeros(2), "k": 3}, "none": None}) == {
        "n": {"w": (torch.float32, (2,)), "k": int},
        "none": None,
    }


# Callbacks.


def record(stage, epoch, **more):
    return {"stage": stage, "epoch": epoch, "loss": 0.5, **more}


def test_a_text_log_keeps_the_stages_before_and_starts_this_one_from_its_history(tmp_path):
    path = tmp_path / "logs" / "history.jsonl"
    log = JSONLines(path)
    log.on_start("teacher", None, [])
    for epoch in (1, 2):
        log.on_epoch(record("teacher", epoch), None)
    for _ in range(2):
        log.on_start("student", None, [])
        log.on_epoch(record("student", 1), None)
    log.on_start("student", None, [record("student", 1), record("student", 2)])
    told = [(r["stage"], r["epoch"]) for r in map(json.loads, path.read_text().splitlines())]
    assert told == [("teacher", 1), ("teacher", 2), ("student", 1), ("student", 2)]


@pytest.mark.parametrize("first", [True, False])
def test_numbers_of_every_epoch_reach_a_logger_of_the_first_process_in_steps_from_1(
    tmp_path, monkeypatch, first
):
    monkeypatch.setattr(_callbacks, "joined", lambda: SimpleNamespace(first=first))
    logged, saved = [], []
    logger = SimpleNamespace(
        log_metrics=lambda metrics, step: logged.append((step, metrics)),
        save=lambda: saved.append(1),
    )
    callback = LoggerCallback(logger)
    callback.on_start("s", None, [record("s", 1)])
    callback.on_epoch(record("s", 2, note="text", rate=np.float32(0.25)), None)
    expected = [(1, {"s/epoch": 1.0, "s/loss": 0.5}),
                (2, {"s/epoch": 2.0, "s/loss": 0.5, "s/rate": 0.25})]  # fmt: skip
    assert logged == (expected if first else [])
    assert len(saved) == (2 if first else 0)
    log = JSONLines(tmp_path / "log")
    log.on_start("s", None, [])
    log.on_epoch(record("s", 1), None)
    assert (tmp_path / "log").exists() is first
