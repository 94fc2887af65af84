"""What became of each example, as columns."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..._frames import data_frame
from .._captions import REJECTED
from .._records import Records
from .._tables import Rows, Table, few

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class PerExample(Table):
    """What became of each example: columns of one length, in the order of the data.

    Attributes
    ----------
    index : ndarray of shape (n,), int64
        The example's place in the data.
    label : ndarray of shape (n,), int64 or str
        True class: its index, or its name as text if the model has ``classes_``.
    predicted : ndarray of shape (n,), int64 or str
        The class that the model predicts for the clean input.
    margin : ndarray of shape (n,), float64
        Labelled logit minus the largest other one, on the clean input; negative if that is
        misclassified.
    fooled_by : tuple of (str or None)
        The first of the attacks passed that fooled the example within the threat model; None if it
        withstands all of them or is misclassified without one.
    distance : ndarray of shape (n,), float64
        From the clean input to the point of that attack, in the threat model's norm; NaN if there
        is none.

    Examples
    --------
    >>> import torch
    >>> from distillguard import evaluate
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    >>> X, y = torch.tensor([[0.9, 0.2], [0.6, 0.5]]), torch.tensor([0, 0])
    >>> table = evaluate(model, X, y, epsilon=0.2, attacks="quick").per_example
    >>> table.robust.tolist(), table.fooled_by
    ([True, False], (None, 'FGSM margin'))
    """

    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    margin: np.ndarray
    fooled_by: tuple[str | None, ...]
    distance: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Which examples are classified correctly without an attack: bool (n,)."""
        return self.predicted == self.label

    @property
    def robust(self) -> np.ndarray:
        """Which examples are classified correctly and withstand every attack passed: bool (n,)."""
        return self.correct & np.array([name is None for name in self.fooled_by], dtype=bool)

    def __len__(self) -> int:
        return len(self.index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PerExample):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"PerExample({len(self)} examples, {int(self.robust.sum())} robust)"

    _headers = ("index", "label", "predicted", "margin", "fooled by", "distance")

    @property
    def _title(self) -> str:
        return f"{len(self)} examples, {int(self.robust.sum())} robust; margin in logits"

    @property
    def _rows(self) -> Rows:
        return [
            (
                *(str(column[i]) for column in (self.index, self.label, self.predicted)),
                f"{self.margin[i]:.4g}",
                self.fooled_by[i] or "",
                "" if np.isnan(self.distance[i]) else f"{self.distance[i]:.4g}",
            )
            for i in few(len(self))
        ]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns as plain lists, None for NaN, as the report's JSON holds them.

        Returns
        -------
        dict from str to list
            One list per column.
        """
        columns: dict[str, list[Any]] = {
            field.name: list(getattr(self, field.name))
            if field.name == "fooled_by"
            else getattr(self, field.name).tolist()
            for field in fields(self)
        }
        columns["distance"] = [None if d != d else d for d in columns["distance"]]
        return columns

    def to_frame(self) -> "DataFrame":
        """Return the columns as a table of pandas.

        Returns
        -------
        pandas.DataFrame
            One row per example, one column per attribute.

        Raises
        ------
        MissingPackageError
            If pandas is not installed.
        """
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        columns["fooled_by"] = list(self.fooled_by)
        return data_frame(columns)


def per_example(records: Records, names: list[str], classes: Any | None) -> PerExample:
    """Turn the records into columns, with the caller's names for the classes."""
    columns = records.columns
    n = len(records)
    first, distance = np.full(n, -1), np.full(n, np.nan)
    for place, name in enumerate(names):
        new = records.of(name, "fooled").numpy() & (first < 0)
        first[new] = place
        distance[new] = records.of(name, "distance").numpy()[new]

    return PerExample(
        index=columns["index"].numpy().copy(),
        label=named(columns["label"], classes),
        predicted=named(columns["predicted"], classes),
        margin=-columns["margin"].numpy(),
        fooled_by=called(first, names),
        distance=distance,
    )


def named(indices: Tensor, classes: Any | None) -> np.ndarray:
    """Classes by the caller's names for them, as text, where there are such."""
    places = indices.numpy().copy()
    if classes is None:
        return places
    names = [str(name) for name in classes]
    return np.array(names if places.max(initial=0) < len(names) else [*names, REJECTED])[places]


def called(places: np.ndarray, names: list[str]) -> tuple[str | None, ...]:
    """Attacks by their names; None for a place below 0."""
    return tuple(names[place] if place >= 0 else None for place in places.tolist())


def from_dict(read: dict[str, list[Any]]) -> PerExample:
    """Turn what :meth:`PerExample.to_dict` returned, of the types in its schema, into one again.

    Raises
    ------
    ValueError
        If classes are told by number here and by name there.
    """
    kinds = {type(name) for name in (*read["label"], *read["predicted"])}
    if len(kinds) > 1:
        raise ValueError("per_example must hold classes of one kind, got text and numbers")
    distance = [np.nan if entry is None else entry for entry in read["distance"]]
    return PerExample(
        index=np.array(read["index"], dtype=np.int64),
        label=np.array(read["label"]),
        predicted=np.array(read["predicted"]),
        margin=np.array(read["margin"], dtype=np.float64),
        fooled_by=tuple(read["fooled_by"]),
        distance=np.array(distance, dtype=np.float64),
    )
