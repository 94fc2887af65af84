"""`evaluate` adapts to what its diagnosis finds: broken defences are worth what their twins are."""

import json
import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import Watch, with_damaged_digits
from distillguard import UndefendedClassifier, attacks, datasets, evaluate
from distillguard.adaptive import straight_through
from distillguard.evaluation import RobustnessReport, _adapted_forms
from distillguard.evaluation._readout import ReadOut
from distillguard.evaluation._stand_ins import before_head, live_features, over_front, over_parts

EPSILON = 0.3
N = 50
PGD = {"PGD": partial(attacks.pgd, loss="margin", steps=40)}
SETTINGS = {"epsilon": EPSILON, "attacks": PGD, "diagnosis": "brief", "random_state": 0}


class Detached(nn.Module):
    """Five levels, computed where autograd cannot follow."""

    def forward(self, x):
        return (x.detach() * 4).round() / 4


class Rounded(nn.Module):
    """Sixteen levels, with a gradient that is zero."""

    def forward(self, x):
        return (x * 16).round() / 16


class Noisy(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


class Hundredfold(nn.Module):
    def forward(self, logits):
        return 100 * logits


class Front(nn.Module):
    """Levels in the code of forward, where no module can be stepped over."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network((x.detach() * 4).round() / 4)


class Nearest(nn.Module):
    """Votes of the nearest examples, by the features of a network."""

    def __init__(self, network, inputs, labels):
        super().__init__()
        self.features, self.labels = network[:-1], labels
        self.known = self.features(inputs).detach()

    def forward(self, x):
        distances = torch.cdist(self.features(x).detach(), self.known)
        nearest = distances.topk(9, largest=False).indices
        return nn.functional.one_hot(self.labels[nearest], 10).sum(dim=1).float()


class Thermometer(nn.Module):
    """Each pixel as ten steps: ten times as many numbers, and no graph."""

    def forward(self, x):
        return (x.flatten(1)[:, :, None] > torch.arange(10) / 10).float().flatten(1)


@pytest.fixture(scope="module")
def train():
    return datasets.load_digits("train")


@pytest.fixture(scope="module")
def data():
    inputs, labels = datasets.load_digits("test")
    return inputs[:N], labels[:N]


@pytest.fixture(scope="module")
def network(train):
    return UndefendedClassifier(max_epochs=10, random_state=0).fit(*train).model_


@pytest.fixture(scope="module")
def thermometer(train):
    inputs, labels = train
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(640, 64), nn.ReLU(), nn.Linear(64, 10))
    model = nn.Sequential(Thermometer(), inner)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(8):
        for rows in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def defences(network):
    return {
        "detached": nn.Sequential(Detached(), network),
        "rounded inside": nn.Sequential(nn.Sequential(nn.Identity(), Rounded()), network),
        "in forward": Front(network),
        "a function": lambda x: network(torch.from_numpy((x.detach().numpy() * 4).round() / 4)),
        "noisy and rounded": nn.Sequential(Noisy(), Rounded(), network),
        "labels alone": lambda x: 5.0 * nn.functional.one_hot(network(x).argmax(dim=1), 10),
        "saturated": nn.Sequential(network, Hundredfold(), nn.Softmax(dim=1)),
    }


@pytest.fixture(scope="module")
def undefended(network, data):
    report = evaluate(network, *data, **SETTINGS)
    assert report.clean_accuracy > 0.9
    assert report.robust_accuracy < 0.15
    return report


@pytest.mark.parametrize("name", defences(None))
def test_a_broken_defence_is_quoted_within_5_points_of_its_twin(name, network, data, undefended):
    model = defences(network)[name]
    report = evaluate(model, *data, adapt=True, **SETTINGS)
    assert report.quoted_accuracy <= undefended.robust_accuracy + 0.05
    adapted = report.adaptation
    assert report.quoted_accuracy == pytest.approx(
        report.robust_accuracy
        - (report.observations.n_fooled_by_diagnosis + adapted.fooled) / report.n_examples
    )
    blind = evaluate(model, *data, adapt=False, **SETTINGS)
    assert blind.adaptation is None
    assert "adaptation" not in blind.costs
    assert blind.robust_accuracy == report.robust_accuracy


ELSEWHERE = {}
"""A network that no look at a function finds, as one behind a service."""


def elsewhere(x):
    return ELSEWHERE["network"](x)


def test_a_model_that_tells_the_class_alone_is_searched_by_labels_before_a_student(network, data):
    """Of its like with margins the search asks nothing; neither is asked beyond the bounds."""

    def bounded(x):
        assert ((x >= 0) & (x <= 1)).all()
        return network(x)

    ELSEWHERE["network"], told = bounded, {}
    for name, answer in (
        ("labels", lambda x: 5.0 * nn.functional.one_hot(elsewhere(x).argmax(dim=1), 10)),
        ("margins", lambda x: elsewhere(x).detach()),
    ):
        report = evaluate(answer, *data, **SETTINGS, adapt=True)
        told[name] = [row.name for row in report.adaptation.attacks]
    assert told["labels"][0] == "RayS, by labels"
    assert not any(name.startswith("RayS") for name in told["margins"])


def test_what_has_no_gradient_after_its_features_falls_along_them(network, train, data):
    model, watch = Nearest(network, *train), Watch()
    model.register_forward_hook(watch)
    report = evaluate(model, *data, adapt=True, **SETTINGS)
    adapted = report.adaptation
    assert (
        "its ReLU, through a linear layer that learned 4000 of its answers" in adapted.remedies[0]
    )
    first = [row for row in adapted.attacks if row.name.endswith("along a readout")]
    assert first[-1].robust_accuracy <= 0.1
    costs = sum(cost.forwards for cost in report.costs.values())
    (row,) = report.attacks
    assert watch.forwards == costs + round(row.forwards * max(row.attacked, 1))


def test_a_thermometer_code_falls_to_a_student_of_its_answers(thermometer, data):
    blind = evaluate(thermometer, *data, adapt=False, **SETTINGS)
    report = evaluate(thermometer, *data, adapt=True, **SETTINGS)
    assert blind.quoted_accuracy > 0.9
    through = evaluate(straight_through(thermometer, part="0", backward=ramps), *data, **SETTINGS)
    assert report.quoted_accuracy <= through.robust_accuracy + 0.05


def ramps(x):
    """Thermometer, each step as a slope as long as the radius."""
    lead = x.flatten(1)[:, :, None] - torch.arange(10) / 10
    return (lead / (2 * EPSILON) + 0.5).clamp(0, 1).flatten(1)


def test_what_adaptation_finds_is_judged_on_the_model_itself(network, data):
    model = nn.Sequential(Detached(), network)
    inputs, labels = data
    report = evaluate(model, inputs, labels, adapt=True, **SETTINGS)
    twin = straight_through(model, part="0")
    points = attacks.pgd(twin, inputs, labels, epsilon=EPSILON, loss="margin", random_state=0)
    fooled = (model(points).argmax(dim=1) != labels) & (model(inputs).argmax(dim=1) == labels)
    row = report.adaptation.attacks[0]
    assert row.name == "PGD margin, past its parts"
    assert row.fooled >= int(fooled.sum()) > N / 2
    assert "'0' (Detached) with the gradient of the identity" in report.adaptation.remedies[0]


class Remembering(nn.Module):
    """Saturated, and sure of the class of whatever clean example is nearest."""

    def __init__(self, network, inputs):
        super().__init__()
        self.network, self.inputs = network, inputs
        self.known = 100 * network(inputs).detach()

    def forward(self, x):
        distances, nearest = torch.cdist(x.flatten(1), self.inputs.flatten(1)).min(dim=1)
        known = self.known[nearest]
        own = 100 * self.network(x)
        return torch.where(distances[:, None] < 1e-3, own, known).softmax(dim=1)


def test_points_that_fool_what_attacks_follow_and_not_the_model_do_not_count(
    network, data, monkeypatch
):
    monkeypatch.setattr(_adapted_forms, "QUESTIONS", 50)
    monkeypatch.setattr(_adapted_forms, "QUERIES", 5)
    few = [part[:20] for part in data]
    settings = {**SETTINGS, "epsilon": 0.2}
    report = evaluate(Remembering(network, few[0]), *few, adapt=True, **settings)
    assert evaluate(network, *few, **settings).robust_accuracy < 0.5
    assert "the output of its" in report.adaptation.remedies[0]
    assert report.adaptation.fooled == 0
    assert report.adaptation.attacked == report.n_robust


def test_passes_of_the_adaptation_have_an_account_of_their_own(network, data):
    model = nn.Sequential(nn.Sequential(Noisy(), network))
    settings = {**SETTINGS, "epsilon": 0.12}
    twin = evaluate(network, *data, **settings)
    settings["attacks"] = {"none": lambda model, x, y: model(x) is None or x}
    both = []
    for adapt in (False, True):
        watch = Watch()
        handle = model.register_forward_hook(watch)
        report = evaluate(model, *data, adapt=adapt, **settings)
        handle.remove()
        costs = report.costs
        row = report.attacks[0]
        own = [sum(getattr(c, way) for c in costs.values()) for way in ("forwards", "backwards")]
        own[0] += round(row.forwards * row.attacked)
        assert own == [watch.forwards, watch.backwards]
        both.append(costs)
    assert {k: (c.forwards, c.backwards) for k, c in both[0].items()} == {
        k: (c.forwards, c.backwards) for k, c in both[1].items() if k != "adaptation"
    }
    left = report.n_robust - report.observations.n_fooled_by_diagnosis
    assert 0 < report.adaptation.standing == left < report.n_robust
    assert "the mean over 20 draws (EOT)" in report.adaptation.remedies[0]
    assert report.quoted_accuracy <= twin.robust_accuracy + 0.05
    rows = report.adaptation.attacks
    spent = sum(round(row.forwards * row.attacked) for row in rows)
    assert 0 < spent <= both[1]["adaptation"].forwards


def test_a_network_without_findings_is_not_attacked_again_and_pays_nothing(network, data):
    report = evaluate(network, *data, adapt=True, **SETTINGS)
    assert report.findings == ()
    assert report.adaptation is None
    assert "adaptation" not in report.costs


@pytest.mark.parametrize(("loss", "again"), [("margin", False), ("cross_entropy", True)])
def test_a_saturated_softmax_is_attacked_again_only_where_no_attack_climbed_the_margin(
    loss, again, network, data
):
    saturated = nn.Sequential(network, Hundredfold(), Hundredfold())
    pgd = {"PGD": partial(attacks.pgd, loss=loss, steps=10)}
    settings = SETTINGS | {"attacks": pgd, "epsilon": 0.05, "diagnosis": "full", "adapt": True}
    report = evaluate(saturated, *(part[:25] for part in data), **settings)
    assert {"saturated-softmax", "zero-gradients"} <= {each.code for each in report.findings}
    assert 0 < report.quoted_accuracy < 1
    names = [row.name for row in report.adaptation.attacks]
    assert ("PGD margin, again" in names) == again


@pytest.mark.parametrize(("attack", "adapts"), [("standard", True), ("quick", False)])
def test_only_standard_attacks_are_adapted_unless_asked(attack, adapts, monkeypatch):
    monkeypatch.setattr(_adapted_forms, "QUESTIONS", 100)
    torch.manual_seed(0)
    model, inputs = nn.Sequential(Detached(), nn.Linear(4, 3)), torch.rand(12, 4)
    labels = model(inputs).argmax(dim=1)
    report = evaluate(model, inputs, labels, epsilon=0.01, attacks=attack, random_state=0)
    assert "interrupted-graph" in {finding.code for finding in report.findings}
    assert (report.adaptation is not None) == adapts


def test_adaptation_without_a_diagnosis_is_refused(network, data):
    with pytest.raises(ValueError, match="adapt must be False or 'auto' where diagnosis is None"):
        evaluate(network, *data, epsilon=0.1, diagnosis=None, adapt=True)
    with pytest.raises(ValueError, match="adapt must be one of"):
        evaluate(network, *data, epsilon=0.1, adapt="always")


def figures(report):
    adapted = report.adaptation
    return (
        report.quoted_accuracy,
        [(row.name, row.attacked, row.fooled) for row in adapted.attacks],
        [(row.forwards, row.backwards) for row in adapted.attacks],
    )


def test_chunks_and_a_state_file_change_no_figure(network, data, tmp_path):
    model, settings = nn.Sequential(Rounded(), network), {**SETTINGS, "adapt": True}
    whole = evaluate(model, *data, **settings)
    cut = evaluate(model, *data, chunk_size=17, **settings)
    settings["state_file"] = tmp_path / "state"
    first = evaluate(model, *data, **settings)
    again = evaluate(model, *data, **settings)
    assert whole.quoted_accuracy < whole.robust_accuracy
    assert figures(whole)[:2] == figures(cut)[:2]
    assert figures(whole) == figures(first) == figures(again)


SCRIPT = """
    import os, sys
    import torch
    from torch import distributed, nn
    from distillguard import datasets, evaluate
    from test_adaptation import N, SETTINGS, Rounded

    torch.set_num_threads(1)
    folder, rank = sys.argv[1:]
    distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=int(rank), world_size=2
    )
    inputs, labels = datasets.load_digits("test")
    model = nn.Sequential(Rounded(), torch.load(f"{folder}/network.pt", weights_only=False))
    report = evaluate(model, inputs[:N], labels[:N], adapt=True, **SETTINGS)
    report.to_json(f"{folder}/{rank}.json")
