"""What is evaluated: a model, or the network inside an estimator."""

import inspect
from typing import Any, NamedTuple, NoReturn

import numpy as np
from torch import nn

from .._data import Spec
from .._model_kinds import NETWORKS, check_model
from .._typing import Bounds, Model
from .._words import listed


class EvaluatedModel(NamedTuple):
    """A model under evaluation."""

    model: Model
    classes: Any | None
    name: str
    columns: Any | None = None
    """Names of the columns of the table that it was fitted on, if it was one."""

    def spec(self, bounds: Bounds) -> Spec:
        """What the examples that it is asked about are held to."""
        return Spec(self.classes, bounds=bounds, columns=self.columns)


def resolve_model(model: Any, argument: str = "model") -> EvaluatedModel:
    """Take the network out of a fitted estimator, and refuse what gives no logits.

    A search is taken for its best estimator, a pipeline for its last step if the others change
    nothing, and a bound ``forward`` for its module; a module or callable is taken as it is.

    Raises
    ------
    TypeError
        If ``model`` is of another kind; the message says what to pass.
    NotFittedError
        If ``model`` is an estimator that has not been fitted.
    """
    if hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    if hasattr(model, "steps") and hasattr(model, "named_steps"):
        model = _last_step(model, argument)
    if inspect.ismethod(model):
        model = _owner(model, argument)
    if not isinstance(model, type):
        for attribute in NETWORKS:
            if hasattr(model, attribute):
                classes = getattr(model, "classes_", None)
                columns = getattr(model, "feature_names_in_", None)
                network, name = getattr(model, attribute), type(model).__name__
                return EvaluatedModel(network, classes, name, columns)
    if hasattr(model, "fit") and not isinstance(model, nn.Module | type):
        _refuse_estimator(model, argument)
    check_model(model, argument)
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "")
    return EvaluatedModel(model, None, name or type(model).__name__)


def resolve_surrogate(surrogate: Any, subject: EvaluatedModel) -> Model:
    """Take the network of another model, which has to know the same classes."""
    other = resolve_model(surrogate, "surrogate")
    if subject.classes is not None and other.classes is not None:
        known, own = (np.asarray(each.classes).tolist() for each in (subject, other))
        if own != known:
            raise ValueError(
                f"surrogate must know the classes of model, {listed(known)}, got {listed(own)}"
            )
    return other.model


def _last_step(pipeline: Any, argument: str) -> Any:
    before = [step for _, step in pipeline.steps[:-1] if step not in (None, "passthrough")]
    last = pipeline.steps[-1][1]
    if before and any(hasattr(last, attribute) for attribute in NETWORKS):
        raise TypeError(
            f"{argument} must be an estimator without steps before it, got a Pipeline "
            f"with {type(before[0]).__name__}; pass {argument}[-1] and "
            f"{argument}[:-1].transform(X), with bounds and epsilon in its units"
        )
    return last


def _owner(method: Any, argument: str) -> Any:
    """The module whose forward is passed; of other methods, those of estimators are refused."""
    owner = method.__self__
    if isinstance(owner, nn.Module):
        return owner if method.__name__ in ("forward", "__call__") else method
    ours = any(hasattr(owner, attribute) for attribute in NETWORKS)
    if ours or hasattr(owner, "fit"):
        remedy = "the estimator itself" if ours else "a function of tensors"
        raise TypeError(
            f"{argument} must return logits as tensors, got the method {method.__name__} of "
            f"{type(owner).__name__}; pass {remedy}"
        )
    return method


def _refuse_estimator(model: Any, argument: str) -> NoReturn:
    if any(name.endswith("_") and not name.startswith("_") for name in vars(model)):
        raise TypeError(
            f"{argument} must be an estimator of distillguard, a module or a callable from "
            f"inputs to logits, got a fitted {type(model).__name__}; pass a function of "
            "tensors that returns its logits, or the distillguard estimator inside it"
        )
    from sklearn.exceptions import NotFittedError

    raise NotFittedError(f"{argument} must be fitted before it is evaluated, got {model!r}")
