"""Modules that wrap a network and change its inputs or its outputs."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._modes import device_of, dtype_of
from .._rejection import rejects
from .._validation import check_finite, check_positive
from .._words import described


class Normalized(nn.Module):
    """A network that normalises its inputs itself, so that attacks work on raw inputs.

    Computes ``network((inputs - mean) / std)``. Norms, budgets and bounds of attacks and
    evaluations then refer to raw inputs, such as images in [0, 1] and an epsilon of 8/255, as is
    usual in publications [1]_.

    Parameters
    ----------
    network : nn.Module
        Takes normalised inputs of shape (n, ...). Shared, not copied.
    mean : float, sequence of float or Tensor of shape (n_channels,)
        Subtracted from the inputs: one number, or one for each channel (axis 1).
    std : float, sequence of float or Tensor of shape (n_channels,)
        Divides the result, above 0.

    Attributes
    ----------
    network : nn.Module
        The network inside.
    mean, std : Tensor of shape (1,) or (n_channels,)
        Buffers with the dtype and device of the network, included in the ``state_dict``.

    Raises
    ------
    TypeError
        If ``network`` is not a module, or ``mean`` or ``std`` does not contain numbers.
    ValueError
        If ``mean`` and ``std`` are not finite, of different lengths or of more than one axis,
        or ``std`` is not above 0.

    See Also
    --------
    Logits : Extracts the logits from the output of a network.

    References
    ----------
    .. [1] F. Croce, M. Andriushchenko, V. Sehwag, E. Debenedetti, N. Flammarion, M. Chiang,
       P. Mittal and M. Hein, "RobustBench: a standardized adversarial robustness benchmark",
       NeurIPS 2021. https://arxiv.org/abs/2010.09670

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import Normalized
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
    >>> model = Normalized(network, mean=(0.5, 0.4, 0.4), std=(0.2, 0.2, 0.25))
    >>> model(torch.rand(2, 3, 2, 2)).shape
    torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: float | Sequence[float] | Tensor,
        std: float | Sequence[float] | Tensor,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network must be a module, got {described(network)}")
        one, other = _statistic("mean", mean), _statistic("std", std)
        if bool((other <= 0).any()):
            raise ValueError(f"std must be above 0, got {min(other.tolist())}")
        if len(one) != len(other) and 1 not in (len(one), len(other)):
            raise ValueError(
                f"std must have one number for each of {len(one)} in mean, got {len(other)}"
            )
        self.network = network
        kind = dtype_of(network, torch.get_default_dtype())
        device = device_of(network, torch.device("cpu"))
        self.register_buffer("mean", one.to(device, kind))
        self.register_buffer("std", other.to(device, kind))

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection, as in the wrapped network."""
        return rejects(self.network)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise the inputs and run the network.

        Parameters
        ----------
        inputs : Tensor of shape (n, n_channels, ...)
            Raw inputs.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Output of the network, usually logits.
        """
        channels = max(len(self.mean), len(self.std))
        if channels > 1 and (inputs.ndim < 2 or inputs.shape[1] != channels):
            raise ValueError(
                f"inputs must have {channels} channels in axis 1, one for each mean and std, got "
                f"shape {tuple(inputs.shape)}"
            )
        shape = (-1, *(1,) * (inputs.ndim - 2))
        result: Tensor = self.network((inputs - self.mean.view(shape)) / self.std.view(shape))
        return result


