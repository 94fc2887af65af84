"""Adapters for attacks of other libraries in :func:`distillguard.evaluate`, and for models.

There is one function for each library, because each passes models in its own way. A library is
imported only when it is used. An attack that already is a function
``(model, inputs, labels) -> Tensor`` needs no adapter. A model with a rejection column is refused,
because other libraries would count a rejected input as a success.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ._boxes import check_bounds
from ._modes import device_of, fitted_to, lent, to_eval
from ._rejection import rejects
from ._typing import Attack, Model, Range
from ._validation import check_at_least, check_positive
from .exceptions import MissingPackageError

__all__ = [
    "from_adv_lib",
    "from_art",
    "from_autoattack",
    "from_foolbox",
    "from_torchattacks",
    "to_art",
    "to_foolbox",
]


def __dir__() -> list[str]:
    return __all__


def from_foolbox(
    attack: Any, *, epsilon: float | None = None, bounds: Range = (0.0, 1.0)
) -> Attack:
    """Adapt an attack of foolbox.

    Parameters
    ----------
    attack : foolbox.attacks.Attack
        An attack with its settings, such as ``LinfPGD(steps=40)``.
    epsilon : float, optional
        Radius, in the norm of the attack. Without it, the attack searches for the smallest
        perturbation, which foolbox's fixed-radius attacks do not support.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value of an input.

    Returns
    -------
    callable
        ``(model, inputs, labels) -> Tensor``, for the mapping ``attacks`` of
        :func:`distillguard.evaluate`. The model is left unchanged.

    Raises
    ------
    TypeError
        If ``attack`` is a class or not an attack.
    ValueError
        If ``epsilon`` is not a finite number above 0, or ``bounds`` are invalid.

    Examples
    --------
    >>> from foolbox.attacks import LinfPGD  # doctest: +SKIP
    >>> from distillguard import interop
    >>> pgd = interop.from_foolbox(LinfPGD(steps=40), epsilon=0.1)  # doctest: +SKIP
    """
    check_bounds(bounds)
    if epsilon is not None:
        check_positive("epsilon", epsilon)
    if isinstance(attack, type):
        name = attack.__name__
        raise TypeError(f"attack must be an object, got the class {name}; pass {name}()")
    if _is_maker(attack) or not callable(attack):
        raise TypeError(f"attack must be an attack of foolbox, got {_named(attack)}")

    def found(model: Model, inputs: Tensor, labels: Tensor) -> Any:
        theirs = to_foolbox(_Lent(model), bounds)
        _, clipped, _ = attack(theirs, inputs, labels, epsilons=epsilon)
        return clipped

    return _checked(found)


def from_torchattacks(factory: Callable[[Any], Any]) -> Attack:
    """Adapt an attack of torchattacks.

    Parameters
    ----------
    factory : callable
        Maps a model to an attack on it: ``lambda model: PGD(model, eps=0.1)``, or an attack
        class for its default settings.

    Returns
    -------
    callable
        ``(model, inputs, labels) -> Tensor``, for the mapping ``attacks`` of
        :func:`distillguard.evaluate`. The model is left unchanged.

    Raises
    ------
    TypeError
        If ``factory`` is an attack that already has a model, or is not callable.

    Examples
    --------
    >>> import torch
    >>> from distillguard import evaluate, interop
    >>> class Shift:  # in the form of torchattacks' classes
    ...     def __init__(self, model, by=1):
    ...         self.model, self.by = model, by
    ...     def __call__(self, inputs, labels):
    ...         return inputs.roll(self.by, dims=1)
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(9 * torch.eye(2))
    >>> attacks = {"shift": interop.from_torchattacks(lambda model: Shift(model, by=1))}
    >>> inputs, labels = torch.tensor([[0.9, 0.3]]), torch.tensor([0])
    >>> report = evaluate(model, inputs, labels, epsilon=0.7, attacks=attacks, random_state=0)
    >>> report.robust_accuracy
    0.0
    """
    _check_factory(factory)

    def found(model: Model, inputs: Tensor, labels: Tensor) -> Any:
        made = factory(_Lent(model))
        _check_made(made, callable(made), "torchattacks")
        return made(inputs, labels)

    return _checked(found)


def from_autoattack(factory: Callable[[Any], Any]) -> Attack:
    """Adapt AutoAttack in its authors' implementation, or one with the same interface.

    Parameters
    ----------
    factory : callable
        Maps a model to an object whose ``run_standard_evaluation(inputs, labels)`` attacks it:
        ``lambda model: AutoAttack(model, norm="Linf", eps=0.1, device="cpu")``.

    Returns
    -------
    callable
        ``(model, inputs, labels) -> Tensor``, for the mapping ``attacks`` of
        :func:`distillguard.evaluate`. The model is left unchanged.

    Raises
    ------
    TypeError
        If ``factory`` is an attack that already has a model, or is not callable.

    Examples
    --------
    >>> from autoattack import AutoAttack  # doctest: +SKIP
    >>> from distillguard import interop
    >>> def standard(model):
    ...     return AutoAttack(model, eps=0.1, verbose=False)
    >>> autoattack = interop.from_autoattack(standard)
    """
    _check_factory(factory)

    def found(model: Model, inputs: Tensor, labels: Tensor) -> Any:
        made = factory(_Lent(model))
        _check_made(made, hasattr(made, "run_standard_evaluation"), "AutoAttack")
        result = made.run_standard_evaluation(inputs, labels)
        # Some versions add the classes that the points are taken for.
        return result[0] if isinstance(result, tuple) else result

    return _checked(found)


def from_adv_lib(function: Callable[..., Any], **settings: Any) -> Attack:
    """Adapt an attack of adversarial-library.

    Parameters
    ----------
    function : callable
        ``(model, inputs, labels, ...) -> Tensor``, such as ``adv_lib.attacks.ddn``.
    **settings
        Keyword arguments of the function.

    Returns
    -------
    callable
        ``(model, inputs, labels) -> Tensor``, for the mapping ``attacks`` of
        :func:`distillguard.evaluate`. The model is left unchanged.

    Raises
    ------
    TypeError
        If ``function`` is not callable or does not accept the settings.

    Examples
    --------
    >>> import torch
    >>> from distillguard import interop
    >>> def darken(model, inputs, labels, targeted=False, by=0.1):
    ...     return (inputs - by).clamp(min=0)
    >>> attack = interop.from_adv_lib(darken, by=0.25)
    >>> attack(torch.nn.Linear(2, 2), torch.tensor([[0.5, 0.0]]), torch.tensor([0]))
    tensor([[0.2500, 0.0000]])
    """
    if isinstance(function, type) or not callable(function):
        raise TypeError(
            "function must be a function (model, inputs, labels, ...) -> Tensor, "
            f"got {_named(function)}"
        )
    _check_settings(function, settings)

    def found(model: Model, inputs: Tensor, labels: Tensor) -> Any:
        return function(_Lent(model), inputs, labels, **settings)

    return _checked(found)


def from_art(
    factory: Callable[[Any], Any], *, n_classes: int, bounds: Range = (0.0, 1.0)
) -> Attack:
    """Adapt an attack of the Adversarial Robustness Toolbox.

    Parameters
    ----------
    factory : callable
        Maps a classifier of the toolbox to an attack on it:
        ``lambda classifier: ProjectedGradientDescent(classifier, eps=0.1)``, or an attack class
        for its default settings. Its argument is the model wrapped by :func:`to_art`.
    n_classes : int
        Number of classes.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value of an input.

    Returns
    -------
    callable
        ``(model, inputs, labels) -> Tensor``, for the mapping ``attacks`` of
        :func:`distillguard.evaluate`. The model is left unchanged. The toolbox works on
        float32 arrays, so inputs of other dtypes are rounded to float32.

    Raises
    ------
    TypeError
        If ``factory`` is an attack that already has a classifier, or is not callable.
    ValueError
        If ``n_classes`` is below 2, or ``bounds`` are invalid.

    Examples
    --------
    >>> from art.attacks.evasion import ProjectedGradientDescent  # doctest: +SKIP
    >>> from distillguard import interop
    >>> def small_steps(classifier):
    ...     return ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.01)
    >>> pgd = interop.from_art(small_steps, n_classes=10)
    """
    check_bounds(bounds)
    check_at_least("n_classes", n_classes, 2)
    _check_factory(factory, "classifier")

    def found(model: Model, inputs: Tensor, labels: Tensor) -> Any:
        made = factory(to_art(_Lent(model), tuple(inputs.shape[1:]), n_classes, bounds))
        generate = getattr(made, "generate", made)
        _check_made(made, callable(generate), "the Adversarial Robustness Toolbox")
        found = generate(inputs.cpu().float().numpy(), labels.cpu().numpy())
        return torch.as_tensor(found, device="cpu")

    return _checked(found)


def to_foolbox(model: nn.Module, bounds: Range = (0.0, 1.0)) -> Any:
    """Wrap a model for foolbox.

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
    ValueError
        If the model has a rejection column, which foolbox would treat as a class.

    Examples
    --------
    >>> import torch
    >>> from distillguard import interop
    >>> model = torch.nn.Linear(2, 2)
    >>> interop.to_foolbox(model).bounds  # doctest: +SKIP
    Bounds(lower=0.0, upper=1.0)
    """
    _check_answers(model)
    foolbox = _imported("foolbox", "foolbox")
    module = model if isinstance(model, nn.Module) else _Lent(model)
    place = device_of(module, torch.device("cpu"))
    to_eval(module)
    return foolbox.PyTorchModel(module, bounds=tuple(bounds), device=place)


def to_art(
    model: nn.Module, input_shape: tuple[int, ...], n_classes: int, bounds: Range = (0.0, 1.0)
) -> Any:
    """Wrap a model for the Adversarial Robustness Toolbox.

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
    ValueError
        If the model has a rejection column, which the toolbox would treat as a class.

    Examples
    --------
    >>> import torch
    >>> from distillguard import interop
    >>> model = torch.nn.Linear(2, 2)
    >>> interop.to_art(model, input_shape=(2,), n_classes=2).nb_classes  # doctest: +SKIP
    2
    """
    _check_answers(model)
    classification = _imported("art.estimators.classification", "adversarial-robustness-toolbox")
    return classification.PyTorchClassifier(
        model=model if isinstance(model, nn.Module) else _Lent(model),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(input_shape),
        nb_classes=n_classes,
        clip_values=tuple(bounds),
        device_type="gpu" if device_of(model, torch.device("cpu")).type == "cuda" else "cpu",
    )


class _Lent(nn.Module):
    """A model as a module, as other libraries require, whose mode they cannot change.

    It runs in its own dtype, whatever dtype the library uses.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def train(self, mode: bool = True) -> "_Lent":
        """Leave everything as it is: the lender has seen to it."""
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(fitted_to(self.model, inputs))


