"""All tasks in the order of the course: a new task is one entry in its chapter's file."""

from . import (
    _adapted_gradients,
    _adversarial_examples,
    _carlini_wagner,
    _defensive_distillation,
    _distillation,
    _numbers,
    _robust_training,
    _scaling_laws,
    _search_and_saliency,
    _soft_labels,
    _swiss_cheese,
)

_FILES = (
    _soft_labels,
    _distillation,
    _adversarial_examples,
    _defensive_distillation,
    _carlini_wagner,
    _search_and_saliency,
    _numbers,
    _adapted_gradients,
    _robust_training,
    _scaling_laws,
    _swiss_cheese,
)

TASKS = {task.name: task for file in _FILES for task in file.TASKS}