"""


def test_two_processes_adapt_as_one_does(network, data, tmp_path):
    torch.save(network, tmp_path / "network.pt")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    root = str(Path(__file__).parent)
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    command = [sys.executable, str(script), str(tmp_path)]
    base = {k: v for k, v in os.environ.items() if not k.startswith(("MASTER_", "WORLD", "RANK"))}
    base["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    running = [subprocess.Popen([*command, rank], env=base) for rank in "01"]
    alone = evaluate(nn.Sequential(Rounded(), network), *data, adapt=True, **SETTINGS)
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    first, second = (RobustnessReport.from_json(tmp_path / f"{rank}.json") for rank in "01")
    assert first.adaptation == second.adaptation
    assert figures(first)[:2] == figures(second)[:2] == figures(alone)[:2]
    # But for the few examples that each process looks at first, passes are those of one.
    for (two, _), (one, _) in zip(figures(first)[2], figures(alone)[2], strict=True):
        assert one <= two < 1.7 * one


def test_data_that_are_read_once_are_attacked_again_as_far_as_they_are_kept(network, data):
    model = nn.Sequential(Detached(), network)
    stream = ((x, y) for x, y in zip(*(part.split(20) for part in data), strict=True))
    report = evaluate(model, stream, adapt=True, **SETTINGS)
    whole = evaluate(model, *data, adapt=True, **SETTINGS)
    assert report.adaptation.attacked == whole.adaptation.attacked  # all of so few are kept
    assert report.quoted_accuracy == whole.quoted_accuracy


def test_the_report_says_what_was_done_and_both_figures(network, data):
    model = nn.Sequential(Detached(), network)
    report = evaluate(model, *data, adapt=True, **SETTINGS)
    asked, quoted = (
        f"{100 * share:.1f} %" for share in (report.robust_accuracy, report.quoted_accuracy)
    )
    assert asked != quoted
    assert "attacks adapted to the findings fooled" in report.headline
    for text in (str(report), report.to_markdown(), report.to_html()):
        words = " ".join(text.replace("&#39;", "'").replace("\\", "").split())
        assert "Attacked again because of interrupted-graph" in words
        assert (
            f"The attacks passed left {asked}; after all that was tried {quoted} are left" in words
        )
        assert "PGD margin, past its parts" in words
    assert "past its parts" in report.to_latex()
    assert RobustnessReport.from_json(report.to_json()) == report
    assert RobustnessReport.from_json(json.dumps(with_damaged_digits(report.to_dict()))) == report
    old = report.to_dict()
    del old["adaptation"]
    with pytest.raises(ValueError, match="contradict"):
        RobustnessReport.from_json(json.dumps(old))
    forged = report.to_dict()
    forged["adaptation"]["attacks"][0]["fooled"] -= 1
    with pytest.raises(ValueError, match="adaptation"):
        RobustnessReport.from_json(json.dumps(forged))


class MixedBatch(nn.Module):
    """Answers by the mean of the batch."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x - x.mean(dim=0, keepdim=True))


