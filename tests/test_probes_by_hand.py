"""What a diagnosis asks, measurement by measurement, with stand-ins for the attacks."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from distillguard import attacks
from distillguard._processes import Processes
from distillguard.evaluation._hidden import hidden_boundary_l2
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation.diagnosis import _probes
from distillguard.evaluation.diagnosis._observations import Observations
from distillguard.evaluation.diagnosis._probe import Probe, attempt
from test_run_by_hand import under_way

ALL = torch.ones(5, dtype=torch.bool)


def booleans(text):
    return torch.tensor([sign == "x" for sign in text])


class Told(Probe):
    """A probe whose attacks find what they are told to find, by their order."""

    def fools(self, attack, chosen, threat=None):
        self.asked.append((attack, "".join("x" if each else "." for each in chosen), threat))
        found = chosen & booleans(self.finds.pop(0))
        if threat is None:
            self.survivors = self.survivors & ~found
        return found


def probe(*finds, kind=Told, inputs=None, survivors="xxxxx", **changes):
    inputs = torch.linspace(0.125, 0.375, 5)[:, None] if inputs is None else inputs
    run = under_way(threat=ThreatModel("linf", 0.25, (0.0, 1.0)), attacks={})
    made = kind(
        run, inputs, torch.zeros(5).long(), torch.arange(5), torch.arange(5), run.threat,
        booleans(survivors), booleans("....."), 7,
    )  # fmt: skip
    made.asked, made.finds = [], list(finds)
    for name, value in changes.items():
        setattr(made, name, booleans(value) if isinstance(value, str) else value)
    return made


def pgd(told):
    """Loss, radius and steps of a PGD as the diagnosis runs it."""
    attack, chosen, threat = told
    assert attack.func is attacks.pgd
    assert attack.keywords["redraw"] is False
    assert (attack.keywords["norm"], attack.keywords["bounds"]) == ("linf", (0.0, 1.0))
    assert threat is None or threat.epsilon == attack.keywords["epsilon"]
    return attack.keywords["loss"], attack.keywords["epsilon"], attack.keywords["steps"], chosen


def test_both_losses_are_climbed_on_the_same_examples():
    found = probe("xx...", "xxx..", missed="....x")
    seen = _probes.losses(found, booleans("xxxx."))
    assert [pgd(each) for each in found.asked] == [
        ("cross_entropy", 0.25, 7, "xxxx."),
        ("margin", 0.25, 7, "xxxx."),
    ]
    assert (seen.compared, seen.compared_steps) == (4, 7)
    assert (seen.cross_entropy_survivors, seen.margin_survivors) == (2, 1)
    assert (seen.only_margin, seen.only_cross_entropy) == (1, 0)
    assert found.missed.tolist() == booleans("...xx").tolist()
    assert found.margin_missed.tolist() == booleans("...xx").tolist()
    assert found.survivors.tolist() == booleans("...xx").tolist()


def told(found, **columns):
    """Give the run what became of each example, in another order than the sample's."""
    places = torch.tensor([3, 4, 0, 1, 2])
    found.run.records.sample.add(torch.arange(5), index=places)
    for name, text in columns.items():
        values = torch.zeros(5, dtype=torch.bool)
        values[places] = booleans(text)
        found.run.records.add({name.replace("_", "/"): values})


BUDGET = {"epsilon": 0.25, "norm": "linf"}


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"loss": "margin", "steps": 7}, "..x.x"),
        ({"loss": "margin", "steps": 6}, "xxxxx"),
        ({"loss": "cross_entropy", "steps": 7}, "xxxxx"),
        ({"loss": "margin", "steps": 7, "epsilon": 0.2}, "xxxxx"),
        ({"loss": "margin", "steps": 7, "step_size": 0.03}, "xxxxx"),
        ({"loss": "margin", "steps": 7, "step_size": 0.04}, "..x.x"),
        ({"loss": "margin", "steps": 7, "bounds": (0.0, 0.5)}, "xxxxx"),
        ({"loss": "margin", "steps": 7, "bounds": (0.0, 1.0)}, "..x.x"),
        ({"loss": "margin", "steps": 7, "bounds": (0.0, torch.ones(1))}, "xxxxx"),
        ({"loss": "margin", "steps": 7, "mask": torch.ones(1) > 0}, "xxxxx"),
    ],
)
def test_what_the_callers_pgd_has_missed_on_the_margin_is_not_climbed_again(settings, asked):
    found = probe(".....", "xxxxx")
    found.run.attacks = {"a": AttackSpec(partial(attacks.pgd, **BUDGET | settings), "linf")}
    told(found, a_attacked="xxxx.", a_fooled="..x..")
    seen = _probes.losses(found, ALL)
    assert [pgd(each)[3] for each in found.asked] == ["xxxxx", asked]
    assert seen.margin_survivors == asked.count(".")
    assert found.margin_missed.tolist() == [sign == "." for sign in asked]


