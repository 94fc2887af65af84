"""Several gradients of one answer, also where its graph stands only one backward pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def slopes(answer: Callable[[], Sequence[Tensor]], asked: Tensor) -> list[Tensor | None]:
    """Return the gradient at ``asked`` of each of the scalars that ``answer`` computes from it.

    One forward pass and a backward pass for each scalar. Compiled models, and functions that free
    what they saved, refuse a second backward pass through one graph; of those every gradient comes
    from a forward pass of its own. None stands for a scalar that does not depend on ``asked``.
    """
    outputs = answer()
    last = len(outputs) - 1
    try:
        return [_slope(each, asked, keep=place < last) for place, each in enumerate(outputs)]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        if not last:
            raise
    return [_slope(answer()[place], asked, keep=False) for place in range(len(outputs))]


def _slope(output: Tensor, asked: Tensor, *, keep: bool) -> Tensor | None:
    found: Tensor | None
    (found,) = torch.autograd.grad(output, asked, retain_graph=keep, allow_unused=True)
    return found
