"""Honest evaluation: attack, judge the attacks, and say what may be believed."""

from ._compare import Comparison, compare
from ._curves import RobustnessCurve, robustness_curve
from ._displays import HistogramDisplay, RobustnessCurveDisplay, TransferMatrixDisplay
from ._evaluate import evaluate
from ._findings import Finding
from ._histograms import Histogram, confidence_histogram, gradient_histogram
from ._presets import AttackSpec
from ._report import Example, RobustnessReport
from ._rows import AttackRow
from ._schema import SCHEMA
from ._transfer import transfer_matrix

__all__ = [
    "SCHEMA",
    "AttackRow",
    "AttackSpec",
    "Comparison",
    "Example",
    "Finding",
    "Histogram",
    "HistogramDisplay",
    "RobustnessCurve",
    "RobustnessCurveDisplay",
    "RobustnessReport",
    "TransferMatrixDisplay",
    "compare",
    "confidence_histogram",
    "evaluate",
    "gradient_histogram",
    "robustness_curve",
    "transfer_matrix",
]
