"""What people pass as attacks works, or the sentence that they get says what to write instead."""

import inspect
import re
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import attacks, evaluate
from distillguard._typing import Distance
from distillguard.evaluation import (
    AttackSpec,
    confidence_histogram,
    gradient_histogram,
    robustness_curve,
    transfer_matrix,
)
from distillguard.evaluation._entries import resolve_attacks
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._ours import ours, unwrapped
from distillguard.exceptions import AttackError

PRESETS = "'quick', 'standard', 'autoattack'"
OURS = ", ".join(map(repr, attacks.__all__))
FUNCTION = "must be a function (model, inputs, labels) -> Tensor, got"


def identity(model, inputs, labels):
    return inputs


def divided_by_zero(model, inputs, labels):
    return 1 / 0


def foreign(library, *, call=True):
    """A class as that library might have it."""
    body = {"__module__": f"{library}.attacks.pgd"}
    if call:
        body["__call__"] = lambda self, *arguments, **settings: None
    return type("PGD", (), body)


def function_of(library, function):
    function.__module__ = f"{library}.attacks"
    return function


def needs_radius(model, inputs, labels, ε):
    return inputs


def resolved(given, **threat):
    threat = {"norm": "linf", "epsilon": 0.1, "bounds": (0.0, 1.0)} | threat
    return resolve_attacks(given, ThreatModel(**threat), batch_size=7, random_state=3)


# What works.


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("pgd", ["pgd"]),
        (attacks.pgd, ["pgd"]),
        (["fgsm", "pgd", "carlini_wagner_l2"], ["fgsm", "pgd", "carlini_wagner_l2"]),
        (("square", identity), ["square", "identity"]),
        (["quick", "ddn"], ["FGSM margin", "PGD margin", "ddn"]),
        ([partial(attacks.pgd, steps=n) for n in (5, 50)], ["pgd(steps=5)", "pgd(steps=50)"]),
        ([identity, identity], ["identity", "identity 2"]),
        (AttackSpec(identity, "l2"), ["identity"]),
        ([(identity, "l2")], ["identity"]),
        ({1: attacks.pgd, "b": identity}, ["1", "b"]),
    ],
)
def test_attacks_may_be_names_functions_or_a_mapping(given, names):
    assert list(resolved(given)) == names


SPARSE = ("guided_sparse_rs", "sigma_zero", "sparse_rs")


@pytest.mark.parametrize("name", sorted({*attacks.__all__} - {"rays", *SPARSE}))
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_by_its_name_is_the_one_called_with_the_evaluations_arguments(
    halfspace, examples, name, norm
):
    inputs, labels = examples(3)
    # A radius at which all fall: square is soon done.
    epsilon, bounds = 8 * halfspace.least_epsilon(inputs, norm).max().item(), (-1.0, 2.0)
    threat = {"epsilon": epsilon, "norm": norm, "bounds": bounds}
    found = resolved([name], **threat)[name].attack(halfspace, inputs, labels)
    asked = {"bounds": bounds, "batch_size": 7, "random_state": 3}
    asked |= {"epsilon": epsilon, "norm": norm} if name in BUDGET else {}
    asked |= {"norm": norm} if name in ("deepfool", "fab_targeted", "fmn") else {}
    assert torch.equal(found, getattr(attacks, name)(halfspace, inputs, labels, **asked))


def test_an_attack_of_one_norm_gets_the_radius_in_that_norm_alone():
    spec = resolved("rays", norm="linf", epsilon=0.2)["rays"]
    assert (unwrapped(spec.attack)[1]["epsilon"], spec.norm) == (0.2, "linf")
    with pytest.raises(ValueError, match="another norm than the evaluation's, 'l2', got rays, of"):
        resolved("rays", norm="l2")
    spec = resolved(partial(attacks.rays, epsilon=0.3), norm="l2")["rays(epsilon=0.3)"]
    assert (unwrapped(spec.attack)[1]["epsilon"], spec.norm) == (0.3, "linf")


BUDGET = ("fgsm", "pgd", "apgd", "apgd_targeted", "square")


