"""Files that are whole or not at all, JSON from strangers, hashes of tensors."""

import errno
import hashlib
import json
import os

import pytest
import torch

from distillguard._files import hash_of, unfinished_writes, write_atomically
from distillguard._json import json_from


def test_a_file_is_replaced_by_its_new_content_alone(tmp_path):
    path = tmp_path / "a"
    for content in (b"old", b"new"):
        write_atomically(path, content)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "elsewhere" / "file")
    write_atomically(path, b"x")
    assert path.is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone_and_names_it(tmp_path, monkeypatch, call):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told_by_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "no" / "a", b"")
    assert caught.value.filename == str(tmp_path / "no" / "a")


def test_what_a_kill_leaves_is_found_and_nothing_else(tmp_path):
    ours, token = "a.distillguard-0123abcd", ".distillguard-0123abcd"
    for name in ("a", ours, f"{ours}e", "a.0123abcd", f"b{token}", "a.old"):
        (tmp_path / name).touch()
    assert [path.name for path in unfinished_writes(tmp_path / "a")] == [ours]


def test_a_link_that_is_not_followed_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "precious")
    write_atomically(path, b"x", follow_links=False)
    assert not path.is_symlink()
    assert path.read_bytes() == b"x"
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_private_file_stays_private(tmp_path):
    path = tmp_path / "a"
    path.touch(mode=0o600)
    write_atomically(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(path, b"x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_a_hash_is_of_names_dtypes_shapes_and_values():
    tensor = torch.tensor([[1.0, 2.0]])
    values = b'["a", "torch.float32", [1, 2]]' + b"\0\0\x80\x3f" + b"\0\0\0\x40"
    assert hash_of({"a": tensor}) == hashlib.sha256(values).hexdigest()
    others = [
        {"b": tensor},
        {"a": tensor.view(torch.int32)},
        {"a": tensor[0]},
        {"a": -tensor},
        {"a": tensor, "b": tensor},
        {},
    ]
    assert len({hash_of(each) for each in [{"a": tensor}, *others]}) == 7


def test_a_hash_does_not_depend_on_the_layout():
    tensor = torch.arange(6.0).view(2, 3)
    for other in (tensor.T.contiguous().T, tensor.to_sparse(), torch.cat([tensor] * 2)[:2]):
        assert hash_of({"a": other}) == hash_of({"a": tensor})
    for scalar in (torch.tensor(1), torch.tensor(True), torch.tensor(1.0, dtype=torch.bfloat16)):
        assert len(hash_of({"a": scalar})) == 64


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "NaN", "-Infinity", "1e999", "[" * 100_000, '{"a": 1, "a": 1}',
        '"\\ud800"', '{"\\udfff": 1}', "1" * 5000, "[1]]",
    ],
)  # fmt: skip
def test_json_that_is_none_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 (whoever reads names the file)
        json_from(text)


def test_json_is_read_as_by_python():
    value = {"a": [1, 1.5, None, True, "ü\U0001f600"], "b": {}}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert json_from(text) == value
