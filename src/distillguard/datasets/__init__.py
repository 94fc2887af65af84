"""Real images as tensors: two data sets that need no download, three that are read from files.

Every loader returns ``(X, y)``: X float32 of shape (n, channels, height, width) in [0, 1], y
int64 of shape (n,).
"""

from ._load import (
    load_cifar10,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    load_mnist5k,
)

__all__ = [
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_mnist5k",
]
