"""Attacks, each one function: ``attack(model, inputs, labels, *, ...) -> Tensor``.

Budget attacks take ``epsilon`` and ``norm``; minimum-distance attacks look for the smallest
perturbation and return the input unchanged where they find none. Configure an attack with
:func:`functools.partial`.
"""

from ._fgsm import fgsm
from ._pgd import pgd

__all__ = ["fgsm", "pgd"]
