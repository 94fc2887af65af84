"""In which order a diagnosis measures, on whom, and when it goes on to more examples."""

from types import SimpleNamespace

import pytest
import torch

from distillguard import attacks
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation._records import Cost
from distillguard.evaluation.diagnosis import _diagnose
from distillguard.evaluation.diagnosis._observations import Observations
from distillguard.evaluation.diagnosis._probe import Probe, probe_of
from test_probes_by_hand import booleans, searched
from test_run_by_hand import under_way

MEASUREMENTS = (
    *("randomness", "batch_dependence", "memory", "gradients", "at_bounds", "blind", "hidden"),
    *("losses", "one_step", "budgets", "random_points", "random_search", "transfer"),
    *("longer", "whole_range"),
)
NOTHING = torch.zeros(80, dtype=torch.bool)


@pytest.fixture
def asked(monkeypatch):
    """Names of the measurements that are made, with how many examples, and what they find."""
    log, finds = [], {}

    def stand_in(name):
        def measure(probe, chosen, **told):
            log.append((name, int(chosen.sum()), *told.values()))
            given = finds.get(name, Observations())
            return given(probe, chosen) if callable(given) else given

        return measure

    for name in MEASUREMENTS:
        monkeypatch.setattr(_diagnose, name, stand_in(name))
    return SimpleNamespace(log=log, finds=finds)


def probe(n=80, norm="linf", examples=None, standing=1.0, **changes):
    """So many sampled of so many examples, of which a share withstood the attacks."""
    run = under_way(threat=ThreatModel(norm, 0.25, (0.0, 1.0)), attacks={})
    everyone = torch.arange(examples or n)
    run.records.add({"index": everyone, "predicted": torch.zeros_like(everyone),
                     "label": torch.zeros_like(everyone),
                     "a/fooled": everyone >= standing * len(everyone)})  # fmt: skip
    if standing < 1:
        run.attacks = {"a": AttackSpec(None, norm)}
    made = Probe(
        run, torch.zeros(n, 1), torch.zeros(n).long(), torch.arange(n), torch.arange(n).flip(0),
        run.threat, torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool), 20,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def compared(probe, chosen):
    return Observations(compared=int(chosen.sum()))


@pytest.mark.parametrize(
    ("examples", "first"), [(80, 16), (135, 16), (136, 17), (200, 25), (511, 63), (9000, 64)]
)
@pytest.mark.parametrize("norm", ["linf", "l2", "l0"])
def test_a_full_diagnosis_compares_attacks_on_an_eighth_at_least_16_at_most_64(
    asked, norm, examples, first
):
    asked.finds["losses"] = compared
    _diagnose.full(probe(norm=norm, examples=examples), None)
    expected = [
        ("randomness", first, 5), ("batch_dependence", first), ("memory", 16), ("gradients", 80),
        ("losses", first), ("one_step", first), ("budgets", first), ("hidden", first),
        ("random_points", first), ("random_search", first), ("at_bounds", 16), ("blind", 80),
        ("longer", 8, 100),
    ]  # fmt: skip
    if norm != "l2":
        expected.remove(("hidden", first))
    if norm == "l0":
        expected.remove(("one_step", first))
    assert asked.log == expected


def test_where_the_first_leave_a_doubt_more_are_compared_and_at_last_all(asked):
    asked.finds |= {"losses": compared, "random_points": Observations(only_noise=1)}
    seen = _diagnose.full(probe(examples=200), "surrogate")
    # One of 25 is a doubt, and two of 64 are.
    assert [n for name, n, *_ in asked.log if name == "random_points"] == [25, 39, 16]
    assert asked.log[4] == ("losses", 25)
    assert [each for each in asked.log if each[0] == "transfer"] == [
        ("transfer", n, "surrogate") for n in (25, 39, 16)
    ]
    assert (seen.compared, seen.only_noise) == (80, 3)
    asked.log.clear()
    # One of 64 is none.
    few = iter([Observations(only_noise=1), Observations(only_noise=0)])
    asked.finds["random_points"] = lambda probe, chosen: next(few)
    seen = _diagnose.full(probe(examples=200), None)
    assert (seen.compared, seen.only_noise) == (64, 1)
    asked.log.clear()
    asked.finds["random_points"] = Observations(only_noise=1)
    seen = _diagnose.full(probe(examples=512), None)
    assert (seen.compared, seen.only_noise) == (64, 1)
    asked.log.clear()
    # A search that finds something is followed by one of more queries.
    asked.finds["random_search"] = Observations(only_black_box=1)
    _diagnose.full(probe(examples=512), None)
    assert [told for name, *told in asked.log if name == "random_search"] == [[64], [64, 200]]
    asked.finds["random_search"] = Observations(only_black_box=0)
    few, told = probe(14), []  # there are no others
    few.run.progress = SimpleNamespace(tell=told.append)
    _diagnose.full(few, None)
    assert told.count("random points") == 1


