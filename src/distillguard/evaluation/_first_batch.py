"""What to write instead, where a model cannot take the inputs as they are laid out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from .._typing import Model
from .._validation import check_output
from .._words import written

FEW = 2
"""Examples on which another layout is tried."""


class Layout(NamedTuple):
    """Another layout of the same inputs."""

    change: str
    """The code that gives it, ``{tensor}`` standing for the inputs."""

    apply: Callable[[Tensor], Tensor]


@contextmanager
def layout_explained(model: Model, inputs: Tensor, name: str) -> Iterator[None]:
    """Say which layout of the inputs a model would take, where it raises on this one.

    Each likely layout is tried on a few examples. If the model takes none of them, its own error
    is raised, with a note of what it was given.
    """
    try:
        yield
    except Exception as error:
        if answers(model, inputs[:FEW]):
            raise
        for layout in layouts(inputs):
            if takes(model, layout.apply(inputs[:FEW])):
                raise ValueError(
                    f"{name} must hold examples in the layout of the model, got shape "
                    f"{tuple(inputs.shape)} in {inputs.dtype}; write "
                    f"{written(name, layout.change)}"
                ) from error
        error.add_note(
            f"The model raised this when it was given {name}: shape {tuple(inputs.shape)} in "
            f"{inputs.dtype}."
        )
        raise


def answers(model: Model, inputs: Tensor) -> bool:
    """Whether the model returns anything for these inputs."""
    try:
        with torch.no_grad():
            model(inputs)
    except Exception:
        return False
    return True


def takes(model: Model, inputs: Tensor) -> bool:
    """Whether the model returns logits for these inputs."""
    try:
        with torch.no_grad():
            check_output(model(inputs), len(inputs))
    except Exception:
        return False
    return True


def layouts(inputs: Tensor) -> Iterator[Layout]:
    """Layouts that people mean by such inputs, the likeliest first."""
    shape = inputs.shape[1:]
    if len(shape) == 1:
        yield from squares(shape[0])
    if len(shape) == 2:
        yield Layout("{tensor}[:, None]", lambda x: x[:, None])
        yield Layout("{tensor}[:, None].expand(-1, 3, -1, -1)", lambda x: in_colour(x[:, None]))
    if len(shape) == 3:
        yield from images(shape)
    if len(shape) > 1:
        yield Layout("{tensor}.flatten(1)", lambda x: x.flatten(1))
    if inputs.dtype != torch.float32:
        yield Layout("{tensor}.float()", lambda x: x.float())


def images(shape: torch.Size) -> Iterator[Layout]:
    """Images with their channels elsewhere, or with more or fewer of them."""
    if shape[-1] in (1, 3, 4):
        yield Layout("{tensor}.permute(0, 3, 1, 2)", lambda x: x.permute(0, 3, 1, 2).contiguous())
    if shape[0] in (1, 3, 4):
        yield Layout("{tensor}.permute(0, 2, 3, 1)", lambda x: x.permute(0, 2, 3, 1).contiguous())
    if shape[0] == 1:
        yield Layout("{tensor}.expand(-1, 3, -1, -1)", in_colour)
    if shape[0] == 3:
        yield Layout("{tensor}.mean(1, keepdim=True)", lambda x: x.mean(dim=1, keepdim=True))


def in_colour(inputs: Tensor) -> Tensor:
    """The same values in three channels."""
    return inputs.expand(-1, 3, -1, -1).contiguous()


def squares(n_features: int) -> Iterator[Layout]:
    """Square images of one or three channels with this number of values."""
    for channels in (1, 3):
        side = isqrt(n_features // channels)
        if channels * side**2 == n_features:
            yield Layout(
                f"{{tensor}}.reshape(-1, {channels}, {side}, {side})",
                lambda x, c=channels, s=side: x.reshape(-1, c, s, s),  # type: ignore[misc]
            )