class Logits(nn.Module):
    """A network that returns only its logits, of shape (n, n_classes).

    Extracts them from a dict, a tuple or an object such as the ``ModelOutput`` of transformers,
    and turns the single logit z of a binary classifier into the pair (0, z), which has the same
    probabilities: the sigmoid of z is the softmax of (0, z).

    Parameters
    ----------
    module : nn.Module or callable
        Takes inputs of shape (n, ...). A module is shared, not copied.
    pick : str, int or callable, default="logits"
        Where the logits are: a key or attribute, a position, or a function of the whole output.
        If the output already is a tensor, a key or position is ignored.

    Attributes
    ----------
    module : nn.Module or callable
        As given.
    pick : str, int or callable
        As given.

    Raises
    ------
    TypeError
        If ``module`` is not callable, or ``pick`` is of another type.
    ValueError
        When called, if there is no ``pick`` in the output.

    See Also
    --------
    Normalized : Normalises the inputs of a network.

    Notes
    -----
    A single logit must be the value before the sigmoid. Remove a final sigmoid first: its
    probabilities p are never below 0, so the pairs (0, p) would always predict class 1.

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import Logits
    >>> binary = torch.nn.Linear(4, 1)
    >>> Logits(binary)(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    >>> model = Logits(lambda inputs: {"loss": None, "scores": inputs[:, :2]}, "scores")
    >>> model(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 2.]])
    """

    def __init__(
        self, module: Callable[[Tensor], Any], pick: str | int | Callable[[Any], Tensor] = "logits"
    ) -> None:
        super().__init__()
        if not callable(module) or isinstance(module, type):
            raise TypeError(f"module must be a module or a callable, got {described(module)}")
        if isinstance(pick, bool) or not (isinstance(pick, str | int) or callable(pick)):
            raise TypeError(f"pick must be a string, an integer or a callable, got {pick!r}")
        self.module = module
        self.pick = pick

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network and extract the logits from its output.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Inputs of the network.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits.
        """
        logits = self._picked(self.module(inputs))
        if isinstance(logits, Tensor) and logits.shape in ((len(inputs),), (len(inputs), 1)):
            z = logits.reshape(-1)
            return torch.stack([torch.zeros_like(z), z], dim=1)
        return logits

    def _picked(self, output: Any) -> Tensor:
        if callable(self.pick):
            return self.pick(output)
        if isinstance(output, Tensor):
            return output
        named = isinstance(self.pick, str) and not isinstance(output, Mapping)
        try:
            found: Tensor = getattr(output, self.pick) if named else output[self.pick]  # type: ignore[arg-type]
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError(
                f"pick must be in what the module returns, got {self.pick!r} and "
                f"{described(output)}"
            ) from None
        return found


class Rejecting(nn.Module):
    """A network whose last logit is rejection rather than a class.

    Attacks and :func:`~distillguard.evaluate` then count a rejected adversarial example as
    withstood and a rejected clean one as an error, and attacks aim at another class.

    Parameters
    ----------
    network : nn.Module
        Takes inputs of shape (n, ...) and returns logits of shape (n, n_classes + 1). Shared, not
        copied.
    offset : float, default=0.0
        Added to the last column; below 0, the network rejects less.

    Attributes
    ----------
    network : nn.Module
        The network inside.
    offset : Tensor of shape ()
        A buffer with the dtype and device of the network.
    rejects : bool
        True: the last column is rejection.

    Raises
    ------
    TypeError
        If ``network`` is not a module or ``offset`` not a number.
    ValueError
        If ``offset`` is not finite.

    See Also
    --------
    distillguard.ExtendedDistiller : Trains such a network.
    distillguard.LayeredDefense : Rejects inputs by detectors.

    Examples
    --------
    >>> import torch
    >>> from distillguard import attacks
    >>> from distillguard.networks import Rejecting
    >>> model = Rejecting(torch.nn.Linear(4, 3))  # two classes and rejection
    >>> inputs, labels = torch.rand(2, 4), torch.tensor([0, 1])
    >>> attacks.fgsm(model, inputs, labels, epsilon=0.1).shape
    torch.Size([2, 4])
    """

    rejects = True
    offset: Tensor

    def __init__(self, network: nn.Module, offset: float = 0.0) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network must be a module, got {described(network)}")
        check_finite("offset", offset)
        self.network = network
        kind = dtype_of(network, torch.get_default_dtype())
        device = device_of(network, torch.device("cpu"))
        self.register_buffer("offset", torch.tensor(float(offset), dtype=kind, device=device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network and add the offset to its last column.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Inputs of the network.

        Returns
        -------
        Tensor of shape (n, n_classes + 1)
            Logits, the last column for rejection.
        """
        logits: Tensor = self.network(inputs)
        return torch.cat([logits[:, :-1], logits[:, -1:] + self.offset.to(logits)], dim=1)

    def extra_repr(self) -> str:
        """Return the arguments shown in the module's ``repr``.

        Returns
        -------
        str
            The offset.
        """
        return f"offset={self.offset.item():g}"


class Scaled(nn.Module):
    """A network whose logits are multiplied by a constant.

    Distillation at a temperature T returns this if the factor T cannot be stored in the weights
    of the network: because its last layer is normalised (spectral norm, cosines), shares its
    weights with another layer, or is followed by a nonlinear operation.

    Parameters
    ----------
    network : nn.Module
        Takes inputs of shape (n, ...) and returns logits of shape (n, n_classes). Shared, not
        copied.
    factor : float
        Factor of the logits, above 0.

    Attributes
    ----------
    network : nn.Module
        The network inside.
    factor : Tensor of shape ()
        A buffer with the dtype and device of the network.

    Raises
    ------
    TypeError
        If ``network`` is not a module or ``factor`` not a number.
    ValueError
        If ``factor`` is not a finite number above 0.

    See Also
    --------
    distillguard.DefensiveDistiller : Distils at a temperature.

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import Scaled
    >>> network = torch.nn.Linear(3, 2)
    >>> inputs = torch.rand(4, 3)
    >>> torch.allclose(Scaled(network, 20.0)(inputs), 20 * network(inputs))
    True
    """

    factor: Tensor

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network must be a module, got {described(network)}")
        check_positive("factor", factor)
        self.network = network
        kind = dtype_of(network, torch.get_default_dtype())
        device = device_of(network, torch.device("cpu"))
        self.register_buffer("factor", torch.tensor(float(factor), dtype=kind, device=device))

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection, as in the wrapped network."""
        return rejects(self.network)

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network and multiply its logits.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Inputs of the network.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits.
        """
        logits: Tensor = self.network(inputs) * self.factor
        return logits

    def extra_repr(self) -> str:
        """Return the arguments shown in the module's ``repr``.

        Returns
        -------
        str
            The factor.
        """
        return f"factor={self.factor.item():g}"


def scaled_as_saved(network: nn.Module, names: Collection[str]) -> nn.Module:
    """Return the module that matches a saved state: the network, or a ``Scaled`` around it."""
    inside = {f"network.{name}" for name in network.state_dict()}
    return Scaled(network, 1.0) if set(names) == {"factor", *inside} else network


def _statistic(name: str, values: Any) -> Tensor:
    """A number or one per channel, as a tensor of one axis."""
    try:
        tensor = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number or one per channel, got {values!r}") from None
    tensor = tensor.squeeze()
    if tensor.ndim > 1 or not tensor.numel():
        raise ValueError(
            f"{name} must be a number or one per channel, got shape {tuple(tensor.shape)}"
        )
    if not bool(tensor.isfinite().all()):
        wrong = next(value for value in tensor.reshape(-1).tolist() if not math.isfinite(value))
        raise ValueError(f"{name} must be finite, got {wrong}")
    return tensor.reshape(-1)
