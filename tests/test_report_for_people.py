"""The report for people: their words on the page, safe and legible, and the counts by class."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from distillguard import UndefendedClassifier, evaluate
from distillguard.evaluation import RobustnessReport
from distillguard.evaluation.report import _html

HOSTILE = "<script>alert('x')</script> & \"quotes\" {{ 7 * 7 }} $\\frac{a}{b}$ | `code`"
NAMES = ("sandal", HOSTILE, "ankle boot")


class Steps(nn.Module):
    """Three classes of grey images of 2 x 2, told by the first pixel: below 1/3, 2/3 and above."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([-3.0, 0.0, 3.0]))

    def forward(self, inputs):
        return self.slope * (inputs.flatten(1)[:, :1] - 0.5) + torch.tensor([-0.5, 0.0, -0.5])


def to_the_middle(model, inputs, labels):
    """Moves the first pixel by 0.1 towards the middle class, or away from the middle."""
    there = inputs.clone()
    first = there[:, 0, 0, 0]
    there[:, 0, 0, 0] = first + 0.1 * (first < 0.5).float() - 0.1 * (first > 0.5).float()
    return there


FIRST = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.72, 0.75, 0.9, 0.95, 0.32]
LABELS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 1]
COUNTS = {0: (3, 3, 2), 1: (4, 3, 3), 2: (4, 4, 2)}
"""Examples, correct and robust ones by class, counted by hand: 0.3, 0.72 and 0.75 fall."""


def data():
    inputs = torch.full((len(FIRST), 1, 2, 2), 0.5)
    inputs[:, 0, 0, 0] = torch.tensor(FIRST)
    return inputs, torch.tensor(LABELS)


def told(**words):
    return evaluate(
        Steps(), *data(), epsilon=0.11, attacks={"middle": to_the_middle}, random_state=0, **words
    )


@pytest.fixture(scope="module")
def report():
    return told(title=HOSTILE, class_names=NAMES, dataset=f"shoes {HOSTILE}")


