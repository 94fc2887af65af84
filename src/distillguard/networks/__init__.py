"""The papers' networks: functions from ``(input_shape, n_classes)`` to a module of logits.

Each function is a factory for the estimators, so that the weights are drawn under their
``random_state``. Called directly, it draws them from torch's global generator: call
``torch.manual_seed`` first to reproduce them. No network ends in a softmax. Four modules wrap any
network: one normalises its inputs, one extracts its logits, one scales them, and one declares the
last logit to be rejection.
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
