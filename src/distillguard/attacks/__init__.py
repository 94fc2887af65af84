"""Attacks, each one function: ``attack(model, inputs, labels, *, ...) -> Tensor``.

Budget attacks take ``epsilon`` and ``norm``; minimum-distance attacks look for the smallest
perturbation and return the input unchanged where they find none. Configure an attack with
:func:`functools.partial`.
"""

from ._apgd import apgd
from ._apgd_targeted import apgd_targeted
from ._fab_targeted import fab_targeted
from ._fgsm import fgsm
from ._pgd import pgd
from ._square import square

__all__ = ["apgd", "apgd_targeted", "fab_targeted", "fgsm", "pgd", "square"]
