"""What is evaluated: a model, or the student of an estimator."""

from typing import Any, NamedTuple

from torch import nn

from .._typing import Model


class EvaluatedModel(NamedTuple):
    """A model under evaluation."""

    model: Model
    classes: Any | None
    name: str


def resolve_model(model: Any, argument: str = "model") -> EvaluatedModel:
    """Take the logits out of a fitted estimator; a model or callable is taken as it is."""
    for attribute in ("student_", "network_"):  # what predicts, in every estimator of ours
        if hasattr(model, attribute):
            network = getattr(model, attribute)
            return EvaluatedModel(network, getattr(model, "classes_", None), type(model).__name__)
    if hasattr(model, "fit") and not isinstance(model, nn.Module):
        if any(name.endswith("_") and not name.startswith("_") for name in vars(model)):
            raise TypeError(
                f"{argument} must be an estimator of distillguard, a module or a callable from "
                f"inputs to logits, got a fitted {type(model).__name__}; pass a function of "
                "tensors that returns its logits, or the distillguard estimator inside it"
            )
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(f"{argument} must be fitted before it is evaluated, got {model!r}")
    if not callable(model):
        raise TypeError(
            f"{argument} must be a module, a callable from inputs to logits or a fitted estimator, "
            f"got {type(model).__name__}"
        )
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "")
    return EvaluatedModel(model, None, name or type(model).__name__)