def test_what_was_searched_in_another_precision_is_climbed_again():
    found = probe(".....", ".....")
    found.run.attacks = {"a": AttackSpec(partial(attacks.pgd, loss="margin", **BUDGET), "linf")}
    told(found, a_attacked="xxxxx", a_fooled=".....")
    found.run.search = found.run.model.around(found.run.model.model)
    _probes.losses(found, ALL)
    assert [pgd(each)[3] for each in found.asked] == ["xxxxx", "xxxxx"]
    assert _probes.ascents(found).tolist() == [0] * 5


def ascent(name="pgd", **settings):
    attack = getattr(attacks, name)
    return AttackSpec(partial(attack, **{"loss": "margin"} | BUDGET | settings), "linf")


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        (ascent(steps=20, restarts=3), 60),
        (ascent("apgd", steps=20, restarts=2), 40),
        (ascent("apgd", steps=20, loss="dlr"), 20),
        (AttackSpec(partial(attacks.apgd_targeted, steps=9, n_targets=4, **BUDGET), "linf"), 36),
        (ascent(steps=20, loss="cross_entropy"), 0),
        (ascent(steps=20, epsilon=0.125), 0),
        (ascent(steps=20, targeted=True), 0),
        (ascent(steps=20, norm="l2"), 0),
        (AttackSpec(partial(attacks.square, queries=100, **BUDGET), "linf"), 0),
        (AttackSpec(print, "linf"), 0),
    ],
)
def test_steps_up_margins_within_the_threat_model_add_up_where_they_were_taken(spec, steps):
    found = probe()
    found.run.attacks = {"a": spec, "b": ascent(steps=3)}
    told(found, a_attacked="xx..x", b_attacked="x.x..")
    assert _probes.ascents(found).tolist() == [steps + 3, steps, 3, 0, steps]


def test_a_longer_attack_leaves_out_what_has_been_climbed_as_long():
    found = probe("x....")
    found.run.attacks = {"a": ascent(steps=10, restarts=10)}
    told(found, a_attacked=".xx..")
    found.margin_missed = booleans("xx.xx")
    seen = _probes.longer(found, ALL, 100)
    assert [pgd(each)[2:] for each in found.asked] == [(100, "x..xx")]
    assert (seen.longer_steps, seen.longer_fools) == (100, 2)  # and what the margin had found


@pytest.mark.parametrize(
    ("epsilon", "radii", "finds", "counts"),
    [
        (0.25, [0.25, 0.5, 1.0], ["xxx..", "x..x."], ((2, 1, 2), (0, 2), (1, 1))),
        (0.5, [0.5, 1.0], ["xxx.."], ((2, 1), (0,), (1,))),
        (1.0, [1.0], [], ((2,), (), ())),
        (2.0, [1.0], ["xxx.."], ((1,), (), ())),
    ],
)
def test_budgets_are_the_radius_twice_that_and_the_range(epsilon, radii, finds, counts):
    threat = ThreatModel("linf", epsilon, (0.0, 1.0))
    found = probe(*finds, threat=threat, margin_missed="..xxx")
    seen = _probes.budgets(found, booleans("xxxx."))
    # What PGD on the margin found at the radius is known.
    asked = [pgd(each) for each in found.asked]
    assert [radius for _, radius, _, _ in asked] == radii[len(radii) - len(finds) :]
    assert all((loss, n) == ("margin", "xxxx.") for loss, _, _, n in asked)
    assert seen.budgets == tuple(radii)
    assert seen.only_exchange is None
    assert (seen.budget_survivors, seen.budget_lost, seen.budget_won) == counts
    assert found.survivors.all()  # wider radii are not the threat model's


def test_the_whole_range_is_tried_on_what_withstands():
    found = probe("x....", survivors="xx.xx")
    seen = _probes.whole_range(found, booleans("xxxx."))
    assert [pgd(each) for each in found.asked] == [("margin", 1.0, 7, "xx.x.")]
    assert (seen.budgets, seen.budget_survivors, seen.only_exchange) == ((1.0,), (2,), None)