def test_what_cannot_be_adapted_to_is_said(network, data):
    report = evaluate(MixedBatch(network), *data, adapt=True, **{**SETTINGS, "epsilon": 0.01})
    assert "no attack is adapted to unstable-predictions" in report.adaptation.failed
    assert "Could not be adapted to: no attack" in " ".join(str(report).split())


# The search for what hides the gradient


def test_of_several_modules_each_that_hides_the_gradient_is_stepped_over():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), Rounded(), nn.Linear(4, 3))
    model = nn.Sequential(nn.Sequential(Detached()), nn.Flatten(), inner)
    inputs = torch.rand(8, 4)
    found = over_parts(model, model, inputs)
    assert torch.equal(found(inputs), model(inputs))
    asked = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(found(asked)[:, 0].sum(), asked)
    expected = inner[2].weight[0] @ inner[0].weight
    torch.testing.assert_close(slope, expected.expand_as(slope))


def test_a_front_is_stepped_over_where_a_network_takes_as_many_numbers():
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    model = lambda x: linear((x.flatten(1).detach() * 3).round())  # noqa: E731
    inputs = torch.rand(8, 2, 2)
    found = over_front(model, model, inputs)
    assert torch.equal(found(inputs), model(inputs))
    asked = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(found(asked)[:, 1].sum(), asked)
    torch.testing.assert_close(slope.flatten(1), linear.weight[1].expand(8, 4))


