"""Accuracy against the radius."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._boxes import check_bounds
from .._data import Chunk
from .._modes import borrowed, device_of, dtype_of
from .._random import draw_seed
from .._rejection import n_classes_of
from .._typing import Bounds, Distance, Mask, Model
from .._validation import (
    DISTANCES,
    check_at_least,
    check_epsilon,
    check_label_range,
    check_logits,
    check_norm,
    check_not_negative,
    check_random_state,
)
from ..functional import margin_loss
from ._entries import Entry, check_call, complete, entries
from ._errors import noted
from ._evaluate import as_bounds, as_mask
from ._judge import ThreatModel, judge
from ._model import resolve_model
from ._ours import completed, masked, ours
from ._presets import AttackSpec
from ._query import logits_of
from ._reading import opened, read
from ._statistics import intervals
from ._tables import Rows, Table, few
from .report._numbers import interval, percent, units
from .report._per_example import PerExample, called, named

HEADERS = ("epsilon", "robust accuracy", "95 % interval")


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessCurve(Table):
    """Accuracy against the radius; printed as a table.

    Attributes
    ----------
    epsilons : ndarray of shape (m,)
        Radii, ascending from 0.
    robust_accuracy : ndarray of shape (m,)
        Share of the examples that withstand everything within each radius.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}
        Norm of the radii.
    n_examples : int
        Examples behind every point.
    random_state : int or None
        Seed of everything random.
    per_example : PerExample or None
        The smallest distance at which each example fell, and to which attack; None of a curve
        that was made of radii alone. :meth:`at` has the table of one radius.
    """

    epsilons: np.ndarray
    robust_accuracy: np.ndarray
    norm: Distance
    n_examples: int
    random_state: int | None = None
    per_example: PerExample | None = None

    @classmethod
    def from_radii(
        cls,
        radii: np.ndarray,
        norm: Distance,
        epsilons: Iterable[float] = (),
        random_state: int | None = None,
    ) -> "RobustnessCurve":
        """Count who stands at each radius.

        Parameters
        ----------
        radii : ndarray of shape (n,)
            The radius at which each example falls: 0 if it is misclassified anyway, infinity if
            it never fell.
        norm : {"linf", "l2", "l1", "l0", "l0_pixels"}
            Norm of the radii.
        epsilons : iterable of float, optional
            Further points of the curve.
        random_state : int, optional
            Seed of everything random behind the radii.

        Returns
        -------
        RobustnessCurve
            One point at 0, at each finite radius and at each of ``epsilons``.
        """
        places = np.unique([0.0, *epsilons, *radii[np.isfinite(radii)]])
        standing = len(radii) - np.searchsorted(np.sort(radii), places, side="right")
        return cls(places, standing / len(radii), norm, len(radii), random_state)

    def at(self, epsilon: float) -> PerExample:
        """Return what became of each example within a radius.

        Parameters
        ----------
        epsilon : float
            The radius. Between those that budget attacks were run at it counts what they happened
            to find within it.

        Returns
        -------
        PerExample
            The attack that fooled each example within the radius, and at what distance.

        Raises
        ------
        ValueError
            If ``epsilon`` is negative or not finite, or the curve has no ``per_example``.
        """
        check_not_negative("epsilon", epsilon)
        if self.per_example is None:
            raise ValueError(
                "per_example must hold what became of each example, got None; use a curve of "
                "robustness_curve"
            )
        fell = self.per_example.distance <= epsilon
        names = zip(self.per_example.fooled_by, fell, strict=True)
        return replace(
            self.per_example,
            fooled_by=tuple(name if within else None for name, within in names),
            distance=np.where(fell, self.per_example.distance, np.nan),
        )

    @property
    def robust_interval(self) -> np.ndarray:
        """95 % Wilson interval of each accuracy, shape (m, 2)."""
        return intervals(self.robust_accuracy, self.n_examples)

    def __repr__(self) -> str:
        first, last = self.robust_accuracy[[0, -1]]
        return (
            f"RobustnessCurve({self.norm}, {len(self.epsilons)} radii to "
            f"{self.epsilons[-1]:.4g}, accuracy {percent(first)} to {percent(last)}, "
            f"{self.n_examples} examples)"
        )

    _headers = HEADERS

    @property
    def _title(self) -> str:
        return (
            f"Robust accuracy by {self.norm} radius, {self.n_examples} examples, epsilon in "
            f"{units(self.norm)}"
        )

    @property
    def _rows(self) -> Rows:
        ends = self.robust_interval
        return [
            (f"{self.epsilons[i]:.4g}", percent(self.robust_accuracy[i]), interval(tuple(ends[i])))
            for i in few(len(self.epsilons))
        ]


def robustness_curve(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    minimum_distance: Any = None,
    budget: Any = None,
    epsilons: Any = (),
    norm: Distance = "linf",
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
) -> RobustnessCurve:
    r"""Measure accuracy against the radius, by both kinds of attack at once.

    A minimum-distance attack gives each example the radius at which it falls; a budget attack
    tells for each radius of a list who falls within it. An example's radius is the smallest
    that any of them found, so the curve never rises.

    Parameters
    ----------
    model : nn.Module, callable or fitted estimator
        What is attacked. Labels are looked up in the ``classes_`` of an estimator.
    X : Tensor or array of shape (n, ...), Dataset or DataLoader
        Clean examples, floating point, within ``bounds``; a Dataset or DataLoader of pairs
        (inputs, labels) is read once, in bounded memory.
    y : Tensor or array of shape (n,), optional
        True classes. Not with a Dataset or DataLoader.
    minimum_distance : str, callable, list or mapping, optional
        Attacks that look for the nearest adversarial example, as ``attacks`` of
        :func:`~distillguard.evaluate`: a name, a callable
        ``(model, inputs, labels) -> Tensor``, several in a list, or a mapping from names.
    budget : str, callable, list or mapping, optional
        Attacks ``(model, inputs, labels, *, epsilon, norm) -> Tensor``, such as
        :func:`~distillguard.attacks.pgd`; run at each of ``epsilons`` on the examples that
        stand there.
    epsilons : float or sequence of float, optional
        Radii for ``budget``, in the units of ``X``, in l0 whole numbers of values, in
        ``"l0_pixels"`` of pixels; 0 is allowed and asks for the clean accuracy.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, default="linf"
        Norm of the radii.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors broadcastable to
        one input.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or, of inputs in memory, of
        all. Points that change anything else do not count.
    batch_size : int, default=256
        Examples on the device at once.
    random_state : int, optional
        Seed of everything random; a fresh one if not given. The curve names it.

    Returns
    -------
    RobustnessCurve
        One point per radius at which an example falls, and one per element of ``epsilons``.

    Raises
    ------
    TypeError
        If ``X``, ``y`` or an attack is of the wrong kind.
    ValueError
        If no attack is given, an attack is of the other kind, or an argument is out of its
        range.

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import fgsm
    >>> from distillguard.evaluation import robustness_curve
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> X, y = torch.tensor([[0.9, 0.2], [0.6, 0.5]]), torch.tensor([0, 0])
    >>> curve = robustness_curve(model, X, y, budget=fgsm, epsilons=[0.1, 0.4])
    >>> curve.robust_accuracy.tolist()
    [1.0, 0.5, 0.0]
    """
    check_norm(norm, DISTANCES)
    check_bounds(bounds)
    check_at_least("batch_size", batch_size, 1)
    check_random_state(random_state)
    places = _radii("epsilons", epsilons, norm)
    subject, seed = resolve_model(model), draw_seed(random_state)
    box = as_bounds(bounds)
    data = opened(subject, X, y, bounds=box)
    threat = ThreatModel(norm, math.inf, box, as_mask(mask, data.shape))
    offered = {"batch_size": batch_size, "random_state": seed}
    near = [
        (name, _nearest(entry, threat, offered))
        for name, entry in _given("minimum_distance", minimum_distance).items()
    ]
    within = [
        (name, _within(entry, threat, offered)) for name, entry in _given("budget", budget).items()
    ]
    if not near and not (within and places):
        raise ValueError(
            "robustness_curve must get minimum_distance attacks or a budget attack with epsilons, "
            f"got minimum_distance={minimum_distance!r} and epsilons={epsilons!r}"
        )
    if within and not places:
        raise ValueError(f"epsilons must hold the radii for budget, got {epsilons!r}")
    device = device_of(subject.model, torch.device("cpu"))
    search = Search(subject.model, near, within, places, batch_size, seed)
    parts = [search.found(chunk, threat.of(chunk.places), device) for chunk in read(subject, data)]
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    curve = RobustnessCurve.from_radii(columns["radius"].numpy(), norm, places, seed)
    names = [name for name, _ in (*near, *within)]
    return replace(curve, per_example=_table(columns, names, subject.classes))


def _table(columns: dict[str, Tensor], names: list[str], classes: Any | None) -> PerExample:
    radius, attack = columns["radius"].numpy(), columns["attack"].numpy()
    return PerExample(
        index=columns["index"].numpy(),
        label=named(columns["label"], classes),
        predicted=named(columns["predicted"], classes),
        margin=-columns["margin"].numpy(),
        fooled_by=called(attack, names),
        distance=np.where(attack >= 0, radius, np.nan),
    )


def _radii(name: str, given: Any, norm: Distance) -> list[float]:
    """Radii or 0, from one or from a sequence, an array or a tensor, ascending."""
    values = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = [values]
    values = list(values)
    for value in values:
        check_not_negative(name, value)
        if value > 0:
            check_epsilon(value, norm, name)
    return sorted(map(float, values))


def _given(argument: str, given: Any) -> dict[str, Entry]:
    empty = given is None or (isinstance(given, Mapping) and not given)
    found = {} if empty else entries(argument, given)
    for entry in found.values():
        if entry.near is not None:
            raise ValueError(
                f"{entry.where} must have near=None in a curve, which knows no attacks before it, "
                f"got {entry.near!r}"
            )
    return found


def _nearest(entry: Entry, threat: ThreatModel, offered: dict[str, Any]) -> AttackSpec:
    known = ours(entry.attack)
    if known is not None and known.lacks("epsilon"):
        raise ValueError(
            f"{entry.where} must look for the nearest adversarial example, got {known.name}, which "
            "looks within an epsilon; pass it as budget, with epsilons"
        )
    return complete(entry, threat, **offered)


def _within(entry: Entry, threat: ThreatModel, offered: dict[str, Any]) -> Any:
    """The attack as a function that still takes epsilon and norm."""
    where, attack = entry.where, entry.attack
    known = ours(attack)
    if known is None:
        check_call(where, attack, epsilon=1.0, norm=threat.norm)
        return attack
    if "epsilon" not in known.parameters:
        raise ValueError(
            f"{where} must look within an epsilon, got {known.name}, which looks for the nearest "
            "adversarial example; pass it as minimum_distance"
        )
    if known.given.get("norm") not in (None, threat.norm):
        raise ValueError(
            f"{where} must work in the norm of the curve, {threat.norm!r}, "
            f"got norm={known.given['norm']!r}"
        )
    complete(Entry(where, partial(attack, epsilon=1.0)), threat)
    return completed(attack, bounds=threat.bounds, **offered)


@dataclass
class Search:
    """Looking for the smallest radius at which each example falls."""

    model: Model
    nearest: list[tuple[str, AttackSpec]]
    budgets: list[tuple[str, Any]]
    epsilons: list[float]
    batch_size: int
    seed: int

    def found(self, chunk: Chunk, threat: ThreatModel, device: torch.device) -> dict[str, Tensor]:
        """The smallest radius found for each example, 0 if misclassified, and by which attack."""
        inputs, labels = chunk.inputs.to(device), chunk.labels.to(device)
        with borrowed(self.model, self.seed):
            dtype = dtype_of(self.model, inputs.dtype)
            logits = logits_of(self.model, inputs, dtype, self.batch_size)
        check_logits(logits, len(inputs))
        check_label_range(labels, n_classes_of(self.model, logits), "y")
        predicted = logits.argmax(dim=1)
        radii = torch.where(predicted == labels, torch.inf, 0.0).double()
        by = torch.full_like(labels, -1)

        def lower(place: int, name: str, attack: Any, reach: float, least: float) -> None:
            chosen = (radii > least).nonzero().squeeze(1)
            if len(chosen):
                few = threat.of(chosen)._replace(epsilon=reach)
                distance = self.distances(name, attack, inputs[chosen], labels[chosen], few)
                nearer = chosen[distance < radii[chosen]]
                radii[chosen] = torch.minimum(radii[chosen], distance)
                by[nearer] = place

        for place, (name, spec) in enumerate(self.nearest):
            lower(place, name, spec.attack, math.inf, 0.0)
        for epsilon in self.epsilons:
            tried = enumerate(self.budgets, len(self.nearest)) if epsilon > 0 else ()
            for place, (name, attack) in tried:
                limited = partial(attack, epsilon=epsilon, norm=threat.norm)
                lower(place, name, limited, epsilon, epsilon)
        columns = {"index": chunk.places, "label": labels, "predicted": predicted, "attack": by}
        columns |= {"margin": margin_loss(logits, labels).double(), "radius": radii}
        return {name: column.cpu() for name, column in columns.items()}

    def distances(
        self, name: str, attack: Any, inputs: Tensor, labels: Tensor, threat: ThreatModel
    ) -> Tensor:
        """How far the attack had to go for each example; infinity where it failed."""
        with noted(f"in robustness_curve's attack {name!r}"), borrowed(self.model, self.seed):
            verdict = judge(
                self.model,
                name,
                masked(attack, threat.mask)(self.model, inputs.clone(), labels.clone()),
                inputs,
                labels,
                threat=threat,
                own_norm=threat.norm,
                dtype=dtype_of(self.model, inputs.dtype),
                batch_size=self.batch_size,
            )
        reached = verdict.distance.clamp(max=threat.epsilon)
        return torch.where(verdict.fooled, reached, torch.inf)
