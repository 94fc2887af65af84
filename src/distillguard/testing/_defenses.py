"""Promises of a layer or a detector to the defence that it is part of."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from .._modes import borrowed
from .._typing import Range
from .._validation import check_inputs
from .._words import described
from . import _answers, _parts, _slopes
from ._defense_subject import DefenseSubject
from ._promises import Check, run
from ._traces import other_generators_kept

CHECKS: list[Check[DefenseSubject]] = [
    Check("answers", _parts.answers),
    Check("inputs-kept", _parts.of_model(_answers.inputs_kept), ("answers",)),
    Check("range", _parts.range_kept, ("answers",)),
    Check("dtype-and-device", _parts.dtype_and_device, ("answers",)),
    Check("state-kept", _parts.of_model(_answers.state_kept), ("answers",)),
    Check("generators-kept", _parts.generators_kept, ("answers",)),
    Check("repeatable", _parts.repeatable, ("answers",)),
    Check("seed", _parts.random_by_seed, ("answers", "repeatable")),
    Check("empty-batch", _parts.empty, ("answers",)),
    Check("no-grad", _parts.same_without_grad, ("answers", "repeatable", "seed")),
    Check(
        "order-independence",
        _parts.independent(_answers.order_independence),
        ("answers", "repeatable", "seed"),
    ),
    Check(
        "batch-independence",
        _parts.independent(_answers.batch_independence),
        ("answers", "repeatable", "seed", "order-independence"),
    ),
    Check("no-stairs", _parts.exact(_slopes.steady), ("answers", "no-grad", "batch-independence")),
    Check("differentiable", _parts.of_model(_slopes.differentiable), ("answers", "no-stairs")),
    Check("true-gradient", _parts.exact(_slopes.true_gradient), ("no-stairs", "differentiable")),
    Check("identity-gradient", _parts.identity_gradient, ("answers", "differentiable")),
    Check(
        "gradient-at-bounds",
        _parts.of_model(_slopes.gradient_at_bounds),
        ("true-gradient", "identity-gradient"),
    ),
    Check("model-kept", _parts.classifier_kept, ("answers",)),
    Check("parameters", _parts.parameters_told, ("answers", "repeatable", "seed")),
    Check("copy", _parts.copies, ("answers", "repeatable", "seed")),
    Check("pickle", _parts.pickles, ("answers", "repeatable", "seed", "copy")),
]


def check_defense(
    layer: nn.Module,
    example_inputs: Tensor | None = None,
    *,
    bounds: Range | None = None,
    skip: str | Collection[str] = (),
) -> None:
    """Test that a layer or a detector has the properties that a layered defence relies on.

    A copy is tested, in eval mode: a layer in front of a small smooth classifier, a detector with
    one. A detector that has to be trained is fitted to the examples. A part that draws random
    numbers declares this by ``random``; it is tested from one state of the global generator, and
    for independence of the batch with a fixed ``seed``. A part that rounds declares this by
    ``gradient``, and must pass the gradient of the identity.

    ======================  ====================================================================
    promise                 kept by a layer or detector that
    ======================  ====================================================================
    ``answers``             keeps the shape (detectors: one number an example), all finite
    ``inputs-kept``         does not change its inputs
    ``range``               returns values within the bounds (layers)
    ``dtype-and-device``    keeps the dtype (layers: float64 too) and the device
    ``state-kept``          does not change its parameters and buffers
    ``generators-kept``     leaves the global generators unchanged unless it is random
    ``repeatable``          returns the same twice, or declares itself random
    ``seed``                draws from torch's global generator, or by its ``seed`` alone
    ``empty-batch``         returns an empty result for an empty batch (layers)
    ``no-grad``             returns the same with and without gradients
    ``order-independence``  reorders its outputs with its inputs
    ``batch-independence``  returns the same for an example alone and in any batch
    ``no-stairs``           responds to small changes, or declares another gradient
    ``differentiable``      can be differentiated by autograd with respect to its inputs
    ``true-gradient``       has the gradient of its values, or declares another one
    ``identity-gradient``   passes gradients unchanged if it declares ``"identity"``
    ``gradient-at-bounds``  has a gradient for values on a bound
    ``model-kept``          does not change the classifier (detectors)
    ``parameters``          stores each argument of its constructor under the same name
    ``copy``                returns the same after a deep copy, which shares no weights
    ``pickle``              returns the same after pickling
    ======================  ====================================================================

    Parameters
    ----------
    layer : nn.Module or Detector
        A layer, such as a :class:`~distillguard.defenses.Layer`, or a detector.
    example_inputs : Tensor of shape (n, ...), floating, optional
        Inputs for it. If not given, six images of shape (3, 8, 8).
    bounds : (float, float), optional
        Lowest and highest value of an input. If not given, its own ``bounds``, else 0 and 1.
    skip : str or collection of str, default=()
        Names of promises to leave out, such as ``differentiable``, ``true-gradient`` and
        ``gradient-at-bounds`` for a layer without a gradient.

    Raises
    ------
    BrokenPromiseError
        If a promise is broken; the message names each, with the smallest example.
    TypeError
        If ``layer`` is not a module or ``example_inputs`` is not a floating-point tensor.
    ValueError
        If ``example_inputs`` is empty, or ``skip`` has a name that is not a promise.

    See Also
    --------
    check_model : The same for a whole network.

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import BitDepth, Layer
    >>> from distillguard.testing import check_defense
    >>> check_defense(BitDepth(3))
    >>> class Centred(Layer):
    ...     def transform(self, inputs):
    ...         return inputs - inputs.mean(dim=0) + 0.5
    >>> check_defense(Centred(), skip=("pickle",))
    Traceback (most recent call last):
    distillguard.exceptions.BrokenPromiseError: layer must keep its promises, got 1 of 21 broken
      batch-independence: layer must return the same logits for an example alone and in any batch...
    """
    if not isinstance(layer, nn.Module):
        raise TypeError(f"layer must be an nn.Module, got {described(layer)}")
    if example_inputs is not None:
        check_inputs(example_inputs)
        if not len(example_inputs):
            raise ValueError("example_inputs must hold at least one example, got 0")
    with torch.random.fork_rng(devices=[]), other_generators_kept():
        subject = DefenseSubject.of_part(layer, example_inputs, bounds)
        with borrowed(subject.model):
            run(CHECKS, subject, "detector" if subject.detects else "layer", skip)
