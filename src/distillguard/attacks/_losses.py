"""What an attack ascends: a name from the literature or the caller's own function."""

from torch import Tensor

from .._ruled_out import magnitude
from .._typing import Loss
from .._validation import check_choice
from ..functional import cross_entropy, dlr_loss, margin_loss, rescaled_cross_entropy
from ._examples import Examples

LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin_loss,
    "dlr": dlr_loss,
    "rescaled_cross_entropy": rescaled_cross_entropy,
}


def ascended_loss(loss: str | Loss, targeted: bool) -> Loss:
    """Return the function to ascend: the named or given loss, negated when ``targeted``."""
    if isinstance(loss, str):
        check_choice("loss", loss, LOSSES)
        chosen = LOSSES[loss]
    elif callable(loss):
        chosen = _shape_checked(loss)
    else:
        raise TypeError(f"loss must be a name or a callable, got {loss!r}")
    return (lambda logits, labels: -chosen(logits, labels)) if targeted else chosen


def success_margin(logits: Tensor, examples: Examples, targeted: bool) -> Tensor:
    """How far the attack's aim is reached, in logits: positive when anybody would see it. (n,).

    What the model's rounding may take back when it is asked in another batch does not count.
    """
    margin = margin_loss(logits, examples.labels)
    doubt = examples.rounding.to(logits) * magnitude(logits)
    return (-margin if targeted else margin) - doubt


def _shape_checked(loss: Loss) -> Loss:
    def checked(logits: Tensor, labels: Tensor) -> Tensor:
        values = loss(logits, labels)
        if not isinstance(values, Tensor) or values.shape != labels.shape:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"loss must return one value per example, shape {tuple(labels.shape)}, got {got}"
            )
        return values

    return checked