def test_without_a_gradient_no_attack_follows_one(asked):
    asked.finds["gradients"] = Observations(differentiable=False)
    made = probe()
    seen = _diagnose.full(made, None)
    assert [name for name, *_ in asked.log] == [
        "randomness", "batch_dependence", "memory", "gradients", "random_points", "random_search",
    ]  # fmt: skip
    assert seen.compared == 16
    # Everything counts as missed that is compared.
    assert int(made.missed.sum()) == 16
    asked.log.clear()
    _diagnose.brief(probe(), None)
    assert [name for name, *_ in asked.log] == [
        "randomness", "batch_dependence", "memory", "gradients",
    ]  # fmt: skip


def test_what_a_stand_in_found_is_not_missed(asked):
    made = probe()
    made.run.records.stand_ins = {"a": ("a student",)}
    made.attack_survivors = torch.arange(80) % 2 == 0
    made.missed = torch.arange(80) == 79
    seen = _diagnose.comparisons(made, torch.arange(80) < 64, None, False)
    assert made.missed.nonzero().squeeze(1).tolist() == [*range(0, 64, 2), 79]
    assert seen.compared == 64


def test_where_the_losses_could_not_be_compared_nothing_beats_them(asked):
    seen = _diagnose.comparisons(probe(), ~NOTHING, "surrogate", True)
    assert asked.log == [("losses", 80)]
    assert seen.compared is None


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_brief_diagnosis_asks_a_few(asked, norm, flat):
    made = probe(norm=norm, flat=torch.arange(80) == (3 if flat else 99))
    made.survivors = torch.arange(80) < 30
    _diagnose.brief(made, "surrogate")
    expected = [
        ("randomness", 16, 2), ("batch_dependence", 16), ("memory", 16), ("gradients", 80),
        ("at_bounds", 16),
    ]  # fmt: skip
    expected += [("losses", 80), ("blind", 80)] if flat else []
    expected += [("longer", 80, 10), ("whole_range", 80)]
    expected += [("hidden", 16)] if norm == "l2" else []
    assert asked.log == [*expected, ("transfer", 80, "surrogate")]
    assert made.missed.equal(made.survivors)


@pytest.mark.parametrize(("standing", "searched"), [(0.25, True), (0.2625, False)])
def test_a_brief_diagnosis_searches_without_gradients_where_few_are_left(
    asked, monkeypatch, standing, searched
):
    made = probe(standing=standing)
    monkeypatch.setattr(_diagnose, "follows_margin", lambda probe: True)
    assert _diagnose.few_stand(made.run) == searched
    _diagnose.brief(made, None)
    assert (("random_search", 16) in asked.log) == searched


def margin(steps, **told):
    told = {"loss": "margin", "epsilon": 0.25, "norm": "linf", **told}
    return AttackSpec(_diagnose.partial(attacks.pgd, steps=steps, **told), "linf")


@pytest.mark.parametrize(
    ("spec", "follows"),
    [(margin(10), True), (margin(9), False), (margin(10, loss="cross_entropy"), False),
     (margin(10, epsilon=0.2), False), (searched(9), False)],
)  # fmt: skip
def test_a_longer_attack_is_needless_after_ten_steps_up_the_margin(asked, spec, follows):
    made = probe()
    made.run.attacks = {"a": spec}
    assert _diagnose.follows_margin(made) == follows
    _diagnose.brief(made, None)
    assert (("longer", 80, 10) in asked.log) == (not follows)


@pytest.mark.parametrize(
    ("fall", "groups"),
    [
        # Of eight of the smallest margins none falls; one does, and all others are tried.
        ([], [8 + 8]),
        ([79], [16, 64]),
    ],
)
def test_the_longer_attack_goes_on_where_something_falls(asked, fall, groups):
    made = probe()
    # Eight had fallen to the margin before; they are asked about for nothing.
    made.margin_missed = torch.arange(80) >= 8
    asked.finds["longer"] = lambda probe, chosen: (
        setattr(probe, "survivors", probe.survivors & ~torch.isin(probe.places, torch.tensor(fall)))
        or Observations(longer_steps=100, longer_fools=len(fall))
    )
    seen = _diagnose.convergence(made)
    assert [n for _, n, _ in asked.log] == groups
    assert seen.longer_fools == len(fall) * len(groups)
    if fall:
        asked.log.clear()
        few = probe(8, survivors=torch.arange(8) != 3)
        _diagnose.convergence(few)
        assert [n for _, n, _ in asked.log] == [8]
    none = probe(8, margin_missed=torch.zeros(8, dtype=torch.bool))
    asked.log.clear(), asked.finds.clear()
    _diagnose.convergence(none)
    assert [n for _, n, _ in asked.log] == [8]