def test_where_a_mask_lets_something_change_it_is_exchanged_on_what_is_left():
    mask = torch.ones(1, 1, dtype=torch.bool)
    for ask, finds, left in (
        (_probes.budgets, ["xx...", "xx...", ".xx.."], "..xx."),
        (_probes.whole_range, ["x....", ".xx.."], ".xxx."),
    ):
        found = probe(*finds)
        found.threat = found.threat._replace(mask=mask)
        found.run.threat = found.threat
        seen = ask(found, booleans("xxxx."))
        attack, chosen, threat = found.asked[-1]
        assert (attack.func, chosen, threat.epsilon) == (_probes.exchange, left, 1.0)
        assert seen.only_exchange == {".xxx.": 2, "..xx.": 1}[left]


@pytest.mark.parametrize(("epsilon", "within"), [(0.25, 0.5), (0.5, 0.5), (0.75, 0.75)])
def test_a_flat_cross_entropy_is_tried_within_twice_the_radius_and_not_the_range(epsilon, within):
    found = probe("xxx..", "x.x..", flat="xxxx.", threat=ThreatModel("linf", epsilon, (0, 1.0)))
    found.threat = found.threat._replace(bounds=(0.0, 1.0))
    seen = _probes.blind(found, booleans("xx.xx"))
    assert [pgd(each) for each in found.asked] == [
        ("margin", within, 7, "xx.x."),
        ("cross_entropy", within, 7, "xx..."),
    ]
    assert (seen.blind, seen.blind_within) == (1, within)


def test_a_longer_attack_looks_at_what_the_callers_attacks_left():
    found = probe("x....", survivors="xxx.x", margin_missed="xx.xx", strayed="x....")
    found.survivors = booleans("x....")  # what the diagnosis left does not matter
    seen = _probes.longer(found, booleans("xxxx."), 40)
    assert [pgd(each) for each in found.asked] == [("margin", 0.25, 40, "xx...")]
    # The first strayed; the third fell to the margin before.
    assert (seen.longer_steps, seen.longer_fools) == (40, 1)


@pytest.mark.parametrize("theirs", [False, True])
def test_the_least_distance_is_searched_where_the_callers_search_has_not_looked(theirs):
    found = probe(".x...", "x....", survivors="xx.xx")
    found.run.batch_size, found.run.seed = 3, 8
    if theirs:
        search = AttackSpec(partial(hidden_boundary_l2, stop_within=0.25), "l2")
        found.run.attacks = {"other": AttackSpec(print, "l2"), "search": search}
        found.run.records.sample.add(torch.arange(5), index=torch.arange(5))
        found.run.records.add({"search/attacked": booleans("x....")})
        found.run.records.add({"other/attacked": booleans("xxxxx")})
    seen = _probes.hidden(found, booleans("xxx.."))
    (first, chosen, anywhere), (whole, left, threat) = found.asked
    assert first.func is whole.func is attacks.carlini_wagner_l2
    told = {"bounds": (0.0, 1.0), "batch_size": 3, "random_state": 8}
    assert first.keywords == {"steps": _probes.FIRST_STEPS, "stop_within": 1.0, **told}
    assert whole.keywords == {"stop_within": 0.25, **told}
    assert (chosen, anywhere.epsilon) == (".x..." if theirs else "xx...", 1.0)
    assert (left, threat) == ("....." if theirs else "x....", None)
    assert seen.only_distance == (0 if theirs else 1)


@pytest.mark.parametrize("early", [True, False])
def test_points_of_a_surrogate_are_tried_on_what_was_missed(monkeypatch, early):
    asked = []

    def pgd(model, inputs, labels, **told):
        asked.append((model, len(inputs), told))
        return inputs + 0.25

    monkeypatch.setattr(attacks, "pgd", pgd)
    found = probe(kind=Probe, missed="xx.xx")
    seen = _probes.transfer(found, booleans(".xxxx"), surrogate="another")
    # 0.1875 is moved to 0.4375, and 0.3125 and 0.375 above the half.
    assert seen.only_transfer == 2
    ((model, n, told),) = asked
    assert (model, n) == ("another", 3)
    assert (told["loss"], told["steps"], told["early_stop"]) == ("margin", 7, False)
    assert (told["epsilon"], told["random_state"]) == (0.25, found.run.seed)


def test_random_points_are_drawn_for_what_was_missed():
    found = probe("..x..", missed="x.xx.")
    assert _probes.random_points(found, booleans("..xxx")).only_noise == 1
    assert [each[1] for each in found.asked] == ["..xx."]
    assert found.asked[0][0].func is _probes.noise


