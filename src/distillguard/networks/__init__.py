"""The papers' networks: functions from ``(input_shape, n_classes)`` to a module of logits.

Each function is a factory for the estimators, so that the weights are drawn under their
``random_state``. Called by hand, it draws them from torch's global generator: call
``torch.manual_seed`` first to repeat them. No network ends in a softmax. Three modules go around
networks that anybody built: one normalises their inputs, one takes out their logits, and one
multiplies these.
"""

from ._papers import mlp, papernot_cifar10, papernot_mnist, preact_resnet18, wide_resnet
from ._wrappers import Logits, Normalized, Scaled

__all__ = [
    "Logits",
    "Normalized",
    "Scaled",
    "mlp",
    "papernot_cifar10",
    "papernot_mnist",
    "preact_resnet18",
    "wide_resnet",
]
