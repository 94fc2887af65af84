"""Reports made by hand, whose sentences, notes, tables and contradictions are known beforehand."""

import csv
import json
import re
from dataclasses import replace
from textwrap import wrap

import numpy as np
import pytest
from scipy.stats import binomtest

from conftest import with_damaged_digits
from distillguard import __version__
from distillguard.evaluation import (
    Adaptation,
    AttackRow,
    ClassRow,
    Finding,
    Observations,
    PerExample,
    Rejection,
    RobustnessReport,
)
from distillguard.evaluation._entries import RESERVED
from distillguard.evaluation._records import Cost
from distillguard.evaluation.report._notes import notes
from distillguard.evaluation.report._numbers import interval, percent
from distillguard.evaluation.report._table import aligned, bars, sections


def ends(count, n):
    """Wilson's interval, by SciPy."""
    return tuple(map(float, binomtest(count, n).proportion_ci(0.95, "wilson")))


def pair(count, n):
    """A share and its interval as reports write them."""
    low, high = (100 * end for end in ends(count, n))
    return f"{100 * count / n:.1f} %", f"[{low:.1f}, {high:.1f}]"


def told(count, n):
    """Both in a sentence."""
    return " ".join(pair(count, n))


def row(name, attacked, fooled, stands, n=20, **more):
    """An attack that fooled all that it got misclassified, at a distance of 0.125."""
    known = {
        "success_rate": fooled / attacked if attacked else None,
        "median_distance": 0.125 if fooled else None,
        "distance_norm": "linf",
        "forwards": 40.0,
        "backwards": 20.5,
        "seconds": 1.5,
    }
    whole = {"robust_accuracy": stands / n, "robust_interval": ends(stands, n)}
    return AttackRow(name, attacked=attacked, fooled=fooled, **whole | known | more)


FOOLED_BY = ["FGSM"] * 4 + ["PGD"] * 2 + [None] * 14
"""Six fall, ten withstand, and the last four are wrong without an attack."""

SEEN = Observations(
    diagnosis="full", norm="linf", epsilon=0.1, correct=16, sampled=16,
    attack_survivors=10, all_survivors=10,
)  # fmt: skip
BASE = RobustnessReport(
    model="Net",
    norm="linf",
    epsilon=0.1,
    bounds=(0.0, 1.0),
    mask=None,
    n_examples=20,
    clean_accuracy=0.8,
    clean_interval=ends(16, 20),
    robust_accuracy=0.5,
    robust_interval=ends(10, 20),
    attacks=(row("FGSM", 16, 4, 12), row("PGD", 12, 2, 10)),
    survivors_only=True,
    findings=(),
    observations=SEEN,
    per_example=PerExample(
        index=np.arange(20),
        label=np.array([0] * 12 + [1] * 8),
        predicted=np.array([0] * 12 + [1] * 4 + [0] * 4),
        margin=np.array([2.0] * 16 + [-1.0] * 4),
        fooled_by=tuple(FOOLED_BY),
        distance=np.array([0.0625] * 6 + [np.nan] * 14),
    ),
    costs={"clean pass": Cost(20, 0, 0.125), "judging": Cost(28, 0, 1.0)},
    random_state=7,
    versions={"distillguard": "0.0.1", "Python": "3.12"},
    date="2026-03-04T05:06:07+00:00",
    classes=(ClassRow("a", 12, 12, 6), ClassRow("b", 8, 4, 4)),
)


def finding(code, severity="severe", **figures):
    return Finding(code, severity, "it is so.", "it means that.", "do this.", figures)


def seen(**changes):
    return replace(SEEN, **changes)


def adapted(**changes):
    held = {
        "findings": ("zero-gradients",),
        "standing": 10,
        "attacked": 10,
        "fooled": 3,
        "remedies": ("its own gradient: 3 of 10 fooled",),
        "attacks": (row("PGD margin, again", 10, 3, 7),),
        "failed": (),
    }
    return Adaptation(**held | changes)


RESULT = (
    f"obust accuracy {told(10, 20)} within linf 0.1, clean accuracy {told(16, 20)}, 20 examples"
)
ALONE = f"Against the attacks passed alone, r{RESULT}"
RESULT = f"R{RESULT}"
BLIND = finding("margin-beats-cross-entropy")
SEVEN = seen(all_survivors=7)
LIST = "examples that withstand the attacks passed"


