"""Boundaries behind a rise of the margin: the least distance, searched where its slope is wrong."""

from typing import Any

from torch import Tensor

from .. import attacks
from .._boxes import boxes
from .._geometry import lp_norm
from .._typing import Bounds, Mask, Model

FIRST_STEPS = 8
"""Steps in which ``carlini_wagner_l2`` reaches another class at whatever distance, unless the
margin rises on the way there."""


def hidden_boundary_l2(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    stop_within: float | None = None,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
) -> Tensor:
    """Run ``carlini_wagner_l2`` whole, but only where its first steps reach no other class.

    From inside the ball an ascent finds nothing there, however long it is. Elsewhere this costs the
    few steps to another class, at whatever distance: what slopes lead to, attacks with a budget
    reach too.
    """
    told: dict[str, Any] = {
        "bounds": bounds,
        "batch_size": batch_size,
        "random_state": random_state,
    }
    if not len(inputs):
        return inputs.clone()
    low, high = boxes(inputs, bounds, mask)
    widths = (high.double() - low.double()).expand_as(inputs)
    anywhere = max(lp_norm(widths, "l2").max().item(), 1.0)
    found = attacks.carlini_wagner_l2(
        model, inputs, labels, steps=FIRST_STEPS, stop_within=anywhere, mask=mask, **told
    )
    hidden = (found == inputs).flatten(1).all(dim=1)
    if not bool(hidden.any()):
        return found
    each = mask is not None and mask.dim() == inputs.dim() and len(mask) == len(inputs)
    few = mask[hidden.to(mask.device)] if mask is not None and each else mask
    found[hidden] = attacks.carlini_wagner_l2(
        model, inputs[hidden], labels[hidden], stop_within=stop_within, mask=few, **told
    )
    return found
