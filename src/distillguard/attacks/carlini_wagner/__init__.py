"""The attacks of Carlini and Wagner (2017), one file per norm, as we run them and as published."""

from ._l0 import carlini_wagner_l0
from ._l2 import carlini_wagner_l2
from ._linf import carlini_wagner_linf

__all__ = ["carlini_wagner_l0", "carlini_wagner_l2", "carlini_wagner_linf"]
