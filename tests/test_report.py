"""The report in all its forms: every form tells the same figures."""

import builtins
import errno
import html
import io
import json
import os
import re
from dataclasses import fields, replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from conftest import with_damaged_digits
from distillguard import attacks, evaluate
from distillguard.evaluation import (
    SCHEMA,
    Observations,
    RobustnessReport,
    compare,
    paired_difference,
)
from distillguard.evaluation.diagnosis._rules import findings
from distillguard.evaluation.report._pictures import data_url, png
from distillguard.exceptions import MissingPackageError


class Overconfident(nn.Module):
    """A linear model on 4 x 4 grey images with logits so far apart that the softmax is one-hot."""

    def __init__(self, scale):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(scale * torch.randn(16, 3, generator=generator))

    def forward(self, inputs):
        return (inputs.flatten(1) - 0.5) @ self.weight


def reported(scale, **settings):
    model = Overconfident(scale)
    inputs = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = model(inputs).argmax(dim=1)
    labels[:3] = (labels[:3] + 1) % 3
    settings = {"attacks": "quick", "random_state": 7, **settings}
    return evaluate(model, inputs, labels, epsilon=0.2, **settings)


@pytest.fixture(scope="module")
def masked():
    return reported(5000.0)


@pytest.fixture(scope="module")
def plain():
    return reported(1.0)


