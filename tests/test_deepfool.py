"""What DeepFool promises beyond the contract of every attack."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import Halfspace, Recording
from distillguard._geometry import lp_norm
from distillguard.attacks import deepfool
from distillguard.functional import margin_loss

WIDE = (-10.0, 10.0)
DUAL = {"l2": 2.0, "linf": 1.0}

each_norm = pytest.mark.parametrize("norm", ["l2", "linf"])


class Affine(nn.Module):
    """Random logits ``W x + b``, whose class boundaries are planes."""

    def __init__(self, n_classes: int, n_inputs: int, seed: int, scale: float = 1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(n_classes, n_inputs + 1, generator=generator, dtype=torch.float64)
        self.weight, self.bias = nn.Parameter(drawn[:, 1:].clone()), nn.Parameter(drawn[:, 0])
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * (inputs.flatten(1) @ self.weight.T + self.bias)

    def distances(self, x: Tensor, label: int, norm: str) -> Tensor:
        """From one point to its boundary with each class; infinite for its own."""
        gaps = (self(x[None])[0] - self(x[None])[0, label]).abs()
        slopes = self.scale * (self.weight - self.weight[label])
        lengths = torch.linalg.vector_norm(slopes, ord=DUAL[norm], dim=1)
        return torch.where(lengths > 0, gaps / lengths, torch.inf).detach()


def inputs_of(n: int, seed: int = 0, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, width, generator=generator, dtype=torch.float64)


@each_norm
@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_one_step_reaches_a_plane_and_overshoots_by_the_share_asked_for(
    halfspace, examples, norm, overshoot
):
    inputs, labels = examples(8)
    model = Recording(halfspace)
    adversarial = deepfool(
        model, inputs, labels, norm=norm, steps=1, overshoot=overshoot, bounds=WIDE
    )
    distance = lp_norm(adversarial - inputs, norm)
    expected = (1 + overshoot) * halfspace.least_epsilon(inputs, norm)
    torch.testing.assert_close(distance, expected, rtol=1e-9, atol=0)
    assert sum(map(len, model.points)) == 2 * 8
    assert model.backwards == 8


@each_norm
@given(st.integers(0, 10_000), st.integers(2, 6), st.sampled_from([1e-3, 1.0, 1e4]))
def test_of_several_planes_the_nearest_is_crossed_at_any_scale_of_logits(
    norm, seed, n_classes, scale
):
    model, inputs = Affine(n_classes, 5, seed, scale), inputs_of(3, seed, 5)
    labels = model(inputs).argmax(dim=1)
    adversarial = deepfool(model, inputs, labels, norm=norm, overshoot=1e-6, bounds=WIDE)
    for x, label, found in zip(inputs, labels.tolist(), adversarial, strict=True):
        distances = model.distances(x, label, norm)
        assert model(found[None])[0].argmax() == distances.argmin()
        distance = torch.linalg.vector_norm(found - x, ord={"l2": 2, "linf": torch.inf}[norm])
        # A step is at least 1e-5 of the width of the bounds, however near the plane.
        expected = max(distances.min().item(), 1e-5 * (WIDE[1] - WIDE[0]))
        assert distance.item() == pytest.approx(expected, rel=1e-5)


def test_only_as_many_rivals_are_considered_as_asked_for():
    # The likeliest rival is not the nearest: its slope is small.
    model = Affine(3, 2, 0)
    model.weight.data = torch.tensor([[0.0, 0.0], [0.0, 1.0], [10.0, 0.0]], dtype=torch.float64)
    model.bias.data = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    inputs, labels = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    near = deepfool(model, inputs, labels, overshoot=0.0, bounds=WIDE)
    torch.testing.assert_close(
        near, torch.tensor([[0.1, 0.0]], dtype=torch.float64), atol=1e-3, rtol=0
    )
    far = deepfool(model, inputs, labels, overshoot=0.0, n_candidates=1, bounds=WIDE)
    torch.testing.assert_close(
        far, torch.tensor([[0.0, 0.5]], dtype=torch.float64), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(("n_candidates", "drawn"), [(1, 1), (2, 2), (3, 3), (10, 3)])
def test_a_step_draws_one_gradient_for_each_candidate(n_candidates, drawn):
    model = Affine(4, 12, 1)
    inputs = inputs_of(5)
    counted = Recording(model)
    deepfool(
        counted,
        inputs,
        model(inputs).argmax(dim=1),
        steps=1,
        n_candidates=n_candidates,
        bounds=WIDE,
    )
    assert counted.backwards == 5 * drawn


def test_a_point_on_the_boundary_itself_is_moved_across():
    model = Halfspace()
    inputs = torch.full((1, 3, 4), 0.5, dtype=torch.float64)
    assert model.signed_distance(inputs).abs() < 1e-12
    labels = torch.tensor([1])
    adversarial = deepfool(model, inputs, labels)
    assert margin_loss(model(adversarial), labels) > 0
    assert lp_norm(adversarial - inputs, "l2") < 1e-3


@each_norm
def test_a_class_that_ties_everywhere_and_slopes_nowhere_is_no_boundary(norm):
    def model(points: Tensor) -> Tensor:
        flat = 0 * points[:, 0]
        return torch.stack([flat, flat, points[:, 0] - 0.6], dim=1)

    adversarial = deepfool(model, torch.full((1, 3), 0.5), torch.tensor([0]), norm=norm)
    assert model(adversarial).argmax(dim=1).item() == 2


@each_norm
def test_the_least_step_doubles_up_to_the_width_of_the_bounds(norm):
    # The gap is 1e-9 of the slope all along, so that the least step alone leads anywhere: a share
    # of 1e-5 of the width at first, twice as much each time, and the width itself after 17 steps.
    asked = []

    def model(points: Tensor) -> Tensor:
        asked.append(points.detach().clone())
        slope = 1e9 * (points[:, 0] - points[:, 0].detach())
        return torch.stack([0 * slope, slope - 1.0], dim=1)

    x = torch.full((1, 1), -1e6, dtype=torch.float64)
    bounds = (x[0] - 2.0, x[0] + 1e6)
    width = 1e6 + 2
    deepfool(
        Recording(model), x, torch.tensor([0]), norm=norm, steps=19, overshoot=0.0, bounds=bounds
    )
    points = torch.cat(asked).flatten()
    moves = (points[1:] - points[:-1]) / width
    expected = 1e-5 * 2.0 ** torch.arange(len(moves), dtype=torch.float64)
    assert len(moves) == 19
    torch.testing.assert_close(moves[:16], expected[:16], rtol=1e-6, atol=0)


def test_no_step_is_longer_than_the_bounds_are_wide():
    # The other coordinate has a millionth of the slope: a step of the width moves it by as much.
    slope = torch.tensor([1.0, 1e-6], dtype=torch.float64)

    def model(points: Tensor) -> Tensor:
        lead = (points - points.detach()) @ slope
        return torch.stack([0 * lead, lead - 1e-9], dim=1)

    recorded = Recording(model)
    deepfool(recorded, torch.full((1, 2), 0.5).double(), torch.tensor([0]), steps=40, overshoot=0.0)
    moved = torch.cat(recorded.points)[:, 1] - 0.5
    assert 1e-6 < moved[-1] <= 40e-6


@each_norm
def test_a_target_is_reached_past_the_classes_in_between(norm):
    model, inputs = Affine(5, 12, 3), inputs_of(6)
    ranked = model(inputs).argsort(dim=1, descending=True)
    for place in (1, 4):
        targets = ranked[:, place]
        adversarial = deepfool(model, inputs, targets, norm=norm, targeted=True, bounds=WIDE)
        assert (model(adversarial).argmax(dim=1) == targets).all()


# Algorithm 2, written a second time: one example, plain loops, no bounds.


def algorithm_2(model, x0: Tensor, label: int, norm: str, overshoot: float, steps: int) -> Tensor:
    x, total = x0, torch.zeros_like(x0)
    for _ in range(steps):
        if model(x[None])[0].argmax().item() != label:
            return x
        jacobian = torch.autograd.functional.jacobian(lambda point: model(point[None])[0], x)
        logits = model(x[None])[0].detach()
        best = None
        for k in range(len(logits)):
            if k != label:
                w, f = jacobian[k] - jacobian[label], logits[k] - logits[label]
                ratio = f.abs() / (w.norm() if norm == "l2" else w.abs().sum())
                if best is None or ratio < best[0]:
                    best = (ratio, w / w.norm() if norm == "l2" else w.sign())
        total = total + best[0] * best[1]
        x = x0 + (1 + overshoot) * total
    return x if model(x[None])[0].argmax().item() != label else x0


@each_norm
def test_agrees_with_the_algorithm_in_plain_loops(tangled, norm):
    inputs = inputs_of(8, seed=4)
    labels = tangled.decided(inputs)
    adversarial = deepfool(tangled, inputs, labels, norm=norm, bounds=(-0.5, 1.5), overshoot=0.05)
    tangled.eval()
    expected = torch.stack(
        [
            algorithm_2(tangled, x, label, norm, 0.05, 50)
            for x, label in zip(inputs, labels.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-9)
    assert (adversarial != inputs).flatten(1).any(dim=1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "norm must be one of 'l2', 'linf', got 'l1'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"overshoot": -0.1}, "overshoot must be a finite number of at least 0, got -0.1"),
        ({"n_candidates": 0}, "n_candidates must be at least 1, got 0"),
    ],
    ids=str,
)
def test_settings_are_checked(tangled, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        deepfool(tangled, torch.zeros(1, 12), torch.tensor([0]), **settings)
