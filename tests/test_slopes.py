"""Several gradients of one answer, of models whose graph stands one backward pass only."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import attacks, evaluate
from distillguard._slopes import slopes
from distillguard.evaluation import gradient_histogram
from distillguard.testing import check_model


class Once(torch.autograd.Function):
    """The identity, which frees what it saved in its first backward pass, as compiled models do."""

    @staticmethod
    def forward(ctx, logits):
        ctx.spent = False
        return logits.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.spent:
            raise RuntimeError("compiled with non-empty donated buffers")
        ctx.spent = True
        return gradient


class OneBackward(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return Once.apply(self.network(inputs))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5)
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def examples(network):
    inputs = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return inputs, network(inputs).argmax(dim=1)


def test_gradients_of_a_linear_map_are_its_rows_and_none_where_nothing_depends():
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    point = torch.zeros(2, requires_grad=True)
    unrelated = torch.ones((), requires_grad=True)
    asked = []

    def answer():
        asked.append(1)
        values = Once.apply(rows @ point)
        return values[0], unrelated * 2, values[1]

    found = slopes(answer, point)
    assert torch.equal(found[0], rows[0])
    assert found[1] is None
    assert torch.equal(found[2], rows[1])
    assert len(asked) == 4  # the first, which failed, and one for each
    assert slopes(list, point) == []


def test_a_model_that_cannot_be_differentiated_at_all_says_so_itself():
    def answer():
        asked = torch.zeros(2, requires_grad=True)
        return asked.detach().unbind()

    with pytest.raises(RuntimeError, match="does not require grad"):
        slopes(answer, torch.zeros(2, requires_grad=True))


SEVERAL = {
    "fab_targeted": {"norm": "linf", "steps": 5, "target_order": "nearest"},
    "deepfool": {},
    "apgd_targeted": {"epsilon": 0.1, "steps": 5, "target_order": "nearest", "n_targets": 2},
}


@pytest.mark.parametrize("name", SEVERAL)
def test_attacks_on_several_logits_find_the_same_points(name, network, examples):
    attack = getattr(attacks, name)
    settings = SEVERAL[name] | ({} if name == "deepfool" else {"random_state": 0})
    expected = attack(network, *examples, **settings)
    assert torch.equal(attack(OneBackward(network), *examples, **settings), expected)
    assert not torch.equal(expected, examples[0])


def test_no_attack_of_standard_is_left_out(network, examples):
    settings = {"epsilon": 0.03, "random_state": 0, "diagnosis": None}
    report = evaluate(OneBackward(copy.deepcopy(network)), *examples, **settings)
    expected = evaluate(network, *examples, **settings)
    assert [row.error for row in report.attacks] == [None] * len(report.attacks)
    assert report.robust_accuracy == expected.robust_accuracy


def test_displays_and_checks_ask_for_several_gradients_too(network, examples):
    inputs, _ = examples
    counts = [gradient_histogram(model, inputs).counts for model in (network, OneBackward(network))]
    np.testing.assert_array_equal(*counts)
    check_model(OneBackward(network), inputs)
