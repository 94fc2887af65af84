"""Building blocks of the networks: two families of layers, He's rule, checks of shapes."""

from collections.abc import Callable, Sequence
from numbers import Real

from torch import Tensor, nn

from .._validation import check_at_least, check_choice


def papernot(
    input_shape: Sequence[int],
    n_classes: int,
    dropout: float | Sequence[float],
    *,
    channels: tuple[int, int],
    hidden: int,
    initial_weights: str = "he",
) -> nn.Module:
    """Two convolutions and a pooling, twice; two hidden layers; the logits. Nothing is padded."""
    shape = check_image(input_shape, least=16)
    check_at_least("n_classes", n_classes, 2)
    shares = check_dropout(dropout)
    check_choice("initial_weights", initial_weights, ("he", "torch"))

    layers: list[nn.Module] = []
    before, (height, width) = shape[0], shape[1:]
    for after in channels:
        layers += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before, height, width = after, (height - 4) // 2, (width - 4) // 2

    layers.append(nn.Flatten())
    before *= height * width
    for share in shares:
        layers += [nn.Linear(before, hidden), nn.ReLU(), nn.Dropout(share)]
        before = hidden
    network = nn.Sequential(*layers, nn.Linear(hidden, n_classes))
    return he_initialised(network) if initial_weights == "he" else network


class PreActivationResNet(nn.Module):
    """Stages of pre-activation blocks, the map halved at the start of every stage but one."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        check_at_least("n_classes", n_classes, 2)
        stages, before = [], stem
        for stage, after in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                stages.append(PreActivationBlock(before, after, stride, activation))
                before = after

        self.stem = nn.Conv2d(input_shape[0], stem, 3, padding=1, bias=False)
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(before)
        self.activation = activation()
        self.head = nn.Linear(before, n_classes)
        he_initialised(self)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.activation(self.norm(self.stages(self.stem(inputs))))
        return self.head(features.mean(dim=(2, 3)))


class PreActivationBlock(nn.Module):
    """Normalise, activate, convolve, twice; a projection where the shape changes."""

    def __init__(
        self, before: int, after: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.activation = activation()
        changes = stride != 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.activation(self.norm1(inputs))
        identity = inputs if self.shortcut is None else self.shortcut(active)
        return identity + self.conv2(self.activation(self.norm2(self.conv1(active))))


def he_initialised(network: nn.Module) -> nn.Module:
    """Weights by He's rule, biases 0; over a convolution's outputs where it has no bias."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            if part.bias is None:
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)
    return network


def check_dropout(dropout: float | Sequence[float]) -> tuple[float, ...]:
    """Return the share of each of the two hidden layers; one number is that of both."""
    shares = tuple(dropout) if isinstance(dropout, Sequence) else (dropout, dropout)
    if len(shares) != 2 or not all(isinstance(share, Real) for share in shares):
        raise TypeError(f"dropout must be a number or a pair of numbers, got {dropout!r}")
    if not all(0 <= share < 1 for share in shares):
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
    return shares


def check_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Refuse everything but a sequence of integers of at least 1."""
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise TypeError(f"{name} must be a sequence of integers, got {sizes!r}")
    for size in sizes:
        check_at_least(f"every number of {name}", size, 1)
    return tuple(sizes)


def check_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """Refuse a shape without an axis."""
    shape = check_sizes("input_shape", input_shape)
    if not shape:
        raise ValueError(f"input_shape must have at least one axis, got {input_shape!r}")
    return shape


def check_image(input_shape: Sequence[int], least: int) -> tuple[int, ...]:
    """Refuse a shape that is not (channels, height, width) with sides of at least ``least``."""
    shape = check_shape(input_shape)
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ValueError(
            "input_shape must be (channels, height, width) with height and width of at least "
            f"{least}, got {shape}"
        )
    return shape
