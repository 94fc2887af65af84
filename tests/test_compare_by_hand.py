"""Comparisons of reports, cell by cell, on reports whose figures are set by hand."""

from dataclasses import replace

import numpy as np
import pytest

from distillguard.evaluation import PairedDifference, compare, paired_difference
from distillguard.evaluation._statistics import wilson
from distillguard.evaluation.report._compare import Comparison, Shares, _numbered
from distillguard.evaluation.report._paired import _brief
from distillguard.evaluation.report._per_example import called, from_dict
from test_report_by_hand import BASE, EACH, finding

ONE = replace(BASE, model="net", findings=(), n_examples=20)


def seeds(*robust, **changes):
    """Reports of twenty examples with so many robust ones."""
    return [
        replace(ONE, robust_accuracy=n / 20, robust_interval=wilson(n, 20), **changes)
        for n in robust
    ]


@pytest.mark.parametrize(
    ("values", "interval", "text", "std"),
    [
        ((), None, "", None),
        ((0.5,), None, "50.0 %", None),
        ((0.5,), (0.25, 0.75), "50.0 % [25.0, 75.0]", None),
        # Deviations of a tenth to both sides, with one degree of freedom.
        ((0.4, 0.6), None, "50.0 % ± 14.1 (40.0 to 60.0)", 0.02**0.5),
        ((0.25, 0.5, 0.0), None, "25.0 % ± 25.0 (0.0 to 50.0)", 0.25),
    ],
)
def test_a_cell_is_a_mean_with_what_is_known_of_its_spread(values, interval, text, std):
    shares = Shares(values, interval)
    assert str(shares) == text
    assert shares.std == (None if std is None else pytest.approx(std))


def test_a_row_holds_the_conditions_the_accuracies_and_the_findings():
    found = [finding("a"), finding("b"), finding("a", x=1.0)]
    some = [replace(each, findings=tuple(found[:n])) for n, each in enumerate(seeds(8, 10), 2)]
    some[0] = replace(some[0], n_examples=30)
    rows = compare({"two\nlines": ONE, "three": some}).rows()
    assert rows[0][:2] == ("two lines", f"{ONE.norm} {ONE.epsilon:.6g}, 20 examples")
    assert rows[0][2].startswith("80.0 % [")
    assert rows[0][-1] == "none"
    assert rows[1][1] == f"{ONE.norm} {ONE.epsilon:.6g}, 20 to 30 examples, 2 reports"
    assert rows[1][3] == "45.0 % ± 7.1 (40.0 to 50.0)"
    assert rows[1][-1] == "a, b"
    assert [len(row) for row in rows] == [6, 6]
    assert compare(x=some).conditions() == {"x": rows[1][1]}
    once = [replace(some[0], findings=(found[1],)), replace(some[1], findings=())]
    assert compare(x=once).rows()[0][-1] == "b (1 of 2)"


def test_attacks_are_rows_in_the_order_in_which_they_were_met():
    other = replace(ONE, attacks=(replace(ONE.attacks[0], name="new"), *ONE.attacks[:1]))
    failed = replace(ONE.attacks[1], error="OSError: out")
    broken = replace(ONE, attacks=(ONE.attacks[0], failed))
    names = [each.name for each in ONE.attacks]
    table = compare(a=ONE, b=other, c=broken).attack_rows()
    assert [row[0] for row in table] == ["clean", *names, "new", "worst case of these", "to quote"]
    by_name = {row[0]: [bool(cell) for cell in row[1:]] for row in table}
    assert by_name[names[0]] == [True, True, True]
    assert by_name[names[1]] == [True, False, False]
    assert by_name["new"] == [False, True, False]
    records = compare(a=ONE, b=other).records()
    assert [each["kind"] for each in records[: len(names) + 4]] == [
        "clean", *["attack"] * (len(names) + 1), "worst case", "to quote",
    ]  # fmt: skip
    (worst,) = (each for each in records if each["kind"] == "worst case" and each["model"] == "a")
    assert (worst["n_reports"], worst["accuracy"], worst["std"]) == (1, ONE.robust_accuracy, None)
    assert (worst["low"], worst["high"]) == ONE.robust_interval
    (none,) = (each for each in records if each["name"] == "new" and each["model"] == "a")
    assert (none["n_reports"], none["accuracy"], none["min"], none["low"]) == (0, None, None, None)


LEFT = "Each attack ran on the examples that the earlier ones had left; its row shows what is left"
EVERY = "Each attack ran on all examples classified correctly."
MIXED = "In some reports each attack ran on all examples, in others on those that the earlier ones"
SPREAD = "Of several reports: mean ± standard deviation (lowest to highest)."


@pytest.mark.parametrize(
    ("reports", "start", "several"),
    [
        ({"a": ONE}, LEFT, False),
        ({"a": EACH}, EVERY, False),
        ({"a": ONE, "b": EACH}, MIXED, False),
        ({"a": seeds(8, 9)}, LEFT, True),
        ({"a": ONE, "b": [EACH, EACH]}, MIXED, True),
    ],
)
def test_the_note_says_how_attacks_ran_and_what_spreads_mean(reports, start, several):
    text = str(compare(reports))
    note = text.splitlines()[-1]
    assert note.startswith(start)
    assert note.endswith(SPREAD) == several
    assert note == note.strip()
    assert note.split(" (")[0].replace("±", "") in compare(reports)._repr_html_().replace("±", "")
    lines = compare(reports).to_markdown().splitlines()
    assert lines[-1].startswith(start)
    # Two tables, with a line between them.
    assert lines.count("") == 2
    blank = text.splitlines().index("")
    assert blank == len(reports) + 2
    assert text.splitlines()[blank + 1].startswith("attack")


