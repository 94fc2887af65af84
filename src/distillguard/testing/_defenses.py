"""What a layer or a detector promises to the defence that it is part of."""

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
    """Test what a layered defence takes for granted of a layer or a detector.

    A copy is asked, in eval mode: a layer in front of a small smooth classifier, a detector about
    one. A detector that has something to learn learns it from the examples. What draws random
    numbers says so by ``random``, and is asked with one state of the global generator, about its
    neighbours with a ``seed``; what rounds says so by ``gradient``, and passes the gradient of the
    identity.

    ======================  ====================================================================
    promise                 kept by a layer or detector that
    ======================  ====================================================================
    ``answers``             keeps the shape; a detector: one number an example; all finite
    ``inputs-kept``         writes nothing into its inputs
    ``range``               returns values within the bounds (layers)
    ``dtype-and-device``    answers in the dtype, a layer in float64 too, and on the device
    ``state-kept``          leaves its parameters and buffers alone
    ``generators-kept``     leaves the global generators alone unless it says it is random
    ``repeatable``          answers a question twice in the same way, or says it is random
    ``seed``                draws by torch's global generator, or by its ``seed`` alone
    ``empty-batch``         returns nothing for no examples (layers)
    ``no-grad``             answers alike with and without gradients
    ``order-independence``  answers rows in another order in that order
    ``batch-independence``  answers an example alone as in any batch
    ``no-stairs``           follows small changes, or says its gradient is another's
    ``differentiable``      leads back to its inputs by autograd
    ``true-gradient``       has the gradient of its values, or says it is another's
    ``identity-gradient``   passes gradients unchanged where it says ``"identity"``
    ``gradient-at-bounds``  has a gradient for values on a bound
    ``model-kept``          leaves the classifier alone (detectors)
    ``parameters``          keeps each argument of its constructor under the same name
    ``copy``                answers alike after a deep copy, which shares no weights
    ``pickle``              answers alike after a pickle
    ======================  ====================================================================

    Parameters
    ----------
    layer : nn.Module or Detector
        A layer, such as a :class:`~distillguard.defenses.Layer`, or a detector.
    example_inputs : Tensor of shape (n, ...), floating, optional
        Examples that it takes. If not given, six images of shape (3, 8, 8).
    bounds : (float, float), optional
        Lowest and highest value of an input. If not given, its own ``bounds``, else 0 and 1.
    skip : str or collection of str, default=()
        Promises that it does not make, such as ``differentiable``, ``true-gradient`` and
        ``gradient-at-bounds`` of a layer that has no gradient.

    Raises
    ------
    BrokenPromiseError
        If a promise broke; the message names each, with the smallest example.
    TypeError
        If ``layer`` is no module or ``example_inputs`` is no floating tensor.
    ValueError
        If ``example_inputs`` is empty, or ``skip`` names no promise.

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
      batch-independence: layer must answer an example alone as in any batch, got other logits...
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