@pytest.mark.parametrize(
    ("change", "headline"),
    [
        ({}, RESULT),
        ({"observations": seen(diagnosis=None)}, f"{RESULT}, without a diagnosis"),
        ({"findings": (finding("silent-success", "notice"),)}, RESULT),
        (
            {"findings": (BLIND, finding("silent-success", "notice"))},
            f"{RESULT}; attacks on the cross-entropy alone are blind here "
            "(margin-beats-cross-entropy)",
        ),
        # Where fewer than half stay without a gradient of the logits, it is the cross-entropy's.
        (
            {"findings": (finding("zero-gradients", share=0.5, share_scaled=0.24), BLIND)},
            f"{RESULT}; attacks on the cross-entropy alone are blind here "
            "(zero-gradients, margin-beats-cross-entropy)",
        ),
        (
            {"findings": (finding("zero-gradients", share=0.5, share_scaled=0.25), BLIND)},
            f"WARNING: quote {told(10, 20)} robust accuracy as an upper bound only "
            "(zero-gradients, margin-beats-cross-entropy)",
        ),
        # Three fell: 7 of 20 is within the interval of 10 of 20, and 5 of 20 is not.
        (
            {"observations": SEVEN},
            f"Quote {told(7, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 3 of the 10 "
            f"{LIST}",
        ),
        (
            {"observations": seen(all_survivors=5)},
            f"WARNING: quote {told(5, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 5 of "
            f"the 10 {LIST}",
        ),
        (
            {"observations": SEVEN, "robust_interval": (0.35, 0.7)},
            f"Quote {told(7, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 3 of the 10 "
            f"{LIST}",
        ),
        (
            {"observations": SEVEN, "findings": (finding("more-steps-help"),)},
            f"WARNING: quote {told(7, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 3 of "
            f"the 10 {LIST} (more-steps-help)",
        ),
        (
            {"observations": SEVEN, "findings": (BLIND,)},
            f"Quote {told(7, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 3 of the 10 "
            f"{LIST} (margin-beats-cross-entropy)",
        ),
        # Of a sample nobody knows the others, unless all that stood were attacked again.
        (
            {"observations": seen(sampled=8, attack_survivors=5, all_survivors=4)},
            f"Quote at most {told(9, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 1 of "
            "the 5 sampled examples that withstand the attacks passed",
        ),
        (
            {
                "observations": seen(sampled=8, attack_survivors=5, all_survivors=4),
                "adaptation": adapted(standing=9, attacked=9, fooled=2),
            },
            f"Quote {told(7, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 1 of the 5 "
            "sampled examples that withstand the attacks passed, and attacks adapted to the "
            "findings fooled 2 of 9 left",
        ),
        (
            {
                "observations": seen(sampled=8, attack_survivors=5, all_survivors=5),
                "adaptation": adapted(standing=10, attacked=4, fooled=2),
            },
            f"Quote at most {told(8, 20)} robust accuracy, not 50.0 %: attacks adapted to the "
            "findings fooled 2 of 4 sampled left",
        ),
        (
            {"observations": SEVEN, "adaptation": adapted(standing=7, attacked=0, fooled=0)},
            f"Quote {told(7, 20)} robust accuracy, not 50.0 %: the diagnosis fooled 3 of the 10 "
            f"{LIST}",
        ),
    ],
)
def test_the_headline_quotes_what_is_left_and_warns_where_the_attacks_were_far_off(
    change, headline
):
    report = replace(BASE, **change)
    assert report.headline == headline
    lines = str(report).splitlines()
    assert lines[0] == headline
    # Where the headline quotes another figure than the attacks', theirs stands below it.
    assert (lines[1][:33] == ALONE[:33]) is bool(report.n_fooled_besides)
    assert (lines[1] == RESULT) is headline.startswith("WARNING: quote 50.0 %")


