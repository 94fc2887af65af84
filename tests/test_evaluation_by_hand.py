"""Parts of an evaluation, and of its report, on a few examples worked out by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from distillguard.evaluation import _towards, confidence_histogram, gradient_histogram
from distillguard.evaluation._adaptation import attempted
from distillguard.evaluation._answers import ASKED, answers_of, same_answers
from distillguard.evaluation._captions import ClassNames
from distillguard.evaluation._evaluate import as_bounds
from distillguard.evaluation._judge import (
    ThreatModel,
    Verdict,
    Witness,
    is_within_bounds,
    is_within_epsilon,
    judge,
)
from distillguard.evaluation._layer_report import BARE, WHOLE, LayerReport
from distillguard.evaluation._model import NETWORKS, _last_step
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation._progress import Progress
from distillguard.evaluation._query import QueryCounter
from distillguard.evaluation._readout import fitted
from distillguard.evaluation._records import Cost, Records
from distillguard.evaluation._run import attack_columns, clean_columns, worth_attacking
from distillguard.evaluation._selective import _without, margin_and_alarm
from distillguard.evaluation._shards import combined_cost
from distillguard.evaluation._state_format import (
    _check_kept,
    _check_verdicts,
    check_images,
    check_progress,
    own_places,
)
from distillguard.evaluation._statistics import (
    intervals,
    median,
    paired_interval,
    significant_difference,
    wilson,
)
from distillguard.evaluation._tables import few
from distillguard.evaluation._towards import nearest, towards
from distillguard.evaluation._unasked import same_values
from distillguard.evaluation.diagnosis._columns import is_concentrated
from distillguard.evaluation.report._per_example import named, per_example
from distillguard.evaluation.report._rejection import rejection
from distillguard.evaluation.report._rows import class_rows, row, rows, survivors
from distillguard.exceptions import SaveError
from test_forms_by_hand import subject_of

NAN, INF = math.nan, math.inf


def booleans(text):
    """``"x.x"`` as a tensor."""
    return torch.tensor([sign == "x" for sign in text])


def same(tensor, values):
    np.testing.assert_array_equal(np.asarray(tensor, dtype=np.float64), values)


# Columns.


def test_the_clean_pass_tells_six_things_of_each_example():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 200.0, -1.0], [1.0, 1.0, 0.0], [88.0, 0, 0]])
    labels = torch.tensor([0, 0, 1, 0])
    places, rejected = torch.tensor([4, 7, 8, 9]), booleans("..x.")
    found = clean_columns(logits, labels, places, rejected)
    assert found["index"] is places
    assert found["rejected"] is rejected
    same(found["predicted"], [0, 1, 0, 0])
    same(found["margin"], [-1, 200, 0, -88])
    assert found["magnitude"].tolist() == pytest.approx([1, 67, 2 / 3, 88 / 3])
    # The others' probabilities are e^-200, which is 0, and e^-88, which is not.
    same(found["saturated"], [0, 1, 0, 0])
    assert (found["margin"].dtype, found["magnitude"].dtype) == (torch.float64,) * 2


VERDICT = Verdict(
    torch.tensor([1, 2]),
    booleans("x."),
    booleans("x."),
    booleans(".x"),
    booleans("x."),
    torch.tensor([0.25, 0.5], dtype=torch.float64),
    torch.tensor([2.0, 3.0], dtype=torch.float64),
    torch.tensor([-1.0, 1.0], dtype=torch.float64),
)


def test_a_verdict_on_some_examples_is_spread_over_all():
    found = attack_columns("a", VERDICT, booleans(".x"), torch.tensor([2, 0]), 4)
    expected = {
        "attacked": [1, 0, 1, 0],
        "fooled": [1, 0, 0, 0],
        "rejected": [0, 0, 1, 0],
        "silent": [1, 0, 0, 0],
        "success": [0, 0, 1, 0],
        # What was not attacked is legal, at no distance, and as far from the boundary as can be.
        "legal": [0, 1, 1, 1],
        "distance": [0.5, NAN, 0.25, NAN],
        "own_distance": [3, NAN, 2, NAN],
        "lead": [1, INF, -1, INF],
    }
    assert list(found) == [f"a/{name}" for name in expected]
    for name, values in expected.items():
        same(found[f"a/{name}"], values)


def test_examples_are_worth_attacking_below_a_share_and_where_nothing_moved_them():
    left = torch.tensor([0.1, 0.2, 0.25, 0.5, 0.95, 0.951, INF])
    assert worth_attacking(0.25, left).tolist() == [True, True, False, False, False, True, True]
    assert worth_attacking(None, left).tolist() == [True] * 7


def recorded():
    """Six examples and two attacks: "a" met all that is right, "b" what "a" left."""
    records = Records()
    records.add(
        {
            "index": torch.tensor([0, 2, 4, 6, 8, 9]),
            "label": torch.tensor([0, 0, 2, 2, 2, 0]),
            "predicted": torch.tensor([0, 0, 2, 2, 0, 3]),
            "margin": torch.tensor([-4.0, -3.0, -2.0, -1.0, 1.0, 5.0], dtype=torch.float64),
            "rejected": booleans(".....x"),
        }
    )
    columns = {
        "a": ("xxxx..", "x.....", "xx....", "xxx.xx", "..xx..", [0.5, 1, NAN, NAN, NAN, NAN]),
        "b": (".xxx..", "..x...", ".xx...", "xxxxxx", ".x.x..", [NAN, 3, 2, 4, NAN, NAN]),
    }
    for name, (attacked, fooled, success, legal, refused, distance) in columns.items():
        known = {"attacked": attacked, "fooled": fooled, "success": success, "legal": legal}
        told = {f"{name}/{what}": booleans(text) for what, text in known.items()}
        told[f"{name}/rejected"] = booleans(refused)
        own = torch.tensor(distance, dtype=torch.float64)
        records.add(told | {f"{name}/distance": own, f"{name}/own_distance": 2 * own})
    records.costs = {"a": Cost(12, 8, 0.5)}
    records.errors = {"b": "OSError: out"}
    return records


def test_an_attack_is_summed_up_over_what_it_was_meant_for():
    one, other = rows(
        recorded(), {"a": AttackSpec(None, "l2"), "b": AttackSpec(None, "linf", 0.5)}, True
    )
    assert (one.attacked, one.fooled, one.success_rate, one.illegal) == (4, 1, 0.5, 1)
    assert (one.robust_accuracy, one.robust_interval) == (3 / 6, wilson(3, 6))
    # Distances of the two that succeeded, 1 and 2 in its own norm.
    assert (one.median_distance, one.distance_norm) == (1.5, "l2")
    assert (one.forwards, one.backwards, one.seconds) == (3.0, 2.0, 0.5)
    assert (one.error, one.rejected, one.near) == (None, 2, None)
    assert (other.attacked, other.fooled, other.robust_accuracy) == (3, 1, 2 / 6)
    assert (other.success_rate, other.median_distance) == (2 / 3, 5.0)
    # It asked nothing that was seen.
    assert (other.forwards, other.backwards, other.seconds) == (None, None, 0.0)
    assert (other.error, other.rejected, other.near) == ("OSError: out", 2, 0.5)
    alone = rows(
        recorded(), {"a": AttackSpec(None, "l2"), "b": AttackSpec(None, "linf", 0.5)}, False
    )
    assert [each.robust_accuracy for each in alone] == [3 / 6, 3 / 6]
    assert [each.near for each in alone] == [None, None]


def test_an_attack_that_met_nobody_has_no_rates():
    records = recorded()
    none = torch.zeros(6, dtype=torch.bool)
    for what in ("attacked", "fooled", "success", "rejected"):
        records.add({f"c/{what}": none})
    records.add({"c/legal": none, "c/own_distance": none.double()})
    found = row(records, "c", "linf", booleans("xxxx.."))
    assert (found.attacked, found.success_rate, found.median_distance) == (0, None, None)
    assert (found.robust_accuracy, found.illegal) == (4 / 6, 0)
    assert (found.forwards, found.backwards) == (0, 0)


def test_survivors_and_classes_are_counted_one_by_one():
    records = recorded()
    assert survivors(records, ["a", "b"]).tolist() == [False, True, False, True, False, False]
    assert survivors(records, []).tolist() == [True] * 4 + [False] * 2
    counted = class_rows(records, ["a", "b"], ClassNames(("x", "y", "z", "w")))
    assert [(c.name, c.n_examples, c.n_correct, c.n_robust) for c in counted] == [
        ("x", 3, 2, 1),
        ("z", 3, 2, 1),
    ]
    assert counted[0].clean_accuracy == 2 / 3
    assert counted[0].robust_interval == wilson(1, 3)
    with pytest.raises(ValueError, match="class_names must name all 4 classes, got 3"):
        class_rows(records, ["a"], ClassNames(("x", "y", "z")))


def test_rejections_count_of_all_and_of_those_that_were_never_fooled():
    found = rejection(recorded(), iter(["a", "b"]))
    # One of six clean; of the survivors 1 and 3 both were rejected by one attack or the other.
    assert (found.clean, found.clean_interval) == (1, wilson(1, 6))
    assert (found.adversarial, found.adversarial_interval) == (2, wilson(2, 4))
    assert rejection(recorded(), ["a"]).adversarial == 2  # 2 and 3, which "b" has not met


def test_the_first_attack_that_fools_an_example_is_named_with_its_distance():
    table = per_example(recorded(), ["a", "b"], None)
    assert table.fooled_by == ("a", None, "b", None, None, None)
    same(table.distance, [0.5, NAN, 2, NAN, NAN, NAN])
    same(table.margin, [4, 3, 2, 1, -1, -5])
    same(table.index, [0, 2, 4, 6, 8, 9])
    assert table.robust.tolist() == [False, True, False, True, False, False]
    called = per_example(recorded(), ["b", "a"], ["p", "q", "r"])
    assert called.label.tolist() == ["p", "p", "r", "r", "r", "p"]
    assert called.predicted.tolist() == ["p", "p", "r", "r", "p", "rejected"]
    assert named(torch.tensor([0, 2]), ["p", "q", "r"]).tolist() == ["p", "r"]
    assert named(torch.tensor([], dtype=torch.int64), ["p"]).tolist() == []


def test_a_table_of_examples_prints_what_there_is():
    table = per_example(recorded(), ["a", "b"], None)
    assert str(table).splitlines()[0] == "6 examples, 2 robust; margin in logits"
    lines = [line.split() for line in str(table).splitlines()[4:]]
    assert lines[:2] == [["0", "0", "0", "4", "a", "0.5"], ["2", "0", "0", "3"]]
    assert lines[2][-2:] == ["b", "2"]
    assert repr(table) == "PerExample(6 examples, 2 robust)"
    assert table.to_dict()["distance"] == [0.5, None, 2.0, None, None, None]
    assert table != per_example(recorded(), ["b", "a"], ["p", "q", "r"])
    assert table == per_example(recorded(), ["a", "b"], None)
    assert table != 3


@pytest.mark.parametrize("n", [0, 1, 12, 13, 100])
def test_of_many_rows_twelve_are_shown_the_first_and_the_last_among_them(n):
    shown = list(few(n))
    assert len(shown) == min(n, 12)
    assert shown[:1] + shown[-1:] == ([0, n - 1] if n else [])
    gaps = np.diff(shown)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


# Names.


def test_classes_go_by_the_given_names_else_by_labels_else_by_numbers():
    assert ClassNames()[3] == "3"
    assert ClassNames(None, ["p", "q"])[1] == "q"
    assert ClassNames(("x", "y"), ["p", "q"])[1] == "y"
    refusing = ClassNames(("x", "y"), None, rejects=True)
    assert [refusing[place] for place in range(3)] == ["x", "y", "rejected"]
    with pytest.raises(IndexError):
        ClassNames(("x", "y"))[2]
    ClassNames(("x", "y")).check(2)
    ClassNames(("x", "y"), rejects=True).check(3)
    for names, columns in ((ClassNames(("x", "y")), 3), (replace(refusing), 4)):
        with pytest.raises(ValueError, match="must name all 3 classes, got 2"):
            names.check(columns)


# Judging.


@pytest.mark.parametrize(
    ("norm", "allowed"),
    [
        # One rounding of each of four coordinates of up to 8: 8 * 2^-23, in l2 twice, in l1 four
        # times that.
        ("linf", 2.0**-20),
        ("l2", 2.0**-19),
        ("l1", 2.0**-18),
        ("l0", 0.0),
    ],
)
def test_a_point_is_within_epsilon_up_to_one_rounding(norm, allowed):
    inputs = torch.zeros(3, 4)
    points = inputs.clone()
    points[:, 0] = 1
    for epsilon, within in ((1.0, True), (1 - 0.9 * allowed, True), (1 - 1.1 * allowed, False)):
        if norm == "l0" and epsilon != 1:
            continue
        threat = ThreatModel(norm, epsilon, (-8.0, torch.tensor([1.0, 2.0, 3.0, 4.0])))
        assert (
            is_within_epsilon(points, inputs, threat).tolist() == [within if allowed else True] * 3
        )
    assert not is_within_epsilon(points + 1, inputs, ThreatModel("l0", 3, (0.0, 8.0))).any()


def test_the_largest_of_bounds_and_radius_is_rounded():
    inputs = torch.zeros(1, 1)
    threat = ThreatModel("linf", 16.0, (-1.0, 2.0))
    assert is_within_epsilon(inputs + 16 * (1 + 2.0**-23), inputs, threat).all()
    assert not is_within_epsilon(inputs + 16 * (1 + 2.0**-22), inputs, threat).any()
    threat = ThreatModel("linf", 1.0, (-4.0, 2.0))
    assert is_within_epsilon(inputs + 1 + 2.0**-21, inputs, threat).all()
    assert not is_within_epsilon(inputs + 1 + 2.0**-20, inputs, threat).any()


def test_bounds_are_inclusive_and_exact_and_masked_values_stay():
    inputs = torch.full((5, 2), 0.5)
    points = torch.tensor([[0.0, 0.5], [1.0, 0.5], [1.0000001, 0.5], [0.5, 0.4999999], [NAN, 0.5]])
    threat = ThreatModel("linf", 1.0, (0.0, 1.0), torch.tensor([[True, False]]))
    assert is_within_bounds(points, inputs, threat).tolist() == [True, True, False, False, False]


class Above(nn.Module):
    """Class 1 above a half, told by the first value; the last column refuses above 0.8."""

    def __init__(self, rejects=False):
        super().__init__()
        self.rejects, self.asked = rejects, []

    def forward(self, inputs):
        self.asked.append(inputs.clone())
        value = inputs[:, 0]
        third = 10 * (value - 0.8) if self.rejects else torch.full_like(value, -9.0)
        return torch.stack([0.5 - value, value - 0.5, third], dim=1)


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize("rejects", [False, True])
def test_points_are_judged_by_legality_answer_and_distance(batch_size, rejects):
    inputs = torch.full((5, 2), 0.25)
    first = torch.tensor([0.375, 0.625, 0.75, 2.0, 1.0])
    points = torch.stack([first, inputs[:, 1] + torch.tensor([0.0, 0.25, 0, 0, 0])], dim=1)
    model = Above(rejects)
    verdict = judge(
        model, "a", points, inputs, torch.zeros(5, dtype=torch.int64),
        threat=ThreatModel("linf", 0.5, (0.0, 1.0)), own_norm="l1", dtype=torch.float32,
        batch_size=batch_size,
    )  # fmt: skip
    assert verdict.legal.tolist() == [True, True, True, False, True]
    refused = rejects  # the last one, which lies beyond epsilon
    assert verdict.success.tolist() == [False, True, True, False, not refused]
    assert verdict.fooled.tolist() == [False, True, True, False, False]
    assert verdict.rejected.tolist() == [False] * 5
    assert verdict.predicted.tolist() == [0, 1, 1, 0, 2 if refused else 1]
    same(verdict.distance, [0.125, 0.375, 0.5, 1.75, 0.75])
    same(verdict.own_distance, [0.125, 0.625, 0.5, 1.75, 0.75])
    same(verdict.lead, [0.25, -0.25, -0.5, INF, INF])
    # In place of the illegal point the model is asked about the input.
    assert torch.cat(model.asked)[:, 0].tolist() == [0.375, 0.625, 0.75, 0.25, 1.0]
    assert [len(each) for each in model.asked] == ([2, 2, 1] if batch_size == 2 else [5])


def test_a_mask_of_each_example_goes_with_it_and_one_for_all_stays():
    each = torch.tensor([[True, False], [False, True], [True, True]])
    threat = ThreatModel("linf", 0.5, (0.0, 1.0), each)
    assert threat.of(torch.tensor([2, 0])).mask.tolist() == [[True, True], [True, False]]
    assert threat.of(booleans(".x.")).mask.tolist() == [[False, True]]
    assert threat.of(slice(1, 3)).mask.tolist() == each[1:].tolist()
    whole = threat._replace(mask=each[:1])
    assert whole.of(torch.tensor([2, 0])) is whole
    bare = threat._replace(mask=None)
    assert bare.of(torch.tensor([2, 0])) is bare
    told = threat._replace(bounds=(torch.zeros(2), [1.0, [2.0]])).described()
    assert told == {
        "norm": "linf",
        "epsilon": 0.5,
        "bounds": ((0.0, 0.0), (1.0, (2.0,))),
        "mask": ((True, False), (False, True), (True, True)),
    }


def test_points_with_a_graph_are_judged_without_one():
    inputs = torch.full((2, 2), 0.25)
    verdict = judge(
        Above(), "a", (inputs + 0.5).requires_grad_(), inputs, torch.zeros(2, dtype=torch.int64),
        threat=ThreatModel("linf", 0.5, (0.0, 1.0)), own_norm="l2", dtype=torch.float32,
        batch_size=8,
    )  # fmt: skip
    assert not any(column.requires_grad for column in verdict)
    assert verdict.fooled.all()


def test_a_witness_remembers_points_that_fooled_within_the_threat_model():
    inputs = torch.full((4, 1), 0.25)
    model = Above()
    witness = Witness(
        model, inputs, torch.zeros(4, dtype=torch.int64), ThreatModel("linf", 0.5, (0.0, 0.9))
    )

    def show(values):
        points = torch.tensor(values)[:, None]
        witness(points, model(points))
        return witness.fooled.tolist()

    assert show([0.25, 0.75, 0.875, 0.95]) == [False, True, False, False]
    assert show([0.625, 0.25, 0.25, 0.25]) == [True, True, False, False]
    assert show([0.625, 0.625, 0.625]) == [True, True, False, False]  # other examples, who knows
    witness(inputs + 0.5, model(inputs[:3]))
    assert witness.fooled.tolist() == [True, True, False, False]


# State files.


def progress(**changes):
    held = {
        "attacks": {"a": {}, "b": {}},
        "chunks": [[8, ""], [8, ""], [8, ""]],
        "known": {"a": 3, "b": 3},
        "errors": {"a": "x", "b": "y"},
        "stand_ins": {"a": [], "b": []},
        "costs": {name: {} for name in ("a", "b", "clean pass", "checks", "judging")},
        "process": {"rank": 1, "count": 2},
    }
    return held | changes


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, None),
        ({"known": {"a": 3, "b": 0}}, None),
        ({"chunks": [], "known": {"a": 0, "b": 0}}, None),
        ({"chunks": [[8, ""], [8, ""], [1, ""]]}, None),
        ({"chunks": [[5, ""]], "known": {"a": 1, "b": 1}}, None),
        ({"process": {"rank": 0, "count": 1}}, None),
        ({"attacks": {}, "known": {}}, "at least one attack"),
        ({"known": {"b": 3, "a": 3}}, "how many chunks each attack has seen"),
        ({"known": {"a": 2, "b": 2}}, "as many chunks as the first attack has seen"),
        ({"known": {"a": 4, "b": 2}}, "as many chunks as the first attack has seen"),
        ({"known": {"a": 3, "b": 4}}, "attacks in the order in which they ran"),
        ({"errors": {"c": "x"}}, "errors of its attacks"),
        ({"stand_ins": {"c": []}}, "what its attacks asked besides"),
        ({"costs": {"c": {}}}, "costs of its attacks"),
        ({"chunks": [[8, ""], [7, ""], [8, ""]]}, "chunks of one size"),
        ({"chunks": [[7, ""], [8, ""], [8, ""]]}, "chunks of one size"),
        ({"chunks": [[8, ""], [8, ""], [9, ""]]}, "a last chunk no larger than the others"),
        ({"process": {"rank": 2, "count": 2}}, "a rank below the number of processes"),
    ],
)
def test_progress_that_no_evaluation_makes_is_named(changes, what):
    if what is None:
        check_progress(progress(**changes))
    else:
        with pytest.raises(ValueError, match=f"^it does not hold {what}$"):
            check_progress(progress(**changes))


def test_a_process_has_seen_each_so_manieth_example_of_a_chunk():
    content = {"chunks": [[5, ""], [5, ""], [2, ""]]}

    def seen(rank, count, *n_chunks):
        return own_places(content | {"process": {"rank": rank, "count": count}}, *n_chunks).tolist()

    assert seen(0, 1) == list(range(12))
    # The count begins anew in each chunk.
    assert seen(1, 3) == [1, 4, 6, 9, 11]
    assert seen(2, 3) == [2, 7]
    assert seen(1, 3, 2) == [1, 4, 6, 9]
    assert seen(1, 3, 0) == []


@pytest.mark.parametrize(
    ("attacked", "legal", "success", "fooled", "rejected", "correct", "lead", "can"),
    [
        (0, 1, 0, 0, 0, 0, INF, True),  # wrong without an attack
        (0, 1, 0, 0, 0, 1, INF, True),
        (1, 1, 0, 0, 0, 1, 1.0, True),
        (1, 0, 0, 0, 0, 1, INF, True),
        (1, 1, 1, 0, 0, 1, INF, True),
        (1, 1, 1, 1, 0, 1, -1.0, True),
        (1, 1, 0, 0, 1, 1, 1.0, True),
        (1, 1, 0, 0, 0, 0, 1.0, False),  # attacked though wrong
        (1, 1, 0, 1, 0, 1, 1.0, False),  # fooled without success
        (1, 0, 1, 0, 0, 1, 1.0, False),  # success of an illegal point
        (0, 1, 1, 0, 0, 1, 1.0, False),  # or of none
        (1, 0, 0, 0, 1, 1, 1.0, False),  # rejection of an illegal point
        (0, 1, 0, 0, 1, 1, 1.0, False),  # or of none
        (1, 1, 1, 0, 1, 1, 1.0, False),  # both at once
        (1, 1, 0, 0, 0, 1, NAN, False),
    ],
)
def test_verdicts_that_cannot_be_are_refused(
    attacked, legal, success, fooled, rejected, correct, lead, can
):
    names = ("attacked", "legal", "success", "fooled", "rejected")
    known = dict(zip(names, (attacked, legal, success, fooled, rejected), strict=True))
    # Beside an example of which all is well.
    fine = dict(zip(names, (1, 1, 1, 1, 0), strict=True))
    columns = {f"a/{name}": torch.tensor([fine[name], known[name]]).bool() for name in known}
    columns |= {
        "a/lead": torch.tensor([0.0, lead]),
        "label": torch.tensor([0, 0, 1]),
        "predicted": torch.tensor([0, 1 - correct, 0]),
    }
    if can:
        _check_verdicts("a", columns)
    else:
        with pytest.raises(ValueError, match="verdicts on a that can be"):
            _check_verdicts("a", columns)
    _check_verdicts("b", columns)  # which has not run


def kept(n=3, **changes):
    images = torch.zeros(n, 2, 2)
    held = {
        "key": torch.arange(n),
        "inputs": images,
        "adversarial": images,
        "distance": torch.zeros(n, dtype=torch.float64),
        "index": torch.arange(n),
    }
    return held | changes


@pytest.mark.parametrize(
    ("part", "most", "what"),
    [
        ({}, 3, None),
        (kept(), 3, None),
        (kept(0), 3, None),
        (kept(key=torch.tensor([-(2**63), 0, 2**63 - 1])), 3, None),
        (kept(key=torch.tensor([1, 1, 1])), 3, None),
        (kept(), 2, "at most 2 examples in p"),
        (kept(key=torch.tensor(3)), 3, "at most 3 examples in p"),
        (kept(key=torch.tensor([0, 2, 1])), 3, "keys in order in p"),
        (kept(key=torch.tensor([2**63 - 1, -(2**63), 0])), 3, "keys in order in p"),
        (kept(more=torch.zeros(3)), 3, "the columns inputs, adversarial, distance, index of p"),
        (kept(index=torch.arange(2)), 3, "3 examples in p:index"),
        (kept(index=torch.zeros(3)), 3, "3 examples in p:index"),
        (kept(index=torch.zeros(3, 1, dtype=torch.int64)), 3, "3 examples in p:index"),
        (kept(distance=torch.zeros(3)), 3, "3 examples in p:distance"),
        (kept(inputs=torch.zeros(3, 2, 2).long()), 3, "3 examples in p:inputs"),
        (kept(inputs=torch.tensor(0.0)), 3, "3 examples in p:inputs"),
        (kept(adversarial=torch.zeros(3, 2, 1)), 3, "images of one shape in p"),
    ],
)
def test_examples_that_are_kept_fit_each_other(part, most, what):
    columns = ("inputs", "adversarial", "distance", "index")
    if what is None:
        _check_kept(part, "p", columns, most)
    else:
        with pytest.raises(ValueError, match=f"it does not hold {what}$"):
            _check_kept(part, "p", columns, most)


@pytest.mark.parametrize("part", ["sample", "drawn", "shown"])
def test_examples_of_other_data_are_refused(part):
    inputs = torch.zeros(9, 2, 2)
    check_images({f"{part}:inputs": inputs[:3]}, inputs)
    check_images({}, inputs)
    for other in (torch.zeros(3, 2, 3), torch.zeros(3, 4), inputs[:3].double()):
        with pytest.raises(SaveError, match=f"got others as {part}:inputs"):
            check_images({f"{part}:inputs": other}, inputs)


# Answers, costs, bars.


@pytest.mark.parametrize(
    ("dtype", "elsewhere", "share"),
    [
        (torch.float32, False, 64 * 2.0**-23),
        (torch.float64, False, 64 * 2.0**-52),
        (torch.float16, False, 4 * 2.0**-10),
        (torch.bfloat16, False, 4 * 2.0**-7),
        (torch.float32, True, 0.01),
        (torch.bfloat16, True, 4 * 2.0**-7),
    ],
)
def test_answers_are_the_same_up_to_a_share_of_the_largest_logit(dtype, elsewhere, share):
    logits = torch.tensor([[1.0, -4.0], [2.0, 0.0]], dtype=torch.float64)
    for factor, alike in ((0.0, True), (1.0, True), (1.01, False)):
        other = logits.clone()
        other[1, 1] += factor * 4 * share
        if factor == 1:
            other[1, 1] = torch.nextafter(other[1, 1], torch.tensor(0.0, dtype=torch.float64))
        assert same_answers(other, logits, dtype, elsewhere=elsewhere) is alike
    for sign in (-1, 1):
        assert not same_answers(logits + sign, logits, dtype, elsewhere=elsewhere)
    assert same_answers(0 * logits, 0 * logits, dtype, elsewhere=elsewhere)
    assert not same_answers(logits.float(), logits, dtype, elsewhere=True)
    assert not same_answers(logits[:1], logits, dtype, elsewhere=True)


def test_a_model_is_told_by_its_first_eight_answers_with_numbers_of_its_seed():
    asked = []

    def model(inputs):
        asked.append(len(inputs))
        return torch.rand(len(inputs), 2)

    inputs = torch.rand(10, 3)
    before = torch.get_rng_state()
    one, again, other = (answers_of(model, inputs, seed) for seed in (0, 0, 1))
    assert one.equal(again)
    assert not one.equal(other)
    assert asked == [ASKED] * 3 == [8] * 3
    assert torch.get_rng_state().equal(before)


def test_what_processes_spent_side_by_side_is_the_sum_in_the_longest_time():
    costs = [Cost(1, 20, 0.5), Cost(4, 30, 2.0), Cost(0, 0, 1.0)]
    assert combined_cost(costs) == Cost(5, 50, 2.0)


def test_a_bar_counts_examples_by_stages_and_the_sample_by_measurements():
    bar = Progress(False, 11, stages=3, sampled=4, probes=5, processes=2)
    assert bar.bar.total is None or bar.bar.total == 6 * 3 + 4 * 5
    assert bar.total(10) == 10 * 3 + 4 * 5
    assert bar.total(2) == 2 * 3 + 2 * 5
    assert bar.total(None) is None
    told = []
    bar.bar = SimpleNamespace(
        update=told.append, set_description=lambda *_, **__: None, close=lambda: told.append("end")
    )
    with bar.during("a", 7):
        assert told == []
    bar.skip(2)
    bar.diagnose(10, 4, 2)
    assert bar.bar.total == 10 * 3 + 4 * 2
    for _ in range(3):
        bar.tell("b")
    bar.close()
    # Twice four for the diagnosis; a measurement more than was expected counts nothing.
    assert told == [7, 6, 4, 4, 0, 0, "end"]
    bar.diagnose(3, 4, 2)
    told.clear()
    bar.tell("b")
    bar.close()
    assert told == [3, 3, "end"]


# Statistics.


def test_a_difference_is_significant_below_the_level():
    # Eight heads of eight: 2 / 256.
    assert not significant_difference(8, 0, 2 / 256)
    assert significant_difference(8, 0, 2.01 / 256)
    assert significant_difference(0, 8, 2.01 / 256)
    assert not significant_difference(4, 4, 0.999)


def test_medians_of_even_numbers_lie_in_the_middle():
    assert median(torch.tensor([4.0, 1.0, 2.0, 8.0])) == 3
    assert median(torch.tensor([4.0, 1.0, 2.0])) == 2


def test_intervals_have_the_shape_of_the_shares():
    found = intervals([[0.5, 0.25], [1.0, 0.0]], [4, 8])
    assert found.shape == (2, 2, 2)
    for share, n, span in ((0.5, 4, found[0, 0]), (0.25, 8, found[0, 1]), (1.0, 4, found[1, 0])):
        expected = binomtest(round(share * n), n).proportion_ci(0.95, "wilson")
        assert span == pytest.approx((expected.low, expected.high))
    assert np.isnan(intervals([0.5, 0.5], [0, 2])).tolist() == [[True, True], [False, False]]


def test_a_paired_interval_without_correlation_adds_squares():
    """A table whose products are equal has none, nor has one whose excess is below n / 2."""
    for table in ((4, 4, 4, 4), (5, 4, 4, 4), (6, 0, 0, 0), (0, 6, 0, 0)):
        both, first, second, _ = table
        n = sum(table)
        one, other = (both + first) / n, (both + second) / n
        (low1, high1), (low2, high2) = wilson(both + first, n), wilson(both + second, n)
        low, high = paired_interval(*table)
        assert low == pytest.approx(one - other - math.hypot(one - low1, high2 - other))
        assert high == pytest.approx(one - other + math.hypot(high1 - one, other - low2))


@pytest.mark.parametrize(
    ("distances", "budget"),
    [
        ([], False),
        ([0.5], True),
        ([1.0, 1.0, 1.0, 1.05], True),
        ([1.0, 1.1, 1.2, 1.3], False),
        # Nine of ten within a twentieth of the median: the tenths to both sides may be anything.
        ([0.0] + [1.0] * 18 + [9.0], True),
        ([0.0] * 4 + [1.0] * 16, False),
    ],
)
def test_distances_of_an_attack_with_a_budget_are_the_same(distances, budget):
    assert is_concentrated(torch.tensor(distances, dtype=torch.float64)) is budget


# Other ways than a gradient.


def test_the_nearest_goals_of_other_classes_come_first(monkeypatch):
    goals = torch.tensor([[0.0], [0.25], [0.5], [1.0]])
    classes = torch.tensor([0, 1, 0, 2])
    inputs, labels = torch.tensor([[0.375], [0.9], [0.0]]), torch.tensor([0, 2, 1])
    assert nearest(inputs, labels, goals, classes).tolist() == [
        [1, 3, -1, -1],
        [2, 1, 0, -1],
        [0, 2, 3, -1],
    ]
    monkeypatch.setattr(_towards, "NEAREST", 2)
    assert nearest(inputs, labels, goals, classes).tolist() == [[1, 3], [2, 1], [0, 2]]


def test_points_go_towards_goals_until_one_fools_and_the_widest_margin_is_kept():
    asked = []

    def model(x):
        asked.append(x[:, 0].tolist())
        lead = x[:, 0] - 0.5
        return torch.stack([-lead, lead], dim=1)

    inputs = torch.tensor([[0.375, 0.5], [0.25, 0.5], [0.125, 0.5]])
    goals = torch.tensor([[0.125, 0.0], [0.75, 0.5], [0.875, 0.5]])
    settings = {"goals": goals, "classes": torch.tensor([1, 1, 1]), "epsilon": 0.25}
    labels = torch.tensor([0, 0, 0])
    found = towards(model, inputs, labels, norm="linf", batch_size=2, **settings)
    # The first falls on its way to 0.75; the others reach a margin of 0, or less, and stay there.
    assert found[:, 0].tolist() == [0.625, 0.5, 0.375]
    assert found[:, 1].tolist() == [0.5] * 3
    assert sum(map(len, asked)) <= 3 * 3
    mask = torch.tensor([[False, True]])
    still = towards(model, inputs, labels, norm="linf", mask=mask, **settings)
    assert still[:, 0].equal(inputs[:, 0])
    none = towards(model, inputs[:0], labels[:0], norm="linf", **settings)
    assert none.shape == (0, 2)


def test_a_readout_is_the_ridge_regression_of_the_softmax_on_the_features():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(700, 3, generator=generator)  # more than are asked about at once
    answers = torch.randn(3, 4, generator=generator)
    asked = []

    def model(x):
        asked.append(len(x))
        return x @ answers

    weight, offset = fitted(lambda x: x.view(-1, 1, 3) * 2 + 1, model, points)
    assert max(asked) == 512
    seen = 2 * points.double() + 1
    told = (points @ answers).double().softmax(dim=1)
    centred = seen - seen.mean(dim=0)
    ridge = 1e-3 * centred.square().sum(dim=0).mean()
    rows = torch.cat([centred, ridge.sqrt() * torch.eye(3, dtype=torch.float64)])
    target = torch.cat([told - told.mean(dim=0), torch.zeros(3, 4, dtype=torch.float64)])
    torch.testing.assert_close(weight, torch.linalg.lstsq(rows, target).solution)
    # At the mean of the features it says the mean of the answers.
    torch.testing.assert_close(seen.mean(dim=0) @ weight + offset, told.mean(dim=0))
    constant, level = fitted(lambda x: torch.ones(len(x), 2), model, points)
    assert constant.abs().max() < 1e-6
    torch.testing.assert_close(level, told.mean(dim=0))


def test_margin_and_alarm_of_random_layers_are_those_of_the_mean():
    answers = [
        (torch.tensor([[1.0, 0.0]]), [torch.tensor([4.0]), torch.tensor([0.0])]),
        (torch.tensor([[0.0, 3.0]]), [torch.tensor([0.0]), torch.tensor([6.0])]),
    ]
    told = iter(answers)
    model = SimpleNamespace(
        answers=lambda points: next(told), alarm=lambda scores: torch.stack(scores).amax(dim=0) - 1
    )
    margin, alarm = margin_and_alarm(model, torch.zeros(1, 2), torch.tensor([0]), 2)
    # Means: logits of 0.5 and 1.5, scores of 2 and 3.
    assert (margin.tolist(), alarm.tolist()) == ([1.0], [2.0])


def test_a_gradient_loses_nothing_to_one_that_is_0_and_what_goes_against_another():
    one = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0]])
    other = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-2.0, 0.0]])
    assert _without(one, other).tolist() == [[3.0, 4.0], [3.0, 4.0], [0.0, 4.0]]


@pytest.mark.parametrize("attribute", NETWORKS)
def test_a_pipeline_that_changes_the_inputs_of_a_network_is_refused(attribute):
    last = SimpleNamespace(**{attribute: nn.Identity()})
    steps = [("idle", "passthrough"), ("none", None), ("last", last)]
    assert _last_step(SimpleNamespace(steps=steps), "model") is last
    steps.insert(1, ("scale", nn.Identity()))
    with pytest.raises(TypeError, match="got a Pipeline with Identity; pass model"):
        _last_step(SimpleNamespace(steps=steps), "model")


def test_a_counter_counts_and_passes_nothing_on_that_is_empty():
    model = Above()
    counter = QueryCounter(model)
    inputs = torch.rand(3, 2).requires_grad_()
    counter(inputs).sum().backward()
    assert (counter.account.forwards, counter.account.backwards) == (3, 3)
    assert counter(inputs[:0]).shape == (0, 3)
    assert len(model.asked) == 1
    other = counter.around(model)
    other(inputs)
    assert counter.account.forwards == 6


# Histograms, layers, bounds, copies.


class Drawing(nn.Module):
    """Two logits, of which the second draws a random number."""

    def forward(self, inputs):
        value = inputs.sum(dim=1)
        return torch.stack([value, torch.rand_like(value) * value], dim=1)


@pytest.mark.parametrize("histogram", [confidence_histogram, gradient_histogram])
def test_a_seed_repeats_the_histogram_of_a_random_model_and_leaves_the_generators(histogram):
    inputs = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
    sorts = (
        {"bins": 50} if histogram is confidence_histogram else {"edges": np.linspace(0, 0.5, 99)}
    )
    before = torch.get_rng_state()
    one, again, other = (
        histogram(Drawing(), inputs, random_state=seed, batch_size=16, **sorts)
        for seed in (1, 1, 2)
    )
    assert one.counts.tolist() == again.counts.tolist() != other.counts.tolist()
    assert torch.get_rng_state().equal(before)
    assert one.n_examples == 64
    draws = [histogram(Drawing(), inputs, **sorts).counts.tolist() for _ in range(2)]
    assert draws[0] != draws[1]


@pytest.mark.parametrize("edges", [[0.0], [0.0, 0.0], [1.0, 0.0], [0.0, NAN], [0.0, INF], []])
def test_edges_that_hold_nothing_are_refused(edges):
    with pytest.raises(ValueError, match="edges must be"):
        gradient_histogram(nn.Linear(2, 2), torch.rand(3, 2), edges=edges)


def test_a_magnitude_beyond_the_edges_falls_into_the_last_bin():
    # The softmax of x and 0 at 0 has a slope of 1 / 4, times 4: of both classes, on average 1.
    def steep(x):
        return torch.stack([4 * x[:, 0], 0 * x[:, 0]], dim=1)

    found = gradient_histogram(steep, torch.zeros(3, 1), edges=[0.125, 0.25, 0.5])
    assert found.counts.tolist() == [0, 3]
    # At a temperature of 16 it is 1 / 16, below the first edge: the first bin.
    found = gradient_histogram(steep, torch.zeros(3, 1), edges=[0.125, 0.25, 0.5], temperature=16.0)
    assert found.counts.tolist() == [3, 0]


def layers(**fooled):
    n = len(next(iter(fooled.values())))
    known = dict.fromkeys((BARE, WHOLE), np.ones(n, dtype=bool))
    known |= {name: np.array(each, dtype=bool) for name, each in fooled.items()}
    return LayerReport(
        parts=("a",), n_examples=40, clean_accuracy=0.75, clean_rejected=0.0, fooled=known,
        clean={}, stopped={}, passes={}, norm="linf", epsilon=0.1, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fooled", "span"),
    [
        ([1] * 20, (1.0, 1.0)),  # the same in every resample
        ([], None),
        ([0] * 20, None),  # nothing passes: no ratio
        ([1] + [0] * 19, None),  # of 100 resamples 36 have nothing that passes
    ],
)
def test_a_ratio_has_an_interval_where_the_product_is_surely_above_0(fooled, span):
    assert layers(a=fooled).ratio_interval == span


def test_a_ratio_is_what_passes_over_what_would():
    report = layers(a=[1] * 10 + [0] * 10)
    assert (report.product, report.truth, report.ratio) == (0.5, 1.0, 2.0)
    assert report.robust_accuracy == 0.75 - 20 / 40
    low, high = report.ratio_interval
    # The share of ten in twenty lies between 0.3 and 0.7 in 95 of 100 resamples.
    assert low == pytest.approx(1 / 0.7, rel=0.08)
    assert high == pytest.approx(1 / 0.3, rel=0.15)
    assert math.isnan(layers(a=[0] * 4).ratio)
    # Where nothing fools the bare classifier there is nothing to divide by.
    assert layers(**{BARE: [0] * 4, "a": [0] * 4}).ratio_interval is None


def test_bounds_are_two_numbers_or_two_tensors():
    assert as_bounds((0, 1)) == (0.0, 1.0)
    assert {type(each) for each in as_bounds((0, 1))} == {float}
    ends = torch.ones(2, requires_grad=True)
    for given in ((0.0, ends), (-ends, 1.0), (np.zeros(2), ends), (0, np.ones(2))):
        low, high = as_bounds(given)
        assert isinstance(low, torch.Tensor)
        assert isinstance(high, torch.Tensor)
        assert not low.requires_grad
        assert not high.requires_grad


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.tensor([1.0, 2.0]), False),
        (torch.ones(2), torch.ones(1, 2), False),
        (torch.ones(2), torch.ones(2).double(), False),
        (torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1.0]), True),
        (torch.tensor([NAN, 1.0]), torch.tensor([1.0, NAN]), False),
        (torch.tensor([NAN, 1.0]), torch.tensor([1.0, 1.0]), False),
        (np.ones(2), np.ones(2), True),
        (np.ones(2), np.zeros(2), False),
        (torch.eye(2).to_sparse(), torch.eye(2).to_sparse(), True),
        (torch.eye(2).to_sparse(), (2 * torch.eye(2)).to_sparse(), False),
        (np.array([object()]), np.array([object()]), True),  # nothing is said of them
    ],
)
def test_what_a_model_holds_has_changed_where_a_value_has(old, new, same):
    assert same_values(old, new) is same


def test_an_adapted_attack_that_writes_into_its_arguments_harms_nobody():
    inputs = torch.full((4, 2), 0.25)
    subject = subject_of(Above(), inputs, ThreatModel("linf", 0.5, (0.0, 1.0)))
    told = []

    def writes(model, x, labels):
        told.append((x.tolist(), labels.tolist()))
        x += 0.375
        labels.fill_(1)
        return x

    for _ in range(2):
        part = attempted(subject, "w", writes, subject.base, torch.ones(4, dtype=torch.bool))
        assert part.verdict.distance.tolist() == [0.375] * 4
        assert part.verdict.fooled.tolist() == [True] * 4
        assert part.places.tolist() == [0, 1, 2, 3]
        assert part.error is None
    assert inputs.tolist() == [[0.25, 0.25]] * 4
    # Chunks of three, both times as they are.
    assert told[:2] == told[2:] == [([[0.25] * 2] * 3, [0] * 3), ([[0.25] * 2], [0])]
