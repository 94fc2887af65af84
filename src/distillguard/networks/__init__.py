"""The papers' networks: functions from ``(input_shape, n_classes)`` to a module of logits.

Each function is a factory for the estimators, so that the weights are drawn under their
``random_state``. Called by hand, it draws them from torch's global generator: call
``torch.manual_seed`` first to repeat them. No network ends in a softmax. Four modules go around
networks that anybody built: one normalises their inputs, one takes out their logits, one
multiplies these, and one says that the last of them is rejection.
"""

from ._papers import mlp, papernot_cifar10, papernot_mnist, preact_resnet18, wide_resnet
from ._wrappers import Logits, Normalized, Rejecting, Scaled

__all__ = [
    "Logits",
    "Normalized",
    "Rejecting",
    "Scaled",
    "mlp",
    "papernot_cifar10",
    "papernot_mnist",
    "preact_resnet18",
    "wide_resnet",
]
