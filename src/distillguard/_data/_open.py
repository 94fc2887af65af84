"""The one door for data: whatever holds examples, opened as something to read in chunks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Number
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from .._words import Argument, described, written
from ._chunks import Chunk, Group, regrouped
from ._spec import Spec, check_lengths, classes_of, label_values, numbers

Pair = tuple[Any, Any]

_KINDS = "a tensor, an array, a pair (X, y), a Dataset, a DataLoader or batches (inputs, labels)"
_FIELDS = (
    ("image", "label"),
    ("images", "labels"),
    ("img", "label"),
    ("inputs", "labels"),
    ("pixel_values", "labels"),
    ("data", "target"),
    ("x", "y"),
    ("X", "y"),
)
"""Names under which others keep inputs and labels."""


@dataclass(frozen=True)
class Examples:
    """Examples from anywhere, checked and encoded as they are read."""

    spec: Spec
    read: Callable[[int], Iterable[Pair]]
    """Yields batches (inputs, labels), of at most so many examples where it can choose."""

    memory: tuple[Any, NDArray[Any] | None] | None = None
    """Inputs and labels in memory, as they were given; None of a stream."""

    stream: Any = None
    """What yields batches or examples one after another; None of what is in memory."""

    length: int | None = None
    """How many examples a stream has, where that is known before it is read."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape (n, ...) of inputs in memory; None of a stream."""
        return None if self.memory is None else tuple(self.memory[0].shape)

    @property
    def n_examples(self) -> int | None:
        """How many examples there are, where that is known before they are read."""
        return self.length if self.shape is None else self.shape[0]

    def chunks(self, size: int, dtype: torch.dtype | None = None) -> Iterator[Chunk]:
        """Yield everything in order, ``size`` examples at a time; a generator only once.

        Memory holds one chunk and one batch of the caller's. Floating tensors keep their dtype;
        everything else comes in ``dtype``. Labels come as indices of ``spec.classes``; those of
        unlabelled examples are -1.
        """
        spec, start = self.spec, 0
        for inputs, labels in regrouped(self._groups(size, dtype), size, spec.name):
            places = torch.arange(start, start + len(inputs), device="cpu")
            codes = torch.full_like(places, -1) if labels is None else spec.encode(labels)
            yield Chunk(places, spec.check(inputs, dtype), codes)
            start += len(inputs)
        if start == 0:
            raise ValueError(f"{spec.name} must hold at least one example, got none")

    def whole(self, dtype: torch.dtype | None = None) -> Chunk:
        """Return everything at once, for what cannot work on a part."""
        chunks = list(self.chunks(2**16, dtype))
        return Chunk(*map(torch.cat, zip(*chunks, strict=True)))

    def _groups(self, size: int, dtype: torch.dtype | None) -> Iterator[Group]:
        name, label_name = self.spec.name, self.spec.label_name
        for inputs, labels in self.read(size):
            values = None if labels is None else label_values(labels, label_name, len(inputs))
            if values is not None:
                check_lengths(inputs, values, name)
            yield self.spec.tensor(inputs, dtype), values


def examples(
    X: Any,
    y: Any = None,
    *,
    name: str = "X",
    label_name: str = "y",
    labelled: bool = True,
    spec: Spec | None = None,
    learn_classes: bool = False,
) -> Examples:
    """Open whatever holds examples; the one door for data.

    ``X`` may be a tensor, an array, a table or nested lists with ``y`` beside it, a pair
    (X, y), one example with its label, a Dataset or DataLoader of pairs, or an iterable of
    batches or examples, each a pair (inputs, labels). ``name`` and ``label_name`` are the
    caller's words for the two, which messages use; ``spec`` says what the examples are held to.
    Where ``labelled`` is False, labels need not be there and are not looked at. With
    ``learn_classes`` the classes are those of labels in memory, of any kind that scikit-learn
    takes; a stream's labels are indices all the same.

    Raises
    ------
    TypeError
        If ``X`` or ``y`` is of a kind that holds no examples; the message says what to write.
    ValueError
        If lengths or shapes do not fit, here or when the examples are read.
    """
    spec = spec or Spec()
    code = name
    if _is_stream(X):
        if y is not None:
            raise TypeError(
                f"{label_name} must be None when {name} yields pairs (inputs, labels), got "
                f"{described(y)}"
            )
        if type(X) is not TensorDataset:
            spec = spec.called(*_names_in_stream(name))
            read = partial(_batches, X, name, labelled)
            return Examples(spec, read, stream=X, length=_length(X))
        X, code, learn_classes = X.tensors, f"{name}.tensors", False
        if labelled:
            pair(X, name)
    if y is None and _is_pair(X):
        X, y = X
        inputs, labels = _named(X, name, f"{code}[0]"), _named(y, f"labels in {name}", f"{code}[1]")
        spec = spec.called(inputs, labels)
        return _in_memory(X, y if labelled else None, spec, learn_classes)
    spec = spec.called(_named(X, name, name), _named(y, label_name, label_name))
    if not labelled:
        return _in_memory(X[0] if isinstance(X, tuple) else X, None, spec)
    if isinstance(X, tuple) and any(map(_is_array, X)):
        _refuse(X, name)
    if y is None and _holds_numbers(X):
        raise TypeError(f"{label_name} must be given when {name} is an array or a tensor, got None")
    return _in_memory(X, y, spec, learn_classes)