class Page(HTMLParser):
    """Checks that tags nest and close, and collects what the page holds."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.words, self.sources = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            assert dict(attributes)["alt"]
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_a_warning_stands_where_somebody_would_have_quoted_the_wrong_number(masked, plain):
    blind = reported(5000.0, attacks={"none": lambda model, inputs, labels: inputs})
    for report in (masked, plain, blind):
        for text in (str(report), report.to_markdown().replace("*", "")):
            assert text.splitlines()[0] == report.headline
    assert blind.headline.startswith(f"WARNING: quote {100 * blind.quoted_accuracy:.1f} % [")
    assert "margin-beats-cross-entropy" in blind.headline
    # Its attacks follow the margin, so that their figure is right, whatever the cross-entropy says.
    assert masked.headline.startswith(f"Robust accuracy {100 * masked.quoted_accuracy:.1f} %")
    assert masked.headline.endswith(
        "; attacks on the cross-entropy alone are blind here (margin-beats-cross-entropy, "
        "zero-gradients)"
    )
    assert plain.headline == (
        f"Robust accuracy {100 * plain.robust_accuracy:.1f} % [0.3, 8.9] within linf 0.2, clean "
        "accuracy 95.0 % [86.3, 98.3], 60 examples"
    )
    assert "No findings." in str(plain)


def test_every_figure_of_a_headline_stands_in_the_table_below_it(masked, plain):
    blind = reported(5000.0, attacks={"none": lambda model, inputs, labels: inputs})
    for report in (masked, plain, blind):
        figures = re.findall(r"[0-9.]+ %", report.headline.partition("clean accuracy")[0])
        below = str(report).partition("-----")[2].partition("Each attack ran")[0]
        assert figures
        assert all(figure in below for figure in figures)


def test_the_summary_says_what_was_done_to_how_many_and_how_sure_it_is(masked):
    low, high = masked.quoted_interval
    said = (
        "2 attacks tried to change the 57 of 60 examples that the model classifies correctly, each "
        "by at most 0.2 in linf: 1 withstood all. The diagnosis looked at 57 of them, to see "
        "whether the attacks failed for the right reason, and fooled none of those that the "
        f"attacks had left. Of all examples of this kind {100 * low:.1f} to {100 * high:.1f} % "
        "withstand what was tried (95 % confidence)."
    )
    assert said in " ".join(str(masked).split())
    assert said in masked.to_markdown()
    assert said in " ".join(Page(masked.to_html()).words)


def test_every_form_tells_the_same_figures(masked):
    accuracies = [f"{100 * row.robust_accuracy:.1f} %" for row in masked.attacks]
    page = " ".join(Page(masked.to_html()).words)
    for text in (str(masked), masked.to_markdown(), page):
        text = " ".join(text.split())
        for row, accuracy in zip(masked.attacks, accuracies, strict=True):
            assert row.name in text
            assert accuracy in text
        for finding in masked.findings:
            for part in (finding.code, finding.evidence, finding.meaning, finding.remedy):
                assert part in text
        assert "Seed 7" in text
        assert torch.__version__ in text


def test_the_markdown_table_has_a_cell_for_every_header(masked):
    rows = [line for line in masked.to_markdown().splitlines() if line.startswith("|")]
    # Header and rule, the attacks and their worst case, two headings, two probes, the quotable.
    assert len(rows) == 2 + len(masked.attacks) + 1 + 2 + 2 + 1
    assert len({line.count("|") for line in rows}) == 1


def test_json_holds_every_figure(masked, tmp_path):
    path = tmp_path / "report.json"
    read = json.loads(masked.to_json(path))
    assert json.loads(path.read_text()) == read
    assert read["clean_accuracy"] == 57 / 60
    assert read["robust_interval"] == list(masked.robust_interval)
    assert [row["name"] for row in read["attacks"]] == [row.name for row in masked.attacks]
    assert [f["code"] for f in read["findings"]] == [f.code for f in masked.findings]
    assert read["observations"]["zero_gradients"] == masked.observations.zero_gradients
    assert read["headline"] == masked.headline
    assert read["versions"]["PyTorch"] == torch.__version__


def test_the_page_is_whole_and_needs_nothing_else(masked, tmp_path):
    path = tmp_path / "report.html"
    text = masked.to_html(path)
    assert path.read_text() == text
    page = Page(text)
    assert page.seen[0] == "html"
    assert page.seen.count("img") == 2 * len(masked.examples) > 0
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.seen
    assert not re.search(r"https?://|@import|url\(", text)


@pytest.mark.parametrize("form", ["to_json", "to_html", "to_csv", "to_latex"])
def test_a_report_that_cannot_be_written_whole_leaves_the_file_that_was_there(
    masked, tmp_path, monkeypatch, form
):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "report"
    path.write_text("the last one")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        getattr(masked, form)(path)
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_text() == "the last one"
    getattr(masked, form)(path)
    assert path.read_text(encoding="utf-8").rstrip("\n") == getattr(masked, form)().rstrip("\n")
    assert [*tmp_path.iterdir()] == [path]


def test_names_cannot_break_out_of_the_page(halfspace, examples):
    name = "<script>alert(1)</script>"
    report = evaluate(halfspace, *examples(3), epsilon=0.1, attacks={name: lambda m, x, y: x})
    for text in (report.to_html(), report._repr_html_()):
        assert "script" not in Page(text).seen
        assert "&lt;script&gt;" in text


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 6)])
def test_images_survive_the_png_encoder(shape):
    from PIL import Image

    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
    read = np.asarray(Image.open(io.BytesIO(png(pixels.to(torch.uint8)))))
    assert np.array_equal(read.reshape(*shape[1:], shape[0]), pixels.permute(1, 2, 0).numpy())


def test_a_value_beyond_a_bound_is_shown_like_the_bound():
    values = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]])
    assert data_url(values, (-1.0, 1.0)) == data_url(values.clamp(-1, 1), (-1.0, 1.0))


def test_inputs_that_are_no_images_are_not_shown(halfspace, examples):
    inputs, labels = examples(5)
    far = partial(attacks.fgsm, epsilon=0.4)
    report = evaluate(halfspace, inputs[..., None, None], labels, epsilon=0.4, attacks={"f": far})
    assert len(report.examples) == 5
    assert "img" not in Page(report.to_html()).seen


def test_the_plot_draws_one_bar_for_each_accuracy(masked):
    import matplotlib as mpl

    mpl.use("Agg")
    figure = masked.plot()
    (axes,) = figure.axes
    lengths = [bar.get_width() for bar in axes.patches]
    expected = [masked.clean_accuracy, *(r.robust_accuracy for r in masked.attacks)]
    expected.append(masked.robust_accuracy)
    assert lengths == pytest.approx([100 * accuracy for accuracy in expected])
    assert axes.get_xlabel() == "accuracy (%)"
    mpl.pyplot.close(figure)


def test_without_matplotlib_the_extra_is_named(plain, monkeypatch):
    real = builtins.__import__

    def refusing(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(MissingPackageError, match=r"pip install 'distillguard\[plot\]'"):
        plain.plot()


def test_the_number_to_quote_is_the_attacks_own_unless_the_probe_refutes_it(masked, plain):
    assert plain.quoted_accuracy == plain.robust_accuracy
    blind = reported(5000.0, attacks={"none": lambda model, inputs, labels: inputs})
    assert blind.robust_accuracy == blind.clean_accuracy
    seen = blind.observations
    assert blind.quoted_accuracy == seen.all_survivors / 60
    assert blind.quoted_interval == (
        pytest.approx(binomtest(seen.all_survivors, 60).proportion_ci(0.95, method="wilson"))
    )
    assert f"not {100 * blind.robust_accuracy:.1f} %" in blind.headline


def half_hearted(halfspace, epsilon, every):
    """Crosses the boundary by the shortest way, but leaves each so-manieth example alone."""
    weights = halfspace.w.detach()

    def attack(model, inputs, labels):
        least = 1.001 * halfspace.least_epsilon(inputs, "linf").clamp(max=epsilon)
        steps = torch.where(labels == 1, -1.0, 1.0) * least
        steps[::every] = 0
        return inputs + steps[:, None, None] * weights.sign().view(1, *inputs.shape[1:])

    return {"half-hearted": attack}


def test_the_figure_to_quote_counts_each_example_that_the_diagnosis_fooled(halfspace, examples):
    inputs, labels = examples(60)
    least = halfspace.least_epsilon(inputs, "linf")
    epsilon = 1.01 * least.median().item()
    missed = int((1.001 * least[::30] <= epsilon).sum())
    assert missed > 0
    settings = {"epsilon": epsilon, "random_state": 0}
    report = evaluate(
        halfspace, inputs, labels, attacks=half_hearted(halfspace, epsilon, 30), **settings
    )
    # The attack knows the model, and not the one of the active test.
    (other,) = report.findings
    assert other.code == "attack-fails-its-own-test"
    report = replace(report, findings=())
    truth = int((least > epsilon).sum())
    assert round(60 * report.robust_accuracy) == truth + missed
    assert report.quoted_accuracy == pytest.approx(truth / 60)
    # Too few for a finding, and they count.
    low, high = (100 * end for end in report.quoted_interval)
    assert report.headline == (
        f"Quote {100 * truth / 60:.1f} % [{low:.1f}, {high:.1f}] robust accuracy, "
        f"not {100 * (truth + missed) / 60:.1f} %: the diagnosis fooled {missed} of the "
        f"{truth + missed} examples that withstand the attacks passed"
    )
    for text in (str(report), report.to_markdown(), " ".join(Page(report.to_html()).words)):
        assert report.headline in text
        assert "Against the attacks passed alone, robust accuracy" in text
    bars = Page(report.to_html()).words
    assert f"{100 * truth / 60:.1f} %" in bars[bars.index("to quote") :]


def test_the_figure_to_quote_is_a_count_also_where_the_diagnosis_saw_a_sample(halfspace, examples):
    inputs, labels = examples(1500)
    least = halfspace.least_epsilon(inputs, "linf")
    epsilon = least.median().item()
    report = evaluate(
        halfspace, inputs, labels, epsilon=epsilon, attacks=half_hearted(halfspace, epsilon, 2)
    )
    seen = report.observations
    assert (seen.correct, seen.sampled) == (1500, 256)
    assert report.robust_accuracy == pytest.approx(0.75, abs=0.03)
    # Nobody knows what the diagnosis would have fooled of the 1,244 that it did not look at.
    assert 1500 * report.quoted_accuracy == pytest.approx(
        1500 * report.robust_accuracy - seen.n_fooled_by_diagnosis
    )
    low, high = report.quoted_interval
    assert low < report.quoted_accuracy < high
    assert f"of the {seen.attack_survivors} sampled examples that withstand" in report.headline


def test_no_figure_is_set_against_itself(plain):
    # One of 10,000 is less than the figures show.
    seen = replace(plain.observations, attack_survivors=10000, all_survivors=9999)
    close = replace(plain, observations=seen, robust_accuracy=1.0, n_examples=10000)
    assert close.quoted_accuracy < 1
    assert "not 100.0 %" not in close.headline
    assert close.headline.startswith("Quote 100.0 %")


def test_markdown_shows_hostile_names_as_they_are():
    names = [
        "pgd | 40 steps",
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "two\nlines",
        "`code` *bold* _it_ \\| a_b",
        "https://example.org",
    ]
    model = Overconfident(1.0)
    inputs = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = model(inputs).argmax(dim=1)
    fgsm = partial(attacks.fgsm, epsilon=0.1)
    report = evaluate(
        model, inputs, labels, epsilon=0.1, attacks=dict.fromkeys(names, fgsm), random_state=0
    )
    sides = compare(**{"a | b": report, "two\nlines": report})
    for text, headers in ((report.to_markdown(), {9}), (sides.to_markdown(), {6, 3})):
        table = [line for line in text.splitlines() if line.startswith("|")]
        bars = r"(?<!\\)(?:\\\\)*\|"
        assert {len(re.split(bars, line)) - 2 for line in table} == headers
        assert "<script" not in text
        assert "](" not in text
        assert "://" not in text
    shown = [html.unescape(re.sub(r"\\([\\`*_|])", r"\1", line)) for line in table_names(report)]
    assert shown == [" ".join(name.split()) for name in names]


def table_names(report):
    """The first cells of a report's Markdown table that name its attacks."""
    lines = [line for line in report.to_markdown().splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\) \| ", line[2:])[0] for line in lines[2 : 2 + len(report.attacks)]]