def recorded(kind="linf"):
    """A run of six examples, of which five are correct and sampled; "a" fooled two of them."""
    run = under_way(attacks={"a": AttackSpec(None, "linf"), "b": AttackSpec(None, "linf")},
                    threat=ThreatModel(kind, 0.25, (0.0, 1.0)))  # fmt: skip
    columns = {"index": torch.arange(6), "label": torch.zeros(6).long(),
               "predicted": torch.tensor([0, 0, 0, 1, 0, 0]), "saturated": booleans("......"),
               "margin": torch.tensor([-5.0, -1.0, -3.0, 2.0, -2.0, -4.0]).double(),
               "magnitude": torch.ones(6).double()}  # fmt: skip
    for name, fooled in (("a", "xx...."), ("b", "......")):
        told = {"attacked": "xxx.xx", "fooled": fooled, "success": fooled, "legal": "xxxxxx",
                "silent": "......", "rejected": "......"}  # fmt: skip
        columns |= {f"{name}/{what}": booleans(text) for what, text in told.items()}
        away = torch.full((6,), 0.25).double()
        columns |= {f"{name}/distance": away, f"{name}/own_distance": away}
    run.records.add(columns)
    order = torch.tensor([4, 1, 0, 5, 2])
    inputs = order[:, None] / 16
    run.records.sample.add(
        torch.arange(5), inputs=inputs, labels=torch.zeros(5).long(), index=order
    )
    run.records.costs = {"a": Cost(1, 1, 1.0), "b": Cost(1, 1, 1.0)}
    return run


def test_a_probe_holds_the_first_of_the_sample_with_what_withstood():
    run = recorded()
    strayed = booleans("x....x")
    made = probe_of(run, 4, 20, strayed)
    assert made.inputs.flatten().tolist() == [4 / 16, 1 / 16, 0, 5 / 16]
    assert made.survivors.tolist() == [True, False, False, True]
    assert made.strayed.tolist() == [False, False, True, True]
    # Leads of 2, 1, 5 and 4.
    assert made.rank.tolist() == [1, 0, 3, 2]
    assert (made.steps, made.places.tolist()) == (20, [0, 1, 2, 3])
    second = probe_of(run, 9, 20, strayed, SimpleNamespace(rank=1, count=2))
    assert second.inputs.flatten().tolist() == [1 / 16, 5 / 16]
    assert second.rank.tolist() == [0, 3]


@pytest.mark.parametrize("kind", ["full", "brief", None])
@pytest.mark.parametrize("norm", ["linf", "l0"])
def test_a_diagnosis_says_what_it_sampled_and_what_fell_to_it(monkeypatch, kind, norm):
    run, made = recorded(norm), []

    def measuring(kind):
        def measure(probe, surrogate):
            made.append((kind, probe.steps, len(probe.places), surrogate))
            probe.run.model(probe.inputs)
            probe.survivors = probe.survivors & (probe.places != 0)
            return Observations(blind=3)

        return measure

    for each in ("full", "brief"):
        monkeypatch.setattr(_diagnose, each, measuring(each))
    scaled = Observations(rescaled=9)
    monkeypatch.setattr(_diagnose, "rescaling", lambda run: scaled)
    active = Observations(active_tested=2)
    monkeypatch.setattr(_diagnose, "active_test", lambda probe, specs: active)
    seen = _diagnose.diagnose(run, kind, "surrogate")
    assert (seen.diagnosis, seen.correct, seen.epsilon) == (kind, 5, 0.25)
    if kind is None:
        assert (made, seen.sampled, seen.rescaled) == ([], 0, None)
        return
    assert made == [(kind, 20 if kind == "full" else 10, 5, "surrogate")]
    assert (seen.rescaled, seen.blind, seen.sampled) == (9, 3, 5)
    assert seen.compared == (5 if kind == "brief" else None)
    assert seen.active_tested == (2 if kind == "full" and norm == "linf" else None)
    assert (seen.attack_survivors, seen.all_survivors, seen.n_fooled_by_diagnosis) == (3, 2, 1)
    assert run.fooled_by_diagnosis.tolist() == [4]  # its place in the data
    assert run.records.costs["diagnosis"].forwards == 5


@pytest.mark.parametrize(("kind", "norm", "n"), [("full", "l2", 15), ("brief", "linf", 9)])
def test_the_bar_expects_as_many_measurements_as_there_are(asked, monkeypatch, kind, norm, n):
    run, told = recorded(norm), []
    run.progress = SimpleNamespace(tell=told.append)
    asked.finds["losses"] = compared
    monkeypatch.setattr(_diagnose, "rescaling", lambda run: Observations())
    monkeypatch.setattr(_diagnose, "active_test", lambda probe, specs: Observations())
    monkeypatch.setattr(_diagnose, "few_stand", lambda run: True)
    _diagnose.diagnose(run, kind)
    assert len(set(told)) == len(told) == _diagnose.PROBES[kind] == n
    assert _diagnose.PROBES["auto"] == _diagnose.PROBES["full"]
    assert _diagnose.PROBES[None] == 0
    sizes = [_diagnose.sample_size(each) for each in ("auto", "full", "brief", None)]
    assert sizes == [256, 256, 64, 0]


def test_an_attack_is_tested_that_kept_to_the_threat_model_and_did_not_raise():
    run = recorded()
    assert list(_diagnose.within_budget(run)) == ["a", "b"]
    run.raised = {"a": KeyError()}
    assert list(_diagnose.within_budget(run)) == ["b"]
    # Both points of "b" lie beyond, as far as each other.
    run.records.of("b", "success")[:2] = True
    assert list(_diagnose.within_budget(run)) == []
    run.raised = {}
    assert list(_diagnose.within_budget(run)) == ["a"]