def test_what_an_attack_was_given_stays(halfspace, examples):
    own = {"epsilon": 0.02, "norm": "l2", "bounds": (-3.0, 3.0), "random_state": 8, "steps": 2}
    spec = resolved({"a": partial(attacks.pgd, **own)})["a"]
    assert dict(ours(spec.attack).given) == own | {"batch_size": 7}
    assert spec.norm == "l2"


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_autoattack_has_the_budgets_that_its_authors_publish(norm):
    threat = ThreatModel(norm, 0.1, (0.0, 1.0))
    chosen = resolve_attacks("autoattack", threat, batch_size=7, random_state=3)
    published = {
        "apgd": {"steps": 100, "restarts": 5 if norm == "l1" else 1, "loss": "cross_entropy"},
        "apgd_targeted": {"steps": 100, "restarts": 1, "n_targets": 5 if norm == "l1" else 9},
        "fab_targeted": {"steps": 100, "restarts": 1, "n_targets": 9},
        "square": {"queries": 5000, "restarts": 1, "p_init": 0.8},
    }
    assert [ours(spec.attack).name for spec in chosen.values()] == list(published)
    for spec, budget in zip(chosen.values(), published.values(), strict=True):
        function, given = unwrapped(spec.attack)
        settings = inspect.signature(function).bind_partial(**given)
        settings.apply_defaults()
        assert {name: settings.arguments[name] for name in budget} == budget
        assert settings.arguments["norm"] == norm
        assert settings.arguments["random_state"] == 3


FGSM = "FGSM margin loss=margin judge_last=False"
BLOCKS = "loss=margin step_size=0.5 step_decay=True random_start=blocks"
NEAREST = "target_order=nearest"
RESCALED = "APGD rescaled cross-entropy"
STRONG = [
    f"APGD targeted {NEAREST} steps=10 n_targets=3 near=0.75",
    f"{RESCALED} steps=20 loss=rescaled_cross_entropy near=0.05",
    "APGD cross-entropy steps=20 near=0.05",
    f"APGD targeted, one class {NEAREST} steps=25 n_targets=1 near=0.1",
    f"APGD targeted, long {NEAREST} steps=30 n_targets=3 near=0.03",
    f"PGD margin, long {BLOCKS} steps=40 restarts=2 near=0.05",
    f"PGD margin, many starts {BLOCKS} steps=40 restarts=5 near=0.01",
    f"FAB targeted steps=15 n_targets=1 {NEAREST} stop_within=0.25 near=0.01",
    "Square queries=100 near=0.01",
]
BUDGETS = {
    ("quick", "linf"): [FGSM, "PGD margin loss=margin steps=10"],
    ("quick", "l0"): ["PGD margin loss=margin steps=20"],
    ("standard", "linf"): [
        FGSM,
        f"PGD margin {BLOCKS} steps=20",
        *STRONG,
    ],
    ("standard", "l2"): [
        FGSM,
        f"PGD margin {BLOCKS} steps=20",
        "Carlini-Wagner L2 stop_within=0.25",
        *STRONG,
    ],
    ("standard", "l1"): [
        FGSM,
        "APGD margin loss=margin steps=60",
        "APGD cross-entropy steps=40 restarts=3",
        f"{RESCALED} loss=rescaled_cross_entropy steps=40 restarts=10 near=0.4",
        "APGD targeted steps=40 n_targets=3 near=0.25",
        "FMN steps=150 stop_within=0.25 near=0.15",
        "FAB targeted steps=60 n_targets=1 target_order=nearest stop_within=0.25 near=0.15",
        "APGD cross-entropy, long steps=100 restarts=5 near=0.05",
        f"{RESCALED}, long loss=rescaled_cross_entropy steps=200 restarts=3 near=0.05",
        "Square queries=100",
    ],
    ("standard", "l0"): [
        "PGD margin loss=margin steps=40 restarts=2",
        "sigma-zero steps=100 stop_within=3.0",
        "Guided Sparse-RS steps=800",
        "Sparse-RS queries=400",
    ],
}


