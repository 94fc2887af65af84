"""Attacks, each one function: ``attack(model, inputs, labels, *, ...) -> Tensor``.

Budget attacks take ``epsilon`` and ``norm``; minimum-distance attacks look for the smallest
perturbation and return the input unchanged where they find none. Configure an attack with
:func:`functools.partial`.
"""

from ._ddn import ddn
from ._deepfool import deepfool
from ._fab_targeted import fab_targeted
from ._fgsm import fgsm
from ._fmn import fmn
from ._guided_sparse_rs import guided_sparse_rs
from ._jsma import jsma
from ._pgd import pgd
from ._rays import rays
from ._sigma_zero import sigma_zero
from ._sparse_rs import sparse_rs
from ._square import square
from .auto_pgd import apgd, apgd_targeted
from .carlini_wagner import carlini_wagner_l0, carlini_wagner_l2, carlini_wagner_linf

__all__ = [
    "apgd",
    "apgd_targeted",
    "carlini_wagner_l0",
    "carlini_wagner_l2",
    "carlini_wagner_linf",
    "ddn",
    "deepfool",
    "fab_targeted",
    "fgsm",
    "fmn",
    "guided_sparse_rs",
    "jsma",
    "pgd",
    "rays",
    "sigma_zero",
    "sparse_rs",
    "square",
]


def __dir__() -> list[str]:
    return __all__
