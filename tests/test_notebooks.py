"""What a notebook shows of each result: tables that say what print says, whatever the names."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import attacks, evaluate
from distillguard.evaluation import (
    AttackTrace,
    Histogram,
    LossSurface,
    PairedDifference,
    RobustnessCurve,
    TransferMatrix,
    compare,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "a & b &lt;",
    '"quoted"',
    "two\nlines",
    "</style>",
    "'`$_*|",
]


class Page(HTMLParser):
    """The elements of a fragment, and the text of each cell and paragraph."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        if tag in ("th", "td", "p"):
            self.texts.append("")
        assert not {"src", "href"} & dict(attributes).keys()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("th", "td", "p"):
            self.texts[-1] += text


def compared(names):
    model, inputs = nn.Linear(3, 2), torch.rand(12, 3)
    report = evaluate(model, inputs, torch.arange(12) % 2, epsilon=0.1, attacks="quick")
    rows = tuple(replace(report.attacks[0], name=name) for name in names)
    return compare(dict.fromkeys(names, replace(report, attacks=rows)))


def examples_called(names):
    inputs = torch.eye(len(names)) / 2 + 0.25

    class Named:
        model_, classes_ = nn.Identity(), np.array(names)

    attack = {name: lambda model, inputs, labels: 1 - inputs for name in names[:1]}
    return evaluate(Named(), inputs, names, epsilon=0.6, attacks=attack, diagnosis=None).per_example


def traced():
    inputs, labels = torch.rand(20, 3), torch.zeros(20, dtype=torch.int64)
    trace = AttackTrace(inputs, labels, epsilon=0.1)
    attacks.pgd(nn.Linear(3, 2), inputs, labels, epsilon=0.1, steps=4, callback=trace)
    return trace


RESULTS = {
    "comparison": lambda: compared(HOSTILE),
    "paired difference": lambda: PairedDifference(5, 4, 3, 2),
    "examples": lambda: examples_called(HOSTILE),
    "trace": traced,
    "curve": lambda: RobustnessCurve.from_radii(np.linspace(0, 1, 50), "l2"),
    "histogram": lambda: Histogram(np.array([3, 4]), np.array([0.0, 1.0, 2.0]), HOSTILE[0]),
    "surface": lambda: LossSurface(np.linspace(-1, 1, 3), np.eye(3), np.eye(3) - 0.5),
    "transfer": lambda: TransferMatrix(np.eye(6), tuple(HOSTILE), np.full((6, 6), 9)),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_notebook_shows_what_print_says_with_names_as_they_are(kind):
    torch.manual_seed(0)
    result = RESULTS[kind]()
    page, printed = Page(result._repr_html_()), " ".join(str(result).split())
    assert page.open == []
    assert page.tags[:2] == ["style", "div"]
    assert set(page.tags[2:]) <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.tags.count("td") > 0
    said = [" ".join(text.split()) for text in page.texts]
    if kind != "paired difference":  # printed as a sentence
        assert [text for text in said if text not in printed] == []
    else:
        assert said == [
            printed, "examples", "second right", "second wrong",
            "first right", "5", "4", "first wrong", "3", "2",
        ]  # fmt: skip
    if kind in ("comparison", "examples", "transfer"):
        assert {" ".join(name.split()) for name in HOSTILE} <= {
            text.removeprefix("tried on ") for text in said
        }


def test_tables_of_results_name_no_colour_of_their_own():
    style, _, _ = RESULTS["curve"]()._repr_html_().partition("</style>")
    assert "color: inherit; background: none" in style
    assert "#" not in style
    assert "rgb(" not in style


def test_the_table_of_a_trace_is_what_stands_after_each_pass():
    torch.manual_seed(0)
    trace = traced()
    lines = str(trace).splitlines()[4:]
    assert len(lines) == len(trace.standing)
    for passes, (line, share) in enumerate(zip(lines, trace.standing, strict=True)):
        assert line.split()[:3] == [str(passes), f"{100 * share:.1f}", "%"]


def test_the_table_of_a_surface_is_its_ranges():
    surface = RESULTS["surface"]()
    assert "33.3 % answered otherwise" in str(surface)
    assert str(surface).splitlines()[-1].split()[-3:] == ["-0.5", "-0.5", "0.5"]