TRIED = "tried to change the 16 of 20 examples that the model classifies correctly, each by at most"
LEFT = "for the right reason, and fooled"
STOPPED = row("PGD", 5, 2, 10, error="OSError: worn out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {},
            f"2 attacks {TRIED} 0.1 in linf: 10 withstood all. The diagnosis looked at 16 of them, "
            f"to see whether the attacks failed {LEFT} none of those that the attacks had left.",
        ),
        (
            {"attacks": (STOPPED, BASE.attacks[0]), "observations": SEVEN},
            f"1 attack {TRIED} 0.1 in linf: 10 withstood all. The diagnosis looked at 16 of them, "
            f"to see whether the attacks failed {LEFT} 3 of those that the attacks had left.",
        ),
        (
            {"attacks": (STOPPED,), "observations": seen(diagnosis=None), "epsilon": 0.12345678},
            "No attack ran to its end on the 16 of 20 examples that the model classifies "
            "correctly: 10 were not fooled within 0.123457 in linf. Whether the attacks failed for "
            "the right reason was not examined.",
        ),
        (
            {"observations": seen(correct=20, sampled=0)},
            f"2 attacks {TRIED.replace('16 of 20', '20')} 0.1 in linf: 10 withstood all.",
        ),
        (
            {"rejection": Rejection(2, ends(2, 20), 4, ends(4, 16)), "adaptation": adapted()},
            f"2 attacks {TRIED} 0.1 in linf: 10 withstood all. The model rejected 2 of the clean "
            "examples, which count as errors, and an attack's point for 4 of those that withstood. "
            f"The diagnosis looked at 16 of them, to see whether the attacks failed {LEFT} none of "
            "those that the attacks had left. 10 were attacked again, with attacks adapted to what "
            "it found: 3 were fooled.",
        ),
        (
            {"adaptation": adapted(fooled=0), "observations": seen(sampled=0)},
            f"2 attacks {TRIED} 0.1 in linf: 10 withstood all. 10 were attacked again, with "
            "attacks adapted to what it found: none were fooled.",
        ),
        (
            {"adaptation": adapted(attacked=0, fooled=0), "observations": seen(sampled=0)},
            f"2 attacks {TRIED} 0.1 in linf: 10 withstood all.",
        ),
    ],
)
def test_the_summary_tells_what_was_done_and_no_more(change, words):
    report = replace(BASE, **change)
    low, high = (100 * end for end in ends(round(20 * report.quoted_accuracy), 20))
    text = " ".join(str(report).split())
    assert (
        f"{words} Of all examples of this kind {low:.1f} to {high:.1f} % withstand what was tried "
        "(95 % confidence). A better attack can lower the figure; nothing here can show that there "
        "is none."
    ) in text


RICH = replace(
    BASE,
    title="A  title",
    dataset="shoes",
    attacks=(
        row("FGSM", 16, 4, 12),
        row("PGD", 12, 2, 10, success_rate=0.75, near=0.05, forwards=None, illegal=3, rejected=4),
        row("FAB", 0, 0, 10, near=0.05, backwards=None, error="ValueError: no"),
        row("odd", 5, 0, 10, error="OSError: out", near=0.2, illegal=1, rejected=1),
    ),
    findings=(finding("more-steps-help", "notice"),),
    observations=seen(
        compared=8, compared_steps=30, cross_entropy_survivors=6, margin_survivors=0,
        adaptations=("a mean of 20", "no rounding"), stand_ins=("PGD: a student",),
        unseen=("FGSM", "odd"), failed={"blind": "no gradient", "bounds": "no"},
    ),
    adaptation=adapted(
        findings=("zero-gradients", "more-steps-help"), attacked=8, failed=("one, so", "two"),
        remedies=("its own gradient: 3 of 10 fooled", "a student: 0 of 7 fooled"),
        attacks=(row("PGD margin, again", 8, 3, 7, rejected=2, illegal=1, error="a: b"),),
    ),
    rejection=Rejection(2, ends(2, 20), 4, ends(4, 16)),
)  # fmt: skip


