"""Images in files as a data set of PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset


class Images(Dataset[tuple[Tensor, Any]]):
    """Images and their labels, read when asked for."""

    def __init__(self, files: list[tuple[Path, str]], labels: dict[str, Any]) -> None:
        self.files = files
        self.labels = labels
        self.shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, Any]:
        path, name = self.files[place]
        image = _read(path)
        self.shape = self.shape or tuple(image.shape)
        if image.shape != self.shape:
            raise ValueError(
                "DATA must have images of one size and number of channels, got "
                f"{'x'.join(map(str, image.shape))} after {'x'.join(map(str, self.shape))} in "
                f"{str(path)!r}"
            )
        return image, self.labels[name]


def _read(path: Path) -> Tensor:
    """An image of shape (channels, height, width) in [0, 1]: grey ones have one channel."""
    with Image.open(path) as image:
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ValueError(
                f"DATA must have images of 8 bits per channel, got mode {image.mode} in "
                f"{str(path)!r}"
            )
        pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy()).float() / 255
