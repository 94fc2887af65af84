"""What examples are held to: one check of inputs and one look-up of labels for every source."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._boxes import hold_within, tensor_of
from .._typing import Bounds
from .._validation import check_label_range
from .._words import Argument, described, listed, written
from ._arrays import as_array, as_tensor, refuse_bytes


@dataclass(frozen=True)
class Spec:
    """Classes, shape and bounds of examples; None is not known yet."""

    classes: NDArray[Any] | Sequence[Any] | None = None
    shape: tuple[int, ...] | None = None
    bounds: Bounds | None = None
    name: str = "X"
    """What the caller calls the inputs, in messages."""
    label_name: str = "y"
    """What the caller calls the labels."""
    unknown: int | None = None
    """The index of labels that are no class; None refuses them."""
    columns: NDArray[Any] | Sequence[str] | None = None
    """Names of a table's columns, in order; None where there was no table."""

    def called(self, name: str, label_name: str) -> "Spec":
        """Return the same with the caller's names."""
        return replace(self, name=name, label_name=label_name)

    def check_columns(self, inputs: Any) -> None:
        """Refuse a table whose columns are others, or in another order; one without names passes.

        Names are text, as in scikit-learn; what else a table numbers its columns by is no name.
        """
        found = list(getattr(inputs, "columns", ()))
        if self.columns is None or not found or not all(isinstance(name, str) for name in found):
            return
        known = list(self.columns)
        if len(found) != len(known):
            raise ValueError(
                f"{self.name} must have the {len(known)} columns of fit, got {len(found)}"
            )
        for place, (name, other) in enumerate(zip(known, found, strict=True)):
            if name != other:
                raise ValueError(
                    f"{self.name} must have the columns of fit in their order, got {other!r} in "
                    f"place {place} instead of {name!r}"
                )

    def check(self, inputs: Any, dtype: torch.dtype | None = None) -> Tensor:
        """Inputs (n, ...) as floating point, within the bounds; others are refused.

        Floating tensors keep their dtype; arrays and whole numbers come in ``dtype`` if given.
        """
        inputs = self.tensor(inputs, dtype)
        if inputs.ndim < 2:
            raise ValueError(
                f"{self.name} must have shape (n, ...) with at least two axes, got "
                f"{tuple(inputs.shape)}. Reshape your data; for one feature write "
                f"{written(self.name, '{tensor}[:, None]')}"
            )
        if 0 in inputs.shape[1:]:
            raise ValueError(
                f"{self.name} must hold numbers, got 0 feature(s) (shape={tuple(inputs.shape)}) "
                "while a minimum of 1 is required."
            )
        if self.shape is not None and tuple(inputs.shape[1:]) != self.shape:
            raise ValueError(
                f"{self.name} must hold examples of shape {self.shape} as in fit, "
                f"got {tuple(inputs.shape[1:])}"
            )
        if self.bounds is not None:
            return hold_within(self.name, inputs, self.bounds)
        if not inputs.isfinite().all():
            raise ValueError(f"{self.name} must be finite, got NaN or infinity")
        return inputs

    def tensor(self, inputs: Any, dtype: torch.dtype | None = None) -> Tensor:
        """Inputs as a dense tensor of floating point numbers, whatever their values."""
        if self.bounds is None or _are_beyond(inputs, self.bounds):
            refuse_bytes(inputs, self.name)
        own = isinstance(inputs, Tensor)
        values = inputs.detach() if own else as_tensor(numbers(inputs, self.name))
        values = self.dense(values)
        if values.is_complex():
            _refuse_complex(self.name, values.dtype)
        if values.is_floating_point() and (own or dtype is None):
            return values
        return values.to(torch.float32 if dtype is None else dtype)

    def dense(self, values: Tensor) -> Tensor:
        """Return the tensor itself; a sparse one is refused."""
        if values.layout != torch.strided:
            raise TypeError(
                f"{self.name} must be dense, got a sparse tensor; write "
                f"{written(self.name, '{}.to_dense()')}"
            )
        return values

    def encode(self, labels: Any) -> Tensor:
        """Labels (n,) as indices of their classes, int64; others are refused."""
        if self._are_indices(labels):
            codes = labels.detach().long()
        else:
            values = label_values(labels, self.label_name)
            codes = self._codes(values)
            if isinstance(labels, Tensor):
                codes = codes.to(labels.device)
        if self.classes is not None and self._counted:
            if self.unknown is not None:
                return codes.where((codes >= 0) & (codes < len(self.classes)), self.unknown)
            self.check_classes(codes, len(self.classes))
        return codes

    def check_classes(self, codes: Tensor, n_classes: int) -> None:
        """Refuse class indices that a network of ``n_classes`` outputs does not know."""
        check_label_range(codes, n_classes, self.label_name)

    def _are_indices(self, labels: Any) -> bool:
        """Whether nothing needs looking up: the common case, without a copy."""
        if not isinstance(labels, Tensor) or labels.ndim != 1:
            return False
        if labels.is_floating_point() or labels.is_complex():
            return False
        return self.classes is None or self._counted

    def _codes(self, values: NDArray[Any]) -> Tensor:
        if self.classes is None or (self._counted and values.dtype.kind in "biuf"):
            return torch.from_numpy(whole_numbers(values, self.label_name))
        codes = [self._indices.get(value, -1) for value in values.tolist()]
        if -1 in codes and not self._may_be_unknown(values):
            stranger = values.tolist()[codes.index(-1)]
            raise ValueError(
                f"{self.label_name} must hold known classes, got {stranger!r}; "
                f"known are {listed(self._indices)}"
            )
        return torch.tensor(codes, dtype=torch.int64, device="cpu")

    def _may_be_unknown(self, labels: NDArray[Any]) -> bool:
        """Whether strangers among labels are counted: names among names, numbers among numbers."""
        kinds = {isinstance(value, str) for value in (*labels.tolist(), *self._indices)}
        return self.unknown is not None and len(kinds) == 1

    @cached_property
    def _counted(self) -> bool:
        """Whether the classes are their own indices."""
        return list(self._indices) == list(range(len(self._indices)))

    @cached_property
    def _indices(self) -> dict[Any, int]:
        assert self.classes is not None
        values = np.asarray(as_array(self.classes)).tolist()
        return {value: index for index, value in enumerate(values)}


