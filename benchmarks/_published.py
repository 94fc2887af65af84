"""The published MNIST networks and the official test digits, from a folder of the reader's.

The weights carry no licence of their own: they can be measured, not shipped. The folder holds
``mnist-smallcnn-trades.safetensors`` and ``mnist-smallcnn-ddn.safetensors`` (converted from the
sigma-zero repository, ``models/mnist/mnist_smallcnn_robust_{trades,ddn}.pth``) and MNIST's own
``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``.
"""

import gzip
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

NAMES = ("trades", "ddn")


class SmallCNN(nn.Module):
    """The network of the TRADES repository for MNIST: 312,202 parameters."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [(1, 32), (32, 32), (32, 64), (64, 64)]
        features: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(convolutions, start=1):
            features[f"conv{number}"] = nn.Conv2d(before, after, 3)
            features[f"relu{number}"] = nn.ReLU()
            if number % 2 == 0:
                features[f"maxpool{number // 2}"] = nn.MaxPool2d(2, 2)
        self.feature_extractor = nn.Sequential(features)
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(1024, 200),
                relu1=nn.ReLU(),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=nn.Linear(200, 10),
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(self.feature_extractor(inputs).flatten(1))


def published(folder: Path, name: str) -> nn.Module:
    """Return one of the two networks, in eval mode."""
    network = SmallCNN()
    network.load_state_dict(load_file(folder / f"mnist-smallcnn-{name}.safetensors"))
    return network.eval().requires_grad_(False)


def digits(folder: Path, n: int) -> tuple[Tensor, Tensor]:
    """Return the first ``n`` official test digits, in [0, 1], and their labels."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    chosen = torch.from_numpy(pixels[:n].copy()).float() / 255
    return chosen, torch.from_numpy(labels[:n].astype(np.int64))
