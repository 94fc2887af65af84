"""Points on the way to other examples: a search that needs nothing but the class."""

from typing import Any

import torch
from torch import Tensor

from .._boxes import boxes
from .._geometry import per_example, project_to_budget
from .._modes import dtype_of
from .._rejection import opposed
from .._typing import Bounds, Distance, Mask, Model
from ..functional import margin_loss
from ._query import logits_of

NEAREST = 50
"""Examples of other classes that each example is taken towards, at most."""


def towards(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    goals: Tensor,
    classes: Tensor,
    epsilon: float,
    norm: Distance,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    **_: Any,
) -> Tensor:
    """Ask about the points of the ball that are nearest to examples of other classes.

    ``goals`` are examples that the model puts in ``classes``. Of each input those of another class
    than its label are gone towards, the nearest first, until a point fools. What decides by
    distances, as nearest neighbours and radial basis functions do, decides so there.
    """
    low, high = boxes(inputs, bounds, mask)
    goals, classes = goals.to(inputs), classes.to(labels.device)
    order = [
        nearest(x, y, goals, classes)
        for x, y in zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
    ]
    chosen = torch.cat(order) if order else classes.new_zeros(0, 0)
    best, widest = inputs.clone(), inputs.new_full(labels.shape, -torch.inf)
    for column in chosen.T:
        rows = ((widest <= 0) & (column >= 0)).nonzero().squeeze(1)
        if not len(rows):
            break
        start, below, above = inputs[rows], *(one.expand_as(inputs)[rows] for one in (low, high))
        # Where nothing may change, low and high are the input itself.
        goal = goals[column[rows]].maximum(below).minimum(above)
        points = project_to_budget(goal, start, norm, epsilon, below, above)
        logits = logits_of(model, points, dtype_of(model, points.dtype), batch_size)
        margin = margin_loss(opposed(model, logits, labels[rows]), labels[rows]).to(widest)
        wider = margin > widest[rows]
        best[rows] = torch.where(per_example(wider, points), points, best[rows])
        widest[rows] = torch.where(wider, margin, widest[rows])
    return best


def nearest(inputs: Tensor, labels: Tensor, goals: Tensor, classes: Tensor) -> Tensor:
    """Places of the nearest goals of other classes, in l2; -1 where there are no more: (n, k)."""
    exact = torch.promote_types(inputs.dtype, torch.float32)
    apart = torch.cdist(inputs.flatten(1).to(exact), goals.flatten(1).to(exact))
    apart = apart.masked_fill(labels[:, None] == classes, torch.inf)
    found = apart.topk(min(NEAREST, len(goals)), largest=False)
    return torch.where(found.values < torch.inf, found.indices, -1)
