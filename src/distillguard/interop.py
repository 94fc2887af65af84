"""Attacks of other libraries for :func:`distillguard.evaluate`, and our models for them.

Nothing is imported that is not installed: an attack object is told by the package that its
class comes from, and a library is imported when a model is handed to it. An attack that
already is a function ``(model, inputs, labels) -> Tensor``, as adversarial-library's are, needs
no adapter.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._boxes import check_bounds
from ._modes import device_of
from ._typing import Attack, Bounds, Model
from .exceptions import MissingPackageError

__all__ = ["attack", "to_art", "to_foolbox"]


def attack(
    foreign: Any, *, epsilon: float | None = None, bounds: Bounds = (0.0, 1.0), n_classes: int = 10
) -> Attack:
    """Turn an attack of another library into ``(model, inputs, labels) -> Tensor``.

    Parameters
    ----------
    foreign : object
        A foolbox attack; a torchattacks or AutoAttack class, or a function of the model that
        makes one (their objects are bound to a model); an ART attack class, or a function of
        an ART classifier that makes one; or a function of that form already, such as those of
        adversarial-library.
    epsilon : float, optional
        Radius, for foolbox's attacks, which are given it when they run. Without it a foolbox
        attack looks for the smallest perturbation.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value of an input, for foolbox and ART.
    n_classes : int, default=10
        Number of classes, for ART.

    Returns
    -------
    callable
        To be put into the mapping ``attacks`` of :func:`distillguard.evaluate`. What it returns
        is judged there like everybody's.

    Raises
    ------
    TypeError
        If the object is none of these.

    Examples
    --------
    >>> import torch
    >>> from distillguard import evaluate, interop
    >>> class Shift:
    ...     def __init__(self, model):
    ...         self.model = model
    ...     def __call__(self, inputs, labels):
    ...         return inputs.flip(1)
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(9 * torch.eye(2))
    >>> attacks = {"shift": interop.attack(Shift)}
    >>> inputs, labels = torch.tensor([[0.9, 0.3]]), torch.tensor([0])
    >>> report = evaluate(model, inputs, labels, epsilon=0.7, attacks=attacks, random_state=0)
    >>> report.robust_accuracy
    0.0
    """
    check_bounds(bounds)
    home = _home(foreign)
    if home == "foolbox" and not isinstance(foreign, type):
        return _foolbox(foreign, epsilon, bounds)
    if home == "art":
        return _art(foreign, bounds, n_classes)
    if isinstance(foreign, type):
        return _bound(foreign)
    if home in ("torchattacks", "autoattack"):
        raise TypeError(
            "foreign must be a class or a function from a model to an attack, got "
            f"{type(foreign).__name__}, which is bound to a model already; pass "
            f"lambda model: {type(foreign).__name__}(model, ...)"
        )
    if not callable(foreign):
        raise TypeError(f"foreign must be an attack, got {type(foreign).__name__}")
    return _made_or_called(foreign)


def to_foolbox(model: nn.Module, bounds: Bounds = (0.0, 1.0)) -> Any:
    """Hand a model to foolbox.

    Parameters
    ----------
    model : nn.Module
        Maps inputs to logits. It is put in eval mode.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value of an input.

    Returns
    -------
    foolbox.PyTorchModel
        On the device of the model.

    Raises
    ------
    MissingPackageError
        If foolbox is not installed.

    Examples
    --------
    >>> import torch
    >>> from distillguard import interop
    >>> model = torch.nn.Linear(2, 2)
    >>> interop.to_foolbox(model).bounds  # doctest: +SKIP
    Bounds(lower=0.0, upper=1.0)
    """
    foolbox = _imported("foolbox", "foolbox")
    module = model if isinstance(model, nn.Module) else _Module(model)
    place = device_of(module, torch.device("cpu"))
    return foolbox.PyTorchModel(module.eval(), bounds=tuple(bounds), device=place)


def to_art(
    model: nn.Module, input_shape: tuple[int, ...], n_classes: int, bounds: Bounds = (0.0, 1.0)
) -> Any:
    """Hand a model to the Adversarial Robustness Toolbox.

    Parameters
    ----------
    model : nn.Module
        Maps inputs to logits.
    input_shape : tuple of int
        Shape of one input.
    n_classes : int
        Number of classes.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value of an input.

    Returns
    -------
    art.estimators.classification.PyTorchClassifier
        With the cross-entropy as its loss.

    Raises
    ------
    MissingPackageError
        If the Adversarial Robustness Toolbox is not installed.

    Examples
    --------
    >>> import torch
    >>> from distillguard import interop
    >>> model = torch.nn.Linear(2, 2)
    >>> interop.to_art(model, input_shape=(2,), n_classes=2).nb_classes  # doctest: +SKIP
    2
    """
    classification = _imported("art.estimators.classification", "adversarial-robustness-toolbox")
    return classification.PyTorchClassifier(
        model=model if isinstance(model, nn.Module) else _Module(model),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(input_shape),
        nb_classes=n_classes,
        clip_values=tuple(bounds),
        device_type="gpu" if device_of(model, torch.device("cpu")).type == "cuda" else "cpu",
    )


class _Module(nn.Module):
    """A plain callable as the module that other libraries insist on."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)


def _home(foreign: Any) -> str:
    kind = foreign if isinstance(foreign, type) else type(foreign)
    return kind.__module__.partition(".")[0]


def _foolbox(foreign: Any, epsilon: float | None, bounds: Bounds) -> Attack:
    def call(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
        theirs = to_foolbox(model, bounds)  # type: ignore[arg-type]
        _, clipped, _ = foreign(theirs, inputs, labels, epsilons=epsilon)
        return clipped

    return call


def _art(foreign: Any, bounds: Bounds, n_classes: int) -> Attack:
    def call(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
        theirs = to_art(model, tuple(inputs.shape[1:]), n_classes, bounds)  # type: ignore[arg-type]
        made = foreign(theirs)
        adversarial = made.generate(inputs.cpu().numpy(), y=labels.cpu().numpy())
        return torch.as_tensor(adversarial).to(inputs)

    return call


def _bound(make: Callable[[Any], Any]) -> Attack:
    def call(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
        return _run(make(model), inputs, labels)

    return call


def _made_or_called(foreign: Callable[..., Any]) -> Attack:
    """A function of one argument makes an attack for a model; one of three is an attack."""
    import inspect

    wanted = [
        part
        for part in inspect.signature(foreign).parameters.values()
        if part.default is part.empty
        and part.kind in (part.POSITIONAL_ONLY, part.POSITIONAL_OR_KEYWORD)
    ]
    return _bound(foreign) if len(wanted) == 1 else foreign


def _run(made: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    """Run an attack that is bound to its model."""
    if hasattr(made, "run_standard_evaluation"):
        return made.run_standard_evaluation(inputs, labels)
    if hasattr(made, "generate") and _home(made) == "art":
        adversarial = made.generate(inputs.cpu().numpy(), y=labels.cpu().numpy())
        return torch.as_tensor(adversarial).to(inputs)
    return made(inputs, labels)


def _imported(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"this needs {package}; install it with: pip install {package}"
        ) from error
