"""A student distilled from a defended model's own answers, to lend its gradient."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._account import Account, charged, question
from .._boxes import check_bounds
from .._data import Spec
from .._data import examples as open_examples
from .._data._batch import Batch
from .._data._sources import TensorSource
from .._model_kinds import check_model
from .._modes import borrowed, fitted_to, for_training, isolated_random_state
from .._random import draw_seed
from .._rejection import rejects
from .._ruled_out import spread
from .._typing import NetworkFactory, Range
from .._validation import (
    check_at_least,
    check_choice,
    check_differentiable,
    check_logits,
    check_positive,
    check_random_state,
)
from ..networks._builders import built
from ..training import BatchLosses, Plan, Runtime, make_optimizer, train

FEW = 500
"""Examples below which a student follows its model badly."""

USUAL_RANGE = 10.0
"""Distance from an answer's smallest logit to its largest that a softmax keeps apart."""

LEAST_RANGE = 0.1
"""The same distance below which a softmax hardly tells anything apart."""

ASKED = 512
"""Examples that the model is asked about at once."""


class Surrogate(nn.Module):
    """A student of a defended model, with what it cost.

    What :func:`distil_surrogate` returns.

    Parameters
    ----------
    network : nn.Module
        The student.
    forwards : int
        Examples that the model was asked about.
    seconds : float
        Wall clock of questions and training.
    agreement : float
        Share of the examples asked about that both put in the same class.
    rejects : bool, default=False
        Whether the last column is rejection, as in the model.

    Attributes
    ----------
    network, forwards, seconds, agreement, rejects
        What was given.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        forwards: int,
        seconds: float,
        agreement: float,
        rejects: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.forwards = forwards
        self.seconds = seconds
        self.agreement = agreement
        self.rejects = rejects

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the student's logits.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            What the model takes.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits.
        """
        logits: Tensor = self.network(inputs)
        return logits

    def extra_repr(self) -> str:
        """Return what stands between the brackets of the module's ``repr``.

        Returns
        -------
        str
            What it cost, and how well it agrees.
        """
        return (
            f"forwards={self.forwards}, seconds={self.seconds:.1f}, agreement={self.agreement:.3f}"
        )


def distil_surrogate(
    model: Callable[[Tensor], Tensor],
    X: Any,
    *,
    adapt_data: Any = None,
    student: nn.Module | NetworkFactory | None = None,
    augmentation: str | None = "noise",
    rounds: int = 4,
    reach: float = 0.2,
    bounds: Range = (0.0, 1.0),
    max_epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    device: str = "auto",
    random_state: int | None = None,
    verbose: bool = False,
) -> Surrogate:
    """Distil a student from a defended model's own answers, to attack along its gradient.

    The model is asked about ``X`` and about points around it; a network without a defence learns
    the softmax of its answers. Where the model's own gradient is hidden, that of the student points
    to the same decision boundaries, and :func:`gradient_from` lends it to the model [1]_.

    Parameters
    ----------
    model : nn.Module or callable
        Takes inputs of shape (n, ...) and returns logits; needs no gradient. It is asked in eval
        mode and comes back in the modes it had.
    X : array or Tensor of shape (n, ...), Dataset or DataLoader
        Examples like those to attack; other than those, or the student knows more than an attacker
        would. Labels that come with them are not looked at.
    adapt_data : array or Tensor of shape (m, ...), Dataset or DataLoader, optional
        More examples of the same kind, to be asked about as well.
    student : nn.Module, callable or None, default=None
        The network to train. A module is copied; a callable ``(input_shape, n_classes)`` is called;
        None is a small multilayer perceptron sized from the data.
    augmentation : {"noise", "jacobian"} or None, default="noise"
        Which points around the examples to ask about: uniform noise, or steps along the sign of the
        student's own gradient, which look for the model's boundaries [1]_, or none.
    rounds : int, default=4
        Points asked about around each example.
    reach : float, default=0.2
        Largest distance in linf of such a point, as a share of the range of ``bounds``; of steps
        along the gradient, the length of each. About the ``epsilon`` of the attack to come.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value of an input.
    max_epochs : int, default=20
        Epochs of training; with ``"jacobian"`` in each of the rounds.
    batch_size : int, default=128
        Examples in a step.
    learning_rate : float, default=0.001
        Step size of Adam.
    device : str, default="auto"
        Where to train: a torch device, or ``"auto"`` for CUDA if there is any.
    random_state : int, optional
        Seed of everything random; a fresh one if not given.
    verbose : bool, default=False
        Show a progress bar for each epoch.

    Returns
    -------
    Surrogate
        The student in eval mode, with ``forwards``, ``seconds`` and ``agreement``.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument is out of its range, the examples leave ``bounds``, or the model returns
        something else than finite logits.

    Warns
    -----
    UserWarning
        If there are fewer than 500 examples.

    See Also
    --------
    gradient_from : Lends the student's gradient to the model.
    distillguard.DefensiveDistiller : The same trade, as a defence.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, I. Goodfellow, S. Jha, Z. B. Celik and A. Swami, "Practical
       Black-Box Attacks against Machine Learning", AsiaCCS 2017, section 4.
       https://arxiv.org/abs/1602.02697

    Examples
    --------
    >>> import torch
    >>> from distillguard.adaptive import distil_surrogate, gradient_from
    >>> hard = lambda inputs: 5 * (inputs[:, :2] > inputs[:, 2:]).float()
    >>> student = distil_surrogate(hard, torch.rand(600, 4), max_epochs=2, random_state=0)
    >>> student.forwards
    3000
    >>> attacked = gradient_from(hard, student)
    """
    check_model(model)
    check_choice("augmentation", augmentation, ("noise", "jacobian", None))
    check_at_least("rounds", rounds, 1)
    check_positive("reach", reach)
    check_at_least("max_epochs", max_epochs, 1)
    check_at_least("batch_size", batch_size, 1)
    check_positive("learning_rate", learning_rate)
    check_bounds(bounds)
    check_random_state(random_state)
    began, seed = time.perf_counter(), draw_seed(random_state)
    inputs = _inputs("X", X, bounds)
    if adapt_data is not None:
        inputs = torch.cat([inputs, _inputs("adapt_data", adapt_data, bounds).to(inputs)])
    if len(inputs) < FEW:
        warnings.warn(
            f"X holds {len(inputs)} examples: a student of fewer than {FEW} follows its model "
            "badly, and what its gradient does not find may be there; pass more as adapt_data",
            UserWarning,
            stacklevel=2,
        )
    runtime = Runtime(device, "32-true")
    with isolated_random_state(runtime.cuda, seed), for_training(runtime.device):
        lesson = _Lesson(model, seed)
        lesson.ask(inputs)
        network = built("student", student, tuple(inputs.shape[1:]), lesson.logits.shape[1])
        low, high = bounds
        step, last = reach * (high - low), inputs
        if augmentation == "noise":
            for _ in range(rounds):
                noise = torch.rand_like(inputs).mul_(2).sub_(1)
                lesson.ask((inputs + step * noise).clamp(low, high))

        def learn() -> None:
            optimizer = make_optimizer("adam", network.parameters(), learning_rate)
            # The labels that the recorded accuracy is of are the model's own.
            source = TensorSource(lesson.points, lesson.logits.argmax(dim=1), batch_size, seed)
            train(
                network,
                optimizer,
                None,
                Plan(
                    stage="surrogate",
                    parameter="student",
                    source=source,
                    objective=lesson.objective,
                    max_epochs=max_epochs,
                    seed=seed,
                    weight_averaging=0.995,
                    verbose=verbose,
                ),
                runtime,
            )

        learn()
        if augmentation == "jacobian":
            for _ in range(rounds):
                last = _towards_boundaries(network, last, lesson.logits[-len(inputs) :], step)
                last = last.clamp(low, high)
                lesson.ask(last)
                learn()
        said = torch.cat([runtime.infer(network, part) for part in lesson.points.split(ASKED)])
    agree = said.argmax(dim=1).cpu() == lesson.logits.argmax(dim=1)
    surrogate = Surrogate(
        network.to(lesson.device),
        forwards=lesson.account.forwards,
        seconds=time.perf_counter() - began,
        agreement=agree.double().mean().item(),
        rejects=rejects(model),
    )
    return surrogate.eval()


