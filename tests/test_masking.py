"""Findings: for each a model that shows it and one that does not."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from distillguard import attacks, evaluate
from distillguard.functional import cross_entropy, soft_cross_entropy, softmax

EPSILON = 0.15
MASKED = {"zero-gradients", "saturated-softmax", "margin-beats-cross-entropy"}


def train(model, inputs, targets, steps, *, temperature=1.0, epsilon=0.0):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        points = inputs
        if epsilon:
            points = attacks.pgd(
                model,
                inputs,
                targets.argmax(dim=1),
                epsilon=epsilon,
                steps=2,
                early_stop=False,
                batch_size=len(inputs),
                random_state=0,
            )
        optimizer.zero_grad()
        soft_cross_entropy(model(points), targets, temperature).mean().backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y)
    return (inputs[:1200], labels[:1200]), (inputs[1200:], labels[1200:])


@pytest.fixture(scope="module")
def networks(digits):
    """Small networks on real digits by name, each with the held-out digits it is judged on."""
    (inputs, labels), _ = digits
    hard = nn.functional.one_hot(labels, 10).float()

    def fresh():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))

    def distilled(temperature):
        start = train(fresh(), inputs, hard, 20)
        teacher = train(copy.deepcopy(start), inputs, hard, 100, temperature=temperature)
        soft = softmax(teacher(inputs).detach(), temperature)
        return train(start, inputs, soft, 100, temperature=temperature)

    return {
        "undefended": train(fresh(), inputs, hard, 80),
        "T=20": distilled(20.0),
        "T=100": distilled(100.0),
        "adversarially trained": train(fresh(), inputs, hard, 60, epsilon=EPSILON),
    }


def judged(model, digits, **settings):
    _, (inputs, labels) = digits
    return evaluate(model, inputs, labels, epsilon=EPSILON, random_state=0, **settings)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("undefended", set()),
        ("T=20", MASKED),
        ("T=100", MASKED),
        ("adversarially trained", set()),
    ],
)
def test_distilled_networks_raise_the_three_findings_and_others_none(networks, digits, name, codes):
    report = judged(networks[name], digits, attacks="quick")
    assert {finding.code for finding in report.findings} == codes
    assert report.clean_accuracy > 0.85
    assert report.headline.startswith("WARNING") == bool(codes)


def test_the_warning_does_not_depend_on_the_attacks_passed(networks, digits):
    def cross_entropy_only(model, inputs, labels):
        return attacks.pgd(model, inputs, labels, epsilon=EPSILON, random_state=0)

    report = judged(networks["T=100"], digits, attacks={"PGD": cross_entropy_only})
    assert report.robust_accuracy > 0.6
    assert report.quoted_accuracy < 0.15
    first = str(report).splitlines()[0]
    assert first.startswith(f"WARNING: quote {100 * report.quoted_accuracy:.1f} %")
    assert f"not {100 * report.robust_accuracy:.1f} %" in first


def test_the_share_of_zero_gradients_is_counted_exactly(networks, digits):
    model, (_, (inputs, labels)) = networks["T=100"], digits
    correct = model(inputs).argmax(dim=1) == labels
    inputs, labels = inputs[correct][:100], labels[correct][:100]
    expected = 0
    for x, label in zip(inputs, labels, strict=True):
        point = x[None].clone().requires_grad_()
        cross_entropy(model(point), label[None]).sum().backward()
        expected += int(point.grad.count_nonzero() == 0)
    report = evaluate(model, inputs, labels, epsilon=EPSILON, attacks="quick")
    assert report.observations.sampled == 100
    assert report.observations.zero_gradients == expected


def test_underflow_is_told_from_flatness(networks, digits):
    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = networks["undefended"]

        def forward(self, inputs):
            return 1000 * self.model(inputs)

    class Quantised(Loud):
        def forward(self, inputs):
            return self.model((inputs * 4).round() / 4)

    loud, quantised = (judged(model(), digits, attacks="quick") for model in (Loud, Quantised))
    (loud_zero,) = (f for f in loud.findings if f.code == "zero-gradients")
    (flat_zero,) = (f for f in quantised.findings if f.code == "zero-gradients")
    assert "underflows" in loud_zero.meaning
    assert loud_zero.figures["share_scaled"] == 0
    assert "itself is flat" in flat_zero.meaning
    assert flat_zero.figures["share_scaled"] == flat_zero.figures["share_float64"] == 1
    assert {f.code for f in loud.findings} == MASKED
    assert "saturated-softmax" not in {f.code for f in quantised.findings}


def test_a_softmax_rounded_to_one_at_the_top_is_not_saturated():
    """Undefended networks do that all the time; only exact zeros for the others count."""

    def model(gap):
        return lambda inputs: gap * torch.stack([inputs[:, 0], inputs[:, 1] - 1], dim=1)

    inputs, labels = torch.ones(100, 2), torch.zeros(100).long()
    for gap, saturated in ((30.0, 0), (103.0, 0), (105.0, 100)):
        report = evaluate(model(gap), inputs, labels, epsilon=0.1, attacks="quick")
        top, other = torch.softmax(model(gap)(inputs), dim=1).unbind(dim=1)
        assert (top == 1).all()
        assert int((other == 0).sum()) == saturated == report.observations.saturated


def test_a_model_without_correct_examples_has_nothing_to_diagnose(halfspace, examples):
    inputs, labels = examples(20)
    report = evaluate(halfspace, inputs, 1 - labels, epsilon=0.1)
    assert report.clean_accuracy == report.robust_accuracy == 0
    assert report.findings == ()
    assert report.observations.sampled == 0


def test_what_the_diagnosis_spent_is_counted(networks, digits):
    calls = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = networks["T=20"]

        def forward(self, inputs):
            calls.append(len(inputs))
            return self.model(inputs)

    report = judged(Watched(), digits, attacks="quick")
    spent = sum(cost.forwards for cost in report.costs.values())
    spent += sum(round(row.forwards * row.attacked) for row in report.attacks)
    assert spent == sum(calls)
