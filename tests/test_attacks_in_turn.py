"""The attacks of an evaluation, in turn: whom they meet, what counts, and what is kept."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from distillguard._data import Chunk
from distillguard.evaluation import _run
from distillguard.evaluation._captions import Captions
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation._records import SHOWN
from test_run_by_hand import Above, under_way


def told_of(run, name, what):
    return run.records.of(name, what).tolist()


CHUNK = Chunk(
    torch.tensor([4, 5, 6]), torch.tensor([[0.25], [0.375], [0.45]]), torch.zeros(3).long()
)


def shows_and_returns(shown, returned):
    """An attack that asks about one change of the inputs and returns another."""

    def attack(model, inputs, labels):
        model(inputs + shown)
        inputs += returned
        return inputs

    return AttackSpec(attack, "l2")


@pytest.mark.parametrize("searched", [False, True])
def test_points_along_the_way_are_examined_where_the_model_itself_is_asked(searched):
    run = under_way(searched=Above() if searched else None)
    inputs = CHUNK.inputs.clone()
    spec = shows_and_returns(0.25, 0.1)
    verdict, silent, points = run.attack("a", spec, inputs, CHUNK.labels, run.threat)
    # 0.25 moves all but the first over the half, 0.1 the last.
    assert verdict.fooled.tolist() == [False, False, True]
    assert silent.tolist() == [False, not searched, False]
    torch.testing.assert_close(points, CHUNK.inputs + 0.1)
    assert inputs.equal(CHUNK.inputs)
    assert (run.model.observer, run.search.observer) == (None, None)
    assert run.search is run.model or searched
    assert (run.records.costs["a"].forwards, run.records.costs["judging"].forwards) == (3, 3)


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyError("x"), True), (_run.NoGradientError("flat"), False)]
)
def test_an_attack_that_raised_is_run_no_more_and_its_error_is_kept(error, raised):
    run, asked = under_way(), []

    def attack(model, inputs, labels):
        asked.append(len(inputs))
        raise error

    spec = AttackSpec(attack, "linf")
    for _ in range(2):
        assert run.attack("a", spec, CHUNK.inputs, CHUNK.labels, run.threat) is None
    assert run.attack("b", spec, CHUNK.inputs[:0], CHUNK.labels[:0], run.threat) is None
    assert asked == [3]
    assert run.records.errors == {"a": "KeyError: 'x'" if raised else "flat"}
    assert run.raised == ({"a": error} if raised else {})
    assert run.search.observer is None


def test_an_attack_that_ran_out_of_memory_ends_the_evaluation():
    def attack(model, inputs, labels):
        raise MemoryError

    run = under_way()
    with pytest.raises(MemoryError):
        run.attack("a", AttackSpec(attack, "linf"), CHUNK.inputs, CHUNK.labels, run.threat)
    assert run.records.errors == {}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        # Place, attack and point of each: 0.45 fell to the first, 0.375 to the second.
        ("few", {(6, 1, 0.55), (5, 2, 0.575)}),
        ("fooled", {(6, 1, 0.55), (5, 2, 0.575)}),
        # What nobody fooled is kept with the last legal point.
        ("all", {(6, 1, 0.55), (5, 2, 0.575), (4, 2, 0.45)}),
    ],
)
@pytest.mark.parametrize("survivors_only", [False, True])
def test_attacks_meet_what_is_left_and_the_first_point_that_fools_is_kept(
    keep, kept, survivors_only
):
    attacks = {"a": shows_and_returns(0, 0.1), "b": shows_and_returns(0, 0.2)}
    run = under_way(attacks=attacks, keep=keep, survivors_only=survivors_only)
    assert (run.records.shown.size == SHOWN) == (keep == "few")
    run.add(CHUNK, 0)
    assert told_of(run, "a", "attacked") == [True] * 3
    assert told_of(run, "b", "attacked") == [True, True, not survivors_only]
    assert told_of(run, "a", "fooled") == [False, False, True]
    assert told_of(run, "b", "fooled") == [False, True, not survivors_only]
    shown = run.records.shown
    found = {
        (int(place), int(attack), round(point.item(), 4))
        for place, attack, point in zip(
            shown["index"], shown["attack"], shown["adversarial"], strict=True
        )
    }
    assert found == kept
    assert run.records.columns["index"].tolist() == [4, 5, 6]
    assert sorted(run.records.sample["index"].tolist()) == [4, 5, 6]


def test_examples_are_told_apart_by_what_the_model_predicts_of_each():
    run = under_way(keep="all", attacks={})
    inputs = torch.tensor([[0.25], [0.75], [0.5625], [0.125]])
    chunk = Chunk(torch.arange(4), inputs, torch.tensor([0, 1, 0, 1]))
    for part in (slice(0, 3), slice(3, 4), slice(0, 3)):
        rows = run.clean_pass(Chunk(*(each[part] for each in chunk)))
        assert rows == part  # what was seen is not asked about again
    assert len(run.records) == 4
    assert run.records.shown["predicted"].tolist() == [0, 1, 1, 0]
    assert sorted(run.records.sample["index"].tolist()) == [0, 1]
    assert run.records.costs["clean pass"].forwards == 4


def test_of_all_examples_the_misclassified_are_kept_unmoved():
    run = under_way(attacks={"a": shows_and_returns(0, 2.0)}, keep="all")
    run.add(CHUNK._replace(labels=torch.tensor([0, 0, 1])), 0)
    shown = run.records.shown
    assert shown["index"].tolist() == [4, 5, 6]
    assert shown["attack"].tolist() == [0, 0, 0]  # the attack's points left the bounds
    assert shown["distance"].tolist() == [0.0] * 3
    assert shown["predicted"].tolist() == [0] * 3
    assert shown["adversarial"].equal(CHUNK.inputs)
    assert told_of(run, "a", "legal") == [False, False, True]
    assert sorted(run.records.sample["index"].tolist()) == [4, 5]
    assert sorted(run.records.drawn["index"].tolist()) == [4, 5, 6]


def test_an_attack_may_write_into_what_it_is_given_and_is_judged_by_unseen_draws():
    seeds = []

    class Seeded(Above):
        def forward(self, inputs):
            seeds.append(torch.initial_seed())
            return super().forward(inputs)

    def attack(model, inputs, labels):
        model(inputs)
        labels.fill_(1)
        return inputs.fill_(0.75)

    run, labels = under_way(Seeded()), CHUNK.labels.clone()
    verdict, silent, _ = run.attack("a", AttackSpec(attack, "l1"), CHUNK.inputs, labels, run.threat)
    assert labels.tolist() == [0, 0, 0]
    assert CHUNK.inputs[0] == 0.25
    assert seeds == [9, 10]
    assert (verdict.fooled.tolist(), silent.any().item()) == ([False, False, False], False)
    assert verdict.success.all()


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (lambda x: x.tolist(), "TypeError: attack 'a' must return a torch.Tensor, got list"),
        (lambda x: x[:1], "ValueError: attack 'a' must return one point per input, shape (3, 1), "),
    ],
)
def test_what_is_not_one_point_per_input_is_an_error_of_the_attack(returned, error):
    run = under_way()
    spec = AttackSpec(lambda model, inputs, labels: returned(inputs), "linf")
    assert run.attack("a", spec, CHUNK.inputs, CHUNK.labels, run.threat) is None
    assert run.records.errors["a"].startswith(error)
    assert list(run.raised) == ["a"]


@pytest.mark.parametrize(
    ("raised", "attacked", "futile"),
    [("ab", "", True), ("ab", "b", False), ("ab", "ab", False), ("a", "", False), ("", "", False)],
)
def test_a_run_is_futile_where_every_attack_raised_before_it_had_attacked(raised, attacked, futile):
    run = under_way()
    run.raised = dict.fromkeys(raised)
    for name in "ab":
        run.records.add({f"{name}/attacked": torch.tensor([False, name in attacked])})
    assert run.futile == futile


def test_a_costly_attack_meets_what_those_before_it_brought_near():
    # The leads are 0.5, 0.25 and 0.1; the first attack takes 0.2 of each away, twice.
    steps = {"a": shows_and_returns(0, 0.1), "none": shows_and_returns(0, 0.0)}
    costly = AttackSpec(shows_and_returns(0, 0.0).attack, "l2", 0.5)
    for first, met in ((["a"], [False, True, False]), (["none"], [True] * 3),
                       (["none", "a"], [False, True, False])):  # fmt: skip
        run = under_way(attacks={name: steps[name] for name in first} | {"costly": costly})
        run.add(CHUNK, 0)
        assert told_of(run, "costly", "attacked") == met
        run = under_way(attacks=dict(run.attacks), survivors_only=False)
        run.add(CHUNK, 0)
        assert told_of(run, "costly", "attacked") == [True] * 3


def test_every_stage_is_named_while_it_lasts():
    stages = []

    @contextmanager
    def during(stage, n):
        stages.append((stage, n))
        yield
        stages.append("done")

    run = under_way(attacks={"a": shows_and_returns(0, 0.1), "b": shows_and_returns(0, 0.2)})
    run.progress = SimpleNamespace(during=during)
    run.records.known = {"a": 0}
    run.add(CHUNK, 0)
    assert stages == [("clean pass", 3), "done", ("a", 3), "done", ("b", 3), "done"]


# The clean pass.


@pytest.mark.parametrize("searched", [False, True])
def test_probabilities_of_the_first_chunk_are_turned_into_logits_for_good(searched):
    def model(inputs):
        return Above()(inputs).softmax(dim=1)

    run = under_way(model, searched=model if searched else None)
    logits = run.clean_logits(CHUNK.inputs, CHUNK.labels)
    torch.testing.assert_close(logits.diff(dim=1), 2 * (CHUNK.inputs - 0.5))
    assert run.records.probabilities
    assert (run.model.takes_logarithm, run.search.takes_logarithm) == (True, True)
    again = under_way(model, searched=model if searched else None)
    again.records.add({"label": torch.zeros(1)})  # it is not the first
    assert (again.clean_logits(CHUNK.inputs, CHUNK.labels) >= 0).all()
    assert (again.records.probabilities, again.model.takes_logarithm) == (False, False)


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        (lambda x: x.expand(-1, 2) * float("nan"), [0, 0, 0], "must return finite logits"),
        (lambda x: x.expand(-1, 2), [0, 0, 2], "y must be classes from 0 to 1"),
        (lambda x: x.expand(-1, 3), [0, 0, 0], "class_names must name all 3 classes, got 2"),
    ],
)
def test_the_first_answers_are_checked(model, labels, message):
    run = under_way(model)
    run.captions = Captions.of(None, None, ("x", "y"), None, False)
    with pytest.raises(ValueError, match=message):
        run.clean_logits(CHUNK.inputs, torch.tensor(labels))


def test_what_attacks_have_to_know_is_found_out_once_on_an_account_of_its_own():
    run = under_way()
    run.examine(CHUNK.inputs, CHUNK.labels, run.threat)
    facts, spent = run.records.facts, run.records.costs["checks"].forwards
    assert facts is run.search.facts is not None
    assert spent > 0
    run.examine(CHUNK.inputs, CHUNK.labels, run.threat)
    assert run.records.facts is facts
    assert run.records.costs["checks"].forwards == spent
    with pytest.raises(ValueError, match=r"^epsilon must be at most 1, how far apart"):
        under_way().examine(CHUNK.inputs, CHUNK.labels, ThreatModel("linf", 1.5, (0.0, 1.0)))
