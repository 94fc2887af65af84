"""Promises of an attack, tested on models with known answers."""

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
    """Test that an attack has the properties that evaluations rely on.

    It runs on models with known answers: a half-space, a ball, a model that cannot be fooled, one
    with a zero gradient, and one with batch normalisation, dropout and existing gradients, which
    must be left unchanged. The examples are eight images of twelve values in [0, 1]. A promise
    about a keyword is tested only if the attack accepts it.

    ======================  ====================================================================
    promise                 kept by an attack that
    ======================  ====================================================================
    ``returns``             returns finite points in the shape, dtype and device of the inputs
    ``inputs-kept``         does not change inputs and labels
    ``model-kept``          leaves modes, ``requires_grad``, gradients, statistics unchanged
    ``generators-kept``     leaves the global generators of torch, NumPy, Python unchanged
    ``bounds``              stays within [0, 1] exactly, and within other ``bounds``
    ``budget``              stays within ``epsilon`` up to rounding
    ``fools``               fools a linear model if half of the budget is enough
    ``judged-alone``        returns successes that also hold alone and in float64
    ``failures-unchanged``  returns unchanged what it cannot fool (without ``epsilon``)
    ``zero-gradient``       returns no NaN if the gradient is zero
    ``repeatable``          returns the same points with the same ``random_state``
    ``batch-independence``  returns the same in any batch, ``batch_size`` and order
    ``empty-batch``         returns an empty result for an empty batch
    ``no-grad``             works under ``torch.no_grad()``
    ``mask``                does not change what ``mask`` excludes
    ``targeted``            reaches an easy target with ``targeted=True``
    ======================  ====================================================================

    Parameters
    ----------
    attack : callable
        Takes a model, inputs of shape (n, ...) and labels of shape (n,), and returns points of the
        shape of the inputs. Fix its settings with ``functools.partial``.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, optional
        Norm of its distances. If not given, the attack's own default for ``norm``, else linf.
    epsilon : float, optional
        Its budget. If not given, the attack's own default for ``epsilon``; an attack without one
        is tested as a minimum-distance attack.
    skip : str or collection of str, default=()
        Names of promises to leave out.

    Raises
    ------
    BrokenPromiseError
        If the attack breaks a promise; the message names each, with the smallest example.
    TypeError
        If ``attack`` cannot be called.
    ValueError
        If ``norm`` or ``epsilon`` is invalid, or ``skip`` has a name that is not a promise.

    Examples
    --------
    >>> from functools import partial
    >>> from distillguard import attacks
    >>> from distillguard.testing import check_attack
    >>> check_attack(partial(attacks.pgd, epsilon=0.1, steps=10))
    >>> check_attack(lambda model, inputs, labels: inputs + 0.1, epsilon=0.1)
    Traceback (most recent call last):
    distillguard.exceptions.BrokenPromiseError: attack must keep its promises, got 1 of 16 broken
      bounds: attack must stay within the bounds (0, 1) exactly, got values beyond them by 0.1; ...
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
