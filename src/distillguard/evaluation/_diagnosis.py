"""What is measured to tell a robust model from a failed attack; the rules are elsewhere."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._modes import device_of, dtype_of
from .._typing import Model
from .._validation import check_differentiable
from ..attacks import pgd
from ..exceptions import NoGradientError
from ..functional import cross_entropy
from ._records import Records
from ._run import Run
from ._subject import CountedModel, logits_of

PROBE_STEPS = 20
"""Steps of the two probing attacks: enough for either to converge on an undefended network."""


@dataclass(frozen=True)
class Observations:
    """Counts and averages that the rules read. ``None``: could not be measured."""

    correct: int
    """Examples classified correctly before any attack."""

    saturated: int
    """Of those, the examples whose softmax gives all other classes exactly 0."""

    mean_logit: float
    """Mean absolute logit."""

    median_margin: float
    """Median lead of the labelled logit over the best other one, of the correct examples."""

    sampled: int
    """Correct examples that the following is measured on."""

    zero_gradients: int | None = None
    """Examples whose input gradient of the cross-entropy is exactly 0."""

    zero_gradients_double: int | None = None
    """The same with the model in float64."""

    zero_gradients_scaled: int | None = None
    """The same on logits divided by their range, example by example."""

    cross_entropy_stands: int | None = None
    """Examples that withstand PGD on the cross-entropy."""

    margin_stands: int | None = None
    """Examples that withstand PGD on the margin, with the same steps and starts."""

    only_margin: int | None = None
    """Examples that the margin fools and the cross-entropy does not."""

    only_cross_entropy: int | None = None
    """Examples that the cross-entropy fools and the margin does not."""


def diagnose(run: Run) -> Observations:
    """Measure everything on the sample of correct examples that the run kept."""
    sample = run.records.sample
    clean = clean_observations(run.records)
    if not len(sample):
        return Observations(**clean, sampled=0)

    device = device_of(run.model, torch.device("cpu"))
    inputs, labels = sample["inputs"].to(device), sample["labels"].to(device)
    with run.accounted("diagnosis"):
        measured = {**gradients(run, inputs, labels), **losses(run, inputs, labels)}
    return Observations(**clean, sampled=len(sample), **measured)


def clean_observations(records: Records) -> dict[str, Any]:
    """What the clean pass alone tells."""
    columns = records.columns
    correct = columns["predicted"] == columns["label"]
    margins = -columns["margin"][correct]
    return {
        "correct": int(correct.sum()),
        "saturated": int(columns["saturated"][correct].sum()),
        "mean_logit": columns["magnitude"].mean().item(),
        "median_margin": margins.median().item() if len(margins) else 0.0,
    }


def gradients(run: Run, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """Count vanished gradients three times, to tell underflow from flatness."""

    def count(model: Model, dtype: torch.dtype, scale: Callable[[Tensor], Tensor]) -> int:
        pairs = zip(inputs.split(run.batch_size), labels.split(run.batch_size), strict=True)
        return sum(vanished(model, x.to(dtype), y, scale) for x, y in pairs)

    dtype = dtype_of(run.model, inputs.dtype)
    try:
        plain = count(run.model, dtype, unchanged)
        scaled = count(run.model, dtype, by_range)
    except NoGradientError:
        return {}
    double = in_double(run.model)
    return {
        "zero_gradients": plain,
        "zero_gradients_scaled": scaled,
        "zero_gradients_double": count(double, torch.float64, unchanged) if double else None,
    }


def vanished(
    model: Model, inputs: Tensor, labels: Tensor, scale: Callable[[Tensor], Tensor]
) -> int:
    """How many examples have an input gradient of exactly 0."""
    inputs = inputs.detach().requires_grad_()
    logits = model(inputs)
    check_differentiable(logits)
    loss = cross_entropy(scale(logits), labels).sum()
    (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
    if gradient is None:
        raise NoGradientError
    return int((gradient.flatten(1) == 0).all(dim=1).sum())


def unchanged(logits: Tensor) -> Tensor:
    """Return the logits as they are."""
    return logits


def by_range(logits: Tensor) -> Tensor:
    """Logits divided by their range, which no softmax can saturate."""
    reach = (logits.amax(dim=1, keepdim=True) - logits.amin(dim=1, keepdim=True)).detach()
    return logits / torch.where(reach > 0, reach, 1)


def in_double(model: CountedModel) -> CountedModel | None:
    """Copy the model into float64, still counted as the original; None where that fails."""
    if not isinstance(model.model, nn.Module):
        return None
    try:
        inner = copy.deepcopy(model.model).double()
    except (RuntimeError, TypeError, AttributeError, NotImplementedError):
        return None
    return CountedModel(inner, model.counts)


def losses(run: Run, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """Send the same attack up the cross-entropy and up the margin."""
    try:
        cross = stands(run, inputs, labels, "cross_entropy")
    except NoGradientError:
        return {}
    margin = stands(run, inputs, labels, "margin")
    return {
        "cross_entropy_stands": int(cross.sum()),
        "margin_stands": int(margin.sum()),
        "only_margin": int((cross & ~margin).sum()),
        "only_cross_entropy": int((margin & ~cross).sum()),
    }


def stands(run: Run, inputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Which examples withstand a short PGD on a loss."""
    adversarial = pgd(
        run.model,
        inputs,
        labels,
        epsilon=run.threat.epsilon,
        norm=run.threat.norm,
        loss=loss,
        steps=PROBE_STEPS,
        bounds=run.threat.bounds,
        batch_size=run.batch_size,
        random_state=run.seed,
    )
    dtype = dtype_of(run.model, inputs.dtype)
    return logits_of(run.model, adversarial, dtype, run.batch_size).argmax(dim=1) == labels
