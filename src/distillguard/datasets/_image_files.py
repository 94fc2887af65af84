"""Readers of the file formats of image data sets, which verify what the files claim."""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np

from ..exceptions import MissingDataError

Arrays: TypeAlias = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Images (n, channels, height, width) and labels (n,)."""

CIFAR10_RECORD = 1 + 3 * 32 * 32
_PIECE = 2**24


def first_with_all(folders: list[Path], stems: list[str]) -> list[Path] | None:
    """Paths of the files in the first folder that has all of them, plain or gzipped."""
    for folder in folders:
        found = [
            next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)
            for stem in stems
        ]
        if all(found):
            return [path for path in found if path]
    return None


def read_idx_pair(image_path: Path, label_path: Path) -> Arrays:
    """Read 28x28 images and their labels from 0 to 9: (n, 1, 28, 28) and (n,), bytes."""
    images, labels = read_idx(image_path, (28, 28)), read_idx(label_path, ())
    if len(images) != len(labels):
        raise ValueError(
            f"{image_path} must hold as many images as {label_path} holds labels, "
            f"got {len(images)} and {len(labels)}"
        )
    _check_digits(label_path, labels)
    return images[:, None], labels


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
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
        if axes[0] == 0:
            raise ValueError(f"{path} must hold at least one example, got a count of 0")
        return _exactly(file, path, math.prod(axes)).reshape(axes)


def read_cifar10_binary(folder: Path, part: str) -> Arrays:
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
        _check_digits(path, batches[-1][:, 0])
    records = np.concatenate(batches)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file; a damaged archive is a ValueError."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file, got: {error}") from error


def _exactly(file: IO[bytes], path: Path, size: int) -> np.ndarray[Any, Any]:
    """Read the rest in pieces, so that a forged count does not allocate memory."""
    # One more byte, to notice a file that is too long.
    content = bytearray()
    while piece := file.read(min(_PIECE, size + 1 - len(content))):
        content += piece
    if len(content) != size:
        got = f"only {len(content)}" if len(content) < size else "more"
        raise ValueError(f"{path} must hold {size} bytes of data after its header, got {got}")
    return np.frombuffer(content, dtype=np.uint8)


def _check_digits(path: Path, labels: np.ndarray[Any, Any]) -> None:
    if len(labels) and labels.max() > 9:
        raise ValueError(f"{path} must hold labels from 0 to 9, got {labels.max()}")
