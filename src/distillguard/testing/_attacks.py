"""What an attack promises, tested on models of which the answer is known."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from .._typing import Distance
from .._validation import DISTANCES, check_norm, check_positive
from . import _borrowing, _points
from ._attack_subject import AttackSubject
from ._promises import Check, run
from ._traces import other_generators_kept

CHECKS: list[Check[AttackSubject]] = [
    Check("returns", _points.returns),
    Check("inputs-kept", _borrowing.inputs_kept, ("returns",)),
    Check("model-kept", _borrowing.model_kept, ("returns",)),
    Check("generators-kept", _borrowing.generators_kept, ("returns",)),
    Check("bounds", _points.bounds_kept, ("returns",)),
    Check("budget", _points.budget_kept, ("returns",)),
    Check("fools", _points.fools, ("returns",)),
    Check("judged-alone", _points.judged_alone, ("returns",)),
    Check("failures-unchanged", _points.failures_unchanged, ("returns",)),
    Check("zero-gradient", _points.finite_on_plateaus, ("returns",)),
    Check("repeatable", _points.repeatable, ("returns",)),
    Check("batch-independence", _points.batch_independence, ("returns", "repeatable")),
    Check("empty-batch", _points.empty, ("returns",)),
    Check("no-grad", _borrowing.without_grad, ("returns", "repeatable")),
    Check("mask", _points.mask_kept, ("returns",)),
    Check("targeted", _points.targets_reached, ("returns", "fools")),
]


def check_attack(
    attack: Callable[..., Tensor],
    *,
    norm: Distance | None = None,
    epsilon: float | None = None,
    skip: str | Collection[str] = (),
) -> None:
    """Test what evaluations take for granted of an attack, on models with known answers.

    The models are a half-space, a ball, one that nobody can fool, one without a slope, and one
    with batch normalisation, dropout and gradients of its own that has to come back as it was;
    the examples are eight images of twelve values in [0, 1]. Promises about a keyword are tested
    where the attack takes it.

    ======================  ====================================================================
    promise                 kept by an attack that
    ======================  ====================================================================
    ``returns``             returns finite points in the shape, dtype and device of the inputs
    ``inputs-kept``         leaves inputs and labels alone
    ``model-kept``          leaves modes, ``requires_grad``, gradients and statistics alone
    ``generators-kept``     leaves the global generators of torch, NumPy and Python alone
    ``bounds``              keeps to [0, 1] exactly, and to other ``bounds``
    ``budget``              stays within ``epsilon`` up to rounding
    ``fools``               fools a linear model where half of the budget is enough
    ``judged-alone``        returns successes that hold alone and in float64
    ``failures-unchanged``  without ``epsilon``: returns what it cannot fool unchanged
    ``zero-gradient``       gives no NaN where the gradient is zero
    ``repeatable``          returns the same points with the same ``random_state``
    ``batch-independence``  treats an example alike in any batch, ``batch_size`` and order
    ``empty-batch``         returns no points for no examples
    ``no-grad``             works under ``torch.no_grad()``
    ``mask``                leaves alone what ``mask`` excludes
    ``targeted``            reaches an easy target with ``targeted=True``
    ======================  ====================================================================

    Parameters
    ----------
    attack : callable
        Takes a model, inputs of shape (n, ...) and labels of shape (n,), and returns points like
        the inputs; settings are fixed by ``functools.partial``.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, optional
        Where its distances are measured. If not given, its own keyword ``norm``, else linf.
    epsilon : float, optional
        Its budget. If not given, its own keyword ``epsilon``; an attack without one is taken to
        look for the nearest point.
    skip : str or collection of str, default=()
        Promises that the attack does not make.

    Raises
    ------
    BrokenPromiseError
        If the attack broke a promise; the message names each, with the smallest example.
    TypeError
        If ``attack`` cannot be called.
    ValueError
        If ``norm`` or ``epsilon`` is none, or ``skip`` names no promise.

    Examples
    --------
    >>> from functools import partial
    >>> from distillguard import attacks
    >>> from distillguard.testing import check_attack
    >>> check_attack(partial(attacks.pgd, epsilon=0.1, steps=10))
    >>> check_attack(lambda model, inputs, labels: inputs + 0.1, epsilon=0.1)
    Traceback (most recent call last):
    distillguard.exceptions.BrokenPromiseError: attack must keep its promises, got 1 of 16 broken
      bounds: attack must keep to the bounds (0, 1) exactly, got values beyond them by 0.1; ...
    """
    if not callable(attack):
        raise TypeError(f"attack must be a callable, got {type(attack).__name__}")
    own = inspect.signature(attack).parameters
    norm = _own(own, "norm", "linf") if norm is None else norm
    check_norm(norm, DISTANCES)
    epsilon = _own(own, "epsilon", None) if epsilon is None else epsilon
    if epsilon is not None:
        check_positive("epsilon", epsilon)
    subject = AttackSubject(attack, norm, epsilon, set(own))
    with torch.random.fork_rng(devices=[]), other_generators_kept():
        run(CHECKS, subject, "attack", skip)


def _own(parameters: Any, name: str, default: Any) -> Any:
    value = parameters[name].default if name in parameters else inspect.Parameter.empty
    return default if value is inspect.Parameter.empty else value
