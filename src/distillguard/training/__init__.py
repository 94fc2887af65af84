"""One training loop for every network, with its optimisers and the runtime it runs on."""

from ._average import Average
from ._callbacks import Callback, Epoch, JSONLines, LoggerCallback
from ._checkpoints import Checkpoints
from ._inner import Ascent, attack_mode, perturbed
from ._loop import BatchLosses, Objective, Plan, Stopping, train
from ._optimisers import (
    OPTIMIZERS,
    SCHEDULERS,
    OptimizerFactory,
    SchedulerFactory,
    make_optimizer,
    make_scheduler,
)
from ._run_identity import data_of, settings_of, weights_of
from ._runtime import Runtime
from ._scaled_head import multiply_logits, scaled_head

__all__ = [
    "OPTIMIZERS",
    "SCHEDULERS",
    "Ascent",
    "Average",
    "BatchLosses",
    "Callback",
    "Checkpoints",
    "Epoch",
    "JSONLines",
    "LoggerCallback",
    "Objective",
    "OptimizerFactory",
    "Plan",
    "Runtime",
    "SchedulerFactory",
    "Stopping",
    "attack_mode",
    "data_of",
    "make_optimizer",
    "make_scheduler",
    "multiply_logits",
    "perturbed",
    "scaled_head",
    "settings_of",
    "train",
    "weights_of",
]
