"""Whatever holds examples, read in one way: the one door for data."""

from ._chunks import Chunk
from ._open import Examples, examples
from ._spec import Spec

__all__ = ["Chunk", "Examples", "Spec", "examples"]
