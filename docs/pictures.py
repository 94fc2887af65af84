"""Draws the pictures of displays, for their reference pages and others: python docs/pictures.py."""

from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot

from distillguard import DefensiveDistiller, UndefendedClassifier, attacks, datasets, evaluate
from distillguard.evaluation import (
    AdversarialExamplesDisplay,
    AttackTrace,
    AttackTraceDisplay,
    HistogramDisplay,
    LossSurfaceDisplay,
    RobustnessCurveDisplay,
    TransferMatrixDisplay,
    compare,
    confidence_histogram,
    transfer_matrix,
)
from distillguard.scaling_laws import BARTOLDSON2024_ENVELOPE, SizeDisplay

STATIC = Path(__file__).parent / "_static"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


# Small figures, so that their letters stay legible on a telephone.
mpl.rcParams["figure.figsize"] = (4.8, 3.6)


def save(figure, name):
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(STATIC / f"{name}.svg", metadata={"Date": None}, dpi=100)


def main():
    X, y = datasets.load_digits("train")
    X_test, y_test = (part[:150] for part in datasets.load_digits("test"))
    settings = {"epsilon": 0.1, "random_state": 0}
    distiller = DefensiveDistiller(temperature=100.0, max_epochs=15, random_state=0).fit(X, y)
    student = distiller.student_

    report = evaluate(distiller, X_test, y_test, attacks="quick", class_names=NAMES, **settings)
    with mpl.rc_context({"font.size": 12}):  # The display has a size of its own.
        save(AdversarialExamplesDisplay.from_report(report, n_examples=3).figure_, "fooled-digits")

    traces = {}
    for loss in ("cross_entropy", "margin"):
        traces[f"PGD, {loss}"] = trace = AttackTrace(X_test, y_test, epsilon=0.1)
        pgd = partial(attacks.pgd, loss=loss, steps=40, callback=trace, **settings)
        pgd(student, X_test, y_test)
    save(AttackTraceDisplay.from_traces(traces).figure_, "attack-traces")

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(5.4, 8), layout="constrained")
    around = LossSurfaceDisplay.from_model(
        student, X_test[3:4], y_test[3:4], radius=0.3, random_state=0, ax=above
    )
    around.plot(below, loss="margin")
    save(figure, "loss-surfaces")

    plain = UndefendedClassifier(max_epochs=15, random_state=0).fit(X, y)
    networks = {"undefended": plain, "distilled, T = 100": distiller}
    reports = {
        name: evaluate(model, X_test, y_test, attacks="quick", survivors_only=False, **settings)
        for name, model in networks.items()
    }
    save(compare(reports).plot().figure_, "comparison")

    curves = {"minimum_distance": "ddn", "norm": "l2", "random_state": 0}
    figure, axes = pyplot.subplots(layout="constrained")
    for name, model in networks.items():
        RobustnessCurveDisplay.from_estimator(model, X_test, y_test, name=name, ax=axes, **curves)
    save(figure, "curves")

    confidence = confidence_histogram(distiller, X_test, bins=10, temperature=100.0)
    save(HistogramDisplay(confidence).plot().figure_, "histogram")

    moved = transfer_matrix(networks, "deepfool", X_test, y_test, norm="l2", random_state=0)
    save(TransferMatrixDisplay(moved).plot().figure_, "transfer")

    sizes = SizeDisplay.from_law(BARTOLDSON2024_ENVELOPE, np.logspace(17, 22, 50))
    save(sizes.figure_, "sizes")


if __name__ == "__main__":
    main()
