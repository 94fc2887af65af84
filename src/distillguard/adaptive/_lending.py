"""Values of one computation with the gradient of another."""

from typing import Any

import torch
from torch import Tensor


class _Lent(torch.autograd.Function):
    """Returns the values bit for bit; what comes back goes to the lender."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, lender: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.dtype = inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient.to(ctx.dtype)

    @staticmethod
    def jvp(ctx: Any, values: Tensor, lender: Tensor) -> Tensor:
        return lender


def lent(values: Tensor, lender: Tensor) -> Tensor:
    """Return ``values``, whose gradient is that of ``lender``, of the same shape."""
    result: Tensor = _Lent.apply(values.detach(), lender)
    return result


def wants_gradient(inputs: Any) -> bool:
    """Whether anybody may ask for the gradient at these inputs."""
    return isinstance(inputs, Tensor) and inputs.requires_grad and torch.is_grad_enabled()
