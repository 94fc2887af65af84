"""DATA on the command line: a named data set, an .npz file, or a folder of images."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

NAMED = ("cifar10", "digits", "fashion_mnist", "mnist", "mnist5k")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
KINDS = f"a folder of images, an .npz file, or one of {', '.join(NAMED)}"
LAYOUT = "one folder for each class, with its images"


class Data(NamedTuple):
    """Examples to evaluate, and what people call them and their classes."""

    X: Any
    y: Any
    name: str
    class_names: tuple[str, ...] | None = None

    def limited(self, n: int | None, seed: int) -> "Data":
        """``n`` of the examples, drawn by ``seed``, in their order; all if there are no more."""
        import torch

        total = len(self.X)
        if n is None or n >= total:
            return self
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(total, generator=generator, device="cpu")[:n].sort().values
        if self.y is None:
            return self._replace(X=torch.utils.data.Subset(self.X, chosen.tolist()))
        return self._replace(X=self.X[chosen], y=self.y[chosen])


def data_from(name: str, classes: Any = None) -> Data:
    """Open a data set; ``classes`` are those that an estimator knows."""
    plain = name.replace("-", "_").removesuffix("/")
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, classes)
    if path.is_file():
        return _from_npz(path)
    if plain in NAMED:
        from .. import datasets

        X, y = getattr(datasets, f"load_{plain}")("test")
        return Data(X, y, f"{plain}, test set")
    raise ValueError(f"DATA must be {KINDS}, got {name!r}, which is not here")


def _from_npz(path: Path) -> Data:
    import numpy as np

    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"DATA must be {KINDS}, got the file {str(path)!r}; write numpy.savez(path, X=X, y=y)"
        )
    with np.load(path, allow_pickle=False) as file:
        held = {name: file[name] for name in ("X", "y") if name in file.files}
        if len(held) < 2:
            raise ValueError(
                f"DATA must hold arrays X and y, got {', '.join(file.files) or 'none'} in {path}; "
                "write numpy.savez(path, X=X, y=y)"
            )
    if len(held["X"].shape) < 2 or len(held["X"]) != len(held["y"]):
        raise ValueError(
            "DATA must hold X of shape (n, ...) and y of shape (n,), got "
            f"{held['X'].shape} and {held['y'].shape} in {path}"
        )
    return Data(held["X"], held["y"], path.name)


def _from_folder(folder: Path, classes: Any) -> Data:
    """One folder for each class, in the order of their names, as torchvision's ImageFolder."""
    names = sorted(each.name for each in folder.iterdir() if each.is_dir())
    if not names:
        raise ValueError(f"DATA must have {LAYOUT}, got {str(folder)!r} without any")
    files = [(path, name) for name in names for path in _images(folder / name)]
    empty = set(names) - {name for _, name in files}
    if empty:
        raise ValueError(
            f"DATA must have {LAYOUT} ({', '.join(SUFFIXES)}), got none in {min(empty)!r}"
        )
    from ._images import Images

    labels, class_names = _labels(names, classes)
    return Data(Images(files, labels), None, folder.resolve().name, class_names)


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _labels(names: list[str], classes: Any) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """The label of each folder, and the names to show.

    An estimator may know its classes by the names of the folders; else they count from 0.
    """
    known = {} if classes is None else {str(each): each for each in classes.tolist()}
    if known.keys() >= set(names):
        return {name: known[name] for name in names}, None
    if any(isinstance(each, str) for each in known.values()):
        strange = next(name for name in names if name not in known)
        raise ValueError(
            f"DATA must have folders called as the classes that MODEL knows, {', '.join(known)}, "
            f"got {strange!r}"
        )
    return {name: number for number, name in enumerate(names)}, tuple(names)
