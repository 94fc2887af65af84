"""Folders of saves, and the networks that are filled from them: limits, locks, layouts."""

import errno
import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillguard.exceptions import SaveError
from distillguard.persistence import _folder
from distillguard.persistence._folder import (
    Described,
    _bytes,
    _digest,
    _files_of_ours,
    _read_manifest,
    _read_weights,
    _remove,
    _sealed,
    _size,
    _undo,
    _waited_for,
    _weights,
    _weights_files,
)
from distillguard.persistence._networks import (
    fill,
    is_channels_last,
    networks_of,
    no_larger_than,
    state_of,
)

# Files of a save.


def test_a_file_is_read_up_to_its_most_bytes_and_nothing_else_is(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert _bytes(path, 5) == b"12345"
    with pytest.raises(SaveError, match="must have at most 4 bytes, got 5"):
        _bytes(path, 4)
    with pytest.raises(SaveError, match="must be a file, got something else"):
        _bytes(tmp_path, 4)
    with pytest.raises(SaveError, match=r"must be a file that can be read, got: .*No such file"):
        _bytes(tmp_path / "b", 4)


@pytest.mark.parametrize(
    ("tensor", "size", "shown"),
    [
        (torch.zeros(2, 3), 24, "a (float32, 2x3)"),
        (torch.zeros(2, 3, dtype=torch.float64), 48, "a (float64, 2x3)"),
        (torch.zeros((), dtype=torch.int16), 2, "a (int16, scalar)"),
        (torch.zeros(0, 4), 0, "a (float32, 0x4)"),
    ],
)
def test_a_described_tensor_has_the_size_of_its_numbers(tensor, size, shown):
    described = Described.of("a", tensor)
    assert _size(described) == size
    assert str(described) == shown


def test_weights_are_written_plain_whatever_their_layout_and_leave_the_network_alone(tmp_path):
    weight = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    entry, content = _weights(tmp_path / "model-x", {"w": weight, "tied": weight})
    assert entry["file"] == "model-x"
    assert entry["tensors"] == [["w", "float32", [2, 3, 4, 4]], ["tied", "float32", [2, 3, 4, 4]]]
    plain = weight.detach().contiguous().numpy().tobytes()
    assert content.count(plain) == 2
    assert weight.requires_grad


def test_what_no_manifest_can_carry_is_not_written(monkeypatch):
    with pytest.raises(SaveError, match="the estimator must hold what a manifest can carry"):
        _sealed({"history": float("nan")}, {})
    with pytest.raises(SaveError, match="the estimator must hold what a manifest can carry"):
        _sealed({"history": object()}, {})
    with pytest.raises(SaveError, match="the estimator must hold what a manifest can carry"):
        _sealed({}, {})  # of another form than the schema


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "other"}', "must be the manifest of a save by distillguard"),
        ('{"format": "distillguard estimator"}', "must have a version from 1 on, got None"),
        ('{"format": "distillguard estimator", "version": 0}', "version from 1 on, got 0"),
        ('{"format": "distillguard estimator", "version": 1.0}', "version from 1 on, got 1.0"),
        ('{"format": "distillguard estimator", "version": 2}', "at most version 1, got 2"),
        ('{"format": "distillguard estimator", "version": 1}', "must be as it was written"),
    ],
)
def test_a_manifest_is_refused_for_the_first_thing_that_is_wrong_with_it(tmp_path, text, message):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(SaveError, match=message):
        _read_manifest(path)


