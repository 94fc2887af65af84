"""Hypothesis strategies for logits, labels, inputs, threat models and small networks.

They need the extra ``testing``. Whatever they draw shrinks to few examples, few classes and whole
numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._modes import on_cpu
from .._typing import Norm
from ..exceptions import MissingPackageError

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingPackageError(
        "strategies need hypothesis; install it with: pip install 'distillguard[testing]'"
    ) from error

__all__ = [
    "NormBall",
    "bounds",
    "inputs",
    "labels",
    "logits",
    "masks",
    "networks",
    "norm_balls",
    "soft_labels",
    "temperatures",
]


class NormBall(NamedTuple):
    """A norm and a radius, under the names of the arguments of attacks."""

    norm: Norm
    """linf, l2 or l1."""

    epsilon: float
    """Above 0."""


def _rows(values: st.SearchStrategy[float], shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    size = torch.Size(shape).numel()
    drawn = st.lists(values, min_size=size, max_size=size)
    return drawn.map(lambda flat: torch.tensor(flat, dtype=torch.float32, device="cpu").view(shape))


def _numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Whole numbers first, to which the others shrink."""
    whole = st.integers(-int(-low // 1), int(high // 1)).map(float)
    return whole | st.floats(low, high, width=32)


def logits(
    max_examples: int = 4, max_classes: int = 6, size: float = 1e4
) -> st.SearchStrategy[Tensor]:
    """Draw float32 logits.

    Parameters
    ----------
    max_examples : int, default=4
        Largest number of rows.
    max_classes : int, default=6
        Largest number of columns, at least 2.
    size : float, default=1e4
        Largest absolute value, a whole number.

    Returns
    -------
    SearchStrategy
        Strategy for tensors of shape (n, n_classes).
    """
    shapes = st.tuples(st.integers(1, max_examples), st.integers(2, max_classes))
    return shapes.flatmap(lambda shape: _rows(_numbers(-size, size), shape))


def soft_labels(max_examples: int = 4, max_classes: int = 6) -> st.SearchStrategy[Tensor]:
    """Draw rows of probabilities, some of them with exact zeros.

    Parameters
    ----------
    max_examples : int, default=4
        Largest number of rows.
    max_classes : int, default=6
        Largest number of columns, at least 2.

    Returns
    -------
    SearchStrategy
        Strategy for tensors of shape (n, n_classes) in float32.
    """
    shapes = st.tuples(st.integers(1, max_examples), st.integers(2, max_classes))
    weights = shapes.flatmap(lambda shape: _rows(st.integers(0, 10).map(float), shape))
    return weights.map(_normalised)


def _normalised(weights: Tensor) -> Tensor:
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=1), 1 / weights.shape[1])


def temperatures(low: float = 0.05, high: float = 100.0) -> st.SearchStrategy[float]:
    """Draw temperatures; they shrink to 1.

    Parameters
    ----------
    low : float, default=0.05
        Lowest temperature.
    high : float, default=100.0
        Highest temperature.

    Returns
    -------
    SearchStrategy
        Strategy for numbers above 0.
    """
    usual = st.sampled_from([t for t in (1.0, 2.0, 20.0, 100.0) if low <= t <= high] or [low])
    return usual | st.floats(low, high)


def inputs(shape: tuple[int, ...] = (1, 4, 4), max_examples: int = 4) -> st.SearchStrategy[Tensor]:
    """Draw inputs in [0, 1], with many values on a bound.

    Parameters
    ----------
    shape : tuple of int, default=(1, 4, 4)
        Shape of one example.
    max_examples : int, default=4
        Largest number of examples.

    Returns
    -------
    SearchStrategy
        Strategy for tensors of shape (n, ...) in float32.
    """
    values = st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1, width=32)
    return st.integers(1, max_examples).flatmap(lambda n: _rows(values, (n, *shape)))


def labels(n: int, n_classes: int) -> st.SearchStrategy[Tensor]:
    """Draw class labels.

    Parameters
    ----------
    n : int
        Number of labels.
    n_classes : int
        Number of classes; labels are from 0 to ``n_classes - 1``.

    Returns
    -------
    SearchStrategy
        Strategy for tensors of shape (n,) in int64.
    """
    drawn = st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n)
    return drawn.map(lambda flat: torch.tensor(flat, dtype=torch.int64, device="cpu"))


def bounds() -> st.SearchStrategy[tuple[float, float]]:
    """Draw bounds, a lowest and a highest value; the simplest are (0, 1).

    Returns
    -------
    SearchStrategy
        Strategy for pairs of numbers, the first below the second.
    """
    usual = st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
    pairs = st.tuples(st.integers(-10, 10), st.integers(1, 10))
    return usual | pairs.map(lambda pair: (float(pair[0]), float(pair[0] + pair[1])))


