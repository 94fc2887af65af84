"""BPDA: the values of a part that hides its gradient, and the gradient of something like it."""

from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeAlias

from torch import Tensor, nn

from .._account import question
from .._modes import one_at_a_time
from .._rejection import rejects
from .._words import described, listed
from ._before import StraightThroughBefore
from ._lending import lent, wants_gradient

Backward: TypeAlias = str | Callable[[Tensor], Tensor]
"""``"identity"``, or what takes the input of a part to something like its output."""


class _Lender(nn.Module):
    """A module with something to send gradients back through."""

    def __init__(self, backward: Backward) -> None:
        super().__init__()
        if not (backward == "identity" or (callable(backward) and not isinstance(backward, type))):
            raise TypeError(
                f"backward must be 'identity', a function or a module, got {described(backward)}"
            )
        self.backward = backward

    def _lend(self, values: Any, inputs: Tensor) -> Tensor:
        """Return ``values`` with the gradient of what ``backward`` makes of ``inputs``."""
        if not isinstance(values, Tensor):
            raise TypeError(f"target must return a tensor, got {described(values)}")
        if isinstance(self.backward, str):
            if values.shape != inputs.shape:
                raise ValueError(
                    "backward must be a function or a module where the part changes the shape of "
                    f"its input, got 'identity' and {tuple(inputs.shape)} to "
                    f"{tuple(values.shape)}; pass something differentiable that returns the latter"
                )
            return lent(values, inputs)
        lender = self.backward(inputs)
        if not isinstance(lender, Tensor) or lender.shape != values.shape:
            raise ValueError(
                f"backward must return what the part returns, a tensor of shape "
                f"{tuple(values.shape)}, got {described(lender)}"
            )
        return lent(values, lender)

    def _way_back(self) -> str:
        return "the identity" if isinstance(self.backward, str) else called(self.backward)


