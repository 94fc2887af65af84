"""The last linear layer of a network, and attacks on what is put in its place."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._query import QueryCounter
from distillguard.evaluation.diagnosis import _active
from distillguard.evaluation.diagnosis._active import (
    Readout,
    Rewired,
    apart,
    fitted,
    hits,
    seen_by_last_layer,
)
from test_diagnosis_by_hand import probed

ASKED = torch.linspace(-1, 1, 15).view(5, 3)


class Twice(nn.Module):
    """Asks its last layer twice about each batch."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.last(self.last(inputs))


class Sequence(nn.Module):
    """Asks a layer about inputs with an axis more."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.last(inputs[:, None])[:, 0]


class Within(nn.Module):
    """A layer of another width, and columns made of its outputs."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 4)

    def forward(self, inputs):
        return self.last(inputs)[:, :3]


class Raises(nn.Linear):
    """Takes no hooks."""

    def register_forward_hook(self, *given, **told):
        raise RuntimeError("frozen")


def build(kind):
    torch.manual_seed(0)
    return {
        "plain": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)),
        "bent": lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh()),
        "frozen": lambda: nn.Sequential(nn.Linear(3, 3), Raises(3, 3)),
        "twice": Twice,
        "sequence": Sequence,
        "within": Within,
        "none": lambda: nn.Sequential(nn.Tanh()),
    }[kind]()


@pytest.mark.parametrize("batch_size", [2, 5])
@pytest.mark.parametrize(
    ("kind", "place"),
    [("plain", 2), ("bent", 0), ("frozen", None), ("twice", None), ("sequence", None),
     ("within", None), ("none", None)],
)  # fmt: skip
def test_the_last_layer_is_one_that_makes_a_row_of_each_example(kind, place, batch_size):
    network = build(kind).eval()
    output, given, layer = seen_by_last_layer(
        QueryCounter(network), ASKED, torch.float32, batch_size
    )
    with torch.no_grad():
        logits = network(ASKED)
        if kind == "frozen":
            # What is before the frozen layer has the shape of the logits too.
            assert layer is network[0]
            torch.testing.assert_close(output, network[0](ASKED))
        elif place is None:
            assert layer is None
            torch.testing.assert_close(output, logits)
            assert given is output or given.equal(output)
        else:
            assert layer is network[place]
            torch.testing.assert_close(output, layer(network[:place](ASKED)))
            torch.testing.assert_close(given, network[:place](ASKED))
    assert not any(module._forward_hooks for module in network.modules())


def test_a_function_has_no_layers_and_a_model_that_fails_keeps_no_hooks():
    layer = nn.Linear(3, 3)
    output, given, found = seen_by_last_layer(
        QueryCounter(lambda x: layer(x)), ASKED, torch.float32, 5
    )
    assert found is None
    torch.testing.assert_close(output, layer(ASKED))
    assert given.equal(output)
    network = nn.Sequential(layer, nn.Linear(9, 2))  # which do not fit each other
    with pytest.raises(RuntimeError):
        seen_by_last_layer(QueryCounter(network), ASKED, torch.float32, 5)
    assert not layer._forward_hooks


def test_images_are_apart_whose_balls_do_not_meet():
    probe = probed(nn.Identity(), torch.tensor([[0.0], [0.25], [0.5], [0.75], [0.125], [1.0]]))
    probe.threat = ThreatModel("linf", 0.125, (0.0, 1.0))
    # Balls that touch do meet; 0.75 is far enough from 0, and not from 0.5.
    assert apart(probe).tolist() == [0, 2, 5]
    probe.threat = ThreatModel("linf", 0.1, (0.0, 1.0))
    assert apart(probe).tolist() == [0, 1, 2, 3, 5]
    assert apart(probe).dtype == torch.int64
    probe.inputs = probe.inputs[:0]
    assert (apart(probe).tolist(), apart(probe).dtype) == ([], torch.int64)


@pytest.mark.parametrize(("step", "counted"), [(0.125, 4), (0.375, 0)])
def test_an_attack_that_works_in_place_is_judged_by_the_image_as_it_was(step, counted):
    inputs = torch.tensor([[0.0], [0.125], [0.25], [0.375]])

    def lead(x):
        return torch.stack([0 * x[:, 0], torch.full_like(x[:, 0], 2.0)], dim=1)

    def attack(model, x, labels):
        labels += 1
        x += step
        return x

    probe = probed(lead, inputs.clone())
    probe.threat = ThreatModel("linf", 0.25, (0.0, 1.0))
    specs = {"a": SimpleNamespace(attack=attack, norm="linf")}
    assert hits(probe, QueryCounter(lead), torch.arange(4), specs) == counted
    assert probe.inputs.equal(inputs)
    assert probe.labels.tolist() == [0] * 4


def test_a_column_that_is_neither_of_two_is_out_of_reach():
    images = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    readout = Readout(
        torch.eye(2), torch.tensor([1.0, -1.0]), torch.tensor([-3.0, -5.0]),
        torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]]),
    )  # fmt: skip
    subject = Rewired(QueryCounter(nn.Identity()), None, readout, images, "linf")
    asked = torch.tensor([[0.5, 1.0], [1.5, 1.5]]).requires_grad_()
    answers = subject(asked)
    assert answers.tolist() == [[0.75, -3, -0.75], [-5, 0.25, -0.25]]
    answers[:, 2].sum().backward()
    assert asked.grad.tolist() == [[-0.5, 0], [0, -0.5]]


def test_the_other_class_is_the_best_of_the_others_and_the_rest_is_out_of_reach():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.125], [1.0, 1.0]])
    own = torch.tensor([0.5, 4.0, 1.0, 3.0])
    readout = fitted(features, own, 1)
    assert readout.signs.tolist() == [0, 0.5, 0, -0.5]
    # A lead of 4 - 3, less half of which the range of 4 - 0.5 lies below.
    assert readout.rest.item() == pytest.approx(1 / 2 - 3.5)
    leads = features.double() @ readout.weight + readout.offset
    assert leads[0].item() == pytest.approx(1)
    # Zero at four fifths of the way from the inner point to the edge.
    share = (0 - leads[1]) / (leads[2] - leads[1])
    assert share.item() == pytest.approx(_active.BORDER)