HEAD = [
    "attack", "robust accuracy", "95 % interval", "attacked", "success", "median distance",
    "forwards", "backwards", "seconds",
]  # fmt: skip
ROWS = [
    ["FGSM", *pair(12, 20), "16", "25.0 %", "0.125 linf", "40.0", "20.5", "1.5"],
    ["PGD", *pair(10, 20), "12", "75.0 %", "0.125 linf", "unknown", "20.5", "1.5"],
    ["FAB", "did not run", "", "0", "", "", "40.0", "unknown", "1.5"],
    ["odd", "stopped", "", "5", "0.0 %", "", "40.0", "20.5", "1.5"],
    ["worst case of these", *pair(10, 20)],
    ["Diagnosis, share of 8 of the 16 correct examples"],
    ["PGD on the cross-entropy, 30 steps", *pair(6, 8)],
    ["PGD on the margin, 30 steps", *pair(0, 8)],
    ["Adapted attacks on what attacks and diagnosis left, share of all examples"],
    ["PGD margin, again", "stopped", "", "8", "37.5 %", "0.125 linf", "40.0", "20.5", "1.5"],
    ["All of these, share of all examples"],
    ["to quote", *pair(7, 20)],
]
REFUSED = [
    ["rejected", "examples", "of", "share", "95 % interval"],
    ["clean (false alarms)", "2", "20", *pair(2, 20)],
    ["FGSM", "0", "16", *pair(0, 16)],
    ["PGD", "4", "12", *pair(4, 12)],
    ["odd", "1", "5", *pair(1, 5)],
    ["PGD margin, again", "2", "8", *pair(2, 8)],
    ["after any attack, never fooled", "4", "16", *pair(4, 16)],
]
NOTES = """\
Each attack ran on the examples that the earlier ones had not fooled. Success is \
misclassification at any distance; forwards and backwards are per attacked example, seconds for \
all of them.
Some attacks left out the examples on which the earlier attacks had lowered the lead of the true \
class, but not below a share of the clean lead: 20 % for odd; 5 % for PGD and FAB.
Besides: clean pass 20 forwards 0 backwards 0.1 s, judging 28 forwards 0 backwards 1.0 s.
Evaluated: Net, shoes, 2026-03-04 05:06 UTC.
Seed 7; distillguard 0.0.1, Python 3.12.
Adapted: the model was evaluated with a mean of 20; no rounding. All passes inside it are counted.
Queried in place of the model: PGD: a student. These passes count as the attack's; every verdict \
is the model's own.
FGSM, odd never queried the model: passes through anything else are unknown.
Attacked again because of zero-gradients, more-steps-help. Attacks followed its own gradient: 3 \
of 10 fooled; then a student: 0 of 7 fooled. Verdicts are the model's own. The attacks passed \
left 50.0 %; after all that was tried 35.0 % are left.
Of 10 examples left, 8 were attacked again: the examples of the diagnosis's sample, as the data \
are read once.
Could not be adapted to: one, so; two.
The diagnosis is incomplete, and findings may be missing. It could not measure blind (no \
gradient); bounds (no).
PGD returned 3 points outside the bounds or the mask, or not finite, which do not count.
FAB did not run: ValueError: no
odd stopped after 5 examples: OSError: out
odd returned 1 point outside the bounds or the mask, or not finite, which does not count.
PGD margin, again stopped after 8 examples: a: b
PGD margin, again returned 1 point outside the bounds or the mask, or not finite, which does not \
count.
"""
PLAIN_NOTES = """\
Each attack ran on all examples that the model classifies correctly. Success is misclassification \
at any distance; forwards and backwards are per attacked example, seconds for all of them.
Besides: clean pass 20 forwards 0 backwards 0.1 s, judging 28 forwards 0 backwards 1.0 s.
Evaluated: Net, 2026-03-04 05:06 UTC.
Seed 7; distillguard 0.0.1, Python 3.12.
"""


def cells_of(line):
    """Cells of a printed row, two blanks or more apart, or of one of Markdown."""
    if line.startswith("|"):
        return [cell.strip().replace("*", "") for cell in line.strip("|").split("|")]
    return re.split("  +", line)


def filled(rows):
    """What is not blank in the rows."""
    return [[cell for cell in cells if cell] for cells in rows]


def test_text_and_markdown_hold_the_rows_notes_and_findings_that_the_report_has():
    text, marked = str(RICH), RICH.to_markdown()
    assert text.startswith(f"A title\n\n{RICH.headline}\n{ALONE}\n\n2 attacks tried")
    assert marked.startswith(f"## A title\n\n**{RICH.headline}**\n\n{ALONE}\n\n2 attacks tried")
    assert RICH.headline.startswith("Quote 35.0 %")
    table = filled([HEAD, *ROWS, *REFUSED])
    printed, rest = text.partition("\nattack  ")[1:][1].partition("\nEach attack")[::2]
    lines = [line for line in f"attack  {printed}".splitlines() if line.strip("-")]
    assert filled(map(cells_of, lines)) == table
    lines = [line for line in marked.splitlines() if line.startswith("|") and "---" not in line]
    assert filled(map(cells_of, lines)) == table
    findings = ["[notice] more-steps-help"]
    findings += ["  evidence: it is so.", "  meaning: it means that.", "  remedy: do this."]
    notes = [line for note in NOTES.splitlines() for line in wrap(note, 100)]
    assert f"Each attack{rest}".splitlines() == [*notes, "", *findings]
    told = [line for line in marked.partition("\nEach attack")[2].splitlines() if line]
    assert [f"Each attack{told[0]}", *told[1:]] == [
        *(note.replace("_", "\\_") for note in NOTES.splitlines()),
        "### more-steps-help (notice)",
        *(line.replace("  ", "- ", 1) for line in findings[1:]),
    ]