def test_a_manifest_of_another_form_or_size_is_neither_read_nor_written(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    odd = {"format": "distillguard estimator", "version": 1, "more": [2, 1]}
    path.write_text(json.dumps(odd | {"digest": _digest(odd)}))
    with pytest.raises(SaveError, match=r"must follow persistence\.SCHEMA, got"):
        _read_manifest(path)
    turned = dict(reversed(odd.items()))
    assert _digest(turned) == _digest(odd | {"digest": "x"}) != _digest(odd | {"more": [1, 2]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        _digest({"a": float("nan")})
    monkeypatch.setattr(_folder, "CHECKED", SimpleNamespace(check=lambda manifest: None))
    written = _sealed({"a": 1}, {})
    monkeypatch.setattr(_folder, "MAX_MANIFEST", len(written))
    assert _sealed({"a": 1}, {}) == written
    monkeypatch.setattr(_folder, "MAX_MANIFEST", len(written) - 1)
    with pytest.raises(SaveError, match=f"must take at most {len(written) - 1} bytes, got"):
        _sealed({"a": 1}, {})


def test_weights_are_found_under_names_of_which_json_makes_six_times_as_much(tmp_path):
    tensors = {f"{k:03}" + "\x01" * 400: torch.tensor(float(k)) for k in range(300)}
    entry, content = _weights(tmp_path / f"model-{'0' * 16}.safetensors", tensors)
    (tmp_path / entry["file"]).write_bytes(content)
    found = _read_weights(tmp_path, entry)
    assert all(found[name].equal(value) for name, value in tensors.items())
    (tmp_path / entry["file"]).write_bytes(content + b"x")
    with pytest.raises(SaveError, match="must be as it was written"):
        _read_weights(tmp_path, entry)


def test_a_damaged_manifest_of_ours_is_replaced_and_one_of_others_is_not(tmp_path):
    path = tmp_path / "manifest.json"
    assert _files_of_ours(path) == set()
    path.write_text('{\n "format": "distillguard estimator",\n "version": ')
    assert _files_of_ours(path) == set()
    path.write_text(" " * 200 + '{"format": "distillguard estimator"')
    with pytest.raises(SaveError, match=r"without a manifest\.json of something else"):
        _files_of_ours(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SaveError, match=r"without a manifest\.json of something else"):
        _files_of_ours(path)


def test_files_of_a_save_are_those_it_names_and_those_left_of_the_one_before(tmp_path):
    (tmp_path / "left").touch()
    networks = {"a": {"file": "one"}, "b": {"file": "two"}}
    manifest = {"replaced": ["left", "gone"], "networks": networks}
    assert _weights_files(manifest, tmp_path) == {"left", "one", "two"}
    _remove(tmp_path, {"left", "never there"})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_failed_save_takes_back_what_it_wrote_unless_its_manifest_is_in_place(tmp_path, in_place):
    manifest = tmp_path / "manifest.json"
    unfinished = {tmp_path / name: tmp_path / f"{name}.u" for name in ("a", "b", "manifest.json")}
    (tmp_path / "a").touch()
    for temporary in list(unfinished.values())[1:]:
        temporary.touch()
    manifest.touch()
    if in_place:
        unfinished[manifest].unlink()
    _undo(unfinished, manifest)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"a", "manifest.json"} if in_place else {"manifest.json"})
    (tmp_path / "a").touch()
    _undo({tmp_path / "a": tmp_path / "a.u"}, manifest)
    assert not (tmp_path / "a").exists()


def test_a_lock_is_waited_for_some_time_and_not_where_there_is_none(monkeypatch):
    began = time.monotonic()

    def freed():
        if time.monotonic() < began + 0.1:
            raise BlockingIOError

    assert _waited_for(freed)
    assert 0.1 <= time.monotonic() - began < 5

    def never():
        raise BlockingIOError

    monkeypatch.setattr(_folder, "_PATIENCE", 0.1)
    began = time.monotonic()
    assert not _waited_for(never)
    assert 0.1 <= time.monotonic() - began < 5

    def unknown():
        raise OSError(errno.ENOLCK, "no locks")

    began = time.monotonic()
    assert not _waited_for(unknown)
    assert time.monotonic() - began < 0.1


# Networks.


@pytest.mark.parametrize(
    ("module", "turned"),
    [
        (nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), True),
        (nn.Conv2d(3, 4, 3), False),
        (nn.Conv2d(1, 4, 1).to(memory_format=torch.channels_last), False),  # one and the same
        (nn.Linear(3, 4), False),
        (nn.Sequential(nn.Linear(3, 4), nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)),
         True),
    ],
)  # fmt: skip
def test_a_layout_is_channels_last_where_it_is_another_than_usual(module, turned):
    assert is_channels_last(module) is turned


class Counting(nn.Module):
    def __init__(self, dtype=torch.int64, size=2):
        super().__init__()
        self.linear = nn.Linear(size, 2)
        self.register_buffer("count", torch.zeros(3, dtype=dtype))


def test_a_network_takes_the_floating_dtypes_of_a_save_and_no_other_kind():
    saved = {name: value + 1 for name, value in Counting().state_dict().items()}
    saved["linear.bias"] = saved["linear.bias"].double()
    network = Counting()
    fill(network, "module", "model", saved)
    assert network.linear.bias.dtype == torch.float64
    assert network.linear.weight.dtype == torch.float32
    assert all(value.equal(saved[name]) for name, value in network.state_dict().items())
    for other, message in (
        (Counting(torch.int32), r"tensor is count \(int64, 3\), got count \(int32, 3\)"),
        (Counting(size=3), r"linear\.weight \(float32, 2x2\), got linear\.weight \(float32, 2x3\)"),
        (nn.Module(), r"count \(int64, 3\), got none"),
        (nn.Sequential(Counting()), r"got 0\.count \(int64, 3\)"),
    ):
        with pytest.raises(SaveError, match=message):
            fill(other, "module", "model", saved)
    with pytest.raises(SaveError, match=r"tensor is none, got count"):
        fill(Counting(), "module", "model", {})
    lazy = nn.Sequential(nn.LazyLinear(2))
    fill(lazy, "module", "model", {f"0.{n}": v for n, v in nn.Linear(3, 2).state_dict().items()})
    assert lazy[0].weight.shape == (2, 3)
    assert state_of(lazy).keys() == {"0.weight", "0.bias"}


def test_a_construction_is_stopped_where_its_numbers_or_parts_are_made_up():
    saved = {"weight": torch.zeros(10)}
    with no_larger_than(saved):
        nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(1000))
        assert nn.Linear(1, 1).register_parameter("bias", None) is None
        nn.LazyLinear(1)
    for make in (
        lambda: nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(1100)),
        lambda: nn.Linear(2**14, 2**13, device="meta"),
    ):
        with pytest.raises(SaveError, match="far more than the save holds"), no_larger_than(saved):
            make()
    nn.Linear(2**14, 2**13, device="meta")  # afterwards nobody counts


def test_a_class_tells_its_networks_by_what_it_declares_and_takes():
    class Kind:
        teacher_: nn.Module
        student_: nn.Module
        helper: nn.Module
        number_: int

        @staticmethod
        def _get_param_names():
            return ["module", "teacher"]

    assert networks_of(Kind) == {"teacher_": "teacher", "student_": "module"}
