"""Checks at the public boundary, one grammar: ``<argument> must <rule>, got <value>``."""

import math
from collections.abc import Collection, Mapping
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._typing import Distance, Norm
from ._words import described, written
from .exceptions import NoGradientError

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")

DISTANCES: tuple[Distance, ...] = (*NORMS, "l0", "l0_pixels")

_NORM_WORDS: dict[str, Distance] = {
    **dict.fromkeys(("linf", "inf", "linfinity", "infinity", "max", "l∞"), "linf"),
    **dict.fromkeys(("l2", "2", "2.0", "euclidean"), "l2"),
    **dict.fromkeys(("l1", "1", "1.0", "manhattan"), "l1"),
    **dict.fromkeys(("l0", "0", "0.0", "sparse"), "l0"),
    **dict.fromkeys(("l0pixels", "pixels"), "l0_pixels"),
}
"""What else people call the norms."""

_NO_GRAPH = (
    "model must be differentiable with respect to its input, got an output without a graph; "
    "look for detach(), no_grad(), NumPy or argmax inside its forward, or use an attack that "
    "needs no gradients"
)


def check_positive(name: str, value: Any) -> None:
    """Refuse everything but a finite number above 0."""
    _check_real(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")


def check_at_least(name: str, value: Any, least: int) -> None:
    """Refuse everything but an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")


def check_in_unit_interval(name: str, value: Any) -> None:
    """Refuse everything but a number in [0, 1]."""
    _check_real(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")


def check_share(name: str, value: Any) -> None:
    """Refuse everything but a number in (0, 1)."""
    check_in_unit_interval(name, value)
    if value in (0, 1):
        raise ValueError(f"{name} must be above 0 and below 1, got {value!r}")


def check_not_negative(name: str, value: Any) -> None:
    """Refuse everything but a finite number of at least 0."""
    _check_real(name, value)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")


def check_finite(name: str, value: Any) -> None:
    """Refuse everything but a finite number."""
    _check_real(name, value)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Refuse everything but one of ``choices``."""
    if not any(value is each or value == each for each in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_norm(norm: Any, allowed: tuple[Distance, ...] = NORMS) -> None:
    """Refuse a norm that the attack does not know."""
    try:
        check_choice("norm", norm, allowed)
    except ValueError as error:
        meant = _NORM_WORDS.get(str(norm).lower().replace("_", "").replace("-", ""))
        if meant is None or meant not in allowed:
            raise
        raise ValueError(f"{error}; write {meant!r}") from None


def check_epsilon(epsilon: Any, norm: Distance, name: str = "epsilon") -> None:
    """Refuse everything but a radius of the norm: a number above 0, in l0 a whole one."""
    check_positive(name, epsilon)
    if norm in ("l0", "l0_pixels") and epsilon != int(epsilon):
        counted = "pixels" if norm == "l0_pixels" else "values"
        raise ValueError(f"{name} must be a whole number of {counted} in {norm}, got {epsilon!r}")


def check_random_state(random_state: Any) -> None:
    """Refuse a seed that is neither None nor an integer of at least 0."""
    if random_state is not None:
        check_at_least("random_state", random_state, 0)


def check_inputs(inputs: Any) -> None:
    """Refuse inputs that are not a floating tensor of examples."""
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"inputs must be a torch.Tensor, got {type(inputs).__name__}; write "
            "torch.as_tensor(inputs)"
        )
    if inputs.layout != torch.strided:
        raise TypeError("inputs must be dense, got a sparse tensor; write inputs.to_dense()")
    if not inputs.is_floating_point():
        raise TypeError(
            f"inputs must be floating point, got {inputs.dtype}; "
            "for images stored as integers use inputs.float() / 255"
        )
    if inputs.ndim < 2:
        raise ValueError(
            f"inputs must have shape (n, ...) with at least two axes, got {tuple(inputs.shape)}"
        )


def check_labels(labels: Any, inputs: Tensor) -> None:
    """Refuse labels that are not one int64 class per example."""
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"labels must be a torch.Tensor, got {type(labels).__name__}; write "
            "torch.as_tensor(labels)"
        )
    if labels.dtype != torch.int64:
        raise TypeError(
            f"labels must have dtype torch.int64, got {labels.dtype}; write labels.long()"
        )
    n = len(inputs)
    if labels.shape != (n,):
        column = "; write labels[:, 0]" if labels.shape == (n, 1) else ""
        one_hot = labels.ndim == 2 and len(labels) == n and not column
        remedy = "; write labels.argmax(1)" if one_hot else column
        raise ValueError(
            f"labels must have shape ({n},), one class per input, got {tuple(labels.shape)}{remedy}"
        )


def check_logits(logits: Any, n: int, name: str = "model") -> None:
    """Refuse a model's output that is not finite logits of shape (n, n_classes)."""
    check_finite_output(logits, n, name)
    if look_like_probabilities(logits):
        raise ValueError(
            f"{name} must return logits, got rows in [0, 1] that sum to 1; "
            "remove the final softmax (gradients through it vanish and attacks then mislead)"
        )