def _are_beyond(inputs: Any, bounds: Bounds) -> bool:
    """Whether bytes do not lie within the bounds: 0 to 1, say, rather than 0 to 255."""
    if getattr(inputs, "dtype", None) not in (np.uint8, torch.uint8) or len(inputs) == 0:
        return False
    return float(inputs.max()) > float(tensor_of(bounds[1]).max())


def check_lengths(inputs: Any, labels: Any, name: str) -> None:
    """Refuse a batch without one label per input."""
    if len(inputs) != len(labels):
        raise ValueError(
            f"{name} must yield one label per input, got {len(inputs)} inputs and "
            f"{len(labels)} labels"
        )


def numbers(values: Any, name: str) -> NDArray[Any]:
    """Return an array of numbers from whatever NumPy turns into one."""
    if isinstance(values, list | tuple) and any(isinstance(part, Tensor) for part in values):
        values = [as_array(part) for part in values]
    if hasattr(values, "toarray"):
        raise TypeError(
            f"{name} must be dense, got a sparse {type(values).__name__}; write "
            f"{written(name, '{}.toarray()')}"
        )
    try:
        array = np.asarray(values)
    except ValueError:
        shapes = sorted({np.shape(part) for part in values}) if _are_arrays(values) else []
        got = " and ".join(map(str, shapes[:2])) or "rows of different lengths"
        raise ValueError(f"{name} must hold examples of one shape, got {got}") from None
    if array.dtype.kind == "c":
        _refuse_complex(name, array.dtype)
    if array.dtype.kind in "biuf":
        return array
    reason = ""
    if array.dtype.kind == "O":
        try:
            return array.astype(np.float64)
        except TypeError as error:
            reason = f": {error}"
        except ValueError:
            pass
    raise TypeError(f"{name} must hold numbers, got {_no_number(values, array)}{reason}")


