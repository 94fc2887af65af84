"""Promises of a model to attacks and evaluations."""

from collections.abc import Collection

from torch import Tensor

from .._model_kinds import check_model as check_kind
from .._modes import borrowed
from .._typing import Bounds, Model
from .._validation import check_inputs
from . import _answers, _slopes
from ._promises import Check, run
from ._subject import ModelSubject

CHECKS: list[Check[ModelSubject]] = [
    Check("answers", _answers.answers),
    Check("inputs-kept", _answers.inputs_kept, ("answers",)),
    Check("dtype-and-device", _answers.dtype_and_device, ("answers",)),
    Check("state-kept", _answers.state_kept, ("answers",)),
    Check("repeatable", _answers.repeatable, ("answers",)),
    Check("order-independence", _answers.order_independence, ("answers", "repeatable")),
    Check(
        "batch-independence",
        _answers.batch_independence,
        ("answers", "repeatable", "order-independence"),
    ),
    Check("finite-logits", _answers.finite_logits, ("answers", "batch-independence")),
    Check("no-stairs", _slopes.steady, ("answers", "repeatable", "batch-independence")),
    Check("logits", _answers.logits_not_probabilities, ("answers", "no-stairs")),
    Check("differentiable", _slopes.differentiable, ("answers", "no-stairs")),
    Check("true-gradient", _slopes.true_gradient, ("no-stairs", "differentiable")),
    Check("gradient-at-bounds", _slopes.gradient_at_bounds, ("true-gradient",)),
    Check("live-coordinates", _slopes.live_coordinates, ("true-gradient",)),
]


def check_model(
    model: Model,
    example_inputs: Tensor,
    *,
    bounds: Bounds = (0.0, 1.0),
    skip: str | Collection[str] = (),
) -> None:
    """Test that a model has the properties that attacks and evaluations rely on.

    The model is tested in eval mode with frozen parameters, and restored afterwards. It is
    evaluated at the examples, at the extremes that the bounds allow, and at points in between:
    about 500 rows and 160 gradients, of which 50 and 16 on a copy in float64. A small network
    takes a second, a ResNet-18 on images of 32 x 32 about 15 s on one core.

    ======================  ====================================================================
    promise                 kept by a model that
    ======================  ====================================================================
    ``answers``             returns n rows of logits for n examples
    ``inputs-kept``         does not change its inputs
    ``dtype-and-device``    returns logits in the dtype and on the device of its inputs
    ``state-kept``          does not change its parameters and buffers in eval mode
    ``repeatable``          returns the same logits twice: no dropout, no noise
    ``order-independence``  reorders its logits with its inputs
    ``batch-independence``  returns the same alone and in any batch: no batch statistics
    ``finite-logits``       returns neither NaN nor infinity within the bounds
    ``no-stairs``           responds to small changes: no argmax, no rounding
    ``logits``              returns logits, not probabilities
    ``differentiable``      can be differentiated by autograd with respect to its inputs
    ``true-gradient``       has a gradient that agrees with finite differences
    ``gradient-at-bounds``  has a gradient for values on a bound: no clamp or ReLU on the input
    ``live-coordinates``    uses every value of an input
    ======================  ====================================================================

    Parameters
    ----------
    model : nn.Module or callable
        Takes inputs of shape (n, ...) and returns logits of shape (n, n_classes).
    example_inputs : Tensor of shape (n, ...), floating
        One or a few inputs of the model. They are moved to its device and dtype.
    bounds : pair of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value of an input, as attacks take them.
    skip : str or collection of str, default=()
        Names of promises to leave out.

    Raises
    ------
    BrokenPromiseError
        If the model breaks a promise. The message names each, with what was found and the
        smallest batch that shows it. Promises that cannot be judged because another one is broken
        are listed too.
    TypeError
        If ``model`` cannot be called or ``example_inputs`` is not a floating-point tensor.
    ValueError
        If ``example_inputs`` is empty or outside the bounds, or ``skip`` has a name that is not a
        promise.

    See Also
    --------
    distillguard.evaluate : Measure the robustness of a model.

    Examples
    --------
    >>> import torch
    >>> from distillguard.testing import check_model
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> check_model(network, torch.rand(4, 3, 4))
    >>> check_model(lambda x: network(x - x.mean(dim=0)), torch.rand(4, 3, 4))
    Traceback (most recent call last):
    distillguard.exceptions.BrokenPromiseError: model must keep its promises, got 1 of 14 broken
      batch-independence: model must return the same logits for an example alone and in any batch...
    """
    check_kind(model)
    check_inputs(example_inputs)
    if not len(example_inputs):
        raise ValueError("example_inputs must hold at least one example, got 0")
    with borrowed(model), _answers.values_kept(model):
        subject = ModelSubject.of(model, example_inputs, bounds)
        run(CHECKS, subject, "model", skip)