def check_finite_output(logits: Any, n: int, name: str = "model") -> None:
    """Refuse what is not finite numbers of shape (n, n_classes), logits or not."""
    check_output(logits, n, name)
    if not logits.isfinite().all():
        if not logits.isnan().any() and bool((logits == -torch.inf).any()):
            raise ValueError(
                f"{name} must return finite logits, got -infinity, such as the logarithm of a "
                "probability of 0; return what goes into the softmax, or its log_softmax"
            )
        raise ValueError(f"{name} must return finite logits, got NaN or infinity")


def check_output(output: Any, n: int, name: str = "model") -> None:
    """Refuse what has not the type and shape of logits, and say how to get at them."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{name} must return a torch.Tensor of logits, got {described(output)}"
            f"{_where_logits_are(output, n, name)}"
        )
    if not output.is_floating_point():
        remedy = "; return what goes into argmax" if output.ndim == 1 else ""
        raise TypeError(f"{name} must return floating point logits, got {output.dtype}{remedy}")
    if output.ndim != 2 or len(output) != n or output.shape[1] < 2:
        raise ValueError(
            f"{name} must return logits of shape ({n}, n_classes) with at least two classes, "
            f"got {tuple(output.shape)}{_how_to_reshape(output, n, name)}"
        )


def _where_logits_are(output: Any, n: int, name: str) -> str:
    if output is None:
        return "; let its forward return them"
    if isinstance(output, nn.Module):
        return "; pass the module that the function returns"
    if hasattr(output, "__array__"):
        return "; compute them in PyTorch, without NumPy"
    parts = parts_of(output)
    fitting = [
        key
        for key, part in parts.items()
        if isinstance(part, Tensor) and part.is_floating_point() and part.shape[:1] == (n,)
    ]
    fitting.sort(key=lambda key: (key != "logits", parts[key].ndim != 2))
    pick = next(iter(fitting), None)
    return "" if pick is None else f"; wrap it: networks.Logits({name}, {pick!r})"


def parts_of(output: Any) -> Mapping[Any, Any]:
    """What an output other than a tensor holds, by key, position or name."""
    if isinstance(output, Mapping):
        return output
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    if isinstance(output, list | tuple):
        return dict(enumerate(output))
    return getattr(output, "__dict__", {})


def _how_to_reshape(output: Tensor, n: int, name: str) -> str:
    if output.ndim and len(output) != n:
        return "; look for a view or reshape that mixes examples"
    if output.ndim > 2:
        axes = "2" if output.ndim == 3 else str(tuple(range(2, output.ndim)))
        return f"; wrap it: networks.Logits({name}, lambda output: output.mean({axes}))"
    if output.shape not in ((n,), (n, 1)):
        return ""
    wrap = f"wrap it: networks.Logits({name}), which makes the pair (0, z) of one logit z"
    if bool(((output >= 0) & (output <= 1)).all()):
        return f"; remove the final sigmoid if it has one, then {wrap}"
    return f"; {wrap}"


def check_label_range(labels: Tensor, n_classes: int, name: str = "labels") -> None:
    """Refuse labels outside the classes that the model distinguishes."""
    if not len(labels):
        return
    low, high = (int(extreme) for extreme in labels.aminmax())
    if low >= 0 and high < n_classes:
        return
    remedy = ""
    if low == 1 and high == n_classes:
        remedy = f"; if they count from 1, write {written(name, '{} - 1')}"
    elif (low, high, n_classes) == (-1, 1, 2):
        remedy = f"; write {written(name, '({} + 1) // 2')}"
    elif low == -1:
        remedy = "; if -1 marks examples without a class, leave those out"
    raise ValueError(
        f"{name} must be classes from 0 to {n_classes - 1}, got values in [{low}, {high}]{remedy}"
    )


def check_differentiable(logits: Tensor) -> None:
    """Refuse an output that autograd cannot trace back to the input."""
    if not logits.requires_grad:
        raise NoGradientError(_NO_GRAPH)


def check_gradient(gradient: Tensor | None) -> Tensor:
    """Refuse the None that autograd gives where the graph leads elsewhere than to the input."""
    if gradient is None:
        raise NoGradientError(_NO_GRAPH)
    return gradient


def check_same_shape(**two: Tensor) -> None:
    """Refuse two tensors, given by name, of different shapes."""
    (name, one), (other_name, other) = two.items()
    if one.shape != other.shape:
        raise ValueError(
            f"{name} must have the shape of {other_name} {tuple(other.shape)}, "
            f"got {tuple(one.shape)}"
        )


def look_like_probabilities(logits: Tensor) -> bool:
    """Whether every row is in [0, 1] and sums to 1, within 1e-5 (AutoAttack's flag) or rounding."""
    if not len(logits):
        return False
    # Each probability is rounded by half an eps of itself, and they sum to 1.
    slack = max(1e-5, torch.finfo(logits.dtype).eps)
    values = logits.detach().float()
    in_range = bool(((values > -slack) & (values < 1 + slack)).all())
    return in_range and bool(((values.sum(dim=1) - 1).abs() < slack).all())


def _check_real(name: str, value: Any) -> None:
    if isinstance(value, Fraction | Decimal):  # PyTorch computes with neither
        raise TypeError(f"{name} must be a number, got {value!r}; write float({name})")
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1:
        raise TypeError(f"{name} must be a number, got {value!r}; write {name}.item()")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
