"""BPDA for whatever a model does to its input before a network inside takes over."""

from collections.abc import Callable
from threading import get_ident
from typing import Any

from torch import Tensor, nn

from .._account import question
from .._model_kinds import check_model
from .._modes import one_at_a_time
from .._words import described
from ._lending import lent


class StraightThroughBefore(nn.Module):
    """A model all of whose work before a module inside has the gradient of the identity.

    What :func:`straight_through` returns where it is given ``before``.

    Parameters
    ----------
    model : nn.Module or callable
        The whole. Shared, not copied, and the same afterwards.
    before : nn.Module
        A module that the model asks about as many numbers as it is given itself.

    Attributes
    ----------
    model, before
        What was given.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], before: nn.Module) -> None:
        super().__init__()
        check_model(model, "target")
        if not isinstance(before, nn.Module):
            raise TypeError(f"before must be a module inside target, got {described(before)}")
        self.model = model
        self.before = before

    @property
    def adaptation(self) -> str:
        """What reports say of it."""
        name = type(self.before).__name__
        return f"all that is done before its {name} with the gradient of the identity (BPDA)"

    def forward(self, inputs: Tensor) -> Tensor:
        """Ask the model, with a hook on the module inside meanwhile.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            What the model takes.

        Returns
        -------
        Tensor
            What the model returns, bit for bit.
        """
        thread = get_ident()

        def entering(_: nn.Module, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if get_ident() != thread or not values:
                return None
            first = values[0]
            if not isinstance(first, Tensor) or first.numel() != inputs.numel():
                raise ValueError(
                    "before must be a module that is given as many numbers as target, "
                    f"{tuple(inputs.shape)}, got one that is given {described(first)}"
                )
            return (lent(first, inputs.reshape(first.shape)), *values[1:])

        with question(len(inputs), self.adaptation, 1, 1) as watch, one_at_a_time():
            hook = self.before.register_forward_pre_hook(entering)
            try:
                # Detached: NumPy takes no tensor that wants a gradient. A copy may be written into.
                return watch(self.model(inputs.detach().clone()))
            finally:
                hook.remove()