def _length(X: Any) -> int | None:
    """How many examples a loader or a data set yields; None where it does not say."""
    if isinstance(X, DataLoader):
        X = None if X.batch_size is None or X.drop_last else X.sampler
    elif not isinstance(X, Dataset):
        return None
    try:
        return len(X)
    except TypeError:
        return None


def _named(values: Any, name: str, code: str) -> Argument:
    """The name of values in memory, with the code for them: methods are those of tensors."""
    own = hasattr(values, "__array__") or hasattr(values, "toarray")
    array = code if own else f"np.asarray({code})"
    return Argument(name, array, code if isinstance(values, Tensor) else f"torch.as_tensor({code})")


def _names_in_stream(name: str) -> tuple[Argument, Argument]:
    """Names with code that changes one part of each pair."""
    inputs, labels = (f"(({parts}) for x, y in {name})" for parts in ("{}, y", "x, {}"))
    return (
        Argument(name, "x", whole=inputs),
        Argument(f"labels in {name}", "y", whole=labels),
    )


def pair(item: Any, name: str = "X") -> Pair:
    """Return the inputs and labels of what a loader, a data set or a generator yields."""
    if isinstance(item, list | tuple) and len(item) == 2 and not isinstance(item[0], int):
        inputs, labels = item
        if isinstance(inputs, Mapping):
            raise TypeError(
                f"{name} must yield pairs (inputs, labels) with one tensor of inputs, got "
                f"{described(inputs)}"
            )
        if not _holds_numbers(inputs):
            _refuse_inputs(inputs, name)
        return inputs, labels
    remedy = ""
    if isinstance(item, Mapping):
        remedy = _renamed(item, "; write ((b[{}], b[{}]) for b in " + name + ")")
    elif isinstance(item, list | tuple) and len(item) > 2:
        remedy = f"; write ((b[0], b[1]) for b in {name})"
    elif isinstance(item, list | tuple) and len(item) == 2:
        remedy = "; leave out enumerate"
    elif isinstance(item, Tensor | np.ndarray | list | tuple):
        remedy = "; labels are missing"
    raise TypeError(f"{name} must yield pairs (inputs, labels), got {described(item)}{remedy}")


def _in_memory(X: Any, y: Any, spec: Spec, learn_classes: bool = False) -> Examples:
    """Examples all there, their labels encoded now: mistakes come before any work."""
    name, label_name = spec.name, spec.label_name
    if not _holds_numbers(X):
        _refuse(X, name)
    spec.check_columns(X)
    values = X if isinstance(X, Tensor) else numbers(X, name)
    if values.ndim == 0:
        _refuse(X, name)
    if isinstance(values, Tensor):
        values = spec.dense(values)
    if len(values) == 0:
        raise ValueError(f"{name} must hold at least one example, got none")
    if y is None:
        return Examples(spec, partial(_slices, values, None), (values, None))
    if _is_scalar(y):
        values, y = _one_example(values, y, spec)
    elif not _holds_numbers(y):
        raise TypeError(f"{label_name} must hold one class per example, got {described(y)}")
    if values.ndim == 1 and getattr(y, "ndim", 1) > 1 and len(values) == len(y):
        raise ValueError(
            f"{name} must hold inputs and {label_name} classes, got shapes "
            f"{tuple(values.shape)} and {tuple(y.shape)}; exchange the two"
        )
    labels = label_values(y, label_name, len(values))
    if len(labels) != len(values):
        one = len(labels) == 1 and values.ndim in (1, 3)
        raise ValueError(
            f"{label_name} must have one label for each of {len(values)} inputs, got {len(labels)}"
            + (f"; for one example write {written(name, '{tensor}[None]')}" if one else "")
        )
    if learn_classes:
        spec = replace(spec, classes=classes_of(labels, label_name))
    spec.encode(labels)
    return Examples(spec, partial(_slices, values, labels), (values, labels))


def _one_example(values: Any, y: Any, spec: Spec) -> Pair:
    """One label says that there is one example, with or without an axis of its own."""
    if len(values) == 1 and values.ndim not in (1, 3):
        return values, [y]
    if values.ndim in (1, 3):
        return values[None], [y]
    raise ValueError(
        f"{spec.label_name} must have one label for each of {len(values)} inputs, got one label, "
        f"{y}; for one example write {written(spec.name, '{tensor}[None]')}"
    )