def test_parts_of_the_text_stand_apart_and_findings_are_indented():
    long = replace(finding("more-steps-help"), evidence="word " * 30)
    text = str(replace(RICH, findings=(long,)))
    assert all(f"\n\n{start}" in text for start in ("attack  ", "rejected  ", "Each attack"))
    first = "  evidence:" + " word" * 17
    assert f"\n\n[severe] more-steps-help\n{first}\n   {' word' * 13}\n  meaning: it" in text


def test_a_plain_report_has_no_notes_but_those_on_what_was_run():
    report = replace(BASE, survivors_only=False, observations=seen(diagnosis=None))
    assert notes(report) == PLAIN_NOTES.splitlines()
    assert str(report).splitlines()[-2:] == ["", "No findings: no diagnosis was run."]
    assert str(BASE).splitlines()[-2:] == ["", "No findings."]
    assert sections(report) == [("", [*sections(BASE)[0][1]])]
    assert [title for title, _ in sections(BASE)] == ["", "All of these, share of all examples"]
    assert sections(BASE)[1][1] == [("to quote", *pair(10, 20), *[""] * 6)]
    assert [len(cells) for _, rows in sections(BASE) for cells in rows] == [9] * 4


@pytest.mark.parametrize(
    ("seen_by", "title", "names"),
    [
        ({"compared": 16, "margin_survivors": 4}, "Diagnosis, share of the 16", ["margin"]),
        ({"compared": 8, "cross_entropy_survivors": 0}, "Diagnosis, share of 8", ["cross"]),
        ({"compared": 0, "margin_survivors": 0, "cross_entropy_survivors": 0}, None, []),
        ({"compared": 8}, None, []),
    ],
)
def test_rows_of_the_diagnosis_are_those_that_were_measured(seen_by, title, names):
    parts = dict(sections(replace(BASE, observations=seen(compared_steps=20, **seen_by))))
    found = {key: rows for key, rows in parts.items() if key.startswith("Diagnosis")}
    assert [key.startswith(title) for key in found] == [True] * bool(title)
    assert [cells[0].split()[3][:6] for rows in found.values() for cells in rows] == [
        f"{name[:5]}-" if name == "cross" else "margin" for name in names
    ]


def test_columns_are_as_wide_as_their_widest_cell_and_figures_stand_to_the_right():
    table = aligned(("name", "a", "long head"), [("x", "10.5", "1"), ("a\n longer", "", "")])
    assert table == [
        "name         a  long head",
        "-------------------------",
        "x         10.5          1",
        "a longer",
    ]


def test_bars_are_those_of_attacks_that_ran_and_of_the_figure_to_quote_where_it_differs():
    assert [name for name, *_ in bars(RICH)] == [
        "clean", "FGSM", "PGD", "worst case of these", "to quote",
    ]  # fmt: skip
    assert [round(20 * accuracy) for _, accuracy, _ in bars(RICH)] == [16, 12, 10, 10, 7]
    counts = [told(16, 20), told(12, 20), told(10, 20), told(10, 20), told(7, 20)]
    assert [f"{percent(share)} {interval(span)}" for _, share, span in bars(RICH)] == counts
    assert [name for name, *_ in bars(BASE)] == ["clean", "FGSM", "PGD", "worst case of these"]


def test_latex_holds_the_attacks_the_adapted_ones_and_the_figure_to_quote():
    lines = RICH.to_latex().splitlines()
    assert lines[:2] == [r"\begin{tabular}{lrrrrrrrr}", r"\toprule"]
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines if "&" in line]
    expected = [HEAD, *ROWS[:5], ROWS[9], ROWS[11]]
    plain = [[re.sub(r"[\\{}]", "", cell) for cell in cells if cell] for cells in rows]
    assert plain == filled(expected)
    assert lines[3:4] + lines[-2:] == [r"\midrule", r"\bottomrule", r"\end{tabular}"]


def test_csv_holds_a_line_for_each_attack_with_the_ends_of_its_interval():
    head, *lines = csv.reader(RICH.to_csv().splitlines())
    assert head[-3:] == ["near", "robust_low", "robust_high"]
    held = [dict(zip(head, line, strict=True)) for line in lines]
    assert [each["name"] for each in held] == ["FGSM", "PGD", "FAB", "odd"]
    for each, count in zip(held, (12, 10, 10, 10), strict=True):
        span = float(each["robust_low"]), float(each["robust_high"])
        assert span == pytest.approx(ends(count, 20))
    assert [each["near"] for each in held] == ["", "0.05", "0.05", "0.2"]
    assert [each["rejected"] for each in held] == ["0", "4", "0", "1"]