def _checked(found: Callable[[Model, Tensor, Tensor], Any]) -> Attack:
    """Lend the model, and return points like the inputs or refuse what is none."""

    def attack(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
        _check_answers(model)
        place = device_of(model, inputs.device)
        with lent(model), torch.cuda.device(place) if place.type == "cuda" else nullcontext():
            # Clones, for an attack may write into what it is given.
            points = found(model, inputs.detach().clone(), labels.clone())
        if not isinstance(points, Tensor):
            raise TypeError(f"attack must return a torch.Tensor, got {type(points).__name__}")
        if points.shape != inputs.shape:
            raise ValueError(
                f"attack must return points of the shape of its inputs, {tuple(inputs.shape)}, "
                f"got {tuple(points.shape)}"
            )
        return points.detach().to(inputs)

    return attack


def _check_answers(model: Any) -> None:
    """Refuse a model whose refusals another library would take for a class to end at."""
    if rejects(model):
        raise ValueError(
            "model must name a class for every input, got one whose last column is rejection, "
            "which other libraries take for one more class; use the attacks of distillguard, which "
            "go past it"
        )


def _is_maker(value: Any) -> bool:
    return isinstance(value, type | functools.partial) or inspect.isroutine(value)


def _check_factory(factory: Any, argument: str = "model") -> None:
    """Refuse what cannot be given a model because it has one, and what cannot be called."""
    if _is_maker(factory):
        return
    name = type(factory).__name__
    if not callable(factory) and not _looks_bound(factory):
        raise TypeError(f"factory must be a function from a {argument} to an attack, got {name}")
    raise TypeError(
        f"factory must be a function from a {argument} to an attack, got {name}, which is bound "
        f"already; pass lambda {argument}: {name}({argument}, ...)"
    )


def _looks_bound(value: Any) -> bool:
    return hasattr(value, "generate") or hasattr(value, "run_standard_evaluation")


def _check_made(made: Any, fits: bool, library: str) -> None:
    if not fits:
        raise TypeError(f"factory must return an attack of {library}, got {_named(made)}")


def _check_settings(function: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Refuse settings that the function would refuse when it is too late."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # compiled ones may have none
        return
    try:
        signature.bind(None, None, None, **settings)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise TypeError(f"settings must be keywords of {name}, got {settings}: {error}") from None


def _named(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _imported(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"this needs {package}; install it with: pip install {package}"
        ) from error
