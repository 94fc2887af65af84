"""EOT: a randomised model as the mean of many draws."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._account import question
from .._model_kinds import check_model
from .._rejection import rejects
from .._validation import check_at_least, check_output, look_like_probabilities


class Averaged(nn.Module):
    """A model whose probabilities are the mean over several draws.

    What :func:`averaged` returns.

    Parameters
    ----------
    model : nn.Module or callable
        Takes inputs of shape (n, ...) and returns logits. A module is shared, not copied.
    draws : int
        How often it is asked.

    Attributes
    ----------
    model, draws
        What was given.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], draws: int) -> None:
        super().__init__()
        check_model(model)
        check_at_least("draws", draws, 1)
        self.model = model
        self.draws = int(draws)

    @property
    def adaptation(self) -> str:
        """What reports say of it."""
        return f"the mean over {self.draws} draws (EOT)"

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection, as in the model inside."""
        return rejects(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logarithm of the mean softmax.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            What the model takes.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits, in single precision at least; their softmax is the mean.
        """
        with question(len(inputs), self.adaptation, self.draws, self.draws) as watch:
            # Copies: a model that works in place would change what the next draw is asked.
            drawn = [self.model(inputs.clone()) for _ in range(self.draws)]
            _check(drawn[0], len(inputs))
            kind = torch.promote_types(drawn[0].dtype, torch.float32)
            logarithms = torch.stack([torch.log_softmax(one.to(kind), dim=1) for one in drawn])
            return watch(torch.logsumexp(logarithms, dim=0) - math.log(self.draws))

    def extra_repr(self) -> str:
        """Return what stands between the brackets of the module's ``repr``.

        Returns
        -------
        str
            The number of draws.
        """
        return f"draws={self.draws}"


def _check(logits: Tensor, n: int) -> None:
    check_output(logits, n)
    if look_like_probabilities(logits):
        raise ValueError(
            "model must return logits, got probabilities; pass "
            "networks.Logits(model, pick=torch.log), or the model without its softmax"
        )


def averaged(model: Callable[[Tensor], Tensor], draws: int = 20) -> Averaged:
    r"""Take the mean of a randomised model over many draws, gradients included (EOT) [1]_.

    The answer is the logarithm of the mean softmax,

    .. math::
        \operatorname{logsumexp}_k \log\operatorname{softmax}(z_k) - \log K,

    over the logits :math:`z_1, \ldots, z_K` of :math:`K` questions about the same inputs, and its
    gradient goes back through all of them. An attack on one draw climbs that draw's noise; on the
    mean it climbs what the defence does on average. Each question has draws of its own, so that
    a verdict never rests on those that the attack has seen.

    Parameters
    ----------
    model : nn.Module or callable
        Takes inputs of shape (n, ...) and returns logits, drawing random numbers from PyTorch's
        global generators. A module is shared, not copied.
    draws : int, default=20
        How often it is asked for one answer. Passes, and the memory of a gradient, grow with it.

    Returns
    -------
    Averaged
        A module that is asked in place of ``model``.

    Raises
    ------
    TypeError
        If ``model`` cannot be called or ``draws`` is no integer.
    ValueError
        If ``draws`` is below 1; when asked, if the model returns probabilities.

    See Also
    --------
    distillguard.evaluate : Takes ``draws``, and judges a randomised model so.

    References
    ----------
    .. [1] A. Athalye, N. Carlini and D. Wagner, "Obfuscated Gradients Give a False Sense of
       Security", ICML 2018, section 4.2. https://arxiv.org/abs/1802.00420

    Examples
    --------
    >>> import torch
    >>> from distillguard.adaptive import averaged
    >>> noisy = lambda inputs: inputs + 0.1 * torch.randn_like(inputs)
    >>> averaged(noisy, 50)(torch.eye(3)).softmax(dim=1).argmax(dim=1)
    tensor([0, 1, 2])
    """
    return Averaged(model, draws)
