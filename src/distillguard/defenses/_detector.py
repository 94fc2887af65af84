"""What every detector is: a number for each input, the larger the more suspicious."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


class Detector(nn.Module):
    """Tells how suspicious an input is; a threshold is set elsewhere, by clean examples.

    A subclass implements ``score``, differentiably where it can; one that learns implements ``fit``
    and ``build`` too. Each argument of a constructor is kept under its own name, so that a save can
    tell it.

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
        """Whether nothing is to be learned, or it has been."""
        return True

    def fit(self, inputs: Tensor) -> Self:
        """Learn from clean examples; by default there is nothing to learn.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Clean examples.

        Returns
        -------
        Detector
            Itself.
        """
        return self

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make the parts whose weights ``fit`` learns, for a save to fill; by default none.

        Parameters
        ----------
        input_shape : tuple of int
            Shape of one example.
        """

    def score(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Tell how suspicious each input is; a subclass says how.

        Parameters
        ----------
        model : callable
            The classifier with its layers, from inputs to logits. Asked about ``inputs`` themselves
            it costs nothing.
        inputs : Tensor of shape (n, ...)
            As the defence was given them, before any layer.

        Returns
        -------
        Tensor of shape (n,)
            Finite numbers, the larger the more suspicious.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement score")

    def forward(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Any:
        """Return the score, as a module's call does.

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