def test_noise_stays_in_the_ball_and_is_tried_25_times(monkeypatch):
    tried = []

    def first(run, model, inputs, labels, tries, point):
        rows = torch.tensor([3, 1])
        for number in range(3):
            points = point(number, rows)
            assert (points - inputs[rows]).abs().max() <= 0.25 * (1 + 1e-6)
            assert points.min() >= 0
            tried.append(points)
        return tries

    monkeypatch.setattr(_probes, "first_that_fools", first)
    found = probe()
    told = (found.run, found.threat, found.run.model, found.inputs, found.labels)
    assert _probes.noise(*told) == 25
    assert len({tuple(each.flatten().tolist()) for each in tried}) == 3


def searched(queries, name="square"):
    budget = {"epsilon": 0.25, "norm": "linf"}
    return AttackSpec(partial(getattr(attacks, name), queries=queries, **budget), "linf")


@pytest.mark.parametrize(
    ("queries", "chosen", "found_by_theirs", "counted"),
    [(99, "x.xxx", "", 1), (100, "x....", "..x..", 2), (100, "x....", "", 1)],
)
def test_a_search_is_made_where_the_callers_has_not_looked(
    queries, chosen, found_by_theirs, counted
):
    found = probe("x....", ".....", missed="xxxxx")
    found.run.attacks = {"their search": searched(queries)}
    columns = {"their search_attacked": "..xxx", "their search_fooled": found_by_theirs or "....."}
    told(found, **columns)
    seen = _probes.random_search(found, booleans("x.xxx"))
    assert seen.only_black_box == counted
    ((attack, asked, threat),) = found.asked
    assert (attack.func, attack.keywords["queries"]) == (attacks.square, 100)
    assert (asked, threat) == (chosen, None)


def test_a_second_search_looks_for_what_the_first_has_left_and_tells_of_both():
    found = probe("x....", "..x..", missed="xxx.x")
    first = _probes.random_search(found, booleans("xxxx."))
    second = _probes.random_search(found, booleans("xxxx."), queries=200)
    assert (first.only_black_box, second.only_black_box) == (1, 2)
    assert [told.keywords["queries"] for told, *_ in found.asked] == [100, 200]
    assert [chosen for _, chosen, _ in found.asked] == ["xxx..", ".xx.."]
    assert _probes.random_search(probe(".....", missed="....."), ALL).only_black_box == 0


def test_among_counts_the_search_is_sparse():
    found = probe(".....", missed="xxxxx")
    found.threat = found.run.threat = ThreatModel("l0", 1.0, (0.0, 1.0))
    _probes.random_search(found, ALL)
    assert found.asked[0][0].func is attacks.sparse_rs


# Probes.


def test_a_probe_judges_the_chosen_and_remembers_who_withstood():
    found, asked = probe(kind=Probe, survivors="xxx.x"), []

    def by(step):
        def attack(model, inputs, labels):
            asked.append(len(inputs))
            return inputs + step

        return attack

    # 0.3125 and 0.375 pass the half by a quarter; the others do not.
    assert found.fools(by(0.25), booleans("x..xx")).tolist() == booleans("...xx").tolist()
    assert found.survivors.tolist() == booleans("xxx..").tolist()
    assert found.attack_survivors.tolist() == booleans("xxx.x").tolist()
    wider = found.threat._replace(epsilon=0.5)
    assert found.fools(by(0.375), ALL, wider).tolist() == booleans(".xxxx").tolist()
    assert found.survivors.tolist() == booleans("xxx..").tolist()
    assert not found.fools(by(1.0), ~ALL).any()
    assert asked == [3, 5]
    assert (found.flat.any().item(), found.missed.any().item()) == (False, False)
    assert found.margin_missed.all()


def test_a_measurement_that_fails_is_told_and_one_of_nobody_is_none():
    found, bar = probe(), []
    found.run.progress = SimpleNamespace(tell=bar.append)

    def broken(*_):
        raise KeyError("x")

    assert found.measured("a", broken).failed == {"a": "KeyError: 'x'"}
    assert found.measured("b", broken, ~ALL) == Observations()
    assert found.measured("c", lambda chosen: Observations(blind=int(chosen.sum()))).blind == 5
    assert found.once("d", lambda: Observations(blind=3)).blind == 3
    found.processes = Processes(1, 1)
    assert found.once("e", broken) == Observations()
    assert bar == ["a", "b", "c", "d", "e"]
    assert attempt("f", broken).failed == {"f": "KeyError: 'x'"}
    assert (found.anywhere(ALL), found.anywhere(~ALL)) == (True, False)
    found.processes = SimpleNamespace(all_gather=lambda value: [False, value])
    assert (found.anywhere(ALL), found.anywhere(~ALL)) == (True, False)
