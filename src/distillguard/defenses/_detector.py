"""Base class of detectors: one score for each input, the larger the more suspicious."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


class Detector(nn.Module):
    """Base class of detectors, which score how suspicious an input is.

    :class:`~distillguard.LayeredDefense` sets the thresholds of the scores on clean
    examples. A subclass implements ``score``, differentiably if possible; a detector with weights
    also implements ``fit`` and ``build``. Store each argument of the constructor in an attribute
    of the same name, so that it can be saved.

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import Detector
    >>> class Brightness(Detector):
    ...     def score(self, model, inputs):
    ...         return inputs.flatten(1).mean(dim=1)
    >>> Brightness().score(torch.nn.Identity(), torch.ones(2, 3))
    tensor([1., 1.])
    """

    def __init__(self) -> None:
        super().__init__()

    @property
    def fitted(self) -> bool:
        """Whether the detector is ready: it has nothing to learn, or has been fitted."""
        return True

    def fit(self, inputs: Tensor) -> Self:
        """Learn from clean examples; by default, does nothing.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Clean examples.

        Returns
        -------
        Detector
            The detector itself.
        """
        return self

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Create the modules that ``fit`` trains, to load saved weights into; by default none.

        Parameters
        ----------
        input_shape : tuple of int
            Shape of one example.
        """

    def score(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Score how suspicious each input is; subclasses implement this.

        Parameters
        ----------
        model : callable
            The classifier with its layers, from inputs to logits. Calling it on ``inputs`` itself
            is free, as these logits are cached.
        inputs : Tensor of shape (n, ...)
            The inputs of the defence, before any layer.

        Returns
        -------
        Tensor of shape (n,)
            Finite numbers, the larger the more suspicious.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement score")

    def forward(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Any:
        """Return the score, so that calling the module is the same as ``score``.

        Parameters
        ----------
        model : callable
            As for ``score``.
        inputs : Tensor of shape (n, ...)
            As for ``score``.

        Returns
        -------
        Tensor of shape (n,)
            The scores.
        """
        return self.score(model, inputs)
