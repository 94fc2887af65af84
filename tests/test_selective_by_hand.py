"""The descent against a classifier and its detectors, step by step, on a plane."""

import pytest
import torch
from torch import nn

from distillguard import attacks
from distillguard.defenses import Detector, LayeredNetwork
from distillguard.evaluation import _selective
from distillguard.evaluation._selective import _across, _direction, selective_pgd


class Plane(nn.Module):
    """Class 1 where the first value is above a half."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, inputs):
        self.asked.append(inputs.detach().clone())
        lead = inputs[:, 0] - 0.5
        return torch.stack([-lead, lead], dim=1)


class Weighed(Detector):
    """As suspicious as a weighed sum of the values is large."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = torch.tensor(weights)

    def score(self, model, inputs):
        return inputs @ self.weights


def guard(*weights, threshold=0.5):
    whole = LayeredNetwork(Plane(), [], [Weighed(*weights)])
    whole.thresholds = torch.tensor([threshold])
    return whole.eval()


def slopes_of(margin, alarm):
    """Functions of two values with these slopes, and where they are asked."""
    asked = torch.full((len(margin), 2), 0.5).requires_grad_()
    margin, alarm = torch.tensor(margin), torch.tensor(alarm)

    def again():
        return (asked * margin).sum(dim=1) - 0.5, (asked * alarm).sum(dim=1)

    return asked, again


def test_each_example_goes_where_it_is_not_yet():
    # Of slopes (1, 0) the margin is 0 and not yet there; of (3, 0) it is 1, and the alarm counts.
    asked, again = slopes_of(
        [[1.0, 0.0], [3.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0], [0, -1.0]]
    )
    late = _direction(*again(), asked, None)
    assert late.tolist() == [[1, 0], [-1, -1], [1, 0]]
    early = _direction(*again(), asked, again)
    # Up the margin, less what raises the alarm: (1, 0) less a half of (1, 1). Down the alarm, less
    # what lowers the margin. The third way harms nothing.
    torch.testing.assert_close(early, torch.tensor([[0.5, -0.5], [0.0, -1.0], [1.0, 0.0]]))


def test_an_alarm_without_a_slope_leaves_the_margin_its_own():
    asked, again = slopes_of([[1.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])

    def deaf():
        return again()[0], torch.zeros(2, requires_grad=True) + 1

    early = _direction(*deaf(), asked, deaf)
    assert early.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("linf", [0.25, -0.25]), ("l2", [0.15, -0.2]), ("l1", [0, -0.25]),
        # Ten widths for the largest part, where the radius is a count.
        ("l0", [7.5, -10.0]),
    ],
)  # fmt: skip
def test_a_step_across_is_as_long_as_the_radius(norm, expected):
    gradient = torch.tensor([[3.0, -4.0]])
    width = torch.ones(1, 2)
    found = _across(gradient, norm, 0.25, width)
    assert found[0].tolist() == pytest.approx(expected)
    if norm == "l0":
        # A slope counts by how far its value may go.
        wide = _across(gradient, norm, 0.25, torch.tensor([[2.0, 1.0]]))
        assert wide[0].tolist() == pytest.approx([20.0, -10 * 4 / 6])


@pytest.mark.parametrize("batch_size", [2, 3])
def test_a_descent_stays_in_the_ball_and_asks_no_more_of_what_is_through(monkeypatch, batch_size):
    whole = guard(1.0, 1.0, threshold=0.9)
    inputs = torch.tensor([[0.375, 0.125], [0.375, 0.5625], [0.25, 0.875], [0.4375, 0.5]])
    labels = torch.zeros(4).long()
    told = []

    def start(model, x, y, **settings):
        told.append(settings)
        return x + torch.tensor([0.25, 0.0])

    monkeypatch.setattr(attacks, "pgd", start)
    settings = {"bounds": (0.0, 1.0), "mask": None, "batch_size": batch_size, "random_state": 5}
    found = selective_pgd(whole, inputs, labels, epsilon=0.25, steps=30, **settings)
    assert told == [{"epsilon": 0.25, "norm": "linf", "loss": "margin", "steps": 20, **settings}]
    assert (found - inputs).abs().max() <= 0.25 + 1e-6
    passed = (found[:, 0] > 0.5) & (found.sum(dim=1) <= 0.9)
    # The third has at least 0.625 in the second value, and cannot pass.
    assert passed.tolist() == [True, True, False, True]
    # The first passes as it is, and is asked about once.
    assert found[0].tolist() == [0.625, 0.125]
    asked = torch.cat(whole.network.asked)
    assert int((asked == found[0]).all(dim=1).sum()) == 1
    assert max(map(len, whole.network.asked)) == batch_size


def test_a_mask_and_bounds_hold_along_the_way():
    whole = guard(0.0, 1.0, threshold=0.3)
    mask = torch.tensor([[True, False]])
    inputs = torch.tensor([[0.375, 0.5], [0.375, 0.25]])
    found = selective_pgd(
        whole, inputs, torch.zeros(2).long(), epsilon=0.25, mask=mask, steps=8, random_state=0
    )
    assert found[:, 1].tolist() == [0.5, 0.25]
    bounds = (0.0, torch.tensor([0.5625, 1.0]))
    found = selective_pgd(
        whole, inputs, torch.zeros(2).long(), epsilon=0.25, bounds=bounds, steps=8, random_state=0
    )
    assert found[:, 0].max() <= 0.5625
    assert (found[:, 0] > 0.5).all()
    assert (found[:, 1] <= 0.3).all()


@pytest.mark.parametrize(("steps", "early"), [(4, 2), (5, 3), (1, 1)])
def test_the_first_half_of_the_steps_is_free_of_harm(monkeypatch, steps, early):
    ways = []

    def direction(margin, alarm, asked, again):
        ways.append(again is not None)
        return torch.zeros_like(asked)

    monkeypatch.setattr(_selective, "_direction", direction)
    whole = guard(0.0, 1.0, threshold=0.0)
    inputs = torch.full((1, 2), 0.25)
    selective_pgd(whole, inputs, torch.zeros(1).long(), epsilon=0.125, steps=steps, random_state=0)
    assert ways == [True] * early + [False] * (steps - early)


def test_without_detectors_the_first_attack_is_all():
    whole = LayeredNetwork(Plane(), [], []).eval()
    inputs = torch.full((2, 2), 0.375)
    found = selective_pgd(whole, inputs, torch.zeros(2).long(), epsilon=0.25, random_state=0)
    assert (found[:, 0] > 0.5).all()
    empty = selective_pgd(guard(1.0, 1.0), inputs[:0], torch.zeros(0).long(), epsilon=0.25)
    assert empty.shape == (0, 2)


@pytest.mark.parametrize("draws", [1, 3])
def test_every_step_asks_so_many_draws(monkeypatch, draws):
    whole = guard(0.0, 1.0, threshold=0.0)
    monkeypatch.setattr(attacks, "pgd", lambda model, x, y, **told: x)
    inputs = torch.full((1, 2), 0.25)
    told = {"epsilon": 0.125, "steps": 2, "draws": draws, "random_state": 0}
    selective_pgd(whole, inputs, torch.zeros(1).long(), **told)
    # Three questions, of which the first step alone follows both slopes, of two graphs.
    assert len(whole.network.asked) % draws == 0
    assert len(whole.network.asked) // draws in (3, 4)