class Words(HTMLParser):
    """Tags, and the text in all of them or in cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.cells, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name == "href"]
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.cells:
            self.cells[-1] += data


def test_classes_are_counted_one_by_one(report):
    assert [row.name for row in report.classes] == list(NAMES)
    for row, (examples, correct, robust) in zip(report.classes, COUNTS.values(), strict=True):
        assert (row.n_examples, row.n_correct, row.n_robust) == (examples, correct, robust)
        assert row.clean_accuracy == correct / examples
        for count, found in ((correct, row.clean_interval), (robust, row.robust_interval)):
            expected = binomtest(count, examples).proportion_ci(0.95, method="wilson")
            assert found == pytest.approx((expected.low, expected.high))


def test_the_page_holds_every_word_and_none_of_their_markup(report):
    page = Words(report.to_html())
    shown = " ".join("".join(page.words).split())
    assert "script" not in page.tags
    assert shown.startswith(HOSTILE)
    assert f"Steps · shoes {HOSTILE} · {report.date[:10]}" in shown
    assert f"“{HOSTILE}”" not in shown.partition("Fooled examples")[0]
    assert "“sandal” taken for “" in shown
    assert f"“ankle boot” taken for “{HOSTILE}”; middle, linf distance 0.1" in shown
    for row in report.classes:
        first = page.cells.index(row.name)
        cells = page.cells[first : first + 4]
        assert cells[1] == str(row.n_examples)
        assert cells[3].startswith(f"{100 * row.robust_accuracy:.1f} % [")
    for header, meaning in (
        ("median distance", "median size of the change"),
        ("attacked", "earlier attack"),
    ):
        assert header in shown
        assert meaning in shown


def test_text_and_markdown_begin_with_the_title(report):
    assert str(report).splitlines()[0] == HOSTILE
    assert report.headline in str(report)
    head = report.to_markdown().splitlines()[0]
    assert head.startswith("## &lt;script>")
    assert "\\|" in head
    assert told().to_markdown().startswith("**")


def test_words_and_counts_survive_json(report):
    again = RobustnessReport.from_json(report.to_json())
    assert again == report
    assert (again.title, again.dataset, again.class_names) == (HOSTILE, f"shoes {HOSTILE}", NAMES)
    assert again.date == report.date
    assert replace(again, date="2000-01-01T00:00:00+00:00") == report
    assert "2000-01-01 00:00 UTC" in str(replace(again, date="2000-01-01T00:00:00+00:00"))


def test_the_date_is_that_of_the_evaluation():
    before = datetime.now(UTC).replace(microsecond=0)
    date = datetime.fromisoformat(told().date)
    assert before <= date <= before + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("change", "told_of"),
    [
        (lambda read: read["classes"][0].update(n_robust=3), "classes and the counts"),
        (lambda read: read["classes"].pop(), "classes and the counts"),
        (lambda read: read["classes"][0].update(n_correct=4, n_examples=3), "classes"),
        (lambda read: read["classes"][0].update(name="clog"), "classes and class_names"),
        (lambda read: read.update(date="yesterday"), "date must"),
        (lambda read: read.update(class_names=[3]), "class_names"),
        (lambda read: read.pop("title"), "the whole must satisfy"),
    ],
)
def test_counts_by_class_that_cannot_be_are_refused(report, change, told_of):
    read = report.to_dict()
    change(read)
    with pytest.raises(ValueError, match=told_of):
        RobustnessReport.from_json(json.dumps(read))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"title": 3}, TypeError, "title must be a str, got 3"),
        ({"title": " "}, ValueError, "title must not be blank"),
        ({"dataset": "\ud800"}, ValueError, "dataset must be text that UTF-8 can hold"),
        ({"class_names": "abc"}, TypeError, "class_names must be a sequence of names or a mapping"),
        ({"class_names": {"a", "b", "c"}}, TypeError, "must be a sequence of names or a mapping"),
        ({"class_names": 3}, TypeError, "class_names must be a sequence of names or a mapping"),
        ({"class_names": ["a", "b"]}, ValueError, "must name all 3 classes, got 2 names"),
        ({"class_names": ["a", "", "c"]}, ValueError, "class_names must not be blank"),
        ({"class_names": {0: "a", 2: "b", 3: "c"}}, ValueError, "must name class 1, got names of"),
    ],
)
def test_words_that_cannot_be_shown_are_refused_before_any_attack(words, error, message):
    def never(model, inputs, labels):
        raise AssertionError("attacked")

    with pytest.raises(error, match=message):
        evaluate(Steps(), *data(), epsilon=0.1, attacks={"never": never}, **words)


def test_names_may_come_in_any_order_of_the_labels_of_an_estimator():
    X, y = data()
    labels = np.array(["C", "A", "B"])[y.numpy()]
    classifier = UndefendedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), max_epochs=1)
    classifier.fit(X.numpy(), labels)
    settings = {"epsilon": 0.1, "attacks": {"none": lambda m, x, y: x}}
    called = {"B": "boots", "C": "clogs", "A": "sandals", "D": "unused"}
    named = evaluate(classifier, X, labels, class_names=called, **settings)
    assert named.class_names == ("sandals", "boots", "clogs")
    assert {row.name: row.n_examples for row in named.classes} == {
        "clogs": 3,
        "sandals": 4,
        "boots": 4,
    }
    plain = evaluate(classifier, X, labels, **settings)
    assert [row.name for row in plain.classes] == ["A", "B", "C"]
    assert plain.class_names is None


def test_of_many_classes_the_page_shows_the_weakest(report, monkeypatch):
    monkeypatch.setattr(_html, "MOST_CLASSES", 2)
    page = Words(report.to_html())
    assert "The 2 least robust of 3 classes." in "".join(page.words)
    assert HOSTILE not in page.cells  # 75 % robust; the others 67 % and 50 %
    assert {"sandal", "ankle boot"} <= set(page.cells)


def test_findings_link_to_their_pages_where_the_documentation_has_an_address(report, monkeypatch):
    blind = evaluate(
        lambda x: 1e4 * Steps()(x), *data(), epsilon=0.11, attacks="quick", random_state=0
    )
    codes = [finding.code for finding in blind.findings]
    assert codes
    assert Words(blind.to_html()).links == []
    monkeypatch.setattr(_html, "DOCUMENTATION", "https://docs.example/stable/")
    assert Words(blind.to_html()).links == [
        f"https://docs.example/stable/findings/{code}.html" for code in codes
    ]


def luminance(colour):
    """Relative luminance (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_and_drawings_stand_out_in_the_light_and_in_the_dark(report):
    text = report.to_html()
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", block))
        for block in (text.partition("prefers-color-scheme: dark")[::2])
    )
    assert light.keys() == dark.keys()
    assert len(light) == 13
    assert contrast("#fff", "#000") == pytest.approx(21)
    for palette in (light, dark):
        papers = [palette[name] for name in palette if name.endswith("paper")]
        assert min(contrast(palette["ink"], paper) for paper in papers) > 7
        for name in ("faint", "link"):
            assert contrast(palette[name], palette["paper"]) > 4.5
        for one, other in (("bar", "track"), ("ink", "bar"), ("ink", "track")):
            assert contrast(palette[one], palette[other]) > 3
        for name in ("good", "notice", "severe"):
            assert contrast(palette[name], palette["paper"]) > 3
    # No colour is written down elsewhere.
    rules = text.partition("</style>")[2].partition("</style>")[0]
    assert set(re.findall(r"#[0-9a-f]{3,6}", rules)) == {*light.values(), *dark.values()}
