"""Whether the model waits for inputs on another scale than it is given."""

from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from ..._modes import device_of, dtype_of
from ..._rejection import rejects
from .._query import logits_of
from .._run import Run
from ._observations import Observations

ENOUGH = 0.9
"""Clean accuracy from which on a normalisation has little to gain."""

FEWEST = 8
"""Examples that it must put right before it is tried on those that are right as they are."""

SCALES = {"x * 255": (0.0, 1 / 255), "x / 255": (0.0, 255.0), "(x - 0.5) / 0.5": (0.5, 0.5)}
"""Mean and standard deviation for all coordinates."""

CHANNELS = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "MNIST": ((0.1307,), (0.3081,)),
    "Fashion-MNIST": ((0.2860,), (0.3530,)),
}
"""The customary ones by channel."""


class Scale(NamedTuple):
    """A normalisation of inputs: ``(x - mean) / std``, channel by channel."""

    name: str
    mean: Tensor
    std: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalise."""
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        return (inputs - self.mean.view(shape)) / self.std.view(shape)


def rescaling(run: Run) -> Observations:
    """Try the obvious normalisations on examples drawn from all of them."""
    drawn, columns = run.records.drawn, run.records.columns
    if (columns["predicted"] == columns["label"]).double().mean() >= ENOUGH:
        return Observations()
    if rejects(run.model):
        return Observations()  # any scale on which it rejects less would look like the right one
    device = device_of(run.model, torch.device("cpu"))
    inputs, labels = drawn["inputs"].to(device), drawn["labels"].to(device)
    index = drawn["index"]
    right = (columns["predicted"] == columns["label"])[index].to(device)
    # Where all classes are level it abstains, and on any scale on which it is surer it would not.
    level = (columns["margin"] == 0)[index].to(device)
    before = Observations(
        rescaled=len(labels),
        rescaling_before=int(right.sum()),
        rescaling_constant=int(labels.bincount().max()),
        rescaling_won=0,
        rescaling_lost=0,
    )
    tried = [before]
    for scale in scales(inputs):
        # The model is foreign code, and the inputs are none that it was ever shown.
        with suppress(Exception):
            tried.append(before | gain(run, scale, inputs, labels, right, ~right & ~level))
    return max(tried, key=net)


def gain(
    run: Run, scale: Scale, inputs: Tensor, labels: Tensor, right: Tensor, wrong: Tensor
) -> Observations:
    """Which wrong examples are right on this scale and, if many are, which right ones are wrong."""

    def turned(chosen: Tensor) -> int:
        if not bool(chosen.any()):
            return 0
        model, points = run.model, scale(inputs[chosen]).to(inputs.dtype)
        logits = logits_of(model, points, dtype_of(model, points.dtype), run.batch_size)
        return int(((logits.argmax(dim=1) == labels[chosen]) != right[chosen]).sum())

    won = turned(wrong)
    if won < FEWEST:
        return Observations()
    return Observations(
        rescaling=scale.name,
        rescaling_mean=tuple(scale.mean.tolist()),
        rescaling_std=tuple(scale.std.tolist()),
        rescaling_won=won,
        rescaling_lost=turned(right),
    )


def net(seen: Observations) -> int:
    """How many more examples are right."""
    return (seen.rescaling_won or 0) - (seen.rescaling_lost or 0)


def scales(inputs: Tensor) -> list[Scale]:
    """The candidates for inputs (n, channels, ...)."""
    if inputs.ndim < 2:
        return []
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    std, mean = torch.std_mean(inputs.double(), dim=axes, correction=0)
    found = [
        Scale(name, *(torch.full_like(mean, value) for value in pair))
        for name, pair in SCALES.items()
    ]
    found += [
        Scale(name, mean.new_tensor(means), mean.new_tensor(deviations))
        for name, (means, deviations) in CHANNELS.items()
        if inputs.ndim > 2 and len(means) == inputs.shape[1]
    ]
    return [*found, Scale(OWN, mean, torch.where(std > 0, std, 1))]


OWN = "the examples' own mean and standard deviation"
