"""Base classes of layers: transformations that keep an input's shape, range and gradient."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from .._random import draw_seed
from .._typing import Range
from .._validation import check_at_least
from .._words import described
from ..adaptive._lending import lent, wants_gradient


class Layer(nn.Module):
    """Base class of input transformations in front of a classifier.

    A subclass implements ``transform``. Its result is clipped to the bounds, and gradients flow
    back as ``gradient`` says, at the bounds too, so that a layer hides nothing from an attack.
    Store each argument of the constructor in an attribute of the same name, so that it can be
    saved.

    Parameters
    ----------
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    Attributes
    ----------
    bounds : (float, float)
        As given.
    gradient : {"exact", "identity"}
        Whether gradients are those of ``transform``, or those of the identity, for layers such as
        rounding whose own gradient is zero or does not exist.
    random : bool
        Whether two calls on the same input may return different results.

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import Layer
    >>> class Darker(Layer):
    ...     def transform(self, inputs):
    ...         return 0.5 * inputs
    >>> Darker()(torch.ones(1, 2))
    tensor([[0.5000, 0.5000]])
    """

    gradient: ClassVar[str] = "exact"
    random: bool = False

    def __init__(self, *, bounds: Range = (0.0, 1.0)) -> None:
        super().__init__()
        low, high = bounds
        if not low < high:
            raise ValueError(f"bounds must be two numbers, the lower one first, got {bounds!r}")
        self.bounds = (float(low), float(high))

    def forward(self, inputs: Tensor) -> Tensor:
        """Transform the inputs and clip the result to the bounds.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...), floating
            Values within the bounds.

        Returns
        -------
        Tensor of shape (n, ...)
            Values within the bounds, of the same dtype.
        """
        # Not len: the export to ONNX keeps the first axis free where it is read as a shape.
        if inputs.shape[0] == 0:
            return inputs
        identity = self.gradient == "identity"
        with torch.set_grad_enabled(torch.is_grad_enabled() and not identity):
            changed = self.transform(inputs)
        if not isinstance(changed, Tensor) or changed.shape != inputs.shape:
            raise ValueError(
                f"transform must return a tensor of the shape of its inputs {tuple(inputs.shape)}, "
                f"got {described(changed)}"
            )
        values = changed.clamp(*self.bounds).to(inputs.dtype)
        back = inputs if identity else changed
        # A plain clamp would have no gradient at the bounds.
        return lent(values, back) if wants_gradient(back) else values

    def transform(self, inputs: Tensor) -> Tensor:
        """Transform the inputs; subclasses implement this.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...), floating
            Values within the bounds. Must not be modified in place.

        Returns
        -------
        Tensor of shape (n, ...)
            Transformed inputs; examples must not influence one another.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement transform")


class RandomLayer(Layer):
    """Base class of layers that draw random numbers for each example.

    A subclass gets them from ``draw``.

    Parameters
    ----------
    seed : int, optional
        None draws new numbers in each call, for every example, from PyTorch's global generator.
        With a seed, all examples get the same draw in every call. The layer is then deterministic,
        which is useful for tests and for an attack on a single draw.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    Attributes
    ----------
    seed, bounds
        As given.
    random : bool
        True if no seed was given.
    """

    def __init__(self, *, seed: int | None = None, bounds: Range = (0.0, 1.0)) -> None:
        super().__init__(bounds=bounds)
        if seed is not None:
            check_at_least("seed", seed, 0)
        self.seed = seed

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether two calls on the same input may return different results."""
        return self.seed is None

    def draw(self, inputs: Tensor, *shape: int, normal: bool = False) -> Tensor:
        r"""Draw numbers for each input.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Determines the number of draws, their device and their dtype.
        *shape : int
            Shape of the draw for one example.
        normal : bool, default=False
            Standard normal numbers, rather than uniform ones in [0, 1).

        Returns
        -------
        Tensor of shape (n, \*shape)
            The draws; with a seed the same for every example.
        """
        generator = (
            None if self.seed is None else torch.Generator().manual_seed(draw_seed(self.seed))
        )
        rows = len(inputs) if generator is None else 1
        if normal:
            drawn = torch.randn(rows, *shape, generator=generator, device="cpu")
        else:
            drawn = torch.rand(rows, *shape, generator=generator, device="cpu")
        return drawn.to(inputs).expand(len(inputs), *shape)


def check_images(inputs: Tensor) -> None:
    """Refuse inputs without height and width."""
    if inputs.ndim != 4:
        raise ValueError(
            "inputs must be images of shape (n, channels, height, width), got "
            f"{tuple(inputs.shape)}"
        )