def test_before_a_head_that_quantises_stand_the_logits():
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    model = nn.Sequential(linear, nn.Softmax(dim=1), Rounded())
    inputs = torch.eye(4)[:2] * 8
    found = before_head(model, model, inputs)
    asked = inputs.clone().requires_grad_()
    assert torch.equal(found(asked), model[:2](inputs)) or torch.equal(found(asked), linear(inputs))
    (slope,) = torch.autograd.grad(found(asked)[:, 1].sum(), asked)
    assert bool((slope != 0).any())


def test_features_are_the_last_output_inside_with_a_gradient():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    inputs = torch.rand(8, 4)
    for head in (
        lambda features: features.detach(),
        lambda features: torch.from_numpy(features.numpy()),  # which refuses the gradient
    ):
        model = lambda x: head(network[1](network[0](x)))  # noqa: B023, E731
        found = live_features(model, model, inputs)
        assert found.inside is network[1]
        asked = inputs.clone().requires_grad_()
        assert torch.equal(found(asked), network[:2](inputs))
        assert torch.autograd.grad(found(asked).sum(), asked)[0].any()
    assert live_features(network, network, inputs) is None
    assert live_features(nn.Sequential(Detached(), network), network[:0], inputs) is None


def test_a_readout_has_the_gradient_of_the_features_that_the_answers_are_linear_in():
    torch.manual_seed(0)
    inside = nn.Linear(4, 5)
    told = 0.1 * torch.randn(5, 3)
    told -= told.mean(dim=1, keepdim=True)

    def model(x):
        return (1 / 3 + inside(x).detach() @ told).log()

    inputs = torch.rand(500, 4)
    features = live_features(model, model, inputs[:8])
    found = ReadOut(model, model, features, inputs)
    assert torch.equal(found(inputs), model(inputs))
    asked = inputs[:8].clone().requires_grad_()
    (slope,) = torch.autograd.grad(found(asked)[:, 1].sum(), asked)
    expected = told[:, 1] @ inside.weight.detach()
    torch.testing.assert_close(slope, expected.expand(8, 4), rtol=0.05, atol=1e-3)


