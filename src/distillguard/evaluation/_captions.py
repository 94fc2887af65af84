"""What people call the report, the examples and the classes."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

REJECTED = "rejected"
"""What reports call the answer that names no class."""


@dataclass(frozen=True)
class ClassNames:
    """Names of classes: the caller's, else the estimator's labels, else numbers."""

    given: tuple[str, ...] | None = None
    labels: Any | None = None
    rejects: bool = False
    """Whether one more column follows the classes, which is none."""

    @classmethod
    def of(cls, class_names: Any, labels: Any | None, rejects: bool = False) -> "ClassNames":
        """Take a sequence in the order of the logits, or a mapping from labels."""
        if class_names is None:
            return cls(None, labels, rejects)
        if isinstance(class_names, Mapping):
            known = range(len(class_names)) if labels is None else labels
            class_names = [_looked_up(class_names, label) for label in known]
        elif isinstance(class_names, str | bytes | Set) or not isinstance(class_names, Iterable):
            raise TypeError(
                "class_names must be a sequence of names or a mapping from labels to names, got "
                f"{class_names!r}"
            )
        names = tuple(checked_text("class_names", str(name)) for name in class_names)
        return cls(names, labels, rejects)

    def check(self, n_columns: int) -> None:
        """Refuse names for fewer classes than there are."""
        n_classes = n_columns - self.rejects
        if self.given is not None and len(self.given) < n_classes:
            raise ValueError(
                f"class_names must name all {n_classes} classes, got {len(self.given)} names"
            )

    def __getitem__(self, index: int) -> str:
        known = self.labels if self.given is None else self.given
        if known is None:
            return str(index)
        return str(known[index]) if index < len(known) or not self.rejects else REJECTED


@dataclass(frozen=True)
class Captions:
    """The caller's words for people."""

    title: str | None
    dataset: str | None
    classes: ClassNames

    @classmethod
    def of(
        cls, title: Any, dataset: Any, class_names: Any, labels: Any | None, rejects: bool
    ) -> "Captions":
        """Check what the caller passed; ``labels`` and ``rejects`` are the estimator's."""
        return cls(
            checked_text("title", title),
            checked_text("dataset", dataset),
            ClassNames.of(class_names, labels, rejects),
        )


def _looked_up(names: Mapping[Any, Any], label: Any) -> Any:
    if label not in names:
        raise ValueError(f"class_names must name class {label!r}, got names of {list(names)!r}")
    return names[label]


def checked_text(name: str, text: Any) -> Any:
    """Return the text or None; refuse what is no text, or nothing that shows."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text that UTF-8 can hold, got {text!r}") from None
    if not text.strip():
        raise ValueError(f"{name} must not be blank, got {text!r}")
    return text
