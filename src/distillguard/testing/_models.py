"""What a model promises to whoever attacks or evaluates it."""

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
    """Test what attacks and evaluations take for granted of a model.

    The model is borrowed: in eval mode, with frozen parameters, and given back as it was. It is
    asked about the examples, about the extremes of what the bounds allow, and about points in
    between: some 500 rows and 160 gradients, of which a copy in float64 answers 50 and 16. A small
    network takes a second, a ResNet-18 on images of 32 x 32 some 15 s of one core.

    ======================  ====================================================================
    promise                 kept by a model that
    ======================  ====================================================================
    ``answers``             returns n rows of logits for n examples
    ``inputs-kept``         writes nothing into its inputs
    ``dtype-and-device``    answers in the dtype and on the device of its inputs
    ``state-kept``          leaves its parameters and buffers alone in eval mode
    ``repeatable``          answers a question twice in the same way: no dropout, no noise
    ``order-independence``  answers rows in another order in that order
    ``batch-independence``  answers an example alone as in any batch: no batch statistics
    ``finite-logits``       returns neither NaN nor infinity within the bounds
    ``no-stairs``           follows small changes: no argmax, no rounding
    ``logits``              returns no probabilities
    ``differentiable``      leads back to its inputs by autograd
    ``true-gradient``       has the gradient that finite differences of its answers have
    ``gradient-at-bounds``  has a gradient for values on a bound: no clamp or ReLU on the input
    ``live-coordinates``    looks at every value of an input
    ======================  ====================================================================

    Parameters
    ----------
    model : nn.Module or callable
        Takes inputs of shape (n, ...) and returns logits of shape (n, n_classes).
    example_inputs : Tensor of shape (n, ...), floating
        One example or a few, as the model gets them. They are moved to its device and dtype.
    bounds : pair of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value of an input, as attacks take them.
    skip : str or collection of str, default=()
        Promises that the model does not make.

    Raises
    ------
    BrokenPromiseError
        If the model broke a promise. The message names each, with what was found and the
        smallest batch that shows it: one row where one is enough. Promises that cannot be judged
        without a broken one are listed as such.
    TypeError
        If ``model`` cannot be called or ``example_inputs`` is no floating tensor.
    ValueError
        If ``example_inputs`` is empty or leaves the bounds, or ``skip`` names no promise.

    See Also
    --------
    distillguard.evaluate : Measures what a model withstands; its findings say what hides that.

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
      batch-independence: model must answer an example alone as in any batch, got other logits...
    """
    check_kind(model)
    check_inputs(example_inputs)
    if not len(example_inputs):
        raise ValueError("example_inputs must hold at least one example, got 0")
    with borrowed(model):
        subject = ModelSubject.of(model, example_inputs, bounds)
        run(CHECKS, subject, "model", skip)
