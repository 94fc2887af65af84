"""How robustness grows with network, data and compute: the laws of Bartoldson et al. 2024."""

from ._displays import LossDisplay, SizeDisplay
from ._envelope import EnvelopeLaw
from ._fit import Fit
from ._law import FLOPS_FACTOR, AccuracyLine, Optimum, ScalingLaw
from ._parametric import ParametricLaw
from ._published import (
    BARTOLDSON2024_ENVELOPE,
    BARTOLDSON2024_PARAMETRIC,
    BARTOLDSON2024_QUALITY,
)
from ._quality import QualityLaw

__all__ = [
    "BARTOLDSON2024_ENVELOPE",
    "BARTOLDSON2024_PARAMETRIC",
    "BARTOLDSON2024_QUALITY",
    "FLOPS_FACTOR",
    "AccuracyLine",
    "EnvelopeLaw",
    "Fit",
    "LossDisplay",
    "Optimum",
    "ParametricLaw",
    "QualityLaw",
    "ScalingLaw",
    "SizeDisplay",
]