class _Lesson:
    """What a model was asked, and what it answered."""

    def __init__(self, model: Callable[[Tensor], Tensor], seed: int) -> None:
        self.model, self.seed = model, seed
        self.account = Account()
        self.points = self.logits = torch.empty(0, device="cpu")
        self.device = torch.device("cpu")
        """Where the model answers: the student comes to lie there too."""
        self.unit: float | None = 1.0
        """What the model's logits are divided by: a saturated softmax teaches one class.

        None where all of them are small, which teaches nothing: each answer has a unit of its own.
        """

    def ask(self, points: Tensor) -> None:
        """Ask about more points."""
        answers = []
        with (
            charged(self.account),
            borrowed(self.model, self.seed + len(self.points), gradients=False),
        ):
            for part in points.split(ASKED):
                with question(len(part), "", 1, 0):
                    answers.append(self.model(fitted_to(self.model, part)))
                check_logits(answers[-1], len(part))
        self.device = answers[-1].device
        found = torch.cat(answers).cpu()
        logits = found.to(torch.promote_types(found.dtype, torch.float32))
        if not len(self.logits):
            usual = spread(logits).median().item()
            self.unit = max(1.0, usual / USUAL_RANGE) if usual >= LEAST_RANGE else None
            self.points, self.logits = points, logits
        else:
            self.points = torch.cat([self.points, points])
            self.logits = torch.cat([self.logits, logits])

    def in_units(self, logits: Tensor) -> Tensor:
        """Logits that a softmax keeps apart."""
        if self.unit is not None:
            return logits / self.unit
        ranges = spread(logits)
        return USUAL_RANGE * logits / torch.where(ranges > 0, ranges, 1)

    def objective(self, network: nn.Module, batch: Batch) -> BatchLosses:
        """Cross-entropy with the softmax of the model's answers."""
        assert batch.indices is not None
        taught = self.logits[batch.indices.cpu()].to(batch.inputs.device)
        logits = network(batch.inputs)
        targets = functional.softmax(self.in_units(taught))
        return BatchLosses(functional.soft_cross_entropy(logits, targets.to(logits)), logits)


def _inputs(name: str, data: Any, bounds: Range) -> Tensor:
    opened = open_examples(data, name=name, labelled=False, spec=Spec(None, bounds=bounds))
    return opened.whole(torch.get_default_dtype()).inputs.cpu()


def _towards_boundaries(network: nn.Module, points: Tensor, logits: Tensor, step: float) -> Tensor:
    """A step along the sign of the gradient of what the model says (Papernot 2017, section 4.2)."""
    moved, said = [], logits.argmax(dim=1)
    with borrowed(network):
        for part, label in zip(points.split(ASKED), said.split(ASKED), strict=True):
            asked = fitted_to(network, part).requires_grad_()
            answers = network(asked)
            check_differentiable(answers)
            score = answers.gather(1, label[:, None].to(answers.device)).sum()
            (gradient,) = torch.autograd.grad(score, asked)
            moved.append(part + step * gradient.sign().to(part))
    return torch.cat(moved)
