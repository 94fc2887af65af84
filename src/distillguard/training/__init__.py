"""One training loop for every network, with its optimisers and the runtime it runs on."""

from ._head import head_in_units, multiply_head
from ._loop import Callback, Epoch, Objective, Plan, Stopping, train
from ._optimisers import OptimizerFactory, SchedulerFactory, make_optimizer, make_scheduler
from ._runtime import Runtime

__all__ = [
    "Callback",
    "Epoch",
    "Objective",
    "OptimizerFactory",
    "Plan",
    "Runtime",
    "SchedulerFactory",
    "Stopping",
    "head_in_units",
    "make_optimizer",
    "make_scheduler",
    "multiply_head",
    "train",
]