FULL = replace(
    BASE,
    class_names=("a", "b", "c"),
    costs={name: Cost(1, 1, 0.5) for name in RESERVED},
    mask=((True, False),),
    attacks=(
        # It may misclassify more than it fools, beyond the radius.
        row("FGSM", 16, 4, 12, success_rate=5 / 16, illegal=16),
        row("PGD", 12, 2, 10, rejected=10),
        row("worn", 3, 0, 10, error="OSError: out", success_rate=1.0, median_distance=0.5),
        row("broken", 0, 0, 10, error="OSError: out"),
        row("near", 10, 0, 10, near=0.5),
    ),
    observations=seen(
        saturated=16, silent=16, zero_gradients=16, budget_survivors=(16, 0), rescaled=20,
        stray_attacked=(20,), at_bounds=17, lost_at_bounds=17, compared_steps=100,
        longer_steps=1000, draws=17, all_survivors=8,
        raised={"worn": "OSError: out", "broken": "OSError: out"},
    ),
    adaptation=adapted(
        standing=8, attacked=8, fooled=3, attacks=(row("again", 6, 1, 7), row("more", 7, 2, 5)),
    ),
    rejection=Rejection(4, ends(4, 20), 10, ends(10, 16)),
)  # fmt: skip
EACH = replace(
    BASE,
    survivors_only=False,
    attacks=(row("FGSM", 16, 4, 12), row("PGD", 16, 4, 12), row("CW", 16, 3, 13)),
)
"""Attacks that all meet the sixteen: PGD fools two of what FGSM did too, CW nothing else."""
APART = replace(EACH, attacks=(row("FGSM", 16, 4, 12), row("PGD", 16, 2, 14)))
WITHIN = replace(EACH, attacks=(row("FGSM", 16, 4, 12), row("PGD", 16, 6, 10)))
NARROW = replace(
    BASE,
    bounds=((0.0, 1.0), (1.0, 1.0)),
    class_names=("a", "b"),
    classes=(ClassRow("a", 19, 16, 10), ClassRow("b", 1, 0, 0)),
    adaptation=adapted(attacked=3, attacks=(row("again", 3, 3, 7),)),
)


def read_back(report, *changes):
    """A report read from JSON in which some entries, by path, are others."""
    read = json.loads(json.dumps(report.to_dict()))
    for path, value in changes:
        *places, last = path.split("/")
        held = read
        for place in places:
            held = held[int(place) if isinstance(held, list) else place]
        if isinstance(held, list):
            held[int(last)] = value
        else:
            held[last] = value
    # The derived entries are those of the changed report: it is the parts that contradict.
    return RobustnessReport.from_json(json.dumps(read))


@pytest.mark.parametrize("report", [BASE, FULL, EACH, APART, WITHIN, NARROW])
def test_figures_at_the_ends_of_what_can_be_are_read_back(report):
    again = read_back(report)
    # Shares are counts again, and their intervals this package's, the last digit included.
    assert (str(again), again.observations) == (str(report), report.observations)
    assert again.per_example == report.per_example


def test_damaged_digits_of_every_part_are_read_as_the_counts_give_them():
    whole = read_back(FULL)
    damaged = with_damaged_digits(json.loads(whole.to_json()))
    assert RobustnessReport.from_json(json.dumps(damaged)) == whole
    assert damaged["adaptation"] != json.loads(whole.to_json())["adaptation"]


INTERVAL = "and its interval"
ROW = "attacks['PGD']"


