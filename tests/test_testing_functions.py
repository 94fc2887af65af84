"""check_softmax and check_loss: ours pass, and each broken promise is named."""

import pytest
import torch

from distillguard.exceptions import BrokenPromiseError
from distillguard.functional import cross_entropy, dlr_loss, margin_loss, softmax
from distillguard.testing import check_loss, check_softmax


@pytest.mark.parametrize("loss", [cross_entropy, margin_loss, dlr_loss])
def test_our_losses_pass(loss):
    check_loss(loss)


def test_our_softmax_passes():
    check_softmax(softmax)


def naive(z, t):
    return (z / t).exp() / (z / t).exp().sum(dim=1, keepdim=True)


SOFTMAXES = {
    "naive": (naive, {"overflow", "limits"}),
    "no temperature": (lambda z, t: softmax(z), {"temperature", "limits"}),
    "twice": (lambda z, t: 2 * softmax(z, t), {"sums-to-one", "limits"}),
    "upside down": (lambda z, t: softmax(-z, t), {"order", "limits"}),
    "detached": (lambda z, t: 2 * softmax(z, t).detach() - softmax(z, t), {"gradient"}),
    "squares": (lambda z, t: softmax((z / t) ** 3), {"shift"}),
}
LOSSES = {
    "mean": (lambda z, y: cross_entropy(z, y).mean(), {"one-value-each"}),
    "of the batch": (lambda z, y: cross_entropy(z - z.mean(0), y), {"one-value-each"}),
    "first class": (lambda z, y: cross_entropy(z, 0 * y), {"depends"}),
    "naive": (lambda z, y: -softmax(z).gather(1, y[:, None])[:, 0].log(), {"overflow"}),
    "logit": (lambda z, y: -z.gather(1, y[:, None])[:, 0], {"shift"}),
    "reversed": (lambda z, y: 2 * margin_loss(z, y).detach() - margin_loss(z, y), {"gradient"}),
}


def broken(check, function):
    with pytest.raises(BrokenPromiseError) as caught:
        check(function)
    return {one.promise for one in caught.value.broken}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_the_broken_promises_of_a_softmax_are_named(name):
    function, promises = SOFTMAXES[name]
    assert broken(check_softmax, function) == promises


@pytest.mark.parametrize("name", LOSSES)
def test_the_broken_promises_of_a_loss_are_named(name):
    function, promises = LOSSES[name]
    assert broken(check_loss, function) == promises


def test_the_example_is_one_row():
    with pytest.raises(BrokenPromiseError) as caught:
        check_softmax(naive, skip="limits")
    assert torch.equal(caught.value.broken[0].example, torch.tensor([[1e4, -1e4, 0.0]]))
