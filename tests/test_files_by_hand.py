"""Files that are written or refused: modes, links, errors, and hashes of what tensors stand for."""

import errno
import os

import pytest
import torch

from distillguard import _files
from distillguard._files import check_writable, hash_of, unfinished_writes, write_atomically


def test_a_path_that_cannot_be_written_is_told_and_one_that_can_is_left_alone(tmp_path):
    for _ in range(2):
        check_writable(tmp_path / "a" / "b" / "file")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]
    (tmp_path / "full").touch()
    with pytest.raises(OSError, match="full") as caught:
        check_writable(tmp_path / "full" / "file")
    assert caught.value.filename is not None


def test_an_error_of_writing_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def full(*given, **more):
        raise OSError(errno.EROFS, "Read-only file system", "elsewhere")

    monkeypatch.setattr(_files.Path, "touch", full)
    path = tmp_path / "report"
    with pytest.raises(OSError, match="Read-only") as caught:
        check_writable(path)
    assert caught.value.filename == str(path)

    def odd(*given, **more):
        raise OSError("nothing known")

    monkeypatch.setattr(_files.Path, "touch", odd)
    with pytest.raises(OSError, match=r"^nothing known$"):
        check_writable(path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_tensors_are_hashed_by_the_values_that_they_stand_for():
    values = torch.tensor([0.5, -1.0])
    same = [
        values.clone().requires_grad_(),
        torch.tensor([-1.0, 0.5]).flip(0),
        torch.complex(torch.zeros(2), -values).conj().imag,
    ]
    assert {hash_of({"a": each}) for each in same} == {hash_of({"a": values})}
    quantised = torch.quantize_per_tensor(values, 0.5, 0, torch.qint8)
    assert hash_of({"a": quantised}) != hash_of({"a": quantised.int_repr()})


def test_a_folder_is_no_file_to_be_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, follow in ((tmp_path / "folder", True), (tmp_path / "folder", False)):
        with pytest.raises(OSError, match="folder"):
            write_atomically(path, b"x", follow_links=follow)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert not list(unfinished_writes(tmp_path / "folder"))


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        os.mkfifo(tmp_path / "pipe", 0o600)
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        for name in ("file", "pipe"):  # the mode of what is no file is not copied
            write_atomically(tmp_path / name, b"x", follow_links=False)
        os.close(reader)
    finally:
        os.umask(before)
    for name in ("file", "pipe"):
        assert (tmp_path / name).is_file()
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
        assert (tmp_path / name).read_bytes() == b"x"
