"""Hypothesis strategies for logits, labels, inputs and threat models, in tensors.

They need the extra ``testing``. Whatever they draw shrinks to few examples, few classes and whole
numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

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
    "norm_balls",
    "soft_labels",
    "temperatures",
]


class NormBall(NamedTuple):
    """A norm and a radius, under the names that attacks give them."""

    norm: Norm
    """linf, l2 or l1."""

    epsilon: float
    """Above 0."""


def _rows(values: st.SearchStrategy[float], shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    size = torch.Size(shape).numel()
    drawn = st.lists(values, min_size=size, max_size=size)
    return drawn.map(lambda flat: torch.tensor(flat, dtype=torch.float32).view(shape))


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
        Most rows.
    max_classes : int, default=6
        Most columns; two at least.
    size : float, default=1e4
        Largest absolute value, a whole number.

    Returns
    -------
    SearchStrategy
        Of tensors of shape (n, n_classes).
    """
    shapes = st.tuples(st.integers(1, max_examples), st.integers(2, max_classes))
    return shapes.flatmap(lambda shape: _rows(_numbers(-size, size), shape))


def soft_labels(max_examples: int = 4, max_classes: int = 6) -> st.SearchStrategy[Tensor]:
    """Draw rows of probabilities, exact zeros among them.

    Parameters
    ----------
    max_examples : int, default=4
        Most rows.
    max_classes : int, default=6
        Most columns; two at least.

    Returns
    -------
    SearchStrategy
        Of tensors of shape (n, n_classes) in float32.
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
        The lowest.
    high : float, default=100.0
        The highest.

    Returns
    -------
    SearchStrategy
        Of numbers above 0.
    """
    usual = st.sampled_from([t for t in (1.0, 2.0, 20.0, 100.0) if low <= t <= high] or [low])
    return usual | st.floats(low, high)


def inputs(shape: tuple[int, ...] = (1, 4, 4), max_examples: int = 4) -> st.SearchStrategy[Tensor]:
    """Draw inputs in [0, 1], many of their values on a bound.

    Parameters
    ----------
    shape : tuple of int, default=(1, 4, 4)
        Of one example.
    max_examples : int, default=4
        Most examples.

    Returns
    -------
    SearchStrategy
        Of tensors of shape (n, ...) in float32.
    """
    values = st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1, width=32)
    return st.integers(1, max_examples).flatmap(lambda n: _rows(values, (n, *shape)))


def labels(n: int, n_classes: int) -> st.SearchStrategy[Tensor]:
    """Draw classes.

    Parameters
    ----------
    n : int
        How many.
    n_classes : int
        They are from 0 to one less.

    Returns
    -------
    SearchStrategy
        Of tensors of shape (n,) in int64.
    """
    drawn = st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n)
    return drawn.map(lambda flat: torch.tensor(flat, dtype=torch.int64))


def bounds() -> st.SearchStrategy[tuple[float, float]]:
    """Draw a lowest and a highest value, (0, 1) the simplest.

    Returns
    -------
    SearchStrategy
        Of pairs of numbers, the first below the second.
    """
    usual = st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
    pairs = st.tuples(st.integers(-10, 10), st.integers(1, 10))
    return usual | pairs.map(lambda pair: (float(pair[0]), float(pair[0] + pair[1])))


def masks(shape: tuple[int, ...] = (1, 4, 4)) -> st.SearchStrategy[Tensor]:
    """Draw which coordinates of one example may change, one at least.

    Parameters
    ----------
    shape : tuple of int, default=(1, 4, 4)
        Of one example.

    Returns
    -------
    SearchStrategy
        Of bool tensors of that shape.
    """
    size = torch.Size(shape).numel()
    drawn = st.lists(st.booleans(), min_size=size, max_size=size).filter(any)
    return drawn.map(lambda flat: torch.tensor(flat).view(shape))


def norm_balls(max_epsilon: float = 1.0) -> st.SearchStrategy[NormBall]:
    """Draw a norm and a radius.

    Parameters
    ----------
    max_epsilon : float, default=1.0
        The largest radius.

    Returns
    -------
    SearchStrategy
        Of :class:`NormBall`, whose ``_asdict()`` are keywords of attacks.
    """
    norms: st.SearchStrategy[Norm] = st.sampled_from(["linf", "l2", "l1"])
    radii = st.just(max_epsilon) | st.floats(1e-3 * max_epsilon, max_epsilon)
    return st.builds(NormBall, norms, radii)
