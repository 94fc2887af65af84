"""What `evaluate` makes of adaptive attacks: passes, findings, what the report says."""

import json

import pytest
import torch
from torch import nn

from distillguard import attacks, evaluate, networks
from distillguard.adaptive import averaged, gradient_from, straight_through
from distillguard.evaluation import RobustnessReport
from distillguard.evaluation.diagnosis._observations import Observations
from distillguard.evaluation.diagnosis._rules import findings

EPSILON = 0.2


class Quantise(nn.Module):
    def forward(self, x):
        return (x.detach() * 8).round() / 8


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.2 * torch.randn_like(x)


class Tally(list):
    """One for a network and all copies of it."""

    def __deepcopy__(self, memo):
        return self


class Counting(nn.Module):
    """The network inside, which counts what really passes through it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3, bias=False)
        self.linear.weight.data = 8 * torch.eye(3)
        self.seen = Tally([0, 0])
        self.calls = 0  # A change, so that a copy is asked too.

    def forward(self, x):
        self.calls += 1
        self.seen[0] += len(x)
        logits = self.linear(x)
        if logits.requires_grad:
            logits.register_hook(lambda g: self.seen.__setitem__(1, self.seen[1] + len(g)))
        return logits


@pytest.fixture
def data():
    torch.manual_seed(1)
    inputs = torch.rand(24, 3)
    return inputs, inputs.argmax(dim=1)


def pgd_on(model):
    def attack(_, inputs, labels):
        return attacks.pgd(model, inputs, labels, epsilon=EPSILON, loss="margin", random_state=0)

    return {"BPDA": attack}


def interruption(report):
    return next(f for f in report.findings if f.code == "interrupted-graph")


def spent(report):
    rows = [(r.forwards * r.attacked, r.backwards * r.attacked) for r in report.attacks]
    costs = [(cost.forwards, cost.backwards) for cost in report.costs.values()]
    return [round(sum(column)) for column in zip(*rows, *costs, strict=True)]


def nested(net):
    return {
        "averaged": averaged(nn.Sequential(Noise(), net), 3),
        "part": straight_through(nn.Sequential(Quantise(), net), part="0"),
        "averaged twice": averaged(networks.Normalized(averaged(net, 2), 0.1, 1.0), 3),
        "inside": nn.Sequential(straight_through(Quantise()), networks.Logits(averaged(net, 4))),
    }


@pytest.mark.parametrize("name", nested(Counting()))
@pytest.mark.parametrize("diagnosis", [None, "brief"])
def test_passes_through_wrappers_are_those_of_the_network_inside(name, diagnosis, data):
    net = Counting()
    # Learning what the network is costs nothing on the account, and is switched off here.
    report = evaluate(
        nested(net)[name],
        *data,
        epsilon=0.05,
        attacks={"PGD": attacks.pgd},
        diagnosis=diagnosis,
        random_state=0,
    )
    assert spent(report) == net.seen


def test_a_students_passes_count_as_forwards(data):
    net, student = Counting(), Counting()
    model = gradient_from(nn.Sequential(Quantise(), net), student)
    settings = {"attacks": {"PGD": attacks.pgd}, "diagnosis": None, "random_state": 0}
    report = evaluate(model, *data, epsilon=0.05, **settings)
    assert student.seen[0] > 0
    assert spent(report) == [net.seen[0] + student.seen[0], student.seen[1]]


def test_a_stand_in_of_ones_own_is_not_seen_and_its_passes_are_unknown(data):
    net = Counting()
    model = nn.Sequential(Quantise(), net)
    stand_in = nn.Sequential(nn.Identity(), net)
    report = evaluate(model, *data, epsilon=EPSILON, attacks=pgd_on(stand_in), random_state=0)
    assert report.robust_accuracy < 0.8
    row = report.attacks[0]
    assert row.forwards is row.backwards is None
    finding = interruption(report)
    assert finding.severity == "severe"
    assert "BPDA never queried it" in finding.evidence
    assert "No gradient attack could run" not in str(report)
    assert "BPDA never queried the model" in " ".join(str(report).split())
    assert ">unknown<" in report.to_html()
    assert report.to_csv().splitlines()[1].count(",,") >= 1
    assert RobustnessReport.from_json(report.to_json()) == report


def test_a_stand_in_of_ours_is_seen_wherever_it_is_asked(data, tmp_path):
    inputs, labels = data
    model = nn.Sequential(Quantise(), Counting().linear)
    stand_in = straight_through(model, part="0")

    def attack(_, x, y):
        stand_in(x)
        x = x.clone().requires_grad_()
        logits = stand_in(x)
        lead = logits.topk(2, dim=1).values @ torch.tensor([1.0, -1.0])
        (slope,) = torch.autograd.grad(lead.sum(), x)
        return (x - EPSILON * slope.sign()).clamp(0, 1).detach()

    settings = {"epsilon": EPSILON, "attacks": {"BPDA": attack}, "random_state": 0}
    settings["state_file"] = tmp_path / "state"
    report = evaluate(model, inputs, labels, **settings)
    assert (report.attacks[0].forwards, report.attacks[0].backwards) == (2, 1)
    told = "BPDA: '0' (Quantise) with the gradient of the identity (BPDA)"
    assert report.observations.stand_ins == (told,)
    assert interruption(report).severity == "notice"
    assert f"Queried in place of the model: {told}." in " ".join(str(report).split())
    assert not report.headline.startswith("WARNING")
    # Known from the file, without asking anything again.
    again = evaluate(model, inputs, labels, **settings)
    assert again.observations.stand_ins == (told,)


def test_a_stand_in_that_was_asked_about_the_first_examples_alone_is_seen_too(data):
    inputs, labels = data
    model = nn.Sequential(Quantise(), Counting().linear)
    told, chunks = [straight_through(model, part="0"), averaged(model, 2), None], []

    def attack(_, x, y):
        chunks.append(len(x))
        if (stand_in := told[min(len(chunks), 3) - 1]) is not None:
            stand_in(x)
        return x

    settings = {"epsilon": EPSILON, "attacks": {"one": attack}, "random_state": 0, "chunk_size": 5}
    report = evaluate(model, inputs, labels, diagnosis=None, **settings)
    assert len(chunks) > 2
    assert report.observations.stand_ins == (
        "one: '0' (Quantise) with the gradient of the identity (BPDA)",
        "one: the mean over 2 draws (EOT)",
    )


def test_a_model_that_was_given_a_gradient_has_no_interrupted_graph(data):
    model = nn.Sequential(Quantise(), Counting())
    settings = {"epsilon": EPSILON, "attacks": "quick", "random_state": 0}
    blind = evaluate(model, *data, **settings)
    report = evaluate(straight_through(model, part="0"), *data, **settings)
    assert interruption(blind).severity == "severe"
    assert "interrupted-graph" not in {finding.code for finding in report.findings}
    assert report.robust_accuracy < blind.robust_accuracy
    told = "'0' (Quantise) with the gradient of the identity (BPDA)"
    assert report.observations.adaptations == (told,)
    for text in (str(report), report.to_html(), report.to_markdown()):
        assert "the gradient of the identity (BPDA)" in " ".join(text.replace("&#39;", "'").split())
    assert json.loads(report.to_json())["observations"]["adaptations"] == [told]


def test_a_report_from_before_there_were_adaptations_is_read(data):
    report = evaluate(Counting(), *data, epsilon=EPSILON, attacks="quick", random_state=0)
    old = report.to_dict()
    for name in ("adaptations", "draws", "stand_ins", "unseen"):
        del old["observations"][name]
    assert RobustnessReport.from_json(json.dumps(old)) == report


def unmoved(model, inputs, labels):
    return inputs


class Fickle(nn.Module):
    """Right with probability 0.8 in each draw: by the mean of many, always."""

    def forward(self, x):
        right = torch.rand(len(x), 1) < 0.8
        return torch.where(right, x, -x)


def test_draws_judge_by_the_mean_so_that_no_single_lucky_draw_fools():
    inputs = torch.tensor([[0.9, 0.1]]).repeat(200, 1) + 0.05 * torch.rand(200, 2)
    labels = torch.zeros(200, dtype=torch.int64)
    settings = {"epsilon": 0.01, "attacks": {"none": unmoved}, "random_state": 0}
    settings |= {"diagnosis": None, "survivors_only": True}
    once = evaluate(Fickle(), inputs, labels, **settings)
    mean = evaluate(Fickle(), inputs, labels, draws=100, **settings)
    # Two draws of the same inputs: the clean pass, and the verdict.
    assert once.robust_accuracy == pytest.approx(0.8**2, abs=0.12)
    assert mean.clean_accuracy == mean.robust_accuracy == 1
    assert mean.observations.draws == 100
    assert mean.costs["clean pass"].forwards == 200 * 100


def test_a_verdict_has_draws_that_no_attack_has_seen(data):
    answers = []

    def model(x):
        answers.append(x + 0.01 * torch.randn_like(x))
        return answers[-1]

    seen = []

    def attack(model, x, y):
        seen.append(model(x))
        return x

    inputs, labels = data
    settings = {"attacks": {"one": attack}, "diagnosis": None, "random_state": 0}
    evaluate(model, inputs, labels, epsilon=0.1, **settings)
    assert torch.equal(answers[-2], seen[0])
    assert answers[-1].shape == seen[0].shape
    assert not torch.equal(answers[-1], seen[0])


@pytest.mark.parametrize(
    ("draws", "changed", "severity"),
    [(None, 0, "severe"), (1, 0, "severe"), (20, 0, "notice"), (20, 30, "severe")],
)
def test_means_over_draws_are_no_longer_told_to_be_averaged(draws, changed, severity):
    seen = Observations(
        correct=64, sampled=64, asked=64, logit_gap=0.01, changed=changed, draws=draws
    )
    (finding,) = findings(seen)
    assert (finding.code, finding.severity) == ("unstable-predictions", severity)
    assert ("adaptive.averaged(model, 20)" in finding.remedy) == (draws in (None, 1))
    assert ("draws=80" in finding.remedy) == (draws == 20)


@pytest.mark.parametrize("draws", [0, 1.5])
def test_draws_are_counted(draws, data):
    with pytest.raises((TypeError, ValueError), match="draws must be"):
        evaluate(Counting(), *data, epsilon=0.1, draws=draws)
