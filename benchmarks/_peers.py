"""Our attacks, a bare loop and four other libraries, called alike.

An adapter takes the name of an attack and its settings and returns a function of (model, inputs,
labels) that returns adversarial examples. A library is imported when it is first asked for.
"""

import importlib
import sys
import types
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from distillguard import attacks

OURS, BARE, ART = "distillguard", "bare loop", "ART"
ATTACKBENCH = "attackbench"
MODULES = {
    "adv-lib": "adv_lib.attacks",
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    ART: "art.attacks.evasion",
    ATTACKBENCH: "attackbench.attacks.adv_lib.wrapper",
}
PACKAGES = ("adv-lib", "foolbox", "torchattacks", "adversarial-robustness-toolbox")

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]


def imported(library: str) -> Any:
    """Import a library's attacks; ImportError where it is not installed."""
    # Clients of servers, imported by adv-lib and attackbenchlib even where they are not asked.
    for client, name in (("visdom", "Visdom"), ("wandb", "Api")):
        if client not in sys.modules and library in ("adv-lib", ATTACKBENCH):
            sys.modules[client] = types.ModuleType(client)
            setattr(sys.modules[client], name, object)
    return importlib.import_module(MODULES[library]) if library in MODULES else None


def next_class(labels: Tensor, n_classes: int = 10) -> Tensor:
    """Return the class after the true one."""
    return (labels + 1) % n_classes


def ours(name: str, *, following: bool = False, **settings: Any) -> Run:
    """Adapt an attack of distillguard's; ``following``: towards the class after the true one.

    It draws by the seed of the global generator, as the peers do.
    """
    attack = getattr(attacks, name)
    draws = "random_state" in signature(attack).parameters

    def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        given = {**settings, "random_state": torch.initial_seed()} if draws else settings
        if following:
            return attack(model, inputs, next_class(labels), targeted=True, **given)
        return attack(model, inputs, labels, **given)

    return run


def bare(
    name: str,
    *,
    epsilon: float,
    step_size: float,
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int = 40,
) -> Run:
    """PGD as everybody writes it by hand: all examples, all steps, the last iterate."""

    def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        low, high = (inputs - epsilon).clamp(min=0), (inputs + epsilon).clamp(max=1)
        points = (inputs + torch.empty_like(inputs).uniform_(-epsilon, epsilon)).clamp(0, 1)
        for _ in range(steps):
            points.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(model(points), labels).sum(), points)
            points = (points.detach() + step_size * gradient.sign()).clamp(low, high)
        return points

    return run


def adv_lib(name: str, **settings: Any) -> Run:
    """Adapt an attack of adv-lib's."""

    def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return getattr(imported("adv-lib"), name)(model, inputs, labels, **settings)

    return run


def foolbox(name: str, *, epsilon: float | None = None, **settings: Any) -> Run:
    """Adapt an attack of foolbox's."""

    def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        library = imported("foolbox")
        wrapped = library.PyTorchModel(model, bounds=(0, 1), device=inputs.device)
        attack = getattr(library.attacks, name)(**settings)
        return attack(wrapped, inputs, labels, epsilons=epsilon)[1]

    return run


def torchattacks(name: str, **settings: Any) -> Run:
    """Adapt an attack of torchattacks'."""

    def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return getattr(imported("torchattacks"), name)(model, **settings)(inputs, labels)

    return run


def art(name: str, *, following: bool = False, **settings: Any) -> Run:
    """Adapt an attack of ART's; ``following`` as in :func:`ours`."""

    def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        attack = getattr(imported(ART), name)
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            model,
            nn.CrossEntropyLoss(),
            input_shape=tuple(inputs.shape[1:]),
            nb_classes=10,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        quiet = {"verbose": False} if "verbose" in attack.attack_params else {}
        aims = next_class(labels) if following else labels
        made = attack(classifier, **quiet, **settings).generate(x=inputs.numpy(), y=aims.numpy())
        return torch.from_numpy(made)

    return run


ADAPTERS: dict[str, Callable[..., Run]] = {
    OURS: ours,
    BARE: bare,
    "adv-lib": adv_lib,
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    ART: art,
}
