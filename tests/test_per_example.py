"""The table of examples tells of each what a run by hand shows."""

import builtins
import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import UndefendedClassifier, attacks, evaluate
from distillguard.evaluation import RobustnessReport
from distillguard.exceptions import MissingPackageError


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.rand(60, 6)
    labels = model(inputs).argmax(dim=1)
    labels[::7] = (labels[::7] + 1) % 4
    return model, inputs, labels


STEPS = {
    "one step": partial(attacks.fgsm, epsilon=0.02, random_state=0),
    "many": partial(attacks.pgd, epsilon=0.2, norm="linf", steps=10, random_state=0),
}


def by_hand(model, inputs, labels, attack):
    """Points of an attack on all correct examples, whether they fool and how far they are."""
    points = inputs.clone()
    correct = model(inputs).argmax(dim=1) == labels
    points[correct] = attack(model, inputs[correct], labels[correct])
    fooled = correct & (model(points).argmax(dim=1) != labels)
    return fooled, (points - inputs).double().abs().amax(dim=1)


def test_the_table_agrees_with_each_attack_run_by_hand(task):
    model, inputs, labels = task
    report = evaluate(
        model, inputs, labels, epsilon=0.2, attacks=STEPS, survivors_only=False, random_state=0
    )
    table = report.per_example
    logits = model(inputs).detach()
    assert table.index.tolist() == list(range(60))
    assert table.label.tolist() == labels.tolist()
    assert table.predicted.tolist() == logits.argmax(dim=1).tolist()
    others = logits.scatter(1, labels[:, None], -np.inf).amax(dim=1)
    lead = logits.gather(1, labels[:, None])[:, 0] - others
    np.testing.assert_allclose(table.margin, lead, atol=1e-6)

    first = by_hand(*task, STEPS["one step"])
    second = by_hand(*task, STEPS["many"])
    assert (second[0] & ~first[0]).any()
    for i in range(60):
        name, distance = None, np.nan
        for hand, called in ((second, "many"), (first, "one step")):
            if hand[0][i]:
                name, distance = called, hand[1][i].item()
        assert table.fooled_by[i] == name
        np.testing.assert_equal(table.distance[i], distance)
    assert len(table) == 60
    assert table.robust.mean() == report.robust_accuracy


def test_examples_count_up_to_the_figures_of_the_report(task):
    model, inputs, labels = task
    report = evaluate(model, inputs, labels, epsilon=0.2, attacks=STEPS, chunk_size=7)
    table = report.per_example
    assert table.correct.mean() == report.clean_accuracy
    assert table.robust.mean() == report.robust_accuracy
    for row in report.attacks:
        assert table.fooled_by.count(row.name) == row.fooled


def test_classes_are_called_what_the_estimator_calls_them(task):
    _, inputs, labels = task
    names = np.array(["bag", "boot", "coat", "shirt"])[labels]
    model = UndefendedClassifier(max_epochs=1, random_state=0).fit(inputs.numpy(), names)
    report = evaluate(model, inputs, names, epsilon=0.2, attacks="quick")
    assert report.per_example.label.tolist() == names.tolist()
    assert report.per_example.predicted.tolist() == model.predict(inputs).tolist()
    assert RobustnessReport.from_json(report.to_json()) == report


@pytest.fixture(scope="module")
def report(task):
    model, inputs, labels = task
    return evaluate(model, inputs, labels, epsilon=0.2, attacks=STEPS, random_state=0)


def test_the_table_comes_back_from_json_with_a_column_on_each_line(report):
    text = report.to_json()
    back = RobustnessReport.from_json(text)
    assert back.per_example == report.per_example
    assert back == report
    for name, column in report.per_example.to_dict().items():
        assert f'"{name}": {json.dumps(column)}' in text
    assert json.loads(text) == report.to_dict()


@pytest.mark.parametrize(
    ("column", "place", "value"),
    [
        ("label", 1, "text"),
        ("label", 1, 3),
        ("predicted", 0, 1.5),
        ("margin", 1, -1.0),
        ("fooled_by", 0, "many"),
        ("fooled_by", 1, "another attack"),
        ("distance", 0, 0.01),
        ("distance", 1, -0.01),
        ("index", 0, 1),
        ("index", 0, -1),
    ],
)
def test_a_table_that_contradicts_the_counts_is_refused(report, column, place, value):
    read = json.loads(report.to_json())
    assert read["per_example"][column][place] != value
    read["per_example"][column][place] = value
    with pytest.raises(ValueError, match=r"^source must be a report written by to_json, got .*"):
        RobustnessReport.from_json(json.dumps(read))


def test_a_table_of_more_or_fewer_examples_is_refused(report):
    read = json.loads(report.to_json())
    read["per_example"]["margin"].pop()
    with pytest.raises(ValueError, match=r"per_example\.margin and n_examples"):
        RobustnessReport.from_json(json.dumps(read))


def test_frames_hold_the_same_columns(report):
    pandas = pytest.importorskip("pandas")
    frame = report.per_example.to_frame()
    assert list(frame) == list(report.per_example.to_dict())
    for name, column in report.per_example.to_dict().items():
        told = frame[name].astype(object).where(frame[name].notna(), None)
        assert told.tolist() == column
    counts = frame["fooled_by"].value_counts()
    table = report.to_frame().set_index("name")
    pandas.testing.assert_series_equal(
        table["fooled"], counts[table.index], check_names=False, check_index_type=False
    )
    assert table.loc["many", "robust_accuracy"] == report.robust_accuracy
    assert table.loc["many", ["robust_low", "robust_high"]].tolist() == [*report.robust_interval]


def test_without_pandas_the_extra_is_named(report, monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith("pandas"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for ask in (report.to_frame, report.per_example.to_frame):
        with pytest.raises(MissingPackageError, match=r"needs pandas; .*distillguard\[pandas\]"):
            ask()
