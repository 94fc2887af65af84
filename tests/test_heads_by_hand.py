"""The head of a network: which layer it is, and what multiplying the logits does."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from distillguard.networks import Scaled
from distillguard.training._scaled_head import find_head, multiply_logits, scaled_head


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x))


@pytest.mark.parametrize(
    ("network", "head"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "2"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.LogSoftmax(1)), "1"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Tanh()), None),
        (nn.Sequential(nn.Linear(3, 4), weight_norm(nn.Linear(4, 2))), "1"),
        (Tied(), None),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "1"),
    ],
)
def test_logits_are_multiplied_in_the_head_or_else_around_the_network(network, head):
    torch.manual_seed(0)
    network.eval()
    inputs = torch.rand(6, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits = network(inputs)
    assert find_head(network, inputs) is (None if head is None else network.get_submodule(head))
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert multiply_logits(network, inputs, 1.0) is network
    with scaled_head(network, inputs, 4.0):
        torch.testing.assert_close(network(inputs), logits)
        owners = [name for name, _ in network.named_parameters() if name.endswith("original")]
        assert bool(owners) is (head is not None)
    assert set(network.state_dict()) == set(before)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scaled = multiply_logits(network, inputs, 3.0, "teacher")
    assert (scaled is network) is (head is not None)
    assert isinstance(scaled, Scaled) is (head is None)
    centred, expected = (z - z.mean(1, keepdim=True) for z in (scaled(inputs), 3 * logits))
    torch.testing.assert_close(centred, expected, rtol=1e-4, atol=1e-5)
    (*_, said) = [str(each.message) for each in told] or [""]
    assert said.startswith("temperature=3 has no place in the weights of teacher") is (head is None)
    if head is None:
        assert (
            "its last layer, last (Linear)" if hasattr(network, "last") else "1 (Linear)"
        ) in said


class Linear(nn.Module):
    """Linear throughout, so that every layer multiplies; made in one order, used in another."""

    def __init__(self, order):
        super().__init__()
        sizes = {"body": (3, 4), "head": (4, 2), "last": (2, 2)}
        for name in order:
            self.add_module(name, nn.Linear(*sizes[name], bias=False))

    def forward(self, x):
        found = self.head(self.body(x))
        return nn.functional.linear(found, self.last.weight) if hasattr(self, "last") else found


@pytest.mark.parametrize(
    ("network", "name"),
    [(Linear(["head", "body"]), "head"), (Linear(["body", "head", "last"]), "last")],
)
def test_of_several_layers_that_multiply_the_one_used_last_is_the_head(network, name):
    assert find_head(network, torch.rand(6, 3)) is getattr(network, name)
