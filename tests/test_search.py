"""``precision`` and ``compile``: attacks search on a faster form, verdicts are the model's own."""

import pytest
import torch
from torch import nn

from distillguard import evaluate


class Precise(nn.Module):
    """Class 0 wherever it is asked, but for 1 above a half; under autocast always class 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.asked = {True: 0, False: 0}

    def forward(self, inputs):
        faster = torch.is_autocast_enabled(inputs.device.type)
        self.asked[faster] += len(inputs)
        lead = inputs.flatten(1)[:, :1] - 0.5
        lead = lead + 9 if faster else lead
        return torch.cat([-lead, lead], dim=1) * self.weight


def below(n=8):
    inputs = torch.full((n, 3), 0.25)
    inputs[:, 0] = torch.linspace(0.1, 0.45, n)
    return inputs, torch.zeros(n, dtype=torch.int64)


def test_what_falls_in_bfloat16_alone_is_robust():
    model, (inputs, labels) = Precise(), below()
    report = evaluate(
        model, inputs, labels, epsilon=0.04, attacks="quick", precision="bf16-mixed", random_state=0
    )
    # All of them "fall" where the attacks look, and none moves far enough.
    assert report.robust_accuracy == (inputs[:, 0] + 0.04 <= 0.5).double().mean()
    assert model.asked[True] > 0
    assert not {f.code for f in report.findings} & {"silent-success"}


def test_probabilities_are_logarithms_for_the_search_too(halfspace, examples):
    inputs, labels = examples(8)
    model, told = nn.Sequential(halfspace, nn.Softmax(dim=1)), []

    def attack(asked, x, y):
        told.append(asked(x))
        return x

    evaluate(model, inputs, labels, epsilon=0.05, attacks={"a": attack}, precision="bf16-mixed")
    torch.testing.assert_close(told[0].float().exp(), model(inputs).float(), rtol=0.05, atol=0.01)


def test_passes_of_the_search_are_counted_where_they_are_spent(halfspace, examples):
    inputs, labels = examples(40)
    settings = {"epsilon": 0.05, "attacks": "quick", "random_state": 0}
    plain = evaluate(halfspace, inputs, labels, **settings)
    faster = evaluate(halfspace, inputs, labels, **settings, precision="bf16-mixed")
    assert plain.attacks[0].forwards == faster.attacks[0].forwards == 1
    assert faster.robust_accuracy == pytest.approx(plain.robust_accuracy, abs=0.05)


def test_compiled_is_what_the_attacks_are_given_and_nothing_else(halfspace, examples, monkeypatch):
    asked = []

    def compiled(model, **settings):
        assert settings == {"dynamic": True}

        def form(inputs):
            asked.append(len(inputs))
            return model(inputs)

        return form

    monkeypatch.setattr(torch, "compile", compiled)
    inputs, labels = examples(40)
    settings = {"epsilon": 0.05, "attacks": "quick", "random_state": 0}
    plain = evaluate(halfspace, inputs, labels, **settings)
    assert not asked
    faster = evaluate(halfspace, inputs, labels, **settings, compile=True)
    assert faster.robust_accuracy == plain.robust_accuracy
    assert asked


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"precision": "fp8"},
            ValueError,
            "precision must be one of None, 'bf16-mixed', got 'fp8'",
        ),
        ({"compile": "yes"}, TypeError, "compile must be True or False, got 'yes'"),
    ],
)
def test_a_search_that_means_nothing_is_refused(halfspace, examples, change, error, message):
    with pytest.raises(error) as raised:
        evaluate(halfspace, *examples(4), epsilon=0.1, **change)
    assert str(raised.value) == message
