"""Honest evaluation: attack, judge the attacks, and say what may be believed."""

from typing import TYPE_CHECKING

from .._lazy import lazily

# Loaded on first use: an evaluation draws nothing, and many need no other part.
_HOMES = {
    "Adaptation": "report._adaptation",
    "AdversarialExamplesDisplay": "_attack_displays",
    "AttackRow": "report._rows",
    "AttackSpec": "_presets",
    "AttackTrace": "_traces",
    "AttackTraceDisplay": "_attack_displays",
    "ClassRow": "report._rows",
    "Comparison": "report._compare",
    "ComparisonDisplay": "_displays",
    "Cost": "_records",
    "Example": "report._report",
    "Finding": "diagnosis._findings",
    "Histogram": "_histograms",
    "HistogramDisplay": "_displays",
    "LayerReport": "_layer_report",
    "LossSurface": "_loss_surface",
    "LossSurfaceDisplay": "_loss_surface",
    "Observations": "diagnosis._observations",
    "PairedDifference": "report._paired",
    "PerExample": "report._per_example",
    "Rejection": "report._rejection",
    "RobustnessCurve": "_curves",
    "RobustnessCurveDisplay": "_displays",
    "RobustnessReport": "report._report",
    "SCHEMA": "report._schema",
    "TransferMatrix": "_transfer",
    "TransferMatrixDisplay": "_displays",
    "compare": "report._compare",
    "confidence_histogram": "_histograms",
    "evaluate": "_evaluate",
    "evaluate_layers": "_layer_by_layer",
    "gradient_histogram": "_histograms",
    "paired_difference": "report._paired",
    "robustness_curve": "_curves",
    "transfer_matrix": "_transfer",
}

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

if TYPE_CHECKING:
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


__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