def test_nothing_is_stepped_over_where_nothing_hides_the_gradient(network, data):
    assert over_parts(network, network, data[0][:8]) is None


def test_what_cannot_be_stepped_over_is_refused():
    network = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="part must be None where before is given"):
        straight_through(network, part="0", before=network)
    with pytest.raises(ValueError, match="backward must be 'identity' where before is given"):
        straight_through(network, torch.round, before=network)
    with pytest.raises(TypeError, match="before must be a module inside target, got"):
        straight_through(lambda x: network(x), before="network")
    doubled = straight_through(lambda x: network(x[:, ::2]), before=network)
    with pytest.raises(ValueError, match="before must be a module that is given as many numbers"):
        doubled(torch.rand(2, 8))


def test_a_report_tells_of_no_attacks_that_no_remedy_brought():
    """On a saturated softmax the margin has been climbed, and nothing else is to be done."""
    torch.manual_seed(0)
    network, inputs = nn.Linear(4, 3), torch.rand(40, 4)
    network.requires_grad_(False).weight *= 1e4
    labels = network(inputs).argmax(dim=1)
    report = evaluate(network, inputs, labels, epsilon=0.01, random_state=0)
    assert report.adaptation.findings
    assert not report.adaptation.remedies
    assert "Attacked again" not in str(report)
