"""``AttackSpec(near=)``: costly attacks where the earlier ones have come near the boundary."""

import json

import pytest
import torch
from torch import nn

from distillguard import RobustnessReport, attacks, evaluate
from distillguard.evaluation import AttackSpec, robustness_curve
from distillguard.exceptions import SaveError

EPSILON = 0.5


class Lead(nn.Module):
    """Two classes; class 0 leads by how far the first value, which attacks set, is above 0.5."""

    def forward(self, inputs):
        first = inputs[:, 0] - 0.5
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def towards(shares):
    """An attack that leaves each example the given share of its lead, told by its second value."""

    def attack(model, inputs, labels):
        found = inputs.clone()
        share = torch.tensor(shares)[inputs[:, 1].mul(10).round().long()]
        found[:, 0] = 0.5 + share * (found[:, 0] - 0.5)
        return found

    return attack


def spy():
    seen = []

    def attack(model, inputs, labels):
        seen.extend(inputs[:, 1].mul(10).round().long().tolist())
        return inputs

    return attack, seen


@pytest.fixture
def examples():
    """Six examples with a lead of 0.4, numbered by their second value."""
    inputs = torch.stack([torch.full((6,), 0.9), torch.arange(6) / 10], dim=1)
    return inputs, torch.zeros(6, dtype=torch.int64)


def run(examples, shares, near, **settings):
    costly, seen = spy()
    given = {"first": towards(shares), "costly": AttackSpec(costly, "linf", near)}
    told = {"epsilon": EPSILON, "attacks": given, "diagnosis": None, "random_state": 0}
    return evaluate(Lead(), *examples, **told | settings), sorted(seen)


SHARES = [0.2, 0.49, 0.51, 0.94, 0.96, 1.0]


@pytest.mark.parametrize("chunk_size", [1, 4, 1024])
def test_what_is_near_and_what_no_search_has_moved_is_attacked_and_nothing_else(
    examples, chunk_size
):
    report, seen = run(examples, SHARES, 0.5, chunk_size=chunk_size)
    assert seen == [0, 1, 4, 5]
    assert [row.attacked for row in report.attacks] == [6, 4]
    assert [row.near for row in report.attacks] == [None, 0.5]
    assert report.robust_accuracy == 1.0


def test_without_a_share_everything_left_is_attacked(examples):
    assert run(examples, SHARES, None)[1] == [0, 1, 2, 3, 4, 5]
    # What is fooled is left out, however near.
    assert run(examples, [-0.1, *SHARES[1:]], None)[1] == [1, 2, 3, 4, 5]
    assert run(examples, [-0.1, *SHARES[1:]], 0.5)[1] == [1, 4, 5]


def test_the_least_lead_of_all_attacks_before_counts(examples):
    costly, seen = spy()
    given = {
        "one": towards([0.3, 0.9, 0.9, 0.9, 0.9, 0.9]),
        "two": towards([0.9, 0.3, 0.9, 0.9, 0.9, 1.0]),
        "costly": AttackSpec(costly, "linf", 0.5),
    }
    evaluate(Lead(), *examples, epsilon=EPSILON, attacks=given, diagnosis=None)
    assert sorted(seen) == [0, 1]


def test_a_point_outside_the_ball_brings_nothing_near(examples):
    # From a lead of 0.4, a share of 0.2 is 0.32 away.
    _, seen = run(examples, [0.2, 0.7, 0.7, 0.7, 0.7, 0.7], 0.5, epsilon=0.3)
    assert seen == [0]  # no point of it counts, so that nothing is known of it
    _, seen = run(examples, [0.6, 0.2, 0.7, 0.7, 0.7, 0.7], 0.5, epsilon=0.1)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_where_attacks_run_on_all_correct_examples_they_do(examples):
    report, seen = run(examples, SHARES, 0.5, survivors_only=False)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert [row.near for row in report.attacks] == [None, None]


def test_the_report_says_what_was_left_out_and_is_read_back(examples):
    report, _ = run(examples, SHARES, 0.5)
    assert (
        "costly left out the examples on which the earlier attacks had lowered the lead of the "
        "true class, but not below 50 % of the clean lead."
    ) in " ".join(str(report).split())
    assert RobustnessReport.from_json(report.to_json()) == report
    changed = json.loads(report.to_json())
    changed["attacks"][1]["near"] = None  # then it must have attacked all that was left
    with pytest.raises(ValueError, match="the examples left to it"):
        RobustnessReport.from_json(json.dumps(changed))


