"""Honest evaluation: attack, judge the attacks, and say what may be believed."""

from ._attack_displays import AdversarialExamplesDisplay, AttackTraceDisplay
from ._curves import RobustnessCurve, robustness_curve
from ._displays import (
    ComparisonDisplay,
    HistogramDisplay,
    RobustnessCurveDisplay,
    TransferMatrixDisplay,
)
from ._evaluate import evaluate
from ._histograms import Histogram, confidence_histogram, gradient_histogram
from ._layer_by_layer import evaluate_layers
from ._layer_report import LayerReport
from ._loss_surface import LossSurface, LossSurfaceDisplay
from ._presets import AttackSpec
from ._records import Cost
from ._traces import AttackTrace
from ._transfer import TransferMatrix, transfer_matrix
from .diagnosis._findings import Finding
from .diagnosis._observations import Observations
from .report._adaptation import Adaptation
from .report._compare import Comparison, compare
from .report._paired import PairedDifference, paired_difference
from .report._per_example import PerExample
from .report._rejection import Rejection
from .report._report import Example, RobustnessReport
from .report._rows import AttackRow, ClassRow
from .report._schema import SCHEMA

__all__ = [
    "SCHEMA",
    "Adaptation",
    "AdversarialExamplesDisplay",
    "AttackRow",
    "AttackSpec",
    "AttackTrace",
    "AttackTraceDisplay",
    "ClassRow",
    "Comparison",
    "ComparisonDisplay",
    "Cost",
    "Example",
    "Finding",
    "Histogram",
    "HistogramDisplay",
    "LayerReport",
    "LossSurface",
    "LossSurfaceDisplay",
    "Observations",
    "PairedDifference",
    "PerExample",
    "Rejection",
    "RobustnessCurve",
    "RobustnessCurveDisplay",
    "RobustnessReport",
    "TransferMatrix",
    "TransferMatrixDisplay",
    "compare",
    "confidence_histogram",
    "evaluate",
    "evaluate_layers",
    "gradient_histogram",
    "paired_difference",
    "robustness_curve",
    "transfer_matrix",
]


def __dir__() -> list[str]:
    return __all__
