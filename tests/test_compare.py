"""Reports side by side: figures, spreads, paired tests, and tables that others read back."""

import io
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from torch import nn

from distillguard import attacks, evaluate
from distillguard.evaluation import (
    ComparisonDisplay,
    PairedDifference,
    compare,
    paired_difference,
)
from distillguard.evaluation._statistics import paired_interval
from distillguard.evaluation.diagnosis._findings import Finding

TRIED = {
    "one step": partial(attacks.fgsm, epsilon=0.1),
    "ten": partial(attacks.pgd, epsilon=0.1, steps=10),
}


def reported(seed, n=50, **settings):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs = torch.rand(n, 5, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(3, (n,), generator=torch.Generator().manual_seed(8))
    settings = {"epsilon": 0.1, "attacks": TRIED, "random_state": seed, **settings}
    return evaluate(model, inputs, labels, **settings)


@pytest.fixture(scope="module")
def reports():
    return [reported(seed) for seed in range(4)]


HOSTILE = [
    "plain", "a, b", 'says "no"', "two\nlines", "a\ttab", "a | b", "back\\slash", "50 % & more",
    "#1 $x^2_i$", "{open", "close}", "~tilde^", "[brackets]", "* star", "`code`", "<b>bold</b>",
    "[link](https://example.org)", "=1+1", "'; DROP", "**loud**", "\\\\", "https://example.org",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile(reports):
    """22 names: as networks, and as attacks of each of them."""
    rows = [replace(reports[0].attacks[0], name=name) for name in HOSTILE]
    report = replace(reports[0], attacks=tuple(rows))
    assert len(set(HOSTILE)) == 22
    return compare(dict.fromkeys(HOSTILE, report))


def test_the_table_of_attacks_by_networks_holds_the_figures_of_each_report(reports):
    pandas = pytest.importorskip("pandas")
    together = compare(first=reports[0], second=reports[1])
    frame = together.to_frame()
    wide = frame.pivot(index="name", columns="model", values="accuracy")
    for name, report in zip(("first", "second"), reports, strict=False):
        assert wide.loc["clean", name] == report.clean_accuracy
        assert wide.loc["to quote", name] == report.quoted_accuracy
        for row in report.attacks:
            assert wide.loc[row.name, name] == row.robust_accuracy
            here = frame[(frame["model"] == name) & (frame["name"] == row.name)].iloc[0]
            assert (here["low"], here["high"]) == row.robust_interval
            assert pandas.isna(here["std"])
    cells = dict(zip(("attack", "first", "second"), together.attack_rows()[1], strict=True))
    row = reports[1].attacks[0]
    low, high = row.robust_interval
    assert cells["attack"] == "one step"
    assert cells["second"] == (
        f"{100 * row.robust_accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    )
    assert "the examples that the earlier ones had left" in str(together)


def test_the_heat_map_of_attacks_by_networks_shows_the_figures_of_the_table(reports):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    broken = replace(reports[3], attacks=(replace(reports[3].attacks[0], error="stopped"),))
    together = compare({"three": reports[:3], "one": broken})
    display = together.plot()
    rows = together.attack_rows()
    colours = np.ma.filled(display.ax_.images[0].get_array().astype(float), np.nan)
    texts = np.array([text.get_text() for text in display.ax_.texts]).reshape(len(rows), 2)
    cells = together.records(), colours.T.ravel(), texts.T.ravel()
    for record, colour, text in zip(*cells, strict=True):
        if record["accuracy"] is None:
            assert (text, np.isnan(colour)) == ("none", True)
            continue
        assert colour == pytest.approx(100 * record["accuracy"])
        left = next(row for row in rows if row[0] == record["name"])[1 + (record["model"] == "one")]
        assert left.startswith(" ".join(text.split()))
        assert (" ± " in left) == ("±" in text) == (record["model"] == "three")
    assert [each.get_text() for each in display.ax_.get_yticklabels()] == [row[0] for row in rows]
    names = [each.get_text() for each in display.ax_.get_xticklabels()]
    assert names == ["three\nlinf 0.1, 50 examples, 3 reports", "one\nlinf 0.1, 50 examples"]
    assert [axes.get_ylabel() for axes in display.figure_.axes] == [
        "attack, after those above it",
        "accuracy left (%)",
    ]
    again = ComparisonDisplay.from_comparison(compare(reports[0]), ax=pyplot.figure().subplots())
    assert again.ax_.get_xlabel() == "network (linf 0.1, 50 examples)"
    assert again.figure_ is again.ax_.figure
    with pytest.raises(TypeError, match="comparison must be a Comparison, got RobustnessReport"):
        ComparisonDisplay(reports[0])
    pyplot.close("all")


def test_seeds_of_one_network_are_summed_up_as_pandas_does(reports):
    pandas = pytest.importorskip("pandas")
    together = compare({"T = 100": reports[:3]}, alone=reports[3])
    frame = together.to_frame().set_index(["model", "name"])
    for key in ("clean", "one step", "ten", "worst case of these", "to quote"):
        here = frame.loc["T = 100", key]
        alone = [compare(r).to_frame().set_index("name").loc[key, "accuracy"] for r in reports[:3]]
        told = pandas.Series(alone).agg(["count", "mean", "std", "min", "max"])
        np.testing.assert_allclose(
            here[["n_reports", "accuracy", "std", "min", "max"]].astype(float), told
        )
        assert pandas.isna(here["low"])
        said = f"{100 * told['mean']:.1f} % ± {100 * told['std']:.1f} ("
        assert said in str(together)
        assert said in together.to_markdown()
    assert "50 examples, 3 reports" in str(together)


def test_a_finding_of_some_reports_says_of_how_many(reports):
    finding = Finding("a", "notice", "", "", "")
    found = [replace(each, findings=(finding,) * (i < 2)) for i, each in enumerate(reports[:3])]
    column = [row[-1] for row in compare(all=found[:2], some=found, one=found[0]).rows()]
    assert column == ["a", "a (2 of 3)", "a"]


def test_of_several_reports_a_figure_has_no_interval_though_only_one_has_the_attack(reports):
    fewer = replace(reports[1], attacks=reports[1].attacks[:1])
    records = compare(a=[reports[0], fewer]).records()
    (ten,) = (each for each in records if each["name"] == "ten")
    assert ten["n_reports"] == 1
    assert ten["low"] is ten["high"] is None


def test_an_attack_that_did_not_finish_has_no_figure(reports):
    def broken(model, inputs, labels):
        raise RuntimeError("no")

    other = reported(3, attacks=TRIED | {"broken": broken})
    together = compare(whole=reports[0], other=[other, other])
    record = next(each for each in together.records() if each["name"] == "broken")
    assert record["n_reports"] == 0
    assert record["accuracy"] is record["max"] is None
    assert ("broken", "", "") in together.attack_rows()


def wilson_by_root(count, n):
    """Ends of the score interval, where the test of each share turns (no closed form)."""
    z = norm.ppf(0.975)

    def gap(share):
        return (count / n - share) ** 2 - z**2 * share * (1 - share) / n

    share = count / n
    low = 0.0 if count == 0 else brentq(gap, 0, share - 1e-12)
    high = 1.0 if count == n else brentq(gap, share + 1e-12, 1)
    return low, high


def test_the_paired_interval_is_newcombes_tenth_method():
    # The first of the data sets of his table II; by hand from its formulae, too:
    # shares 48/50 and 38/50 in [.8654, .9890] and [.6259, .8570], no correlation after correction.
    np.testing.assert_allclose(paired_interval(36, 12, 2, 0), (0.0569, 0.3404), atol=5e-5)


def test_the_paired_interval_agrees_with_one_by_roots_and_a_correlation():
    for both, first, second, neither in product((0, 1, 9, 40), (0, 2, 7), (0, 3), (1, 30)):
        outcomes = np.repeat([(1, 1), (1, 0), (0, 1), (0, 0)], (both, first, second, neither), 0)
        n, (one, other) = len(outcomes), outcomes.T
        ends = [np.array(wilson_by_root(int(each.sum()), n)) for each in (one, other)]
        phi = 0.0
        if one.std() and other.std():
            covariance = np.cov(one, other, bias=True)[0, 1]
            if covariance > 0:
                covariance = max(covariance - 1 / (2 * n), 0)
            phi = covariance / (one.std() * other.std())
        middle = np.array([one.mean(), other.mean()])
        below = np.array([middle[0] - ends[0][0], ends[1][1] - middle[1]])
        above = np.array([ends[0][1] - middle[0], middle[1] - ends[1][0]])
        metric = np.array([[1, -phi], [-phi, 1]])
        low, high = np.sqrt(below @ metric @ below), np.sqrt(above @ metric @ above)
        gap = middle[0] - middle[1]
        found = paired_interval(both, first, second, neither)
        np.testing.assert_allclose(found, (gap - low, gap + high), atol=1e-7)


@pytest.mark.parametrize("shares", [(0.72, 0.24, 0.04, 0.0), (0.5, 0.15, 0.05, 0.3)])
def test_the_paired_interval_holds_the_true_difference_in_95_of_100_samples(shares):
    samples = np.random.default_rng(0).multinomial(60, shares, 4000)
    ends = np.array([paired_interval(*sample) for sample in samples.tolist()])
    truth = shares[1] - shares[2]
    held = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert 0.94 < held < 0.97


def test_the_paired_test_is_mcnemars_exact_one():
    for first, second in ((0, 0), (5, 0), (12, 2), (40, 37), (3, 300)):
        found = PairedDifference(10, first, second, 4)
        n = first + second
        p = binomtest(first, n, 0.5).pvalue if n else 1.0
        assert found.p_value == pytest.approx(p, rel=1e-9)
        assert found.difference == (first - second) / (14 + n)


def test_pairs_are_counted_example_by_example(reports):
    first, second = reports[:2]
    found = paired_difference(first, second)
    one, other = (
        [p == y and by is None for p, y, by in zip(t.predicted, t.label, t.fooled_by, strict=True)]
        for t in (first.per_example, second.per_example)
    )
    pairs = list(zip(one, other, strict=True))
    assert found.both == pairs.count((True, True))
    assert found.only_first == pairs.count((True, False)) > 0
    assert found.only_second == pairs.count((False, True)) > 0
    assert found.neither == pairs.count((False, False))
    assert found.difference == pytest.approx(first.robust_accuracy - second.robust_accuracy)
    clean = paired_difference(first, second, accuracy="clean")
    assert clean.difference == pytest.approx(first.clean_accuracy - second.clean_accuracy)
    assert compare(a=reports[:2], b=reports[2:]).paired("a", "b")[1] == paired_difference(
        reports[1], reports[3]
    )
    assert f"p = {found.p_value:.2g} (McNemar's exact test)" in str(found)
    assert str(PairedDifference(40, 12, 2, 9996)).startswith(
        "difference 0.1 points [0.0, 0.2], p ="
    )
    assert str(PairedDifference(0, 0, 0, 9999)).startswith(
        "difference 0.0 points [0.0, 0.0], p = 1 "
    )


def test_what_cannot_be_paired_is_refused(reports):
    first = reports[0]
    fewer = reported(1, n=20)
    table = first.per_example
    others = replace(first, per_example=replace(table, label=np.roll(table.label, 1)))
    places = replace(first, per_example=replace(table, index=table.index + 1))
    rule = "second must be of the examples of first, got "
    for second, why in (
        (fewer, rule + "20 rather than 50"),
        (others, rule + "label"),
        (places, rule + "label .* of example 1 rather than .* of example 0"),
        (replace(first, norm="l2"), "threat model of first, got norm 'l2' rather than 'linf'"),
        (replace(first, epsilon=0.2), "threat model of first, got epsilon 0.2 rather than 0.1"),
        (replace(first, bounds=(0, 2)), r"threat model of first, got bounds \(0, 2\) rather than"),
        (
            replace(first, mask=(True,)),
            r"threat model of first, got mask \(True,\) rather than None",
        ),
    ):
        with pytest.raises(ValueError, match=why):
            paired_difference(first, second)
    assert paired_difference(first, replace(first, epsilon=0.2), accuracy="clean").only_first == 0
    with pytest.raises(TypeError, match="second must be a RobustnessReport, got str"):
        paired_difference(first, "report")
    together = compare(one=first, two=reports[:2])
    with pytest.raises(ValueError, match="second must have as many reports as first, 1, got 2"):
        together.paired("one", "two")
    with pytest.raises(ValueError, match="first must be one of 'one', 'two', got 'three'"):
        together.paired("three", "two")
    with pytest.raises(ValueError, match="reports of 'x' must have one threat model, got norm"):
        compare(x=[first, replace(first, norm="l1")])
    with pytest.raises(ValueError, match="compare must get each name once, got 'x' twice"):
        compare({"x": first}, x=first)


def test_csv_is_read_back_equal_by_pandas(hostile, reports):
    pandas = pytest.importorskip("pandas")
    for table in (hostile, reports[0], compare(a=reports[:3], b=reports[3])):
        read = pandas.read_csv(io.StringIO(table.to_csv()))
        told = table.to_frame()
        for empty in {"error", "near"} & set(told):
            assert read.pop(empty).isna().all()
            assert told.pop(empty).isna().all()
        pandas.testing.assert_frame_equal(read, told, check_dtype=False, rtol=1e-12)
        assert table.to_csv() == table.to_frame().to_csv(index=False)


def test_tables_are_written_to_files_as_they_are_returned(reports, tmp_path):
    for table, form in product((reports[0], compare(*reports)), ("csv", "latex")):
        text = getattr(table, f"to_{form}")(tmp_path / "table")
        assert (tmp_path / "table").read_bytes().decode() == text


SIGNS = {
    "backslash": "\\", "asciicircum": "^", "asciitilde": "~", "less": "<", "greater": ">",
    "bar": "|", "quotedbl": '"', "asciigrave": "`",
}  # fmt: skip


def shown_by_latex(cell):
    """What a cell of a tabular shows; nothing in it may be markup but the names of signs."""
    shown, place = "", 0
    while place < len(cell):
        rest = cell[place:]
        named = next((n for n in SIGNS if rest.startswith(rf"\text{n}{{}}")), None)
        if named:
            shown, place = shown + SIGNS[named], place + len(rf"\text{named}{{}}")
        elif rest[0] == "\\":
            assert rest[1] in "{}$&#%_"
            shown, place = shown + rest[1], place + 2
        elif rest[0] == "{":
            assert rest[1] in "[]*"
            assert rest[2] == "}"
            shown, place = shown + rest[1], place + 3
        else:
            assert rest[0] not in '\\{}$&#%_^~<>|"`[]*'
            shown, place = shown + rest[0], place + 1
    return shown


def test_latex_shows_hostile_names_as_they_are(hostile):
    begin, top, head, middle, *body, bottom, end = hostile.to_latex().splitlines()
    assert (begin, end) == (rf"\begin{{tabular}}{{l{22 * 'r'}}}", r"\end{tabular}")
    assert (top, middle, bottom) == (r"\toprule", r"\midrule", r"\bottomrule")
    assert len(body) == 22 + 3
    lines = [line.removesuffix(r" \\").split(" & ") for line in (head, *body)]
    names = [" ".join(name.split()) for name in HOSTILE]
    assert [shown_by_latex(cell) for cell in lines[0]] == ["attack", *names]
    assert [shown_by_latex(cells[0]) for cells in lines[2:-2]] == names
    for cells, row in zip(lines[1:], hostile.attack_rows(), strict=True):
        assert [shown_by_latex(cell) for cell in cells[1:]] == list(row[1:])


def test_the_table_of_one_report_shows_hostile_names_as_they_are(hostile):
    pandas = pytest.importorskip("pandas")
    report = hostile.reports["plain"][0]
    assert pandas.read_csv(io.StringIO(report.to_csv()))["name"].tolist() == HOSTILE
    lines = [line.split(" & ") for line in report.to_latex().splitlines() if " & " in line]
    assert {len(cells) for cells in lines} == {9}
    names = [" ".join(name.split()) for name in HOSTILE]
    assert [shown_by_latex(cells[0]) for cells in lines[1:23]] == names
    assert [cells[0] for cells in lines[23:]] == ["worst case of these", "to quote"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(hostile, reports, tmp_path):
    tables = "\n\n".join(each.to_latex() for each in (hostile, reports[0], compare(a=reports)))
    page = (
        r"\documentclass{article}\usepackage{booktabs}\usepackage[T1]{fontenc}\begin{document}"
        rf"\tiny {tables}\end{{document}}"
    )
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_markdown_tables_have_their_cells_and_show_hostile_names(hostile):
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(hostile.to_markdown())
    rows, kinds = [], {each.type for each in tokens}
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("th_open", "td_open"):
            assert {child.type for child in token.children} <= {"text", "text_special"}
            rows[-1].append("".join(child.content for child in token.children))
    assert kinds >= {"table_open"}
    assert "html_block" not in kinds
    names = [" ".join(name.split()) for name in HOSTILE]
    networks, by_attack = rows[:23], rows[23:]
    assert [len(row) for row in networks] == [6] * 23
    assert [row[0] for row in networks[1:]] == names
    assert [len(row) for row in by_attack] == [23] * (1 + 22 + 3)
    assert by_attack[0] == ["attack", *names]
    assert [row[0] for row in by_attack[2:-2]] == names