def test_json_validates_against_the_schema_and_comes_back_equal(masked, plain, tmp_path):
    for report in (masked, plain):
        jsonschema.validate(json.loads(report.to_json(tmp_path / "r.json")), SCHEMA)
        for source in (report.to_json(), tmp_path / "r.json", str(tmp_path / "r.json")):
            back = RobustnessReport.from_json(source)
            assert back == report
            assert back.to_json() == report.to_json()
            assert str(back) == str(report)


def test_the_schema_refuses_what_is_no_report(masked):
    for change in (
        {"robust_accuracy": 1.5},
        {"attacks": []},
        {"schema_version": 2},
        {"random_state": None},
        {"extra": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(masked.to_dict() | change, SCHEMA)
    for text in ("{}", '{"schema_version": 2}', '[\n{"schema_version": 1}]'):
        with pytest.raises(ValueError, match="a report of schema version 1, got"):
            RobustnessReport.from_json(text)


def changed(read, path, value):
    """The same JSON with another value at a path."""
    copy = json.loads(json.dumps(read))
    *places, last = path.split(".")
    held = copy
    for place in places:
        held = held[int(place) if isinstance(held, list) else place]
    held[int(last) if isinstance(held, list) else last] = value
    return copy


WRONG = {
    "robust_accuracy": [7.5, True, "1", None, 0.5001],
    "clean_accuracy": [0.5, 1.0],
    "clean_interval": [[], [0.1, 0.2], [0.9, 0.1], [0, 1, 2]],
    "robust_interval": [[0.9, 1.0]],
    "n_examples": [-3, 0, 60.0, 61, 10**40, 10**400],
    "norm": ["l7"],
    "epsilon": [0, -1],
    "bounds": [
        [0],
        [1, 0],
        [0, "a"],
        [1, 1],
        [[0, 0], [1, 1, 1]],
        [[[0]], [-1]],
        [None, 1],
        [0, [1, [2]]],
        [[0, 1], [1, 0]],
        [[1, 1], [1, 1]],
    ],
    "mask": [[1, 0], [True, [False]], ["x"], True],
    "versions": [None, {"a": 1}],
    "random_state": ["x", -1, 2**63, 1.0],
    "survivors_only": [False, None],
    "quoted_accuracy": [0.123],
    "headline": ["Robust accuracy 100.0 %"],
    "attacks": [[], {}, [{}]],
    "attacks.0.fooled": [61, -1, 1.5],
    "attacks.0.attacked": [0, 10, 60],
    "attacks.0.illegal": [61],
    "attacks.0.robust_accuracy": [0.0, 0.123],
    "attacks.0.robust_interval": [[0.0, 0.1]],
    "attacks.0.success_rate": [None, 0.0, 0.12345],
    "attacks.0.median_distance": [None, -1],
    "attacks.1.name": ["FGSM margin", 3],
    "findings.0.figures": [{"withstand_cross_entropy": "x"}, None],
    "findings.0.severity": ["mild"],
    "observations": [{}, None],
    "observations.correct": [61, 3, None],
    "observations.sampled": [61, 1],
    "observations.zero_gradients": [61, True, 1.5],
    "observations.budget_survivors": [[61], ["x"], None],
    "observations.all_survivors": [60],
    "observations.failed": [[], {"a": 1}],
    "costs": [{"lunch": {"forwards": 0, "backwards": 0, "seconds": 0.0}}, []],
    "costs.clean pass": [{"forwards": 1}, {"forwards": -1, "backwards": 0, "seconds": 0}],
    "model": ["\ud800", 3],
}


@pytest.mark.parametrize("path", WRONG)
def test_a_report_of_figures_that_cannot_be_is_refused(masked, path):
    read = masked.to_dict()
    for value in WRONG[path]:
        with pytest.raises(ValueError, match=r"^source must be a report written by to_json, got"):
            RobustnessReport.from_json(json.dumps(changed(read, path, value)))


@pytest.mark.parametrize(("counted", "moved"), [("n_examples", 25), ("n_correct", 24)])
def test_a_report_of_classes_that_cannot_be_is_refused_though_they_add_up(masked, counted, moved):
    read = masked.to_dict()
    for row, change in zip(read["classes"], (-moved, moved, 0), strict=True):
        row[counted] += change
    with pytest.raises(ValueError, match=r"^source must be a report written by to_json, got"):
        RobustnessReport.from_json(json.dumps(read))


def test_digits_too_small_to_contradict_are_read_as_the_counts_give_them(masked):
    damaged = with_damaged_digits(masked.to_dict())
    assert damaged["clean_interval"] != list(masked.clean_interval)
    assert damaged["attacks"][0]["success_rate"] != masked.attacks[0].success_rate
    assert RobustnessReport.from_json(json.dumps(damaged)) == masked


@pytest.mark.parametrize("survivors_only", [True, False])
def test_a_report_of_attacks_that_failed_is_read_back(survivors_only):
    calls = []

    def worn(model, inputs, labels):
        calls.append(1)
        if len(calls) > 1:
            raise OSError("worn out")
        return attacks.fgsm(model, inputs, labels, epsilon=0.05)

    report = reported(
        1.0,
        attacks={"broken": lambda model, inputs, labels: 1 / 0, "worn": worn, "pgd": attacks.pgd},
        chunk_size=20,
        survivors_only=survivors_only,
        diagnosis=None,
    )
    assert [row.error is None for row in report.attacks] == [False, False, True]
    assert RobustnessReport.from_json(report.to_json()) == report


def test_text_that_is_no_json_or_twice_something_is_refused(masked, tmp_path):
    text = masked.to_json()
    twice = text.replace("{", '{"model": "another", ', 1)
    path = tmp_path / "report.json"
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    bounds = json.loads(text)["bounds"]
    nested = text.replace(json.dumps(bounds)[1:-1], "[" * 900 + "]" * 900)
    for wrong in (text[:-1], twice, deep, text.replace("60", "NaN", 1), "\n", nested, "{"):
        path.write_text(wrong)
        for source in (wrong, path):
            with pytest.raises(ValueError, match=r"^source must be a report"):
                RobustnessReport.from_json(source)
    path.write_bytes(text.encode().replace(b"Overconfident", b"\xff\xfe"))
    with pytest.raises(ValueError, match=r"^source must be a report"):
        RobustnessReport.from_json(path)
    with pytest.raises(FileNotFoundError):
        RobustnessReport.from_json(tmp_path / "nothing.json")


def test_a_report_whose_attacks_each_had_all_examples_comes_back(halfspace, examples):
    inputs, labels = examples(40)
    labels[:3] = 1 - labels[:3]
    several = {
        "one": partial(attacks.fgsm, epsilon=0.02),
        "two": partial(attacks.pgd, epsilon=0.02, steps=3),
        "far": lambda model, inputs, labels: torch.full_like(inputs, 2.0),
    }
    settings = {"epsilon": 0.02, "random_state": 0, "attacks": several}
    for alone in (True, False):
        report = evaluate(halfspace, inputs, labels, survivors_only=alone, **settings)
        assert RobustnessReport.from_json(report.to_json()) == report


def test_the_page_says_whom_each_attack_ran_on_and_whom_its_accuracy_counts(masked):
    for alone, shown, hidden in (
        (True, ["no earlier attack had fooled", "and those before it"], ["all that the model"]),
        (False, ["all that the model classifies correctly"], ["earlier attack", "before it"]),
    ):
        text = " ".join(replace(masked, survivors_only=alone).to_html().split())
        assert all(words in text for words in shown)
        assert not any(words in text for words in hidden)


def test_what_the_diagnosis_compared_is_shared_by_the_number_compared(masked):
    seen = replace(
        masked.observations, correct=60, compared=40, compared_steps=20,
        cross_entropy_survivors=30, margin_survivors=10,
    )  # fmt: skip
    text = str(replace(masked, observations=seen))
    assert "Diagnosis, share of 40 of the 60 correct examples" in text
    rows = {row[:26]: row for row in text.splitlines() if row.startswith("PGD on the")}
    for name, share, count in (("cross", "75.0 %", 30), ("margin", "25.0 %", 10)):
        (row,) = (row for key, row in rows.items() if name in key)
        ends = binomtest(count, 40).proportion_ci(method="wilson")
        assert share in row
        assert all(f"{100 * end:.1f}" in row for end in ends)


def test_the_headline_of_another_version_may_be_worded_otherwise(masked):
    read = changed(masked.to_dict(), "versions.distillguard", "0.0.1")
    older = RobustnessReport.from_json(json.dumps(read | {"headline": "Robust: 0 %"}))
    assert older.headline == masked.headline


def test_the_schema_of_observations_and_costs_is_that_of_their_classes():
    observations = SCHEMA["properties"]["observations"]
    assert set(observations["properties"]) == {each.name for each in fields(Observations)}
    assert observations["additionalProperties"] is False
    cost = SCHEMA["properties"]["costs"]["additionalProperties"]
    assert set(cost["properties"]) == {"forwards", "backwards", "seconds"}


STORED = Path(__file__).parent / "data" / "report-schema-1.json"


def test_a_report_saved_by_an_earlier_version_is_read_compared_and_judged_again(masked):
    """Written by ``reported(5000.0, attacks=["quick"])`` as schema version 1.

    A change of the schema that breaks it takes a new version, and a way to read the old one.
    """
    read = json.loads(STORED.read_text(encoding="utf-8"))
    report = RobustnessReport.from_json(STORED)
    now = report.to_dict()
    # What rows have since gained, of a model that always answers.
    assert [row.pop("rejected") for row in now["attacks"]] == [0] * len(read["attacks"])
    assert [row.pop("near") for row in now["attacks"]] == [None] * len(read["attacks"])
    assert {name: now[name] for name in read if name not in ("headline", "observations")} == {
        name: read[name] for name in read if name not in ("headline", "observations")
    }
    assert {name: now["observations"][name] for name in read["observations"]} == (
        read["observations"]
    )
    assert report.per_example.robust.sum() == round(0.016666666666666666 * 60)
    assert paired_difference(report, masked).n_examples == 60
    assert [row[0] for row in compare(then=report, now=masked).rows()] == ["then", "now"]
    assert report.rejudged().findings == findings(report.observations)
    assert "zero-gradients" in {finding.code for finding in report.rejudged().findings}
    assert all((str(report), report.to_markdown(), report.to_html()))


def test_judging_again_applies_todays_rules_to_yesterdays_observations(masked, plain):
    for report in (masked, plain):
        forgotten = replace(report, findings=())
        assert forgotten.rejudged() == report
    assert masked.findings


def test_a_report_of_before_there_was_an_observation_is_read(plain):
    for name, default in (("only_transfer", None), ("nan_gradients", None), ("failed", {})):
        read = plain.to_dict()
        del read["observations"][name]
        assert getattr(RobustnessReport.from_json(json.dumps(read)).observations, name) == default


def test_reports_stand_side_by_side_with_their_intervals(masked, plain):
    together = compare(masked, plain, other=plain)
    names = [row[0] for row in together.rows()]
    assert names == ["Overconfident", "Overconfident 2", "other"]
    for text in (str(together), together.to_markdown(), together._repr_html_()):
        assert f"{100 * masked.quoted_accuracy:.1f} %" in text
        low, high = plain.robust_interval
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in text
        assert "zero-gradients" in text
    with pytest.raises(ValueError, match="compare must get at least one report"):
        compare()
    with pytest.raises(TypeError, match="compare must get RobustnessReport objects, got int"):
        compare(a=3)


def test_the_repr_of_a_report_has_nothing_that_is_as_long_as_the_data(plain):
    assert f"robust_accuracy={plain.robust_accuracy!r}" in repr(plain)
    assert not re.search(r"\b(per_example|examples)=", repr(plain))