@pytest.mark.parametrize(("name", "norm"), BUDGETS)
def test_the_budgets_of_the_presets_change_only_knowingly(name, norm):
    """Every committed figure was taken with them."""
    threat = ThreatModel(norm, 3.0 if norm == "l0" else 0.25, (0.0, 1.0))
    common = {"bounds", "batch_size", "random_state", "norm", "epsilon"}
    told = []
    for key, spec in resolve_attacks(name, threat, batch_size=7, random_state=3).items():
        settings = unwrapped(spec.attack)[1].items()
        near = [] if spec.near is None else [f"near={spec.near}"]
        told.append(" ".join([key, *(f"{k}={v}" for k, v in settings if k not in common), *near]))
    assert told == BUDGETS[name, norm]


@pytest.mark.parametrize(
    ("given", "epsilon", "meant"),
    [("quick", 1e-4, "brief"), (["fgsm"], 1e-4, "full"), (["fgsm"], 0.5, "brief")],
)
def test_a_diagnosis_of_auto_is_brief_for_quick_and_where_nothing_is_left_to_doubt(
    halfspace, examples, given, epsilon, meant
):
    asked = []

    def model(inputs):
        asked.append(len(inputs))
        return halfspace(inputs)

    counts = {}
    for diagnosis in ("auto", "brief", "full"):
        asked.clear()
        settings = {"epsilon": epsilon, "attacks": given, "random_state": 0, "adapt": False}
        evaluate(model, *examples(5), diagnosis=diagnosis, **settings)
        counts[diagnosis] = sum(asked)
    assert counts["brief"] < counts["full"]
    assert counts["auto"] == counts[meant]


def test_none_counts_as_not_given():
    given = partial(attacks.pgd, epsilon=None, norm=None, mask=None, random_state=None)
    told = ours(resolved([given])["pgd"].attack).given
    assert (told["epsilon"], told["norm"], told["random_state"]) == (0.1, "linf", 3)


def test_a_pairs_norm_is_that_of_a_minimum_distance_attack():
    assert ours(resolved([(attacks.deepfool, "l2")])["deepfool"].attack).given["norm"] == "l2"
    spec = resolved([(attacks.pgd, "l2")])["pgd"]
    assert (spec.norm, ours(spec.attack).given["norm"]) == ("l2", "linf")


@pytest.mark.parametrize("name", attacks.__all__)
def test_an_attack_knows_the_norms_that_its_signature_names(halfspace, examples, name):
    inputs, labels = examples(2)
    attack = getattr(attacks, name)
    radius = {"epsilon": 1.0} if "epsilon" in ours(attack).parameters else {}
    known = ours(attack).norms
    for norm in get_args(Distance) if known else ():
        if norm in known:
            attack(halfspace, inputs, labels, norm=norm, **radius)
        else:
            with pytest.raises(ValueError, match="norm must be one of"):
                attack(halfspace, inputs, labels, norm=norm, **radius)


def test_a_bare_attack_gets_the_mask_of_the_evaluation(halfspace, examples):
    inputs, labels = examples(8)
    mask = torch.zeros(inputs.shape[1:], dtype=torch.bool)
    mask[0] = True
    report = evaluate(halfspace, inputs, labels, epsilon=0.5, mask=mask, attacks=attacks.fgsm)
    assert report.attacks[0].illegal == 0
    assert report.attacks[0].fooled > 0


# What gets a sentence.

