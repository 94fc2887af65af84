"""What people call the report, the examples and the classes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClassNames:
    """Names of classes: the caller's, else the estimator's labels, else numbers."""

    given: tuple[str, ...] | None = None
    labels: Any | None = None

    @classmethod
    def of(cls, class_names: Any, labels: Any | None) -> "ClassNames":
        """Take a sequence in the order of the logits, or a mapping from labels."""
        if class_names is None:
            return cls(None, labels)
        if isinstance(class_names, Mapping):
            known = range(len(class_names)) if labels is None else labels
            class_names = [_looked_up(class_names, label) for label in known]
        elif isinstance(class_names, str | bytes) or not isinstance(class_names, Iterable):
            raise TypeError(
                "class_names must be a sequence of names or a mapping from labels to names, got "
                f"{class_names!r}"
            )
        return cls(tuple(checked_text("class_names", str(name)) for name in class_names), labels)

    def check(self, n_classes: int) -> None:
        """Refuse names for fewer classes than there are."""
        if self.given is not None and len(self.given) < n_classes:
            raise ValueError(
                f"class_names must name all {n_classes} classes, got {len(self.given)} names"
            )

    def __getitem__(self, index: int) -> str:
        if self.given is not None:
            return self.given[index]
        return str(index if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class Captions:
    """The caller's words for people."""

    title: str | None
    dataset: str | None
    classes: ClassNames

    @classmethod
    def of(cls, title: Any, dataset: Any, class_names: Any, labels: Any | None) -> "Captions":
        """Check what the caller passed; ``labels`` are the estimator's."""
        return cls(
            checked_text("title", title),
            checked_text("dataset", dataset),
            ClassNames.of(class_names, labels),
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
