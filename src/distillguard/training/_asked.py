"""A network as training asks it: nothing of the caller's is written to, and logits come back."""

import warnings
from typing import Any

from torch import Tensor, nn

from .._validation import check_output, parts_of
from .._words import described


class Asked(nn.Module):
    """A network that works on a copy of its inputs and returns logits of its own memory.

    Networks may normalise their inputs in place or answer in a buffer that they use again. In
    training mode some return auxiliary outputs beside their logits, as Inception does.
    """

    def __init__(self, module: nn.Module, n_classes: int, name: str) -> None:
        super().__init__()
        self.module = module
        self.n_classes, self.name = n_classes, name
        self.warned = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of shape (n, n_classes)."""
        output = self.module(inputs.clone())
        if not isinstance(output, Tensor):
            output = self._main(output, len(inputs))
        if output.shape != (len(inputs), self.n_classes) or not output.is_floating_point():
            check_output(output, len(inputs), self.name)
            raise ValueError(
                f"{self.name} must return one logit for each of the {self.n_classes} classes in "
                f"training mode as in eval mode, got {output.shape[1]}"
            )
        return output.clone()

    def _main(self, output: Any, n: int) -> Tensor:
        """The logits among several outputs: what is called so, or else the first of their shape."""
        keys = [
            key
            for key, part in parts_of(output).items()
            if isinstance(part, Tensor) and part.shape == (n, self.n_classes)
        ]
        if not keys:
            check_output(output, n, self.name)
        key = "logits" if "logits" in keys else keys[0]
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{self.name} returns {described(output)} in training mode; {key!r} of it is "
                "trained, the rest, such as auxiliary classifiers, has no part in the loss",
                UserWarning,
                stacklevel=2,
            )
        logits: Tensor = parts_of(output)[key]
        return logits