class StraightThrough(_Lender):
    """A function or module whose values stay and whose gradient is another's.

    What :func:`straight_through` returns for a function or module by itself.

    Parameters
    ----------
    target : callable
        Takes a tensor and returns one.
    backward : {"identity"}, callable or nn.Module, default="identity"
        Where gradients go back through.

    Attributes
    ----------
    target, backward
        What was given.
    """

    def __init__(self, target: Callable[[Tensor], Tensor], backward: Backward = "identity") -> None:
        super().__init__(backward)
        self.target = target

    @property
    def adaptation(self) -> str:
        """What reports say of it."""
        return f"{called(self.target)} with the gradient of {self._way_back()} (BPDA)"

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what ``target`` makes of the inputs.

        Parameters
        ----------
        inputs : Tensor
            What ``target`` takes.

        Returns
        -------
        Tensor
            Its values, bit for bit.
        """
        with question(len(inputs), self.adaptation, 1, 1) as watch:
            if not wants_gradient(inputs):
                return self.target(inputs)
            # Detached: NumPy takes no tensor that wants a gradient. A copy may be written into.
            values = self.target(inputs.detach().clone())
            return watch(self._lend(values, inputs))


class StraightThroughPart(_Lender):
    """A model one of whose parts keeps its values and has the gradient of something else.

    What :func:`straight_through` returns for a part of a model.

    Parameters
    ----------
    model : nn.Module
        The whole. Shared, not copied, and the same afterwards.
    part : str or nn.Module
        The name of a module inside, as ``named_modules`` gives it, or that module.
    backward : {"identity"}, callable or nn.Module, default="identity"
        Where gradients go back through.

    Attributes
    ----------
    model, backward
        What was given.
    part : str
        Name of the part.
    """

    def __init__(
        self, model: nn.Module, part: str | nn.Module, backward: Backward = "identity"
    ) -> None:
        super().__init__(backward)
        if not isinstance(model, nn.Module):
            raise TypeError(f"target must be a module with a part, got {described(model)}")
        self.model = model
        self.part = _name_in(model, part)

    @property
    def adaptation(self) -> str:
        """What reports say of it."""
        name = type(self.model.get_submodule(self.part)).__name__
        return f"{self.part!r} ({name}) with the gradient of {self._way_back()} (BPDA)"

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection, as in the model inside."""
        return rejects(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Ask the model, with a hook on the part meanwhile.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            What the model takes.

        Returns
        -------
        Tensor
            What the model returns, bit for bit.
        """
        thread = get_ident()
        given: list[Any] = []

        def before(_: nn.Module, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if get_ident() != thread:
                return None
            given.append(values[0] if values else None)
            if not wants_gradient(given[-1]):
                return None
            return (values[0].detach().clone(), *values[1:])

        def after(_: nn.Module, __: tuple[Any, ...], values: Any) -> Any:
            if get_ident() != thread:
                return None
            entered = given.pop()
            return self._lend(values, entered) if wants_gradient(entered) else None

        part = self.model.get_submodule(self.part)
        with question(len(inputs), self.adaptation, 1, 1) as watch, one_at_a_time():
            hooks = [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
            try:
                return watch(self.model(inputs))
            finally:
                for hook in hooks:
                    hook.remove()


def straight_through(
    target: Callable[[Tensor], Tensor],
    backward: Backward = "identity",
    *,
    part: str | nn.Module | None = None,
    before: nn.Module | None = None,
) -> StraightThrough | StraightThroughPart | StraightThroughBefore:
    r"""Give what hides its gradient the gradient of something like it (BPDA) [1]_.

    Forward, everything is as it was, bit for bit; backward, gradients take another way: past the
    part, as if it were the identity, or through a function or network that resembles it. Rounding,
    JPEG, thermometer codes, k-winners-take-all and whatever calls ``detach`` or NumPy are attacked
    so: they return nearly what they are given, and their own gradient is zero, none or noise.

    Parameters
    ----------
    target : callable or nn.Module
        A function or module by itself, from a tensor to a tensor, to be put in its place by hand;
        or, with ``part``, the whole model.
    backward : {"identity"}, callable or nn.Module, default="identity"
        Where gradients go back through: something differentiable that takes what the part takes and
        returns about what it returns. It has to be given where shapes change.
    part : str or nn.Module, optional
        The part of ``target``, by its name in ``named_modules`` or itself. A hook sits on it while
        the returned module is asked, and at no other time: the model is neither copied nor changed.
    before : nn.Module, optional
        A module that ``target`` asks, in place of ``part``: all that ``target`` does to its input
        before is stepped over. It serves a defence that is written in functions, and one of several
        steps, in front of a network that takes as many numbers as ``target`` does.

    Returns
    -------
    StraightThrough, StraightThroughPart or StraightThroughBefore
        A module that is asked in place of ``target``.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If there is no such part, or both ``part`` and ``before`` are given; when asked, if shapes
        disagree.

    See Also
    --------
    gradient_from : Where the whole model is too far from anything differentiable.
    averaged : Where the model draws random numbers.

    Notes
    -----
    The identity serves a part that returns about what it is given. Of several parts, wrap one
    after the other: ``straight_through(straight_through(model, part="a"), part="model.b")``.

    References
    ----------
    .. [1] A. Athalye, N. Carlini and D. Wagner, "Obfuscated Gradients Give a False Sense of
       Security", ICML 2018, section 4.1. https://arxiv.org/abs/1802.00420

    Examples
    --------
    >>> import torch
    >>> from distillguard.adaptive import straight_through
    >>> inputs = torch.tensor([[0.2, 0.7]], requires_grad=True)
    >>> rounded = straight_through(torch.round)(inputs)
    >>> rounded
    tensor([[0., 1.]], grad_fn=<_LentBackward>)
    >>> torch.autograd.grad(rounded.sum(), inputs)
    (tensor([[1., 1.]]),)

    A part of a model:

    >>> model = torch.nn.Sequential(torch.nn.Threshold(0.5, 0.0), torch.nn.Linear(2, 3))
    >>> attacked = straight_through(model, part="0")

    What a function does before it asks a network:

    >>> network = torch.nn.Linear(2, 3)
    >>> attacked = straight_through(lambda x: network(x.detach().round()), before=network)
    """
    if before is not None:
        if part is not None:
            raise ValueError("part must be None where before is given, got both; choose one")
        if backward != "identity":
            raise ValueError(f"backward must be 'identity' where before is given, got {backward!r}")
        return StraightThroughBefore(target, before)
    if part is not None:
        return StraightThroughPart(target, part, backward)  # type: ignore[arg-type]
    if not callable(target) or isinstance(target, type):
        raise TypeError(f"target must be a function or a module, got {described(target)}")
    return StraightThrough(target, backward)


def called(target: Any) -> str:
    """What people call a function or a module."""
    if isinstance(target, nn.Module):
        return type(target).__name__
    return getattr(target, "__name__", type(target).__name__)


def _name_in(model: nn.Module, part: Any) -> str:
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(part, nn.Module):
        found = [name for name, module in model.named_modules() if module is part and name]
        if found:
            return found[0]
    elif not isinstance(part, str):
        raise TypeError(f"part must be a name or a module, got {described(part)}")
    elif part in names:
        return part
    inside = f"there are {listed(names)}" if names else "there is none"
    got = repr(part) if isinstance(part, str) else described(part)
    raise ValueError(f"part must be a module inside target, got {got}; {inside}")
