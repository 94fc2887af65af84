"""Adversarial examples of one model tried on another."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .._boxes import check_bounds
from .._modes import borrowed, device_of, dtype_of
from .._random import draw_seed
from .._rejection import n_classes_of
from .._typing import Bounds, Distance, Mask
from .._validation import (
    DISTANCES,
    check_at_least,
    check_epsilon,
    check_label_range,
    check_logits,
    check_norm,
    check_random_state,
)
from ._entries import complete, entries
from ._errors import noted
from ._evaluate import as_bounds, as_mask
from ._judge import ThreatModel, check_points, judge
from ._model import EvaluatedModel, resolve_model
from ._ours import masked, ours
from ._presets import AttackSpec
from ._query import logits_of
from ._reading import opened, read
from ._statistics import intervals
from ._tables import Rows, Table
from .report._numbers import interval, percent

TITLE = "Share of adversarial examples that fool, with 95 % intervals, of what both models know"


@dataclass(frozen=True, eq=False, repr=False)
class TransferMatrix(Table):
    """Which model's adversarial examples fool which; printed as a table, an array to NumPy.

    Attributes
    ----------
    matrix : ndarray of shape (m, m)
        Entry (i, j): share of the examples that both models classify correctly and whose
        adversarial examples made on model i model j misclassifies; NaN where there are none.
    names : tuple of str
        The models, in the order of rows and columns.
    n_examples : ndarray of shape (m, m), int
        Examples behind each entry: those that both models classify correctly.
    random_state : int or None
        Seed of everything random.
    """

    matrix: np.ndarray
    names: tuple[str, ...]
    n_examples: np.ndarray
    random_state: int | None = None

    @property
    def intervals(self) -> np.ndarray:
        """95 % Wilson interval of each entry, shape (m, m, 2); NaN where there are none."""
        return intervals(np.nan_to_num(self.matrix), self.n_examples)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the matrix, for :func:`numpy.asarray`."""
        if copy is None:  # np.array understands None from NumPy 2 on
            return np.asarray(self.matrix, dtype=dtype)
        return np.array(self.matrix, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        least, most = int(self.n_examples.min()), int(self.n_examples.max())
        shown = f"{least}" if least == most else f"{least} to {most}"
        return f"TransferMatrix({', '.join(self.names)}; {shown} examples in each entry)"

    _title = TITLE

    @property
    def _headers(self) -> tuple[str, ...]:
        return ("made on", *(f"tried on {name}" for name in self.names))

    @property
    def _rows(self) -> Rows:
        ends = self.intervals
        return [
            (name, *(self._cell(self.matrix[i, j], ends[i, j]) for j in range(len(self.names))))
            for i, name in enumerate(self.names)
        ]

    @staticmethod
    def _cell(share: float, ends: np.ndarray) -> str:
        return "none" if math.isnan(share) else f"{percent(share)} {interval(tuple(ends))}"


def transfer_matrix(
    models: Any,
    attack: Any,
    X: Any,
    y: Any = None,
    *,
    norm: Distance = "linf",
    epsilon: float | None = None,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
) -> TransferMatrix:
    """Try each model's adversarial examples on every model.

    Sweep an attack's confidence by calling this with one attack per confidence: distilled
    networks, which look robust under attack, fall to examples made with confidence elsewhere
    [1]_.

    Parameters
    ----------
    models : mapping from str to nn.Module, callable or fitted estimator, or a list of them
        Sources and targets; those of a list are called by their classes. Labels are looked up
        in the ``classes_`` of estimators, which must agree.
    attack : str or callable
        The name of an attack, or a callable ``(model, inputs, labels) -> Tensor``. One of this
        package gets ``norm``, ``epsilon``, ``bounds``, ``mask``, ``batch_size`` and
        ``random_state`` where it takes them and names none.
    X : Tensor or array of shape (n, ...), Dataset or DataLoader
        Clean examples, floating point, within ``bounds``; a Dataset or DataLoader of pairs
        (inputs, labels) is read once, in bounded memory.
    y : Tensor or array of shape (n,), optional
        True classes. Not with a Dataset or DataLoader.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, default="linf"
        Norm of ``epsilon``, and of the attack where it can be chosen.
    epsilon : float, optional
        Points farther away do not count; all points do if not given. In l0 a whole number.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors broadcastable to
        one input. Points outside do not count.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or, of inputs in memory, of
        all. Points that change anything else do not count.
    batch_size : int, default=256
        Examples on the device at once.
    random_state : int, optional
        Seed of everything random; a fresh one if not given. The matrix names it.

    Returns
    -------
    TransferMatrix
        Shares with their intervals; :func:`numpy.asarray` makes an array of them.

    Raises
    ------
    TypeError
        If ``models``, ``X``, ``y`` or ``attack`` is of the wrong kind.
    ValueError
        If there are no models, they disagree on their classes, a budget attack gets no
        ``epsilon``, or an argument is out of its range.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, section VIII-D. https://arxiv.org/abs/1608.04644

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from distillguard.attacks import fgsm
    >>> from distillguard.evaluation import transfer_matrix
    >>> model, X = torch.nn.Linear(2, 2), torch.rand(8, 2)
    >>> y = model(X).argmax(dim=1)
    >>> np.asarray(transfer_matrix({"a": model, "b": model}, fgsm, X, y, epsilon=1.0)).shape
    (2, 2)
    """
    check_norm(norm, DISTANCES)
    check_bounds(bounds)
    if epsilon is not None:
        check_epsilon(epsilon, norm)
    check_at_least("batch_size", batch_size, 1)
    check_random_state(random_state)
    subjects, seed = _subjects(models), draw_seed(random_state)
    reach = math.inf if epsilon is None else float(epsilon)
    known = next((each for each in subjects.values() if each.classes is not None), None)
    first, box = known or next(iter(subjects.values())), as_bounds(bounds)
    data = opened(first, X, y, bounds=box)
    threat = ThreatModel(norm, reach, box, as_mask(mask, data.shape))
    name, spec = _attack(attack, threat, {"batch_size": batch_size, "random_state": seed})
    trial = Trial(subjects, name, spec, batch_size, seed)
    m = len(subjects)
    fooled, both = np.zeros((2, m, m), dtype=np.int64)
    for chunk in read(first, data):
        found = trial.counts(chunk.inputs, chunk.labels, threat.of(chunk.places))
        fooled, both = fooled + found[0], both + found[1]
    with np.errstate(invalid="ignore"):
        return TransferMatrix(fooled / both, tuple(subjects), both, seed)


def _subjects(models: Any) -> dict[str, EvaluatedModel]:
    """The models by name, with one set of classes."""
    found: dict[str, EvaluatedModel] = {}
    if isinstance(models, Mapping):
        found = {
            str(name): resolve_model(model, f"models[{name!r}]") for name, model in models.items()
        }
        if len(found) < len(models):
            raise ValueError(f"models must have names that differ as text, got {list(models)!r}")
    elif isinstance(models, list | tuple):
        for place, model in enumerate(models):
            subject = resolve_model(model, f"models[{place}]")
            number = sum(name.partition(" ")[0] == subject.name for name in found)
            found[f"{subject.name} {number + 1}" if number else subject.name] = subject
    else:
        raise TypeError(
            "models must be a mapping from names to models or a list of models, "
            f"got {type(models).__name__}"
        )
    if not found:
        raise ValueError("models must hold at least one model, got none")
    classes = {
        name: np.asarray(subject.classes).tolist()
        for name, subject in found.items()
        if subject.classes is not None
    }
    (first, known), *others = classes.items() or [("", [])]
    for name, values in others:
        if values != known:
            raise ValueError(
                f"models must know the same classes, got {known} in {first!r} and {values} in "
                f"{name!r}"
            )
    return found


def _attack(given: Any, threat: ThreatModel, offered: dict[str, Any]) -> tuple[str, AttackSpec]:
    if not (isinstance(given, str) or callable(given)):
        raise TypeError(
            "attack must be the name of an attack or a function (model, inputs, labels) -> "
            f"Tensor, got {type(given).__name__}; call transfer_matrix once for each attack"
        )
    ((name, entry),) = entries("attack", given).items()
    known = ours(entry.attack)
    if known is not None and known.lacks("epsilon") and not math.isfinite(threat.epsilon):
        raise ValueError(
            f"epsilon must be given, because {known.name} looks within a radius, got None"
        )
    return name, complete(entry, threat, **offered)


@dataclass
class Trial:
    """Making adversarial examples on each model and trying them on all."""

    subjects: Mapping[str, EvaluatedModel]
    attack: str
    spec: AttackSpec
    batch_size: int
    seed: int

    def counts(
        self, inputs: Tensor, labels: Tensor, threat: ThreatModel
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of some examples, how many fool and how many both know, by source and target."""
        names = list(self.subjects)
        correct = {name: self.correct(name, inputs, labels) for name in names}
        fooled, both = np.zeros((2, len(names), len(names)), dtype=np.int64)
        for i, source in enumerate(names):
            chosen = correct[source].nonzero().squeeze(1)
            if not len(chosen):
                continue
            few = inputs[chosen], labels[chosen], threat.of(chosen)
            points = self.points(source, *few)
            for j, target in enumerate(names):
                known = correct[target][chosen]
                both[i, j] = int(known.sum())
                fooled[i, j] = int((self.fooled(target, points, *few) & known).sum())
        return fooled, both

    def correct(self, name: str, inputs: Tensor, labels: Tensor) -> Tensor:
        """Which examples a model classifies correctly."""
        model = self.subjects[name].model
        points = inputs.to(device_of(model, inputs.device))
        with noted(f"in transfer_matrix's clean pass through {name!r}"), self.borrowed(name, False):
            logits = logits_of(model, points, dtype_of(model, inputs.dtype), self.batch_size)
        check_logits(logits, len(inputs), f"models[{name!r}]")
        check_label_range(labels, n_classes_of(model, logits), "y")
        return logits.argmax(dim=1).to(labels.device) == labels

    def points(self, name: str, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
        """Adversarial examples made on a model."""
        model, attack = self.subjects[name].model, masked(self.spec.attack, threat.mask)
        device = device_of(model, inputs.device)
        where = f"in transfer_matrix's attack {self.attack!r} on {name!r}"
        with noted(where), self.borrowed(name):
            found = attack(model, inputs.to(device, copy=True), labels.to(device, copy=True))
            check_points(self.attack, found, inputs)
        return found.detach()

    def fooled(
        self, name: str, points: Tensor, inputs: Tensor, labels: Tensor, threat: ThreatModel
    ) -> Tensor:
        """Which of the points a model misclassifies, of those that count."""
        model = self.subjects[name].model
        device = device_of(model, inputs.device)
        with self.borrowed(name, False):
            verdict = judge(
                model,
                self.attack,
                points.to(device),
                inputs.to(device),
                labels.to(device),
                threat=threat,
                own_norm=threat.norm,
                dtype=dtype_of(model, inputs.dtype),
                batch_size=self.batch_size,
            )
        return verdict.fooled.to(labels.device)

    def borrowed(self, name: str, gradients: bool = True) -> Any:
        """Borrow a model with the seed."""
        return borrowed(self.subjects[name].model, self.seed, gradients=gradients)
