"""What every layer is: a change of the inputs that keeps their shape, range and gradient."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from .._typing import Range
from .._words import described
from ..adaptive._lending import lent, wants_gradient


class Layer(nn.Module):
    """A change of the inputs in front of a classifier.

    A subclass implements ``transform``. What that returns is put within the bounds, and gradients
    come back as ``gradient`` says, at the bounds too: a layer hides nothing from an attack. Each
    argument of a constructor is kept under its own name, so that a save can tell it.

    Parameters
    ----------
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    Attributes
    ----------
    bounds : (float, float)
        What was given.
    gradient : {"exact", "identity"}
        Whether gradients are those of ``transform``, or pass as if there were no layer: for one
        that rounds, whose own gradient is zero or does not exist.
    random : bool
        Whether two answers to one input may differ.

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
        """Change the inputs.

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
        # A clamp of its own would have no gradient at the bounds.
        return lent(values, back) if wants_gradient(back) else values

    def transform(self, inputs: Tensor) -> Tensor:
        """Change the inputs; a subclass says how.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...), floating
            Values within the bounds, not to be written into.

        Returns
        -------
        Tensor of shape (n, ...)
            Each example by itself.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement transform")


class RandomLayer(Layer):
    """A layer that draws random numbers, for each example by itself.

    A subclass draws them by ``draw``.

    Parameters
    ----------
    seed : int, optional
        None draws anew in each call, for every example, from PyTorch's global generator. With a
        seed all examples get one and the same draw, in every call: the layer is then a function,
        for tests and for an attacker who looks at one draw.
    bounds : (float, float), default=(0.0, 1.0)
        Lowest and highest value of an input.

    Attributes
    ----------
    seed, bounds
        What was given.
    random : bool
        Whether there is no seed.
    """

    def __init__(self, *, seed: int | None = None, bounds: Range = (0.0, 1.0)) -> None:
        super().__init__(bounds=bounds)
        self.seed = seed

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether two answers to one input may differ."""
        return self.seed is None

    def draw(self, inputs: Tensor, *shape: int, normal: bool = False) -> Tensor:
        r"""Draw numbers for each input.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Whose number, device and dtype count.
        *shape : int
            Shape of what one example gets.
        normal : bool, default=False
            Standard normal numbers, rather than uniform ones in [0, 1).

        Returns
        -------
        Tensor of shape (n, \*shape)
            The draws; with a seed the same for every example.
        """
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        rows = len(inputs) if generator is None else 1
        drawn = (torch.randn if normal else torch.rand)(rows, *shape, generator=generator)
        return drawn.to(inputs).expand(len(inputs), *shape)


def check_images(inputs: Tensor) -> None:
    """Refuse what has no height and width."""
    if inputs.ndim != 4:
        raise ValueError(
            "inputs must be images of shape (n, channels, height, width), got "
            f"{tuple(inputs.shape)}"
        )
