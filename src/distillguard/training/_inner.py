"""The inner maximisation of robust training: a few steps of ascent, all examples together.

Training wants the same few steps for every example of a batch and nothing judged, so this is the
bare loop rather than an attack; any attack can be put in its place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from .._geometry import ascent_step, ball, inside, project_to_budget
from .._modes import differentiable
from .._typing import Norm, Range


@dataclass(frozen=True)
class Ascent:
    """Projected gradient ascent from a uniform point of the ball, on the examples of a batch."""

    norm: Norm
    epsilon: float
    steps: int
    step_size: float
    bounds: Range

    def __call__(self, inputs: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Points near ``inputs`` at which ``value``, one number per example, is large."""
        budget = (self.norm, self.epsilon, *self.bounds)
        length = inputs.new_full((len(inputs),), self.step_size)
        keys = torch.randint(2**62, (len(inputs),), device="cpu").to(inputs.device)
        start = self.epsilon * ball(self.norm).sample(inputs, keys, 0)
        points = project_to_budget(inputs + start, inputs, *budget)
        with torch.enable_grad():
            for _ in range(self.steps):
                # At a bound itself a clamp inside the network would hide the gradient.
                asked = inside(points, *self.bounds, points.dtype).requires_grad_()
                (gradient,) = torch.autograd.grad(value(asked).sum(), asked)
                step = ascent_step(points, gradient, inputs, self.norm, length, *self.bounds)
                points = project_to_budget(points + step, inputs, *budget)
        return points


@contextmanager
def attack_mode(network: nn.Module, batch_statistics: bool) -> Iterator[None]:
    """Put a network in training into the mode in which it is attacked.

    Eval mode, as in TRADES and RSLAD; or, with ``batch_statistics``, training mode whose
    BatchNorm layers normalise by the batch but keep their running statistics as they are, as in
    Gowal et al. 2021 and Bartoldson et al. 2024.
    """
    modules = list(network.modules())
    # Frozen TorchScript has no mode.
    modes = [(m, m.training) for m in modules if hasattr(m, "training")]
    frozen = [m for m in modules if isinstance(m, _BatchNorm) and m.track_running_stats]
    try:
        if batch_statistics:
            for layer in frozen:
                layer.track_running_stats = False
        else:
            network.eval()
        with differentiable(network):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for layer in frozen:
            layer.track_running_stats = True


def perturbed(
    network: nn.Module, direct: nn.Module, value: Callable[[nn.Module], Tensor], size: float
) -> Callable[[Tensor], Tensor]:
    """The network with its weights moved to where ``value`` is large (AWP, Wu et al. 2020, eq. 9).

    Each weight of two axes or more moves along its gradient by ``size`` times its own norm. The
    moves are constants: what is computed with them has the gradients of the network's weights.
    ``direct`` is the same network without the wrappers of training.
    """
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    with torch.enable_grad():
        gradients = torch.autograd.grad(value(direct), weights, allow_unused=True)
    moved = {
        id(weight): weight + size * weight.detach().norm() / (gradient.norm() + 1e-20) * gradient
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    }
    # Every module once, under one name, and tied weights under each of theirs: a module of two
    # names would be given its own weights back in the wrong order.
    named = {
        f"{path}.{name}".lstrip("."): moved[id(weight)]
        for path, module in network.named_modules()
        for name, weight in module.named_parameters(recurse=False)
        if id(weight) in moved
    }
    return lambda inputs: functional_call(network, named, (inputs,), tie_weights=False)