def test_reports_go_by_their_models_with_numbers():
    other = replace(ONE, model="net 2")
    names = list(compare(ONE, ONE, other, {"x": ONE}, ONE, y=[ONE]).reports)
    assert names == ["net", "net 2", "net 2 2", "x", "net 3", "y"]
    assert _numbered("net", {}) == "net"
    assert _numbered("net", {"net": 0}) == "net 2"
    assert _numbered("net", {"net": 0, "net 2": 0, "a net": 0, "network": 0}) == "net 3"
    assert list(compare({1: ONE}).reports) == ["1"]
    assert compare(x=ONE).reports["x"] == (ONE,)
    assert isinstance(compare(ONE), Comparison)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (([],), ValueError, "compare must get at least one report of '', got none"),
        (({"a": []},), ValueError, "compare must get at least one report of 'a', got none"),
        ((), ValueError, "compare must get at least one report, got none"),
        (({},), ValueError, "compare must get at least one report, got none"),
        (("text",), TypeError, "compare must get RobustnessReport objects, got str"),
        (({"a": "text"},), TypeError, "compare must get RobustnessReport objects, got str"),
        (({1: ONE, "1": ONE},), ValueError, "compare must get each name once, got '1' twice"),
    ],
)
def test_what_is_no_report_is_refused(given, error, message):
    with pytest.raises(error, match=f"^{message}"):
        compare(*given)


def test_pairs_are_of_the_first_reports_and_of_the_second_ones():
    table = ONE.per_example
    fallen = tuple("FGSM" if n == 5 else by for n, by in enumerate(table.fooled_by))
    less = replace(ONE, per_example=replace(table, fooled_by=fallen))
    first, second = compare(a=[ONE, less], b=[less, less]).paired("a", "b")
    lost = int(table.robust[5])
    assert (first.only_first, first.only_second) == (lost, 0)
    assert (second.only_first, second.only_second) == (0, 0)
    assert first.both + first.neither + lost == 20
    clean = paired_difference(ONE, less, accuracy="clean")
    assert (clean.both, clean.only_first, clean.only_second, clean.neither) == (16, 0, 0, 4)
    with pytest.raises(ValueError, match=r"^accuracy must be one of 'robust', 'clean', "):
        paired_difference(ONE, less, accuracy="both")
    for given, name in (((ONE, 3), "second"), ((3, ONE), "first")):
        with pytest.raises(TypeError, match=f"^{name} must be a RobustnessReport, got int"):
            paired_difference(*given)


def test_a_difference_is_that_of_two_shares():
    found = PairedDifference(40, 12, 2, 46)
    assert (found.n_examples, found.difference) == (100, 0.1)
    # Two of fourteen heads or fewer, to both sides: 2 (1 + 14 + 91) / 2^14.
    assert found.p_value == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert "of 100 examples 12 are right only with the first and 2 only with the second" in str(
        found
    )
    html = found._repr_html_()
    assert "<td>first right</td><td>40</td><td>12</td>" in html
    assert "<td>first wrong</td><td>2</td><td>46</td>" in html
    low, high = found.interval
    assert low < 0.1 < high


@pytest.mark.parametrize(("n", "shown"), [(58, 60), (59, 63)])
def test_long_values_are_cut(n, shown):
    assert len(_brief("x" * n)) == shown
    assert _brief("x" * n).endswith("..." if shown == 63 else "'")


def test_labels_of_text_and_of_numbers_are_compared_as_text():
    table = ONE.per_example
    words = replace(ONE, per_example=replace(table, label=table.label.astype(str)))
    assert paired_difference(ONE, words, accuracy="clean").n_examples == 20
    other = replace(table, label=np.where(table.index == table.index[7], 9, table.label))
    with pytest.raises(ValueError, match=f"got label '9' of example {table.index[7]} rather than"):
        paired_difference(ONE, replace(ONE, per_example=other))


def test_columns_come_back_from_lists():
    table = ONE.per_example
    assert from_dict(table.to_dict()) == table
    read = table.to_dict()
    again = from_dict({**read, "label": [str(each) for each in read["label"]],
                       "predicted": [str(each) for each in read["predicted"]]})  # fmt: skip
    assert again.label.dtype.kind == "U"
    assert (again.index.dtype, again.margin.dtype) == (np.int64, np.float64)
    assert again.robust.tolist() == table.robust.tolist()
    with pytest.raises(ValueError, match="must hold classes of one kind, got text and numbers"):
        from_dict({**read, "label": [str(each) for each in read["label"]]})
    assert called(np.array([1, -1, 0]), ["a", "b"]) == ("b", None, "a")
    assert table != replace(table, margin=table.margin + 1)
    assert len(table) == 20
