"""Detection by the reconstruction error of an autoencoder."""

from collections.abc import Callable
from math import prod
from typing import Self

import torch
from torch import Tensor, nn

from .._modes import for_training, isolated_random_state, on_cpu
from .._validation import check_at_least, check_choice, check_not_negative, check_random_state
from ._detector import Detector


class ReconstructionError(Detector):
    r"""Detect inputs that an autoencoder trained on clean ones reconstructs badly (MagNet) [1]_.

    The score is the mean of :math:`|x - a(x)|^p` over the values of an example. For images, the
    autoencoder is convolutional, with half the height and width in between; for vectors it has one
    narrow hidden layer. Adam trains it to remove noise.

    Parameters
    ----------
    order : {1, 2}, default=1
        :math:`p`.
    noise : float, default=0.1
        Standard deviation of the noise added during training, in units of the inputs.
    width : int, default=8
        Channels of the hidden layers. For vectors the hidden width, at most a quarter of their
        length.
    max_epochs : int, default=30
        Epochs of training.
    random_state : int, optional
        Seed of the weights, the noise and the order of examples. None draws one from PyTorch's
        global generator.

    Attributes
    ----------
    autoencoder : nn.Module or None
        The trained network; None before ``fit``.

    References
    ----------
    .. [1] D. Meng and H. Chen, "MagNet: a Two-Pronged Defense against Adversarial Examples", CCS
       2017, section 4.2. https://arxiv.org/abs/1705.09064

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import ReconstructionError
    >>> flat = torch.full((200, 1), 0.5).expand(200, 6) * torch.rand(200, 1)
    >>> detector = ReconstructionError(noise=0.0, random_state=0).fit(flat)
    >>> striped = torch.tensor([[1.0, 0.0] * 3])
    >>> model = torch.nn.Identity()
    >>> bool(detector.score(model, striped) > detector.score(model, flat).max())
    True
    """

    def __init__(
        self,
        *,
        order: int = 1,
        noise: float = 0.1,
        width: int = 8,
        max_epochs: int = 30,
        random_state: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("order", order, (1, 2))
        check_not_negative("noise", noise)
        check_at_least("width", width, 1)
        check_at_least("max_epochs", max_epochs, 1)
        check_random_state(random_state)
        self.order = order
        self.noise = float(noise)
        self.width = width
        self.max_epochs = max_epochs
        self.random_state = random_state
        self.autoencoder: nn.Module | None = None

    @property
    def fitted(self) -> bool:
        """Whether the autoencoder has been trained or loaded."""
        return self.autoencoder is not None

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Create an autoencoder with random weights.

        Parameters
        ----------
        input_shape : tuple of int
            Shape of one example.
        """
        with on_cpu():
            self.autoencoder = _autoencoder(tuple(input_shape), self.width)

    def fit(self, inputs: Tensor) -> Self:
        """Train the autoencoder.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...), floating
            Clean examples.

        Returns
        -------
        ReconstructionError
            The detector itself.
        """
        inputs = inputs.detach().float()
        seed = self.random_state
        seed = int(torch.randint(2**62, (), device="cpu")) if seed is None else seed
        with for_training(inputs.device), isolated_random_state([], seed), on_cpu():
            network = _autoencoder(tuple(inputs.shape[1:]), self.width)
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
            for _ in range(self.max_epochs):
                for rows in torch.randperm(len(inputs), device="cpu").split(128):
                    clean = inputs[rows]
                    drawn = network(clean + self.noise * torch.randn_like(clean))
                    optimizer.zero_grad()
                    (drawn - clean).square().mean().backward()
                    optimizer.step()
        self.autoencoder = network.eval()
        return self

    def score(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return the mean reconstruction error of each input.

        Parameters
        ----------
        model : callable
            Not used.
        inputs : Tensor of shape (n, ...)
            Inputs to score.

        Returns
        -------
        Tensor of shape (n,)
            Errors, in units of the inputs to the power ``order``.

        Raises
        ------
        RuntimeError
            If the autoencoder is not trained yet.
        """
        if self.autoencoder is None:
            raise RuntimeError("ReconstructionError must be fitted before it scores; call fit")
        errors: Tensor = (inputs - self.autoencoder(inputs)).flatten(1).abs()
        return (errors**self.order).mean(dim=1)


def _autoencoder(shape: tuple[int, ...], width: int) -> nn.Module:
    if len(shape) != 3 or min(shape[1:]) < 4:
        size = prod(shape)
        narrow = max(1, min(width, size // 4))
        layers = [nn.Flatten(), nn.Linear(size, narrow), nn.ELU(), nn.Linear(narrow, size)]
        return nn.Sequential(*layers, nn.Unflatten(1, shape))
    channels, plane = shape[0], tuple(shape[1:])
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ELU(),
        nn.Upsample(size=plane),
        nn.Conv2d(width, channels, 3, padding=1),
    )