MISTAKES = [
    (
        "strongest",
        ValueError,
        f"attacks must be one of {PRESETS}, {OURS}, got 'strongest'",
    ),
    (
        "PGD",
        ValueError,
        f"attacks must be one of {PRESETS}, {OURS}, got 'PGD'; did you mean 'pgd'?",
    ),
    (
        "Auto-Attack",
        ValueError,
        f"attacks must be one of {PRESETS}, {OURS}, got 'Auto-Attack'; did you mean 'autoattack'?",
    ),
    (
        ["fgsm", "cw"],
        ValueError,
        f"attacks[1] must be one of {PRESETS}, {OURS}, got 'cw'; did you mean 'carlini_wagner_l2'?",
    ),
    (
        ["deep-fool"],
        ValueError,
        f"attacks[0] must be one of {PRESETS}, {OURS}, got 'deep-fool'; did you mean 'deepfool'?",
    ),
    (
        ["pgd", "pgd"],
        ValueError,
        "attacks must name each attack once, got 'pgd' 2 times; a mapping runs one with several "
        "settings",
    ),
    ([], ValueError, "attacks must hold at least one attack, got an empty list"),
    ({}, ValueError, "attacks must hold at least one attack, got an empty mapping"),
    (
        None,
        TypeError,
        "attacks must be names of attacks, functions, or a mapping from names to functions, "
        "got NoneType",
    ),
    (
        {"pgd"},
        TypeError,
        "attacks must be names of attacks, functions, or a mapping from names to functions, "
        "got set; pass attacks=[...], whose order is that of the attacks",
    ),
    (
        attacks,
        TypeError,
        "attacks must be names of attacks, functions, or a mapping from names to functions, "
        "got the module distillguard.attacks",
    ),
    (
        {1: identity, "1": identity},
        ValueError,
        "attacks must have names that differ as text, got [1, '1']",
    ),
    (
        {"diagnosis": identity},
        ValueError,
        "attacks must have other names than 'clean pass', 'checks', 'judging', 'diagnosis', "
        "'adaptation', which the report's costs go by, got 'diagnosis'",
    ),
    ({"a": 3}, TypeError, f"attacks['a'] {FUNCTION} int"),
    (
        {"pgd": "pgd"},
        TypeError,
        f"attacks['pgd'] {FUNCTION} the text 'pgd'; a list takes names, a mapping takes functions",
    ),
    (
        {"a": nn.Linear(2, 2)},
        TypeError,
        f"attacks['a'] {FUNCTION} the network Linear; the model to attack is the first argument "
        "of evaluate",
    ),
    (
        {"a": (identity, "l9")},
        ValueError,
        "norm of attacks['a'] must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'l9'",
    ),
    ({"a": foreign("mine")}, TypeError, f"attacks['a'] {FUNCTION} the class PGD"),
    (
        {"a": foreign("foolbox")()},
        TypeError,
        f"attacks['a'] {FUNCTION} PGD; distillguard.interop.from_foolbox makes one of it",
    ),
    (
        {"a": foreign("torchattacks")},
        TypeError,
        f"attacks['a'] {FUNCTION} the class PGD; distillguard.interop.from_torchattacks makes one "
        "of it",
    ),
    (
        [partial(foreign("torchattacks"), eps=0.1)],
        TypeError,
        f"attacks[0] {FUNCTION} the class PGD; distillguard.interop.from_torchattacks makes one "
        "of it",
    ),
    (
        [foreign("art", call=False)()],
        TypeError,
        f"attacks[0] {FUNCTION} PGD; distillguard.interop.from_art makes one of it",
    ),
    (
        [foreign("autoattack")()],
        TypeError,
        f"attacks[0] {FUNCTION} PGD; distillguard.interop.from_autoattack makes one of it",
    ),
    (
        {"a": function_of("adv_lib", needs_radius)},
        TypeError,
        f"attacks['a'] {FUNCTION} needs_radius, which cannot be called so: missing a required "
        "argument: 'ε'; distillguard.interop.from_adv_lib makes one of it",
    ),
    (
        {"a": lambda inputs: inputs},
        TypeError,
        f"attacks['a'] {FUNCTION} <lambda>, which cannot be called so: too many positional "
        "arguments",
    ),
    (
        [partial(attacks.pgd, eps=0.1)],
        TypeError,
        "attacks[0] must have settings of pgd, got 'eps'; did you mean 'epsilon'?",
    ),
    (
        {"a": partial(attacks.pgd, norm="l2")},
        ValueError,
        "attacks['a'] must have an epsilon of its own in another norm than the evaluation's, "
        "'linf', got norm='l2' alone; name both",
    ),
    (
        {"a": partial(attacks.deepfool, norm="l7")},
        ValueError,
        "norm of attacks['a'] must be one of 'l2', 'linf', got 'l7'",
    ),
]