def test_attacks_that_left_out_the_same_are_named_together(examples):
    costly, _ = spy()
    given = {"first": towards(SHARES)}
    shares = {"a": 0.25, "b": 0.5, "c": 0.25}
    given |= {name: AttackSpec(costly, "linf", near) for name, near in shares.items()}
    told = {"epsilon": EPSILON, "diagnosis": None, "random_state": 0}
    text = " ".join(str(evaluate(Lead(), *examples, attacks=given, **told)).split())
    assert (
        "Some attacks left out the examples on which the earlier attacks had lowered the lead of "
        "the true class, but not below a share of the clean lead: 50 % for b; 25 % for a and c."
    ) in text


def test_a_state_knows_how_near_what_it_holds_came(examples, tmp_path):
    first = {"first": towards(SHARES)}
    told = {"epsilon": EPSILON, "diagnosis": None, "random_state": 0}
    told["state_file"] = tmp_path / "state"
    evaluate(Lead(), *examples, attacks=first, **told)
    costly, seen = spy()
    report = evaluate(
        Lead(), *examples, attacks=first | {"costly": AttackSpec(costly, "linf", 0.5)}, **told
    )
    assert sorted(seen) == [0, 1, 4, 5]
    assert report.attacks[1].attacked == 4


def test_a_state_of_another_share_is_not_resumed(examples, tmp_path):
    def still(model, inputs, labels):
        return inputs

    told = {"epsilon": EPSILON, "diagnosis": None, "random_state": 0}
    told["state_file"] = tmp_path / "state"
    first = {"first": towards(SHARES)}
    evaluate(Lead(), *examples, attacks=first | {"costly": AttackSpec(still, "linf", 0.5)}, **told)
    evaluate(Lead(), *examples, attacks=first | {"costly": AttackSpec(still, "linf", 0.5)}, **told)
    with pytest.raises(SaveError):
        evaluate(
            Lead(), *examples, attacks=first | {"costly": AttackSpec(still, "linf", 0.9)}, **told
        )


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_a_state_with_logits_that_are_no_numbers_is_resumed(examples, tmp_path, logit):
    class Breaks(Lead):
        def forward(self, inputs):
            logits = super().forward(inputs)
            return torch.where(inputs[:, :1] < 0.8, torch.full_like(logits, logit), logits)

    told = {"epsilon": EPSILON, "diagnosis": None, "random_state": 0}
    told |= {"attacks": {"first": towards(SHARES)}, "state_file": tmp_path / "state"}
    once = evaluate(Breaks(), *examples, **told)
    again = evaluate(Breaks(), *examples, **told)
    assert again.attacks == once.attacks
    costly, seen = spy()
    told["attacks"] |= {"costly": AttackSpec(costly, "linf", 0.5)}
    evaluate(Breaks(), *examples, **told)
    # A lead that is no number tells nothing, and what no search has moved is attacked.
    assert {4, 5} <= set(seen)
    assert 3 not in seen


@pytest.mark.parametrize("near", [0.0, 1.0, -1, float("nan"), "half", True])
def test_a_share_that_means_nothing_is_refused(examples, near):
    with pytest.raises((ValueError, TypeError), match=r"near of attacks\['costly'\] must be"):
        run(examples, SHARES, near)


def test_a_curve_knows_no_attacks_before(examples):
    spec = AttackSpec(attacks.carlini_wagner_l2, "l2", 0.5)
    with pytest.raises(ValueError, match="must have near=None in a curve"):
        robustness_curve(Lead(), *examples, minimum_distance=spec, norm="l2")


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_standard_leaves_far_examples_to_its_cheaper_attacks(norm):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    inputs = torch.rand(60, 12)
    labels = network(inputs).argmax(dim=1)
    radius = {"linf": 0.2, "l2": 0.6, "l1": 0.3}[norm]
    settings = {"norm": norm, "epsilon": radius, "diagnosis": None, "random_state": 0}
    report = evaluate(network, inputs, labels, **settings)
    rows = {row.name: row for row in report.attacks}
    assert rows["Square"].near == (None if norm == "l1" else 0.01)
    costly = {"APGD targeted": 0.75, "APGD targeted, one class": 0.1, "APGD targeted, long": 0.03}
    costly |= {"PGD margin, long": 0.05, "PGD margin, many starts": 0.01}
    costly |= {f"APGD {loss}": 0.05 for loss in ("cross-entropy", "rescaled cross-entropy")}
    costly |= dict.fromkeys(("FAB targeted", "Square"), 0.01)
    if norm == "l1":
        costly = {"APGD rescaled cross-entropy": 0.4, "APGD targeted": 0.25}
        costly |= dict.fromkeys(("FMN", "FAB targeted"), 0.15)
        costly |= {
            f"APGD {loss}, long": 0.05 for loss in ("cross-entropy", "rescaled cross-entropy")
        }
    assert {name: row.near for name, row in rows.items() if row.near is not None} == costly
    standing = 60 * report.robust_accuracy
    assert all(rows[name].attacked < standing for name in costly)
    assert rows["APGD targeted"].attacked