def classes_of(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the distinct classes of labels (n,), in order: at least two, of any kind."""
    # Here: an evaluation, which learns no classes, does without what these import.
    from sklearn.utils import assert_all_finite
    from sklearn.utils.multiclass import check_classification_targets

    if labels.dtype.kind in "fO":
        assert_all_finite(labels, input_name=name)
    check_classification_targets(labels)
    classes: NDArray[Any] = np.unique(labels)
    check_several(classes, name)
    return classes


def check_several(classes: Any, name: str) -> None:
    """Refuse labels of one class, which there is nothing to learn from."""
    if len(classes) < 2:
        raise ValueError(
            f"{name} must hold at least two classes, got one class: {classes.tolist()[0]!r}"
        )


def _refuse_complex(name: str, dtype: Any) -> NoReturn:
    raise ValueError(f"{name} must hold real numbers, got {dtype}. Complex data not supported")


def label_values(labels: Any, name: str, n: int | None = None) -> NDArray[Any]:
    """Return labels of ``n`` inputs as an array (n,) of any kind; one column is taken for that."""
    if hasattr(labels, "toarray"):
        raise TypeError(
            f"{name} must be dense, got {described(labels)}; write {written(name, '{}.toarray()')}"
        )
    if isinstance(labels, list | tuple) and any(isinstance(part, Tensor) for part in labels):
        labels = [as_array(part) for part in labels]
    try:
        values = np.asarray(as_array(labels))
    except ValueError:
        remedy = f"; write np.concatenate({name})" if _are_arrays(labels) else ""
        raise ValueError(
            f"{name} must hold one class per example, got rows of different lengths{remedy}"
        ) from None
    if values.dtype.kind == "T":  # NumPy's strings of any length, which scikit-learn does not take
        values = values.astype(object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1:
        return values
    if values.ndim == 0:
        raise TypeError(f"{name} must hold one class per example, got {described(labels)}")
    remedy = ""
    if values.ndim == 2:
        row = len(values) == 1 and n != 1
        change = "{}.reshape(-1)" if row else "{}.argmax(1)"
        remedy = f"; write {written(name, change)}"
    raise ValueError(
        f"{name} must hold one class per example, shape (n,), got shape {values.shape}{remedy}"
    )


def whole_numbers(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return labels that are whole numbers, of whatever dtype, as int64."""
    if values.dtype.kind == "O":
        values = np.asarray(values.tolist() or np.zeros(0, int))
    if values.dtype.kind in "US":
        raise TypeError(
            f"{name} must hold integer classes, got {values[0].item()!r}{_text(values, name)}"
        )
    if values.dtype.kind not in "biuf":
        strange = [value for value in values.tolist() if not isinstance(value, Real)]
        raise TypeError(f"{name} must hold integer classes, got {described(strange[0])}")
    if values.dtype.kind == "f":
        # The negation finds NaN as well.
        broken = values[~(np.rint(values) == values) | np.isinf(values)]
        if len(broken):
            raise TypeError(f"{name} must hold integer classes, got {broken[0].item()!r}")
    return values.astype(np.int64)


def _text(values: NDArray[Any], name: str) -> str:
    if all(text.strip().isdecimal() for text in values.astype(str).tolist()):
        return f"; write {written(name, '{}.astype(int)')}"
    sentence = "; a network numbers its classes: "
    if isinstance(name, Argument) and name.whole != "{}":
        return sentence + "yield the number of each, in the order of its outputs"
    return (
        sentence + f"write [classes.index(name) for name in {name}], with classes in the order of "
        "its outputs"
    )


def _are_arrays(values: Any) -> bool:
    return all(isinstance(part, np.ndarray) for part in values)


def _no_number(values: Any, array: NDArray[Any]) -> str:
    """What is there instead: the column of a table, the first element, the dtype."""
    if hasattr(values, "dtypes") and hasattr(values, "columns"):
        for column, kind in zip(values.columns, values.dtypes, strict=True):
            if getattr(kind, "kind", "O") not in "biufc":
                return f"column {column!r} of dtype {kind}; drop it or encode it as numbers"
    first = array.reshape(-1)[:1].tolist()
    return repr(first[0]) if first and isinstance(first[0], str) else f"dtype {array.dtype}"
