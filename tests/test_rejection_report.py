"""What a report says of a model that refuses to answer, on numbers worked out by hand."""

import json

import jsonschema
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from conftest import with_damaged_digits
from distillguard import RobustnessReport, evaluate
from distillguard.evaluation import SCHEMA

# One number each, of class 0 below 0.4, rejected from there to 0.6, of class 1 above.
INPUTS = [0.1, 0.1, 0.1, 0.2, 0.3, 0.3, 0.38, 0.45, 0.5, 0.7]


class Strip(nn.Module):
    """Two classes, and a strip between them in which it refuses."""

    rejects = True

    def forward(self, inputs):
        place = inputs[:, 0]
        return torch.stack([0.4 - place, place - 0.6, 0.1 - (place - 0.5).abs()], dim=1)


def moved(by):
    return lambda model, inputs, labels: inputs + by


@pytest.fixture(scope="module")
def report():
    return reported()


def reported(model=None, **settings):
    """Two attacks within the radius, of which the second fools one example, and one beyond."""
    kinds = {"small": moved(0.12), "large": moved(0.24), "beyond": moved(0.25001)}
    labels = torch.zeros(len(INPUTS), dtype=torch.int64)
    settings = {"epsilon": 0.25, "attacks": kinds, "diagnosis": None, "random_state": 0} | settings
    return evaluate(model or Strip(), torch.tensor(INPUTS)[:, None], labels, **settings)


def test_false_alarms_are_the_clean_examples_that_were_rejected(report):
    # 0.45 and 0.5 are rejected, 0.7 is taken for class 1, seven are right.
    assert report.clean_accuracy == 0.7
    assert report.rejection.clean == 2
    expected = binomtest(2, 10).proportion_ci(method="wilson")
    assert report.rejection.clean_interval == pytest.approx(tuple(expected), abs=1e-9)


def test_an_attack_s_rejected_points_are_those_within_the_threat_model(report):
    # 0.12 takes 0.3, 0.3 and 0.38 into the strip. 0.24 takes 0.2, 0.3 and 0.3 there, and 0.38 past
    # it; 0.25001 is too far to count.
    assert [row.rejected for row in report.attacks] == [3, 3, 0]
    assert [row.fooled for row in report.attacks] == [0, 1, 0]


def test_withstanding_by_rejection_is_counted_once_and_never_of_what_was_fooled(report):
    # 0.2, 0.3 and 0.3 stand by rejection, the three of 0.1 without; 0.38 fell after a rejection.
    assert report.robust_accuracy == 0.6
    assert report.rejection.adversarial == 3
    expected = binomtest(3, 7).proportion_ci(method="wilson")
    assert report.rejection.adversarial_interval == pytest.approx(tuple(expected), abs=1e-9)


def test_every_form_of_the_report_tells_what_was_rejected(report):
    rows = [
        ("clean (false alarms)", "2", "10", "20.0 %", "[5.7, 51.0]"),
        ("small", "3", "7", "42.9 %", "[15.8, 75.0]"),
        ("large", "3", "7", "42.9 %", "[15.8, 75.0]"),
        ("beyond", "0", "6", "0.0 %", "[0.0, 39.0]"),
        ("after any attack, never fooled", "3", "7", "42.9 %", "[15.8, 75.0]"),
    ]
    text = [tuple(cell for cell in line.split("  ") if cell) for line in str(report).splitlines()]
    text = [tuple(cell.strip() for cell in line) for line in text]
    page = report.to_html().replace("\n", "")
    for row in rows:
        assert row in text
        assert f"| {' | '.join(row)} |" in report.to_markdown()
        assert all(f">{cell}</td>" in page for cell in row)
    said = "The model rejected 2 of the clean examples, which count as errors, and an attack's "
    said += "point for 3 of those that withstood."
    assert said in " ".join(str(report).split())


def test_the_json_holds_it_and_comes_back(report):
    read = json.loads(report.to_json())
    jsonschema.validate(read, SCHEMA)
    assert read["rejection"]["clean"] == 2
    assert read["rejection"]["adversarial"] == 3
    assert [row["rejected"] for row in read["attacks"]] == [3, 3, 0]
    assert RobustnessReport.from_json(report.to_json()) == report
    assert RobustnessReport.from_json(json.dumps(with_damaged_digits(read))) == report


@pytest.mark.parametrize(
    ("part", "name", "value", "fault"),
    [
        ("rejection", "clean", 4, "rejection.clean and clean_accuracy"),
        ("rejection", "clean", 1, "rejection.clean and its interval"),
        ("rejection", "adversarial", 7, "rejection.adversarial and robust_accuracy"),
        ("rejection", "adversarial", 2, "rejection.adversarial and its interval"),
        ("attack", "rejected", 0, "rejection.adversarial and attacks.rejected"),
        ("attack", "rejected", 8, "rejected and fooled"),
        ("report", "rejection", None, "attacks.rejected of a model that does not reject"),
    ],
)
def test_counts_of_rejection_that_cannot_be_are_refused(report, part, name, value, fault):
    read = report.to_dict()
    held = {"rejection": read["rejection"], "report": read, "attack": read["attacks"][0]}[part]
    held[name] = value
    if value == 0:
        read["attacks"][1]["rejected"] = 2
    with pytest.raises(ValueError, match=fault):
        RobustnessReport.from_json(json.dumps(read))


def test_a_model_that_always_answers_has_no_word_of_rejection_in_its_report():
    class Two(Strip):
        rejects = False

        def forward(self, inputs):
            return super().forward(inputs)[:, :2]

    report = reported(Two())
    assert report.rejection is None
    for text in (str(report), report.to_markdown(), report.to_html()):
        assert "reject" not in text
        assert "false alarms" not in text


def test_chunks_and_a_resumed_evaluation_count_the_same(report, tmp_path):
    path = tmp_path / "state"
    first = reported(chunk_size=4, state_file=path)
    again = reported(chunk_size=4, state_file=path)
    assert first.rejection == again.rejection == report.rejection
    assert [row.rejected for row in again.attacks] == [3, 3, 0]


def test_every_attack_s_rejections_are_those_of_its_own_points_where_all_see_all():
    report = reported(survivors_only=False)
    # 0.38 + 0.25001 is past the strip, and beyond the radius.
    assert [row.attacked for row in report.attacks] == [7, 7, 7]
    assert report.rejection.adversarial == 3
