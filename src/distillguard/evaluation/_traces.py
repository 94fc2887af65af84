"""What an attack did, question by question."""

import numpy as np
import torch
from torch import Tensor

from .._geometry import lp_norm
from .._typing import Distance
from .._validation import DISTANCES, check_epsilon, check_inputs, check_labels, check_norm
from ..functional import cross_entropy, margin_loss
from ._statistics import intervals
from ._tables import Rows, Table, few
from .report._numbers import interval, percent

ROUNDING = 1e-5
"""By what share a distance may exceed the budget and be within it."""


class AttackTrace(Table):
    """Records one call of an attack, to which it is passed as ``callback=trace``.

    A trace is for one call on all of ``inputs``, not for an attack within
    :func:`~distillguard.evaluate`, which asks for chunks of what is left.

    Only numbers are kept, one of each kind for each question about an example. An example's
    k-th question is the k-th forward pass about it; what an attack asks again, such as a point
    at the bounds that it confirms, counts too. An attack that stops early asks no more about
    examples that it has fooled.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        The clean inputs, as they are passed to the attack.
    labels : Tensor of shape (n,), int64
        The labels, as they are passed to the attack: the aims of a targeted one.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, default="linf"
        Norm of the distances.
    epsilon : float, optional
        How far a point may be from the input to count as a success; any distance if not given.
    targeted : bool, default=False
        Whether the attack is.

    Raises
    ------
    TypeError
        If ``inputs`` is not a floating tensor, or ``labels`` not of int64.
    ValueError
        If shapes disagree, ``norm`` is unknown, or ``epsilon`` is not a finite number above 0, in
        l0 a whole one.

    See Also
    --------
    AttackTraceDisplay : Draws traces of several attacks.

    Examples
    --------
    >>> import torch
    >>> from distillguard import attacks
    >>> from distillguard.evaluation import AttackTrace
    >>> X, y = torch.tensor([[0.6, 0.3]]), torch.tensor([0])
    >>> trace = AttackTrace(X, y, epsilon=0.2)
    >>> model = torch.nn.Identity()
    >>> _ = attacks.pgd(
    ...     model, X, y, epsilon=0.2, steps=4, step_size=0.1, random_start=False, callback=trace
    ... )
    >>> trace.margin.round(1).tolist()
    [[-0.3, -0.1, 0.1]]
    >>> trace.standing.tolist()
    [1.0, 1.0, 1.0, 0.0]
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        *,
        norm: Distance = "linf",
        epsilon: float | None = None,
        targeted: bool = False,
    ) -> None:
        check_inputs(inputs)
        check_labels(labels, inputs)
        check_norm(norm, DISTANCES)
        if epsilon is not None:
            check_epsilon(epsilon, norm)
        self.inputs = inputs.detach().cpu()
        self.labels = labels.detach().cpu()
        self.norm = norm
        self.epsilon = epsilon
        self.targeted = targeted
        self._asked: list[Tensor] = []
        self._measured: list[Tensor] = []

    def __call__(self, indices: Tensor, points: Tensor, logits: Tensor) -> None:
        places = indices.cpu()
        logits, labels = _in_single(logits.detach().cpu()), self.labels[places]
        delta = _in_single(points.detach().cpu()) - _in_single(self.inputs[places])
        found = (
            cross_entropy(logits, labels),
            margin_loss(logits, labels),
            lp_norm(delta, self.norm),
        )
        self._asked.append(places)
        self._measured.append(torch.stack([part.double() for part in found], dim=1))

    @property
    def questions(self) -> np.ndarray:
        """How often the model was asked about each example: shape (n,), int."""
        return np.bincount(self._places, minlength=len(self.labels))

    @property
    def cross_entropy(self) -> np.ndarray:
        """Cross-entropy of each question, in nats: shape (n, m), NaN where none was asked."""
        return self._table[..., 0]

    @property
    def margin(self) -> np.ndarray:
        """Best other logit less the labelled one: shape (n, m), NaN where none was asked.

        It is above 0 where the model answers otherwise than the label.
        """
        return self._table[..., 1]

    @property
    def distance(self) -> np.ndarray:
        """Distance of each point from the input, in ``norm``: (n, m), NaN where none was asked."""
        return self._table[..., 2]

    @property
    def first_success(self) -> np.ndarray:
        """Questions until the first success, itself included: shape (n,), infinity for none."""
        margin = -self.margin if self.targeted else self.margin
        success = margin > 0
        if self.epsilon is not None:
            success &= self.distance <= self.epsilon * (1 + ROUNDING)
        if not success.shape[1]:
            return np.full(len(success), np.inf)
        return np.where(success.any(axis=1), 1.0 + success.argmax(axis=1), np.inf)

    @property
    def standing(self) -> np.ndarray:
        """Share of all examples not fooled after 0, 1, ... questions about each: (m + 1,)."""
        passes = np.arange(self._table.shape[1] + 1)
        return np.mean(self.first_success[:, None] > passes, axis=0)

    @property
    def standing_interval(self) -> np.ndarray:
        """Its 95 % Wilson intervals: shape (m + 1, 2)."""
        return intervals(self.standing, len(self.labels))

    _headers = ("forward passes about each", "examples that stand", "95 % interval")

    @property
    def _title(self) -> str:
        within = "at any distance" if self.epsilon is None else f"within {self.epsilon:.6g}"
        return (
            f"What a pass buys: {len(self.labels)} examples, {self.questions.sum()} questions, "
            f"{self.norm} {within}"
        )

    @property
    def _rows(self) -> Rows:
        standing, ends = self.standing, self.standing_interval
        return [
            (str(passes), percent(standing[passes]), interval(tuple(ends[passes])))
            for passes in few(len(standing))
        ]

    @property
    def _places(self) -> np.ndarray:
        return torch.cat([self.labels.new_empty(0), *self._asked]).numpy()

    @property
    def _table(self) -> np.ndarray:
        """Everything measured, by example and question: (n, m, 3)."""
        places = self._places
        order = places.argsort(kind="stable")
        starts = self.questions.cumsum() - self.questions
        longest = int(self.questions.max())
        table = np.full((len(self.labels), longest, 3), np.nan)
        if longest:
            held = places[order]
            table[held, np.arange(len(held)) - starts[held]] = torch.cat(self._measured)[order]
        return table

    def __repr__(self) -> str:
        return (
            f"AttackTrace(norm={self.norm!r}, epsilon={self.epsilon!r}: "
            f"{self.questions.sum()} questions about {len(self.labels)} examples)"
        )


def _in_single(values: Tensor) -> Tensor:
    return values.float() if values.element_size() < 4 else values
