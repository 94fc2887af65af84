"""Counts as a threat model: values, or pixels with all their channels."""

import pytest
import torch
from torch import nn

from distillguard import attacks, evaluate
from distillguard._l0 import project


class Sum(nn.Module):
    """Class 1 once the sum over all values exceeds ``level``."""

    def __init__(self, level: float):
        super().__init__()
        self.level = level

    def forward(self, inputs):
        value = inputs.flatten(1).sum(dim=1) - self.level
        return torch.stack([-value, value], dim=1)


@pytest.mark.parametrize("attacks_", ["quick", "standard"])
@pytest.mark.parametrize(("norm", "least"), [("l0", 4), ("l0_pixels", 2)])
def test_robust_accuracy_falls_exactly_where_the_count_suffices(attacks_, norm, least):
    # From 0, four values at 1 are needed to exceed 3.5; a pixel of three channels brings three.
    X, y = torch.zeros(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64)
    found = [
        evaluate(
            Sum(3.5), X, y, norm=norm, epsilon=k, attacks=attacks_, diagnosis=None, random_state=0
        ).robust_accuracy
        for k in (least - 1, least)
    ]
    assert found == [1.0, 0.0]


def test_a_count_is_a_whole_number_and_at_most_what_can_change():
    X, y = torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^epsilon must be a whole number of values in l0, got "):
        evaluate(Sum(1.0), X, y, norm="l0", epsilon=0.3)
    with pytest.raises(ValueError, match=r"^epsilon must be at most 4, .*counts the pixels"):
        attacks.pgd(Sum(1.0), X, y, norm="l0_pixels", epsilon=5)


def test_the_projection_keeps_the_changes_that_the_box_leaves_largest():
    centre, points = torch.tensor([[0.9, 0.2, 0.2]]), torch.tensor([[1.2, 0.9, 0.4]])
    low, high = torch.zeros(1, 3), torch.ones(1, 3)
    # Gains: 0.09 - 0.04 = 0.05, 0.49, 0.04.
    kept = project(points, centre, 2, low, high, "l0")
    torch.testing.assert_close(kept, torch.tensor([[1.0, 0.9, 0.2]]))


def test_the_diagnosis_leaves_out_what_has_no_l0_form_and_fails_nowhere():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    X = torch.rand(12, 1, 4, 4)
    y = model(X).argmax(dim=1)
    report = evaluate(model, X, y, norm="l0", epsilon=1, diagnosis="full", random_state=0)
    assert report.observations.failed == {}
    assert report.observations.only_one_step is None
    assert report.observations.active_tested is None
