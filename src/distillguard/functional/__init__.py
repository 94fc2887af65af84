"""Temperature softmax and losses, as pure functions with one value per example.

Logits have shape (n, n_classes) and any floating dtype; labels have shape (n,) and
dtype int64. No function averages over the batch, so the gradient of an example never depends on
the other examples.
"""

from ._losses import (
    cross_entropy,
    distillation_loss,
    dlr_loss,
    log_softmax,
    margin_loss,
    merge_rejection,
    rescaled_cross_entropy,
    soft_cross_entropy,
    softmax,
)
from ._robust_distillation_losses import (
    adaad_loss,
    ard_loss,
    iad_loss,
    igdm_loss,
    rslad_loss,
)
from ._robust_losses import kl_divergence, mart_loss, smoothed_cross_entropy, trades_loss

__all__ = [
    "adaad_loss",
    "ard_loss",
    "cross_entropy",
    "distillation_loss",
    "dlr_loss",
    "iad_loss",
    "igdm_loss",
    "kl_divergence",
    "log_softmax",
    "margin_loss",
    "mart_loss",
    "merge_rejection",
    "rescaled_cross_entropy",
    "rslad_loss",
    "smoothed_cross_entropy",
    "soft_cross_entropy",
    "softmax",
    "trades_loss",
]
