"""Draws the pictures of displays on the how-to pages: python docs/pictures.py."""

from functools import partial
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot

from distillguard import DefensiveDistiller, attacks, datasets, evaluate
from distillguard.evaluation import (
    AdversarialExamplesDisplay,
    AttackTrace,
    AttackTraceDisplay,
    LossSurfaceDisplay,
)

STATIC = Path(__file__).parent / "_static"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


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
    save(AdversarialExamplesDisplay.from_report(report, n_examples=3).figure_, "fooled-digits")

    traces = {}
    for loss in ("cross_entropy", "margin"):
        traces[f"PGD, {loss}"] = trace = AttackTrace(X_test, y_test, epsilon=0.1)
        pgd = partial(attacks.pgd, loss=loss, steps=40, callback=trace, **settings)
        pgd(student, X_test, y_test)
    save(AttackTraceDisplay.from_traces(traces).figure_, "attack-traces")

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    around = LossSurfaceDisplay.from_model(
        student, X_test[3:4], y_test[3:4], radius=0.3, random_state=0, ax=left
    )
    around.plot(right, loss="margin")
    save(figure, "loss-surfaces")


if __name__ == "__main__":
    main()