def _slices(values: Any, labels: NDArray[Any] | None, size: int) -> Iterator[Pair]:
    for start in range(0, len(values), size):
        rows = slice(start, start + size)
        yield values[rows], None if labels is None else labels[rows]


def _batches(X: Any, name: str, labelled: bool, size: int) -> Iterator[Pair]:
    """What a stream yields as batches: a scalar label tells an example from a batch."""
    examples = isinstance(X, Dataset)
    for item in _items(X):
        if labelled:
            inputs, labels = pair(item, name)
            single = _is_scalar(labels)
        else:
            parts = item if isinstance(item, list | tuple) else (item,)
            inputs, labels = parts[0], None
            single = len(parts) > 1 and _is_scalar(parts[1])
        if not isinstance(inputs, Tensor):
            inputs = numbers(inputs, name)
        if examples and getattr(labels, "ndim", 0) > 0 and len(labels) != 1:
            raise ValueError(
                f"labels in {name} must be one class per example, got shape "
                f"{tuple(labels.shape)}; if they are one-hot, write ((x, y.argmax()) for x, y in "
                f"{name})"
            )
        if examples or single:
            inputs, labels = inputs[None], None if labels is None else as_labels(labels)
        yield inputs, labels


def as_labels(label: Any) -> Any:
    """Return the label of one example with an axis of its own."""
    return label.reshape(1) if isinstance(label, Tensor | np.ndarray) else [label]


def _items(X: Any) -> Iterator[Any]:
    if isinstance(X, Dataset) and not isinstance(X, IterableDataset):
        return (X[index] for index in range(len(X)))  # type: ignore[arg-type]
    return iter(X)


def _is_stream(X: Any) -> bool:
    """Whether pairs (inputs, labels) come out of it one after another."""
    if isinstance(X, Dataset | DataLoader | Iterator):
        return True
    if isinstance(X, list | tuple):
        return bool(X) and all(map(_is_item, X))
    known = (str, bytes, Mapping, type, torch.nn.Module)
    return hasattr(X, "__iter__") and not _holds_numbers(X) and not isinstance(X, known)


def _is_item(item: Any) -> bool:
    """Whether a list of such things holds batches or examples rather than numbers."""
    if isinstance(item, Mapping):
        return True
    return isinstance(item, list | tuple) and len(item) > 1 and _is_array(item[0])


def _is_pair(X: Any) -> bool:
    """Whether it is (inputs, labels); two inputs in a list are not."""
    if not isinstance(X, list | tuple) or len(X) != 2:
        return False
    return isinstance(X, tuple) or (_is_array(X[0]) and np.ndim(X[1]) < max(2, X[0].ndim))


def _is_scalar(label: Any) -> bool:
    """Whether it is one label: a number, a name, or an array without axes."""
    if isinstance(label, str | Number):
        return True
    return getattr(label, "ndim", 1) == 0


def _is_array(part: Any) -> bool:
    return getattr(part, "ndim", 0) > 0 or _is_picture(part)


def _is_picture(part: Any) -> bool:
    return type(part).__module__.startswith("PIL.")


def _holds_numbers(X: Any) -> bool:
    """Whether NumPy or torch sees an array in it; what is in it remains to be seen."""
    if isinstance(X, list | tuple):
        return len(X) == 0 or not isinstance(X, tuple) or not any(map(_is_array, X))
    return hasattr(X, "__array__") or hasattr(X, "toarray")


def _refuse(X: Any, name: str) -> NoReturn:
    remedy = ""
    if isinstance(X, Mapping):
        remedy = _renamed(X, "; write " + name + "[{}] and " + name + "[{}]")
    elif isinstance(X, tuple):
        remedy = f"; write {name}[:2]"
    elif isinstance(X, type):
        remedy = f"; make an instance of it, {X.__name__}(...)"
    elif isinstance(X, torch.nn.Module):
        remedy = "; the model comes first"
    elif callable(X):
        remedy = "; call it"
    elif isinstance(X, str) or hasattr(X, "__fspath__"):
        remedy = "; load the file first"
    raise TypeError(f"{name} must be {_KINDS}, got {described(X)}{remedy}")


def _refuse_inputs(inputs: Any, name: str) -> NoReturn:
    remedy = ""
    if _is_picture(inputs):
        remedy = "; give the data set transform=torchvision.transforms.ToTensor()"
    raise TypeError(f"{name} must yield inputs that are tensors, got {described(inputs)}{remedy}")


def _renamed(mapping: Mapping[Any, Any], sentence: str) -> str:
    for inputs, labels in _FIELDS:
        if inputs in mapping and labels in mapping:
            return sentence.format(repr(inputs), repr(labels))
    return ""