@pytest.mark.parametrize(("given", "error", "sentence"), MISTAKES)
def test_a_mistake_in_attacks_gets_its_sentence(halfspace, examples, given, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        evaluate(halfspace, *examples(4), epsilon=0.1, attacks=given)


def test_an_attack_that_does_not_know_the_norm_says_which_it_knows(halfspace, examples):
    sentence = (
        "attacks[0] must work in the norm of the evaluation, 'l1', got deepfool, which knows 'l2' "
        "and 'linf'; leave it out, or name a norm of its own: "
        "functools.partial(attacks.deepfool, norm='l2')"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        evaluate(halfspace, *examples(4), norm="l1", epsilon=0.1, attacks=["deepfool"])


# Attacks that fail.


def test_attacks_that_fail_are_named_and_the_others_count(halfspace, examples):
    inputs, labels = examples(8)
    epsilon = halfspace.least_epsilon(inputs, "linf").median().item()
    settings = {"epsilon": epsilon, "random_state": 0}
    failing = {
        "raises": (divided_by_zero, "ZeroDivisionError: division by zero"),
        "cuts": (
            lambda m, x, y: x[:1],
            "ValueError: attack 'cuts' must return one point per input, shape (4, 3, 4), "
            "got (1, 3, 4)",
        ),
        "forgets": (
            lambda m, x, y: None,
            "TypeError: attack 'forgets' must return a torch.Tensor, got NoneType",
        ),
        "stands": (partial(attacks.pgd, steps=0), "ValueError: steps must be at least 1, got 0"),
    }
    alone = evaluate(halfspace, inputs, labels, attacks=["fgsm", "ddn"], **settings)
    given = {name: attack for name, (attack, _) in failing.items()}
    given = {"fgsm": attacks.fgsm, **given, "ddn": attacks.ddn}
    report = evaluate(halfspace, inputs, labels, attacks=given, **settings)

    first, *broken, last = report.attacks
    assert (first.fooled, last.fooled) == tuple(row.fooled for row in alone.attacks)
    assert 0 < report.robust_accuracy == alone.robust_accuracy < 1
    printed = " ".join(str(report).split())
    for row in broken:
        _, error = failing[row.name]
        assert (row.error, row.attacked, row.success_rate) == (error, 0, None)
        assert row.robust_accuracy == first.robust_accuracy
        assert f"{row.name} did not run: {error}" in printed


@pytest.mark.parametrize("survivors_only", [True, False])
def test_an_attack_that_fails_on_the_way_is_told_on_how_many_examples_it_ran(
    halfspace, examples, survivors_only
):
    inputs, labels = examples(20)
    least = halfspace.least_epsilon(inputs, "linf")
    epsilon = least.median().item()
    calls = []

    def wears_out(model, inputs, labels):
        calls.append(len(inputs))
        if len(calls) == 3:
            raise OSError("no space left")
        return attacks.fgsm(model, inputs, labels, epsilon=epsilon)

    report = evaluate(
        halfspace,
        inputs,
        labels,
        epsilon=epsilon,
        attacks={"worn": wears_out, "none": identity},
        chunk_size=5,
        survivors_only=survivors_only,
    )
    worn = report.attacks[0]
    # By the closed form: two chunks attacked, the other two not, and no third try.
    fallen = int((least[:10] < 0.999 * epsilon).sum())
    assert len(calls) == 3
    assert (worn.attacked, worn.fooled) == (10, pytest.approx(fallen, abs=1))
    assert worn.success_rate == worn.fooled / 10
    assert worn.robust_accuracy == report.robust_accuracy == 1 - worn.fooled / 20
    assert "worn stopped after 10 examples: OSError: no space left" in " ".join(str(report).split())
    assert report.attacks[1].attacked == (20 - worn.fooled if survivors_only else 20)


def test_where_every_attack_fails_the_error_names_them_and_keeps_the_first(halfspace, examples):
    sentence = (
        "attacks must hold at least one that runs, got none: 'a' raised ZeroDivisionError: "
        "division by zero; 'b' raised RuntimeError"
    )

    def nothing(model, inputs, labels):
        raise RuntimeError

    with pytest.raises(AttackError, match=f"^{re.escape(sentence)}$") as caught:
        evaluate(halfspace, *examples(4), epsilon=0.1, attacks={"a": divided_by_zero, "b": nothing})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_state_file_keeps_nothing_of_attacks_that_never_ran(halfspace, examples, tmp_path):
    inputs, labels = examples(8)
    settings = {"epsilon": 0.1, "random_state": 0, "state_file": tmp_path / "state"}
    with pytest.raises(AttackError):
        evaluate(halfspace, inputs, labels, attacks={"a": divided_by_zero}, **settings)
    report = evaluate(halfspace, inputs, labels, attacks={"a": attacks.fgsm}, **settings)
    assert report.attacks[0].error is None


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_interruptions_and_a_full_memory_end_the_evaluation_with_the_attacks_name(
    halfspace, examples, error
):
    def stopped(model, inputs, labels):
        raise error

    with pytest.raises(type(error)) as caught:
        evaluate(halfspace, *examples(4), epsilon=0.1, attacks={"none": identity, "mine": stopped})
    assert caught.value is error
    assert error.__notes__ == ["raised in evaluate's attack 'mine'"]


# Curves, histograms, transfer.


def curve(**settings):
    def call(model, inputs, labels):
        return robustness_curve(model, inputs, labels, **settings)

    return call


def matrix(models, attack, **settings):
    def call(model, inputs, labels):
        return transfer_matrix(models, attack, inputs, labels, **settings)

    return call


class Fitted:
    """An estimator with classes of its own."""

    def __init__(self, classes):
        self.model_ = nn.Linear(2, 2)
        self.classes_ = np.array(classes)


MEASURED = [
    (
        curve(minimum_distance=attacks.pgd),
        ValueError,
        "minimum_distance must look for the nearest adversarial example, got pgd, which looks "
        "within an epsilon; pass it as budget, with epsilons",
    ),
    (
        curve(budget=["fgsm", "ddn"], epsilons=[0.1]),
        ValueError,
        "budget[1] must look within an epsilon, got ddn, which looks for the nearest adversarial "
        "example; pass it as minimum_distance",
    ),
    (
        curve(budget=identity, epsilons=[0.1]),
        TypeError,
        "budget must be a function (model, inputs, labels, *, epsilon, norm) -> Tensor, got "
        "identity, which cannot be called so: got an unexpected keyword argument 'epsilon'",
    ),
    (
        curve(budget="standard", epsilons=[0.1]),
        ValueError,
        f"budget must be one of {OURS}, got 'standard'",
    ),
    (
        curve(budget=partial(attacks.pgd, norm="l2"), epsilons=[0.1]),
        ValueError,
        "budget must work in the norm of the curve, 'linf', got norm='l2'",
    ),
    (
        curve(minimum_distance={"a": "ddn"}),
        TypeError,
        f"minimum_distance['a'] {FUNCTION} the text 'ddn'; a list takes names, a mapping takes "
        "functions",
    ),
    (
        curve(minimum_distance="deepfool", norm="l1"),
        ValueError,
        "minimum_distance must work in the norm of the evaluation, 'l1', got deepfool, which knows "
        "'l2' and 'linf'; leave it out, or name a norm of its own: "
        "functools.partial(attacks.deepfool, norm='l2')",
    ),
    (
        curve(minimum_distance="ddn", budget="pgd"),
        ValueError,
        "epsilons must hold the radii for budget, got ()",
    ),
    (
        curve(),
        ValueError,
        "robustness_curve must get minimum_distance attacks or a budget attack with epsilons, "
        "got minimum_distance=None and epsilons=()",
    ),
    (
        curve(budget="pgd", epsilons=[0.1, -0.1]),
        ValueError,
        "epsilons must be a finite number of at least 0, got -0.1",
    ),
    (
        curve(budget="pgd", epsilons="0.1"),
        TypeError,
        "epsilons must be a number, got '0.1'",
    ),
    (
        curve(minimum_distance=lambda m, x, y: x[:1]),
        ValueError,
        "attack '<lambda>' must return one point per input, shape (4, 2), got (1, 2)",
    ),
    (
        matrix({}, identity),
        ValueError,
        "models must hold at least one model, got none",
    ),
    (
        matrix(nn.Linear(2, 2), identity),
        TypeError,
        "models must be a mapping from names to models or a list of models, got Linear",
    ),
    (
        matrix({"a": 3}, identity),
        TypeError,
        "models['a'] must be a module or a callable from inputs to logits, got 3",
    ),
    (
        matrix([Fitted([0, 1]), Fitted(["no", "yes"])], identity),
        ValueError,
        "models must know the same classes, got [0, 1] in 'Fitted' and ['no', 'yes'] in 'Fitted 2'",
    ),
    (
        matrix([nn.Identity()], attacks.fgsm),
        ValueError,
        "epsilon must be given, because fgsm looks within a radius, got None",
    ),
    (
        matrix({1: nn.Identity(), "1": nn.Identity()}, "fgsm", epsilon=0.1),
        ValueError,
        "models must have names that differ as text, got [1, '1']",
    ),
    (
        matrix([nn.Identity()], ["fgsm", "pgd"], epsilon=0.1),
        TypeError,
        "attack must be the name of an attack or a function (model, inputs, labels) -> Tensor, "
        "got list; call transfer_matrix once for each attack",
    ),
    (
        lambda model, inputs, labels: matrix({"a": model}, "fgsm", epsilon=0.1)(
            model, inputs, labels + 7
        ),
        ValueError,
        "y must be classes from 0 to 1, got values in [7, 8]",
    ),
    (
        lambda model, inputs, labels: curve(budget="fgsm", epsilons=[0.1])(
            model, inputs, labels + 1
        ),
        ValueError,
        "y must be classes from 0 to 1, got values in [1, 2]; if they count from 1, write y - 1",
    ),
    (
        matrix([nn.Identity()], "fgms", epsilon=0.1),
        ValueError,
        f"attack must be one of {OURS}, got 'fgms'; did you mean 'fgsm'?",
    ),
    (
        lambda model, inputs, labels: gradient_histogram(model, inputs, edges=[1.0, 0.5]),
        ValueError,
        "edges must be at least two ascending numbers, got [1.0, 0.5]",
    ),
    (
        lambda model, inputs, labels: confidence_histogram(model, inputs, bins=0),
        ValueError,
        "bins must be at least 1, got 0",
    ),
    (
        lambda model, inputs, labels: confidence_histogram(model, inputs[:0]),
        ValueError,
        "X must hold at least one example, got none",
    ),
    (
        lambda model, inputs, labels: gradient_histogram(model, inputs / 0),
        ValueError,
        "X must be finite, got NaN or infinity",
    ),
    (
        lambda model, inputs, labels: confidence_histogram(lambda x: x.softmax(1), inputs),
        ValueError,
        "model must return logits, got rows in [0, 1] that sum to 1; remove the final softmax "
        "(gradients through it vanish and attacks then mislead)",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), MEASURED)
def test_a_mistake_in_curves_histograms_and_transfer_gets_its_sentence(call, error, sentence):
    inputs = torch.tensor([[0.9, 0.2], [0.8, 0.5], [0.1, 0.2], [0.3, 0.9]])
    model = nn.Identity()
    with pytest.raises(error, match=f"^{re.escape(sentence)}") as caught:
        call(model, inputs, model(inputs).argmax(dim=1))
    assert str(caught.value) == sentence


def test_an_error_inside_a_curve_or_a_matrix_names_the_attack():
    inputs, labels = torch.tensor([[0.9, 0.2]]), torch.tensor([0])
    for call, place in (
        (curve(minimum_distance=divided_by_zero), "robustness_curve's attack 'divided_by_zero'"),
        (
            matrix({"a": nn.Identity()}, divided_by_zero),
            "transfer_matrix's attack 'divided_by_zero' on 'a'",
        ),
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            call(nn.Identity(), inputs, labels)
        assert caught.value.__notes__ == [f"raised in {place}"]


def test_an_error_in_the_clean_pass_of_a_matrix_names_the_model():
    def broken(inputs):
        raise ZeroDivisionError

    call = matrix({"a": nn.Identity(), "b": broken}, "fgsm", epsilon=0.1)
    with pytest.raises(ZeroDivisionError) as caught:
        call(nn.Identity(), torch.tensor([[0.9, 0.2]]), torch.tensor([0]))
    assert caught.value.__notes__ == ["raised in transfer_matrix's clean pass through 'b'"]
