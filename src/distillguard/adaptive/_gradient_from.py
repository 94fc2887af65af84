"""A model's answers with the gradient of a student of it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._account import question
from .._model_kinds import check_model
from .._modes import fitted_to
from .._rejection import rejects
from .._validation import check_output
from .._words import described
from ._lending import lent, wants_gradient
from ._straight_through import called
from ._surrogate import Surrogate


class GradientFrom(nn.Module):
    """A model whose gradient is a student's.

    What :func:`gradient_from` returns.

    Parameters
    ----------
    model : nn.Module or callable
        Whose answers count. A module is shared, not copied.
    student : nn.Module or callable
        Whose gradient is followed. A module is shared, not copied.

    Attributes
    ----------
    model, student
        What was given.
    """

    def __init__(
        self, model: Callable[[Tensor], Tensor], student: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        check_model(model)
        check_model(student, "student")
        self.model = model
        self.student = student

    @property
    def adaptation(self) -> str:
        """What reports say of it."""
        return f"the gradient of a student, {told(self.student)}"

    @property
    def rejects(self) -> bool:
        """Whether the last column is rejection, as in the model inside."""
        return rejects(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's logits.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            What both networks take.

        Returns
        -------
        Tensor of shape (n, n_classes)
            The model's values, bit for bit.
        """
        asked = wants_gradient(inputs)
        with question(len(inputs), self.adaptation, 1 + asked, 1) as watch:
            if not asked:
                return self.model(inputs)
            with torch.no_grad():
                logits = self.model(inputs.detach().clone())
            check_output(logits, len(inputs))
            taught = self.student(fitted_to(self.student, inputs))
            check_output(taught, len(inputs), "student")
            if taught.shape != logits.shape:
                raise ValueError(
                    f"student must return as many logits as model, {logits.shape[1]}, got "
                    f"{described(taught)}"
                )
            return watch(lent(logits, taught.to(logits.device)))


def told(student: Callable[[Tensor], Tensor]) -> str:
    """What a student is, and what it cost where that is known."""
    if isinstance(student, Surrogate):
        return (
            f"{called(student.network)} distilled from {student.forwards} answers of the model in "
            f"{student.seconds:.1f} s, which agrees with {100 * student.agreement:.1f} % of them"
        )
    return called(student)


def gradient_from(
    model: Callable[[Tensor], Tensor], student: Callable[[Tensor], Tensor]
) -> GradientFrom:
    """Answer as a model does, with the gradient of a student of it.

    For a model that has no gradient worth following and nothing in it to step over: a program, a
    tree, a defence that is spread over the network. Attacks see the model's answers, and every
    success is one against the model; the student only says where to go. One that was distilled from
    the model's own answers, by :func:`distil_surrogate`, is the best known guide [1]_.

    Parameters
    ----------
    model : nn.Module or callable
        Takes inputs of shape (n, ...) and returns logits; needs no gradient.
    student : nn.Module or callable
        Takes the same and returns as many logits, differentiably.

    Returns
    -------
    GradientFrom
        A module that is asked in place of ``model``.

    Raises
    ------
    TypeError
        If an argument cannot be called.
    ValueError
        When asked, if the two return different shapes.

    See Also
    --------
    distil_surrogate : Trains such a student.
    straight_through : Replaces the gradient of one part alone.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, I. Goodfellow, S. Jha, Z. B. Celik and A. Swami, "Practical
       Black-Box Attacks against Machine Learning", AsiaCCS 2017. https://arxiv.org/abs/1602.02697

    Examples
    --------
    >>> import torch
    >>> from distillguard.adaptive import gradient_from
    >>> student = torch.nn.Linear(2, 2, bias=False)
    >>> attacked = gradient_from(lambda inputs: (10 * inputs).round(), student)
    >>> inputs = torch.tensor([[0.12, 0.37]], requires_grad=True)
    >>> attacked(inputs)[0].tolist()
    [1.0, 4.0]
    >>> (gradient,) = torch.autograd.grad(attacked(inputs)[0, 1], inputs)
    >>> bool((gradient[0] == student.weight[1]).all())
    True
    """
    return GradientFrom(model, student)
