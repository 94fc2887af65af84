"""One training loop for every network, with its optimisers and the runtime it runs on."""

from ._average import Average
from ._callbacks import Callback, Epoch, JSONLines, LoggerCallback
from ._checkpoints import Checkpoints
from ._head import head_in_units, multiply_logits
from ._inner import Ascent, attacked, perturbed
from ._loop import Objective, Plan, Scored, Stopping, train
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

__all__ = [
    "OPTIMIZERS",
    "SCHEDULERS",
    "Ascent",
    "Average",
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
    "Scored",
    "Stopping",
    "attacked",
    "data_of",
    "head_in_units",
    "make_optimizer",
    "make_scheduler",
    "multiply_logits",
    "perturbed",
    "settings_of",
    "train",
    "weights_of",
]