@pytest.mark.parametrize(
    ("report", "changes", "what"),
    [
        (FULL, [("bounds", [0, [True]])], "bounds that are no numbers"),
        (FULL, [("bounds", [[0, 1], [1, 0.5]])], "bounds that hold nothing"),
        (FULL, [("bounds", [[0, 1], [0, 1]])], "bounds that hold nothing"),
        (FULL, [("bounds", [[0, 1], [1, 1, 1]])], "bounds that hold nothing"),
        (FULL, [("mask", [[1, 0]])], "a mask that is not of true and false"),
        (FULL, [("observations/correct", 15)], "clean_accuracy and observations.correct"),
        (FULL, [("clean_accuracy", 0.8001)], "clean_accuracy and n_examples"),
        (FULL, [("clean_interval", [0.5, 0.9])], f"clean_accuracy {INTERVAL}"),
        (FULL, [("robust_accuracy", 0.5001)], "robust_accuracy and n_examples"),
        (FULL, [("robust_interval/1", ends(10, 20)[1] + 1e-11)], f"robust_accuracy {INTERVAL}"),
        (FULL, [("attacks/1/attacked", 11)], f"{ROW}.attacked and the examples left to it"),
        (FULL, [("attacks/1/attacked", 13)], f"{ROW}.attacked and the examples left to it"),
        (FULL, [("attacks/2/attacked", 11)], "attacks['worn'].attacked and the examples left"),
        (FULL, [("attacks/4/attacked", 11)], "attacks['near'].attacked and the examples left"),
        (FULL, [("attacks/2/fooled", 4)], "attacks['worn'].fooled and attacked"),
        (FULL, [("attacks/1/illegal", 13)], f"{ROW}.illegal and attacked"),
        (FULL, [("attacks/1/fooled", 3)], f"{ROW}.robust_accuracy and fooled"),
        (FULL, [("attacks/1/robust_accuracy", 0.5001)], f"{ROW}.robust_accuracy and n_examples"),
        (FULL, [("attacks/1/robust_interval", [0.2, 0.8])], f"{ROW}.robust_accuracy {INTERVAL}"),
        (FULL, [("attacks/1/success_rate", None)], f"{ROW}.success_rate and attacked"),
        (FULL, [("attacks/1/success_rate", 0.2)], f"{ROW}.success_rate and attacked"),
        (FULL, [("attacks/1/success_rate", 1 / 12)], f"{ROW}.success_rate and fooled"),
        (FULL, [("attacks/3/success_rate", 0.0)], "attacks['broken'].success_rate and attacked"),
        (
            FULL,
            [("attacks/3/median_distance", 0.1)],
            "attacks['broken'].median_distance and success_rate",
        ),
        (FULL, [("attacks/1/median_distance", None)], f"{ROW}.median_distance and success_rate"),
        (FULL, [("attacks/4/median_distance", 0.1)], "attacks['near'].median_distance and succ"),
        (FULL, [("classes/0/n_robust", 5)], "classes and the counts of all"),
        (FULL, [("classes/0/n_correct", 11)], "classes and the counts of all"),
        (FULL, [("classes/0/n_examples", 11)], "classes and the counts of all"),
        (
            FULL,
            [
                *(("classes/0/n_robust", 10), ("classes/0/n_correct", 9)),
                *(("classes/1/n_robust", 0), ("classes/1/n_correct", 7)),
            ],
            "classes, 'a', that grow",
        ),
        (
            FULL,
            [("classes/0/n_examples", 11), ("classes/1/n_examples", 9)],
            "classes, 'a', that grow",
        ),
        (NARROW, [("classes/0/n_examples", 20), ("classes/1/n_examples", 0)], "'b', that grow"),
        (FULL, [("classes/1/name", "d")], "classes and class_names"),
        (FULL, [("attacks/1/name", "FGSM")], "attacks of one name"),
        (FULL, [("costs/lunch", Cost().__dict__)], "an unknown part in costs"),
        (FULL, [("observations/raised", {"worn": "?"})], "observations.raised and the errors"),
        (FULL, [("observations/saturated", 17)], "observations.saturated and correct"),
        (FULL, [("observations/silent", 17)], "observations.silent and correct"),
        (FULL, [("observations/sampled", 17)], "observations.sampled and correct"),
        (FULL, [("observations/saturated", 21)], "observations.saturated and the examples that"),
        (FULL, [("observations/zero_gradients", 17)], "observations.zero_gradients and the ex"),
        (FULL, [("observations/budget_survivors/1", 17)], "observations.budget_survivors and t"),
        (FULL, [("observations/rescaled", 21)], "observations.rescaled and the examples that"),
        (FULL, [("observations/stray_attacked", [21])], "observations.stray_attacked and the e"),
        (FULL, [("observations/all_survivors", 11)], "observations.all_survivors and attack_s"),
        (FULL, [("adaptation/attacks/0/name", "PGD")], "adaptation.attacks of names of their own"),
        (FULL, [("adaptation/standing", 9)], "adaptation.standing and what was left"),
        (FULL, [("adaptation/attacked", 9)], "adaptation.attacked and standing"),
        (FULL, [("adaptation/attacked", 2)], "adaptation.fooled and attacked"),
        (FULL, [("adaptation/fooled", 4)], "adaptation.fooled and its attacks"),
        (FULL, [("adaptation/attacks/1/attacked", 8)], "attacks['more'].attacked and the exam"),
        (
            FULL,
            [("rejection/clean", 5), ("rejection/clean_interval", ends(5, 20))],
            "rejection.clean and clean_accuracy",
        ),
        (FULL, [("rejection/clean", 3)], f"rejection.clean {INTERVAL}"),
        (
            FULL,
            [("rejection/adversarial", 11), ("rejection/adversarial_interval", ends(11, 16))],
            "rejection.adversarial and robust_accuracy",
        ),
        (FULL, [("rejection/adversarial_interval", ends(10, 20))], f"adversarial {INTERVAL}"),
        (
            FULL,
            [("attacks/1/rejected", 9)],
            "rejection.adversarial and attacks.rejected",
        ),
        (FULL, [("attacks/0/rejected", 13)], "attacks['FGSM'].rejected and fooled"),
        (FULL, [("adaptation/attacks/0/rejected", 6)], "attacks['again'].rejected and fooled"),
        (BASE, [("attacks/0/rejected", 1)], "attacks.rejected of a model that does not reject"),
        (
            EACH,
            [
                *(("attacks/0/fooled", 7), ("attacks/0/success_rate", 7 / 16)),
                ("attacks/0/robust_accuracy", 0.45),
                ("attacks/0/robust_interval", ends(9, 20)),
            ],
            "robust_accuracy and what the attacks fooled",
        ),
        (BASE, [("per_example/margin", [2.0] * 19)], "per_example.margin and n_examples"),
        (BASE, [("per_example/index/1", 0)], "per_example.index that does not count up"),
        (BASE, [("per_example/predicted/15", 0)], "per_example.predicted and correct"),
        (BASE, [("per_example/margin/0", -1e-9)], "per_example.predicted and margin"),
        (BASE, [("per_example/margin/19", 1e-9)], "per_example.margin and predicted"),
        (
            BASE,
            [("per_example/fooled_by/19", "PGD"), ("per_example/distance/19", 0.1)],
            "per_example.fooled_by and predicted",
        ),
        (
            BASE,
            [("per_example/fooled_by/6", "PGD"), ("per_example/distance/6", 0.1)],
            "per_example.fooled_by and robust_accuracy",
        ),
        (BASE, [("per_example/distance/6", 0.1)], "per_example.distance and fooled_by"),
        (BASE, [("per_example/distance/0", None)], "per_example.distance and fooled_by"),
        (BASE, [("per_example/fooled_by/5", "CW")], "per_example.fooled_by and attacks"),
        (BASE, [("per_example/fooled_by/5", "FGSM")], "per_example.fooled_by and attacks['FGSM'"),
        (
            EACH,
            [(f"per_example/fooled_by/{place}", "CW") for place in range(4)],
            "per_example.fooled_by and attacks['FGSM']",
        ),
        (BASE, [("quoted_accuracy", 0.5 + 1e-8)], "quoted_accuracy and its parts"),
        (BASE, [("quoted_interval/0", 0.25)], "quoted_interval and its parts"),
        (BASE, [("findings", [finding("zero-gradients").__dict__])], "a finding without the fig"),
        (
            BASE,
            [("headline", "Robust."), ("versions/distillguard", __version__)],
            "headline and its parts",
        ),
    ],
)
def test_the_first_figure_that_the_others_rule_out_is_named(report, changes, what):
    changes = [("quoted_accuracy", report.quoted_accuracy), *changes]
    with pytest.raises(ValueError, match=re.escape(what)):
        read_back(report, *changes)


def test_what_other_versions_wrote_and_margins_of_nothing_are_no_contradiction():
    assert read_back(BASE, ("headline", "Robust.")).headline == BASE.headline
    assert read_back(FULL, ("observations/raised", {})).observations.raised == {}
    zeros = [("per_example/margin/0", 0.0), ("per_example/margin/19", 0.0)]
    assert read_back(BASE, *zeros).per_example.margin[[0, 19]].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "partly"),
    [({"attacked": 9}, True), ({"attacked": 10}, False), ({"attacked": 9, "attacks": ()}, False)],
)
def test_a_part_of_what_was_left_is_told_of_where_it_was_attacked(change, partly):
    told_of = notes(replace(BASE, adaptation=adapted(**change)))
    line = "Of 10 examples left, 9 were attacked again: the examples of the diagnosis's sample, "
    assert any(note.startswith(line) for note in told_of) is partly
