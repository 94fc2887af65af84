"""What adaptive attacks ask, count and refuse: each figure by hand or by a second route."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from conftest import Watch
from distillguard._account import Account, charged
from distillguard.adaptive import (
    Surrogate,
    averaged,
    gradient_from,
    straight_through,
)
from distillguard.adaptive._gradient_from import told
from distillguard.adaptive._lending import lent
from distillguard.networks import Rejecting

# Counts.


def inner(watch):
    """A rounding, and a network that counts what it is asked."""
    net = nn.Linear(4, 3)
    net.register_forward_hook(watch)
    return nn.Sequential(nn.Threshold(0.1, 0.0), net)


MADE = {
    "straight_through": lambda model: straight_through(model, lambda x: x[:, :3]),
    "part": lambda model: straight_through(model, part="0"),
    "before": lambda model: straight_through(model, before=model[1]),
    "averaged": lambda model: averaged(model, 3),
    "averaged, part": lambda model: averaged(straight_through(model, part="0"), 3),
}


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("name", MADE)
def test_an_account_has_the_passes_that_a_hook_inside_the_model_counts(name, wanted):
    watch, account = Watch(), Account()
    attacked = MADE[name](inner(watch))
    inputs = torch.rand(5, 4, requires_grad=wanted)
    with charged(account):
        answers = attacked(inputs)
        if wanted:
            answers.sum().backward()
    assert account.forwards == watch.forwards > 0
    # Weights want gradients too: a pass back is one whether the inputs do or not.
    backwards = 5 * (3 if "averaged" in name else 1) if wanted else 0
    assert account.backwards == backwards
    assert list(account.stand_ins) == [attacked.adaptation]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_student_is_asked_for_a_gradient_alone_and_its_passes_count(wanted):
    model, student = Watch(), Watch()
    nets = nn.Linear(4, 3), nn.Linear(4, 3)
    for net, watch in zip(nets, (model, student), strict=True):
        net.register_forward_hook(watch)
    attacked, account = gradient_from(*nets), Account()
    with charged(account):
        answers = attacked(torch.rand(5, 4, requires_grad=wanted))
        if wanted:
            answers.sum().backward()
    assert (model.forwards, student.forwards) == (5, 5 * wanted)
    assert (account.forwards, account.backwards) == (5 + 5 * wanted, 5 * wanted)
    assert student.backwards == 5 * wanted
    assert model.backwards == 0


# What is asked, and what it may do.


class Writes(nn.Module):
    """Works in place, as some preprocessing does."""

    def forward(self, x):
        with torch.no_grad():
            return x.mul_(2).clone()


@pytest.mark.parametrize(
    "make",
    [
        lambda writes, net: nn.Sequential(straight_through(writes), net),
        lambda writes, net: straight_through(nn.Sequential(writes, net), part="0"),
        lambda writes, net: straight_through(nn.Sequential(writes, net), before=net),
        lambda writes, net: gradient_from(nn.Sequential(writes, net), net),
    ],
    ids=["alone", "part", "before", "student"],
)
def test_a_model_that_writes_into_its_input_answers_right_and_the_callers_stays(make):
    net, inputs = nn.Linear(4, 3), torch.rand(5, 4)
    asked = inputs.clone().requires_grad_()
    torch.testing.assert_close(make(Writes(), net)(asked), net(2 * inputs))
    assert asked.detach().equal(inputs)
    mean = averaged(nn.Sequential(Writes(), net), 2)(asked)
    torch.testing.assert_close(mean, net(2 * inputs).log_softmax(1))
    assert asked.detach().equal(inputs)


class Several(nn.Module):
    """A part that takes two arguments, one of them by name as well."""

    def __init__(self, by_name):
        super().__init__()
        self.by_name = by_name

    def forward(self, x, factor=1.0):
        return (x.detach() * factor).round()


class Asks(nn.Module):
    def __init__(self, by_name):
        super().__init__()
        self.part, self.net = Several(by_name), nn.Linear(4, 3)

    def forward(self, x):
        if self.part.by_name == "all":
            return self.net(self.part(x=x, factor=3.0))
        return self.net(self.part(x, factor=3.0) if self.part.by_name else self.part(x, 3.0))


@pytest.mark.parametrize("by_name", [True, False])
def test_a_part_is_given_all_of_its_arguments_and_stepped_over_along_the_first(by_name):
    model, inputs = Asks(by_name), torch.rand(5, 4)
    answers = straight_through(model, part="part")(asked := inputs.clone().requires_grad_())
    assert answers.equal(model.net((3 * inputs).round()))
    (gradient,) = torch.autograd.grad(answers[:, 1].sum(), asked)
    assert gradient.equal(model.net.weight[1].expand(5, 4))


def test_a_part_that_is_given_its_input_by_name_is_left_as_it_is():
    model, inputs = Asks("all"), torch.rand(5, 4)
    attacked = straight_through(model, part="part")
    assert attacked(inputs.clone().requires_grad_()).equal(model(inputs))


@pytest.mark.parametrize("more", [(), (0.5,)])
def test_what_is_done_before_a_module_is_stepped_over_whatever_its_shape(more):
    class Head(nn.Linear):
        def forward(self, x, shift=0.0):
            return super().forward(x) + shift

    head = Head(4, 3)

    def model(images):
        return head((4 * images).round().flatten(1) / 4, *more)

    inputs = torch.rand(5, 1, 2, 2)
    attacked = straight_through(model, before=head)
    answers = attacked(asked := inputs.clone().requires_grad_())
    assert answers.equal(model(inputs))
    (gradient,) = torch.autograd.grad(answers[:, 2].sum(), asked)
    assert gradient.equal(head.weight[2].view(1, 1, 2, 2).expand(5, 1, 2, 2))
    assert attacked(inputs).equal(model(inputs))
    assert attacked.adaptation.startswith("all that is done before its Head with the gradient")
    assert not head._forward_pre_hooks


@pytest.mark.parametrize(
    ("before", "ask"),
    [
        (nn.Linear(2, 3), lambda before, x: before(x[:, :2])),
        (nn.Identity(), lambda before, x: before("x")),
    ],
)
def test_a_module_that_is_given_something_else_than_the_inputs_is_refused_and_freed(before, ask):
    attacked = straight_through(partial(ask, before), before=before)
    with pytest.raises(ValueError, match=r"before must be .* as target, \(5, 4\), got one"):
        attacked(torch.rand(5, 4).requires_grad_())
    assert not before._forward_pre_hooks


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"part": "0"}, ValueError, "part must be None where before is given, got both"),
        ({"backward": torch.sin}, ValueError, "backward must be 'identity' where before is given"),
        ({"before": "0"}, TypeError, "before must be a module inside target, got the string '0'"),
        ({"target": 3}, TypeError, "target must be a module or a callable"),
    ],
)
def test_what_is_stepped_over_before_a_module_is_all_of_it(arguments, error, message):
    model = nn.Sequential(nn.Tanh(), nn.Linear(4, 3))
    given = {"target": model, "before": model[1]} | arguments
    with pytest.raises(error, match=message):
        straight_through(**given)


def test_a_model_is_no_part_of_itself_and_is_named_by_what_it_is():
    model = nn.Sequential(nn.Sequential(nn.Tanh(), nn.ReLU()))
    with pytest.raises(ValueError, match=r"part must be a module inside target, got Sequential"):
        straight_through(model, part=model)
    inside = straight_through(model, part=model[0][1])
    assert inside.part == "0.1"
    assert inside.adaptation == "'0.1' (ReLU) with the gradient of the identity (BPDA)"
    with pytest.raises(TypeError, match="target must return a tensor, got 3"):
        straight_through(lambda x: 3)(torch.rand(2, 2).requires_grad_())
    nameless = straight_through(partial(torch.round, decimals=1), partial(torch.mul, other=1))
    assert nameless.adaptation == "partial with the gradient of partial (BPDA)"
    with pytest.raises(ValueError, match="backward must return what the part returns"):
        straight_through(torch.round, lambda x: 3)(torch.rand(2, 2).requires_grad_())


def test_what_is_no_model_or_answers_no_logits_is_refused_by_its_name():
    net, inputs = nn.Linear(4, 3), torch.rand(5, 4, requires_grad=True)
    for make, name in (
        (lambda: gradient_from(3, net), "model"),
        (lambda: gradient_from(net, 3), "student"),
        (lambda: averaged(3), "model"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be a module or a callable"):
            make()
    for model, student, name in (
        (lambda x: net(x)[:, 0], net, "model"),
        (net, lambda x: net(x)[:, 0], "student"),
        (net, lambda x: {"logits": net(x)}, "student"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{name} must return"):
            gradient_from(model, student)(inputs)
    with pytest.raises(ValueError, match=r"^model must return"):
        averaged(lambda x: net(x)[:, 0], 2)(inputs)


def test_a_model_that_computes_in_numpy_is_stepped_over_before_its_network():
    net, inputs = nn.Linear(4, 3), torch.rand(5, 4)

    def model(x):
        return net(torch.from_numpy((4 * x.numpy()).round() / 4))

    attacked = straight_through(model, before=net)
    answers = attacked(asked := inputs.clone().requires_grad_())
    assert answers.equal(model(inputs))
    (gradient,) = torch.autograd.grad(answers[:, 0].sum(), asked)
    assert gradient.equal(net.weight[0].expand(5, 4))


def test_lent_gradients_pass_through_the_transforms_of_torch_func():
    x = torch.rand(5, 3)
    grad = torch.func.grad(lambda x: (2 * lent(x.round(), x)).sum())
    assert torch.func.vmap(grad)(x).equal(torch.full((5, 3), 2.0))
    lender = x.double().requires_grad_()
    lent(x.round(), lender).sum().backward()
    assert lender.grad.equal(torch.ones(5, 3, dtype=torch.float64))


# Means, and students told of.


def test_one_draw_is_enough_and_its_mean_the_log_softmax():
    logits = torch.tensor([[0.0, math.log(3)]])
    found = averaged(lambda x: logits, 1)(torch.rand(1, 2))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75]]).log())
    assert repr(averaged(nn.Tanh(), 7)).splitlines()[0] == "Averaged("
    assert "draws=7" in repr(averaged(nn.Tanh(), 7))
    assert averaged(nn.Tanh(), 7).adaptation == "the mean over 7 draws (EOT)"


def test_a_rejecting_model_rejects_behind_every_wrapper_and_no_other_does():
    plain = nn.Linear(4, 3)
    for net, whether in ((Rejecting(nn.Linear(4, 3)), True), (plain, False)):
        model = nn.Sequential(nn.Tanh(), plain)
        model.rejects = whether
        for attacked in (
            averaged(net, 2),
            gradient_from(net, plain),
            straight_through(model, part="0"),
        ):
            assert attacked.rejects is whether


def test_a_distilled_student_is_told_with_what_it_cost():
    costs = {"forwards": 600, "seconds": 1.26, "agreement": 0.4567}
    student = Surrogate(nn.Linear(4, 3), **costs)
    assert told(student) == (
        "Linear distilled from 600 answers of the model in 1.3 s, which agrees with 45.7 % of them"
    )
    assert told(torch.tanh) == "tanh"
    assert repr(student).startswith("Surrogate(\n  forwards=600, seconds=1.3, agreement=0.457")
    assert (
        gradient_from(nn.Tanh(), student).adaptation
        == f"the gradient of a student, {told(student)}"
    )
    assert not student.rejects
    assert student.training