def masks(shape: tuple[int, ...] = (1, 4, 4)) -> st.SearchStrategy[Tensor]:
    """Draw a mask of the coordinates of one example that may change, at least one.

    Parameters
    ----------
    shape : tuple of int, default=(1, 4, 4)
        Shape of one example.

    Returns
    -------
    SearchStrategy
        Strategy for bool tensors of that shape.
    """
    size = torch.Size(shape).numel()
    drawn = st.lists(st.booleans(), min_size=size, max_size=size).filter(any)
    return drawn.map(lambda flat: torch.tensor(flat, device="cpu").view(shape))


def norm_balls(max_epsilon: float = 1.0) -> st.SearchStrategy[NormBall]:
    """Draw a norm and a radius.

    Parameters
    ----------
    max_epsilon : float, default=1.0
        Largest radius.

    Returns
    -------
    SearchStrategy
        Strategy for :class:`NormBall`, whose ``_asdict()`` gives keywords of attacks.
    """
    norms: st.SearchStrategy[Norm] = st.sampled_from(["linf", "l2", "l1"])
    radii = st.just(max_epsilon) | st.floats(1e-3 * max_epsilon, max_epsilon)
    return st.builds(NormBall, norms, radii)


class Residual(nn.Module):
    """Adds the output of a network to its input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return their sum."""
        added: Tensor = inputs + self.network(inputs)
        return added


def _image_layers(channels: int) -> dict[str, Callable[[], nn.Module]]:
    """Layers that keep the number of channels and, except for pooling, the image size."""
    return {
        "ReLU": nn.ReLU,
        "Tanh": nn.Tanh,
        "GELU": nn.GELU,
        "SiLU": nn.SiLU,
        "LeakyReLU": nn.LeakyReLU,
        "Dropout": nn.Dropout,
        "BatchNorm2d": lambda: nn.BatchNorm2d(channels),
        "GroupNorm": lambda: nn.GroupNorm(1, channels),
        "Conv2d": lambda: nn.Conv2d(channels, channels, 3, padding=1),
        "AvgPool2d": lambda: nn.AvgPool2d(2, stride=1),
        "MaxPool2d": lambda: nn.MaxPool2d(2, stride=1),
        "Residual": lambda: Residual(nn.Conv2d(channels, channels, 3, padding=1)),
    }


def _flat_layers(width: int) -> dict[str, Callable[[], nn.Module]]:
    """Layers that keep the width."""
    return {
        "ReLU": nn.ReLU,
        "Tanh": nn.Tanh,
        "GELU": nn.GELU,
        "ELU": nn.ELU,
        "Dropout": nn.Dropout,
        "BatchNorm1d": lambda: nn.BatchNorm1d(width),
        "LayerNorm": lambda: nn.LayerNorm(width),
        "Linear": lambda: nn.Linear(width, width),
        "Residual": lambda: Residual(nn.Linear(width, width)),
    }


def networks(
    shape: tuple[int, ...] = (1, 4, 4), n_classes: int = 3, max_layers: int = 4
) -> st.SearchStrategy[nn.Module]:
    r"""Draw small networks that return logits, made of all common kinds of layers.

    They shrink to a flatten and one linear layer. The weights are drawn from a seed that shrinks
    to 0, without the global generator; the networks are in training mode, as when just built.

    Parameters
    ----------
    shape : tuple of int, default=(1, 4, 4)
        Shape of one example; if it has three axes, layers for images come first.
    n_classes : int, default=3
        Number of logits.
    max_layers : int, default=4
        Largest number of layers of either kind between the first and the last.

    Returns
    -------
    SearchStrategy
        Strategy for ``nn.Sequential``, from (n, \*shape) to (n, n_classes).
    """
    # A pooling layer takes one off each side.
    room = min(max_layers, min(shape[1:]) - 1) if len(shape) == 3 else 0
    of_images = st.lists(st.sampled_from([*_image_layers(1)]), max_size=room)
    flat = st.lists(st.sampled_from([*_flat_layers(1)]), max_size=max_layers)
    sizes = st.tuples(st.integers(2, 6), st.integers(0, 2**16))
    return st.builds(
        lambda images, flat, size: _built(shape, n_classes, images, flat, *size),
        of_images,
        flat,
        sizes,
    )


def _built(
    shape: tuple[int, ...],
    n_classes: int,
    images: list[str],
    flat: list[str],
    width: int,
    seed: int,
) -> nn.Module:
    with torch.random.fork_rng(devices=[]), on_cpu():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        if images:
            layers = [nn.Conv2d(shape[0], width, 3, padding=1)]
            layers += [_image_layers(width)[name]() for name in images]
        layers.append(nn.Flatten())
        with torch.no_grad():
            size = nn.Sequential(*layers).eval()(torch.zeros(1, *shape, device="cpu")).shape[1]
        if flat:
            layers += [nn.Linear(size, width), *(_flat_layers(width)[name]() for name in flat)]
        layers.append(nn.Linear(width if flat else size, n_classes))
        return nn.Sequential(*layers).train()
