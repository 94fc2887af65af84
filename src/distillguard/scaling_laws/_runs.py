"""Training runs as columns, from tables of several kinds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._numbers import not_negative, positive, share

NEEDED = ("parameters", "data", "loss")
OPTIONAL = ("fid", "accuracy", "run")


@dataclass(frozen=True)
class Runs:
    """Columns of equal length, checked."""

    parameters: np.ndarray
    data: np.ndarray
    loss: np.ndarray
    fid: np.ndarray | None
    accuracy: np.ndarray | None
    run: np.ndarray | None
    """Index of the run to which each row belongs."""

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def n_qualities(self) -> int:
        """Number of distinct data qualities of the runs."""
        return 1 if self.fid is None else len(np.unique(self.fid))


def read_runs(runs: Any) -> Runs:
    """Check a mapping of columns, a structured array, a data frame or a sequence of mappings."""
    columns = _columns(runs)
    for name in NEEDED:
        if name not in columns:
            raise ValueError(f"runs must have a column {name!r}, got {_listed(columns)}")
    for name in OPTIONAL:
        near = [each for each in columns if each.lower() == name and each != name]
        if name not in columns and near:
            raise ValueError(f"runs must spell its column {name!r}, got {near[0]!r}")
    lengths = {name: np.shape(columns[name]) for name in (*NEEDED, *OPTIONAL) if name in columns}
    if len(set(lengths.values())) > 1 or len(lengths["loss"]) != 1:
        raise ValueError(f"runs must have columns of one length, got shapes {lengths}")
    if not lengths["loss"][0]:
        raise ValueError("runs must have rows, got none")

    checks = {"fid": not_negative, "accuracy": share, "run": _codes}
    checked = {name: positive(f"runs['{name}']", columns[name]) for name in NEEDED}
    optional = {
        name: check(f"runs['{name}']", columns[name]) if name in columns else None
        for name, check in checks.items()
    }
    return Runs(**checked, **optional)  # type: ignore[arg-type]


def _columns(runs: Any) -> dict[str, Any]:
    if getattr(getattr(runs, "dtype", None), "names", None):
        return {name: runs[name] for name in runs.dtype.names}
    if hasattr(runs, "keys"):
        return {str(name): np.asarray(runs[name]) for name in runs.keys()}  # noqa: SIM118
    try:
        rows = list(runs)
        tables = rows and all(isinstance(row, Mapping) for row in rows)
    except TypeError:
        tables = False
    if not tables:
        raise TypeError(
            "runs must be a mapping of columns, a data frame, a structured array or a sequence of "
            f"mappings, got {type(runs).__name__}"
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    for place, row in enumerate(rows):
        for name in (*NEEDED, *(each for each in OPTIONAL if each in names)):
            if name not in row:
                raise ValueError(f"runs[{place}] must have {name!r}, got {_listed(row)}")
    shared = [name for name in names if all(name in row for row in rows)]
    return {name: np.asarray([row[name] for row in rows]) for name in shared}


def _codes(name: str, values: Any) -> np.ndarray:
    try:
        return np.unique(np.asarray(values), return_inverse=True)[1]
    except TypeError as error:
        raise TypeError(f"{name} must be names or numbers, got a mixture") from error


def _listed(columns: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, columns)) or "none"
