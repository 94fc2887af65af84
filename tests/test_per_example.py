"""The table of examples tells of each what a run by hand shows."""

import builtins
import json
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import UndefendedClassifier, attacks, evaluate
from distillguard.evaluation import RobustnessReport
from distillguard.evaluation._progress import Progress
from distillguard.evaluation._records import Cost, Records
from distillguard.evaluation._shards import gathered
from distillguard.evaluation.report._per_example import named
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
    "many": partial(attacks.pgd, epsilon=0.4, norm="linf", steps=10, random_state=0),
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
        model, inputs, labels, epsilon=0.4, attacks=STEPS, survivors_only=False, random_state=0
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
    report = evaluate(model, inputs, labels, epsilon=0.4, attacks=STEPS, chunk_size=7)
    table = report.per_example
    assert table.correct.mean() == report.clean_accuracy
    assert table.robust.mean() == report.robust_accuracy
    for row in report.attacks:
        assert table.fooled_by.count(row.name) == row.fooled


def test_classes_are_called_what_the_estimator_calls_them(task):
    _, inputs, labels = task
    names = np.array(["bag", "boot", "coat", "shirt"])[labels]
    model = UndefendedClassifier(max_epochs=1, random_state=0).fit(inputs.numpy(), names)
    report = evaluate(model, inputs, names, epsilon=0.4, attacks="quick")
    assert report.per_example.label.tolist() == names.tolist()
    assert report.per_example.predicted.tolist() == model.predict(inputs).tolist()
    assert RobustnessReport.from_json(report.to_json()) == report


@pytest.fixture(scope="module")
def report(task):
    model, inputs, labels = task
    return evaluate(model, inputs, labels, epsilon=0.4, attacks=STEPS, random_state=0)


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


def kept(task, keep, **settings):
    model, inputs, labels = task
    settings = {"attacks": STEPS, "random_state": 0, "keep_examples": keep, **settings}
    return evaluate(model, inputs, labels, epsilon=0.4, **settings)


def held(report):
    return [(e.index, e.attack, e.predicted, e.distance) for e in report.examples]


@pytest.mark.parametrize("alone", [True, False])
def test_every_fooled_example_is_kept_with_the_point_of_the_first_attack_that_fooled_it(
    task, alone
):
    model, inputs, labels = task
    report = kept(task, "fooled", survivors_only=alone, chunk_size=13)
    table = report.per_example
    fooled = [i for i, name in enumerate(table.fooled_by) if name is not None]
    assert [example.index for example in report.examples] == fooled
    assert report.adversarial.shape == (len(fooled), 6)
    assert len(fooled) > 10
    predicted = model(report.adversarial).argmax(dim=1)
    for example, point, seen in zip(report.examples, report.adversarial, predicted, strict=True):
        i = example.index
        assert torch.equal(example.original, inputs[i])
        assert torch.equal(example.adversarial, point)
        assert example.attack == table.fooled_by[i]
        assert example.label == str(labels[i].item()) != example.predicted == str(seen.item())
        assert example.distance == table.distance[i]
        assert (point - inputs[i]).abs().max().item() == pytest.approx(table.distance[i])


def test_of_all_examples_the_last_legal_point_is_kept(task):
    _, inputs, _ = task
    several = {
        "nudge": lambda model, inputs, labels: (inputs + 0.001).clamp(0, 1),
        "many": STEPS["many"],
        "outside": lambda model, inputs, labels: inputs + 5,
    }
    report = kept(task, "all", attacks=several, chunk_size=13)
    table, points = report.per_example, report.adversarial
    assert points.shape == inputs.shape
    assert [example.index for example in report.examples] == list(range(60))
    wrong = ~table.correct
    assert torch.equal(points[wrong], inputs[wrong])
    assert {e.attack for e in report.examples} == {"", "many"}
    for example in report.examples:
        assert (example.attack == "") == wrong[example.index]
        if table.fooled_by[example.index]:
            assert example.distance == table.distance[example.index]
    assert table.robust.any()


def test_what_is_kept_depends_neither_on_chunks_nor_on_interruptions(task, report, tmp_path):
    for keep in ("fooled", "all"):
        whole = kept(task, keep, chunk_size=60)
        state = {"chunk_size": 7, "state_file": tmp_path / keep}
        kept(task, keep, attacks={"one step": STEPS["one step"]}, **state)
        resumed = kept(task, keep, **state)
        assert held(whole) == held(resumed)
        fooled = 60 - report.per_example.fooled_by.count(None)
        assert len(held(whole)) == {"fooled": fooled, "all": 60}[keep]
    assert len(report.examples) == len({example.index for example in report.examples}) == 10
    with pytest.raises(ValueError, match="keep_examples must be one of 'few', 'fooled', 'all'"):
        kept(task, "some")


def test_processes_together_keep_what_each_of_them_keeps():
    parts = []
    for rank in range(2):
        places = torch.arange(rank, 40, 2)
        parts.append(Records())
        parts[rank].shown.size = sys.maxsize
        parts[rank].add({"index": places, "label": places})
        parts[rank].shown.put(places, index=places)
    both = SimpleNamespace(count=2, all_gather=lambda own: parts)
    assert gathered(parts[1], both).shown["index"].tolist() == list(range(40))


def test_processes_together_have_spent_and_told_what_all_of_them_have():
    parts = [Records(), Records()]
    for rank, part in enumerate(parts):
        part.add({"index": torch.tensor([rank]), "label": torch.tensor([rank])})
        part.costs["a"] = Cost(10 + rank, 3 * rank, 2.0 - rank)
        part.notes[f"note {rank}"] = "told"
        part.stand_ins["a"] = (f"stand-in {rank}", "both")
    whole = gathered(parts[0], SimpleNamespace(count=2, all_gather=lambda own: parts))
    # Side by side: the time is that of the slowest.
    assert whole.costs == {"a": Cost(21, 3, 2.0)}
    assert whole.notes == {"note 0": "told", "note 1": "told"}
    assert whole.stand_ins == {"a": ("stand-in 0", "both", "stand-in 1")}


def test_the_bar_of_the_first_of_several_processes_counts_the_examples_that_it_takes():
    for n, processes in ((7, 2), (8, 2), (7, 3), (2, 3)):
        bar = Progress(True, n, stages=3, processes=processes).bar
        assert bar.total == 3 * len(range(0, n, processes))
        bar.close()


@pytest.mark.parametrize("seen", [[0, 1], [0, 2, 1]])
def test_classes_are_called_as_the_caller_calls_them_and_rejection_by_its_name(seen):
    names = ["cat", "dog", "rejected"]
    found = named(torch.tensor(seen), np.array(["cat", "dog"]))
    assert found.tolist() == [names[place] for place in seen]


def test_a_page_shows_a_few_fooled_examples_however_many_are_kept():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    inputs = torch.rand(40, 4, 4)
    labels = model(inputs).argmax(dim=1)
    report = evaluate(
        model, inputs, labels, epsilon=0.15, attacks="quick", keep_examples="all", random_state=0
    )
    assert 10 < sum(name is not None for name in report.per_example.fooled_by) < 40
    assert report.to_html().count("<img") == 20
